//! Payments: journal, link, journal.
//!
//! The order holds the promise: the key is reserved in memory, points and a link are had, the record is made durable,
//! and only then the command is written, once; its outcome is durable before the caller is answered. All of it runs in a
//! task of the bridge's own, so that a caller's disconnection changes nothing.
//!
//! Nothing is written after the deadline for writing, however long the disk took: a caller that was told by then that
//! nothing was sent must never be proven wrong. So a payment about to be written first publishes its id ([`Shown`]), and then
//! checks the clock: where no id is published at the deadline, nothing will be written.
//!
//! The gateway may book what it refused or failed to answer, at once or much later. So the link of such a payment is
//! listened to after its caller was answered, and a reply that comes on it goes to the payment's record.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dispatch::{Dispatch, Once, Unfinished};
use super::error::Error;
use super::reconciliation::Reconciliation;
use super::sale_details::Catalogue;
use crate::budget::Class;
use crate::cache::{Cache, PasswordKey};
use crate::clock::RETRY_SHORTLY;
use crate::gateway::{Cause, Ending, LateFrames, Lost, Priority, Refusal};
use crate::journal::{
    Attachment, Dispatched, Journal, JournalError, Key, Late, Outcome, Record, RecordId, Release, Reservation, Reserve,
    Sale, Verdict,
};
use crate::protocol::{Body, Command};

/// A payment that was booked, now or before.
#[derive(Debug, Clone)]
pub struct Paid {
    /// Its record.
    pub record: Record,
    /// Whether the answer is a repetition of an earlier one.
    pub replayed: bool,
}

/// Where a payment shows itself before it is written: its record exists by then.
pub(super) type Shown = Arc<OnceLock<RecordId>>;

/// Why asking for a payment did not end with its reply.
#[derive(Debug, Clone)]
pub(super) enum Unpaid {
    /// The same sale is under way; with its end, where it is made by this process.
    UnderWay(Option<End>),
    Failed(Error),
}

/// The end of a payment under way, for those who repeat it meanwhile. Waiting for it sends nothing, whatever it is.
#[derive(Debug, Clone)]
pub(super) struct End(watch::Receiver<Told>);

/// How it ended, once it has.
type Told = Option<Result<Paid, Error>>;

/// Tells those who repeat a payment under way how it ended.
#[derive(Debug)]
pub(super) struct EndSender(watch::Sender<Told>);

impl End {
    /// The end and who tells it.
    pub(super) fn new() -> (EndSender, Self) {
        let (ending, end) = watch::channel(None);
        (EndSender(ending), Self(end))
    }

    /// How the payment ended, as its repetition is answered; none where that is not known by `until`.
    pub(super) async fn by(mut self, until: Instant) -> Option<Result<Paid, Error>> {
        // Not told at all where whoever made the payment panicked: nobody knows how far it got.
        let told = timeout_at(until, self.0.wait_for(Option::is_some)).await.ok()?.ok()?.clone()?;
        Some(told.map(|paid| Paid { replayed: true, ..paid }))
    }
}

impl EndSender {
    /// Tells how asking for the payment ended.
    pub(super) fn tell(self, asked: &Result<Paid, Unpaid>) {
        // Usually nobody repeats it.
        if self.0.receiver_count() > 0 {
            let _ = self.0.send(Some(asked.clone().map_err(Error::from)));
        }
    }
}

/// The payments of one instance.
#[derive(Debug)]
pub(super) struct Payments {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) journal: Journal,
    pub(super) cache: Arc<Cache>,
    pub(super) instance: Arc<str>,
    /// What the cache calls it: its name at the gateway.
    slug: Arc<str>,
    pub(super) reconciliation: Reconciliation,
    catalogue: Catalogue,
    /// Set-aside links that are listened to, by payment; ended when a person settles it.
    listening: Mutex<HashMap<RecordId, CancellationToken>>,
    /// Those who listen.
    listeners: TaskTracker,
}

