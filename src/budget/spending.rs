//! What was spent, as a file tells it: pure, free of clocks and disks.
//!
//! A file is lines of JSON: one *saved*, which says what every window held, and a line for each command that was about
//! to be written, and each closing by the gateway, since. It holds ages and not instants, because monotonic clocks start
//! anew with a process. A last line without its end was cut off by the end of the process, and nothing of its command
//! left; any other line that cannot be read spoils the file.
//!
//! What it errs in, it errs on the safe side: a command that had its points when the file was begun and was written
//! after that is counted twice, for one window after the end of a process that was killed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Scope;
use super::window::Spent;

/// The name under which the one window of [`Scope::Instance`] is shown and saved. No command can be named so.
pub(super) const ALL_COMMANDS: &str = "*";

/// The one version of the file there is.
const VERSION: u32 = 2;

/// What one instance had spent at some instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// What shared a window then.
    pub scope: Scope,
    /// By command; windows that hold nothing are left out.
    pub windows: BTreeMap<String, Spent>,
}

impl Spending {
    /// How long after `downtime` the last of it still matters, if points are held for `hold`.
    pub(super) fn lapses_in(&self, hold: Duration, downtime: Duration) -> Duration {
        let left = |spent: &Spent| {
            let in_flight = (spent.in_flight > 0).then_some(hold);
            let ages = spent.ended.iter().map(|&(_, age_ms)| Duration::from_millis(age_ms));
            let ended = ages.map(|age| hold.saturating_sub(age.saturating_add(downtime)));
            let closed = Duration::from_millis(spent.closed_for_ms).saturating_sub(downtime);
            ended.chain(in_flight).fold(closed, Duration::max)
        };
        self.windows.values().map(left).max().unwrap_or_default()
    }

    fn window(&mut self, name: String) -> Option<&mut Spent> {
        let fits = (name == ALL_COMMANDS) == (self.scope == Scope::Instance);
        fits.then(|| self.windows.entry(name).or_default())
    }
}

/// What every instance had spent, and when that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    version: u32,
    /// Milliseconds since 1970 by the wall clock.
    written_at_ms: u64,
    instances: BTreeMap<String, Spending>,
}

impl Saved {
    pub(super) fn new(instances: BTreeMap<String, Spending>, now: SystemTime) -> Self {
        Self { version: VERSION, written_at_ms: unix_ms(now), instances }
    }

    /// By instance. One that is not there has spent nothing.
    #[must_use]
    pub fn instances(&self) -> &BTreeMap<String, Spending> {
        &self.instances
    }

    /// How long before `now` it was told. If the wall clock went back, no time is taken to have passed.
    #[must_use]
    pub fn downtime(&self, now: SystemTime) -> Duration {
        Duration::from_millis(unix_ms(now).saturating_sub(self.written_at_ms))
    }

    /// What the files of an earlier process say: the last that was finished, and the one that was begun after it, if
    /// any. The error is a sentence for the log.
    pub(super) fn read(finished: &[u8], begun: &[u8]) -> Result<Self, String> {
        let begun = Line::decode_all(begun)?;
        if begun.iter().any(|line| matches!(line, Line::Saved(_))) {
            // It holds what was in the other one.
            return Self::of(begun);
        }
        let mut lines = Line::decode_all(finished)?;
        lines.extend(begun);
        Self::of(lines)
    }

    fn of(mut lines: Vec<Line>) -> Result<Self, String> {
        let Some(place) = lines.iter().position(|line| matches!(line, Line::Saved(_))) else {
            return Err("it does not say what was spent before it".to_owned());
        };
        let Line::Saved(mut saved) = lines.swap_remove(place) else { return Err("it contradicts itself".to_owned()) };
        if saved.version != VERSION {
            return Err(format!("version {} is not known", saved.version));
        }
        for line in lines {
            saved.add(line).ok_or("it was written by bridges that counted differently")?;
        }
        Ok(saved)
    }

    fn add(&mut self, line: Line) -> Option<()> {
        match line {
            Line::Spent { instance, window, points } => {
                let window = self.instances.get_mut(&instance)?.window(window)?;
                // Until when it was in flight is not known.
                window.in_flight = window.in_flight.saturating_add(points);
            }
            Line::Closed { instance, window, for_ms, at_ms } => {
                let since = at_ms.saturating_sub(self.written_at_ms);
                let window = self.instances.get_mut(&instance)?.window(window)?;
                window.closed_for_ms = window.closed_for_ms.max(for_ms.saturating_add(since));
            }
            Line::Saved(_) => return None,
        }
        Some(())
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Line {
    /// What every instance had spent.
    Saved(Saved),
    /// A command is about to be written.
    Spent { instance: String, window: String, points: u64 },
    /// The gateway closed a window.
    Closed { instance: String, window: String, for_ms: u64, at_ms: u64 },
}

impl Line {
    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines = bytes.get(..whole).unwrap_or_default().split(|&byte| byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|fault| fault.to_string())).collect()
    }
}

pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
