//! Connections that showed no key yet: so many, and no more.
//!
//! The protocol carries no credential at connect, so strangers hold connections like everybody else. What they cost is
//! bounded here. A fixed deadline would be simpler and would hurt the wrong ones: the vendor's till says nothing after
//! it reconnected until its cashier does something, and would be thrown out again and again. So a connection without a
//! key stays as long as there is room; once it had time enough to show one, it gives way to a newcomer who needs its
//! place. Where listening needs no key nobody gives way, and newcomers are turned away.
//!
//! Who gives way is of the address that has the most places, so that one address takes none from others; where that has
//! more than the newcomer's would have, it gives way at once.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::client::network;

/// The places of those who showed no key.
#[derive(Debug)]
pub(super) struct AnonymousLimit {
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
    places: BTreeMap<u64, Holder>,
    /// How many places each address has.
    counts: HashMap<IpAddr, usize>,
}

/// A place that is taken.
#[derive(Debug)]
struct Holder {
    since: Instant,
    address: IpAddr,
    evicted: CancellationToken,
}

impl Taken {
    fn remove(&mut self, number: u64) -> Option<Holder> {
        let place = self.places.remove(&number)?;
        if let Some(count) = self.counts.get_mut(&place.address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place.address);
            }
        }
        Some(place)
    }

    /// The place that somebody of `address` gets from another.
    fn victim(&self, address: IpAddr, now: Instant, patience: Duration) -> Option<u64> {
        let count = |address: &IpAddr| self.counts.get(address).copied().unwrap_or_default();
        let most = self.counts.values().copied().max()?;
        let (number, oldest) = self.places.iter().find(|(_, place)| count(&place.address) == most)?;
        let had = now.saturating_duration_since(oldest.since);
        (most > count(&address) + 1 || had >= patience).then_some(*number)
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct AnonymousSlot {
    number: u64,
    evicted: CancellationToken,
    anonymous_limit: Arc<AnonymousLimit>,
}

impl AnonymousLimit {
    pub(super) fn new(most: usize, patience: Option<Duration>) -> Self {
        Self { most, patience, taken: Mutex::default() }
    }

    /// A place for a newcomer, if need be that of another who has not shown a key either.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<AnonymousSlot> {
        let (mut taken, address) = (self.taken(), network(address));
        if taken.places.len() >= self.most {
            let victim = taken.victim(address, now, self.patience?)?;
            taken.remove(victim)?.evicted.cancel();
        }
        let (number, evicted) = (taken.next, CancellationToken::new());
        taken.next += 1;
        *taken.counts.entry(address).or_default() += 1;
        taken.places.insert(number, Holder { since: now, address, evicted: evicted.clone() });
        Some(AnonymousSlot { number, evicted, anonymous_limit: Arc::clone(self) })
    }

    /// How many places are taken.
    pub(super) fn count(&self) -> usize {
        self.taken().places.len()
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock()
    }
}

impl AnonymousSlot {
    /// Resolves when the place is somebody else's.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for AnonymousSlot {
    fn drop(&mut self) {
        self.anonymous_limit.taken().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const SECOND: Duration = Duration::from_secs(1);

    fn is_evicted(place: &AnonymousSlot) -> bool {
        place.evicted.is_cancelled()
    }

    #[test]
    fn who_had_time_enough_gives_way_and_who_had_not_does_not() {
        let anonymous_limit = Arc::new(AnonymousLimit::new(2, Some(SECOND)));
        let start = Instant::now();
        let first = anonymous_limit.enter(HERE, start).unwrap();
        let second = anonymous_limit.enter(HERE, start + SECOND).unwrap();
        assert!(anonymous_limit.enter(HERE, start + SECOND / 2).is_none());
        let third = anonymous_limit.enter(HERE, start + SECOND).unwrap();
        assert_eq!([&first, &second, &third].map(is_evicted), [true, false, false]);
        assert!(anonymous_limit.enter(HERE, start + SECOND).is_none(), "the second has not had its second yet");
        drop(first);
        assert!(anonymous_limit.enter(HERE, start + SECOND).is_none(), "its place was given away long ago");
    }

    #[test]
    fn a_place_given_back_is_free_and_without_patience_nobody_gives_way() {
        let anonymous_limit = Arc::new(AnonymousLimit::new(1, None));
        let start = Instant::now();
        let place = anonymous_limit.enter(HERE, start).unwrap();
        assert!(anonymous_limit.enter(HERE, start + SECOND * 1_000).is_none());
        assert!(!is_evicted(&place));
        drop(place);
        assert!(anonymous_limit.enter(HERE, start).is_some());
    }

    #[test]
    fn one_address_takes_no_place_from_another_and_gives_way_at_once_where_it_has_the_most() {
        let anonymous_limit = Arc::new(AnonymousLimit::new(4, Some(SECOND)));
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, last, 0, 0, 0, 1]);
        let start = Instant::now();
        let till = anonymous_limit.enter(address(1), start).unwrap();
        let greedy: Vec<_> = (0..3).map(|_| anonymous_limit.enter(address(2), start).unwrap()).collect();
        assert!(anonymous_limit.enter(address(2), start).is_none(), "its own have had no time yet");
        let more = anonymous_limit.enter(address(2), start + SECOND).unwrap();
        assert!(is_evicted(&greedy[0]) && !is_evicted(&till), "it gives way to itself");
        let newcomer = anonymous_limit.enter(address(3), start).unwrap();
        assert!(is_evicted(&greedy[1]) && !is_evicted(&till), "and to others at once");
        assert_eq!(anonymous_limit.count(), 4);
        drop((newcomer, more));
    }
}
