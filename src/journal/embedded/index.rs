//! The indexes beside the records: what finds a record by its key, its state or its caller without reading others.
//!
//! An entry also says what a listing filters by and what has to be known of a record that cannot be read: whose it is,
//! its key, its point of sale and its time. Every record has exactly one entry in each of [`BY_STATE`] and
//! [`BY_CALLER`], under the same state; that of the latest attempt under a key is in [`CURRENT`].

use std::ops::Bound;

use redb::{ReadableTable, TableDefinition};

use super::error::StoreError;
use crate::journal::id::RecordId;
use crate::journal::record::{Record, RecordState};
use crate::journal::sale::{Fingerprint, Key};

/// State, instance and id; caller, key, point of sale and time of creation in milliseconds.
pub(crate) type StateKey = (u8, &'static str, u128);
pub(crate) type StateEntry = (&'static str, &'static str, i64, i64);
/// Instance, caller, state and id; point of sale and time of creation in milliseconds.
pub(crate) type CallerKey = (&'static str, &'static str, u8, u128);
pub(crate) type CallerEntry = (i64, i64);
/// Instance, idempotency key and caller.
pub(crate) type CurrentKey = (&'static str, &'static str, &'static str);
/// The latest attempt under a key, and the fingerprint of its sale.
pub(crate) type CurrentEntry = (u128, &'static [u8; 32]);

pub(crate) const BY_STATE: TableDefinition<'_, StateKey, StateEntry> = TableDefinition::new("records by state");
pub(crate) const BY_CALLER: TableDefinition<'_, CallerKey, CallerEntry> = TableDefinition::new("records by caller");
pub(crate) const CURRENT: TableDefinition<'_, CurrentKey, CurrentEntry> = TableDefinition::new("records by key");

/// What the indexes say of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) pos_id: i64,
    pub(crate) created_ms: i64,
}

impl Entry {
    pub(crate) fn of(record: &Record) -> Self {
        Self { key: record.key.clone(), pos_id: record.sale.pos_id, created_ms: record.times.created_ms }
    }

    pub(crate) fn by_state(&self) -> (&str, &str, i64, i64) {
        (self.key.caller.as_str(), self.key.idempotency_key.as_str(), self.pos_id, self.created_ms)
    }
}

/// The entry of a record whose instance and state are known.
pub(crate) fn entry_at(
    by_state: &impl ReadableTable<StateKey, StateEntry>,
    state: RecordState,
    instance: &str,
    id: RecordId,
) -> Result<Option<Entry>, StoreError> {
    Ok(by_state.get((state.code(), instance, id.as_u128()))?.map(|entry| {
        let (caller, idempotency_key, pos_id, created_ms) = entry.value();
        let key = Key { instance: instance.into(), caller: caller.into(), idempotency_key: idempotency_key.into() };
        Entry { key, pos_id, created_ms }
    }))
}

/// The entry of a record of which only the id is known, for one that cannot be read: a look for each state and instance.
pub(crate) fn entry_of(
    by_state: &impl ReadableTable<StateKey, StateEntry>,
    id: RecordId,
) -> Result<Option<(RecordState, Entry)>, StoreError> {
    for state in RecordState::ALL {
        let mut last: Option<String> = None;
        while let Some(instance) = instance_after(by_state, state, last.as_deref())? {
            if let Some(entry) = entry_at(by_state, state, &instance, id)? {
                return Ok(Some((state, entry)));
            }
            last = Some(instance);
        }
    }
    Ok(None)
}

/// The first instance after `last` that has records in `state`.
fn instance_after(
    by_state: &impl ReadableTable<StateKey, StateEntry>,
    state: RecordState,
    last: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let code = state.code();
    let from = match last {
        None => Bound::Included((code, "", 0)),
        Some(last) => Bound::Excluded((code, last, u128::MAX)),
    };
    let first = by_state.range::<(u8, &str, u128)>((from, Bound::Excluded((code + 1, "", 0))))?.next();
    Ok(first.transpose()?.map(|(key, _)| key.value().1.to_owned()))
}

/// All ids in `state`, of every instance.
pub(crate) fn ids_in(
    by_state: &impl ReadableTable<StateKey, StateEntry>,
    state: RecordState,
) -> Result<Vec<RecordId>, StoreError> {
    let code = state.code();
    let range = by_state.range::<(u8, &str, u128)>((code, "", 0)..(code + 1, "", 0))?;
    range.map(|entry| Ok(entry?.0.value().2.into())).collect()
}

/// The latest attempt under a key: its id, and the fingerprint of its sale where that is known.
pub(crate) fn current_id(
    current: &impl ReadableTable<CurrentKey, CurrentEntry>,
    key: &Key,
) -> Result<Option<(RecordId, Option<Fingerprint>)>, StoreError> {
    let Key { instance, caller, idempotency_key } = key;
    let found = current.get((instance.as_str(), idempotency_key.as_str(), caller.as_str()))?;
    Ok(found.map(|found| {
        let (id, fingerprint) = found.value();
        (id.into(), Fingerprint::of_bytes(*fingerprint))
    }))
}
