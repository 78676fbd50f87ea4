//! The one thread that writes: it drains the queue, up to [`BATCH`] jobs a commit, so that payments under way at the
//! same time share its syncs.
//!
//! Nobody hears of anything before it is on disk. When a commit fails, everything in it is refused, and the journal
//! refuses all work until it has opened its file anew and made one commit that succeeds. What the failed commit held
//! is not forgotten meanwhile: a payment it was to record was never sent, an outcome it was to record is known, and
//! both go into that first commit, whether or not the reopened file shows the failed one. If the process ends before,
//! the disk says *on its way*, and the next start takes that for unknown, which is all that was ever told to anybody.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::oneshot;

use super::clock::{Age, Clock, horizon_ms};
use super::error::{JournalError, OpenError};
use super::id::RecordId;
use super::in_flight::{HeldKey, MAX_LIVE};
use super::index::RecordState;
use super::listing::Unreadable;
use super::opening::Home;
use super::payment::Dispatched;
use super::record::{Contradiction, Discrepancy, Outcome, Record, Release, State};
use super::state_machine::{Effect, Event};
use super::store::{self, Batch, News, Snapshot, StoreError, View};
use super::verification::Pin;
use super::write_queue::{Applied, Job, WriteQueue};

/// Jobs a commit. Measured: 64 a commit record twenty times as many payments a second as one a commit.
const BATCH: usize = 64;
/// Expired records forgotten with each commit: more than a commit can add, and little beside its syncs.
const EXPIRED_AT_ONCE: usize = 2 * BATCH;
/// An idle journal commits its age this often: what a crash can add to the life of a record, and how soon a disk that
/// failed is found out before a payment does.
const IDLE: Duration = Duration::from_mins(1);
/// An idle journal looks this often whether its file is where it should be.
const WATCH: Duration = Duration::from_secs(2);
/// Attempts under one key that are looked through for the one that another follows; beyond it a listing by key is short.
const MOST_ATTEMPTS: usize = 64;
/// Pauses between attempts to recover: the first is made at once, then from here doubling to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Late outcomes kept over a fault, beside those of payments under way. One beyond leaves its payment unknown.
const MAX_UNWRITTEN: usize = MAX_LIVE + 1024;

/// Everything the thread owns.
pub(super) struct Writer {
    /// None while it is out of order.
    database: Option<Database>,
    view: Arc<View>,
    queue: Arc<WriteQueue>,
    clock: Arc<dyn Clock>,
    keep: Duration,
    home: Box<dyn Home>,
    age: Age,
    /// The last commit left expired records behind.
    behind: bool,
    /// When it last committed, or found the file where it should be.
    committed: Instant,
    /// While the store is out of order.
    down: Option<Down>,
    /// Outcomes that no commit holds for certain.
    unwritten: Vec<Unwritten>,
}

#[derive(Debug, Clone, Copy)]
struct Down {
    next_attempt: Instant,
    pause: Duration,
}

struct Unwritten {
    id: RecordId,
    /// An outcome, told at once or late.
    event: Event,
    /// Held so that the key is not given out before the outcome is on disk.
    live: Option<HeldKey>,
}

impl Writer {
    /// Takes over an open file, after a start or a crash: what was on its way is unknown from now on. Proves with a
    /// commit that the file can be written.
    pub(super) fn start(
        database: Database,
        (view, queue): (Arc<View>, Arc<WriteQueue>),
        clock: Arc<dyn Clock>,
        keep: Duration,
        home: Box<dyn Home>,
    ) -> Result<Self, StoreError> {
        let now_ms = clock.wall_ms();
        let stored_ms = store::commit(&database, &view, |batch| {
            let age_ms = batch.age_ms()?;
            batch.unmark_readable(age_ms)?;
            let open = [State::Dispatching, State::Unknown].map(|state| batch.ids_in(state.into()));
            let [dispatching, unknown] = open;
            for id in dispatching?.into_iter().chain(unknown?) {
                match batch.get(id) {
                    Ok(Some(mut record)) => {
                        let before = record.state().into();
                        let _ = apply(batch, &mut record, before, &Event::Restart, now_ms, age_ms)?;
                    }
                    Ok(None) | Err(StoreError::Damaged { .. }) => batch.mark_unreadable(id)?,
                    Err(fault) => return Err(fault),
                }
            }
            Ok(age_ms)
        })?;
        view.show(Some(Snapshot::of(&database)?));
        let age = Age::resume(stored_ms, clock.monotonic());
        let database = Some(database);
        Ok(Self {
            database,
            view,
            queue,
            clock,
            keep,
            home,
            age,
            behind: false,
            down: None,
            unwritten: Vec::new(),
            committed: Instant::now(),
        })
    }

