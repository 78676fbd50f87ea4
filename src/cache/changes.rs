//! Which cached replies the store has yet to write.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::key::Key;

/// Keys whose files are not what the cache holds.
#[derive(Debug)]
pub(super) struct Changes {
    wanted: bool,
    keys: Mutex<HashSet<Key>>,
    pub(super) noted: Notify,
}

impl Changes {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, keys: Mutex::default(), noted: Notify::new() }
    }

    /// Notes that the copy of `key` came, changed or went. There are no more of them than there are copies.
    pub(super) fn note(&self, key: &Key) {
        if self.wanted {
            self.keys.lock().insert(key.clone());
            self.noted.notify_one();
        }
    }

    pub(super) fn take(&self) -> HashSet<Key> {
        std::mem::take(&mut *self.keys.lock())
    }
}
