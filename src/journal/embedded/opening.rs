//! Opening what is found at the journal's path: first on an overlay that keeps all writes in memory, then for real.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use redb::{Builder, Database, StorageBackend};

use super::error::{StoreError, misread, refused};
use super::medium::Medium;
use super::overlay::Overlay;
use super::pages::{Header, Verifier};
use super::tables::{self, FORMAT};
use super::upgrade::upgrade;
use crate::journal::error::OpenError;

/// A file smaller than this is not worth compacting.
pub(crate) const COMPACTED_BYTES: u64 = 16 << 20;

/// What the writer needs of the place: whatever it is kept on.
pub(crate) trait Home: Send {
    /// Opens the file anew.
    fn open(&self) -> Result<Database, OpenError>;

    /// Whether a start would find what is open.
    fn check(&self) -> Result<(), OpenError>;

    /// What is left on its disk, where that is known.
    fn free_bytes(&self) -> Option<u64>;

    /// Opens the file once more to read its pages, with what its header says now. No commit may be under way.
    fn pages(&self) -> Result<(Header, Box<dyn StorageBackend>), OpenError>;
}

impl<M: Medium> Home for M {
    fn free_bytes(&self) -> Option<u64> {
        Medium::free_bytes(self)
    }

    fn open(&self) -> Result<Database, OpenError> {
        open(self)
    }

    fn check(&self) -> Result<(), OpenError> {
        Medium::check(self)
    }

    fn pages(&self) -> Result<(Header, Box<dyn StorageBackend>), OpenError> {
        let (path, backend) = (self.path().to_owned(), Box::new(self.backend()?));
        match Header::read(&*backend) {
            Ok(Ok(header)) => Ok((header, backend)),
            Ok(Err(unusable)) => Err(OpenError::Damaged { path, reason: format!("its header is {unusable:?}") }),
            Err(source) => Err(OpenError::Io { path, source }),
        }
    }
}

/// Opens the journal on `medium`.
pub(crate) fn open(medium: &impl Medium) -> Result<Database, OpenError> {
    let path = medium.path();
    let len = medium.backend()?.len().map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    if len == 0 {
        return make(medium.backend()?, path, medium.cache_bytes());
    }
    let checked = len <= medium.checked_bytes();
    if !checked {
        look_at_the_least(medium)?;
    }
    rehearse(medium, checked, |_| Ok(()))?;
    let database = builder(medium.cache_bytes()).create_with_backend(medium.backend()?);
    let database = database.map_err(|error| refused(error, path))?;
    upgrade(&database).map_err(|fault| misread(fault, path))?;
    Ok(database)
}

/// Makes an empty journal.
pub(crate) fn make(backend: impl StorageBackend, path: &Path, cache_bytes: usize) -> Result<Database, OpenError> {
    let database = builder(cache_bytes).create_with_backend(backend).map_err(|error| refused(error, path))?;
    tables::initialise(&database).map_err(|fault| misread(fault, path))?;
    Ok(database)
}

/// Compares what even a start of a large journal cannot do without: by which redb knows free pages from others, since a
/// wrong one would be written over, and the few pages that say what is open.
fn look_at_the_least(medium: &impl Medium) -> Result<(), OpenError> {
    let path = medium.path();
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let backend = medium.backend()?;
    // Any other header is redb's to judge, and to repair.
    let Ok(header) = Header::read(&backend).map_err(failed)? else { return Ok(()) };
    let mut verifier = Verifier::default();
    verifier.verify_beside_data(&backend, &header, tables::is_small).map_err(failed)?;
    match verifier.damages.first() {
        Some(damage) => Err(OpenError::Damaged { path: path.to_owned(), reason: damage.to_string() }),
        None => Ok(()),
    }
}

/// Recovers and checks the journal with all writes kept in memory, and looks at what that gives.
pub(crate) fn rehearse<T>(
    medium: &impl Medium,
    checked: bool,
    look: impl FnOnce(&Database) -> Result<T, StoreError>,
) -> Result<T, OpenError> {
    let path = medium.path();
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let overlay = Overlay::over(medium.backend()?).map_err(failed)?;
    let failure = overlay.failure();
    // redb may panic on a file that was damaged from outside.
    let rehearsed = panic::catch_unwind(AssertUnwindSafe(|| {
        let database = builder(medium.cache_bytes()).set_check_integrity_on_open(checked).create_with_backend(overlay);
        let database = database.map_err(|error| refused(error, path))?;
        match tables::format(&database).map_err(|fault| misread(fault, path))? {
            Some(1..=FORMAT) => look(&database).map_err(|fault| misread(fault, path)),
            Some(found) => Err(OpenError::Format { path: path.to_owned(), found, known: FORMAT }),
            None => Err(OpenError::Foreign { path: path.to_owned() }),
        }
    }));
    let rehearsed = rehearsed.unwrap_or_else(|_| {
        Err(OpenError::Damaged { path: path.to_owned(), reason: "the store cannot make sense of it".into() })
    });
    match (rehearsed, failure.take()) {
        // What was not read cannot be judged, whatever redb made of that.
        (Err(_), Some(source)) => Err(failed(source)),
        (rehearsed, _) => rehearsed,
    }
}

/// Opens the journal at start: as [`open`], and gives the space of expired records back where most of a file of at
/// least `floor_bytes` is free. Only then, since compacting takes the file whole; and where the disk does not let it,
/// the journal goes on as it is.
pub(crate) fn open_compact(medium: &impl Medium, floor_bytes: u64) -> Result<Database, OpenError> {
    let mut database = open(medium)?;
    let len = medium.backend()?.len().unwrap_or(0);
    if len < floor_bytes {
        return Ok(database);
    }
    match compact(&mut database, len) {
        Ok(()) => Ok(database),
        Err(fault) => {
            let path = medium.path().display();
            tracing::warn!(%path, %fault, "the space of expired payments is not given back; the journal goes on without");
            // After a fault of the disk the handle refuses everything.
            drop(database);
            open(medium)
        }
    }
}

fn compact(database: &mut Database, len: u64) -> Result<(), StoreError> {
    // What it holds is estimated first, since measuring it reads all of it.
    if tables::estimated_bytes(database)?.saturating_mul(3) > len {
        return Ok(());
    }
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