impl Payments {
    pub(super) fn new(
        dispatch: Arc<Dispatch>,
        journal: Journal,
        (cache, passwords): (Arc<Cache>, PasswordKey),
        instance: Arc<str>,
    ) -> Self {
        let reconciliation = Reconciliation::new(Arc::clone(&dispatch), journal.clone(), Arc::clone(&instance));
        let (listening, listeners) = Default::default();
        let slug: Arc<str> = Arc::from(dispatch.pool.slug());
        let catalogue = Catalogue::new(Arc::clone(&cache), Arc::clone(&slug), passwords);
        Self { dispatch, journal, cache, instance, slug, reconciliation, catalogue, listening, listeners }
    }

    /// Words of the gateway that did not agree with the record of their payment, since the start.
    pub(super) fn contradictions(&self) -> u64 {
        self.journal.contradictions(&self.instance)
    }

    /// Waits until everything that late frames told is recorded. To be called once the links are closed.
    pub(super) async fn late_frames_recorded(&self) {
        self.listeners.close();
        self.listeners.wait().await;
    }

    /// Books a sale, or says what became of the one that its key names. To be run in a task that is not dropped. Nothing
    /// is written after `write_by`, and what may be written is `shown` before. `end` is for those who repeat it meanwhile.
    pub(super) async fn pay(
        self: Arc<Self>,
        key: Key,
        sale: Sale,
        command: Command,
        may_begin: Result<(), Error>,
        (write_by, shown): (Instant, Shown),
        end: End,
    ) -> Result<Paid, Unpaid> {
        let pos_id = sale.pos_id;
        match self.journal.reserve_with(key.clone(), sale.clone(), Attachment::new(end)).await {
            Reserve::Fresh(reservation) => {
                // Refused, its key is free again.
                may_begin?;
                let begun = Arc::clone(&self).begin(reservation, pos_id, &command, (write_by, shown)).await;
                match begun {
                    // A late reply took the key since it was reserved.
                    Err(Begun::KeyTaken) => Self::recorded(self.journal.reserve(key, sale).await),
                    Err(Begun::Failed(error)) => Err(error.into()),
                    Ok(paid) => Ok(paid),
                }
            }
            recorded => Self::recorded(recorded),
        }
    }

    /// What the record under a key answers.
    fn recorded(reserved: Reserve) -> Result<Paid, Unpaid> {
        let error = match reserved {
            Reserve::Replay(record) => return Ok(Paid { record: *record, replayed: true }),
            Reserve::InProgress(attachment) => {
                return Err(Unpaid::UnderWay(attachment.and_then(|attached| attached.get().cloned())));
            }
            // It was taken and freed within moments.
            Reserve::Fresh(_) => return Err(Unpaid::UnderWay(None)),
            Reserve::Unknown(record) => unknown(&record),
            Reserve::Unreadable(id) => Error::OutcomeUnknown { gateway: None, payment: Some(id.to_string()) },
            Reserve::Reused => Error::KeyReused,
            Reserve::Overloaded => Error::Overloaded { retry_after: RETRY_SHORTLY },
            Reserve::Unavailable(error) => error.into(),
        };
        Err(error.into())
    }