    /// Runs until the queue is closed and empty, then closes the file.
    pub(super) fn run(mut self) {
        let _end = End { view: Arc::clone(&self.view), queue: Arc::clone(&self.queue) };
        loop {
            let mut taken = self.queue.take(BATCH, self.patience());
            taken.jobs = self.hand_out_pins(taken.jobs);
            if self.down.is_some_and(|down| taken.closed || Instant::now() >= down.next_attempt) {
                self.recover();
            }
            if self.down.is_some() {
                self.refuse(taken.jobs, Attempted::No);
            } else if taken.jobs.is_empty() && !taken.closed && !self.behind && self.committed.elapsed() < IDLE {
                self.look_after();
            } else {
                self.serve(taken.jobs);
            }
            if taken.closed {
                break;
            }
        }
        if !self.unwritten.is_empty() {
            tracing::error!(payments = self.unwritten.len(), "outcomes could not be recorded and will be unknown");
        }
    }

    fn patience(&self) -> Duration {
        match self.down {
            Some(down) => down.next_attempt.saturating_duration_since(Instant::now()),
            None if self.behind => Duration::ZERO,
            None => WATCH,
        }
    }

    /// Answers those who verify; the other jobs are left. Here no commit is under way.
    fn hand_out_pins(&self, jobs: Vec<Job>) -> Vec<Job> {
        let pin = |reply: oneshot::Sender<Pin>| match self.pin() {
            // Who hears nothing asks again later.
            Err(fault) => tracing::debug!(%fault, "the payment journal cannot be verified now"),
            Ok(pin) => drop(reply.send(pin)),
        };
        let left = jobs.into_iter().filter_map(|job| match job {
            Job::Pin(reply) => {
                pin(reply);
                None
            }
            job => Some(job),
        });
        left.collect()
    }

