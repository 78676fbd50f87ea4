//! Which cached replies the store has yet to write.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::key::Key;

/// Keys whose files are not what the cache holds.
#[derive(Debug)]
pub(super) struct Changes {
    wanted: AtomicBool,
    keys: Mutex<HashSet<Key>>,
    pub(super) noted: Notify,
    /// Since when files cannot be written, and why.
    failing: Mutex<Option<(Instant, String)>>,
}

impl Changes {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            wanted: AtomicBool::new(wanted),
            keys: Mutex::default(),
            noted: Notify::new(),
            failing: Mutex::default(),
        }
    }

    /// From now on changes are taken.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Notes that the copy of `key` came, changed or went. There are no more of them than there are copies.
    pub(super) fn note(&self, key: &Key) {
        if self.wanted.load(Ordering::Relaxed) {
            self.keys.lock().insert(key.clone());
            self.noted.notify_one();
        }
    }

    /// How the last writing ended. Returns whether the one before it had failed.
    pub(super) fn written(&self, fault: Option<String>) -> bool {
        let mut failing = self.failing.lock();
        let since = failing.take().map(|(since, _)| since);
        *failing = fault.map(|fault| (since.unwrap_or_else(Instant::now), fault));
        drop(failing);
        since.is_some()
    }

    pub(super) fn failing(&self) -> Option<(Instant, String)> {
        self.failing.lock().clone()
    }

    pub(super) fn take(&self) -> HashSet<Key> {
        std::mem::take(&mut *self.keys.lock())
    }
}
