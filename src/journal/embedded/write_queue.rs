//! What waits to be written: the queue between payments and the one thread that commits.
//!
//! It is bounded without ever refusing a payment under way, whose outcome must not be lost: such a payment has at most one
//! job here at a time, and their number is bounded by [`MAX_LIVE`]. Everything else is refused while that many jobs and some
//! more wait. Handing in never blocks, so that a destructor can do it.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;
use tokio::sync::oneshot;

use super::pages::Header;
use super::tables::Snapshot;
use crate::journal::apply::{Applied, Apply};
use crate::journal::error::JournalError;
use crate::journal::id::RecordId;
use crate::journal::in_flight::{HeldKey, MAX_LIVE};
use crate::journal::payment::Dispatched;
use crate::journal::record::Record;
use crate::journal::state_machine::Event;

/// A person's decisions and evidence wait here; a longer queue means that the disk hangs.
const MAX_OTHERS: usize = 256;
/// Late outcomes come from set-aside links, which are few; and none should be lost to a short hiccup of the disk.
const MAX_WITH_LATE: usize = MAX_LIVE + 1024;

/// Answers a job. A receiver that is gone changes nothing.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// The pages of the last commit: as long as this is held, redb does not write to them.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) _held: Snapshot,
    pub(crate) header: Header,
    pub(crate) backend: Box<dyn StorageBackend>,
}

/// Something to be written.
#[derive(Debug)]
pub(crate) enum Job {
    /// Record a payment before its first byte leaves.
    Dispatch { record: Box<Record>, held: HeldKey, reply: Reply<Dispatched> },
    /// Apply an event to a record. The key, if held, is freed once that is durable.
    Apply { id: RecordId, event: Event, held: Option<HeldKey>, reply: Reply<Applied> },
    /// List a record as unreadable, if it is.
    Unreadable { id: RecordId },
    /// Find out whether the store still works.
    Probe,
    /// Hold the pages of the last commit, to be verified.
    Pin(oneshot::Sender<Pin>),
}

impl Job {
    /// How many jobs may wait before this one.
    fn limit(&self) -> usize {
        match self {
            Self::Dispatch { .. } | Self::Apply { held: Some(_), .. } => usize::MAX,
            Self::Apply { event: Event::Outcome(_) | Event::Late { .. } | Event::NotHeardAnyMore, .. } => MAX_WITH_LATE,
            Self::Apply { .. } | Self::Unreadable { .. } | Self::Pin(_) => MAX_OTHERS,
            Self::Probe => 1,
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

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl WriteQueue {
    /// Hands a job in. A refused job is dropped, and with it the key it may hold.
    pub(crate) fn hand_in(&self, job: Job) -> Result<(), JournalError> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(JournalError::Unavailable);
        }
        if queue.jobs.len() >= job.limit() {
            return Err(JournalError::Overloaded);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.came.notify_one();
        Ok(())
    }

    /// Takes up to `most` jobs, waiting up to `patience` for the first.
    pub(crate) fn take(&self, most: usize, patience: Duration) -> Taken {
        let mut queue = self.queue.lock();
        self.came.wait_while_for(&mut queue, |queue| queue.jobs.is_empty() && !queue.closed, patience);
        let ready = queue.jobs.len().min(most);
        let jobs: Vec<_> = queue.jobs.drain(..ready).collect();
        Taken { closed: queue.closed && jobs.is_empty(), jobs }
    }

    /// Takes no more. What waits is still to be taken.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.came.notify_all();
    }
}

impl Apply for WriteQueue {
    fn apply(
        &self,
        id: RecordId,
        event: Event,
        held: Option<HeldKey>,
    ) -> BoxFuture<'static, Result<Applied, JournalError>> {
        let (reply, heard) = oneshot::channel();
        let handed_in = self.hand_in(Job::Apply { id, event, held, reply });
        Box::pin(async move {
            handed_in?;
            heard.await.unwrap_or(Err(JournalError::Unavailable))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::Lookup;
    use crate::journal::record::Outcome;

    fn apply(event: Event) -> Job {
        let (reply, _) = oneshot::channel();
        Job::Apply { id: RecordId::fresh(), event, held: None, reply }
    }

    #[test]
    fn the_queue_is_bounded_and_a_late_outcome_fits_where_a_decision_does_not() {
        let queue = WriteQueue::default();
        while queue.hand_in(apply(Event::Evidence(Lookup::default()))).is_ok() {}
        assert_eq!(queue.queue.lock().jobs.len(), MAX_OTHERS);
        while queue.hand_in(apply(Event::Outcome(Outcome::Unknown(None)))).is_ok() {}
        assert_eq!(queue.queue.lock().jobs.len(), MAX_WITH_LATE);
        assert_eq!(queue.hand_in(Job::Probe), Err(JournalError::Overloaded));
    }

    #[test]
    fn what_was_handed_in_before_the_close_is_still_taken() {
        let queue = WriteQueue::default();
        queue.hand_in(Job::Probe).unwrap();
        queue.close();
        assert_eq!(queue.hand_in(Job::Probe), Err(JournalError::Unavailable));
        let taken = queue.take(64, Duration::ZERO);
        assert_eq!((taken.jobs.len(), taken.closed), (1, false));
        assert!(queue.take(64, Duration::MAX).closed);
    }
}
