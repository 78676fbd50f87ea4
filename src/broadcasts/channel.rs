//! One instance's log as others use it: publish, subscribe, wake, close.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::entry::{Epoch, Event, Id};
use super::limit::SubscriberLimit;
use super::log::Log;
use super::state::{Channel, State};
use super::subscription::Subscription;

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
        let state = State { log, waiting: HashMap::new(), callers: HashMap::new(), closed: false };
        let shared = Channel { limit, state: Mutex::new(state), listeners: AtomicU64::new(0), news: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Whether nothing is logged any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// Logs an event, unless the log is closed: the gap that the shutdown itself causes is not logged. Returns at once:
    /// subscriptions are woken by [`Broadcasts::announce`].
    pub fn publish(&self, event: Event) -> Id {
        let mut state = self.shared.state();
        if state.closed {
            return state.log.cursor();
        }
        let id = state.log.append(event);
        drop(state);
        self.shared.news.notify_one();
        id
    }

    /// The id of the newest entry: resuming after it misses nothing from now on.
    #[cfg(test)]
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
                (state.waiting.drain().map(|(_, waker)| waker).collect::<Vec<_>>(), state.closed)
            };
            for waker in waiting {
                waker.wake();
            }
            if closed {
                return;
            }
        }
    }
}
