//! Connections that showed no key yet: so many, and no more.
//!
//! The protocol carries no credential at connect, so strangers hold connections like everybody else. What they cost is
//! bounded here. A fixed deadline would be simpler and would hurt the wrong ones: the vendor's till says nothing after
//! it reconnected until its cashier does something, and would be thrown out again and again. So a connection without a
//! key stays as long as there is room; once it had time enough to show one, it gives way to a newcomer who needs its
//! place. Where listening needs no key nobody gives way, and newcomers are turned away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The places of those who showed no key.
#[derive(Debug)]
pub(super) struct Threshold {
    /// How many there are.
    most: usize,
    /// How long a place is its holder's for certain; nothing: for good.
    patience: Option<Duration>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By number, so the first is the oldest.
    places: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    given_away: CancellationToken,
    threshold: Arc<Threshold>,
}

impl Threshold {
    pub(super) fn new(most: usize, patience: Option<Duration>) -> Self {
        Self { most, patience, taken: Mutex::default() }
    }

    /// A place for a newcomer, if need be that of the one who has had the longest time to show a key.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let mut taken = self.taken();
        if taken.places.len() >= self.most {
            let oldest = taken.places.first_entry()?;
            let had = now.saturating_duration_since(oldest.get().0);
            if self.patience.is_none_or(|patience| had < patience) {
                return None;
            }
            oldest.remove().1.cancel();
        }
        let (number, given_away) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.places.insert(number, (now, given_away.clone()));
        Some(Place { number, given_away, threshold: Arc::clone(self) })
    }

    /// How many places are taken.
    pub(super) fn count(&self) -> usize {
        self.taken().places.len()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when the place is somebody else's.
    pub(super) async fn given_away(&self) {
        self.given_away.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.threshold.taken().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn is_given_away(place: &Place) -> bool {
        place.given_away.is_cancelled()
    }

    #[test]
    fn who_had_time_enough_gives_way_and_who_had_not_does_not() {
        let threshold = Arc::new(Threshold::new(2, Some(SECOND)));
        let start = Instant::now();
        let first = threshold.enter(start).unwrap();
        let second = threshold.enter(start + SECOND).unwrap();
        assert!(threshold.enter(start + SECOND / 2).is_none());
        let third = threshold.enter(start + SECOND).unwrap();
        assert_eq!([&first, &second, &third].map(is_given_away), [true, false, false]);
        assert!(threshold.enter(start + SECOND).is_none(), "the second has not had its second yet");
        drop(first);
        assert!(threshold.enter(start + SECOND).is_none(), "its place was given away long ago");
    }

    #[test]
    fn a_place_given_back_is_free_and_without_patience_nobody_gives_way() {
        let threshold = Arc::new(Threshold::new(1, None));
        let start = Instant::now();
        let place = threshold.enter(start).unwrap();
        assert!(threshold.enter(start + SECOND * 1_000).is_none());
        assert!(!is_given_away(&place));
        drop(place);
        assert!(threshold.enter(start).is_some());
    }
}
