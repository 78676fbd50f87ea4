//! The bridge's status as it is answered: shards, links, budgets, copies and payments by state.
//!
//! The names of the schemas are those of the document, and do not change.

use serde::Serialize;
use utoipa::ToSchema;

use super::cluster::ClusterView;
use super::payment::time;
use crate::bridge::access::{AccessDenied, Denial};
use crate::bridge::attention::{self, Finding, Severity};
use crate::bridge::status::{
    BridgeStatus, CacheStatus, CallerStatus, DiskStatus, InstanceStatus, PaymentCounts, ServiceState,
};
use crate::budget::WindowStatus;
use crate::clock::unix_ms_at;
use crate::gateway::{LinkState, LinkStatus, ShardStatus};
use crate::http::problem::code::ProblemCode;

/// The bridge, or what a token sees of it that may not use all of its instances.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BridgeStatus)]
pub struct BridgeView {
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// How long it has been running.
    uptime_seconds: u64,
    /// Whether it accepts requests.
    state: ServiceStateView,
    /// Whether the token may use every instance. Where it may not, what is told of all instances together is left out:
    /// `cache`, `payments` and `subscribers`.
    whole: bool,
    /// What needs attention, the gravest first; empty where all is well.
    attention: Vec<AttentionView>,
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
    /// What the bridge writes to, and the wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    disk: Option<DiskView>,
    /// Callers that were refused; absent where the token may not use every instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    callers: Option<CallersView>,
    /// Event streams that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subscribers: Option<u64>,
    /// The replicas that serve together, as this one knows them; absent where this bridge is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cluster: Option<ClusterView>,
}

/// Whether the bridge accepts requests.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceState)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceStateView {
    /// It does.
    Serving,
    /// It was told to stop.
    Draining,
}

/// How grave it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Severity)]
#[serde(rename_all = "kebab-case")]
pub enum SeverityView {
    /// Sales or money are lost: somebody must act now.
    Critical,
    /// It will be, or something is worse than it could be.
    Warning,
    /// As it was ordered; to be remembered.
    Info,
}

/// What the gateway does not accept of an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Denial)]
#[serde(rename_all = "kebab-case")]
pub enum DenialView {
    /// The API key.
    Key,
    /// The licence.
    Licence,
}

/// What a connection is doing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LinkState)]
#[serde(rename_all = "kebab-case")]
pub enum LinkStateView {
    /// Waits for a command.
    Free,
    /// Carries a command.
    Busy,
    /// Carries no more commands: a late reply is awaited, or it is about to be closed.
    SetAside,
}

/// One thing that needs attention.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attention)]
pub struct AttentionView {
    /// What kind of thing it is, as in the metric `concertpos_bridge_attention`.
    #[schema(example = "no-links")]
    code: &'static str,
    /// How grave it is.
    severity: SeverityView,
    /// The instance that it concerns; null where it concerns the whole bridge.
    instance: Option<String>,
    /// The shard or the caller, where it concerns one.
    subject: Option<String>,
    /// What is wrong and what to do, for people.
    words: String,
    /// Since when, where that is known.
    #[schema(format = DateTime)]
    since: Option<String>,
}

/// What the bridge writes to, and the wall clock.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DiskStatus)]
pub struct DiskView {
    /// Whether payments can be recorded.
    journal_available: bool,
    /// Whether the journal was found to be damaged.
    journal_damaged: bool,
    /// Why the journal cannot be written.
    journal_fault: Option<String>,
    /// Since when.
    #[schema(format = DateTime)]
    journal_fault_since: Option<String>,
    /// Milliseconds of the slowest write of the journal within the last minute or under way, where one is slow.
    slow_commit_ms: Option<u64>,
    /// Bytes that are left on the disk of the journal.
    free_bytes: Option<u64>,
    /// Why copies cannot be kept on disk.
    copies_fault: Option<String>,
    /// Since when.
    #[schema(format = DateTime)]
    copies_fault_since: Option<String>,
    /// Milliseconds by which the wall clock was changed within the last hour; negative: back.
    clock_step_ms: Option<i64>,
    /// When.
    #[schema(format = DateTime)]
    clock_step_at: Option<String>,
}

/// Callers that were refused within the last minute.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CallersStatus)]
pub struct CallersView {
    /// Connections that were not taken.
    turned_away: u64,
    /// Attempts to authenticate from addresses that are blocked.
    blocked_attempts: u64,
    /// Requests beyond a caller's own limits.
    limited: u64,
}

/// What the gateway does not accept of an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccessDenied)]
pub struct AccessDeniedView {
    /// What it does not accept.
    what: DenialView,
    /// The gateway's word, or `inactive` where the licence says so itself.
    #[schema(example = "api_key_mismatch")]
    word: String,
    /// The command that was refused.
    command: String,
    /// Since when.
    #[schema(format = DateTime)]
    since: String,
}