    async fn begin(
        self: Arc<Self>,
        mut reservation: Reservation,
        pos_id: i64,
        command: &Command,
        (write_by, shown): (Instant, Shown),
    ) -> Result<Paid, Begun> {
        // Until the record is durable a dropped reservation frees the key, and a dropped lease and permit go back.
        let caller = reservation.caller().to_owned();
        let once = Once { class: Class::Payment, caller: &caller, priority: Priority::Payment, write_by };
        let way = self.dispatch.way_once(command, once).await?;
        if let Some(newest) = self.reconciliation.newest_before(pos_id) {
            reservation.note_newest_transaction(newest);
        }
        let details = self.catalogue.details(reservation.sale(), &command.parameters);
        reservation.note_details(details);
        let caller = reservation.caller().to_owned();
        let dispatched = match self.journal.dispatch(reservation).await {
            Ok(dispatched) => dispatched,
            Err(JournalError::KeyTaken(_)) => return Err(Begun::KeyTaken),
            Err(error) => return Err(Error::from(error).into()),
        };
        let id = dispatched.id();
        // In this order, see the top of this file.
        let _ = shown.set(id);
        // What may have taken too long by now is making the record durable.
        let too_late = Error::JournalUnavailable { retry_after: RETRY_SHORTLY };
        let paid = match self.dispatch.write_once(command, way, once, too_late).await {
            Ok(reply) => {
                self.cache.sold(&self.slug, pos_id);
                self.booked(dispatched, reply).await
            }
            Err(Unfinished::NotWritten(error)) => {
                self.ended_in_nothing(dispatched, Outcome::Released(Release::NeverWritten), error).await
            }
            Err(Unfinished::Refused(Refusal { error, late })) => {
                let release = Outcome::Released(Release::Refused(error.clone()));
                let listening = late.map(|late| (late, self.listen(id)));
                let told = self.ended_in_nothing(dispatched, release, self.dispatch.refused(command, error)).await;
                self.hear_late_frames(id, pos_id, listening);
                told
            }
            Err(Unfinished::Unknown(lost)) => {
                self.cache.sold(&self.slug, pos_id);
                self.lost(dispatched, (&caller, pos_id), lost).await
            }
        };
        Ok(paid?)
    }

    async fn booked(&self, dispatched: Dispatched, reply: Body) -> Result<Paid, Error> {
        let id = dispatched.id();
        match self.journal.finish(dispatched, Outcome::Booked(reply)).await {
            Ok(record) => Ok(Paid { record, replayed: false }),
            // An answer that a restart would forget is none.
            Err(error) => {
                tracing::error!(instance = &*self.instance, payment = %id, %error, "a payment was booked and its record cannot be written");
                Err(Error::OutcomeUnknown { gateway: None, payment: Some(id.to_string()) })
            }
        }
    }

    /// Nothing was booked, and `error` is why. The key is free once that is durable; until then the payment is one of
    /// unknown outcome, as it would be after a restart.
    async fn ended_in_nothing(&self, dispatched: Dispatched, release: Outcome, error: Error) -> Result<Paid, Error> {
        let id = dispatched.id();
        match self.journal.finish(dispatched, release).await {
            Ok(_) => Err(error),
            Err(fault) => {
                tracing::error!(instance = &*self.instance, payment = %id, %fault, "a payment was not booked and its record cannot be written");
                Err(Error::OutcomeUnknown { gateway: None, payment: Some(id.to_string()) })
            }
        }
    }

    async fn lost(
        self: Arc<Self>,
        dispatched: Dispatched,
        (caller, pos_id): (&str, i64),
        lost: Lost,
    ) -> Result<Paid, Error> {
        let id = dispatched.id();
        let gateway = match lost.cause {
            Cause::Word(error) => Some(error),
            Cause::Timeout | Cause::Disconnected | Cause::NotUnderstood => None,
        };
        let said = gateway.as_ref().map(|said| said.error.as_str());
        tracing::warn!(instance = &*self.instance, caller, pos_id, payment = %id, gateway = said,
            "the outcome of a payment is unknown");
        // Before the record says unknown: a settlement must find what is listened to, to end it.
        let listening = lost.late.map(|late| (late, self.listen(id)));
        // A record that cannot be written stays `dispatching`, and a restart makes that unknown: the same answer.
        let _ = self.journal.finish(dispatched, Outcome::Unknown(gateway.clone())).await;
        self.reconciliation.lost(id, pos_id);
        self.hear_late_frames(id, pos_id, listening);
        Err(Error::OutcomeUnknown { gateway, payment: Some(id.to_string()) })
    }

