//! The journal as the bridge sees it: keys held in memory, and records in a store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::apply::Applied;
use super::clock::{Clock, SystemClock};
use super::condition::Condition;
use super::config::Config;
use super::embedded::store::EmbeddedStore;
use super::error::{JournalError, OpenError};
use super::id::{Ids, RecordId};
use super::in_flight::{Attachment, Claim, HeldKey, InFlight};
use super::listing::{Filter, Listed, Page};
use super::payment::{Dispatched, Reservation};
use super::postgres::config::PostgresConfig;
use super::postgres::store::PostgresStore;
use super::record::{Answer, Lookup, Outcome, Record, RecordState, State, Verdict};
use super::sale::{Fingerprint, Key, Sale};
use super::state_machine::{Effect, Event};
use super::store::{CountsByInstance, Current, Store};
use crate::tenure::SessionId;

/// What a request gets that asks for a payment under a key.
#[derive(Debug)]
pub enum Reserve {
    /// The key is this request's alone.
    Fresh(Reservation),
    /// The same sale was booked under it: answer with the record. It has no reply where a person settled it.
    Replay(Box<Record>),
    /// The same sale is under way; with what is attached to its key, where it is made by this process.
    InProgress(Option<Attachment>),
    /// The key belongs to another sale.
    Reused,
    /// The same sale was written, and its outcome is not known.
    Unknown(Box<Record>),
    /// The record of this payment cannot be read, so its outcome is not known.
    Unreadable(RecordId),
    /// As many payments are under way as the journal takes.
    Overloaded,
    /// The journal cannot tell: nothing may be sent.
    Unavailable(JournalError),
}

/// What a late frame did to its record.
#[derive(Debug)]
pub enum Late {
    /// It resolved an unknown outcome, or added to it.
    Changed(Record),
    /// It told nothing new.
    Unchanged(Record),
    /// It contradicts what was decided. Recorded, and an operator must be told.
    Contradiction(Record),
}

/// The payment journal. A handle, cheap to clone; its store is closed when the last one is dropped or by
/// [`close`](Self::close).
#[derive(Debug, Clone)]
pub struct Journal(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    store: Arc<dyn Store>,
    in_flight: Arc<InFlight>,
    ids: Ids,
    clock: Arc<dyn Clock>,
}

