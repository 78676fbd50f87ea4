//! Durable payment records, and at most one dispatch a key.
//!
//! The gateway books twice what is sent twice and has no memory that a caller could ask, so the bridge keeps one: a
//! record that a payment is on its way, on disk before its first byte leaves, and its outcome, on disk before anybody
//! hears of it. From reserving a key to its outcome, the way is [`Journal::reserve`], [`Journal::dispatch`],
//! [`Journal::finish`]; what is written where is in `writer` and `store`, what may follow what in [`rules`].
//!
//! The journal decides nothing about money by itself. It never frees a key that might have been booked, never lets an
//! unknown outcome expire, and never answers from what a restart would forget. It knows nothing of HTTP or of links.
//!
//! Cancellation: every future here may be dropped at any await. A [`Reservation`] dropped frees its key; a `dispatch`
//! dropped leaves a payment that is released once its commit is through, for nobody can have written it; a
//! [`Dispatched`] dropped becomes unknown; a `finish`, `late` or `settle` dropped goes on.

mod clock;
mod directory;
mod encoding;
mod error;
mod id;
mod in_flight;
mod index;
mod kept;
mod listing;
mod opening;
mod overlay;
mod pages;
mod payment;
mod raw;
pub mod record;
mod sale;
pub mod state_machine;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod upgrade;
mod verification;
mod write_queue;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task;
use tokio::time;

use clock::{Clock, SystemClock};
use directory::{Directory, Medium};
pub use error::{JournalError, OpenError};
use id::Ids;
pub use id::RecordId;
use in_flight::{Claim, InFlight};
pub use index::RecordState;
pub use listing::{Filter, Listed, Page, Unreadable};
use listing::{Scan, Scans};
use opening::COMPACTED_BYTES;
pub use payment::{Dispatched, Reservation};
pub use record::{
    Answer, Candidate, Discrepancy, Finding, Lookup, Outcome, Record, Recovered, Release, Search, State, Verdict,
};
pub use sale::{Fingerprint, Key, Sale};
pub use state_machine::Rejection;
use state_machine::{Effect, Event};
use store::{Current, Snapshot, StoreError, View};
use verification::{Background, Stop};
pub use verification::{Verification, verify};
use write_queue::{Applied, Job, WriteQueue};
use writer::Writer;

/// How long a caller waits for the disk before it is told that the journal is not available: a healthy commit takes
/// about a millisecond, and a payment's own deadline is 15 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// Records that a start looks at for what was sent lately: more than any gateway takes in ten minutes.
const MOST_LOOKED_AT: u32 = 100_000;

/// Keys that are looked up at once. More than that wait: a disk that hangs must not take every thread that may block.
const MAX_LOOKUPS: usize = 64;

/// The longest from reserving a key to the end of the exchange, in milliseconds: 10 minutes, with much to spare.
const LONGEST_PAYMENT_MS: i64 = 600_000;

/// Where the journal lies and how long it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    directory: PathBuf,
    keep: Duration,
    create: Create,
}

/// Whether a journal may be made. Where one is made, every key is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Create {
    /// In a folder that is absent or empty.
    #[default]
    IfEmpty,
    /// Nowhere: what is absent was lost.
    Never,
}

/// Why a configuration is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// No directory was named.
    #[error("the journal needs a directory")]
    NoDirectory,
    /// Callers repeat a payment for longer than this after a timeout.
    #[error("a payment's key must be kept for at least {} s", Config::LEAST_KEEP.as_secs())]
    KeepTooShort,
}

impl Config {
    /// The shortest `keep`: within it, a repeat after a timeout must still be recognised.
    pub const LEAST_KEEP: Duration = Duration::from_mins(1);

    /// A journal in `directory`, made if that is absent or empty, whose keys are new again `keep` after their payment ended.
    pub fn new(directory: impl Into<PathBuf>, keep: Duration) -> Result<Self, InvalidConfig> {
        let directory = directory.into();
        if directory.as_os_str().is_empty() {
            return Err(InvalidConfig::NoDirectory);
        }
        if keep < Self::LEAST_KEEP {
            return Err(InvalidConfig::KeepTooShort);
        }
        Ok(Self { directory, keep, create: Create::default() })
    }

    /// The same, with another rule for making a journal.
    #[must_use]
    pub fn with_create(self, create: Create) -> Self {
        Self { create, ..self }
    }

    /// The journal's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a journal may be made.
    #[must_use]
    pub fn create(&self) -> Create {
        self.create
    }

    /// Refuses what [`Journal::open`] would refuse for what is missing, and makes nothing. Reads the disk.
    pub fn inspect(&self) -> Result<(), OpenError> {
        directory::inspect(&self.directory, self.create)
    }

