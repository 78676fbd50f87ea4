//! How a record is spelled on disk: the one place that knows its bytes.
//!
//! JSON, so that a field a later release adds can be left out by an earlier record, and so that a person can read what
//! a program no longer can.

use super::id::RecordId;
use super::record::Record;
use super::store::Fault;

/// The bytes to store under the record's id.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(record).map_err(|error| Fault::Damaged { id: record.id, reason: error.to_string() })
}

/// The record that was stored under `id`.
pub(super) fn decode(id: RecordId, stored: &[u8]) -> Result<Record, Fault> {
    serde_json::from_slice(stored).map_err(|error| Fault::Damaged { id, reason: error.to_string() })
}
