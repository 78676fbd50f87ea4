//! Records that are written, as the arrays that a statement takes.

use uuid::Uuid;

use crate::database::{Statement, Type};
use crate::journal::embedded::export::Remainder;
use crate::journal::error::JournalError;
use crate::journal::id::RecordId;
use crate::journal::listing::Unreadable;
use crate::journal::record::{Record, RecordState};
use crate::journal::sale::{Fingerprint, Key};
use crate::tenure::SessionId;

/// A record to be written.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) record: Record,
    /// How often its row was written when this was decided.
    pub(crate) written: i64,
    pub(crate) token: Option<(SessionId, i64)>,
    pub(crate) taken_over_age_ms: Option<i64>,
    pub(crate) replaces_unreadable: bool,
}

/// Many of them.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    ids: Vec<Uuid>,
    instances: Vec<String>,
    callers: Vec<String>,
    keys: Vec<String>,
    revisions: Vec<i64>,
    written: Vec<i64>,
    states: Vec<i16>,
    frees_keys: Vec<bool>,
    pos_ids: Vec<i64>,
    created_ms: Vec<i64>,
    sent_until_ms: Vec<Option<i64>>,
    ended_age_ms: Vec<Option<i64>>,
    taken_over_age_ms: Vec<Option<i64>>,
    sessions: Vec<Option<Uuid>>,
    epochs: Vec<i64>,
    fingerprints: Vec<Vec<u8>>,
    records: Vec<String>,
}

impl Columns {
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(crate) fn push(&mut self, write: &Write) -> Result<(), JournalError> {
        let record = &write.record;
        // A record is JSON but for a fault of the bridge.
        let text = serde_json::to_string(record).map_err(|_| JournalError::Damaged)?;
        self.ids.push(as_uuid(record.id));
        self.instances.push(record.key.instance.clone());
        self.callers.push(record.key.caller.clone());
        self.keys.push(record.key.idempotency_key.clone());
        self.revisions.push(i64::try_from(record.revision).unwrap_or(i64::MAX));
        self.written.push(write.written);
        self.states.push(i16::from(RecordState::from(record.state()).code()));
        self.frees_keys.push(record.frees_its_key());
        self.pos_ids.push(record.sale.pos_id);
        self.created_ms.push(record.times.created_ms);
        self.sent_until_ms.push(record.sent_until_ms());
        self.ended_age_ms.push(record.ended_age_ms.map(|age_ms| i64::try_from(age_ms).unwrap_or(i64::MAX)));
        self.taken_over_age_ms.push(write.taken_over_age_ms);
        self.sessions.push(write.token.map(|(session, _)| session.as_uuid()));
        self.epochs.push(write.token.map_or(0, |(_, epoch)| epoch));
        self.fingerprints.push(record.fingerprint.bytes().to_vec());
        self.records.push(text);
        Ok(())
    }

    /// Adds a record of another journal, which ended at an age that may be before this one began.
    pub(crate) fn push_carried(&mut self, record: &Record, ended_age_ms: Option<i64>) -> Result<(), JournalError> {
        let record = record.clone();
        self.push(&Write { record, written: 0, token: None, taken_over_age_ms: None, replaces_unreadable: false })?;
        if let Some(last) = self.ended_age_ms.last_mut() {
            *last = ended_age_ms;
        }
        Ok(())
    }

    /// Adds what there is of a record of another journal that cannot be read.
    pub(crate) fn push_unreadable(&mut self, remainder: &Remainder) {
        let Key { instance, caller, idempotency_key } = remainder.key.clone();
        self.ids.push(as_uuid(remainder.id));
        self.instances.push(instance);
        self.callers.push(caller);
        self.keys.push(idempotency_key);
        self.revisions.push(i64::try_from(Unreadable::REVISION).unwrap_or_default());
        self.written.push(0);
        self.states.push(i16::from(RecordState::Unreadable.code()));
        self.frees_keys.push(!remainder.holds_key);
        self.pos_ids.push(remainder.pos_id);
        self.created_ms.push(remainder.created_ms);
        self.sent_until_ms.push(None);
        self.ended_age_ms.push(None);
        self.taken_over_age_ms.push(None);
        self.sessions.push(None);
        self.epochs.push(0);
        self.fingerprints.push(remainder.fingerprint.unwrap_or(Fingerprint::UNKNOWN).bytes().to_vec());
        self.records.push(remainder.stored.clone());
    }

    pub(crate) fn into_statement(self, text: &'static str) -> Statement {
        Statement::new(text)
            .bind(self.ids, Type::UUID_ARRAY)
            .bind(self.instances, Type::TEXT_ARRAY)
            .bind(self.callers, Type::TEXT_ARRAY)
            .bind(self.keys, Type::TEXT_ARRAY)
            .bind(self.revisions, Type::INT8_ARRAY)
            .bind(self.written, Type::INT8_ARRAY)
            .bind(self.states, Type::INT2_ARRAY)
            .bind(self.frees_keys, Type::BOOL_ARRAY)
            .bind(self.pos_ids, Type::INT8_ARRAY)
            .bind(self.created_ms, Type::INT8_ARRAY)
            .bind(self.sent_until_ms, Type::INT8_ARRAY)
            .bind(self.ended_age_ms, Type::INT8_ARRAY)
            .bind(self.taken_over_age_ms, Type::INT8_ARRAY)
            .bind(self.sessions, Type::UUID_ARRAY)
            .bind(self.epochs, Type::INT8_ARRAY)
            .bind(self.fingerprints, Type::BYTEA_ARRAY)
            .bind(self.records, Type::TEXT_ARRAY)
    }
}

pub(crate) fn as_uuid(id: RecordId) -> Uuid {
    Uuid::from_u128(id.as_u128())
}