    /// Records in a task of its own what comes for a payment whose caller was answered, until its link is over or a
    /// person settles it.
    fn hear_late_frames(
        self: Arc<Self>,
        id: RecordId,
        pos_id: i64,
        listening: Option<(LateFrames, CancellationToken)>,
    ) {
        let Some((mut late, stop)) = listening else {
            // Its connection is gone. Not awaited: a restart would record the same.
            drop(self.journal.not_heard_any_more(id));
            return;
        };
        let payments = Arc::clone(&self);
        self.listeners.spawn(async move {
            while let Some(ending) = stop.run_until_cancelled(late.next()).await.flatten() {
                payments.late(id, pos_id, ending).await;
            }
            payments.listening().remove(&id);
            // Where that cannot be written, the record says less than it could.
            let _ = payments.journal.not_heard_any_more(id).await;
        });
    }

    /// Notes that the late reply of a payment is listened for. What this returns says when to stop.
    fn listen(&self, id: RecordId) -> CancellationToken {
        let stop = CancellationToken::new();
        self.listening().insert(id, stop.clone());
        stop
    }

    fn listening(&self) -> MutexGuard<'_, HashMap<RecordId, CancellationToken>> {
        self.listening.lock()
    }

    /// A frame that came for a payment after its caller was answered.
    async fn late(&self, id: RecordId, pos_id: i64, ending: Ending) {
        let outcome = match ending {
            Ending::Reply(reply) => {
                self.cache.sold(&self.slug, pos_id);
                Outcome::Booked(reply)
            }
            Ending::Error(error) => Outcome::Released(Release::Refused(error)),
        };
        match self.journal.late(id, outcome).await {
            Ok(Late::Changed(record) | Late::Unchanged(record)) => {
                tracing::info!(instance = %self.instance, payment = %id, state = %record.state(),
                    "the late reply of a payment");
            }
            // The journal has told and counted it, once it was durable.
            Ok(Late::Contradiction(_)) => {}
            Err(error) => {
                tracing::error!(instance = %self.instance, payment = %id, %error,
                    "the late reply of a payment cannot be recorded");
            }
        }
    }

    /// Settles an unknown payment by a person's decision, and ends the listening for its late reply once that is durable.
    ///
    /// Not before: a reply that comes while the decision is being written must not be lost with a decision that the disk
    /// then refuses. The journal takes the two one after the other. A reply that is first resolves the payment, and the
    /// decision no longer applies; one that is second is recorded beside the decision, and alarmed where it says otherwise.
    pub(super) async fn settle(&self, id: RecordId, revision: u64, verdict: Verdict) -> Result<Record, JournalError> {
        let settled = self.journal.settle(id, revision, verdict).await?;
        if let Some(stop) = self.listening().remove(&id) {
            stop.cancel();
        }
        Ok(settled)
    }
}

/// Why a payment that was begun did not end with its reply.
enum Begun {
    /// A late reply to an earlier attempt took the key before this one was recorded.
    KeyTaken,
    Failed(Error),
}

impl From<Error> for Unpaid {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unpaid> for Error {
    fn from(unpaid: Unpaid) -> Self {
        match unpaid {
            Unpaid::UnderWay(_) => Self::PaymentInProgress { retry_after: RETRY_SHORTLY },
            Unpaid::Failed(error) => error,
        }
    }
}

impl From<Error> for Begun {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn unknown(record: &Record) -> Error {
    Error::OutcomeUnknown { gateway: record.gateway_error().cloned(), payment: Some(record.id.to_string()) }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Rejected(rejection) => Self::Unsettled(rejection),
            JournalError::NoSuchRecord => Self::UnknownPayment,
            JournalError::Overloaded => Self::Overloaded { retry_after: RETRY_SHORTLY },
            _ => Self::JournalUnavailable { retry_after: RETRY_SHORTLY },
        }
    }
}

#[cfg(test)]
mod tests;
