//! What is on disk: tables of a redb file, written in one transaction a batch and read beside it.
//!
//! Every commit is redb's *quick repair* kind: two syncs instead of one, for two reasons. A restart after a crash then
//! takes a millisecond whatever the size of the file; and a commit whose sync failed can be recovered from without a
//! restart, because the header comes to name the new pages only after they were synced, so what a reopened file shows
//! was on disk before, but for the header itself, which the next commit writes again. Batches share the two syncs.
//!
//! Records are under their id, as `encoding` spells them. Beside them are the indexes of `index`, the ended ones by the
//! journal's age at their end, and a count of each state, so that no payment waits for a walk of a table.

use std::collections::BTreeMap;
use std::fmt;

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    TableError, TableHandle, WriteTransaction,
};

use super::encoding::{self, decode, encode};
use super::error::StoreError;
use super::index::{
    BY_CALLER, BY_STATE, CURRENT, CallerEntry, CallerKey, CurrentEntry, CurrentKey, Entry, StateEntry, StateKey,
    current_id, entry_of, ids_in,
};
use crate::journal::attempts::{Changes, Records, Stored};
use crate::journal::id::RecordId;
use crate::journal::news::{Contradictions, News};
use crate::journal::record::{Record, RecordState, Recovered, Standing, State, Times};
use crate::journal::sale::{Fingerprint, Key};
use crate::journal::store::{CountsByInstance, Current};

/// What this release writes. An older one is brought up to it at open; a newer one is refused.
pub(crate) const FORMAT: u64 = 2;

pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("concertpos-bridge/journal");
pub(crate) const RECORDS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("records");
const ENDED: TableDefinition<'_, (u64, u128), ()> = TableDefinition::new("ended");
pub(crate) const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");
/// Of the records that could not be read: the code of the state in which each was last written, and its bytes, once a
/// readable record has taken its place.
const UNREADABLE: TableDefinition<'_, u128, (u8, &[u8])> = TableDefinition::new("unreadable");

/// Why a record cannot be read that an index names.
pub(crate) const MISSING: &str = "its record is missing";

/// Records whose sizes are looked at, at either end.
const SAMPLED: usize = 64;
/// What a record's entries in the other tables take, about.
const ENTRIES_BYTES: u64 = 384;

const FORMAT_KEY: &str = "format";
const AGE_KEY: &str = "age_ms";
/// The most by which the time in an id was after, and before, the time of its record, in milliseconds.
const ID_LEAD_KEY: &str = "id_lead_ms";
const ID_LAG_KEY: &str = "id_lag_ms";
/// The newest id that was ever given out here, in two halves: its record may have expired.
const NEWEST_KEYS: [&str; 2] = ["newest_id_high", "newest_id_low"];

/// The table that says whether a key was used.
pub(crate) fn keys() -> &'static str {
    CURRENT.name()
}

/// Whether a table has few pages, however many payments there are.
pub(crate) fn is_small(table: &str) -> bool {
    [META.name(), COUNTS.name()].contains(&table)
}

