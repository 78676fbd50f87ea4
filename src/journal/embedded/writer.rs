//! The one thread that writes: it takes up to [`BATCH`] jobs from the queue into one commit, so that payments under way at
//! the same time share its syncs.
//!
//! No job is answered before it is on disk. When a commit fails, every job in it is refused, and the journal refuses all
//! work until it has opened its file anew and made one commit that succeeds. What the failed commit held is not forgotten
//! meanwhile: a payment it was to record was never sent, an outcome it was to record is known, and both go into that first
//! commit, whether or not the reopened file shows the failed one. If the process ends before, the disk says *on its way*,
//! and the next start takes that for unknown, which is all that any caller was ever told.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::oneshot;
use tokio::time::Instant as Moment;

use super::error::StoreError;
use super::opening::Home;
use super::tables::{self, Batch, Snapshot};
use super::view::View;
use super::write_queue::{Job, Pin, WriteQueue};
use crate::journal::apply::{Applied, Apply};
use crate::journal::attempts::{self, Decided, Now, Refused};
use crate::journal::clock::{Age, Clock, horizon_ms};
use crate::journal::error::{JournalError, OpenError};
use crate::journal::id::RecordId;
use crate::journal::in_flight::{HeldKey, MAX_LIVE};
use crate::journal::news::Contradictions;
use crate::journal::payment::Dispatched;
use crate::journal::record::{Outcome, Release, State};
use crate::journal::state_machine::Event;

/// Jobs a commit. Measured: 64 a commit record twenty times as many payments a second as one a commit.
const BATCH: usize = 64;
/// Expired records forgotten with each commit: more than a commit can add, and little beside its syncs.
const EXPIRED_AT_ONCE: usize = 2 * BATCH;
/// An idle journal commits its age this often: what a crash can add to the life of a record, and how soon a disk that
/// failed is found out before a payment does.
const IDLE: Duration = Duration::from_mins(1);
/// An idle journal looks this often whether its file is where it should be.
const WATCH: Duration = Duration::from_secs(2);
/// Pauses between attempts to recover: the first is made at once, then from here doubling to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Late outcomes kept over a fault, beside those of payments under way. One beyond leaves its payment unknown.
const MAX_UNWRITTEN: usize = MAX_LIVE + 1024;

/// Everything the thread owns.
pub(crate) struct Writer {
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
    held: Option<HeldKey>,
}

/// What was on its way when the file was last open is unknown from now on. Proves with a commit that the file can be
/// written. The journal's age.
pub(crate) fn after_the_last_end(
    database: &Database,
    contradictions: &Contradictions,
    wall_ms: i64,
) -> Result<u64, StoreError> {
    tables::commit(database, contradictions, |batch| {
        let age_ms = batch.age_ms()?;
        batch.recount_by_instance()?;
        batch.unmark_readable(age_ms)?;
        let open = [State::Dispatching, State::Unknown].map(|state| batch.ids_in(state.into()));
        let [dispatching, unknown] = open;
        for id in dispatching?.into_iter().chain(unknown?) {
            let applied = apply(batch, id, &Event::Restart, Now { wall_ms, age_ms })?;
            if applied.is_err() {
                batch.mark_unreadable(id)?;
            }
        }
        Ok(age_ms)
    })
}

