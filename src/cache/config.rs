//! The settings of the section `cache`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::Retention;

#[derive(Debug, Clone)]
pub struct Config {
    /// The most that all copies together may take, in bytes.
    pub max_size: u64,
    /// A copy younger than this answers even a request that asks for a new one.
    pub min_age: Duration,
    /// By command; a command without a rule is not cached.
    pub rules: BTreeMap<String, Retention>,
    /// Folder of the copies that a later start begins with; none where they are not kept.
    pub store: Option<PathBuf>,
}
