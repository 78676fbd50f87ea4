//! What of the records a decision may read: what was loaded. Anything else it must have loaded first.

use std::collections::{HashMap, HashSet};

use crate::journal::attempts::{Records, Stored};
use crate::journal::id::RecordId;
use crate::journal::record::{Record, RecordState};
use crate::journal::sale::Key;

use super::rows::Row;

/// What has to be loaded before a decision can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    Record(RecordId),
    Current(Key),
}

/// Rows as they were read.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    rows: HashMap<RecordId, Option<Row>>,
    current: HashMap<Key, Option<RecordId>>,
}

impl Loaded {
    pub(crate) fn row(&self, id: RecordId) -> Option<&Row> {
        self.rows.get(&id)?.as_ref()
    }

    pub(crate) fn has(&self, id: RecordId) -> bool {
        self.rows.contains_key(&id)
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.insert(row.id, Some(row));
    }

    /// Notes that nothing was found under a key.
    pub(crate) fn nothing_under(&mut self, key: Key) {
        self.current.entry(key).or_insert(None);
    }

    /// Notes what was looked for: what was not found is not there.
    pub(crate) fn looked(&mut self, ids: &HashSet<RecordId>, keys: &HashSet<Key>, found: Vec<Row>, current: Vec<Row>) {
        for id in ids {
            self.rows.entry(*id).or_insert(None);
        }
        for key in keys {
            self.current.insert(key.clone(), None);
        }
        for row in current {
            self.current.insert(row.key.clone(), Some(row.id));
            self.add(row);
        }
        for row in found {
            self.add(row);
        }
    }
}

impl Records for Loaded {
    type Error = Missing;

    fn get(&self, id: RecordId) -> Result<Stored, Missing> {
        let found = self.rows.get(&id).ok_or(Missing::Record(id))?;
        Ok(found.as_ref().map_or(Stored::Absent, Row::stored))
    }

    fn current(&self, key: &Key) -> Result<Stored, Missing> {
        match self.current.get(key) {
            None => Err(Missing::Current(key.clone())),
            Some(None) => Ok(Stored::Absent),
            Some(Some(id)) => self.get(*id),
        }
    }

    fn recovered(&self, id: RecordId) -> Result<Option<(RecordState, Record)>, Missing> {
        Ok(self.row(id).and_then(Row::remade))
    }
}
