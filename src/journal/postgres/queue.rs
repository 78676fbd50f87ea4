//! What waits to be written: the queue between payments and the one task that commits.
//!
//! It is bounded as that of the embedded journal is: never for a payment under way, which has one job here at a time.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{self, Instant};

use crate::journal::apply::{Applied, Apply};
use crate::journal::error::JournalError;
use crate::journal::id::RecordId;
use crate::journal::in_flight::{HeldKey, MAX_LIVE};
use crate::journal::payment::Dispatched;
use crate::journal::record::Record;
use crate::journal::state_machine::Event;

/// A person's decisions, evidence and replays wait here; a longer queue means that the database is away.
const MAX_OTHERS: usize = 256;
/// Late outcomes come from set-aside links, which are few.
const MAX_WITH_LATE: usize = MAX_LIVE + 1024;

/// Answers a job. A receiver that is gone changes nothing.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// Something to be written.
#[derive(Debug)]
pub(crate) enum Job {
    /// Record a payment before its first byte leaves. Where it `is_first`, nothing was found under its key.
    Dispatch { record: Box<Record>, held: HeldKey, is_first: bool, reply: Reply<Dispatched> },
    /// Apply an event to a record. The key, if held, is freed once that is acknowledged.
    Apply { id: RecordId, event: Event, held: Option<HeldKey>, reply: Reply<Applied> },
    /// What an owner of before left on its way is unknown from now on.
    TakeOver { id: RecordId, reply: Reply<Applied> },
    /// Have it acknowledged that a record is as it was read; false where it is not any more.
    Confirm { id: RecordId, written: i64, reply: Reply<bool> },
}

impl Job {
    /// How many jobs may wait before this one.
    fn limit(&self) -> usize {
        match self {
            Self::Dispatch { .. } | Self::Apply { held: Some(_), .. } => usize::MAX,
            Self::Apply { event: Event::Outcome(_) | Event::Late { .. } | Event::NotHeardAnyMore, .. } => MAX_WITH_LATE,
            Self::Apply { .. } | Self::TakeOver { .. } | Self::Confirm { .. } => MAX_OTHERS,
        }
    }
}

/// What the writer found.
#[derive(Debug)]
pub(crate) struct Taken {
    /// In the order they were handed in; none if nothing came in time.
    pub(crate) jobs: Vec<Job>,
    /// Nothing is left, and nothing will come.
    pub(crate) closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with the instant at which it was handed in.
    jobs: VecDeque<(Instant, Job)>,
    /// When the oldest of those was handed in that were taken last.
    taken: Option<Instant>,
    closed: bool,
}

impl Queue {
    /// Hands a job in. A refused job is dropped, and with it the key it may hold.
    pub(crate) fn hand_in(&self, job: Job) -> Result<(), JournalError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(JournalError::Unavailable);
        }
        if waiting.jobs.len() >= job.limit() {
            return Err(JournalError::Overloaded);
        }
        waiting.jobs.push_back((Instant::now(), job));
        drop(waiting);
        self.came.notify_one();
        Ok(())
    }

    /// Hands in what `job` makes of the place for its answer, and waits for that.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> BoxFuture<'static, Result<T, JournalError>> {
        let (reply, heard) = oneshot::channel();
        let handed_in = self.hand_in(job(reply));
        Box::pin(async move {
            handed_in?;
            heard.await.unwrap_or(Err(JournalError::Unavailable))
        })
    }

    /// Takes up to `most` jobs, waiting up to `patience` for the first. For one task.
    pub(crate) async fn take(&self, most: usize, patience: Duration) -> Taken {
        let came = async {
            loop {
                let taken = self.take_now(most);
                if taken.closed || !taken.jobs.is_empty() {
                    return taken;
                }
                self.came.notified().await;
            }
        };
        time::timeout(patience, came).await.unwrap_or_else(|_| self.take_now(most))
    }

    pub(crate) fn take_now(&self, most: usize) -> Taken {
        let mut waiting = self.waiting.lock();
        let ready = waiting.jobs.len().min(most);
        waiting.taken = waiting.jobs.front().map(|(at, _)| *at);
        let jobs: Vec<_> = waiting.jobs.drain(..ready).map(|(_, job)| job).collect();
        Taken { closed: waiting.closed && jobs.is_empty(), jobs }
    }

    /// What was taken is answered.
    pub(crate) fn answered(&self) {
        self.waiting.lock().taken = None;
    }

    /// Whether a job is not answered that was handed in so long ago.
    pub(crate) fn is_behind(&self, by: Duration) -> bool {
        let waiting = self.waiting.lock();
        let oldest = waiting.taken.or(waiting.jobs.front().map(|(at, _)| *at));
        oldest.is_some_and(|at| at.elapsed() > by)
    }

    /// Takes no more. What waits is still to be taken.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.came.notify_one();
    }
}

impl Apply for Queue {
    fn apply(
        &self,
        id: RecordId,
        event: Event,
        held: Option<HeldKey>,
    ) -> BoxFuture<'static, Result<Applied, JournalError>> {
        self.ask(|reply| Job::Apply { id, event, held, reply })
    }
}
