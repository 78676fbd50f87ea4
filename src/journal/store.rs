//! Where payment records are kept, at the level of records: what every store promises, whatever it is made of.
//!
//! A store keeps, finds and expires records. What may follow what is decided in `state_machine` and `attempts`, outside of
//! every store, so that all decide alike. One suite of tests (`tests/suite.rs`) holds every store to this contract.
//!
//! Durable means that the next start finds it. What a store reads is never older than what it has answered as durable.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::apply::Apply;
use super::condition::Condition;
use super::error::JournalError;
use super::id::RecordId;
use super::listing::{Filter, Listed, Page};
use super::payment::{Dispatched, Reservation};
use super::record::{Record, RecordState};
use super::sale::{Fingerprint, Key};
use crate::tenure::SessionId;

/// The record that decides what a request with its key gets.
#[derive(Debug)]
pub(super) enum Current {
    /// It can be read.
    Record(Box<Record>),
    /// It cannot; the fingerprint of its sale, where that is known.
    Unreadable(RecordId, Option<Fingerprint>),
}

/// What a read is answered with. Dropping it ends the read.
pub(super) type Reading<'s, T> = BoxFuture<'s, Result<T, JournalError>>;

/// How many records of each instance are in each state.
pub type CountsByInstance = BTreeMap<(String, RecordState), u64>;

/// A store of payment records.
///
/// Futures may be dropped at any await. Reads have no deadline of their own, that is the caller's; what they occupy in the
/// store is bounded.
pub(super) trait Store: Apply {
    /// The latest attempt under a key.
    fn current(&self, key: Key) -> Reading<'_, Option<Current>>;

    /// Records a payment as on its way, unless another holds its key; durable when the future ends, and only then may a
    /// byte of it leave. Handed in before this returns. If the future is dropped, or fails after the record became
    /// durable, the payment is released, for no byte of it left. The key goes on in the answer.
    fn dispatch(&self, reservation: Reservation) -> BoxFuture<'static, Result<Dispatched, JournalError>>;

    /// The record of this id.
    fn get(&self, id: RecordId) -> Reading<'_, Option<Record>>;

    /// The record of this id, or what is known of it where it is of this instance and cannot be read.
    fn find(&self, instance: &str, id: RecordId) -> Reading<'_, Option<Listed>>;

    /// Records, newest first, a page at a time. Too many at once are refused as [`JournalError::Overloaded`].
    fn list(&self, filter: Filter) -> Reading<'_, Page>;

    /// How many records are in each state.
    fn counts(&self) -> Reading<'_, BTreeMap<RecordState, u64>>;

    /// The same by instance; those of which there are none may be left out.
    fn counts_by_instance(&self) -> Reading<'_, CountsByInstance>;

    /// Each payment that the gateway may have counted since `since_ms` by the wall clock, with its instance and the end of
    /// its exchange. Only at a start, before callers are served: it may block.
    fn sent_since(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError>;

    /// How often the gateway contradicted the record of a payment of this instance since the store was opened.
    fn contradictions(&self, instance: &str) -> u64;

    /// Commits since the store was opened.
    fn commits(&self) -> u64;

    /// Whether payments can be recorded, as far as is known.
    fn is_available(&self) -> bool;

    /// How its disk and the wall clock are doing, as far as is known.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// How long a caller waits for it before it is told that the journal is not available: a healthy commit takes a few
    /// milliseconds, and a payment's own deadline is 15 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// What owners of an instance before this epoch left on its way is unknown from now on. How many there were. Only where
    /// several processes share the store.
    fn take_over(&self, _: &str, _: SessionId, _: i64) -> Reading<'_, u64> {
        Box::pin(async { Ok(0) })
    }

    /// Takes nothing more, makes durable what was handed in, and lets go of what it is kept on.
    fn close(&self) -> BoxFuture<'_, ()>;
}
