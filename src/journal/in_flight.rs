//! The keys of the payments under way: at most one payment a key, decided in memory, under one short lock.
//!
//! A [`HeldKey`] travels with its payment, from the reservation through the writer's queue to the durable outcome, and
//! frees the key when it is dropped. Whoever drops a payment on its way, by an error, a timeout or a cancellation,
//! therefore cannot leave a key taken for ever; and as long as anybody can still send or record the payment, its key
//! is not given out again. The number of live keys bounds the journal's memory and its queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sale::{Fingerprint, Key};

/// Payments under way in one bridge. The gateway's budget passes 100 in 30 s for an instance: more than this wait for
/// something that does not come.
pub(super) const MAX_LIVE: usize = 4096;

/// The keys under way.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    keys: Mutex<HashMap<Key, Fingerprint>>,
}

/// Holds a key until it is dropped.
#[derive(Debug)]
pub(super) struct HeldKey {
    key: Key,
    live: Arc<InFlight>,
}

/// What became of a claim to a key.
#[derive(Debug)]
pub(super) enum Claim<T> {
    /// The key is now the claimant's.
    Taken(HeldKey),
    /// A payment of the sale with this fingerprint is under way.
    Live(Fingerprint),
    /// The key was not given, for the reason that the last look found.
    Refused(T),
    /// [`MAX_LIVE`] keys are under way.
    Full,
}

impl InFlight {
    /// Takes `key` unless it is under way or `last_look` finds a reason against it.
    ///
    /// The last look happens under the lock: a payment is recorded before its key is freed, so one that ended a moment
    /// ago is seen either here or there.
    pub(super) fn claim<T>(
        self: &Arc<Self>,
        key: Key,
        fingerprint: Fingerprint,
        last_look: impl FnOnce(&Key) -> Option<T>,
    ) -> Claim<T> {
        let mut keys = self.lock();
        if let Some(fingerprint) = keys.get(&key) {
            return Claim::Live(*fingerprint);
        }
        if keys.len() >= MAX_LIVE {
            return Claim::Full;
        }
        if let Some(reason) = last_look(&key) {
            return Claim::Refused(reason);
        }
        keys.insert(key.clone(), fingerprint);
        Claim::Taken(HeldKey { key, live: Arc::clone(self) })
    }

    /// How many keys are under way.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Fingerprint>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        self.live.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sale::Sale;

    fn key(number: usize) -> Key {
        Key { instance: "demo".into(), caller: "shop".into(), idempotency_key: number.to_string() }
    }

    fn claim(live: &Arc<InFlight>, number: usize) -> Claim<()> {
        let sale = Sale { pos_id: 1, payment_method: String::new(), products: Vec::new() };
        live.claim(key(number), sale.fingerprint(), |_| None)
    }

    #[test]
    fn a_key_is_given_once_until_it_is_dropped() {
        let live = Arc::new(InFlight::default());
        let Claim::Taken(held) = claim(&live, 1) else { panic!("free") };
        assert!(matches!(claim(&live, 1), Claim::Live(_)));
        drop(held);
        assert!(matches!(claim(&live, 1), Claim::Taken(_)));
    }

    #[test]
    fn a_reason_found_at_the_last_look_leaves_the_key_free() {
        let live = Arc::new(InFlight::default());
        let sale = Sale { pos_id: 1, payment_method: String::new(), products: Vec::new() };
        assert!(matches!(live.claim(key(1), sale.fingerprint(), |_| Some("booked")), Claim::Refused("booked")));
        assert_eq!(live.len(), 0);
    }

    #[test]
    fn the_number_of_keys_under_way_is_bounded() {
        let live = Arc::new(InFlight::default());
        let held: Vec<_> = (0..MAX_LIVE).map(|number| claim(&live, number)).collect();
        assert!(matches!(claim(&live, MAX_LIVE), Claim::Full));
        drop(held);
        assert!(matches!(claim(&live, MAX_LIVE), Claim::Taken(_)));
    }
}
