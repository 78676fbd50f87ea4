//! What is on disk: tables of a redb file, written in one transaction a batch and read beside it.
//!
//! Every commit is redb's *quick repair* kind: two syncs instead of one, for two reasons. A restart after a crash then
//! takes a millisecond whatever the size of the file; and a commit whose sync failed can be recovered from without a
//! restart, because the header comes to name the new pages only after they were synced, so what a reopened file shows
//! was on disk before, but for the header itself, which the next commit writes again. Batches share the two syncs.
//!
//! Records are under their id, spelled as `encoding` has it. Beside them: the current record of each key, the ids whose outcome is open, the
//! ended ones by the journal's age at their end, and a count of each state, so that nothing on the way of a payment
//! walks a table.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, WriteTransaction,
};

use super::encoding::{decode, encode};
use super::error::OpenError;
use super::id::RecordId;
use super::record::{Record, State};
use super::sale::Key;

/// What this release writes. Another number is refused at open.
pub(super) const FORMAT: u64 = 1;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("concertpos-bridge/journal");
const RECORDS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("records");
const KEYS: TableDefinition<'_, (&str, &str, &str), u128> = TableDefinition::new("keys");
const OPEN: TableDefinition<'_, u128, ()> = TableDefinition::new("open");
const ENDED: TableDefinition<'_, (u64, u128), ()> = TableDefinition::new("ended");
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");

/// Records whose sizes are looked at, at either end.
const SAMPLED: usize = 64;
/// What a record's entries in the other tables take, about.
const ENTRIES_BYTES: u64 = 128;

const FORMAT_KEY: &str = "format";
const AGE_KEY: &str = "age_ms";

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
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
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        Self::Moved(Box::new(error))
    }
}

impl<E: Into<redb::Error> + StorageFault> From<E> for Fault {
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

/// What everybody but the writer sees: the state after the last commit, while the journal is in order.
///
/// The writer puts it here, because beginning to read may wait for redb, which holds a lock while it syncs a growing
/// file: a hanging disk would then hold up whoever asks. Looking at what is here waits for nobody.
#[derive(Debug, Default)]
pub(super) struct View {
    last: RwLock<Option<Arc<Snapshot>>>,
    commits: AtomicU64,
}

impl View {
    /// Shows a newer state, or none. Who looks at an older one goes on doing so.
    pub(super) fn show(&self, snapshot: Option<Snapshot>) {
        let before = {
            let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, snapshot.map(Arc::new))
        };
        drop(before);
    }

    /// A commit is on disk.
    pub(super) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) fn is_shown(&self) -> bool {
        self.last.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Looks at one consistent state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, Fault>) -> Result<T, Fault> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner).clone();
        look(&*last.ok_or(Fault::Closed)?)
    }
}

/// Does `work` in one transaction. `Ok` means that it is on disk, and only then the log tells of it; on an error nothing
/// of it is reported, though after a failed sync a reopened file may show it.
pub(super) fn commit<T>(
    database: &Database,
    work: impl FnOnce(&mut Batch<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut batch = Batch::begin(&transaction)?;
    let done = work(&mut batch)?;
    let news = std::mem::take(&mut batch.news);
    drop(batch);
    transaction.commit()?;
    news.into_iter().for_each(News::tell);
    Ok(done)
}

/// Makes the tables of an empty file.
pub(super) fn initialise(database: &Database) -> Result<(), Fault> {
    commit(database, |batch| {
        batch.meta.insert(FORMAT_KEY, FORMAT)?;
        Ok(())
    })
}

/// The format a file says it has; none if it is no journal.
pub(super) fn format(database: &Database) -> Result<Option<u64>, Fault> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// About how many bytes the journal's records and their keys take, by the sizes of some at either end.
pub(super) fn estimated_bytes(database: &Database) -> Result<u64, Fault> {
    let transaction = database.begin_read()?;
    let records = transaction.open_table(RECORDS)?;
    let (mut bytes, mut count) = (0_u64, 0_u64);
    let ends = records.iter()?.take(SAMPLED).chain(records.iter()?.rev().take(SAMPLED));
    for entry in ends {
        bytes = bytes.saturating_add(entry?.1.value().len() as u64);
        count += 1;
    }
    Ok(bytes.checked_div(count).unwrap_or(0).saturating_add(ENTRIES_BYTES).saturating_mul(records.len()?))
}

/// Which records to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this instance's.
    pub instance: Option<String>,
    /// Only this caller's.
    pub caller: Option<String>,
    /// Only those under this key.
    pub idempotency_key: Option<String>,
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those with a smaller id: the last id of one page begins the next.
    pub before: Option<RecordId>,
    /// At most so many; 0 lists none.
    pub limit: usize,
}

