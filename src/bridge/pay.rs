//! Payments: journal, link, journal.
//!
//! The order holds the promise: the key is reserved in memory, points and a link are had, the record is made durable,
//! and only then the command is written, once; its outcome is durable before anybody is told. Everything runs in a task
//! of the bridge's own, so that a caller who goes away changes nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dispatch::{Dispatch, refused};
use super::error::Error;
use crate::budget::{Ask, Class, Permit};
use crate::cache::Cache;
use crate::gateway::{Cause, Ending, Failure, Lease, Lost, NotSent, Priority};
use crate::journal::{
    Dispatched, Journal, JournalError, Key, Late, Outcome, Record, RecordId, Release, Reservation, Reserve, Sale,
    Verdict,
};
use crate::wire::{Body, Command};

/// The `Retry-After` of what is decided within moments.
const SHORTLY: Duration = Duration::from_secs(1);

/// A payment that was booked, now or before.
#[derive(Debug, Clone)]
pub struct Paid {
    /// Its record.
    pub record: Record,
    /// Whether the answer is a repetition of an earlier one.
    pub replayed: bool,
}

/// The payments of one instance.
#[derive(Debug)]
pub(super) struct Payments {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) journal: Journal,
    pub(super) cache: Arc<Cache>,
    pub(super) instance: Arc<str>,
    /// Set-aside links that are listened to, by payment; ended when a person settles it.
    listening: Mutex<HashMap<RecordId, CancellationToken>>,
}

impl Payments {
    pub(super) fn new(dispatch: Arc<Dispatch>, journal: Journal, cache: Arc<Cache>, instance: Arc<str>) -> Self {
        Self { dispatch, journal, cache, instance, listening: Mutex::default() }
    }

    /// Books a sale, or says what became of the one that its key names. To be run in a task that is not dropped.
    pub(super) async fn pay(
        self: Arc<Self>,
        key: Key,
        sale: Sale,
        command: Command,
        deadline: Instant,
    ) -> Result<Paid, Error> {
        let pos_id = sale.pos_id;
        match self.journal.reserve(key, sale) {
            Reserve::Fresh(reservation) => self.begin(reservation, pos_id, &command, deadline).await,
            Reserve::Replay(record) => Ok(Paid { record: *record, replayed: true }),
            Reserve::Unknown(record) => Err(unknown(&record)),
            Reserve::InProgress => Err(Error::PaymentInProgress { retry_after: SHORTLY }),
            Reserve::Reused => Err(Error::KeyReused),
            Reserve::Overloaded => Err(Error::Overloaded { retry_after: SHORTLY }),
            Reserve::Unavailable(error) => Err(error.into()),
        }
    }

    async fn begin(
        self: Arc<Self>,
        reservation: Reservation,
        pos_id: i64,
        command: &Command,
        deadline: Instant,
    ) -> Result<Paid, Error> {
        // Until the record is durable a dropped reservation frees the key, and a dropped lease and permit go back.
        let (mut permit, mut lease) = self.way(command, deadline).await?;
        let dispatched = self.journal.dispatch(reservation).await?;
        let id = dispatched.id();
        let outcome = loop {
            permit.written();
            let outcome = lease.exchange(command, self.dispatch.api_key.expose_secret()).await;
            self.dispatch.account(command, permit, &outcome);
            if !matches!(outcome, Err(Failure::NotSent(NotSent::LinkGone))) {
                break outcome;
            }
            // Its link went away before the write: another may carry it, under the same record.
            (permit, lease) = match self.way(command, deadline).await {
                Ok(way) => way,
                Err(error) => {
                    let release = Outcome::Released(Release::NeverWritten);
                    return self.ended_in_nothing(dispatched, release, error).await;
                }
            };
        };
        match outcome {
            Ok(reply) => {
                self.cache.sold(&self.instance, pos_id);
                self.booked(dispatched, reply).await
            }
            Err(Failure::Refused(error)) => {
                let release = Outcome::Released(Release::Refused(error.clone()));
                self.ended_in_nothing(dispatched, release, refused(error)).await
            }
            Err(Failure::NotSent(why)) => {
                self.ended_in_nothing(dispatched, Outcome::Released(Release::NeverWritten), why.into()).await
            }
            Err(Failure::Unknown(lost)) => {
                self.cache.sold(&self.instance, pos_id);
                self.lost(dispatched, id, lost).await
            }
        }
    }

