//! What a listing asks for and gives, whatever the store.
//!
//! Newest first, a page at a time. Where a page stops before the end it says from which id to go on, so that page by page
//! everything is reached. A record that cannot be read costs only itself: it is listed as such, with what is known of it.

use super::id::RecordId;
use super::record::{Record, RecordState, State};
use super::sale::Key;

/// Which records to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub instance: String,
    pub caller: Option<String>,
    pub idempotency_key: Option<String>,
    pub state: Option<RecordState>,
    pub pos_id: Option<i64>,
    /// Only those created then or later, in milliseconds since the epoch.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// Only those with a smaller id: where the page before this one ended.
    pub before: Option<RecordId>,
    /// At most so many; 0 lists none.
    pub limit: usize,
}

/// A part of a listing.
#[derive(Debug, Default, PartialEq)]
pub struct Page {
    /// Newest first; fewer than were asked for, or none, even where more follow.
    pub records: Vec<Listed>,
    /// More may follow: they are listed `before` this id.
    pub next: Option<RecordId>,
}

impl Page {
    /// Whether one of this point of sale cannot be read.
    #[must_use]
    pub fn has_unreadable(&self, pos_id: i64) -> bool {
        self.records.iter().any(|listed| matches!(listed, Listed::Unreadable(one) if one.pos_id == pos_id))
    }

    /// Those that can be read.
    #[must_use]
    pub fn readable(self) -> Vec<Record> {
        self.records.into_iter().filter_map(Listed::readable).collect()
    }
}

/// A record as found.
#[derive(Debug, PartialEq)]
pub enum Listed {
    Record(Box<Record>),
    Unreadable(Box<Unreadable>),
}

impl Listed {
    #[must_use]
    pub fn id(&self) -> RecordId {
        match self {
            Self::Record(record) => record.id,
            Self::Unreadable(unreadable) => unreadable.id,
        }
    }

    /// The revision by which it may be settled.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::Record(record) => record.revision,
            Self::Unreadable(_) => Unreadable::REVISION,
        }
    }

    /// Whose it is and under which key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Record(record) => &record.key,
            Self::Unreadable(unreadable) => &unreadable.key,
        }
    }

    #[must_use]
    pub fn readable(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(*record),
            Self::Unreadable(_) => None,
        }
    }

    pub(super) fn previous(&self) -> Option<RecordId> {
        match self {
            Self::Record(record) => record.previous,
            Self::Unreadable(unreadable) => unreadable.previous,
        }
    }
}

/// What is known of a record that cannot be read. Its key stays taken until a person settles it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub id: RecordId,
    /// Whose it is and under which key.
    pub key: Key,
    pub pos_id: i64,
    /// When the key was reserved, in milliseconds since the epoch.
    pub created_ms: i64,
    /// The state in which it was last written, where that is known.
    pub was: Option<State>,
    /// Why it cannot be read.
    pub reason: String,
    /// The beginning of what is stored, as text; only where this one record was asked for.
    pub stored: Option<String>,
    /// The attempt under the same key before this one.
    pub(super) previous: Option<RecordId>,
    /// Whether the indexes have it as unreadable.
    pub(super) is_marked: bool,
}

impl Unreadable {
    /// The revision by which it is settled: no record that can be read and settled has it.
    pub const REVISION: u64 = 0;
}
