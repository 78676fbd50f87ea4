//! What the journal of several replicas needs to know.

use std::path::PathBuf;
use std::time::Duration;

use crate::database;
use crate::tenure::Tenures;

/// How long an idle journal goes between two looks at what has expired: what a crash can add to the life of a record.
const PACE: Duration = Duration::from_secs(10);

/// A journal in a database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    pub(super) database: database::Config,
    pub(super) keep: Duration,
    pub(super) tenures: Tenures,
    /// How long after a takeover its payments may not be settled as not booked.
    pub(super) unsettled: Duration,
    pub(super) pace: Duration,
    pub(super) embedded: Option<PathBuf>,
}

impl PostgresConfig {
    /// A journal whose keys are new again `keep` after their payment ended, for the instances that `tenures` has. A payment
    /// that a takeover made unknown is not settled as not booked before `unsettled` has passed: until then its owner of
    /// before may hear of it. That is its lease, and the longest time that it waits for a reply and for a late one.
    #[must_use]
    pub fn new(database: database::Config, keep: Duration, tenures: Tenures, unsettled: Duration) -> Self {
        Self { database, keep, tenures, unsettled, pace: PACE, embedded: None }
    }

    /// The same, refused where the embedded journal that was in this directory is not in the database.
    #[must_use]
    pub fn in_place_of(self, embedded: impl Into<PathBuf>) -> Self {
        Self { embedded: Some(embedded.into()), ..self }
    }

    #[cfg(test)]
    pub(crate) fn with_pace(self, pace: Duration) -> Self {
        Self { pace, ..self }
    }
}
