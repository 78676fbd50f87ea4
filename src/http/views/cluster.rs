//! The replicas as they are answered. The names of the schemas are those of the document, and do not change.

use serde::Serialize;
use utoipa::ToSchema;

use super::payment::time;
use crate::bridge::status::{ClusterStatus, DatabaseStatus, OwnerStatus, ReplicaStatus};

/// The replicas that serve together, as the one that answers knows them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClusterStatus)]
pub struct ClusterView {
    /// The name of the replica that answers.
    #[schema(example = "bridge-0")]
    replica: String,
    /// Its session, which is new at each start; null while it has none.
    session: Option<String>,
    /// For how many milliseconds more it may act without another renewal; null while it may not.
    lease_left_ms: Option<u64>,
    /// How long a lease is, in milliseconds.
    lease_ms: u64,
    /// The database that decides who owns what.
    database: DatabaseView,
    /// The sessions that have not ended, in order of name.
    replicas: Vec<ReplicaView>,
    /// Who owns each instance that the token may use and that some replica lists, in order of instance.
    owners: Vec<OwnerView>,
    /// Instances that the token may use and whose settings are not the same at all replicas.
    settings_differ: Vec<String>,
    /// Changes of owner that the replica that answers has seen since its start.
    owner_changes: u64,
}

/// The database that decides who owns what.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DatabaseStatus)]
pub struct DatabaseView {
    /// Why the last renewal of the lease was not acknowledged; null where it was.
    fault: Option<String>,
    /// Since when.
    #[schema(format = DateTime)]
    fault_since: Option<String>,
    /// Whether a commit waits for a standby; null while that is not known.
    has_standby: Option<bool>,
}

/// A replica's session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplicaStatus)]
pub struct ReplicaView {
    /// The replica's name.
    #[schema(example = "bridge-0")]
    name: String,
    /// Its session.
    session: String,
    /// Where other replicas reach it.
    #[schema(example = "10.0.0.5:9191")]
    address: String,
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: String,
    /// The newest format of data that it reads.
    format: i32,
    /// Whether it gives up what it owns, because it stops.
    draining: bool,
    /// For how many milliseconds no renewal of it was seen.
    silent_ms: u64,
    /// How many instances it can serve.
    lists: u64,
    /// How many it owns.
    owns: u64,
}

/// Who owns an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OwnerStatus)]
pub struct OwnerView {
    /// The instance.
    instance: String,
    /// The name of the replica that owns it; null while none does.
    replica: Option<String>,
    /// Grows with each change of owner; null where it never had one.
    epoch: Option<i64>,
}

impl From<ClusterStatus> for ClusterView {
    fn from(status: ClusterStatus) -> Self {
        let ClusterStatus { replica, session, lease_left_ms, lease_ms, database, settings_differ, .. } = status;
        let ClusterStatus { replicas, owners, owner_changes, .. } = status;
        Self {
            replica,
            session,
            lease_left_ms,
            lease_ms,
            database: database.into(),
            replicas: replicas.into_iter().map(Into::into).collect(),
            owners: owners.into_iter().map(Into::into).collect(),
            settings_differ,
            owner_changes,
        }
    }
}

impl From<DatabaseStatus> for DatabaseView {
    fn from(status: DatabaseStatus) -> Self {
        let DatabaseStatus { fault, fault_since_ms, has_standby, reads: _ } = status;
        Self { fault, fault_since: fault_since_ms.map(time), has_standby }
    }
}

impl From<ReplicaStatus> for ReplicaView {
    fn from(status: ReplicaStatus) -> Self {
        let ReplicaStatus { name, session, address, version, format, draining, silent_ms, lists, owns } = status;
        Self { name, session, address, version, format, draining, silent_ms, lists, owns }
    }
}

impl From<OwnerStatus> for OwnerView {
    fn from(status: OwnerStatus) -> Self {
        let OwnerStatus { instance, replica, epoch } = status;
        Self { instance, replica, epoch }
    }
}