    /// How long a key is kept after its payment ended, in time that the bridge runs.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.keep
    }
}

impl Default for Config {
    fn default() -> Self {
        let (directory, keep) = (PathBuf::from("data/journal"), Duration::from_hours(30 * 24));
        Self { directory, keep, create: Create::default() }
    }
}

/// What a request gets that asks for a payment under a key.
#[derive(Debug)]
pub enum Reserve {
    /// The key is this request's alone.
    Fresh(Reservation),
    /// The same sale was booked under it: answer with the record. It has no reply where a person settled it.
    Replay(Box<Record>),
    /// The same sale is under way.
    InProgress,
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
    /// It contradicts what was decided. Recorded, and somebody must be told.
    Contradiction(Record),
}

/// The payment journal. A handle, cheap to clone; the file is closed when the last one is dropped or by
/// [`close`](Self::close).
#[derive(Debug, Clone)]
pub struct Journal(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    view: Arc<View>,
    queue: Arc<WriteQueue>,
    live: Arc<InFlight>,
    ids: Ids,
    scans: Scans,
    clock: Arc<dyn Clock>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lookups: Arc<Semaphore>,
    stop: Arc<Stop>,
}

impl Journal {
    /// Opens the journal, or makes it. Whatever was on its way when it was last open is unknown from now on. Reads and
    /// writes the disk: not for an async thread.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let place = Directory::claim(&config.directory, config.create)?;
        let path = place.path().to_owned();
        let journal = Self::open_on(place, config.keep, Arc::new(SystemClock::default()))?;
        journal.verify_in_background(path.clone()).map_err(|source| OpenError::Io { path, source })?;
        Ok(journal)
    }

    /// Compares all of the file with its checksums from now on, a little at a time. Damage ends new payments.
    fn verify_in_background(&self, path: PathBuf) -> std::io::Result<()> {
        let (view, queue, stop) = (Arc::clone(&self.0.view), Arc::clone(&self.0.queue), Arc::clone(&self.0.stop));
        Background { path, view, queue, stop }.start().map(drop)
    }

    fn open_on(medium: impl Medium, keep: Duration, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = medium.path().to_owned();
        let database = opening::open_compact(&medium, COMPACTED_BYTES)?;
        let (view, queue): (Arc<View>, Arc<WriteQueue>) = Default::default();
        let shared = (Arc::clone(&view), Arc::clone(&queue));
        let writer = Writer::start(database, shared, Arc::clone(&clock), keep, Box::new(medium))
            .map_err(|fault| opening::misread(fault, &path))?;
        let newest = view.look(Snapshot::newest).map_err(|fault| opening::misread(fault, &path))?;
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path, source })?;
        let writer = Mutex::new(Some(thread));
        let (live, scans, stop) = Default::default();
        let (ids, lookups) = (Ids::after(newest), Arc::new(Semaphore::new(MAX_LOOKUPS)));
        Ok(Self(Arc::new(Handle { view, queue, live, ids, scans, clock, writer, lookups, stop })))
    }

    /// Takes `key` for `sale`, or says why not. At most one request at a time has a key. Decided in memory and by at
    /// most a few pages of the file; never waits for a write.
    #[must_use]
    pub fn reserve(&self, key: Key, sale: Sale) -> Reserve {
        let fingerprint = sale.fingerprint();
        // The first look may read the disk, outside the lock; the one under the lock then finds its pages in memory.
        if let Some(answer) = self.recorded(&key, &fingerprint) {
            return answer;
        }
        match self.0.live.claim(key.clone(), fingerprint, |key| self.recorded(key, &fingerprint)) {
            // What the damaged file does not know may have been sold under this key.
            Claim::Taken(_) if self.0.view.is_condemned() => Reserve::Unavailable(JournalError::Unavailable),
            Claim::Taken(live) => {
                let now_ms = self.0.clock.wall_ms();
                let record = Record::reserved(self.0.ids.next(now_ms), key, sale, now_ms);
                Reserve::Fresh(Reservation::new(Box::new(record), live))
            }
            Claim::Live(other) if other == fingerprint => Reserve::InProgress,
            Claim::Live(_) => Reserve::Reused,
            Claim::Refused(answer) => answer,
            Claim::Full => Reserve::Overloaded,
        }
    }

    fn recorded(&self, key: &Key, fingerprint: &Fingerprint) -> Option<Reserve> {
        let record = match self.read(|snapshot| snapshot.current(key)) {
            Ok(Some(Current::Record(record))) => record,
            Ok(Some(Current::Unreadable(id, known))) => {
                self.report_unreadable(id);
                let is_other = known.is_some_and(|known| known != *fingerprint);
                return Some(if is_other { Reserve::Reused } else { Reserve::Unreadable(id) });
            }
            Ok(None) => return None,
            Err(error) => return Some(Reserve::Unavailable(error)),
        };
        match record.answer(fingerprint) {
            Answer::Free => None,
            Answer::Reused => Some(Reserve::Reused),
            Answer::InProgress => Some(Reserve::InProgress),
            Answer::Replay => Some(Reserve::Replay(record)),
            Answer::Unknown => Some(Reserve::Unknown(record)),
        }
    }

    /// Records that the payment is on its way; on disk when this returns, and only then may a byte of it leave. On an
    /// error nothing may be sent, and the key is free as soon as the journal is in order.
    pub async fn dispatch(&self, reservation: Reservation) -> Result<Dispatched, JournalError> {
        let heard = reservation.hand_in(&self.0.queue)?;
        answered(heard).await.map(Dispatched::handed_over)
    }

    /// Records what became of a payment; on disk when this returns. Only then may anybody be answered. On an error the
    /// outcome is kept and recorded when the disk recovers, and the key stays taken; if the process ends before, the
    /// payment is unknown: so it must be answered as unknown. Handed in at once, even if never awaited.
    pub fn finish(
        &self,
        dispatched: Dispatched,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Record, JournalError>> + Send + use<> {
        let heard = dispatched.conclude(outcome);
        async { answered(heard?).await.map(|applied| applied.record) }
    }

    /// Records what a frame told after its caller was answered, as durably as [`finish`](Self::finish). Handed in at once.
    /// A reply takes back a refusal whose key was not used again since; otherwise both payments note a contradiction.
    pub fn late(
        &self,
        id: RecordId,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Late, JournalError>> + Send + use<> {
        let heard = self.0.queue.apply(id, Event::Late { outcome, key_used_again: false }, None);
        async {
            let Applied { effect, record } = answered(heard?).await?;
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
        let heard = self.0.queue.apply(id, Event::NotHeardAnyMore, None);
        async { answered(heard?).await.map(|_| ()) }
    }

    /// Settles an unknown payment by a person's decision, if its record is still at `revision`; or one whose record cannot
    /// be read, at [`Unreadable::REVISION`]: a record that can be read then takes its place. Where the journal was not
    /// available, its record tells whether the decision was taken.
    pub async fn settle(&self, id: RecordId, revision: u64, verdict: Verdict) -> Result<Record, JournalError> {
        let heard = self.0.queue.apply(id, Event::Settle { revision, verdict }, None)?;
        answered(heard).await.map(|applied| applied.record)
    }

    /// Adds evidence to the record of an unknown payment, each transaction once. One that is decided is left as it is.
    pub async fn attach_evidence(&self, id: RecordId, look: Lookup) -> Result<Record, JournalError> {
        let heard = self.0.queue.apply(id, Event::Evidence(look), None)?;
        answered(heard).await.map(|applied| applied.record)
    }

    /// The record of this id.
    pub async fn get(&self, id: RecordId) -> Result<Option<Record>, JournalError> {
        self.look(move |snapshot| snapshot.get(id)).await
    }

    /// The record of this id, or what is known of it where it is of this instance and cannot be read.
    pub async fn look_up(&self, instance: &str, id: RecordId) -> Result<Option<Listed>, JournalError> {
        let instance = instance.to_owned();
        let found = self.look(move |snapshot| snapshot.find(&instance, id)).await?;
        self.report(&found);
        Ok(found)
    }

    /// The record that decides what a request with this key gets: its latest attempt.
    pub async fn find(&self, key: Key) -> Result<Option<Record>, JournalError> {
        let current = self.look(move |snapshot| snapshot.current(&key)).await?;
        match current {
            Some(Current::Record(record)) => Ok(Some(*record)),
            Some(Current::Unreadable(..)) => Err(JournalError::Damaged),
            None => Ok(None),
        }
    }

    /// Records, newest first, a page at a time. Released ones are kept like any other, though their key is free. Ends when
    /// nobody waits for it any more; so many at once are refused as [`JournalError::Overloaded`].
    pub async fn list(&self, filter: Filter) -> Result<Page, JournalError> {
        let place = self.0.scans.enter().await?;
        let (scan, _waiting) = Scan::begin();
        let listing = self.look(move |snapshot| {
            let page = snapshot.list(&filter, &scan);
            drop(place);
            page
        });
        let page = listing.await?;
        self.report(&page.records);
        Ok(page)
    }

    /// Each payment that the gateway may have counted since `since_ms` by the wall clock, with its instance and the end of
    /// its exchange: also refused ones, but none that was never written. Reads the disk: not for an async thread.
    pub fn sent_since(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError> {
        let (mut sent, mut left) = (Vec::new(), MOST_LOOKED_AT);
        let begun_by = since_ms.saturating_sub(LONGEST_PAYMENT_MS);
        self.read(|snapshot| {
            snapshot.newest_while(|record| {
                if let Some(ended_ms) = record.sent_until_ms().filter(|ended_ms| *ended_ms >= since_ms) {
                    sent.push((record.key.instance.clone(), ended_ms));
                }
                left -= 1;
                left > 0 && record.times.created_ms >= begun_by
            })
        })?;
        Ok(sent)
    }

    /// [`reserve`](Self::reserve) for an async thread: a disk that hangs while pages of the file are read holds up
    /// nobody else, and the caller no longer than any other look.
    pub async fn reserve_soon(&self, key: Key, sale: Sale) -> Reserve {
        let unavailable = || Reserve::Unavailable(JournalError::Unavailable);
        let Ok(Ok(place)) = time::timeout(PATIENCE, Arc::clone(&self.0.lookups).acquire_owned()).await else {
            return unavailable();
        };
        let journal = self.clone();
        let looked = task::spawn_blocking(move || {
            let _place = place;
            journal.reserve(key, sale)
        });
        // A reservation that comes too late is dropped where it is made, which frees its key.
        time::timeout(PATIENCE, looked)
            .await
            .map_or_else(|_| unavailable(), |looked| looked.unwrap_or_else(|_| unavailable()))
    }

    /// How many records are in each state.
    pub async fn counts(&self) -> Result<BTreeMap<RecordState, u64>, JournalError> {
        let live = self.0.live.len() as u64;
        self.look(move |snapshot| {
            let mut counts = BTreeMap::new();
            for state in RecordState::ALL {
                counts.insert(state, snapshot.count(state)?);
            }
            let dispatching = counts.get(&State::Dispatching.into()).copied().unwrap_or(0);
            counts.insert(State::Reserved.into(), live.saturating_sub(dispatching));
            Ok(counts)
        })
        .await
    }

    /// Has those that were found unreadable listed as such from now on.
    fn report<'l>(&self, found: impl IntoIterator<Item = &'l Listed>) {
        for listed in found {
            match listed {
                Listed::Unreadable(unreadable) if !unreadable.is_marked => self.report_unreadable(unreadable.id),
                Listed::Unreadable(_) | Listed::Record(_) => {}
            }
        }
    }

    fn report_unreadable(&self, id: RecordId) {
        // Where the queue is full it is found again.
        let _ = self.0.queue.hand_in(Job::Unreadable { id });
    }

    /// How often the gateway contradicted the record of a payment of this instance since the journal was opened.
    #[must_use]
    pub fn contradictions(&self, instance: &str) -> u64 {
        self.0.view.contradictions(instance)
    }

    /// Commits since the journal was opened: payments under way at the same time share them.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.view.commits()
    }

    /// Whether payments can be recorded, as far as is known.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.0.view.is_shown() && !self.0.view.is_condemned()
    }

    /// Takes no more, writes what waits and closes the file. A payment still under way is unknown at the next start.
    pub async fn close(&self) {
        self.0.stop.stop();
        self.0.queue.close();
        let thread = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let ended = task::spawn_blocking(move || thread.join());
            let _ = time::timeout(PATIENCE, ended).await;
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let journal = self.clone();
        let looked = task::spawn_blocking(move || journal.read(look));
        time::timeout(PATIENCE, looked)
            .await
            .map_or(Err(JournalError::Unavailable), |looked| looked.unwrap_or(Err(JournalError::Unavailable)))
    }

    fn read<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, StoreError>) -> Result<T, JournalError> {
        self.0.view.look(look).map_err(|fault| match fault {
            StoreError::Closed | StoreError::Moved(_) | StoreError::Abandoned => JournalError::Unavailable,
            StoreError::Damaged { id, .. } => {
                self.report_unreadable(id);
                JournalError::Damaged
            }
            StoreError::Storage(error) => {
                tracing::error!(%error, "the payment journal cannot be read");
                // A failed read fails all that follow until the file is opened anew, and only the writer does that.
                let _ = self.0.queue.hand_in(Job::Probe);
                JournalError::Unavailable
            }
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.stop();
        self.queue.close();
    }
}

async fn answered<T>(heard: oneshot::Receiver<Result<T, JournalError>>) -> Result<T, JournalError> {
    match time::timeout(PATIENCE, heard).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(JournalError::Unavailable),
    }
}