    fn pin(&self) -> Result<Pin, StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
        let held = Snapshot::of(database)?;
        let (header, backend) = self.home.pages()?;
        Ok(Pin { _held: held, header, backend })
    }

    /// Finds out that the file was moved before a payment does.
    fn look_after(&mut self) {
        if let Err(error) = self.home.check() {
            self.fail(&error.into(), Vec::new());
        }
    }

    /// Refuses the jobs of a commit that failed, and everything from now on until the file is in order again.
    fn fail(&mut self, fault: &StoreError, jobs: Vec<Job>) {
        tracing::error!(%fault, "the payment journal cannot be written: no payment is sent");
        // First, so that who hears of the fault finds the journal out of order.
        self.view.show(None);
        self.refuse(jobs, Attempted::Yes);
        self.recover();
    }

    /// Commits the jobs, or only the journal's age and what has expired.
    fn serve(&mut self, mut jobs: Vec<Job>) {
        // What is known by now of payments under a key is known before the next one under it is let go.
        jobs.sort_by_key(|job| matches!(job, Job::Dispatch { .. }));
        self.committed = Instant::now();
        let now_ms = self.clock.wall_ms();
        let age_ms = self.age.at_ms(self.clock.monotonic());
        let horizon_ms = horizon_ms(age_ms, self.keep);
        let committed = self.commit(|batch| {
            let expired = horizon_ms.map_or(Ok(0), |horizon_ms| batch.expire(horizon_ms, EXPIRED_AT_ONCE))?;
            let do_one = |job: &Job| match job {
                Job::Dispatch { .. } if self.view.is_condemned() => Ok(Err(JournalError::Unavailable)),
                job => do_job(batch, job, now_ms, age_ms),
            };
            let done: Vec<_> = jobs.iter().map(do_one).collect::<Result<_, StoreError>>()?;
            batch.set_age_ms(age_ms)?;
            Ok((expired, done))
        });
        match committed {
            Ok((expired, done)) => {
                self.behind = expired == EXPIRED_AT_ONCE;
                jobs.into_iter().zip(done).for_each(|(job, done)| self.answer(job, done));
            }
            Err(fault) => self.fail(&fault, jobs),
        }
    }

    /// Commits, and shows the new state: before anybody hears of it, so that who repeats a request finds its record.
    fn commit<T>(&self, work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
        self.home.check()?;
        let done = store::commit(database, &self.view, work)?;
        // It may have been moved meanwhile. Only what the next start will find lets a payment leave.
        self.home.check()?;
        self.view.committed();
        self.view.show(Some(Snapshot::of(database)?));
        Ok(done)
    }

    fn answer(&self, job: Job, done: Result<Option<Applied>, JournalError>) {
        match job {
            Job::Dispatch { record, live, reply } => {
                let dispatched = done.map(|_| Dispatched::new(record.id, live, Arc::clone(&self.queue)));
                // If nobody waits any more, what comes back is dropped and hands in that it was never written.
                drop(reply.send(dispatched));
            }
            Job::Apply { id, live, reply, .. } => {
                // Freed before the answer: who repeats the request on hearing it must find the record.
                drop(live);
                let done = done.and_then(|applied| applied.ok_or(JournalError::NoSuchRecord));
                match reply {
                    Some(reply) => drop(reply.send(done)),
                    None if done.is_ok() => {}
                    None => tracing::error!(%id, ?done, "an outcome that nobody waited for could not be recorded"),
                }
            }
            Job::Unreadable { .. } | Job::Probe | Job::Pin(_) => {}
        }
    }

    /// Answers that nothing was done, and keeps the outcomes for the first commit after the fault.
    fn refuse(&mut self, jobs: Vec<Job>, attempted: Attempted) {
        for job in jobs {
            match job {
                Job::Dispatch { record, live, reply } => {
                    if attempted == Attempted::Yes {
                        // The failed commit may yet show in the reopened file, and nothing was sent.
                        let event = Event::Outcome(Outcome::Released(Release::NeverWritten));
                        self.unwritten.push(Unwritten { id: record.id, event, live: Some(live) });
                    }
                    drop(reply.send(Err(JournalError::Unavailable)));
                }
                Job::Apply { id, event, live, reply } => {
                    if matches!(event, Event::Outcome(_) | Event::Late { .. }) {
                        self.keep_unwritten(Unwritten { id, event, live });
                    }
                    if let Some(reply) = reply {
                        drop(reply.send(Err(JournalError::Unavailable)));
                    }
                }
                Job::Unreadable { .. } | Job::Probe | Job::Pin(_) => {}
            }
        }
    }

    fn keep_unwritten(&mut self, unwritten: Unwritten) {
        if unwritten.live.is_some() || self.unwritten.len() < MAX_UNWRITTEN {
            self.unwritten.push(unwritten);
        } else {
            tracing::error!(id = %unwritten.id, "a late outcome is lost: the payment stays unknown");
        }
    }

    /// Opens the file anew and proves it with a commit that holds every outcome still owed.
    fn recover(&mut self) {
        // Closed before it is opened again: its lock is exclusive.
        self.database = None;
        match self.reopen() {
            Ok((database, snapshot)) => {
                self.database = Some(database);
                self.down = None;
                // The keys are free before the journal answers for them again.
                self.unwritten.clear();
                self.view.show(Some(snapshot));
                tracing::info!("the payment journal can be written again");
            }
            Err(reason) => {
                let pause = self.down.map_or(FIRST_PAUSE, |down| (down.pause * 2).min(LONGEST_PAUSE));
                self.down = Some(Down { next_attempt: Instant::now() + pause, pause });
                tracing::warn!(reason, "the payment journal is still out of order");
            }
        }
    }

    fn reopen(&self) -> Result<(Database, Snapshot), String> {
        let database = self.home.open().map_err(|error| told(&error))?;
        let now_ms = self.clock.wall_ms();
        let age_ms = self.age.at_ms(self.clock.monotonic());
        let proof = store::commit(&database, &self.view, |batch| {
            for Unwritten { id, event, .. } in &self.unwritten {
                match affect(batch, *id, event, now_ms, age_ms) {
                    Ok(Err(JournalError::NoSuchRecord))
                        if !matches!(event, Event::Outcome(Outcome::Released(Release::NeverWritten))) =>
                    {
                        tracing::error!(%id, "the disk lost the record of a payment that was sent");
                    }
                    Ok(_) => {}
                    Err(StoreError::Damaged { .. }) => batch.mark_unreadable(*id)?,
                    Err(fault) => return Err(fault),
                }
            }
            batch.set_age_ms(age_ms)
        });
        let proof = proof.and_then(|()| Ok(self.home.check()?));
        let snapshot = proof.and_then(|()| Snapshot::of(&database)).map_err(|fault| fault.to_string())?;
        Ok((database, snapshot))
    }
}

