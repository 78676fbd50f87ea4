//! What the new owner of an instance begins with.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::broadcasts::relay::Relay;
use crate::broadcasts::{self, Broadcasts, CarriedLog, Left};
use crate::budget::{self, Ledger, SentPayments};
use crate::cache::{Cache, CarriedCopy, Key};
use crate::protocol::Body;

/// What is found of an instance at a claim.
#[derive(Debug, Default)]
pub struct Carried {
    /// Nobody has owned it before.
    pub is_first: bool,
    /// The log to go on with; none where there is none, or where its end may be lost.
    pub log: Option<CarriedLog>,
    /// What was written of its broadcasts, by ages when it was asked for.
    pub left: Left,
    /// For how long at least the owner before had received nothing any more when this was asked for.
    pub gone_for: Duration,
    pub asked: Option<Instant>,
    /// What the owner before handed over; none where it left without a word.
    pub handed_over: Option<Box<HandedOver>>,
    /// The shards that were taken out by hand.
    pub cordoned: BTreeSet<String>,
    pub former: Former,
}

/// What an owner told as its last.
#[derive(Debug)]
pub struct HandedOver {
    pub spending: budget::Carried,
    /// None where it was too much to be carried.
    pub broadcasts: Option<broadcasts::Carried>,
    pub copies: Vec<CarriedCopy>,
}

/// What an owner wrote before it left without a word.
#[derive(Debug, Default)]
pub struct Former {
    pub spending: Option<budget::Carried>,
    /// With their ages by the clock of the database.
    pub copies: Vec<(Key, Body, Duration)>,
}

/// What an instance is made of that begins with something.
#[derive(Debug)]
pub struct Begins<'a> {
    /// Its name at the gateway.
    pub slug: &'a str,
    pub ledger: &'a Ledger,
    pub cache: &'a Cache,
    pub broadcasts: &'a Broadcasts,
    pub relay: &'a Relay,
    /// How long an exchange may last.
    pub request_timeout: Duration,
    /// Payments that the gateway may count; none where the journal cannot tell.
    pub payments: Option<&'a SentPayments>,
    /// When its links had been listening for long enough for a handover; none where they had not.
    pub ready: Option<Instant>,
}

impl Carried {
    /// Gives an instance what it begins with. Nothing of it may have been sent, logged or answered before.
    pub fn begin(self, instance: &Begins<'_>) {
        let Self { is_first, log, mut left, gone_for, asked, handed_over, former, .. } = self;
        let waited = asked.map(|asked| asked.elapsed()).unwrap_or_default();
        left.covered_ago = left.covered_ago.map(|ago| ago.saturating_add(waited));
        if let Some(log) = log {
            instance.broadcasts.resume(log);
        }
        let Some(handed_over) = handed_over else {
            if is_first {
                instance.ledger.begin_unspent(instance.payments, instance.request_timeout);
            } else {
                instance.assume_spent(former.spending.as_ref());
            }
            instance.cache.begin_with_former(instance.slug, former.copies);
            instance.relay.resume_after_loss(&left, gone_for.saturating_add(waited));
            return;
        };
        let HandedOver { spending, broadcasts, copies } = *handed_over;
        if !instance.ledger.take_over(&spending, instance.request_timeout) {
            instance.assume_spent(Some(&spending));
        }
        let now = Instant::now();
        let carried = instance.ready.zip(broadcasts);
        if let Some((ready, _)) = &carried {
            // Before broadcasts are matched: one of them may end the freshness of a copy.
            instance.cache.take_over(instance.slug, copies.clone(), now.saturating_duration_since(*ready));
        }
        let resumed = carried.is_some_and(|(ready, broadcasts)| instance.relay.resume(broadcasts, ready, now));
        if !resumed {
            let copies = copies.into_iter().map(|copy| (copy.key, copy.body, Duration::from_millis(copy.age_ms)));
            instance.cache.begin_with_former(instance.slug, copies);
            instance.relay.resume_after_loss(&left, Duration::ZERO);
        }
    }
}

impl Begins<'_> {
    fn assume_spent(&self, last: Option<&budget::Carried>) {
        self.ledger.assume_spent_by_former(last, self.payments, self.request_timeout);
    }
}