/// An instance's last minute.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastMinute)]
pub struct LastMinuteView {
    /// Sales that were booked.
    sales_booked: u64,
    /// Sales that were refused for no fault of their callers.
    sales_refused: u64,
    /// Why most of them were, as the code of a problem.
    #[schema(value_type = Option<ProblemCode>)]
    sales_refused_as: Option<&'static str>,
    /// Sales whose outcome became unknown.
    sales_unknown: u64,
    /// Sales that waited for points for a second or more.
    sales_waited: u64,
    /// Callers' commands other than sales that got no points.
    reads_refused: u64,
    /// Commands to the gateway that ended.
    commands: u64,
    /// Those of them that took a second or more, or got no reply.
    commands_slow: u64,
    /// Those of them that got no reply.
    commands_unanswered: u64,
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
    /// Since when it has no link in service; null where it has one.
    #[schema(format = DateTime)]
    without_link_since: Option<String>,
    /// What the gateway refuses of it; null where nothing is known to be refused.
    access_denied: Option<AccessDeniedView>,
    /// What happened within the last minute.
    last_minute: LastMinuteView,
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
    /// Why the last connection failed or ended; null once another was opened.
    last_fault: Option<String>,
    /// When it did.
    #[schema(format = DateTime)]
    last_fault_at: Option<String>,
    /// Its connections.
    links: Vec<LinkView>,
}

/// One connection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LinkStatus)]
pub struct LinkView {
    /// Its generation.
    link: u64,
    /// What it is doing.
    state: LinkStateView,
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
        let attention = attention::findings(&status).into_iter().map(Into::into).collect();
        let BridgeStatus {
            version,
            uptime_seconds,
            state,
            whole,
            instances,
            cache,
            payments,
            subscribers,
            disk,
            callers,
            cluster,
            ..
        } = status;
        Self {
            version,
            uptime_seconds,
            state: match state {
                ServiceState::Serving => ServiceStateView::Serving,
                ServiceState::Draining => ServiceStateView::Draining,
            },
            whole,
            attention,
            instances: instances.into_iter().map(Into::into).collect(),
            cache: cache.map(Into::into),
            payments: payments.map(Into::into),
            disk: disk.map(Into::into),
            callers: callers.map(Into::into),
            subscribers,
            cluster: cluster.map(Into::into),
        }
    }
}

impl From<InstanceStatus> for InstanceView {
    fn from(status: InstanceStatus) -> Self {
        let InstanceStatus { instance, waiting, shards, budgets, contradictions, unlinked_since_ms, denied, .. } =
            status;
        let InstanceStatus { sales, asks, exchanges, .. } = status;
        Self {
            without_link_since: unlinked_since_ms.map(time),
            access_denied: denied.map(Into::into),
            last_minute: LastMinuteView {
                sales_booked: sales.booked,
                sales_refused: sales.refused,
                sales_refused_as: sales.refused_as,
                sales_unknown: sales.unknown,
                sales_waited: asks.payments_waited,
                reads_refused: asks.callers_denied,
                commands: exchanges.ended,
                commands_slow: exchanges.slow,
                commands_unanswered: exchanges.unanswered,
            },
            instance,
            waiting,
            shards: shards.into_iter().map(Into::into).collect(),
            budgets: budgets.into_iter().map(Into::into).collect(),
            contradictions,
        }
    }
}

impl From<Finding> for AttentionView {
    fn from(finding: Finding) -> Self {
        let Finding { code, severity, instance, subject, words, since_ms } = finding;
        let severity = match severity {
            Severity::Critical => SeverityView::Critical,
            Severity::Warning => SeverityView::Warning,
            Severity::Info => SeverityView::Info,
        };
        Self { code, severity, instance, subject, words, since: since_ms.map(time) }
    }
}

impl From<AccessDenied> for AccessDeniedView {
    fn from(denied: AccessDenied) -> Self {
        let AccessDenied { denial, word, command, since } = denied;
        let what = match denial {
            Denial::Key => DenialView::Key,
            Denial::License => DenialView::Licence,
        };
        Self { what, word, command, since: time(unix_ms_at(since)) }
    }
}

impl From<DiskStatus> for DiskView {
    fn from(status: DiskStatus) -> Self {
        let DiskStatus { journal_available, journal_damaged, journal_fault, slow_commit_ms, free_bytes, .. } = status;
        let DiskStatus { journal_fault_since_ms, copies_fault, copies_fault_since_ms, .. } = status;
        let DiskStatus { clock_step_ms, clock_step_at_ms, .. } = status;
        Self {
            journal_available,
            journal_damaged,
            journal_fault,
            journal_fault_since: journal_fault_since_ms.map(time),
            slow_commit_ms,
            free_bytes,
            copies_fault,
            copies_fault_since: copies_fault_since_ms.map(time),
            clock_step_ms,
            clock_step_at: clock_step_at_ms.map(time),
        }
    }
}

impl From<CallerStatus> for CallersView {
    fn from(status: CallerStatus) -> Self {
        let CallerStatus { turned_away, blocked_attempts, limited, .. } = status;
        Self { turned_away, blocked_attempts, limited: limited.iter().map(|(_, refused)| refused).sum() }
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
        let last_fault_at = last_fault.as_ref().map(|fault| time(unix_ms_at(fault.at)));
        Self {
            shard,
            good,
            in_doubt,
            cordoned,
            failures,
            round_trip_us,
            last_fault: last_fault.map(|fault| fault.words),
            last_fault_at,
            links: links.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<LinkStatus> for LinkView {
    fn from(status: LinkStatus) -> Self {
        let LinkStatus { link, state, open_seconds } = status;
        let state = match state {
            LinkState::Free => LinkStateView::Free,
            LinkState::Busy => LinkStateView::Busy,
            LinkState::SetAside => LinkStateView::SetAside,
        };
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
