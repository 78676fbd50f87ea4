//! How the windows of a budget stand, for operators.

/// One window, for the status page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowStatus {
    /// The command, or `*` where all commands share one window.
    pub command: String,
    /// Whether anything was counted in it since the start.
    pub was_used: bool,
    /// Points that it may hold.
    pub capacity_points: u64,
    /// Points that it holds.
    pub used_points: u64,
    /// Those of them whose commands have not ended.
    pub in_flight_points: u64,
    /// Milliseconds for which a `ratelimit` of the gateway keeps it closed; 0 where it is open.
    pub closed_for_ms: u64,
    /// Whether it was closed by a `ratelimit` and no command was answered since: the next one is sent alone, and the
    /// others wait for its answer.
    pub probing: bool,
    pub waiting_payments: usize,
    pub waiting_callers: usize,
    pub waiting_refreshes: usize,
}
