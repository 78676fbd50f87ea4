//! What waits to be written: the queue between those who pay and the one thread that commits.
//!
//! It is bounded without ever refusing a payment under way, whose outcome must not be lost: such a payment has at most
//! one job here at a time, and their number is bounded by [`MAX_LIVE`]. Everything else is refused while that many jobs
//! and some more wait. Handing in never blocks, so it can be done from a destructor.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::JournalError;
use super::id::RecordId;
use super::in_flight::{HeldKey, MAX_LIVE};
use super::payment::Dispatched;
use super::record::{Outcome, Record};
use super::state_machine::{Effect, Event};
use super::verification::Pin;

/// A person's decisions and evidence wait here; a longer queue means that the disk hangs.
const MAX_OTHERS: usize = 256;
/// Late outcomes come from set-aside links, which are few; and none should be lost to a short hiccup of the disk.
const MAX_WITH_LATE: usize = MAX_LIVE + 1024;

/// How the one who handed a job in hears of it. A receiver that is gone changes nothing.
pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// What an event made of a record, durably.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) effect: Effect,
    pub(super) record: Record,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Job {
    /// Record a payment before its first byte leaves.
    Dispatch { record: Box<Record>, live: HeldKey, reply: Reply<Dispatched> },
    /// Apply an event to a record. The key, if held, is freed once that is durable.
    Apply { id: RecordId, event: Event, live: Option<HeldKey>, reply: Option<Reply<Applied>> },
    /// List a record as unreadable, if it is.
    Unreadable { id: RecordId },
    /// Find out whether the store still works.
    Probe,
    /// Hold the pages of the last commit for whoever verifies them.
    Pin(oneshot::Sender<Pin>),
}

impl Job {
    /// How many jobs may wait before this one.
    fn limit(&self) -> usize {
        match self {
            Self::Dispatch { .. } | Self::Apply { live: Some(_), .. } => usize::MAX,
            Self::Apply { event: Event::Outcome(_) | Event::Late { .. } | Event::NotHeardAnyMore, .. } => MAX_WITH_LATE,
            Self::Apply { .. } | Self::Unreadable { .. } | Self::Pin(_) => MAX_OTHERS,
            Self::Probe => 1,
        }
    }
}

/// What the writer found.
#[derive(Debug)]
pub(super) struct Taken {
    /// In the order they were handed in; none if nothing came in time.
    pub(super) jobs: Vec<Job>,
    /// Nothing is left, and nothing will come.
    pub(super) closed: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
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
    pub(super) fn hand_in(&self, job: Job) -> Result<(), JournalError> {
        let mut queue = self.lock();
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

    /// Hands in an event for a record; the receiver hears what it did.
    pub(super) fn apply(
        &self,
        id: RecordId,
        event: Event,
        live: Option<HeldKey>,
    ) -> Result<oneshot::Receiver<Result<Applied, JournalError>>, JournalError> {
        let (reply, heard) = oneshot::channel();
        self.hand_in(Job::Apply { id, event, live, reply: Some(reply) })?;
        Ok(heard)
    }

    /// Hands in an outcome that nobody waits for. Lost if the journal is closed, and then the next start finds the
    /// payment on its way and takes it for unknown.
    pub(super) fn leave(&self, id: RecordId, outcome: Outcome, live: HeldKey) {
        let _ = self.hand_in(Job::Apply { id, event: Event::Outcome(outcome), live: Some(live), reply: None });
    }

    /// Takes up to `most` jobs, waiting up to `patience` for the first.
    pub(super) fn take(&self, most: usize, patience: Duration) -> Taken {
        let queue = self.lock();
        let waited = self.came.wait_timeout_while(queue, patience, |queue| queue.jobs.is_empty() && !queue.closed);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ready = queue.jobs.len().min(most);
        let jobs: Vec<_> = queue.jobs.drain(..ready).collect();
        Taken { closed: queue.closed && jobs.is_empty(), jobs }
    }

    /// Takes no more. What waits is still to be taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::Lookup;
    use crate::journal::record::Outcome;

    fn apply(event: Event) -> Job {
        Job::Apply { id: RecordId::fresh(), event, live: None, reply: None }
    }

    #[test]
    fn the_queue_is_bounded_and_a_late_outcome_fits_where_a_decision_does_not() {
        let queue = WriteQueue::default();
        while queue.hand_in(apply(Event::Evidence(Lookup::default()))).is_ok() {}
        assert_eq!(queue.lock().jobs.len(), MAX_OTHERS);
        while queue.hand_in(apply(Event::Outcome(Outcome::Unknown(None)))).is_ok() {}
        assert_eq!(queue.lock().jobs.len(), MAX_WITH_LATE);
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
