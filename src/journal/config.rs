//! Where a journal is kept and for how long.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the journal lies and how long it remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    directory: PathBuf,
    keep: Duration,
    create: Create,
}

/// Whether a journal may be made. Where one is made, every key is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Create {
    /// In a folder that is absent or empty.
    #[default]
    IfEmpty,
    /// Nowhere: what is absent was lost.
    Never,
}

/// Why a configuration is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("the journal needs a directory")]
    NoDirectory,
    /// Callers repeat a payment for longer than this after a timeout.
    #[error("a payment's key must be kept for at least {} s", Config::LEAST_KEEP.as_secs())]
    KeepTooShort,
}

impl Config {
    /// The shortest `keep`: within it, a repeat after a timeout must still be recognised.
    pub const LEAST_KEEP: Duration = Duration::from_mins(1);

    /// A journal in `directory`, made if that is absent or empty, whose keys are new again `keep` after their payment ended.
    pub fn new(directory: impl Into<PathBuf>, keep: Duration) -> Result<Self, InvalidConfig> {
        let directory = directory.into();
        if directory.as_os_str().is_empty() {
            return Err(InvalidConfig::NoDirectory);
        }
        if keep < Self::LEAST_KEEP {
            return Err(InvalidConfig::KeepTooShort);
        }
        Ok(Self { directory, keep, create: Create::default() })
    }

    /// The same, with another rule for making a journal.
    #[must_use]
    pub fn with_create(self, create: Create) -> Self {
        Self { create, ..self }
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    #[must_use]
    pub fn create(&self) -> Create {
        self.create
    }

    /// How long a key is kept after its payment ended, in time that the bridge runs.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.keep
    }
}

impl Default for Config {
    fn default() -> Self {
        let (directory, keep) = (PathBuf::from("data/journal"), Duration::from_hours(30 * 24));
        Self { directory, keep, create: Create::default() }
    }
}
