//! What readers see: the state after the last commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::error::StoreError;
use super::tables::Snapshot;
use crate::journal::condition::Watched;
use crate::journal::news::Contradictions;

/// The state after the last commit, while the journal is in order.
///
/// The writer puts it here, because beginning to read may wait for redb, which holds a lock while it syncs a growing
/// file: a hanging disk would then hold up every reader.
#[derive(Debug, Default)]
pub(crate) struct View {
    last: RwLock<Option<Arc<Snapshot>>>,
    commits: AtomicU64,
    condemned: AtomicBool,
    pub(crate) contradictions: Contradictions,
    pub(crate) watched: Watched,
}

impl View {
    /// Shows a newer state, or none. A read under way goes on with the older one.
    pub(crate) fn show(&self, snapshot: Option<Snapshot>) {
        let before = {
            let mut last = self.last.write();
            std::mem::replace(&mut *last, snapshot.map(Arc::new))
        };
        drop(before);
    }

    /// A commit is on disk.
    pub(crate) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// The file was found to be damaged: what it does not know may have been sold.
    pub(crate) fn condemn(&self) {
        self.condemned.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::SeqCst)
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.last.read().is_some()
    }

    /// Looks at one consistent state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let last = self.last.read().clone();
        look(&*last.ok_or(StoreError::Closed)?)
    }
}
