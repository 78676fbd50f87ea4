//! One instance's log as others use it: publish, subscribe, wake, close.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::carried::CarriedLog;
use super::entry::{Epoch, Event, Id};
use super::limit::SubscriberLimit;
use super::log::Log;
use super::state::{Channel, OnUnwritten, State};
use super::subscription::Subscription;
use super::unwritten::{MOST_GAPS, Unwritten};

/// Where a listener begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since<'a> {
    /// With what comes from now on.
    Now,
    /// After the entry of this id, as the listener gave it.
    After(&'a str),
}

/// Why a subscription is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many subscriptions are open as may be.
    #[error("the limit of open subscriptions is reached")]
    Full,
    /// This token has as many at this instance as it may.
    #[error("this token's limit of open subscriptions is reached")]
    Share,
    /// The bridge, or the instance, is shutting down.
    #[error("the instance is shutting down")]
    Draining,
}

/// One instance's log and its listeners. Cheap to clone; all clones share one log.
#[derive(Debug, Clone)]
pub struct Broadcasts {
    pub(super) shared: Arc<Channel>,
}

impl Broadcasts {
    /// An empty log that begins `epoch`, keeps up to `history` entries, and counts its subscriptions in `limit`.
    #[must_use]
    pub fn new(epoch: Epoch, history: usize, limit: SubscriberLimit) -> Self {
        let log = Log::new(epoch, history);
        let state = State {
            log,
            unwritten: None,
            waiting: BTreeMap::new(),
            callers: HashMap::new(),
            closed: false,
            moved: false,
        };
        let shared = Channel { limit, state: Mutex::new(state), listeners: AtomicU64::new(0), news: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Whether nothing is logged any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// Logs an event, unless the log is closed: the gap that the shutdown itself causes is not logged. Returns at once:
    /// subscriptions are woken by [`Broadcasts::announce`]. Where the log is written to a database, the event is logged once it
    /// is written ([`Broadcasts::written`]).
    pub fn publish(&self, event: Event) {
        let mut state = self.shared.state();
        if state.closed {
            return;
        }
        if let Some((unwritten, told)) = &mut state.unwritten {
            unwritten.push(event);
            let told = told.clone();
            drop(state);
            return (told.0)();
        }
        state.log.append(event);
        drop(state);
        self.shared.news.notify_one();
    }

    /// From now on events are written before they are logged, by whoever is `told` of them. As many may wait for that as the
    /// log may hold entries, gaps included, so that whoever had heard everything before is not overtaken by them.
    pub fn write_first(&self, told: OnUnwritten) {
        let mut state = self.shared.state();
        let most = state.log.history().saturating_sub(MOST_GAPS);
        state.unwritten = Some((Unwritten::new(most), told));
    }

    /// The epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.state().log.cursor().epoch
    }

    /// Goes on with the log of an earlier owner. To be said before the first subscription.
    pub fn resume(&self, carried: CarriedLog) {
        let mut state = self.shared.state();
        state.log = Log::resume(carried, state.log.history());
    }

    /// The whole log, without what is yet to be written.
    #[must_use]
    pub fn carried(&self) -> CarriedLog {
        self.shared.state().log.carried()
    }

    /// What is to be written next, at most so many: events with the offsets that they will have. The same is given until
    /// [`Broadcasts::written`] takes it.
    #[must_use]
    pub fn to_write(&self, most: usize) -> CarriedLog {
        let mut state = self.shared.state();
        let Id { epoch, offset } = state.log.cursor();
        let events = state.unwritten.as_mut().map(|(unwritten, _)| unwritten.next(most)).unwrap_or_default();
        let newest = offset + events.len() as u64;
        CarriedLog { epoch, newest, entries: (offset + 1..).zip(events).collect() }
    }

    /// All that is yet to be written, with the offsets that it will have.
    #[must_use]
    pub fn unwritten(&self) -> CarriedLog {
        let state = self.shared.state();
        let Id { epoch, offset } = state.log.cursor();
        let events = state.unwritten.as_ref().map(|(unwritten, _)| unwritten.all()).unwrap_or_default();
        CarriedLog { epoch, newest: offset + events.len() as u64, entries: (offset + 1..).zip(events).collect() }
    }

    /// What [`Broadcasts::to_write`] gave is written: logs it. Returns whether more is to be written.
    #[must_use]
    pub fn written(&self) -> bool {
        let mut state = self.shared.state();
        let State { log, unwritten: Some((unwritten, _)), .. } = &mut *state else { return false };
        for event in unwritten.written() {
            log.append(event);
        }
        let is_more = !unwritten.is_empty();
        drop(state);
        self.shared.news.notify_one();
        is_more
    }

    /// When the oldest event came that is yet to be written.
    #[must_use]
    pub fn oldest_unwritten(&self) -> Option<Timestamp> {
        self.shared.state().unwritten.as_ref().and_then(|(unwritten, _)| unwritten.oldest())
    }

    /// The id of the newest entry: resuming after it misses nothing from now on.
    #[cfg(test)]
    #[must_use]
    pub fn cursor(&self) -> Id {
        self.shared.state().log.cursor()
    }

    /// Begins a subscription to what the log still holds after `since` and to everything that is logged from this moment on,
    /// without hole or repeat. `listener` names the token whose subscriptions are counted.
    pub fn subscribe(&self, listener: &str, since: Since<'_>) -> Result<Subscription, Refused> {
        let permit = self.shared.limit.take().ok_or(Refused::Full)?;
        let mut state = self.shared.state();
        if state.closed {
            return Err(Refused::Draining);
        }
        let listener = state.join(listener, self.shared.limit.each).ok_or(Refused::Share)?;
        let begins = match since {
            Since::Now => Some(state.log.cursor()),
            Since::After(text) => state.log.find(text),
        };
        let (cursor, reset) = (begins.unwrap_or_else(|| state.log.cursor()), begins.is_none());
        drop(state);
        let key = self.shared.listeners.fetch_add(1, Ordering::Relaxed);
        Ok(Subscription::new(Arc::clone(&self.shared), (key, listener), cursor, reset, permit))
    }

    /// How many listen, of all instances together.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.shared.limit.taken()
    }

    /// Wakes every waiting subscription, so that it checks whether its caller may still listen.
    pub fn wake(&self) {
        self.shared.news.notify_one();
    }

    /// The instance goes on elsewhere: who listens can come back soon. To be said before [`close`](Self::close).
    pub fn moved(&self) {
        self.shared.state().moved = true;
    }

    /// Ends every subscription once it has received what is logged, refuses new ones, and logs nothing more.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.news.notify_one();
    }

    /// Wakes waiting subscriptions whenever something was logged, until the log is closed. Runs in a task of its own, since
    /// a publisher must not wait until thousands are woken.
    pub async fn announce(&self) {
        loop {
            self.shared.news.notified().await;
            let (waiting, closed) = {
                let mut state = self.shared.state();
                (std::mem::take(&mut state.waiting), state.closed)
            };
            for waker in waiting.into_values() {
                waker.wake();
            }
            if closed {
                return;
            }
        }
    }
}
