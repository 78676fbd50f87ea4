//! A subscription: a position in the log, and a waker once it has received everything.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::entry::{Entry, Id};
use super::limit::SubscriberPermit;
use super::state::Channel;

/// What a listener hears.
#[derive(Debug, Clone)]
pub enum Item {
    /// The id it gave is none of this log's. It goes on with what comes from now on, after the cursor.
    Reset,
    /// Entries after its id are no longer held. It goes on after the last of them.
    Lost {
        /// The first of them.
        from: Id,
        /// The last of them.
        to: Id,
    },
    Entry(Arc<Entry>),
}

/// Why a subscription is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// It was so slow that the log no longer holds its next entry. It may resume, and is told what it lost.
    #[error("the listener was too slow")]
    Overtaken,
    /// The bridge, or the instance, is shutting down. Everything logged before was received.
    #[error("the instance is shutting down")]
    Draining,
}

/// One listener's place. Holds no entries: what it has yet to hear is in the log, bounded as the log is, and a
/// listener that the log has overtaken is over.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Channel>,
    key: u64,
    /// Whose it is.
    listener: Arc<str>,
    cursor: Id,
    reset: bool,
    begun: bool,
    _permit: SubscriberPermit,
}

impl Subscription {
    pub(super) fn new(
        shared: Arc<Channel>,
        (key, listener): (u64, Arc<str>),
        cursor: Id,
        reset: bool,
        permit: SubscriberPermit,
    ) -> Self {
        Self { shared, key, listener, cursor, reset, begun: false, _permit: permit }
    }

    /// Everything up to and including this id was received, or is not asked for.
    #[must_use]
    pub fn cursor(&self) -> Id {
        self.cursor
    }

    /// Whether the first item will be [`Item::Reset`].
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// Whether it goes on elsewhere.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.shared.state().moved
    }

    /// Whether the log was closed, which ends all of its subscriptions.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// The next item. Cancel safe.
    pub async fn next(&mut self) -> Result<Item, End> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Subscription::next`], for use in a poll function.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Item, End>> {
        if self.reset {
            self.reset = false;
            return Poll::Ready(Ok(Item::Reset));
        }
        let mut state = self.shared.state();
        let next = self.cursor.offset + 1;
        if let Some(entry) = state.log.get(next).cloned() {
            drop(state);
            self.cursor = entry.id;
            self.begun = true;
            return Poll::Ready(Ok(Item::Entry(entry)));
        }
        let oldest = state.log.oldest();
        if next < oldest {
            let (from, to) = (state.log.id(next), state.log.id(oldest - 1));
            drop(state);
            // It has begun, so it was overtaken; it will be told of the loss when it resumes.
            if self.begun {
                return Poll::Ready(Err(End::Overtaken));
            }
            self.cursor = to;
            return Poll::Ready(Ok(Item::Lost { from, to }));
        }
        if state.closed {
            return Poll::Ready(Err(End::Draining));
        }
        self.begun = true;
        let waker = state.waiting.entry(self.key).or_insert_with(|| context.waker().clone());
        if !waker.will_wake(context.waker()) {
            waker.clone_from(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.leave(&self.listener);
        let waker = state.waiting.remove(&self.key);
        drop(state);
        // Outside the lock: dropping a waker may run foreign code.
        drop(waker);
    }
}
