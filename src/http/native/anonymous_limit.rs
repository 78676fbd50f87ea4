//! The limit of native connections that have not authenticated.
//!
//! The protocol presents its key only with a command, so a connection costs memory before its caller is known. A fixed
//! deadline for the key would hurt tills: the vendor's says nothing after a reconnect until its cashier does something. So
//! an anonymous connection stays as long as there are slots. Once there are none, a newcomer evicts one by the rule of
//! `connections/anonymous.rs`; a connection is protected for some time after it opened, unless its network has more slots
//! than the newcomer's would have. Where broadcasts are heard without a key no connection is evicted, and newcomers are
//! refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::client::network;
use crate::http::connections::Anonymous;

#[derive(Debug)]
pub(super) struct AnonymousLimit {
    max: usize,
    /// How long a new connection is protected; `None` is for ever.
    protected_for: Option<Duration>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    taken: Anonymous<Taken>,
}

#[derive(Debug)]
struct Taken {
    since: Instant,
    evicted: CancellationToken,
}

impl Slots {
    fn evict(&mut self, newcomer: IpAddr, now: Instant, protected_for: Duration) -> Option<()> {
        let victim = if self.taken.is_outnumbered(newcomer) {
            self.taken.oldest()
        } else {
            self.taken.unprotected(|taken| now.saturating_duration_since(taken.since) < protected_for)
        };
        self.taken.remove(victim?)?.evicted.cancel();
        Some(())
    }
}

/// The slot of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct AnonymousSlot {
    number: u64,
    evicted: CancellationToken,
    limit: Arc<AnonymousLimit>,
}

impl AnonymousLimit {
    pub(super) fn new(max: usize, protected_for: Option<Duration>) -> Self {
        Self { max, protected_for, slots: Mutex::default() }
    }

    /// A slot for a new connection, if need be another one's.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<AnonymousSlot> {
        let (mut slots, network) = (self.slots.lock(), network(address));
        if slots.taken.len() >= self.max {
            slots.evict(network, now, self.protected_for?)?;
        }
        let (number, evicted) = (slots.next, CancellationToken::new());
        slots.next += 1;
        slots.taken.insert(number, Some(network), Taken { since: now, evicted: evicted.clone() });
        drop(slots);
        Some(AnonymousSlot { number, evicted, limit: Arc::clone(self) })
    }

    /// Slots that are taken.
    pub(super) fn count(&self) -> usize {
        self.slots.lock().taken.len()
    }
}

impl AnonymousSlot {
    /// Resolves when the slot was given to another connection.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for AnonymousSlot {
    fn drop(&mut self) {
        self.limit.slots.lock().taken.remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const SECOND: Duration = Duration::from_secs(1);

    fn is_evicted(slot: &AnonymousSlot) -> bool {
        slot.evicted.is_cancelled()
    }

    #[test]
    fn a_connection_is_evicted_only_once_it_is_no_longer_protected() {
        let limit = Arc::new(AnonymousLimit::new(2, Some(SECOND)));
        let start = Instant::now();
        let first = limit.enter(HERE, start).unwrap();
        let second = limit.enter(HERE, start + SECOND).unwrap();
        assert!(limit.enter(HERE, start + SECOND / 2).is_none());
        let third = limit.enter(HERE, start + SECOND).unwrap();
        assert_eq!([&first, &second, &third].map(is_evicted), [true, false, false]);
        assert!(limit.enter(HERE, start + SECOND).is_none(), "the second is still protected");
        drop(first);
        assert!(limit.enter(HERE, start + SECOND).is_none(), "its slot was given to another one before");
    }

    #[test]
    fn a_slot_given_back_is_free_and_without_a_bound_on_protection_no_connection_is_evicted() {
        let limit = Arc::new(AnonymousLimit::new(1, None));
        let start = Instant::now();
        let slot = limit.enter(HERE, start).unwrap();
        assert!(limit.enter(HERE, start + SECOND * 1_000).is_none());
        assert!(!is_evicted(&slot));
        drop(slot);
        assert!(limit.enter(HERE, start).is_some());
    }

    #[test]
    fn a_network_with_the_most_slots_loses_one_at_once_and_takes_none_from_others() {
        let limit = Arc::new(AnonymousLimit::new(4, Some(SECOND)));
        let address = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, last, 0, 0, 0, 1]);
        let start = Instant::now();
        let till = limit.enter(address(1), start).unwrap();
        let greedy: Vec<_> = (0..3).map(|_| limit.enter(address(2), start).unwrap()).collect();
        assert!(limit.enter(address(2), start).is_none(), "its own are protected");
        let more = limit.enter(address(2), start + SECOND).unwrap();
        assert!(is_evicted(&greedy[0]) && !is_evicted(&till), "it evicts its own");
        let newcomer = limit.enter(address(3), start).unwrap();
        assert!(is_evicted(&greedy[1]) && !is_evicted(&till), "and loses one to another network at once");
        assert_eq!(limit.count(), 4);
        drop((newcomer, more));
    }
}
