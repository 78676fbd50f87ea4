//! What a journal's file is kept on.

use std::path::Path;

use redb::StorageBackend;

use crate::journal::error::OpenError;

/// Pages kept in memory by redb, which fills this however little is asked for. Only recent records are; what is not here
/// is in the system's own cache of files.
pub(crate) const CACHE_BYTES: usize = 4 << 20;
/// Up to this size every page is checked at open; reading more than this would hold up a start noticeably.
const CHECKED_BYTES: u64 = 64 << 20;

/// Something a journal can be kept on. Opened anew after every fault.
pub(crate) trait Medium: Send + 'static {
    /// What redb reads and writes.
    type Backend: StorageBackend;

    /// Opens it: after the first time, only what was opened then. Every lock is free again once the backend is closed.
    fn backend(&self) -> Result<Self::Backend, OpenError>;

    /// Names it in errors.
    fn path(&self) -> &Path;

    /// Whether a start would find what is open.
    fn check(&self) -> Result<(), OpenError> {
        Ok(())
    }

    /// What is left on its disk, where that is known.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// How much of it is kept in memory.
    fn cache_bytes(&self) -> usize {
        CACHE_BYTES
    }

    /// Up to which size every page is checked at open.
    fn checked_bytes(&self) -> u64 {
        CHECKED_BYTES
    }
}
