//! Where the journal lies: its directory, the lock on it, and opening what is found there.
//!
//! The journal is what keeps a payment from being sent twice, so nothing found at its path is ever overwritten,
//! emptied or repaired over. One process has it at a time, by a lock on the directory that lasts as long as the
//! journal and by redb's own on the file. Records name sales: the directory and the file are their owner's alone.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};

use super::error::OpenError;
use super::rehearsal::Overlay;
use super::store::{self, FORMAT, Fault};

const FILE: &str = "payments.redb";
const UNFINISHED: &str = "payments.redb.new";
const LOCK: &str = "lock";

/// Pages kept in memory by redb, which fills this however little is asked for. Only recent records are; what is not here
/// is in the system's own cache of files.
pub(super) const CACHE_BYTES: usize = 4 << 20;
/// Up to this size every page is checked at open; reading more than this would hold up a start noticeably.
const CHECKED_BYTES: u64 = 64 << 20;
/// A file smaller than this is not worth compacting.
pub(super) const COMPACTED_BYTES: u64 = 16 << 20;

/// Something a journal can be kept on. Opened anew after every fault.
pub(super) trait Medium: Send + 'static {
    /// What redb reads and writes.
    type Backend: StorageBackend;

    /// Opens it. Every lock is free again once the backend is closed.
    fn backend(&self) -> io::Result<Self::Backend>;

    /// Names it in errors.
    fn path(&self) -> &Path;

    /// How much of it is kept in memory.
    fn cache_bytes(&self) -> usize {
        CACHE_BYTES
    }
}

/// A directory, held against other processes until dropped.
#[derive(Debug)]
pub(super) struct Place {
    file: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the directory, making it and an empty journal where there is none.
    pub(super) fn claim(directory: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = owned(OpenOptions::new().write(true).create(true).truncate(false), &directory.join(LOCK));
        let lock = lock.map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { path: directory.to_owned() },
            TryLockError::Error(source) => failed(source),
        })?;
        let place = Self { file: directory.join(FILE), _lock: lock };
        if !place.file.try_exists().map_err(failed)? {
            place.create(directory)?;
        }
        Ok(place)
    }

    /// Makes the file under another name first: a crash in between leaves no half-made journal to be refused.
    fn create(&self, directory: &Path) -> Result<(), OpenError> {
        let failed = |source| OpenError::Io { path: self.file.clone(), source };
        let unfinished = directory.join(UNFINISHED);
        let file = owned(OpenOptions::new().read(true).write(true).create(true).truncate(true), &unfinished);
        let backend = FileBackend::new(file.map_err(failed)?).map_err(|error| refused(error, &self.file))?;
        let database = builder(CACHE_BYTES).create_with_backend(backend).map_err(|error| refused(error, &self.file))?;
        store::initialise(&database).map_err(|fault| failed(io::Error::other(fault)))?;
        database.close().map_err(|error| refused(error, &self.file))?;
        fs::rename(&unfinished, &self.file).map_err(failed)?;
        // The names too must outlive a power cut: a journal that vanished would let every key through again.
        for directory in directory.ancestors().take(2).filter(|directory| !directory.as_os_str().is_empty()) {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

impl Medium for Place {
    type Backend = FileBackend;

    fn backend(&self) -> io::Result<FileBackend> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file)?;
        if file.metadata()?.len() == 0 {
            // Never made like that here; redb would take it for a new file.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        FileBackend::new(file).map_err(io::Error::other)
    }

    fn path(&self) -> &Path {
        &self.file
    }
}

fn owned(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(0o600).open(path)
}

/// Opens the journal on `medium`: first in rehearsal, touching nothing, then for real.
pub(super) fn open(medium: &impl Medium) -> Result<Database, OpenError> {
    let path = medium.path();
    let backend = || medium.backend().map_err(|error| refused(StorageError::Io(error).into(), path));
    let failed = |source| refused(StorageError::Io(source).into(), path);
    let is_new = backend()?.len().map_err(failed)? == 0;
    if !is_new {
        rehearse(backend()?, path)?;
    }
    let database =
        builder(medium.cache_bytes()).create_with_backend(backend()?).map_err(|error| refused(error, path))?;
    if is_new {
        store::initialise(&database).map_err(|fault| misread(&fault, path))?;
    }
    Ok(database)
}

/// Recovers and checks the journal with all writes kept in memory.
fn rehearse(backend: impl StorageBackend, path: &Path) -> Result<(), OpenError> {
    let failed = |source| refused(StorageError::Io(source).into(), path);
    let checked = backend.len().map_err(failed)? <= CHECKED_BYTES;
    let overlay = Overlay::over(backend).map_err(failed)?;
    // redb may panic on a file that was damaged from outside.
    let rehearsed = panic::catch_unwind(AssertUnwindSafe(|| {
        let database = builder(CACHE_BYTES).set_check_integrity_on_open(checked).create_with_backend(overlay);
        let format = store::format(&database.map_err(|error| refused(error, path))?);
        match format.map_err(|fault| misread(&fault, path))? {
            Some(FORMAT) => Ok(()),
            Some(found) => Err(OpenError::Format { path: path.to_owned(), found, known: FORMAT }),
            None => Err(OpenError::Foreign { path: path.to_owned() }),
        }
    }));
    rehearsed.unwrap_or_else(|_| {
        Err(OpenError::Damaged { path: path.to_owned(), reason: "the store cannot make sense of it".into() })
    })
}

/// Opens the journal at start: as [`open`], and gives the space of expired records back where most of a file of at
/// least `floor_bytes` is free. Only then, since compacting takes the file whole.
pub(super) fn open_compact(medium: &impl Medium, floor_bytes: u64) -> Result<Database, OpenError> {
    let mut database = open(medium)?;
    let len = medium.backend().and_then(|backend| backend.len());
    if len.is_ok_and(|len| len >= floor_bytes) {
        compact(&mut database).map_err(|fault| misread(&fault, medium.path()))?;
    }
    Ok(database)
}

fn compact(database: &mut Database) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    let used = stats.stored_bytes().saturating_add(stats.metadata_bytes());
    if stats.fragmented_bytes() > used {
        database.compact()?;
    }
    Ok(())
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

fn refused(error: DatabaseError, path: &Path) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            OpenError::Foreign { path }
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            OpenError::Damaged { path, reason: "the file ends early".into() }
        }
        DatabaseError::Storage(StorageError::Io(source)) => OpenError::Io { path, source },
        DatabaseError::Storage(StorageError::Corrupted(reason)) => OpenError::Damaged { path, reason },
        error => OpenError::Damaged { path, reason: error.to_string() },
    }
}

fn misread(fault: &Fault, path: &Path) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), reason: fault.to_string() }
}
