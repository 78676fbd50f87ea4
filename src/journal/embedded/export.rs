//! A closed journal, read whole to be carried over into a database.
//!
//! Everything that keeps a key taken comes out: records, what is left of those that cannot be read, and keys whose records
//! are missing. What was on its way when the journal was last open is unknown from then on, as at a start.

use std::path::Path;

use data_encoding::HEXLOWER;
use redb::{Database, ReadableTable};

use super::directory::{Carried, Directory};
use super::encoding;
use super::error::{StoreError, misread};
use super::index::{Entry, current_id, entry_of};
use super::medium::Medium;
use super::opening::{self, Home};
use super::pages::Verifier;
use super::tables::{self, Snapshot};
use super::writer;
use crate::clock::unix_ms;
use crate::journal::error::OpenError;
use crate::journal::id::RecordId;
use crate::journal::news::Contradictions;
use crate::journal::record::{Record, RecordState};
use crate::journal::sale::{Fingerprint, Key};

/// Something of a journal that a database is to keep.
#[derive(Debug)]
pub(crate) enum Exported {
    Record(Box<Record>),
    Unreadable(Box<Remainder>),
    /// Bytes that no key leads to: of a record that a readable one took the place of, or that no index names.
    Bytes {
        id: RecordId,
        state: RecordState,
        stored: String,
    },
}

/// What there is of a record that cannot be read, or is missing.
#[derive(Debug)]
pub(crate) struct Remainder {
    pub(crate) id: RecordId,
    pub(crate) key: Key,
    pub(crate) pos_id: i64,
    pub(crate) created_ms: i64,
    /// Whether its key is taken by it, and not by a later attempt.
    pub(crate) holds_key: bool,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) stored: String,
}

/// An open file that nobody else has.
pub(crate) struct Export {
    directory: Directory,
    database: Database,
    /// The journal's age, by which its records expire.
    pub(crate) age_ms: u64,
    /// The greatest id that was ever given out.
    pub(crate) newest: Option<RecordId>,
}

impl Export {
    /// Opens the journal of a directory and compares all of it with its checksums. Reads and writes the disk.
    pub(crate) fn open(directory: Directory) -> Result<Self, OpenError> {
        let path = Medium::path(&directory).to_owned();
        let database = opening::open(&directory)?;
        let failed = |fault| misread(fault, &path);
        let age_ms = writer::after_the_last_end(&database, &Contradictions::default(), unix_ms()).map_err(failed)?;
        let (header, backend) = directory.pages()?;
        let mut verifier = Verifier::default();
        let compared = verifier.verify_data(&*backend, &header, tables::keys(), u64::MAX);
        compared.map_err(|source| OpenError::Io { path: path.clone(), source })?;
        drop(backend);
        if let Some(damage) = verifier.damages.first() {
            return Err(OpenError::Damaged { path, reason: damage.to_string() });
        }
        let newest = Snapshot::of(&database).and_then(|snapshot| snapshot.newest()).map_err(failed)?;
        Ok(Self { directory, database, age_ms, newest })
    }

    /// Shows everything to `take`, in the order of ids, until that has had enough.
    pub(crate) fn show(&self, mut take: impl FnMut(Exported) -> bool) -> Result<(), OpenError> {
        self.show_to(&mut take).map_err(|fault| misread(fault, Medium::path(&self.directory)))
    }

    /// Closes the file, still held against others, and names it as carried over as far as that.
    pub(crate) fn close(self) -> Marking {
        Marking(self.directory)
    }

    fn show_to(&self, take: &mut impl FnMut(Exported) -> bool) -> Result<(), StoreError> {
        let snapshot = Snapshot::of(&self.database)?;
        for entry in snapshot.records.iter()? {
            let (id, stored) = entry?;
            if !take(read(&snapshot, id.value().into(), stored.value())?) {
                return Ok(());
            }
        }
        Self::show_missing(&snapshot, take)
    }

    /// What indexes name and no record bears out, and the bytes of records whose places others took.
    fn show_missing(snapshot: &Snapshot, take: &mut impl FnMut(Exported) -> bool) -> Result<(), StoreError> {
        for entry in snapshot.by_state.iter()? {
            let (at, value) = entry?;
            let ((_, instance, id), (caller, key, pos_id, created_ms)) = (at.value(), value.value());
            let id = RecordId::from(id);
            if snapshot.records.get(id.as_u128())?.is_none() {
                let key = Key { instance: instance.into(), caller: caller.into(), idempotency_key: key.into() };
                if !take(remainder(snapshot, id, Entry { key, pos_id, created_ms }, &[])?) {
                    return Ok(());
                }
            }
        }
        for entry in snapshot.current.iter()? {
            let (at, value) = entry?;
            let (key, id) = (at.value(), RecordId::from(value.value().0));
            if snapshot.records.get(id.as_u128())?.is_none() && entry_of(&snapshot.by_state, id)?.is_none() {
                let key = Key { instance: key.0.into(), caller: key.2.into(), idempotency_key: key.1.into() };
                let entry = Entry { key, pos_id: 0, created_ms: id.time_ms() };
                if !take(remainder(snapshot, id, entry, &[])?) {
                    return Ok(());
                }
            }
        }
        snapshot.replaced(|id, state, stored| take(Exported::Bytes { id, state, stored: text(stored) }))
    }
}

/// The closed file of a journal, held against other processes.
pub(crate) struct Marking(Directory);

impl Marking {
    /// See [`Directory::mark`].
    pub(crate) fn mark(&mut self, carried: Carried) -> Result<&Path, OpenError> {
        self.0.mark(carried)
    }

    pub(crate) fn path(&self) -> &Path {
        Medium::path(&self.0)
    }
}

fn read(snapshot: &Snapshot, id: RecordId, stored: &[u8]) -> Result<Exported, StoreError> {
    if let Ok(record) = encoding::decode(id, stored) {
        return Ok(Exported::Record(Box::new(record)));
    }
    match entry_of(&snapshot.by_state, id)? {
        Some((_, entry)) => remainder(snapshot, id, entry, stored),
        None => Ok(Exported::Bytes { id, state: RecordState::Unreadable, stored: text(stored) }),
    }
}

fn remainder(snapshot: &Snapshot, id: RecordId, entry: Entry, stored: &[u8]) -> Result<Exported, StoreError> {
    let current = current_id(&snapshot.current, &entry.key)?;
    let Entry { key, pos_id, created_ms } = entry;
    let holds_key = current.is_none_or(|(current, _)| current == id);
    let fingerprint = current.filter(|(current, _)| *current == id).and_then(|(_, fingerprint)| fingerprint);
    let stored = text(stored);
    Ok(Exported::Unreadable(Box::new(Remainder { id, key, pos_id, created_ms, holds_key, fingerprint, stored })))
}

/// Bytes as a text that a database takes: as they are, or where that cannot be, in hexadecimal digits.
fn text(stored: &[u8]) -> String {
    match std::str::from_utf8(stored) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        _ => format!("\\x{}", HEXLOWER.encode(stored)),
    }
}