/// Whether a commit was tried with the jobs in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempted {
    Yes,
    No,
}

/// Leaves nobody waiting, however the thread ends.
struct End {
    view: Arc<View>,
    queue: Arc<WriteQueue>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.queue.close();
        while !self.queue.take(BATCH, Duration::ZERO).closed {}
        self.view.show(None);
    }
}

/// Does one job in a batch. The outer error fails the batch, the inner one only the job.
fn do_job(
    batch: &mut Batch<'_>,
    job: &Job,
    now_ms: i64,
    age_ms: u64,
) -> Result<Result<Option<Applied>, JournalError>, StoreError> {
    let done = match job {
        Job::Dispatch { record, .. } => dispatch(batch, record, now_ms, age_ms).map(|done| done.map(|()| None)),
        Job::Apply { id, event, .. } => affect(batch, *id, event, now_ms, age_ms).map(|done| done.map(Some)),
        Job::Unreadable { id } => batch.mark_unreadable(*id).map(|()| Ok(None)),
        Job::Probe | Job::Pin(_) => Ok(Ok(None)),
    };
    match done {
        Err(StoreError::Damaged { id, .. }) => {
            batch.mark_unreadable(id)?;
            Ok(Err(JournalError::Damaged))
        }
        done => done,
    }
}

/// Applies an event to the record of this id, or to what can be made of one that cannot be read.
fn affect(
    batch: &mut Batch<'_>,
    id: RecordId,
    event: &Event,
    now_ms: i64,
    age_ms: u64,
) -> Result<Result<Applied, JournalError>, StoreError> {
    let (before, mut record) = match batch.get(id) {
        Ok(Some(record)) => (record.state().into(), record),
        Ok(None) | Err(StoreError::Damaged { .. }) if decides_the_unreadable(event) => match batch.remade(id)? {
            Some(remade) => remade,
            None => return Ok(Err(JournalError::NoSuchRecord)),
        },
        Ok(None) => return Ok(Err(JournalError::NoSuchRecord)),
        Err(fault) => return Err(fault),
    };
    let done = apply(batch, &mut record, before, event, now_ms, age_ms)?;
    Ok(done.map(|effect| Applied { effect, record }))
}

/// Whether an event tells what became of a payment whatever its record may have said. A refusal does not: it may have
/// come after the reply that the record held, and would free a key that was booked.
fn decides_the_unreadable(event: &Event) -> bool {
    matches!(
        event,
        Event::Settle { .. } | Event::Outcome(Outcome::Booked(_)) | Event::Late { outcome: Outcome::Booked(_), .. }
    )
}

fn dispatch(
    batch: &mut Batch<'_>,
    reserved: &Record,
    now_ms: i64,
    age_ms: u64,
) -> Result<Result<(), JournalError>, StoreError> {
    let mut record = reserved.clone();
    if let Some(current) = batch.current(&record.key)? {
        // The reservation looked already. That no key is dispatched twice is worth a second look.
        if !current.frees_its_key() {
            return Ok(Err(JournalError::KeyTaken(current.state())));
        }
        record.previous = Some(current.id);
    }
    if let Err(rejection) = record.apply(&Event::Dispatch, now_ms) {
        return Ok(Err(rejection.into()));
    }
    batch.insert(&record, age_ms)?;
    Ok(Ok(()))
}

/// Applies an event to a record that is listed under `before`.
fn apply(
    batch: &mut Batch<'_>,
    record: &mut Record,
    before: RecordState,
    event: &Event,
    now_ms: i64,
    age_ms: u64,
) -> Result<Result<Effect, JournalError>, StoreError> {
    if let Event::Late { outcome, .. } = event {
        return late(batch, record, before, outcome, now_ms, age_ms);
    }
    let was_free = record.frees_its_key();
    let effect = step(batch, record, before, event, now_ms, age_ms)?;
    if !was_free && record.frees_its_key() {
        give_key_back(batch, record, now_ms, age_ms)?;
    }
    Ok(effect)
}

