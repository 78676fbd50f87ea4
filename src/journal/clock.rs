//! The two clocks of the journal, and its own age, by which records expire. PURE but for [`SystemClock`].
//!
//! A key expires `keep` after its payment ended and never earlier: a key that is forgotten too soon sells twice. A
//! wall clock cannot decide that, since it steps: a device without a battery starts years behind and jumps forward
//! when the network comes. So the journal has an age of its own: the time it has been seen running, measured by the
//! monotonic clock, added up over its lives and stored with every commit. A record notes the age at its end and
//! expires when the journal has grown older by `keep`. Time in which no bridge ran is not counted, and neither is what
//! passed between the last commit and a crash: both only make a record live longer.

use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::{unix_ms, whole_ms};

/// Where the journal reads the time.
pub(super) trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the Unix epoch, for people to read. May step in either direction.
    fn wall_ms(&self) -> i64;

    /// Time since some fixed moment of this process. Never steps.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub(super) struct SystemClock {
    started: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        unix_ms()
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// How long the journal has run, over all its lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    stored_ms: u64,
    resumed_at: Duration,
}

impl Age {
    /// Goes on from a stored age, at a reading of the monotonic clock.
    pub(super) fn resume(stored_ms: u64, monotonic: Duration) -> Self {
        Self { stored_ms, resumed_at: monotonic }
    }

    /// The age in milliseconds at a later reading.
    pub(super) fn at_ms(self, monotonic: Duration) -> u64 {
        self.stored_ms.saturating_add(whole_ms(monotonic.saturating_sub(self.resumed_at)))
    }
}

/// The youngest age at which a record may have ended and be let go of at `age_ms`; none while the journal itself is
/// younger than `keep`.
pub(super) fn horizon_ms(age_ms: u64, keep: Duration) -> Option<u64> {
    age_ms.checked_sub(whole_ms(keep))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_record_is_let_go_of_before_keep_has_been_seen_to_pass(
            lives in prop::collection::vec((0..100_000u64, 0..100_000u64), 1..6),
            keep_ms in 0..200_000u64,
            ended_after in 0..100_000u64,
        ) {
            // Every life starts its monotonic clock anywhere and stores its age at its end.
            let mut stored = 0;
            let mut ran = 0;
            let mut ended_age = None;
            for (start, runs) in lives {
                let start = Duration::from_millis(start);
                let age = Age::resume(stored, start);
                ended_age.get_or_insert_with(|| age.at_ms(start + Duration::from_millis(ended_after.min(runs))));
                stored = age.at_ms(start + Duration::from_millis(runs));
                ran += runs;
                prop_assert_eq!(stored, ran);
            }
            let since_end = ran - ended_age.unwrap_or_default();
            let gone = horizon_ms(stored, Duration::from_millis(keep_ms)).is_some_and(|at| ended_age.unwrap_or_default() <= at);
            prop_assert_eq!(gone, since_end >= keep_ms);
        }
    }

    #[test]
    fn a_monotonic_reading_from_before_the_resumption_ages_nothing() {
        let age = Age::resume(7, Duration::from_secs(9));
        assert_eq!(age.at_ms(Duration::from_secs(1)), 7);
    }
}
