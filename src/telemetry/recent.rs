//! How much there was of something within the last minute. PURE over given instants.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is counted together is forgotten together.
const SLOT: Duration = Duration::from_secs(5);
/// A minute, and the slot that is being filled.
const SLOTS: usize = 13;

/// Counts of `N` things within the last minute, to five seconds. Takes no memory before the first.
#[derive(Debug)]
pub struct Recent<const N: usize>(Mutex<Option<Box<Counts<N>>>>);

#[derive(Debug)]
struct Counts<const N: usize> {
    origin: Instant,
    /// By number of the slot, modulo [`SLOTS`]: that number, and what was counted in it.
    slots: [(usize, [u32; N]); SLOTS],
}

impl<const N: usize> Default for Recent<N> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<const N: usize> Recent<N> {
    /// Counts one of each thing for which `happened` is true.
    pub fn note(&self, now: Instant, happened: [bool; N]) {
        let mut counts = self.0.lock();
        let counts = counts.get_or_insert_with(|| Box::new(Counts { origin: now, slots: [(0, [0; N]); SLOTS] }));
        let number = counts.number(now);
        let Some((holds, slot)) = counts.slots.get_mut(number % SLOTS) else { return };
        if *holds != number {
            (*holds, *slot) = (number, [0; N]);
        }
        for (count, happened) in slot.iter_mut().zip(happened) {
            *count = count.saturating_add(u32::from(happened));
        }
    }

    /// What was counted within the last minute.
    #[must_use]
    pub fn last_minute(&self, now: Instant) -> [u64; N] {
        let counts = self.0.lock();
        let mut sums = [0; N];
        let Some(counts) = counts.as_ref() else { return sums };
        let number = counts.number(now);
        for (_, slot) in counts.slots.iter().filter(|(holds, _)| holds.saturating_add(SLOTS) > number) {
            for (sum, count) in sums.iter_mut().zip(slot) {
                *sum += u64::from(*count);
            }
        }
        sums
    }
}

impl<const N: usize> Counts<N> {
    fn number(&self, now: Instant) -> usize {
        let number = now.saturating_duration_since(self.origin).as_secs() / SLOT.as_secs();
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Nothing of the last minute is left out, and nothing older than 65 seconds is counted.
        #[test]
        fn the_last_minute_is_counted_to_one_slot(gaps_ms in proptest::collection::vec(0..20_000_u64, 1..60)) {
            let (recent, begun) = (Recent::<1>::default(), Instant::now());
            let mut now = begun;
            let mut noted = Vec::new();
            for gap_ms in gaps_ms {
                now += Duration::from_millis(gap_ms);
                recent.note(now, [true]);
                noted.push(now);
                let within = |span: u64| noted.iter().filter(|at| now - **at <= Duration::from_secs(span)).count() as u64;
                let [counted] = recent.last_minute(now);
                prop_assert!(counted >= within(60) && counted <= within(65), "{counted}");
            }
            prop_assert_eq!(recent.last_minute(now + Duration::from_secs(66)), [0]);
        }
    }

    #[test]
    fn each_thing_is_counted_by_itself() {
        let (recent, now) = (Recent::default(), Instant::now());
        recent.note(now, [true, false]);
        recent.note(now, [true, true]);
        assert_eq!(recent.last_minute(now), [2, 1]);
    }
}
