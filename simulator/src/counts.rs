//! What the gateway has seen and done: the other side's word against which a client's promises are tested.
//!
//! Lists are bounded; what no longer fits is still in the totals.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::sale::{Sale, Sold};

/// Entries of a list or a map that a client can make grow: hours of benchmark, tens of megabytes.
const MOST_ENTRIES: usize = 100_000;

/// Names of commands remembered one by one; a client may send any name.
const MOST_COMMANDS: usize = 256;

/// What was seen of one command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CommandCounts {
    /// How often it came, with whatever key.
    pub received: u64,
    /// How often it was answered, with a reply or an error.
    pub answered: u64,
    /// Points that the limiter let through, also while limits are off.
    pub points: u64,
    /// How often the limiter refused it.
    pub ratelimit_errors: u64,
}

/// What was seen on one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShardCounts {
    /// Connections ever opened.
    pub opened: u64,
    /// Connections open now, half-open ones included.
    pub open: u64,
    /// Attempts to connect that came to nothing: reset, because the shard was dead or by a fault, or left hanging by one.
    pub refused: u64,
}

/// A sale that was booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payment {
    /// The instance's slug.
    pub instance: String,
    /// The shard that took it.
    pub shard: String,
    /// The point of sale.
    pub pos_id: i64,
    /// The payment method, as it was spelled.
    pub payment_method: String,
    /// The products that were booked.
    pub products: Vec<Sold>,
    /// The field `ref` of its parameters, if any: a test's own name for the sale.
    pub reference: Option<String>,
    /// `POSID/PaymentMethod/IDxAmount,…`: equal for equal sales however they are spelled.
    pub fingerprint: String,
}

/// Everything counted since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// By command.
    pub commands: BTreeMap<String, CommandCounts>,
    /// By shard.
    pub shards: BTreeMap<String, ShardCounts>,
    /// `ratelimit` errors given by the limiter; those made by a fault are not in it.
    pub ratelimit_errors: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// The most commands ever in progress on one connection at once. A command that hangs stays in progress.
    pub max_in_progress: usize,
    /// Sales booked.
    pub payments_booked: u64,
    /// The sales booked, oldest first.
    pub payments: Vec<Payment>,
    /// How often each sale was received, booked or not, by its `ref` or else by its fingerprint.
    pub payitems_received: BTreeMap<String, u64>,
    /// Broadcasts made, each counted once however many connections heard it.
    pub broadcasts: u64,
    /// Copies of broadcasts handed to connections.
    pub broadcast_copies: u64,
}

impl Counts {
    /// What was seen of `command`; all nothing where it never came.
    #[must_use]
    pub fn command(&self, command: &str) -> CommandCounts {
        self.commands.get(command).cloned().unwrap_or_default()
    }

    /// What was seen on `shard`; all nothing where there is no such shard.
    #[must_use]
    pub fn shard(&self, shard: &str) -> ShardCounts {
        self.shards.get(shard).cloned().unwrap_or_default()
    }

    /// Connections open now on all shards.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.shards.values().map(|shard| shard.open).sum()
    }

    /// How often the sale named `key` (its `ref` or its fingerprint) was booked.
    #[must_use]
    pub fn bookings(&self, key: &str) -> usize {
        let is_it = |payment: &&Payment| payment.reference.as_deref().unwrap_or(&payment.fingerprint) == key;
        self.payments.iter().filter(is_it).count()
    }

    fn of(&mut self, command: &str) -> &mut CommandCounts {
        let known = self.commands.contains_key(command) || self.commands.len() < MOST_COMMANDS;
        self.commands.entry(if known { command } else { "(any other)" }.to_owned()).or_default()
    }
}

/// The counts while they are being counted.
pub(super) struct Counters {
    shards: Vec<String>,
    counts: Mutex<Counts>,
}

impl Counters {
    pub(super) fn new(shards: &[String]) -> Self {
        let by_shard = shards.iter().map(|shard| (shard.clone(), ShardCounts::default())).collect();
        let counts = Counts { shards: by_shard, ..Counts::default() };
        Self { shards: shards.to_vec(), counts: Mutex::new(counts) }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, shard: usize, change: impl FnOnce(&mut ShardCounts)) {
        let Some(name) = self.shards.get(shard) else { return };
        if let Some(counts) = self.lock().shards.get_mut(name) {
            change(counts);
        }
    }

    pub(super) fn snapshot(&self) -> Counts {
        self.lock().clone()
    }