impl Filter {
    fn admits(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.instance, &record.key.instance)
            && is(&self.caller, &record.key.caller)
            && is(&self.idempotency_key, &record.key.idempotency_key)
            && self.state.is_none_or(|state| state == record.state())
            && self.before.is_none_or(|before| record.id < before)
    }

    /// The one key this asks for, where it names all of it.
    fn key(&self) -> Option<Key> {
        Some(Key {
            instance: self.instance.clone()?,
            caller: self.caller.clone()?,
            idempotency_key: self.idempotency_key.clone()?,
        })
    }
}

/// One consistent state, to be read.
pub(super) struct Snapshot {
    records: ReadOnlyTable<u128, &'static [u8]>,
    keys: ReadOnlyTable<(&'static str, &'static str, &'static str), u128>,
    open: ReadOnlyTable<u128, ()>,
    counts: ReadOnlyTable<&'static str, u64>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Snapshot")
    }
}

impl Snapshot {
    /// The state after the last commit.
    pub(super) fn of(database: &Database) -> Result<Self, Fault> {
        let transaction = database.begin_read()?;
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            keys: transaction.open_table(KEYS)?,
            open: transaction.open_table(OPEN)?,
            counts: transaction.open_table(COUNTS)?,
        })
    }

    pub(super) fn get(&self, id: RecordId) -> Result<Option<Record>, Fault> {
        get(&self.records, id)
    }

    /// The record that decides what a request with `key` gets.
    pub(super) fn current(&self, key: &Key) -> Result<Option<Record>, Fault> {
        current(&self.keys, &self.records, key)
    }

    /// Newest first. A whole key follows its chain of attempts and an open outcome its index; anything else walks the
    /// records from the newest until enough are found.
    pub(super) fn list(&self, filter: &Filter) -> Result<Vec<Record>, Fault> {
        let admitted = |found: &Result<Record, Fault>| found.as_ref().map_or(true, |record| filter.admits(record));
        if let Some(key) = filter.key() {
            return self.attempts(&key).filter(admitted).take(filter.limit).collect();
        }
        let older = ..filter.before.map_or(u128::MAX, RecordId::as_u128);
        if matches!(filter.state, Some(State::Unknown | State::Dispatching)) {
            let open = self.open.range(older)?.rev().filter_map(|entry| match entry {
                Ok((id, _)) => self.get(id.value().into()).transpose(),
                Err(error) => Some(Err(error.into())),
            });
            return open.filter(admitted).take(filter.limit).collect();
        }
        let all = self.records.range(older)?.rev().map(|entry| {
            let (id, stored) = entry?;
            decode(id.value().into(), stored.value())
        });
        all.filter(admitted).take(filter.limit).collect()
    }

    /// Shows records to `wanted`, newest first, until it has seen enough. What cannot be read is left out.
    pub(super) fn newest_while(&self, mut wanted: impl FnMut(&Record) -> bool) -> Result<(), Fault> {
        for entry in self.records.iter()?.rev() {
            let (id, stored) = entry?;
            if decode(id.value().into(), stored.value()).is_ok_and(|record| !wanted(&record)) {
                break;
            }
        }
        Ok(())
    }

    fn attempts(&self, key: &Key) -> impl Iterator<Item = Result<Record, Fault>> {
        let mut next = self.current(key).transpose();
        std::iter::from_fn(move || {
            let found = next.take()?;
            if let Ok(record) = &found {
                next = record.previous.and_then(|previous| self.get(previous).transpose());
            }
            Some(found)
        })
    }

    pub(super) fn count(&self, state: State) -> Result<u64, Fault> {
        Ok(self.counts.get(state.name())?.map_or(0, |count| count.value()))
    }
}

/// One transaction, to be written.
pub(super) struct Batch<'t> {
    meta: Table<'t, &'static str, u64>,
    records: Table<'t, u128, &'static [u8]>,
    keys: Table<'t, (&'static str, &'static str, &'static str), u128>,
    open: Table<'t, u128, ()>,
    ended: Table<'t, (u64, u128), ()>,
    counts: Table<'t, &'static str, u64>,
    /// What the log is told once all of this is on disk.
    pub(super) news: Vec<News>,
}

/// What became of a payment.
pub(super) enum News {
    /// It went from one state to another.
    Moved {
        /// The payment.
        id: RecordId,
        /// Where it was.
        from: State,
        /// Where it is.
        to: State,
    },
    /// The gateway says something that does not agree with its record.
    Contradicted {
        /// The payment.
        id: RecordId,
        /// Its instance.
        instance: String,
        /// Where it stands.
        state: State,
    },
}

impl News {
    fn tell(self) {
        match self {
            Self::Moved { id, from, to } => tracing::info!(payment = %id, %from, %to, "payment"),
            Self::Contradicted { id, instance, state } => {
                tracing::error!(instance, payment = %id, %state, "the gateway contradicts the record of a payment");
            }
        }
    }
}

