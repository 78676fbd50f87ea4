//! The bridge as its operator sees it: every instance's shards, links and budget, and what they share.

use std::collections::BTreeMap;

use super::access::AccessDenied;
use super::metrics::Metrics;
use super::sales::{RecentSales, Sales};
use crate::budget::metrics::RecentAsks;
use crate::budget::{self, WindowStatus};
use crate::gateway::metrics::RecentExchanges;
use crate::gateway::{self, ShardStatus};
use crate::journal::{RecordState, State};

/// Whether the bridge accepts requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    Serving,
    /// It was told to stop.
    Draining,
}

/// The bridge, or what a token sees of it that may not use all of its instances.
#[derive(Debug, Clone)]
pub struct BridgeStatus {
    /// The program's version.
    pub version: &'static str,
    /// How long it has been running.
    pub uptime_seconds: u64,
    pub state: ServiceState,
    /// Whether the token may use every instance. Where it may not, what is told of all instances together is left out:
    /// `cache`, `payments` and `subscribers`.
    pub whole: bool,
    /// Each instance that the token may use, in order of name.
    pub instances: Vec<InstanceStatus>,
    /// Copies of replies, of all instances together.
    pub cache: Option<CacheStatus>,
    /// Payments by state, of all instances together; absent while the journal cannot be read.
    pub payments: Option<PaymentCounts>,
    /// Payments by state of each instance that has any and that the token may use, be it served or not.
    pub payments_by_instance: BTreeMap<String, PaymentCounts>,
    /// The disks, and the wall clock.
    pub disk: Option<DiskStatus>,
    /// Callers that were refused; known to the room above.
    pub callers: Option<CallerStatus>,
    /// The replicas; known to the room above, and absent where this bridge is the only one.
    pub cluster: Option<ClusterStatus>,
    /// Event streams that are open.
    pub subscribers: Option<u64>,
}

/// What the bridge writes to, and what time it has.
#[derive(Debug, Clone, Default)]
pub struct DiskStatus {
    /// Whether payments can be recorded.
    pub journal_available: bool,
    pub journal_damaged: bool,
    /// Why the journal cannot be written.
    pub journal_fault: Option<String>,
    pub journal_fault_since_ms: Option<i64>,
    /// The slowest commit of the last minute or under way, where one is slow.
    pub slow_commit_ms: Option<u64>,
    /// What is left on the disk of the journal.
    pub free_bytes: Option<u64>,
    /// Why copies cannot be kept on disk.
    pub copies_fault: Option<String>,
    pub copies_fault_since_ms: Option<i64>,
    /// By how much the wall clock was changed within the last hour.
    pub clock_step_ms: Option<i64>,
    pub clock_step_at_ms: Option<i64>,
}

/// Callers that were refused within the last minute.
#[derive(Debug, Clone, Default)]
pub struct CallerStatus {
    /// Connections that were not taken.
    pub turned_away: u64,
    /// Attempts to authenticate from addresses that are blocked.
    pub blocked_attempts: u64,
    /// By caller, requests beyond its own limits.
    pub limited: Vec<(String, u64)>,
    /// Of the issuer of JWTs, where there is one.
    pub issuer_keys: Option<IssuerKeys>,
}

/// How the keys of an issuer of JWTs are doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuerKeys {
    pub issuer: String,
    /// Keys in force.
    pub keys: usize,
    /// Seconds since they were fetched.
    pub age_s: Option<u64>,
    /// Why they could not be fetched when it was last tried.
    pub fault: Option<String>,
    pub fault_since_ms: Option<i64>,
}

/// The replicas that serve together, as this one knows them.
#[derive(Debug, Clone, Default)]
pub struct ClusterStatus {
    /// This replica's name.
    pub replica: String,
    /// Its session; none while it has none.
    pub session: Option<String>,
    /// For how much longer it may act without another renewal; none while it may not.
    pub lease_left_ms: Option<u64>,
    /// How long a lease is.
    pub lease_ms: u64,
    pub database: DatabaseStatus,
    /// The sessions that have not ended, this one included, in order of name.
    pub replicas: Vec<ReplicaStatus>,
    /// Who owns each instance that some replica lists, in order of instance.
    pub owners: Vec<OwnerStatus>,
    /// Instances whose settings are not the same at all replicas.
    pub settings_differ: Vec<String>,
    /// Changes of owner that were seen since the start.
    pub owner_changes: u64,
    /// Sessions that this replica has begun since the start.
    pub sessions_begun: u64,
}

