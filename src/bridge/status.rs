//! The bridge as its operator sees it: every instance's shards, links and budget, and what they share.

use super::metrics::Metrics;
use crate::budget::{self, WindowStatus};
use crate::gateway::{self, ShardStatus};
use crate::journal::{RecordState, State};

/// The bridge, or what a token sees of it that may not use all of its instances.
#[derive(Debug, Clone)]
pub struct BridgeStatus {
    /// The program's version.
    pub version: &'static str,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// `serving`, or `draining` once it was told to stop.
    pub state: &'static str,
    /// Whether the token may use every instance. Where it may not, what is told of all instances together is left out:
    /// `cache`, `payments` and `subscribers`.
    pub whole: bool,
    /// Each instance that the token may use, in order of name.
    pub instances: Vec<InstanceStatus>,
    /// Copies of replies, of all instances together.
    pub cache: Option<CacheStatus>,
    /// Payments by state, of all instances together; absent while the journal cannot be read.
    pub payments: Option<PaymentCounts>,
    /// Event streams that are open.
    pub subscribers: Option<u64>,
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
    /// Words of the gateway that did not agree with the record of their payment.
    pub contradictions: u64,
}
