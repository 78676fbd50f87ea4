//! The keys of the payments under way: at most one payment a key, decided in memory, under one short lock.
//!
//! A [`HeldKey`] travels with its payment, from the reservation through the store to the durable outcome, and frees the key
//! when it is dropped. So an error, a timeout or a cancellation cannot leave a key taken for ever; and as long as anything
//! can still send or record the payment, its key is not given out again. The number of held keys bounds the journal's
//! memory and the queues of its store.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::sale::{Fingerprint, Key};

/// Payments under way in one bridge. The gateway's budget passes 100 in 30 s for an instance: more than this wait for
/// something that does not come.
pub(super) const MAX_LIVE: usize = 4096;

/// The keys under way.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    keys: Mutex<HashMap<Key, Held>>,
}

/// What is known of a key under way.
#[derive(Debug)]
struct Held {
    fingerprint: Fingerprint,
    attachment: Attachment,
}

/// What whoever makes a payment attaches to its key, for those who ask for the same payment meanwhile. The journal only hands
/// it on.
#[derive(Clone)]
pub struct Attachment(Arc<dyn Any + Send + Sync>);

impl Attachment {
    pub fn new(value: impl Any + Send + Sync) -> Self {
        Self(Arc::new(value))
    }

    /// The value, if it is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Attachment")
    }
}

/// Holds a key until it is dropped.
#[derive(Debug)]
pub(super) struct HeldKey {
    key: Key,
    keys: Arc<InFlight>,
}

/// What became of a claim to a key.
#[derive(Debug)]
pub(super) enum Claim {
    /// The key is now the claimant's.
    Taken(HeldKey),
    /// The key is held for a sale with this fingerprint, and this is attached to it.
    Held(Fingerprint, Attachment),
    /// [`MAX_LIVE`] keys are held.
    Full,
}

impl InFlight {
    /// Takes `key` unless it is held, and attaches this to it.
    pub(super) fn claim(self: &Arc<Self>, key: Key, fingerprint: Fingerprint, attachment: Attachment) -> Claim {
        let mut keys = self.keys.lock();
        if let Some(held) = keys.get(&key) {
            return Claim::Held(held.fingerprint, held.attachment.clone());
        }
        if keys.len() >= MAX_LIVE {
            return Claim::Full;
        }
        keys.insert(key.clone(), Held { fingerprint, attachment });
        Claim::Taken(HeldKey { key, keys: Arc::clone(self) })
    }

    /// How many keys of each instance are under way.
    pub(super) fn by_instance(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for key in self.keys.lock().keys() {
            *counts.entry(key.instance.clone()).or_default() += 1;
        }
        counts
    }

    /// How many keys are under way.
    pub(super) fn len(&self) -> usize {
        self.keys.lock().len()
    }
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        self.keys.keys.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sale::Sale;

    fn key(number: usize) -> Key {
        Key { instance: "demo".into(), caller: "shop".into(), idempotency_key: number.to_string() }
    }

    fn claim(in_flight: &Arc<InFlight>, number: usize) -> Claim {
        let sale = Sale { pos_id: 1, payment_method: String::new(), products: Vec::new() };
        in_flight.claim(key(number), sale.fingerprint(), Attachment::new(number))
    }

    #[test]
    fn a_key_is_given_once_until_it_is_dropped() {
        let in_flight = Arc::new(InFlight::default());
        let Claim::Taken(held) = claim(&in_flight, 1) else { panic!("free") };
        assert!(matches!(claim(&in_flight, 1), Claim::Held(_, attached) if attached.get() == Some(&1_usize)));
        drop(held);
        assert!(matches!(claim(&in_flight, 1), Claim::Taken(_)));
    }

    #[test]
    fn the_number_of_keys_under_way_is_bounded() {
        let in_flight = Arc::new(InFlight::default());
        let held: Vec<_> = (0..MAX_LIVE).map(|number| claim(&in_flight, number)).collect();
        assert!(matches!(claim(&in_flight, MAX_LIVE), Claim::Full));
        drop(held);
        assert!(matches!(claim(&in_flight, MAX_LIVE), Claim::Taken(_)));
    }
}
