//! What was read of the database, as far as the rules need it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::watch::Timeline;
use crate::tenure::SessionId;

/// A session that has not ended, as far as it matters for who owns what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Session {
    /// Of its replica.
    pub name: Arc<str>,
    /// Another session's replica has the same name.
    pub shares_its_name: bool,
    pub draining: bool,
    /// It has links to the gateway, or no instance to have one for.
    pub reaches: bool,
    /// The newest format of data that it reads: it claims nothing of a newer one.
    pub format: i32,
    pub lists: Arc<HashSet<Arc<str>>>,
}

impl Session {
    pub(super) fn takes(&self, instance: &str) -> bool {
        !self.draining && self.lists.contains(instance)
    }
}

/// Who owns an instance by the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub session: Option<SessionId>,
    pub epoch: i64,
    /// Who shall claim it, if it can.
    pub next: Option<SessionId>,
    /// To whom its owner offers it.
    pub offered: Option<SessionId>,
    /// Who has opened its connections for that.
    pub prepared: Option<SessionId>,
}

/// What was read of the database.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// When the query was sent.
    pub asked: Duration,
    /// When its answer came.
    pub came: Duration,
    pub timeline: Timeline,
    /// The format that the data is written in.
    pub format: i32,
    /// All sessions that have not ended, with their beats.
    pub sessions: Vec<(SessionId, i64, Session)>,
    /// Whether the rows are all that there are, or those that changed.
    pub is_complete: bool,
    pub rows: Vec<(Arc<str>, Row)>,
}
