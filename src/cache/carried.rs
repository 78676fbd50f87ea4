//! Copies as one owner of an instance leaves them to the next.

use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::protocol::Body;

/// One copy, with its freshness told in ages at the moment of the handover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedCopy {
    pub key: Key,
    pub body: Body,
    /// Milliseconds since its command was written, rounded up.
    pub age_ms: u64,
    pub ended: Ended,
}

/// Whether a copy's freshness was ended by something else than its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    No,
    /// So many milliseconds ago, rounded up.
    Ago(u64),
    /// At a time that is not known.
    Unknown,
}
