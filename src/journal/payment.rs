//! A payment in the hands of the one who makes it: first a reserved key, then a durable promise to tell its outcome.
//!
//! Both are guards, because the one who holds them may be cancelled at any await. A dropped [`Reservation`] was never
//! recorded and frees its key. A dropped [`Dispatched`] was recorded and may have been written, so it becomes unknown;
//! unless nobody ever got it, since the caller of `dispatch` had left, and then it was certainly never written.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::JournalError;
use super::id::RecordId;
use super::in_flight::HeldKey;
use super::record::{Outcome, Record, Release};
use super::state_machine::Event;
use super::write_queue::{Applied, Job, WriteQueue};

/// A key that is this payment's alone. Nothing is recorded yet, and nothing may be sent. Dropping it frees the key.
#[derive(Debug)]
#[must_use = "a dropped reservation frees its key"]
pub struct Reservation {
    record: Box<Record>,
    live: HeldKey,
}

impl Reservation {
    pub(super) fn new(record: Box<Record>, live: HeldKey) -> Self {
        Self { record, live }
    }

    /// The payment's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.record.id
    }

    /// Notes the newest transaction of the point of sale before the dispatch, for evidence to be told from what was
    /// there before.
    pub fn note_newest_transaction(&mut self, transaction_id: i64) {
        self.record.newest_transaction_before = Some(transaction_id);
    }

    pub(super) fn hand_in(
        self,
        queue: &WriteQueue,
    ) -> Result<oneshot::Receiver<Result<Dispatched, JournalError>>, JournalError> {
        let (reply, heard) = oneshot::channel();
        queue.hand_in(Job::Dispatch { record: self.record, live: self.live, reply })?;
        Ok(heard)
    }
}

/// A payment that is recorded as on its way: it may now be written, once. Whoever holds it owes its outcome to
/// [`finish`](super::Journal::finish). Dropped instead, the payment becomes unknown.
#[derive(Debug)]
#[must_use = "a dropped payment becomes unknown"]
pub struct Dispatched {
    id: RecordId,
    queue: Arc<WriteQueue>,
    /// Present until the outcome is handed in.
    live: Option<HeldKey>,
    may_be_written: bool,
}

impl Dispatched {
    pub(super) fn new(id: RecordId, live: HeldKey, queue: Arc<WriteQueue>) -> Self {
        Self { id, queue, live: Some(live), may_be_written: false }
    }

    /// Only now has somebody got it who can write.
    pub(super) fn handed_over(mut self) -> Self {
        self.may_be_written = true;
        self
    }

    /// The payment's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Gives the payment up, where it is certain that no byte of it left: the key becomes free once that is recorded.
    /// Does not wait for it, so it can be used where nothing can be awaited.
    pub fn never_written(mut self) {
        self.may_be_written = false;
    }

    /// Hands the outcome in at once; the receiver hears when it is durable.
    pub(super) fn conclude(
        mut self,
        outcome: Outcome,
    ) -> Result<oneshot::Receiver<Result<Applied, JournalError>>, JournalError> {
        let live = self.live.take();
        self.queue.apply(self.id, Event::Outcome(outcome), live)
    }
}

impl Drop for Dispatched {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else { return };
        let outcome =
            if self.may_be_written { Outcome::Unknown(None) } else { Outcome::Released(Release::NeverWritten) };
        self.queue.leave(self.id, outcome, live);
    }
}
