//! What can go wrong in the journal, free of HTTP. The text is for callers; what a disk said is logged where it
//! happened.

use std::path::PathBuf;

use super::record::State;
use super::rules::Rejection;

/// Why the journal did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The disk refuses, is too slow, or the journal was closed. From [`dispatch`](super::Journal::dispatch): nothing
    /// may be sent. From [`finish`](super::Journal::finish) and [`late`](super::Journal::late): the outcome is kept in
    /// memory and recorded when the disk recovers; until then no answer may rest on it.
    #[error("the payment journal cannot be written or read")]
    Unavailable,
    /// Too much waits to be written. Only where no payment is under way: those always have a place.
    #[error("too much waits to be written to the payment journal")]
    Overloaded,
    /// No such payment, or it has expired.
    #[error("no such payment")]
    NoSuchRecord,
    /// The record cannot be read. Its key stays taken.
    #[error("the record of this payment is damaged")]
    Damaged,
    /// The key is held by a record that does not free it: a fault of the bridge, found before anything was sent.
    #[error("the key belongs to a payment that is {0}")]
    KeyTaken(State),
    /// The event does not apply to the payment.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// Why the journal cannot be opened. Whatever is at the path is left as it was found.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it, or another journal of this process.
    #[error("the payment journal at {} is in use by another process", path.display())]
    InUse {
        /// The journal's directory.
        path: PathBuf,
    },
    /// The file is not a payment journal.
    #[error("{} is not a payment journal; move it away or set another path", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a release whose records this one does not know.
    #[error("the payment journal {} has format {found}, and this release knows {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the file says.
        found: u64,
        /// What this release writes.
        known: u64,
    },
    /// The file is a journal and does not add up. It is not repaired over: its records are what keeps payments from
    /// being sent twice.
    #[error("the payment journal {} is damaged ({reason}); restore it from a copy, or move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not add up.
        reason: String,
    },
    /// The file system refuses.
    #[error("the payment journal at {} cannot be opened", path.display())]
    Io {
        /// What could not be opened.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
