//! Where the journal lies: its directory, the lock on it, and whether the file at its path is still the one that is open.
//!
//! The journal is what keeps a payment from being sent twice, so nothing found at its path is ever overwritten,
//! emptied or repaired over, and a journal is made only where nothing says that there was one. One process has it at a
//! time, by a lock on the directory that lasts as long as the journal and by redb's own on the file. While it runs, a
//! commit counts only if the path still names the file that was opened, and the lock file is the one that is locked:
//! a record in a file that no start will find prevents no second booking. Records name sales: the directory and the file are
//! their owner's alone.
//!
//! That a journal was carried over into a database is said by its file's name, so that no start serves from it, an earlier
//! release's included: `payments.redb.importing-ID` from just before the commit there, `payments.redb.imported-ID` once that is
//! acknowledged.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use redb::backends::FileBackend;
use uuid::Uuid;

use super::error::refused;
use super::medium::{CACHE_BYTES, Medium};
use super::opening;
use crate::journal::config::{Config, Create};
use crate::journal::error::OpenError;

const FILE: &str = "payments.redb";
const UNFINISHED: &str = "payments.redb.new";
const LOCK: &str = "lock";
const IMPORTING: &str = "payments.redb.importing-";
const IMPORTED: &str = "payments.redb.imported-";
/// Made by the file system itself in the root of a disk.
const LOST_AND_FOUND: &str = "lost+found";

/// Which file it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A directory, held against other processes until dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    file: PathBuf,
    /// The file that was opened first; none before.
    opened: Mutex<Option<Identity>>,
    lock: Mutex<Lock>,
}

impl Directory {
    /// Takes the directory, making it and an empty journal where there is none and `create` allows it.
    pub(crate) fn claim(directory: &Path, create: Create) -> Result<Self, OpenError> {
        refuse_dangling_links(directory)?;
        let held = Lock::take_existing(directory)?;
        let lock = match (look(directory, create)?, held) {
            (Found::Journal, Some(lock)) => lock,
            (Found::Journal, None) => Lock::take(directory)?,
            (Found::Nothing, held) => make(directory, create, held)?,
        };
        Ok(Self { file: directory.join(FILE), opened: Mutex::default(), lock: Mutex::new(lock) })
    }

    /// Takes the directory of a journal that is to be carried over, whatever came of that earlier. Makes no journal; none
    /// where there is none.
    pub(crate) fn claim_carried(directory: &Path) -> Result<Option<(Self, Carried)>, OpenError> {
        refuse_dangling_links(directory)?;
        let failed = |source| OpenError::Io { path: directory.to_owned(), source };
        let held = Lock::take_existing(directory)?;
        let (file, carried) = if directory.join(FILE).try_exists().map_err(failed)? {
            (directory.join(FILE), Carried::Not)
        } else {
            match carried_in(directory).map_err(failed)?.pop() {
                Some(found) => found,
                None => return Ok(None),
            }
        };
        let lock = held.map_or_else(|| Lock::take(directory), Ok)?;
        Ok(Some((Self { file, opened: Mutex::default(), lock: Mutex::new(lock) }, carried)))
    }

    /// Renames the file as one that is carried over as far as that, or not at all. Its path from then on.
    pub(crate) fn mark(&mut self, carried: Carried) -> Result<&Path, OpenError> {
        let name = match carried {
            Carried::Not => FILE.to_owned(),
            Carried::Perhaps(import) => format!("{IMPORTING}{import}"),
            Carried::Whole(import) => format!("{IMPORTED}{import}"),
        };
        self.check()?;
        let path = self.file.with_file_name(name);
        fs::rename(&self.file, &path).map_err(|fault| self.lost(fault))?;
        self.file = path;
        if let Some(directory) = self.file.parent() {
            sync(directory).map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
        }
        Ok(&self.file)
    }

    fn opened(&self) -> MutexGuard<'_, Option<Identity>> {
        self.opened.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Lock> {
        self.lock.lock()
    }