impl Journal {
    /// Opens the embedded journal, or makes it. Whatever was on its way when it was last open is unknown from now on. Reads
    /// and writes the disk: not for an async thread.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (store, newest) = EmbeddedStore::open(config, Arc::clone(&clock))?;
        Ok(Self::over(Arc::new(store), newest, clock))
    }

    /// Opens the journal of several replicas, in a database whose schema is there. For the runtime that it is called on.
    pub async fn open_postgres(config: PostgresConfig) -> Result<Self, OpenError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (store, newest) = PostgresStore::open(config, Arc::clone(&clock)).await?;
        Ok(Self::over(Arc::new(store), newest, clock))
    }

    /// What owners of an instance before this session and epoch left on its way is unknown from now on: to be called once
    /// the claim is acknowledged, before the instance is served. How many payments there were.
    pub async fn unknown_after_takeover(
        &self,
        instance: &str,
        session: SessionId,
        epoch: i64,
    ) -> Result<u64, JournalError> {
        self.0.store.take_over(instance, session, epoch).await
    }

    /// A journal over a store in which `newest` is the greatest id ever given out.
    pub(super) fn over(store: Arc<dyn Store>, newest: Option<RecordId>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Handle { store, in_flight: Arc::default(), ids: Ids::after(newest), clock }))
    }

    /// Takes `key` for `sale`, or says why not. At most one request at a time has a key. Never waits for a write.
    pub async fn reserve(&self, key: Key, sale: Sale) -> Reserve {
        self.reserve_with(key, sale, Attachment::new(())).await
    }

    /// The same, and attaches this to the key until it is free.
    pub async fn reserve_with(&self, key: Key, sale: Sale, attachment: Attachment) -> Reserve {
        let fingerprint = sale.fingerprint();
        // Claimed before it is looked up: a payment is recorded before its key is freed, so the lookup finds one that ended
        // a moment ago. Dropped at the await, the claim frees the key.
        let claim = self.0.in_flight.claim(key.clone(), fingerprint, attachment);
        let current = in_time(self.0.store.patience(), self.0.store.current(key.clone())).await;
        let is_first = matches!(current, Ok(None));
        match (recorded(current, &fingerprint), claim) {
            // Another sale may have held the key when it was claimed.
            (Some(Reserve::InProgress(_)), Claim::Held(other, attachment)) if other == fingerprint => {
                Reserve::InProgress(Some(attachment))
            }
            (Some(answer), _) => answer,
            (None, Claim::Taken(held)) => self.taken(held, key, sale, is_first),
            (None, Claim::Held(other, attachment)) if other == fingerprint => Reserve::InProgress(Some(attachment)),
            (None, Claim::Held(..)) => Reserve::Reused,
            (None, Claim::Full) => Reserve::Overloaded,
        }
    }

    /// The answer to a request that has its key, which no record decides.
    fn taken(&self, held: HeldKey, key: Key, sale: Sale, is_first: bool) -> Reserve {
        // What a damaged store does not know may have been sold under this key.
        if !self.is_available() {
            return Reserve::Unavailable(JournalError::Unavailable);
        }
        let now_ms = self.0.clock.wall_ms();
        let record = Record::reserved(self.0.ids.next(now_ms), key, sale, now_ms);
        Reserve::Fresh(Reservation::new(Box::new(record), held, is_first))
    }

    /// Records that the payment is on its way; durable when this returns, and only then may a byte of it leave. On an error
    /// nothing may be sent, and the key is free as soon as the journal is in order.
    pub async fn dispatch(&self, reservation: Reservation) -> Result<Dispatched, JournalError> {
        in_time(self.0.store.patience(), self.0.store.dispatch(reservation)).await.map(Dispatched::handed_over)
    }

    /// Records what became of a payment; durable when this returns. Only then may a caller be answered. On an error the
    /// outcome is kept and recorded when the store recovers, and the key stays taken; if the process ends before, the
    /// payment is unknown: so it must be answered as unknown. Handed in at once, even if never awaited.
    pub fn finish(
        &self,
        dispatched: Dispatched,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Record, JournalError>> + Send + use<> {
        let patience = self.0.store.patience();
        let applied = dispatched.conclude(outcome);
        async move { in_time(patience, applied).await.map(|applied| applied.record) }
    }

    /// Records what a frame told after its caller was answered, as durably as [`finish`](Self::finish). Handed in at once.
    /// A reply takes back a refusal whose key was not used again since; otherwise both payments note a contradiction.
    pub fn late(
        &self,
        id: RecordId,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Late, JournalError>> + Send + use<> {
        let patience = self.0.store.patience();
        let applied = self.0.store.apply(id, Event::Late { outcome, key_used_again: false }, None);
        async move {
            let Applied { effect, record } = in_time(patience, applied).await?;
            Ok(match effect {
                Effect::Changed => Late::Changed(record),
                Effect::Unchanged | Effect::Noted => Late::Unchanged(record),
                Effect::Contradicted => Late::Contradiction(record),
            })
        }
    }

    /// Notes that the late reply of a payment is not listened for any more, where it could still change its outcome.
    /// Handed in at once.
    pub fn not_heard_any_more(&self, id: RecordId) -> impl Future<Output = Result<(), JournalError>> + Send + use<> {
        let patience = self.0.store.patience();
        let applied = self.0.store.apply(id, Event::NotHeardAnyMore, None);
        async move { in_time(patience, applied).await.map(drop) }
    }

    /// Settles an unknown payment by a person's decision, if its record is still at `revision`; or one whose record cannot
    /// be read, at [`Unreadable::REVISION`](super::Unreadable::REVISION): a record that can be read then takes its place.
    /// Where the journal was not available, its record tells whether the decision was taken.
    pub async fn settle(&self, id: RecordId, revision: u64, verdict: Verdict) -> Result<Record, JournalError> {
        let patience = self.0.store.patience();
        let applied = self.0.store.apply(id, Event::Settle { revision, verdict }, None);
        in_time(patience, applied).await.map(|applied| applied.record)
    }

    /// Adds what a lookup found to the record of an unknown payment, each transaction once. One that is decided is left as
    /// it is.
    pub async fn attach_evidence(&self, id: RecordId, lookup: Lookup) -> Result<Record, JournalError> {
        let patience = self.0.store.patience();
        let applied = self.0.store.apply(id, Event::Evidence(lookup), None);
        in_time(patience, applied).await.map(|applied| applied.record)
    }

    /// The record of this id.
    pub async fn get(&self, id: RecordId) -> Result<Option<Record>, JournalError> {
        in_time(self.0.store.patience(), self.0.store.get(id)).await
    }

    /// The record of this id, or what is known of it where it is of this instance and cannot be read.
    pub async fn find(&self, instance: &str, id: RecordId) -> Result<Option<Listed>, JournalError> {
        in_time(self.0.store.patience(), self.0.store.find(instance, id)).await
    }

    /// Records, newest first, a page at a time. Released ones are kept like any other, though their key is free. Dropping
    /// the future ends the listing; too many at once are refused as [`JournalError::Overloaded`].
    pub async fn list(&self, filter: Filter) -> Result<Page, JournalError> {
        in_time(self.0.store.patience(), self.0.store.list(filter)).await
    }

    /// Each payment that the gateway may have counted since `since_ms` by the wall clock, with its instance and the end of
    /// its exchange: also refused ones, but none that was never written. At a start: it may block.
    pub fn sent_since(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError> {
        self.0.store.sent_since(since_ms)
    }

    /// How many records are in each state.
    pub async fn counts(&self) -> Result<BTreeMap<RecordState, u64>, JournalError> {
        let held = self.0.in_flight.len() as u64;
        let mut counts = in_time(self.0.store.patience(), self.0.store.counts()).await?;
        let dispatching = counts.get(&State::Dispatching.into()).copied().unwrap_or(0);
        counts.insert(State::Reserved.into(), held.saturating_sub(dispatching));
        Ok(counts)
    }

    /// How many records of each instance are in each state; those of which there are none may be left out.
    pub async fn counts_by_instance(&self) -> Result<CountsByInstance, JournalError> {
        let held = self.0.in_flight.by_instance();
        let mut counts = in_time(self.0.store.patience(), self.0.store.counts_by_instance()).await?;
        for (instance, held) in held {
            let dispatching = counts.get(&(instance.clone(), State::Dispatching.into())).copied().unwrap_or(0);
            counts.insert((instance, State::Reserved.into()), held.saturating_sub(dispatching));
        }
        Ok(counts)
    }

    /// How often the gateway contradicted the record of a payment of this instance since the journal was opened.
    #[must_use]
    pub fn contradictions(&self, instance: &str) -> u64 {
        self.0.store.contradictions(instance)
    }

    /// Commits since the journal was opened: payments under way at the same time share them.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.store.commits()
    }

    /// Whether payments can be recorded, as far as is known.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.store.is_available()
    }

    /// How its disk and the wall clock are doing, as far as is known.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.0.store.condition()
    }

    /// Takes no more, writes what waits and closes the store. A payment still under way is unknown at the next start.
    pub async fn close(&self) {
        self.0.store.close().await;
    }
}

/// What the latest attempt under a key answers; none where the key is free.
fn recorded(current: Result<Option<Current>, JournalError>, fingerprint: &Fingerprint) -> Option<Reserve> {
    let record = match current {
        Ok(Some(Current::Record(record))) => record,
        Ok(Some(Current::Unreadable(id, known))) => {
            let is_other = known.is_some_and(|known| known != *fingerprint);
            return Some(if is_other { Reserve::Reused } else { Reserve::Unreadable(id) });
        }
        Ok(None) => return None,
        Err(error) => return Some(Reserve::Unavailable(error)),
    };
    match record.answer(fingerprint) {
        Answer::Free => None,
        Answer::Reused => Some(Reserve::Reused),
        Answer::InProgress => Some(Reserve::InProgress(None)),
        Answer::Replay => Some(Reserve::Replay(record)),
        Answer::Unknown => Some(Reserve::Unknown(record)),
    }
}

async fn in_time<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, JournalError>>,
) -> Result<T, JournalError> {
    time::timeout(patience, answer).await.unwrap_or(Err(JournalError::Unavailable))
}