impl<'t> Batch<'t> {
    fn begin(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            records: transaction.open_table(RECORDS)?,
            keys: transaction.open_table(KEYS)?,
            open: transaction.open_table(OPEN)?,
            ended: transaction.open_table(ENDED)?,
            counts: transaction.open_table(COUNTS)?,
            news: Vec::new(),
        })
    }

    pub(super) fn get(&self, id: RecordId) -> Result<Option<Record>, Fault> {
        get(&self.records, id)
    }

    pub(super) fn current(&self, key: &Key) -> Result<Option<Record>, Fault> {
        current(&self.keys, &self.records, key)
    }

    /// The journal's stored age.
    pub(super) fn age_ms(&self) -> Result<u64, Fault> {
        Ok(self.meta.get(AGE_KEY)?.map_or(0, |age| age.value()))
    }

    pub(super) fn set_age_ms(&mut self, age_ms: u64) -> Result<(), Fault> {
        self.meta.insert(AGE_KEY, age_ms)?;
        Ok(())
    }

    /// The ids whose outcome is open.
    pub(super) fn open_ids(&self) -> Result<Vec<RecordId>, Fault> {
        self.open.iter()?.map(|entry| Ok(entry?.0.value().into())).collect()
    }

    /// Adds a record and makes it the current one of its key.
    pub(super) fn insert(&mut self, record: &Record, age_ms: u64) -> Result<(), Fault> {
        self.put(None, record, age_ms)?;
        self.make_current(record)
    }

    /// Makes a record the one that decides what a request with its key gets.
    pub(super) fn make_current(&mut self, record: &Record) -> Result<(), Fault> {
        let Key { instance, caller, idempotency_key } = &record.key;
        self.keys.insert((instance.as_str(), caller.as_str(), idempotency_key.as_str()), record.id.as_u128())?;
        Ok(())
    }

    /// Writes a record that was in state `before`, at the journal's present age.
    pub(super) fn put(&mut self, before: Option<State>, record: &Record, age_ms: u64) -> Result<(), Fault> {
        let id = record.id.as_u128();
        self.records.insert(id, encode(record)?.as_slice())?;
        let state = record.state();
        if before == Some(state) {
            return Ok(());
        }
        if let Some(before) = before {
            self.count(before, u64::saturating_sub)?;
        }
        self.count(state, u64::saturating_add)?;
        if state.has_ended() {
            self.open.remove(id)?;
            self.ended.insert((age_ms, id), ())?;
        } else {
            self.open.insert(id, ())?;
        }
        Ok(())
    }

    /// Forgets at most `limit` records that ended at `horizon_ms` of the journal's age or before; says how many.
    pub(super) fn expire(&mut self, horizon_ms: u64, limit: usize) -> Result<usize, Fault> {
        let due: Vec<(u64, u128)> = self
            .ended
            .range(..=(horizon_ms, u128::MAX))?
            .take(limit)
            .map(|entry| Ok(entry?.0.value()))
            .collect::<Result<_, Fault>>()?;
        for (age_ms, id) in &due {
            match self.get((*id).into()) {
                // It ended again since: a late reply took back its refusal. It is due by its later end.
                Ok(Some(record)) if record.ended_age_ms.is_some_and(|later_ms| later_ms != *age_ms) => {}
                Ok(Some(record)) => self.forget(&record)?,
                Ok(None) => {}
                // Its key is not known, so it stays taken: better than freeing the wrong one.
                Err(Fault::Damaged { id, reason }) => tracing::error!(%id, reason, "a damaged payment record is kept"),
                Err(fault) => return Err(fault),
            }
            self.ended.remove((*age_ms, *id))?;
        }
        Ok(due.len())
    }

    fn forget(&mut self, record: &Record) -> Result<(), Fault> {
        let id = record.id.as_u128();
        let Key { instance, caller, idempotency_key } = &record.key;
        let key = (instance.as_str(), caller.as_str(), idempotency_key.as_str());
        let is_current = self.keys.get(key)?.is_some_and(|current| current.value() == id);
        if is_current {
            self.keys.remove(key)?;
        }
        self.records.remove(id)?;
        self.count(record.state(), u64::saturating_sub)
    }

    fn count(&mut self, state: State, step: fn(u64, u64) -> u64) -> Result<(), Fault> {
        let count = self.counts.get(state.name())?.map_or(0, |count| count.value());
        self.counts.insert(state.name(), step(count, 1))?;
        Ok(())
    }
}

fn get(records: &impl ReadableTable<u128, &'static [u8]>, id: RecordId) -> Result<Option<Record>, Fault> {
    records.get(id.as_u128())?.map(|stored| decode(id, stored.value())).transpose()
}

fn current(
    keys: &impl ReadableTable<(&'static str, &'static str, &'static str), u128>,
    records: &impl ReadableTable<u128, &'static [u8]>,
    key: &Key,
) -> Result<Option<Record>, Fault> {
    let id = keys.get((key.instance.as_str(), key.caller.as_str(), key.idempotency_key.as_str()))?;
    let Some(id) = id.map(|id| RecordId::from(id.value())) else { return Ok(None) };
    match get(records, id)? {
        Some(record) => Ok(Some(record)),
        // A key without its record must not look free.
        None => Err(Fault::Damaged { id, reason: "the key's record is missing".into() }),
    }
}