    /// The lock file may have been deleted, and then another process could take it anew: this one does so first, or is refused.
    fn hold_lock(&self) -> Result<(), OpenError> {
        let mut lock = self.lock();
        if lock.check().is_err()
            && let Some(directory) = self.file.parent()
        {
            *lock = Lock::take(directory)?;
        }
        Ok(())
    }

    fn compare(&self, found: &Metadata) -> Result<(), OpenError> {
        match *self.opened() {
            Some(opened) if Identity::of(found) != opened => Err(OpenError::Replaced { path: self.file.clone() }),
            _ => Ok(()),
        }
    }

    fn lost(&self, source: io::Error) -> OpenError {
        let path = self.file.clone();
        if source.kind() == ErrorKind::NotFound && self.opened().is_some() {
            OpenError::Gone { path }
        } else {
            OpenError::Io { path, source }
        }
    }
}

impl Medium for Directory {
    type Backend = FileBackend;

    fn backend(&self) -> Result<FileBackend, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file).map_err(|fault| self.lost(fault))?;
        let found = file.metadata().map_err(|fault| self.lost(fault))?;
        self.compare(&found)?;
        self.hold_lock()?;
        if found.len() == 0 {
            // Never made like that here; redb would take it for a new file.
            return Err(OpenError::Foreign { path: self.file.clone() });
        }
        *self.opened() = Some(Identity::of(&found));
        FileBackend::new(file).map_err(|error| refused(error, &self.file))
    }

    fn path(&self) -> &Path {
        &self.file
    }

    fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.file).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn check(&self) -> Result<(), OpenError> {
        self.compare(&fs::metadata(&self.file).map_err(|fault| self.lost(fault))?)?;
        self.lock().check()
    }
}

/// The file that is locked, and which one it is.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    identity: Identity,
    _file: File,
}

impl Lock {
    /// Takes the lock, making its file where there is none. Never makes the directory.
    fn take(directory: &Path) -> Result<Self, OpenError> {
        Self::hold(directory, owned(OpenOptions::new().write(true).create(true).truncate(false), &lock_path(directory)))
    }

    /// The same, where there is a lock file.
    fn take_existing(directory: &Path) -> Result<Option<Self>, OpenError> {
        match OpenOptions::new().write(true).open(lock_path(directory)) {
            Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
            opened => Self::hold(directory, opened).map(Some),
        }
    }

    fn hold(directory: &Path, opened: io::Result<File>) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: directory.to_owned(), source };
        let file = opened.map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { path: directory.to_owned() },
            TryLockError::Error(source) => failed(source),
        })?;
        let identity = Identity::of(&file.metadata().map_err(failed)?);
        let lock = Self { path: lock_path(directory), identity, _file: file };
        // A file that was deleted between its opening and its locking is a lock that keeps no other process out.
        lock.check().map(|()| lock)
    }

    fn check(&self) -> Result<(), OpenError> {
        match fs::metadata(&self.path) {
            Ok(found) if Identity::of(&found) == self.identity => Ok(()),
            _ => Err(OpenError::LockLost { path: self.path.clone() }),
        }
    }
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.join(LOCK)
}

/// Whether a journal is in a database, and by which import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Carried {
    Not,
    /// All of it, once it is acknowledged.
    Whole(Uuid),
    /// All of it or nothing: its commit was about to be sent.
    Perhaps(Uuid),
}

/// The imports after which the database has all of a journal that was in `directory`.
pub(crate) fn imports(directory: &Path) -> Result<Vec<Uuid>, OpenError> {
    let carried = carried_in(directory).map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
    let whole = |(_, carried)| if let Carried::Whole(import) = carried { Some(import) } else { None };
    Ok(carried.into_iter().filter_map(whole).collect())
}

/// Files in `directory` that were carried over; last of all one of which that is not known.
fn carried_in(directory: &Path) -> io::Result<Vec<(PathBuf, Carried)>> {
    let of = |name: &str| {
        let import = |prefix| Uuid::parse_str(name.strip_prefix(prefix)?).ok();
        import(IMPORTED).map(Carried::Whole).or_else(|| import(IMPORTING).map(Carried::Perhaps))
    };
    let names = companions(directory)?.into_iter();
    let mut carried: Vec<_> = names.filter_map(|name| Some((directory.join(&name), of(&name)?))).collect();
    carried.sort_by_key(|(_, carried)| *carried);
    Ok(carried)
}