/// The database that decides who owns what.
#[derive(Debug, Clone, Default)]
pub struct DatabaseStatus {
    /// Why the last renewal was not acknowledged.
    pub fault: Option<String>,
    pub fault_since_ms: Option<i64>,
    /// Whether the database answers reads while it acknowledges nothing.
    pub reads: bool,
    /// Whether a commit waits for a standby; none while that is not known.
    pub has_standby: Option<bool>,
}

/// A replica's session.
#[derive(Debug, Clone, Default)]
pub struct ReplicaStatus {
    pub name: String,
    pub session: String,
    /// Where other replicas reach it.
    pub address: String,
    pub version: String,
    /// The newest format of data that it reads.
    pub format: i32,
    pub draining: bool,
    /// For how long no renewal of it was seen.
    pub silent_ms: u64,
    /// How many instances it can serve.
    pub lists: u64,
    /// How many it owns.
    pub owns: u64,
}

/// Who owns an instance.
#[derive(Debug, Clone, Default)]
pub struct OwnerStatus {
    pub instance: String,
    /// The name of the replica; none while nobody owns it.
    pub replica: Option<String>,
    /// Grows with each change of owner; none where it never had one.
    pub epoch: Option<i64>,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct InstanceStatus {
    /// Its name.
    pub instance: String,
    /// Commands waiting for a link.
    pub waiting: usize,
    /// The gateway's shards as this instance sees them, each with its links.
    pub shards: Vec<ShardStatus>,
    /// Its budget, one window for each command, or one named `*` where all commands share one.
    pub budgets: Vec<WindowStatus>,
    /// Words of the gateway since the start that did not agree with the record of their payment. Each is in
    /// `contradictions` of that payment.
    pub contradictions: u64,
    /// Since when it has no link in service, in milliseconds since 1970.
    pub unlinked_since_ms: Option<i64>,
    /// What the gateway does not accept of it.
    pub denied: Option<AccessDenied>,
    /// Its sales within the last minute.
    pub sales: RecentSales,
    /// How its commands asked for points within the last minute.
    pub asks: RecentAsks,
    /// Its commands to the gateway within the last minute.
    pub exchanges: RecentExchanges,
    /// Whether anything was asked of the gateway for it since the start, but the licence.
    pub in_use: bool,
}

/// Copies of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStatus {
    /// How many there are.
    pub copies: u64,
    /// How many bytes they take, roughly.
    pub bytes: u64,
}

/// How many payments are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PaymentCounts {
    /// Their key is taken, and nothing was sent.
    pub reserved: u64,
    /// Recorded, and possibly on their way.
    pub dispatching: u64,
    /// Confirmed by the gateway.
    pub booked: u64,
    /// Proven not to be booked.
    pub released: u64,
    /// Sent, and nothing tells what became of them: a person must settle them.
    pub unknown: u64,
    /// Settled by a person.
    pub settled: u64,
    /// Their record cannot be read: a person must settle them.
    pub unreadable: u64,
}

impl PaymentCounts {
    /// Counts so many more payments of this state.
    pub(super) fn add(&mut self, state: RecordState, count: u64) {
        let counted = match state {
            RecordState::Payment(State::Reserved) => &mut self.reserved,
            RecordState::Payment(State::Dispatching) => &mut self.dispatching,
            RecordState::Payment(State::Booked) => &mut self.booked,
            RecordState::Payment(State::Released) => &mut self.released,
            RecordState::Payment(State::Unknown) => &mut self.unknown,
            RecordState::Payment(State::Settled) => &mut self.settled,
            RecordState::Unreadable => &mut self.unreadable,
        };
        *counted = counted.saturating_add(count);
    }

    /// Each state with its count.
    #[must_use]
    pub fn by_state(&self) -> [(RecordState, u64); 7] {
        [
            (State::Reserved.into(), self.reserved),
            (State::Dispatching.into(), self.dispatching),
            (State::Booked.into(), self.booked),
            (State::Released.into(), self.released),
            (State::Unknown.into(), self.unknown),
            (State::Settled.into(), self.settled),
            (RecordState::Unreadable, self.unreadable),
        ]
    }
}

/// What one instance has counted since the start.
#[derive(Debug, Clone, Copy)]
pub struct InstanceMetrics<'a> {
    pub gateway: &'a gateway::metrics::Metrics,
    pub budget: &'a budget::metrics::Metrics,
    pub reads: &'a Metrics,
    pub sales: &'a Sales,
    /// Words of the gateway that did not agree with the record of their payment.
    pub contradictions: u64,
}
