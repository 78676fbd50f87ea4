//! The bridge's status as it is answered: shards, links, budgets, copies and payments by state.
//!
//! The names of the schemas are those of the document, and do not change.

use serde::Serialize;
use utoipa::ToSchema;

use crate::bridge::status::{BridgeStatus, CacheStatus, InstanceStatus, PaymentCounts};
use crate::budget::WindowStatus;
use crate::gateway::{LinkStatus, ShardStatus};

/// The bridge, or what a token sees of it that may not use all of its instances.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BridgeStatus)]
pub struct BridgeView {
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// How long it has been running.
    uptime_seconds: u64,
    /// `serving`, or `draining` once it was told to stop.
    #[schema(example = "serving")]
    state: &'static str,
    /// Whether the token may use every instance. Where it may not, what is told of all instances together is left out:
    /// `cache`, `payments` and `subscribers`.
    whole: bool,
    /// Each instance that the token may use, in order of name.
    instances: Vec<InstanceView>,
    /// Copies of replies, of all instances together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cache: Option<CacheView>,
    /// Payments by state, of all instances together; absent while the journal cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payments: Option<PaymentCountsView>,
    /// Event streams that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subscribers: Option<u64>,
}

/// One instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceStatus)]
pub struct InstanceView {
    /// Its name.
    #[schema(example = "demo")]
    instance: String,
    /// Commands waiting for a link.
    waiting: usize,
    /// The gateway's shards as this instance sees them, each with its links.
    shards: Vec<ShardView>,
    /// Its budget, one window for each command, or one named `*` where all commands share one.
    budgets: Vec<WindowView>,
    /// Words of the gateway since the start that did not agree with the record of their payment. Each is in
    /// `contradictions` of that payment.
    contradictions: u64,
}

/// Copies of replies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheStatus)]
pub struct CacheView {
    /// How many there are.
    copies: u64,
    /// How many bytes they take, roughly.
    bytes: u64,
}

/// How many payments are in each state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PaymentCounts)]
pub struct PaymentCountsView {
    /// Their key is taken, and nothing was sent.
    reserved: u64,
    /// Recorded, and possibly on their way.
    dispatching: u64,
    /// Confirmed by the gateway.
    booked: u64,
    /// Proven not to be booked.
    released: u64,
    /// Sent, and nothing tells what became of them: a person must settle them.
    unknown: u64,
    /// Settled by a person.
    settled: u64,
    /// Their record cannot be read: a person must settle them.
    unreadable: u64,
}

/// One shard as one instance's pool sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ShardStatus)]
pub struct ShardView {
    /// Its name.
    shard: String,
    /// Whether the last attempt to connect succeeded.
    good: bool,
    /// Whether a connection was lost and none has been opened since: without links, nobody knows whether it is there.
    in_doubt: bool,
    /// Taken out by hand.
    cordoned: bool,
    /// Failed attempts in a row.
    failures: u32,
    /// Smoothed round trip in microseconds.
    round_trip_us: Option<u64>,
    /// Why the last connection failed or ended.
    last_fault: Option<String>,
    /// Its connections.
    links: Vec<LinkView>,
}

/// One connection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LinkStatus)]
pub struct LinkView {
    /// Its generation.
    link: u64,
    /// `free`, `busy` or `set-aside`.
    state: &'static str,
    /// How long it has been open.
    open_seconds: u64,
}

/// One window, for the status page.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WindowStatus)]
pub struct WindowView {
    /// The command, or `*` where all commands share one window.
    command: String,
    /// Points that it may hold.
    capacity_points: u64,
    /// Points that it holds.
    used_points: u64,
    /// Those of them whose commands have not ended.
    in_flight_points: u64,
    /// Milliseconds for which a `ratelimit` of the gateway keeps it closed; 0 where it is open.
    closed_for_ms: u64,
    /// Whether it was closed by a `ratelimit` and no command was answered since: the next one is sent alone, and the
    /// others wait for its answer.
    probing: bool,
    /// Payments that wait.
    waiting_payments: usize,
    /// Callers' asks that wait.
    waiting_callers: usize,
    /// Refreshes that wait.
    waiting_refreshes: usize,
}

impl From<BridgeStatus> for BridgeView {
    fn from(status: BridgeStatus) -> Self {
        let BridgeStatus { version, uptime_seconds, state, whole, instances, cache, payments, subscribers } = status;
        Self {
            version,
            uptime_seconds,
            state,
            whole,
            instances: instances.into_iter().map(Into::into).collect(),
            cache: cache.map(Into::into),
            payments: payments.map(Into::into),
            subscribers,
        }
    }
}

impl From<InstanceStatus> for InstanceView {
    fn from(status: InstanceStatus) -> Self {
        let InstanceStatus { instance, waiting, shards, budgets, contradictions, in_use: _ } = status;
        Self {
            instance,
            waiting,
            shards: shards.into_iter().map(Into::into).collect(),
            budgets: budgets.into_iter().map(Into::into).collect(),
            contradictions,
        }
    }
}

impl From<CacheStatus> for CacheView {
    fn from(status: CacheStatus) -> Self {
        let CacheStatus { copies, bytes } = status;
        Self { copies, bytes }
    }
}

impl From<PaymentCounts> for PaymentCountsView {
    fn from(status: PaymentCounts) -> Self {
        let PaymentCounts { reserved, dispatching, booked, released, unknown, settled, unreadable } = status;
        Self { reserved, dispatching, booked, released, unknown, settled, unreadable }
    }
}

impl From<ShardStatus> for ShardView {
    fn from(status: ShardStatus) -> Self {
        let ShardStatus { shard, good, in_doubt, cordoned, failures, round_trip_us, last_fault, links } = status;
        Self {
            shard,
            good,
            in_doubt,
            cordoned,
            failures,
            round_trip_us,
            last_fault,
            links: links.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<LinkStatus> for LinkView {
    fn from(status: LinkStatus) -> Self {
        let LinkStatus { link, state, open_seconds } = status;
        Self { link, state, open_seconds }
    }
}

impl From<WindowStatus> for WindowView {
    fn from(status: WindowStatus) -> Self {
        let WindowStatus {
            command,
            capacity_points,
            used_points,
            in_flight_points,
            closed_for_ms,
            probing,
            waiting_payments,
            waiting_callers,
            waiting_refreshes,
            was_used: _,
        } = status;
        Self {
            command,
            capacity_points,
            used_points,
            in_flight_points,
            closed_for_ms,
            probing,
            waiting_payments,
            waiting_callers,
            waiting_refreshes,
        }
    }
}
