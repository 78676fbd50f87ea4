//! What was spent, as the snapshot file holds it. Pure, free of clocks and disks.
//!
//! A file is one line of JSON that says what every window held at one moment. It holds ages and not instants, because
//! monotonic clocks start anew with a process. The time since that moment is measured by the machine's time since its start,
//! which never steps; after a restart of the machine by the wall clock.
//!
//! Payments are dated by the wall clock, which may have been set since. So the file also says by how much that clock was ahead
//! of the machine's time while they were sent; where it was set meanwhile, the least of it, which makes payments look younger
//! than they are and never older.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::CounterScope;
use super::window::{Remaining, Spent};

/// The name under which the one window of [`CounterScope::Instance`] is shown and saved. No command can be named so.
pub(super) const ALL_COMMANDS: &str = "*";

/// The one version of the file that is read.
const VERSION: u32 = 3;

/// For how long a setting of the wall clock is remembered, in milliseconds: 10 minutes, much longer than any window.
const DRIFT_KEPT_MS: u64 = 600_000;

/// What one instance had spent at some instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// What shared a window then.
    pub scope: CounterScope,
    /// By command; windows that hold nothing are left out.
    pub windows: BTreeMap<String, Spent>,
}

impl Spending {
    /// Adds what another ledger has spent, as if one had spent both.
    pub(super) fn add(&mut self, other: Self) {
        for (command, Spent { in_flight, ended, closed_for_ms }) in other.windows {
            let known = self.windows.entry(command).or_default();
            known.in_flight = known.in_flight.saturating_add(in_flight);
            known.ended.extend(ended);
            // The oldest first.
            known.ended.sort_by_key(|(_, age_ms)| std::cmp::Reverse(*age_ms));
            known.closed_for_ms = known.closed_for_ms.max(closed_for_ms);
        }
    }
}

/// What one instance's owner leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// What shared a window there.
    pub scope: CounterScope,
    /// By command; windows that hold nothing are left out.
    pub windows: BTreeMap<String, Remaining>,
}

/// Payments that an earlier owner sent and that the gateway may still count, as the journal has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SentPayments {
    /// How long ago each exchange ended.
    pub ended: Vec<Duration>,
    /// How many have no end yet.
    pub in_flight: u64,
}

/// One moment by the machine's clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Which start of the machine `boot_ms` is counted from; none where the system does not say.
    pub boot_id: Option<Arc<str>>,
    /// Milliseconds since the machine started, awake or not. Never steps.
    pub boot_ms: u64,
    /// Milliseconds since 1970 by the wall clock, which may step.
    pub wall_ms: i64,
}

impl Moment {
    fn ahead_ms(&self) -> i64 {
        self.wall_ms.saturating_sub_unsigned(self.boot_ms)
    }
}

/// A payment that the gateway may have counted, dated by the wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The instance it was sent to.
    pub instance: String,
    /// When its exchange ended, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What every instance had spent, and when that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// Whether nothing was sent after it: it was written at an orderly end.
    clean: bool,
    boot_id: Option<Arc<str>>,
    boot_ms: u64,
    wall_ms: i64,
    /// The least by which the wall clock was ahead of `boot_ms` lately.
    wall_ahead_ms: i64,
    instances: BTreeMap<String, Spending>,
}

impl Snapshot {
    pub(super) fn new(clean: bool, now: &Moment, drift: &Drift, instances: BTreeMap<String, Spending>) -> Self {
        let Moment { boot_id, boot_ms, wall_ms } = now.clone();
        let wall_ahead_ms = drift.least().unwrap_or_else(|| now.ahead_ms());
        Self { version: VERSION, clean, boot_id, boot_ms, wall_ms, wall_ahead_ms, instances }
    }

    /// By instance. One that is not there has spent nothing.
    #[must_use]
    pub fn instances(&self) -> &BTreeMap<String, Spending> {
        &self.instances
    }

    /// Whether nothing was sent after it.
    pub(super) fn is_clean(&self) -> bool {
        self.clean
    }

    /// How long before `now` it was told; none where the system does not say whether it started again since. By the
    /// wall clock no time has passed where that went back.
    pub(super) fn away(&self, now: &Moment) -> Option<Duration> {
        let (then, since) = (self.boot_id.as_ref()?, now.boot_id.as_ref()?);
        let ms = if then == since {
            now.boot_ms.saturating_sub(self.boot_ms)
        } else {
            u64::try_from(now.wall_ms.saturating_sub(self.wall_ms)).unwrap_or_default()
        };
        Some(Duration::from_millis(ms))
    }

    /// By how much the wall clock was ahead of the machine's time when payments were sent, if that was since the machine's
    /// last start.
    pub(super) fn wall_ahead_ms(&self, now: &Moment) -> Option<i64> {
        let same_boot = self.boot_id.is_some() && self.boot_id == now.boot_id;
        same_boot.then_some(self.wall_ahead_ms)
    }

    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// The error is a sentence for the log.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let reason = |fault: serde_json::Error| fault.to_string();
        let Version { version } = serde_json::from_slice(bytes).map_err(reason)?;
        if version != VERSION {
            return Err(format!("version {version} is not known"));
        }
        serde_json::from_slice(bytes).map_err(reason)
    }
}

/// When payments were sent that the wall clock dates, seen from one start.
#[derive(Debug)]
pub(super) struct Dating<'a> {
    now: &'a Moment,
    wall_ahead_ms: Option<i64>,
}

impl<'a> Dating<'a> {
    pub(super) fn new(now: &'a Moment, saved: Option<&Snapshot>) -> Self {
        Self { now, wall_ahead_ms: saved.and_then(|saved| saved.wall_ahead_ms(now)) }
    }

    /// How long ago it was at `at_ms`.
    pub(super) fn age(&self, at_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.reference_ms().saturating_sub(at_ms)).unwrap_or_default())
    }

    /// The date of what was sent `ago`.
    pub(super) fn date_ms(&self, ago: Duration) -> i64 {
        self.reference_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
    }

    /// What the clock that dated the payments would show now, had it not been set since.
    fn reference_ms(&self) -> i64 {
        self.wall_ahead_ms.map_or(self.now.wall_ms, |ahead_ms| ahead_ms.saturating_add_unsigned(self.now.boot_ms))
    }
}

/// By how much the wall clock was ahead of the machine's time, over the last minutes.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// When it was seen and how far, both ascending: what is no less than a later one is of no use.
    seen: VecDeque<(u64, i64)>,
}

impl Drift {
    /// Begins with what an earlier process of the same start of the machine has seen.
    pub(super) fn begin(now: &Moment, saved: Option<&Snapshot>) -> Self {
        let earlier = saved.and_then(|saved| saved.wall_ahead_ms(now));
        let mut drift = Self { seen: earlier.map(|ahead_ms| (now.boot_ms, ahead_ms)).into_iter().collect() };
        drift.note(now);
        drift
    }

    pub(super) fn note(&mut self, now: &Moment) {
        let horizon = now.boot_ms.saturating_sub(DRIFT_KEPT_MS);
        while self.seen.pop_front_if(|(at_ms, _)| *at_ms < horizon).is_some() {}
        while self.seen.pop_back_if(|(_, ahead_ms)| *ahead_ms >= now.ahead_ms()).is_some() {}
        self.seen.push_back((now.boot_ms, now.ahead_ms()));
    }

    pub(super) fn least(&self) -> Option<i64> {
        self.seen.front().map(|(_, ahead_ms)| *ahead_ms)
    }
}

#[cfg(test)]
mod tests;
