//! Brings a journal that an earlier release wrote to the present format, where it lies.
//!
//! All of it is one transaction: a process that is killed on the way, or a disk that is full, leaves the journal as it
//! was, and the next start begins again. An earlier release refuses what this made.

use redb::{Database, ReadableTable, TableDefinition};

use super::encoding;
use super::error::StoreError;
use super::index::{Entry, entry_at};
use super::tables::{Batch, format};
use crate::journal::id::RecordId;
use crate::journal::record::RecordState;
use crate::journal::sale::{Fingerprint, Key};

/// The first format: no index but these two.
const FIRST: u64 = 1;
const KEYS_OF_FIRST: TableDefinition<'_, (&str, &str, &str), u128> = TableDefinition::new("keys");
const OPEN_OF_FIRST: TableDefinition<'_, u128, ()> = TableDefinition::new("open");

/// Records that are held in memory at a time.
const AT_ONCE: usize = 1000;

/// Brings the journal to the present format, if it has an earlier one.
pub(crate) fn upgrade(database: &Database) -> Result<(), StoreError> {
    if format(database)? != Some(FIRST) {
        return Ok(());
    }
    tracing::info!("the payment journal has the format of an earlier release: its indexes are being made");
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut batch = Batch::begin(&transaction)?;
    batch.reset_counts()?;
    index_records(&mut batch)?;
    let keys = transaction.open_table(KEYS_OF_FIRST)?;
    for entry in keys.iter()? {
        let (key, id) = entry?;
        let (instance, caller, idempotency_key) = key.value();
        let key = Key { instance: instance.into(), caller: caller.into(), idempotency_key: idempotency_key.into() };
        index_key(&mut batch, key, id.value().into())?;
    }
    drop(keys);
    batch.set_format()?;
    drop(batch);
    transaction.delete_table(KEYS_OF_FIRST)?;
    transaction.delete_table(OPEN_OF_FIRST)?;
    transaction.commit()?;
    tracing::info!("the payment journal is up to date");
    Ok(())
}

/// Lists every record that can be read, and of the others those that still say whose they are.
fn index_records(batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let mut next = Some(0);
    while let Some(first) = next {
        let mut found = Vec::with_capacity(AT_ONCE);
        for entry in batch.records.range(first..)?.take(AT_ONCE) {
            let (id, stored) = entry?;
            let id = RecordId::from(id.value());
            found.push((id, listed(id, stored.value())));
        }
        next = found.last().filter(|_| found.len() == AT_ONCE).and_then(|(last, _)| last.as_u128().checked_add(1));
        for (id, listed) in found {
            let Some((state, entry)) = listed else { continue };
            batch.list_under(None, state, id, &entry)?;
            batch.note_clock(id, entry.created_ms)?;
        }
    }
    Ok(())
}

fn listed(id: RecordId, stored: &[u8]) -> Option<(RecordState, Entry)> {
    if let Ok(record) = encoding::decode(id, stored) {
        return Some((record.state().into(), Entry::of(&record)));
    }
    let remains = encoding::remains(stored)?;
    let (pos_id, created_ms) = (remains.sale.pos_id, remains.times.created_ms);
    Some((RecordState::Unreadable, Entry { key: remains.key, pos_id, created_ms }))
}

/// Makes `id` the latest attempt under its key. One that cannot be read is listed under this key.
fn index_key(batch: &mut Batch<'_>, key: Key, id: RecordId) -> Result<(), StoreError> {
    let fingerprint: Option<Fingerprint> = match batch.get(id) {
        Ok(Some(record)) => Some(record.fingerprint),
        Ok(None) | Err(StoreError::Damaged { .. }) => None,
        Err(fault) => return Err(fault),
    };
    batch.make_current(&key, id, fingerprint)?;
    if fingerprint.is_some() || entry_at(&batch.by_state, RecordState::Unreadable, &key.instance, id)?.is_some() {
        return Ok(());
    }
    tracing::error!(payment = %id, "the record of a payment cannot be read: its key stays taken until an operator settles it");
    let entry = Entry { key, pos_id: 0, created_ms: id.time_ms() };
    batch.list_under(None, RecordState::Unreadable, id, &entry)
}