/// Does `work` in one transaction. `Ok` means that it is on disk, and only then it is logged; on an error nothing of it is
/// logged, though after a failed sync a reopened file may show it.
pub(crate) fn commit<T>(
    database: &Database,
    contradictions: &Contradictions,
    work: impl FnOnce(&mut Batch<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut batch = Batch::begin(&transaction)?;
    let done = work(&mut batch)?;
    let news = std::mem::take(&mut batch.news);
    drop(batch);
    transaction.commit()?;
    for news in news {
        news.report(contradictions);
    }
    Ok(done)
}

/// Makes the tables of an empty file.
pub(crate) fn initialise(database: &Database) -> Result<(), StoreError> {
    commit(database, &Contradictions::default(), |batch| {
        batch.set_format()?;
        Ok(())
    })
}

/// The format a file says it has; none if it is no journal.
pub(crate) fn format(database: &Database) -> Result<Option<u64>, StoreError> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
        Err(TableError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// About how many bytes the journal's records and their keys take, by the sizes of some at either end.
pub(crate) fn estimated_bytes(database: &Database) -> Result<u64, StoreError> {
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

/// One consistent state, to be read.
pub(crate) struct Snapshot {
    pub(crate) records: ReadOnlyTable<u128, &'static [u8]>,
    pub(crate) current: ReadOnlyTable<CurrentKey, CurrentEntry>,
    pub(crate) by_state: ReadOnlyTable<StateKey, StateEntry>,
    pub(crate) by_caller: ReadOnlyTable<CallerKey, CallerEntry>,
    unreadable: ReadOnlyTable<u128, (u8, &'static [u8])>,
    counts: ReadOnlyTable<&'static str, u64>,
    pub(crate) id_lead_ms: i64,
    pub(crate) id_lag_ms: i64,
    newest_id: RecordId,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Snapshot")
    }
}

impl Snapshot {
    /// The state after the last commit.
    pub(crate) fn of(database: &Database) -> Result<Self, StoreError> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let milliseconds = |name| -> Result<i64, StoreError> {
            Ok(meta.get(name)?.map_or(0, |stored| i64::try_from(stored.value()).unwrap_or(i64::MAX)))
        };
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            current: transaction.open_table(CURRENT)?,
            by_state: transaction.open_table(BY_STATE)?,
            by_caller: transaction.open_table(BY_CALLER)?,
            unreadable: transaction.open_table(UNREADABLE)?,
            counts: transaction.open_table(COUNTS)?,
            id_lead_ms: milliseconds(ID_LEAD_KEY)?,
            id_lag_ms: milliseconds(ID_LAG_KEY)?,
            newest_id: newest_id(&meta)?,
        })
    }

    pub(crate) fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        get(&self.records, id)
    }

    /// The record that decides what a request with `key` gets.
    pub(crate) fn current(&self, key: &Key) -> Result<Option<Current>, StoreError> {
        let Some((id, fingerprint)) = current_id(&self.current, key)? else { return Ok(None) };
        match get(&self.records, id) {
            Ok(Some(record)) => Ok(Some(Current::Record(Box::new(record)))),
            // A key without its record must not look free.
            Ok(None) | Err(StoreError::Damaged { .. }) => Ok(Some(Current::Unreadable(id, fingerprint))),
            Err(fault) => Err(fault),
        }
    }

    /// Shows records to `wanted`, newest first, until it has seen enough. What cannot be read is left out.
    pub(crate) fn newest_while(&self, mut wanted: impl FnMut(&Record) -> bool) -> Result<(), StoreError> {
        for entry in self.records.iter()?.rev() {
            let (id, stored) = entry?;
            if decode(id.value().into(), stored.value()).is_ok_and(|record| !wanted(&record)) {
                break;
            }
        }
        Ok(())
    }

    /// The greatest id that was ever on record.
    pub(crate) fn newest(&self) -> Result<Option<RecordId>, StoreError> {
        let last = self.records.last()?.map(|(id, _)| id.value().into());
        Ok(last.max(Some(self.newest_id).filter(|newest| newest.as_u128() > 0)))
    }

    /// The state in which a record was last written that cannot be read.
    pub(crate) fn last_state(&self, id: RecordId) -> Result<Option<State>, StoreError> {
        let was = self.unreadable.get(id.as_u128())?.and_then(|was| RecordState::of_code(was.value().0));
        Ok(was.and_then(|was| if let RecordState::Payment(state) = was { Some(state) } else { None }))
    }

    /// Shows the bytes of unreadable records whose places readable ones took to `take`, with the states in which they were last
    /// written, until it has had enough.
    pub(crate) fn replaced(
        &self,
        mut take: impl FnMut(RecordId, RecordState, &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for entry in self.unreadable.iter()? {
            let (id, kept) = entry?;
            let (code, stored) = kept.value();
            let state = RecordState::of_code(code).unwrap_or(RecordState::Unreadable);
            if !stored.is_empty() && !take(id.value().into(), state, stored) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn count(&self, state: RecordState) -> Result<u64, StoreError> {
        Ok(self.counts.get(state.name())?.map_or(0, |count| count.value()))
    }

    /// How many records of each instance are in each state; those of which there are none are left out.
    pub(crate) fn counts_by_instance(&self) -> Result<CountsByInstance, StoreError> {
        counts_by_instance(&self.counts)
    }
}

/// How the count of a state's records of one instance is named, beside that of all, which is named like the state alone. No
/// state has a space in its name.
fn name_of_count(state: RecordState, instance: &str) -> String {
    format!("{} {instance}", state.name())
}

fn counts_by_instance(counts: &impl ReadableTable<&'static str, u64>) -> Result<CountsByInstance, StoreError> {
    let mut found = CountsByInstance::new();
    for entry in counts.iter()? {
        let (name, count) = entry?;
        let Some((state, instance)) = name.value().split_once(' ') else { continue };
        let state = RecordState::ALL.into_iter().find(|one| one.name() == state);
        if let Some(state) = state.filter(|_| count.value() > 0) {
            found.insert((instance.to_owned(), state), count.value());
        }
    }
    Ok(found)
}

/// One transaction, to be written.
pub(crate) struct Batch<'t> {
    pub(crate) meta: Table<'t, &'static str, u64>,
    pub(crate) records: Table<'t, u128, &'static [u8]>,
    pub(crate) current: Table<'t, CurrentKey, CurrentEntry>,
    pub(crate) by_state: Table<'t, StateKey, StateEntry>,
    by_caller: Table<'t, CallerKey, CallerEntry>,
    ended: Table<'t, (u64, u128), ()>,
    unreadable: Table<'t, u128, (u8, &'static [u8])>,
    counts: Table<'t, &'static str, u64>,
    /// Reported once all of this is on disk.
    pub(crate) news: Vec<News>,
}