impl Writer {
    /// Takes over an open file, after a start or a crash.
    pub(crate) fn start(
        database: Database,
        (view, queue): (Arc<View>, Arc<WriteQueue>),
        clock: Arc<dyn Clock>,
        keep: Duration,
        home: Box<dyn Home>,
    ) -> Result<Self, StoreError> {
        let stored_ms = after_the_last_end(&database, &view.contradictions, clock.wall_ms())?;
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
    pub(crate) fn run(mut self) {
        let _end = End { view: Arc::clone(&self.view), queue: Arc::clone(&self.queue) };
        loop {
            let mut taken = self.queue.take(BATCH, self.patience());
            self.view.watched.clocks(self.clock.wall_ms(), self.clock.monotonic(), Moment::now());
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

    fn now(&self) -> Now {
        Now { wall_ms: self.clock.wall_ms(), age_ms: self.age.at_ms(self.clock.monotonic()) }
    }

    fn patience(&self) -> Duration {
        match self.down {
            Some(down) => down.next_attempt.saturating_duration_since(Instant::now()),
            None if self.behind => Duration::ZERO,
            None => WATCH,
        }
    }

    /// Answers the verification; the other jobs are left. Here no commit is under way.
    fn hand_out_pins(&self, jobs: Vec<Job>) -> Vec<Job> {
        let pin = |reply: oneshot::Sender<Pin>| match self.pin() {
            // The verification asks again later.
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
        self.view.watched.has_free(self.home.free_bytes());
        if let Err(error) = self.home.check() {
            self.fail(&error.into(), Vec::new());
        }
    }

    /// Refuses the jobs of a commit that failed, and everything from now on until the file is in order again.
    fn fail(&mut self, fault: &StoreError, jobs: Vec<Job>) {
        tracing::error!(%fault, "the payment journal cannot be written: no payment is sent");
        self.view.watched.failed(fault.to_string(), Moment::now());
        // First, so that a caller that is refused finds the journal out of order.
        self.view.show(None);
        self.refuse(jobs, Attempted::Yes);
        self.recover();
    }

    /// Commits the jobs, or only the journal's age and what has expired.
    fn serve(&mut self, mut jobs: Vec<Job>) {
        // What is known by now of payments under a key is known before the next one under it is let go.
        jobs.sort_by_key(|job| matches!(job, Job::Dispatch { .. }));
        self.committed = Instant::now();
        let now = self.now();
        let age_ms = now.age_ms;
        let horizon_ms = horizon_ms(age_ms, self.keep);
        let committed = self.commit(|batch| {
            let expired = horizon_ms.map_or(Ok(0), |horizon_ms| batch.expire(horizon_ms, EXPIRED_AT_ONCE))?;
            let do_one = |job: &Job| match job {
                Job::Dispatch { .. } if self.view.is_condemned() => Ok(Err(JournalError::Unavailable)),
                job => do_job(batch, job, now),
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

    /// Commits and shows the new state before any job is answered, so that a repeated request finds its record.
    fn commit<T>(&self, work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.view.watched.commit_begun(Moment::now());
        let done = self.commit_now(work);
        self.view.watched.commit_ended(Moment::now());
        done
    }

    fn commit_now<T>(&self, work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
        self.home.check()?;
        let done = tables::commit(database, &self.view.contradictions, work)?;
        // It may have been moved meanwhile. Only what the next start will find lets a payment leave.
        self.home.check()?;
        self.view.committed();
        self.view.show(Some(Snapshot::of(database)?));
        Ok(done)
    }

    fn answer(&self, job: Job, done: Result<Option<Applied>, JournalError>) {
        match job {
            Job::Dispatch { record, held, reply } => {
                let queue: Arc<dyn Apply> = Arc::<WriteQueue>::clone(&self.queue);
                let dispatched = done.map(|_| Dispatched::new(record.id, held, queue));
                // If its caller has gone, it is dropped, which hands in that it was never written.
                drop(reply.send(dispatched));
            }
            Job::Apply { id, event, held, reply } => {
                // Freed before the answer: a request that is repeated on hearing it must find the record.
                drop(held);
                let done = done.and_then(|applied| applied.ok_or(JournalError::NoSuchRecord));
                if let Err(Err(error)) = reply.send(done)
                    && matches!(event, Event::Outcome(_))
                {
                    tracing::error!(%id, %error, "the outcome of a payment could not be recorded");
                }
            }
            Job::Unreadable { .. } | Job::Probe | Job::Pin(_) => {}
        }
    }

    /// Answers that nothing was done, and keeps the outcomes for the first commit after the fault.
    fn refuse(&mut self, jobs: Vec<Job>, attempted: Attempted) {
        for job in jobs {
            match job {
                Job::Dispatch { record, held, reply } => {
                    if attempted == Attempted::Yes {
                        // The failed commit may yet show in the reopened file, and nothing was sent.
                        let event = Event::Outcome(Outcome::Released(Release::NeverWritten));
                        self.unwritten.push(Unwritten { id: record.id, event, held: Some(held) });
                    }
                    drop(reply.send(Err(JournalError::Unavailable)));
                }
                Job::Apply { id, event, held, reply } => {
                    if matches!(event, Event::Outcome(_) | Event::Late { .. }) {
                        self.keep_unwritten(Unwritten { id, event, held });
                    }
                    drop(reply.send(Err(JournalError::Unavailable)));
                }
                Job::Unreadable { .. } | Job::Probe | Job::Pin(_) => {}
            }
        }
    }

    fn keep_unwritten(&mut self, unwritten: Unwritten) {
        if unwritten.held.is_some() || self.unwritten.len() < MAX_UNWRITTEN {
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
                self.view.watched.recovered();
                tracing::info!("the payment journal can be written again");
            }
            Err(reason) => {
                let pause = self.down.map_or(FIRST_PAUSE, |down| (down.pause * 2).min(LONGEST_PAUSE));
                self.down = Some(Down { next_attempt: Instant::now() + pause, pause });
                tracing::warn!(reason, "the payment journal is still out of order");
                self.view.watched.failed(reason, Moment::now());
            }
        }
    }

    fn reopen(&self) -> Result<(Database, Snapshot), String> {
        let database = self.home.open().map_err(|error| with_cause(&error))?;
        let now = self.now();
        let proof = tables::commit(&database, &self.view.contradictions, |batch| {
            for Unwritten { id, event, .. } in &self.unwritten {
                let never_sent = matches!(event, Event::Outcome(Outcome::Released(Release::NeverWritten)));
                if apply(batch, *id, event, now)?.err() == Some(JournalError::NoSuchRecord) && !never_sent {
                    tracing::error!(%id, "the disk lost the record of a payment that was sent");
                }
            }
            batch.set_age_ms(now.age_ms)
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

/// Ends every wait, however the thread ends.
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
fn do_job(batch: &mut Batch<'_>, job: &Job, now: Now) -> Result<Result<Option<Applied>, JournalError>, StoreError> {
    match job {
        Job::Dispatch { record, .. } => match attempts::dispatch(batch, record, now)? {
            Ok(changes) => {
                batch.write(&changes, now.age_ms)?;
                Ok(Ok(None))
            }
            Err(refused) => refuse(batch, refused).map(Err),
        },
        Job::Apply { id, event, .. } => Ok(apply(batch, *id, event, now)?.map(Some)),
        Job::Unreadable { id } => batch.mark_unreadable(*id).map(|()| Ok(None)),
        Job::Probe | Job::Pin(_) => Ok(Ok(None)),
    }
}

/// Applies an event to the record of this id, and to others under its key where it concerns them.
fn apply(
    batch: &mut Batch<'_>,
    id: RecordId,
    event: &Event,
    now: Now,
) -> Result<Result<Applied, JournalError>, StoreError> {
    match attempts::apply(batch, id, event, now)? {
        Ok(Decided { effect, record, changes }) => {
            batch.write(&changes, now.age_ms)?;
            Ok(Ok(Applied { effect, record }))
        }
        Err(refused) => refuse(batch, refused).map(Err),
    }
}

fn refuse(batch: &mut Batch<'_>, refused: Refused) -> Result<JournalError, StoreError> {
    if let Some(id) = refused.unreadable {
        batch.mark_unreadable(id)?;
    }
    Ok(refused.error)
}

/// An error with its cause.
fn with_cause(error: &OpenError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
