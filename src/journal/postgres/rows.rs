//! A payment as its row has it.

use uuid::Uuid;

use crate::database::{self, Error};
use crate::journal::attempts::Stored;
use crate::journal::embedded::encoding::{self, decode};
use crate::journal::id::RecordId;
use crate::journal::listing::{Listed, Unreadable};
use crate::journal::record::{Record, RecordState, Recovered, Standing, State, Times};
use crate::journal::sale::{Fingerprint, Key};
use crate::journal::store::Current;

/// What is shown of a record that cannot be read.
const MAX_SHOWN: usize = 16 << 10;

/// A row of `payment`.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: RecordId,
    pub(crate) key: Key,
    pub(crate) pos_id: i64,
    pub(crate) created_ms: i64,
    pub(crate) state: RecordState,
    /// Counts the writes of the row.
    pub(crate) written: i64,
    pub(crate) frees_key: bool,
    pub(crate) taken_over_age_ms: Option<i64>,
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The record, or why it cannot be read.
    pub(crate) record: Result<Record, String>,
    pub(crate) stored: String,
}

impl Row {
    /// Reads the columns of `COLUMNS`.
    pub(crate) fn of(row: &database::Row) -> Result<Self, Error> {
        let id = RecordId::from(row.try_get::<_, Uuid>("id")?.as_u128());
        let code: i16 = row.try_get("state")?;
        let state = u8::try_from(code).ok().and_then(RecordState::of_code);
        let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
        let stored: String = row.try_get("record")?;
        Ok(Self {
            id,
            key: Key {
                instance: row.try_get("instance")?,
                caller: row.try_get("caller")?,
                idempotency_key: row.try_get("key")?,
            },
            pos_id: row.try_get("pos_id")?,
            created_ms: row.try_get("created_ms")?,
            state: state.unwrap_or(RecordState::Unreadable),
            written: row.try_get("written")?,
            frees_key: row.try_get("frees_key")?,
            taken_over_age_ms: row.try_get("taken_over_age_ms")?,
            fingerprint: fingerprint.try_into().ok().and_then(Fingerprint::of_bytes),
            record: decode(id, stored.as_bytes()),
            stored,
        })
    }

    pub(crate) fn stored(&self) -> Stored {
        match &self.record {
            Ok(record) => Stored::Readable(Box::new(record.clone())),
            Err(_) => Stored::Unreadable(self.id),
        }
    }

    pub(crate) fn current(self) -> Current {
        match self.record {
            Ok(record) => Current::Record(Box::new(record)),
            Err(_) => Current::Unreadable(self.id, self.fingerprint),
        }
    }

    /// Whether it answers for a payment that is decided and holds its key: what callers are told that must stay true.
    pub(crate) fn is_final(&self) -> bool {
        !self.frees_key && self.record.as_ref().is_ok_and(|record| record.state().has_ended())
    }

    pub(crate) fn listed(self, shows_stored: bool) -> Listed {
        let reason = match self.record {
            Ok(record) => return Listed::Record(Box::new(record)),
            Err(reason) => reason,
        };
        let remains = encoding::remains(self.stored.as_bytes());
        let shown = || self.stored.chars().take(MAX_SHOWN).collect();
        Listed::Unreadable(Box::new(Unreadable {
            id: self.id,
            key: self.key,
            pos_id: self.pos_id,
            created_ms: self.created_ms,
            was: if let RecordState::Payment(state) = self.state { Some(state) } else { None },
            reason,
            stored: shows_stored.then(shown),
            previous: remains.and_then(|remains| remains.previous),
            is_marked: true,
        }))
    }

    /// What it is taken for when its payment is decided although it cannot be read.
    pub(crate) fn remade(&self) -> Option<(RecordState, Record)> {
        let reason = self.record.as_ref().err()?.clone();
        let remains = encoding::remains(self.stored.as_bytes()).filter(|remains| remains.key == self.key);
        let recovered = Recovered { reason, sale_known: remains.is_some() };
        let mut record = Record::recovered(self.id, self.key.clone(), self.pos_id, self.created_ms, recovered);
        record.standing = Standing::Unknown(None);
        if let Some(remains) = remains {
            record.fingerprint = remains.sale.fingerprint();
            (record.sale, record.previous) = (remains.sale, remains.previous);
            record.times = Times { ended_ms: None, ..remains.times };
        }
        if let Some(fingerprint) = self.fingerprint {
            record.fingerprint = fingerprint;
        }
        // Listed as unreadable, so that its decision is told as a change.
        Some((RecordState::Unreadable, record))
    }

    /// The state that a decision finds it in.
    pub(crate) fn payment_state(&self) -> Option<State> {
        self.record.as_ref().ok().map(Record::state)
    }
}