    /// Points and a link, in that order.
    async fn way(&self, command: &Command, deadline: Instant) -> Result<(Permit, Lease), Error> {
        let ask = Ask { command: &command.name, class: Class::Payment, deadline };
        let permit = self.dispatch.ledger.acquire(ask).await?;
        let lease = self.dispatch.pool.checkout(Priority::Payment, deadline, None).await?;
        Ok((permit, lease))
    }

    async fn booked(&self, dispatched: Dispatched, reply: Body) -> Result<Paid, Error> {
        let id = dispatched.id();
        match self.journal.finish(dispatched, Outcome::Booked(reply)).await {
            Ok(record) => Ok(Paid { record, replayed: false }),
            // An answer that a restart would forget is none.
            Err(error) => {
                tracing::error!(payment = %id, %error, "a payment was booked and its record cannot be written");
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
                tracing::error!(payment = %id, %fault, "a payment was not booked and its record cannot be written");
                Err(Error::OutcomeUnknown { gateway: None, payment: Some(id.to_string()) })
            }
        }
    }

    async fn lost(self: Arc<Self>, dispatched: Dispatched, id: RecordId, lost: Lost) -> Result<Paid, Error> {
        let gateway = match lost.cause {
            Cause::Word(error) => Some(error),
            Cause::Timeout | Cause::Disconnected => None,
        };
        tracing::warn!(instance = %self.instance, payment = %id, ?gateway, "the outcome of a payment is unknown");
        // A record that cannot be written stays `dispatching`, and a restart makes that unknown: the same answer.
        let _ = self.journal.finish(dispatched, Outcome::Unknown(gateway.clone())).await;
        if let Some(late) = lost.late {
            let stop = CancellationToken::new();
            self.listening.lock().unwrap_or_else(PoisonError::into_inner).insert(id, stop.clone());
            tokio::spawn(async move {
                let heard = tokio::select! {
                    heard = late => heard.ok(),
                    () = stop.cancelled() => None,
                };
                self.listening.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(ending) = heard {
                    self.late(id, ending).await;
                }
            });
        }
        Err(Error::OutcomeUnknown { gateway, payment: Some(id.to_string()) })
    }

    /// The late reply of a payment of unknown outcome.
    async fn late(&self, id: RecordId, ending: Ending) {
        let outcome = match ending {
            Ending::Reply(reply) => Outcome::Booked(reply),
            Ending::Error(error) if error.refuses_payment() => Outcome::Released(Release::Refused(error)),
            Ending::Error(error) => Outcome::Unknown(Some(error)),
        };
        match self.journal.late(id, outcome).await {
            Ok(Late::Changed(record) | Late::Unchanged(record)) => {
                tracing::info!(payment = %id, state = %record.state(), "the late reply of a payment");
            }
            Ok(Late::Contradiction(_)) => {
                tracing::error!(payment = %id, "the late reply of a payment contradicts what was decided");
            }
            Err(error) => tracing::error!(payment = %id, %error, "the late reply of a payment cannot be recorded"),
        }
    }

    /// Settles an unknown payment by a person's decision. Its set-aside link is closed first, so that nothing more
    /// comes over it.
    pub(super) async fn settle(&self, id: RecordId, revision: u64, verdict: Verdict) -> Result<Record, JournalError> {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(stop) = listening {
            stop.cancel();
        }
        self.journal.settle(id, revision, verdict).await
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
            _ => Self::JournalUnavailable { retry_after: SHORTLY },
        }
    }
}