/// While this payment held the key, an earlier one under it turned out to be booked: now that this one was not, the
/// earlier one takes the key, or the next repeat would book once more.
fn give_key_back(batch: &mut Batch<'_>, record: &Record, now_ms: i64, age_ms: u64) -> Result<(), StoreError> {
    let booked = record.contradictions.iter().find_map(|contradiction| match contradiction.why {
        Discrepancy::KeyUsedAgain { of } if matches!(contradiction.says, Outcome::Booked(_)) => {
            Some((of?, contradiction.says.clone()))
        }
        _ => None,
    });
    let Some((id, says)) = booked else { return Ok(()) };
    match batch.get(id) {
        Ok(Some(mut earlier)) => {
            let before = earlier.state().into();
            let _ = late(batch, &mut earlier, before, &says, now_ms, age_ms)?;
            Ok(())
        }
        Ok(None) | Err(StoreError::Damaged { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Makes an earlier record the current one of its key, and the first of its attempts that is listed.
fn take_key(batch: &mut Batch<'_>, record: &mut Record, current: &Record, age_ms: u64) -> Result<(), StoreError> {
    let mut attempt = current.clone();
    for _ in 0..MOST_ATTEMPTS {
        let Some(previous) = attempt.previous else { break };
        if previous == record.id {
            attempt.previous = record.previous.replace(current.id);
            batch.put(Some(attempt.state().into()), &attempt, age_ms)?;
            batch.put(Some(record.state().into()), record, age_ms)?;
            break;
        }
        let Ok(Some(earlier)) = batch.get(previous) else { break };
        attempt = earlier;
    }
    batch.make_current(&record.key, record.id, Some(record.fingerprint))
}

/// What came after the caller was answered concerns all payments under the key.
fn late(
    batch: &mut Batch<'_>,
    record: &mut Record,
    before: RecordState,
    outcome: &Outcome,
    now_ms: i64,
    age_ms: u64,
) -> Result<Result<Effect, JournalError>, StoreError> {
    let (later, is_later_unreadable) = match batch.current(&record.key) {
        Ok(current) => (current.filter(|current| current.id != record.id), false),
        Err(StoreError::Damaged { id, .. }) => (None, id != record.id),
        Err(fault) => return Err(fault),
    };
    let key_used_again = is_later_unreadable || later.as_ref().is_some_and(|later| !later.frees_its_key());
    let event = Event::Late { outcome: outcome.clone(), key_used_again };
    let effect = step(batch, record, before, &event, now_ms, age_ms)?;
    let Some(mut later) = later else { return Ok(effect) };
    match effect {
        Ok(Effect::Contradicted) if key_used_again => {
            let why = Discrepancy::KeyUsedAgain { of: Some(record.id) };
            let event = Event::Contradicted(Contradiction { at_ms: now_ms, says: outcome.clone(), why });
            let before = later.state().into();
            let _ = step(batch, &mut later, before, &event, now_ms, age_ms)?;
        }
        // The key is taken by what was booked, not by a later attempt that was refused.
        Ok(Effect::Changed) if !record.frees_its_key() => take_key(batch, record, &later, age_ms)?,
        _ => {}
    }
    Ok(effect)
}

/// Applies an event to one record, which is listed under `before`.
fn step(
    batch: &mut Batch<'_>,
    record: &mut Record,
    before: RecordState,
    event: &Event,
    now_ms: i64,
    age_ms: u64,
) -> Result<Result<Effect, JournalError>, StoreError> {
    let is_remade = record.recovered.is_some() && record.revision == Unreadable::REVISION;
    let contradictions = record.contradictions.len();
    let effect = match record.apply(event, now_ms) {
        Ok(effect) => effect,
        Err(rejection) => return Ok(Err(rejection.into())),
    };
    let after: RecordState = record.state().into();
    // Of two records that note the same word, the one that it is about tells of it.
    let is_told = !matches!(event, Event::Contradicted(_));
    if is_told && (effect == Effect::Contradicted || record.contradictions.len() > contradictions) {
        let instance = record.key.instance.clone();
        batch.news.push(News::Contradicted { id: record.id, instance, state: after });
    }
    if after != before {
        batch.news.push(News::Moved { id: record.id, from: before, to: after });
        record.ended_age_ms = record.state().has_ended().then_some(age_ms);
    }
    if effect == Effect::Changed
        && let Some(bytes) = record.reply_bytes
    {
        batch.news.push(News::Shortened { id: record.id, bytes });
    }
    if effect != Effect::Unchanged {
        if is_remade {
            batch.keep_bytes(record.id, before)?;
        }
        batch.put(Some(before), record, age_ms)?;
    }
    Ok(Ok(effect))
}

/// An error with its cause.
fn told(error: &OpenError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
