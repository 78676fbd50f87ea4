//! What ownership asks of whatever serves the instances.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::database::Statement;
use crate::tenure::Tenure;

/// An instance as a session lists it for the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub name: Arc<str>,
    pub slug: Arc<str>,
    /// Of the settings that replicas must agree on, without secrets.
    pub digest: Arc<str>,
}

/// What serves the instances that this session owns.
#[async_trait]
pub trait Host: Send + Sync {
    /// The instances that this replica can serve.
    fn configured(&self) -> Vec<Listed>;

    /// Opens connections for an instance that another session owns and will hand over, and keeps what they bring, bounded. Nothing
    /// is sent or logged before [`begin`](Self::begin) under the same tenure.
    async fn prepare(&self, instance: &str, tenure: Tenure) -> io::Result<()>;

    /// Returns once connections of what is prepared under `tenure` have been open for long enough that the owner may hand it over.
    async fn listening(&self, instance: &str, tenure: &Tenure);

    /// How long that takes where all is well.
    fn listens_within(&self) -> Duration;

    /// Closes what was prepared under `tenure`.
    async fn abandon(&self, instance: &str, tenure: &Tenure);

    /// Serves an instance under `tenure` from now on, in place of an earlier tenure that is over, if one is still there. Called
    /// once the claim is acknowledged; never at the same time as another call for the same instance, but
    /// [`listening`](Self::listening). An error gives the instance up.
    async fn begin(&self, instance: &str, tenure: Tenure) -> io::Result<()>;

    /// Writes nothing new for an instance from now on, and returns once nothing is in flight, or after `limit`. Its callers wait.
    /// Returns what the next owner begins with, as statements for the transaction of the release.
    async fn quiesce(&self, instance: &str, limit: Duration) -> Vec<Statement>;

    /// Retires an instance: another session owns it, or this one gave it up. From now on its callers are passed on.
    async fn end(&self, instance: &str);

    /// Whether a served instance has a link to the gateway, or may soon have one.
    fn reaches_gateway(&self, instance: &str) -> bool;
}