/// What is at the journal's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Its file.
    Journal,
    /// Nothing that belongs to a journal, so that one may be made.
    Nothing,
}

/// Refuses what a start would refuse for what is missing, and makes nothing. Reads the disk.
pub fn inspect(config: &Config) -> Result<(), OpenError> {
    refuse_dangling_links(config.directory())?;
    look(config.directory(), config.create()).map(|_| ())
}

/// A link whose target is missing is a disk that is not mounted: what is made in its place would be another journal.
fn refuse_dangling_links(directory: &Path) -> Result<(), OpenError> {
    let file = directory.join(FILE);
    for path in file.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let Ok(target) = fs::read_link(path) else { continue };
        if fs::metadata(path).is_err_and(|fault| fault.kind() == ErrorKind::NotFound) {
            return Err(OpenError::DanglingLink { path: path.to_owned(), target });
        }
    }
    Ok(())
}

fn look(directory: &Path, create: Create) -> Result<Found, OpenError> {
    let failed = |source| OpenError::Io { path: directory.to_owned(), source };
    if directory.join(FILE).try_exists().map_err(failed)? {
        return Ok(Found::Journal);
    }
    match carried_in(directory).map_err(failed)?.pop() {
        Some((path, Carried::Perhaps(_))) => return Err(OpenError::ImportUnfinished { path }),
        Some((path, _)) => return Err(OpenError::Imported { path }),
        None => {}
    }
    if create == Create::Never {
        return Err(OpenError::Absent { path: directory.join(FILE) });
    }
    let companions = companions(directory).map_err(failed)?;
    // The unfinished file is there before the lock is, and gone once the journal is whole: no journal was lost.
    let unfinished = companions.iter().any(|name| name == UNFINISHED);
    if companions.iter().all(|name| name == UNFINISHED || (unfinished && name == LOCK)) {
        return Ok(Found::Nothing);
    }
    Err(OpenError::Missing { path: directory.join(FILE), companions: companions.join(", ") })
}

/// What lies in the directory; nothing if there is none.
fn companions(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<_> = names.collect::<io::Result<_>>()?;
    names.retain(|name| name != LOST_AND_FOUND);
    names.sort();
    Ok(names)
}

/// Makes directory, lock and an empty journal, unless another process was faster.
fn make(directory: &Path, create: Create, held: Option<Lock>) -> Result<Lock, OpenError> {
    let failed = |source| OpenError::Io { path: directory.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let unfinished = directory.join(UNFINISHED);
    owned(OpenOptions::new().write(true).create(true).truncate(false), &unfinished).map_err(failed)?;
    let lock = held.map_or_else(|| Lock::take(directory), Ok)?;
    if look(directory, create)? == Found::Nothing {
        make_file(directory, &unfinished)?;
        tracing::warn!(path = %directory.join(FILE).display(), "new journal: every key is new");
    }
    Ok(lock)
}

/// Makes the file under another name first: a crash in between leaves no half-made journal to be refused.
fn make_file(directory: &Path, unfinished: &Path) -> Result<(), OpenError> {
    let path = directory.join(FILE);
    let failed = |source| OpenError::Io { path: path.clone(), source };
    let file = owned(OpenOptions::new().read(true).write(true).create(true).truncate(true), unfinished);
    let backend = FileBackend::new(file.map_err(failed)?).map_err(|error| refused(error, &path))?;
    opening::make(backend, &path, CACHE_BYTES)?.close().map_err(|error| refused(error, &path))?;
    fs::rename(unfinished, &path).map_err(failed)?;
    // The names too must outlive a power cut: a journal that vanished would let every key through again.
    for directory in directory.ancestors().take(2).filter(|directory| !directory.as_os_str().is_empty()) {
        sync(directory).map_err(failed)?;
    }
    Ok(())
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn owned(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(0o600).open(path)
}
