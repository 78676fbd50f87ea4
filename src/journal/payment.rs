//! A payment in the hands of the task that makes it: first a reserved key, then the duty to tell its outcome.
//!
//! Both are guards, because that task may be cancelled at any await. A dropped [`Reservation`] was never recorded and frees
//! its key. A dropped [`Dispatched`] was recorded and may have been written, so it becomes unknown; unless it never left
//! the store, because the caller of `dispatch` had gone, and then it was certainly never written.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::apply::{Applied, Apply};
use super::error::JournalError;
use super::id::RecordId;
use super::in_flight::HeldKey;
use super::record::{Outcome, Record, Release};
use super::sale::Sale;
use super::sale_details::SaleDetails;
use super::state_machine::Event;

/// A key that is this payment's alone. Nothing is recorded yet, and nothing may be sent. Dropping it frees the key.
#[derive(Debug)]
#[must_use = "a dropped reservation frees its key"]
pub struct Reservation {
    record: Box<Record>,
    held: HeldKey,
    is_first: bool,
}

impl Reservation {
    /// `is_first` says that no attempt was found under the key since it is held.
    pub(super) fn new(record: Box<Record>, held: HeldKey, is_first: bool) -> Self {
        Self { record, held, is_first }
    }

    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    #[must_use]
    pub fn id(&self) -> RecordId {
        self.record.id
    }

    /// Notes the newest transaction of the point of sale before the dispatch, so that reconciliation can tell later ones
    /// from what was there before.
    pub fn note_newest_transaction(&mut self, transaction_id: i64) {
        self.record.newest_transaction_before = Some(transaction_id);
    }

    /// Notes names and prices of what is sold, for people who look at the record.
    pub fn note_details(&mut self, details: Option<SaleDetails>) {
        self.record.details = details.map(Box::new);
    }

    /// Who asks for it.
    #[must_use]
    pub fn caller(&self) -> &str {
        &self.record.key.caller
    }

    #[must_use]
    pub fn sale(&self) -> &Sale {
        &self.record.sale
    }

    pub(super) fn into_parts(self) -> (Box<Record>, HeldKey) {
        (self.record, self.held)
    }
}

/// A payment that is recorded as on its way: it may now be written, once. Its holder owes the outcome to
/// [`finish`](super::Journal::finish). Dropped instead, the payment becomes unknown.
#[derive(Debug)]
#[must_use = "a dropped payment becomes unknown"]
pub struct Dispatched {
    id: RecordId,
    store: Arc<dyn Apply>,
    /// Present until the outcome is handed in.
    held: Option<HeldKey>,
    may_be_written: bool,
}

impl Dispatched {
    /// Dropped before [`handed_over`](Self::handed_over), the payment is released.
    pub(super) fn new(id: RecordId, held: HeldKey, store: Arc<dyn Apply>) -> Self {
        Self { id, store, held: Some(held), may_be_written: false }
    }

    /// From now on it may be written.
    pub(super) fn handed_over(mut self) -> Self {
        self.may_be_written = true;
        self
    }

    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Hands the outcome in before this returns; the future ends when it is durable.
    pub(super) fn conclude(mut self, outcome: Outcome) -> BoxFuture<'static, Result<Applied, JournalError>> {
        let held = self.held.take();
        self.store.apply(self.id, Event::Outcome(outcome), held)
    }
}

impl Drop for Dispatched {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let outcome =
            if self.may_be_written { Outcome::Unknown(None) } else { Outcome::Released(Release::NeverWritten) };
        drop(self.store.apply(self.id, Event::Outcome(outcome), Some(held)));
    }
}
