//! What one instance's log and its subscriptions share.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::limit::SubscriberLimit;
use super::log::Log;
use super::unwritten::Unwritten;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) limit: SubscriberLimit,
    pub(super) state: Mutex<State>,
    pub(super) listeners: AtomicU64,
    /// Something was appended or the log was closed, and subscriptions are yet to be woken.
    pub(super) news: Notify,
}

/// Called when something is to be written. It must return at once.
#[derive(Clone)]
pub struct OnUnwritten(pub Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for OnUnwritten {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OnUnwritten")
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    /// What is written to a database before it is logged, and who is told of it; none where the log is in memory alone.
    pub(super) unwritten: Option<(Unwritten, OnUnwritten)>,
    /// Subscriptions that have received everything, to be woken at the next entry: in the order in which they began, which is
    /// mostly that in which their connections lie in memory.
    pub(super) waiting: BTreeMap<u64, Waker>,
    /// How often each listens.
    pub(super) callers: HashMap<Arc<str>, usize>,
    pub(super) closed: bool,
    /// Another replica serves the instance, or another claim of this one.
    pub(super) moved: bool,
}

impl State {
    /// One place more for `listener`, if it may have one; its name to be kept with the place.
    pub(super) fn join(&mut self, listener: &str, most: usize) -> Option<Arc<str>> {
        let known = self.callers.get_key_value(listener).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| Arc::from(listener));
        let count = self.callers.entry(Arc::clone(&name)).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(name)
    }

    pub(super) fn leave(&mut self, listener: &str) {
        if let Some(count) = self.callers.get_mut(listener) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(listener);
            }
        }
    }
}

impl Channel {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
