//! What one owner of an instance leaves to the next: the log, and what its matcher knows.
//!
//! Times are told in ages at the moment of the export, in whole microseconds, since no clock is shared. The new owner
//! knows only that at most [`Away::at_most`] passed since, so each age becomes an interval of its own clock.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::entry::{Epoch, Event};
use super::payload::Payload;

/// The newest entries of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedLog {
    pub epoch: Epoch,
    /// The offset of the newest entry, whether or not it is among the entries.
    pub newest: u64,
    /// Offsets without holes up to the newest.
    pub entries: Vec<(u64, Event)>,
}

/// What the matcher knows at one moment. For the new owner the links of the old are closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Everything before was certainly received, or is logged as a gap.
    pub(super) covered_us: u64,
    pub(super) payloads: Vec<CarriedPayload>,
    /// Frames that may be new or copies, oldest first.
    pub(super) held: Vec<CarriedFrame>,
    /// When a payload was last forgotten too early.
    pub(super) forgotten_us: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CarriedPayload {
    pub(super) payload: Payload,
    pub(super) forgiven: u64,
    pub(super) occurrences: Vec<CarriedOccurrence>,
    /// Of links of which frames are held.
    pub(super) links: Vec<CarriedProgress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CarriedOccurrence {
    pub(super) at_us: u64,
    pub(super) earliest_us: u64,
    pub(super) by_newcomer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CarriedProgress {
    pub(super) link: u64,
    pub(super) since_us: u64,
    pub(super) frames: u64,
    pub(super) least_missed: u64,
    pub(super) most_missed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CarriedFrame {
    /// Its place among the payloads.
    pub(super) payload: usize,
    pub(super) link: u64,
    pub(super) at_us: u64,
    pub(super) earliest_us: u64,
    pub(super) frames: u64,
    #[serde(with = "super::timestamp")]
    pub(super) received_at: Timestamp,
}

/// What is known of an owner that handed nothing over: ages by the clock of who kept it, since the clocks of two owners differ.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Until when it received everything and logged it.
    pub covered_ago: Option<Duration>,
    /// Since when an entry has been in its log, by offset. It came before that.
    pub logged_ago: HashMap<u64, Duration>,
}

/// How an age at the export is read by the new owner's clock.
#[derive(Debug, Clone, Copy)]
pub struct Away {
    /// When what was exported has been received.
    pub now: Instant,
    /// The most that can have passed since the export.
    pub at_most: Duration,
}

impl Away {
    /// The latest instant that an age can mean; the beginning of the clock where it lies before that.
    pub(super) fn latest(self, age_us: u64) -> Instant {
        self.latest_before(Duration::from_micros(age_us))
    }

    /// The earliest instant that an age can mean.
    pub(super) fn earliest(self, age_us: u64) -> Instant {
        self.latest_before(Duration::from_micros(age_us).saturating_add(self.at_most))
    }

    /// The instant so long ago; the beginning of the clock where it lies before that.
    pub(super) fn latest_before(self, ago: Duration) -> Instant {
        // A machine that has just started has no instants that are older.
        let mut halves = std::iter::successors(Some(ago), |ago| (!ago.is_zero()).then_some(*ago / 2));
        halves.find_map(|ago| self.now.checked_sub(ago)).unwrap_or(self.now)
    }
}
