//! The effective configuration and where each value came from, for `validate --print`.

use std::collections::HashMap;
use std::fmt;

use super::error::{ConfigError, Origin};

/// One key that the program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The dotted name.
    pub key: String,
    /// The value in force as it is written in TOML, `(redacted)` for a secret, `None` where there is none.
    pub shown: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

/// Every key in the order in which it was read, and the warnings. Displays as one line a key; secrets are redacted before
/// they get here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveConfig {
    pub(super) entries: Vec<Entry>,
    pub(super) warnings: Vec<ConfigError>,
}

impl EffectiveConfig {
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub fn warnings(&self) -> impl Iterator<Item = &ConfigError> {
        self.warnings.iter()
    }

    /// The keys in both whose value differs from `earlier`. A changed secret is not among them.
    #[must_use]
    pub fn changed_since(&self, earlier: &Self) -> Vec<&str> {
        let known: HashMap<_, _> = earlier.iter().map(|entry| (&entry.key, &entry.shown)).collect();
        let has_changed = |entry: &&Entry| known.get(&entry.key).is_some_and(|shown| **shown != entry.shown);
        self.iter().filter(has_changed).map(|entry| entry.key.as_str()).collect()
    }
}

impl fmt::Display for EffectiveConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |entry: &Entry| match &entry.shown {
            Some(shown) => format!("{} = {shown}", entry.key),
            None => format!("# {} is not set", entry.key),
        };
        let lines: Vec<_> = self.entries.iter().map(line).collect();
        // Longer lines push their own origin to the right and leave the rest aligned.
        let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        for (entry, line) in self.entries.iter().zip(&lines) {
            match entry.origin {
                Origin::Default if entry.shown.is_none() => writeln!(formatter, "{line}")?,
                _ => writeln!(formatter, "{line:width$}  # {}", entry.origin)?,
            }
        }
        Ok(())
    }
}
