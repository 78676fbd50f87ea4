//! The state of a reading, which all sections share.

use std::collections::HashSet;

use super::effective::Entry;
use super::error::ConfigError;
use super::tree::Table;
use super::unknown::Known;

#[derive(Debug)]
pub(super) struct Reading {
    /// What was set.
    pub(super) tree: Table,
    /// Variables with our prefix that set nothing, in order.
    pub(super) ignored: Vec<String>,
    /// The names that were asked for.
    pub(super) known: Known,
    /// What was read, in order.
    pub(super) entries: Vec<Entry>,
    /// The keys of [`Self::entries`].
    pub(super) read_keys: HashSet<String>,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<ConfigError>,
}

impl Reading {
    pub(super) fn new(tree: Table, ignored: Vec<String>, errors: Vec<ConfigError>) -> Self {
        Self {
            tree,
            ignored,
            known: Known::default(),
            entries: Vec::new(),
            read_keys: HashSet::new(),
            errors,
            warnings: Vec::new(),
        }
    }
}
