//! What can go wrong in the journal, free of HTTP. The text is for callers; what a disk said is logged where it
//! happened.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::record::State;
use super::state_machine::Rejection;

/// Why the journal did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The disk refuses, is too slow, or the journal was closed. From [`dispatch`](super::Journal::dispatch): nothing
    /// may be sent. From [`finish`](super::Journal::finish) and [`late`](super::Journal::late): the outcome is kept in
    /// memory and recorded when the disk recovers; until then no answer may rest on it.
    #[error("the payment journal cannot be written or read")]
    Unavailable,
    /// Too much waits to be written, or too many listings are wanted. Never for a payment under way: those always have a
    /// place.
    #[error("too much is asked of the payment journal at once")]
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
    InUse { path: PathBuf },
    /// The file is not a payment journal.
    #[error("{} is not a payment journal; move it away or set another path", path.display())]
    Foreign { path: PathBuf },
    /// The file was written by a release whose records this one does not know.
    #[error(
        "the payment journal {} has format {found}, and this release reads up to format {known}: start the release that \
         wrote it, or a later one. Leave the file where it is: without it, keys that were used would sell again",
        path.display()
    )]
    Format { path: PathBuf, found: u64, known: u64 },
    /// The file is a journal and does not add up. It is not repaired over: its records are what keeps payments from
    /// being sent twice.
    #[error("the payment journal {} is damaged ({reason}); restore it from a copy, or move it away", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// The journal's file is missing, and what lies beside it says that there was one.
    #[error(
        "the payment journal {} is missing, but what lies beside it is there ({companions}): it was moved or deleted, and \
         without it keys that were used sell again. Put it back, or restore it from a copy; to begin with a new journal, \
         set payments.journal to an empty folder",
        path.display()
    )]
    Missing { path: PathBuf, companions: String },
    /// There is no journal, and none is to be made.
    #[error(
        "there is no payment journal at {}, and payments.create is \"never\": is its disk mounted, is payments.journal \
         right? For the first start of all, set payments.create to \"if-empty\"",
        path.display()
    )]
    Absent { path: PathBuf },
    /// A symbolic link on the way to the journal leads nowhere.
    #[error(
        "{} is a symbolic link to {}, which is not there: is its disk mounted? Nothing was made in its place",
        path.display(), target.display()
    )]
    DanglingLink { path: PathBuf, target: PathBuf },
    /// The file that was opened is no longer at its path.
    #[error(
        "the payment journal {} was moved or deleted, or its disk is gone, while the bridge ran: put it back",
        path.display()
    )]
    Gone { path: PathBuf },
    /// Another file is at the path of the one that was opened.
    #[error(
        "another file was put in place of the payment journal {} while the bridge ran: put the first one back. A restart \
         goes on with the file that is there, and keys that are not in it sell again",
        path.display()
    )]
    Replaced { path: PathBuf },
    /// The lock file is no longer the one that this process has locked.
    #[error("the lock file {} was deleted or replaced: another bridge could start on the same journal", path.display())]
    LockLost { path: PathBuf },
    /// All of it is in a database.
    #[error(
        "the payment journal {} was carried over into the database of several replicas: keys used there since would be new \
         here. Serve with [cluster]; the file is a copy that nothing reads",
        path.display()
    )]
    Imported { path: PathBuf },
    /// All of it is in another database.
    #[error(
        "the payment journal that was in {0} was carried over into another database, or into this one before it was \
         restored from an older backup, so that each of its keys would be new: run `concertpos-bridge migrate --import {0}`, \
         or set the database that it was carried over into",
        path.display()
    )]
    ImportedElsewhere { path: PathBuf },
    /// All of it may be in a database, or nothing.
    #[error(
        "the payment journal {} is being carried over into a database, and whether that was done is not known: run \
         `concertpos-bridge migrate --import {}` again",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    ImportUnfinished { path: PathBuf },
    /// The database is away, or not as it should be.
    #[error("the payment journal in the database cannot be opened: {reason}")]
    Database { reason: String },
    /// The disk or the file system refuses. It says nothing about the journal.
    #[error("the payment journal at {} cannot be opened: {}", path.display(), advice(source))]
    Io { path: PathBuf, source: std::io::Error },
}

/// What to do about a refusal of the system.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the disk is full. Free space; the journal is not damaged, leave it where it is"
        }
        ErrorKind::PermissionDenied => "this user may not. Mend owner and mode, and leave the journal where it is",
        ErrorKind::ReadOnlyFilesystem => "its file system is read-only. Leave the journal where it is",
        ErrorKind::NotFound => "it is not there. Is its disk mounted?",
        ErrorKind::NotADirectory => "a file lies where a folder should be",
        _ => "the disk refuses. Mend the disk, and leave the journal where it is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_disk_is_called_what_it_is_and_nobody_is_told_to_move_the_journal_away() {
        let told = |source: io::Error| OpenError::Io { path: "data/journal".into(), source }.to_string();
        // Linux: ENOSPC, EDQUOT, EFBIG, EACCES, EROFS, EIO.
        for (code, word) in [(28, "full"), (122, "full"), (27, "full"), (13, "mode"), (30, "read-only"), (5, "disk")] {
            let text = told(io::Error::from_raw_os_error(code));
            assert!(text.contains(word) && text.contains("leave") | text.contains("Leave"), "{code}: {text}");
            assert!(!text.contains("damaged;") && !text.contains("away"), "{code}: {text}");
        }
    }
}