    /// Starts again from nothing, but for the connections that are open.
    pub(super) fn reset(&self) {
        let mut counts = self.lock();
        let mut shards = std::mem::take(&mut counts.shards);
        for shard in shards.values_mut() {
            *shard = ShardCounts { open: shard.open, ..ShardCounts::default() };
        }
        *counts = Counts { shards, ..Counts::default() };
    }

    pub(super) fn opened(&self, shard: usize) {
        self.shard(shard, |counts| {
            counts.opened += 1;
            counts.open += 1;
        });
    }

    pub(super) fn closed(&self, shard: usize) {
        self.shard(shard, |counts| counts.open = counts.open.saturating_sub(1));
    }

    /// The gateway was switched off.
    pub(super) fn nobody_is_connected(&self) {
        self.lock().shards.values_mut().for_each(|counts| counts.open = 0);
    }

    pub(super) fn refused(&self, shard: usize) {
        self.shard(shard, |counts| counts.refused += 1);
    }

    /// A command came while `in_progress` were in progress on its connection, itself included.
    pub(super) fn received(&self, command: &str, in_progress: usize) {
        let mut counts = self.lock();
        counts.of(command).received += 1;
        counts.max_in_progress = counts.max_in_progress.max(in_progress);
    }

    pub(super) fn unreadable(&self) {
        self.lock().unreadable += 1;
    }

    pub(super) fn received_sale(&self, sale: &Sale) {
        let key = sale.key();
        let mut counts = self.lock();
        if counts.payitems_received.len() < MOST_ENTRIES || counts.payitems_received.contains_key(&key) {
            *counts.payitems_received.entry(key).or_default() += 1;
        }
    }

    pub(super) fn admitted(&self, command: &str, points: u32) {
        self.lock().of(command).points += u64::from(points);
    }

    pub(super) fn rate_limited(&self, command: &str) {
        let mut counts = self.lock();
        counts.of(command).ratelimit_errors += 1;
        counts.ratelimit_errors += 1;
    }

    pub(super) fn answered(&self, command: &str) {
        self.lock().of(command).answered += 1;
    }

    pub(super) fn booked(&self, instance: &str, shard: usize, sale: Sale, products: Vec<Sold>) {
        let fingerprint = sale.fingerprint();
        let mut counts = self.lock();
        counts.payments_booked += 1;
        if counts.payments.len() < MOST_ENTRIES {
            counts.payments.push(Payment {
                instance: instance.to_owned(),
                shard: self.shards.get(shard).cloned().unwrap_or_default(),
                pos_id: sale.pos_id,
                payment_method: sale.payment_method,
                products,
                reference: sale.reference,
                fingerprint,
            });
        }
    }

    pub(super) fn broadcast(&self, copies: u64) {
        let mut counts = self.lock();
        counts.broadcasts += 1;
        counts.broadcast_copies += copies;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_keeps_only_what_is_open() {
        let counters = Counters::new(&["exon".to_owned()]);
        counters.opened(0);
        counters.opened(0);
        counters.closed(0);
        counters.received("listpm", 3);
        counters.reset();
        let counts = counters.snapshot();
        assert_eq!(counts.shard("exon"), ShardCounts { opened: 0, open: 1, refused: 0 });
        assert_eq!((counts.max_in_progress, counts.command("listpm").received), (0, 0));
    }

    #[test]
    fn invented_command_names_cannot_fill_the_memory() {
        let counters = Counters::new(&[]);
        for number in 0..1_000 {
            counters.received(&format!("command{number}"), 1);
        }
        let counts = counters.snapshot();
        assert_eq!(counts.commands.len(), MOST_COMMANDS + 1);
        assert_eq!(counts.commands.values().map(|command| command.received).sum::<u64>(), 1_000);
    }

    #[test]
    fn bookings_are_found_by_name_or_by_fingerprint() {
        let counters = Counters::new(&["exon".to_owned()]);
        let sale = |reference: Option<&str>| Sale {
            pos_id: 1,
            payment_method: "2".into(),
            products: vec![Sold { id: 3, amount: "1".into() }],
            reference: reference.map(str::to_owned),
        };
        counters.booked("demo", 0, sale(Some("a")), Vec::new());
        counters.booked("demo", 0, sale(None), Vec::new());
        counters.booked("demo", 0, sale(None), Vec::new());
        let counts = counters.snapshot();
        assert_eq!((counts.bookings("a"), counts.bookings("1/2/3x1"), counts.bookings("b")), (1, 2, 0));
    }
}