impl<'t> Batch<'t> {
    pub(crate) fn begin(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            records: transaction.open_table(RECORDS)?,
            current: transaction.open_table(CURRENT)?,
            by_state: transaction.open_table(BY_STATE)?,
            by_caller: transaction.open_table(BY_CALLER)?,
            ended: transaction.open_table(ENDED)?,
            unreadable: transaction.open_table(UNREADABLE)?,
            counts: transaction.open_table(COUNTS)?,
            news: Vec::new(),
        })
    }

    pub(crate) fn get(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        get(&self.records, id)
    }

    /// The journal's stored age.
    pub(crate) fn age_ms(&self) -> Result<u64, StoreError> {
        Ok(self.meta.get(AGE_KEY)?.map_or(0, |age| age.value()))
    }

    pub(crate) fn set_age_ms(&mut self, age_ms: u64) -> Result<(), StoreError> {
        self.meta.insert(AGE_KEY, age_ms)?;
        Ok(())
    }

    /// The ids in a state, of every instance.
    pub(crate) fn ids_in(&self, state: RecordState) -> Result<Vec<RecordId>, StoreError> {
        ids_in(&self.by_state, state)
    }

    /// Writes what was decided, at the journal's present age.
    pub(crate) fn write(&mut self, changes: &Changes, age_ms: u64) -> Result<(), StoreError> {
        for change in &changes.records {
            let record = &change.record;
            match change.before {
                Some(before) => {
                    if change.replaces_unreadable {
                        self.keep_bytes(record.id, before)?;
                    }
                    self.put(Some(before), record, age_ms)?;
                }
                None => self.insert(record, age_ms)?,
            }
            if changes.current == Some(record.id) {
                self.make_current(&record.key, record.id, Some(record.fingerprint))?;
            }
        }
        self.news.extend(changes.news.iter().cloned());
        Ok(())
    }

    /// Adds a record.
    fn insert(&mut self, record: &Record, age_ms: u64) -> Result<(), StoreError> {
        self.put(None, record, age_ms)?;
        if newest_id(&self.meta)? < record.id {
            let id = record.id.as_u128();
            for (name, half) in NEWEST_KEYS.into_iter().zip([id >> 64, id & u128::from(u64::MAX)]) {
                self.meta.insert(name, u64::try_from(half).unwrap_or(u64::MAX))?;
            }
        }
        self.note_clock(record.id, record.times.created_ms)
    }

    /// Makes a record the one that decides what a request with its key gets.
    pub(crate) fn make_current(
        &mut self,
        key: &Key,
        id: RecordId,
        fingerprint: Option<Fingerprint>,
    ) -> Result<(), StoreError> {
        let Key { instance, caller, idempotency_key } = key;
        let fingerprint = fingerprint.unwrap_or(Fingerprint::UNKNOWN);
        let key = (instance.as_str(), idempotency_key.as_str(), caller.as_str());
        self.current.insert(key, (id.as_u128(), fingerprint.bytes()))?;
        Ok(())
    }

    /// Notes how far the time in an id is from the time of its record, for listings between two times.
    pub(crate) fn note_clock(&mut self, id: RecordId, created_ms: i64) -> Result<(), StoreError> {
        let lead_ms = id.time_ms().saturating_sub(created_ms);
        for (name, ms) in [(ID_LEAD_KEY, lead_ms), (ID_LAG_KEY, lead_ms.saturating_neg())] {
            let known = self.meta.get(name)?.map_or(0, |known| known.value());
            match u64::try_from(ms) {
                Ok(ms) if ms > known => drop(self.meta.insert(name, ms)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a record that was in state `before`, at the journal's present age.
    fn put(&mut self, before: Option<RecordState>, record: &Record, age_ms: u64) -> Result<(), StoreError> {
        let id = record.id.as_u128();
        self.records.insert(id, encode(record)?.as_slice())?;
        let state = record.state();
        if before == Some(state.into()) {
            return Ok(());
        }
        self.list_under(before, state.into(), record.id, &Entry::of(record))?;
        if state.has_ended() {
            self.ended.insert((age_ms, id), ())?;
        }
        Ok(())
    }

    /// Lists and counts a record under `state`, and no longer under the one before.
    pub(crate) fn list_under(
        &mut self,
        before: Option<RecordState>,
        state: RecordState,
        id: RecordId,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        if let Some(before) = before {
            self.unlist(before, id, &entry.key)?;
        }
        let (instance, caller, id) = (entry.key.instance.as_str(), entry.key.caller.as_str(), id.as_u128());
        self.by_state.insert((state.code(), instance, id), entry.by_state())?;
        self.by_caller.insert((instance, caller, state.code(), id), (entry.pos_id, entry.created_ms))?;
        self.count(state, instance, u64::saturating_add)
    }

    fn unlist(&mut self, state: RecordState, id: RecordId, key: &Key) -> Result<(), StoreError> {
        let (instance, caller, id) = (key.instance.as_str(), key.caller.as_str(), id.as_u128());
        self.by_caller.remove((instance, caller, state.code(), id))?;
        let was_listed = self.by_state.remove((state.code(), instance, id))?.is_some();
        if was_listed { self.count(state, instance, u64::saturating_sub) } else { Ok(()) }
    }

    /// Lists a record as unreadable, if it cannot be read and any index knows it. It never expires.
    pub(crate) fn mark_unreadable(&mut self, id: RecordId) -> Result<(), StoreError> {
        let reason = match self.get(id) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => MISSING.to_owned(),
            Err(StoreError::Damaged { reason, .. }) => reason,
            Err(fault) => return Err(fault),
        };
        match entry_of(&self.by_state, id)? {
            Some((was @ RecordState::Payment(_), entry)) => {
                self.list_under(Some(was), RecordState::Unreadable, id, &entry)?;
                self.unreadable.insert(id.as_u128(), (was.code(), [].as_slice()))?;
                let Entry { key: Key { instance, caller, .. }, pos_id, .. } = entry;
                self.news.push(News::Unreadable { id, instance, caller, pos_id, was, reason });
                Ok(())
            }
            Some((RecordState::Unreadable, _)) | None => Ok(()),
        }
    }

    /// Lists those again under their own state that were unreadable and are not any more: after a change of release.
    pub(crate) fn unmark_readable(&mut self, age_ms: u64) -> Result<(), StoreError> {
        for id in self.ids_in(RecordState::Unreadable)? {
            match self.get(id) {
                Ok(Some(record)) => {
                    self.put(Some(RecordState::Unreadable), &record, age_ms)?;
                    self.unreadable.remove(id.as_u128())?;
                }
                Ok(None) | Err(StoreError::Damaged { .. }) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    fn remade(&self, id: RecordId) -> Result<Option<(RecordState, Record)>, StoreError> {
        let Some((state, entry)) = entry_of(&self.by_state, id)? else { return Ok(None) };
        let reason = match self.get(id) {
            Ok(_) => MISSING.to_owned(),
            Err(StoreError::Damaged { reason, .. }) => reason,
            Err(fault) => return Err(fault),
        };
        let stored = self.records.get(id.as_u128())?;
        let remains = stored.and_then(|stored| encoding::remains(stored.value())).filter(|one| one.key == entry.key);
        let current = current_id(&self.current, &entry.key)?.filter(|(current, _)| *current == id);
        let recovered = Recovered { reason, sale_known: remains.is_some() };
        let mut record = Record::recovered(id, entry.key, entry.pos_id, entry.created_ms, recovered);
        record.standing = Standing::Unknown(None);
        if let Some(remains) = remains {
            record.fingerprint = remains.sale.fingerprint();
            (record.sale, record.previous) = (remains.sale, remains.previous);
            record.times = Times { ended_ms: None, ..remains.times };
        }
        if let Some((_, Some(fingerprint))) = current {
            record.fingerprint = fingerprint;
        }
        Ok(Some((state, record)))
    }

    /// Keeps the bytes of a record that cannot be read, before another is written in its place.
    fn keep_bytes(&mut self, id: RecordId, listed: RecordState) -> Result<(), StoreError> {
        let id = id.as_u128();
        let was = self.unreadable.get(id)?.map_or(listed.code(), |known| known.value().0);
        if let Some(stored) = self.records.get(id)? {
            self.unreadable.insert(id, (was, stored.value()))?;
        }
        Ok(())
    }

    /// Forgets at most `limit` records that ended at `horizon_ms` of the journal's age or before; says how many.
    pub(crate) fn expire(&mut self, horizon_ms: u64, limit: usize) -> Result<usize, StoreError> {
        let due: Vec<(u64, u128)> = self
            .ended
            .range(..=(horizon_ms, u128::MAX))?
            .take(limit)
            .map(|entry| Ok(entry?.0.value()))
            .collect::<Result<_, StoreError>>()?;
        for (age_ms, id) in &due {
            match self.get((*id).into()) {
                // It ended again since: a late reply took back its refusal. It is due by its later end.
                Ok(Some(record)) if record.ended_age_ms.is_some_and(|later_ms| later_ms != *age_ms) => {}
                Ok(Some(record)) => self.forget(&record)?,
                Ok(None) => {}
                // What became of it is not known, so it stays: better than freeing the wrong key.
                Err(StoreError::Damaged { id, .. }) => self.mark_unreadable(id)?,
                Err(fault) => return Err(fault),
            }
            self.ended.remove((*age_ms, *id))?;
        }
        Ok(due.len())
    }

    fn forget(&mut self, record: &Record) -> Result<(), StoreError> {
        let Key { instance, caller, idempotency_key } = &record.key;
        let key = (instance.as_str(), idempotency_key.as_str(), caller.as_str());
        let id = record.id.as_u128();
        let is_current = self.current.get(key)?.is_some_and(|current| current.value().0 == id);
        if is_current {
            self.current.remove(key)?;
        }
        self.records.remove(id)?;
        self.unreadable.remove(id)?;
        self.unlist(record.state().into(), record.id, &record.key)
    }

    fn count(&mut self, state: RecordState, instance: &str, step: fn(u64, u64) -> u64) -> Result<(), StoreError> {
        for name in [state.name(), &name_of_count(state, instance)] {
            let count = self.counts.get(name)?.map_or(0, |count| count.value());
            self.counts.insert(name, step(count, 1))?;
        }
        Ok(())
    }

    /// Counts by instance anew where they do not add up: an earlier release kept none, and may have written since.
    pub(crate) fn recount_by_instance(&mut self) -> Result<(), StoreError> {
        let mut sums: BTreeMap<RecordState, u64> = BTreeMap::new();
        for ((_, state), count) in counts_by_instance(&self.counts)? {
            *sums.entry(state).or_default() += count;
        }
        let is_whole = |state: RecordState| -> Result<bool, StoreError> {
            let all = self.counts.get(state.name())?.map_or(0, |count| count.value());
            Ok(sums.get(&state).copied().unwrap_or_default() == all)
        };
        let whole: Vec<bool> = RecordState::ALL.into_iter().map(is_whole).collect::<Result<_, _>>()?;
        if whole.iter().all(|whole| *whole) {
            return Ok(());
        }
        self.counts.retain(|name, _| !name.contains(' '))?;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for entry in self.by_state.iter()? {
            let (key, _) = entry?;
            let (code, instance, _) = key.value();
            if let Some(state) = RecordState::of_code(code) {
                *counts.entry(name_of_count(state, instance)).or_default() += 1;
            }
        }
        for (name, count) in counts {
            self.counts.insert(name.as_str(), count)?;
        }
        Ok(())
    }

    /// Begins to count from nothing.
    pub(crate) fn reset_counts(&mut self) -> Result<(), StoreError> {
        self.counts.retain(|name, _| !name.contains(' '))?;
        for state in RecordState::ALL {
            self.counts.insert(state.name(), 0)?;
        }
        Ok(())
    }

    pub(crate) fn set_format(&mut self) -> Result<(), StoreError> {
        self.meta.insert(FORMAT_KEY, FORMAT)?;
        Ok(())
    }
}

impl Records for Batch<'_> {
    type Error = StoreError;

    fn get(&self, id: RecordId) -> Result<Stored, StoreError> {
        match get(&self.records, id) {
            Ok(Some(record)) => Ok(Stored::Readable(Box::new(record))),
            Ok(None) => Ok(Stored::Absent),
            Err(StoreError::Damaged { id, .. }) => Ok(Stored::Unreadable(id)),
            Err(error) => Err(error),
        }
    }

    fn current(&self, key: &Key) -> Result<Stored, StoreError> {
        let Some((id, _)) = current_id(&self.current, key)? else { return Ok(Stored::Absent) };
        match Records::get(self, id)? {
            // A key without its record must not look free.
            Stored::Absent => Ok(Stored::Unreadable(id)),
            stored => Ok(stored),
        }
    }

    fn recovered(&self, id: RecordId) -> Result<Option<(RecordState, Record)>, StoreError> {
        self.remade(id)
    }
}

fn newest_id(meta: &impl ReadableTable<&'static str, u64>) -> Result<RecordId, StoreError> {
    let [high, low] = NEWEST_KEYS;
    let half = |name| -> Result<u128, StoreError> { Ok(meta.get(name)?.map_or(0, |half| u128::from(half.value()))) };
    Ok(RecordId::from((half(high)? << 64) | half(low)?))
}

fn get(records: &impl ReadableTable<u128, &'static [u8]>, id: RecordId) -> Result<Option<Record>, StoreError> {
    let stored = records.get(id.as_u128())?;
    let record = stored.map(|stored| decode(id, stored.value())).transpose();
    record.map_err(|reason| StoreError::Damaged { id, reason })
}

/// The bytes kept of a record that could not be read.
#[cfg(test)]
pub(crate) fn kept_bytes(disk: &crate::journal::tests::disk::Disk, id: RecordId) -> Vec<u8> {
    let database = redb::Builder::new().create_with_backend(disk.clone()).unwrap();
    let kept = database.begin_read().unwrap().open_table(UNREADABLE).unwrap();
    kept.get(id.as_u128()).unwrap().unwrap().value().1.to_vec()
}
