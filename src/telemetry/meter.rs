//! What is counted while it happens, so that a scrape only has to read: a few atomic operations, no lock, no memory.
//!
//! Counts are exact. A scrape that reads while others count may see one event in a sum and not yet in its bucket; the
//! next scrape sees both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a duration's buckets, in microseconds: from an answer out of memory to the deadline of any answer.
pub const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// How often something happened.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// It happened once more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Durations {
    /// By [`BOUNDS_US`]; what is longer than all of them is in [`Self::longer`].
    buckets: [AtomicU64; BOUNDS_US.len()],
    longer: AtomicU64,
    sum_us: AtomicU64,
}

impl Durations {
    /// It took so long once.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().zip(&self.buckets).find(|(bound, _)| us <= **bound);
        bucket.map_or(&self.longer, |(_, bucket)| bucket).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many were no longer than each bound, how many there were, and their sum in microseconds.
    #[must_use]
    pub fn read(&self) -> Read {
        let mut count = 0;
        let up_to = std::array::from_fn(|index| {
            count += self.buckets.get(index).map_or(0, |bucket| bucket.load(Ordering::Relaxed));
            count
        });
        count += self.longer.load(Ordering::Relaxed);
        Read { up_to, count, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// What [`Durations`] held at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// How many were no longer than each of [`BOUNDS_US`].
    pub up_to: [u64; BOUNDS_US.len()],
    /// How many there were.
    pub count: u64,
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_every_bucket_that_is_not_shorter() {
        let durations = Durations::default();
        for us in [0, 100, 101, 10_000_000, 10_000_001] {
            durations.note(Duration::from_micros(us));
        }
        let read = durations.read();
        assert_eq!((read.up_to[0], read.up_to[1], read.up_to[14], read.up_to[15]), (2, 3, 3, 4));
        assert_eq!((read.count, read.sum_us), (5, 20_000_202));
    }
}
