//! How this replica stands with the database: for people, and for nothing that decides.

use crate::tenure::Lease;

/// What was last known of it.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Of the session that this replica has.
    pub lease: Option<Lease>,
    /// Sessions begun since the start.
    pub sessions_begun: u64,
    /// Why the last renewal was not acknowledged; none where it was.
    pub fault: Option<Fault>,
    /// Whether `synchronous_standby_names` is set; none while that was not read.
    pub has_standby: Option<bool>,
}

/// Renewals that are not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub words: String,
    /// When the first of them was not, in milliseconds since 1970.
    pub since_ms: i64,
    /// Whether the database answered a read meanwhile: then it is the standby that is away.
    pub reads: bool,
}

impl Standing {
    /// A renewal was not acknowledged, at `now_ms`.
    pub fn failed(&mut self, words: String, reads: bool, now_ms: i64) {
        let since_ms = self.fault.as_ref().map_or(now_ms, |fault| fault.since_ms);
        self.fault = Some(Fault { words, since_ms, reads });
    }
}
