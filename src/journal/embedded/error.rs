//! What can go wrong with the file, and what it is called where the journal is opened.
//!
//! A file is called damaged only where its bytes are wrong, never because a disk refused to read or write: an operator who
//! reads "damaged" moves the file away, and with it what keeps payments from being sent twice.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::journal::error::OpenError;
use crate::journal::id::RecordId;

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nothing is shown: the journal recovers from a fault, or was closed.
    #[error("the journal is not open")]
    Closed,
    /// The storage failed. Everything after it fails too, until the file is opened again.
    #[error(transparent)]
    Storage(Box<redb::Error>),
    /// What is open is no longer at its path: whatever is written there, no start would find it.
    #[error(transparent)]
    Moved(Box<OpenError>),
    /// The storage works, and this record cannot be understood.
    #[error("record {id}: {reason}")]
    Damaged { id: RecordId, reason: String },
    /// The caller of the listing has gone.
    #[error("the caller of this listing has gone")]
    Abandoned,
}

impl From<OpenError> for StoreError {
    fn from(error: OpenError) -> Self {
        Self::Moved(Box::new(error))
    }
}

impl<E: Into<redb::Error> + StorageFault> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Storage(Box::new(error.into()))
    }
}

/// The errors of redb that are faults of the storage here.
trait StorageFault {}
impl StorageFault for redb::TransactionError {}
impl StorageFault for redb::TableError {}
impl StorageFault for redb::StorageError {}
impl StorageFault for redb::CommitError {}
impl StorageFault for redb::CompactionError {}

/// What an error of redb is called at an opening.
pub(crate) fn refused(error: impl Into<redb::Error>, path: &Path) -> OpenError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenError::InUse { path },
        redb::Error::UpgradeRequired(_) => OpenError::Foreign { path },
        redb::Error::Corrupted(reason) => OpenError::Damaged { path, reason },
        // With this redb refuses a file that is not its own.
        redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => OpenError::Foreign { path },
        redb::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            OpenError::Damaged { path, reason: "the file ends early".into() }
        }
        redb::Error::Io(source) => OpenError::Io { path, source },
        error => OpenError::Io { path, source: io::Error::other(error) },
    }
}

/// What an error of the store is called at an opening.
pub(crate) fn misread(fault: StoreError, path: &Path) -> OpenError {
    match fault {
        StoreError::Storage(error) => refused(*error, path),
        StoreError::Moved(error) => *error,
        fault @ StoreError::Damaged { .. } => OpenError::Damaged { path: path.to_owned(), reason: fault.to_string() },
        fault @ (StoreError::Closed | StoreError::Abandoned) => {
            OpenError::Io { path: path.to_owned(), source: io::Error::other(fault) }
        }
    }
}
