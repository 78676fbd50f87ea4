//! How a record is spelled on disk: the one place that knows its bytes.
//!
//! JSON, so that a field a later release adds can be left out by an earlier record, and so that a person can read what
//! a program no longer can.

use serde::Deserialize;

use super::error::StoreError;
use crate::journal::id::RecordId;
use crate::journal::record::{Record, Times};
use crate::journal::sale::{Key, Sale};

/// The bytes to store under the record's id.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Damaged { id: record.id, reason: error.to_string() })
}

/// The record that was stored under `id`, or why it cannot be read.
pub(crate) fn decode(id: RecordId, stored: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(stored).map_err(|error| error.to_string())?;
    if record.id == id { Ok(record) } else { Err("the record of another payment is in its place".into()) }
}

/// What can be read of a record that cannot be read whole.
#[derive(Debug, Deserialize)]
pub(crate) struct Remains {
    pub(crate) sale: Sale,
    pub(crate) previous: Option<RecordId>,
    pub(crate) times: Times,
    pub(crate) key: Key,
}

/// Parts that every release spells alike, of a record that a later one wrote.
pub(crate) fn remains(stored: &[u8]) -> Option<Remains> {
    serde_json::from_slice(stored).ok()
}
