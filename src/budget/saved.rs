//! What was spent, carried over a restart: a small file, written at each change, each second and at drain, and counted
//! at start.
//!
//! Without it a bridge that restarts would take its windows for empty while the gateway still counts what the earlier
//! process sent. The file holds ages and not instants, because monotonic clocks start anew with a process; only the
//! time between writing and reading is taken from the wall clock. If that went back, no time is taken to have passed.
//!
//! How it is read, always on the safe side of what is known:
//!
//! - *Absent*: the first start here, so nothing was spent. The file is written before anything is, so an earlier
//!   process would have left one.
//! - *Unreadable*, or of an unknown version: something was spent and nobody knows what, so every window counts as spent
//!   a moment ago. That costs one window; a wrong guess would cost refused payments.
//! - *In flight when written*: counted as ended at the start that reads it.
//!
//! The file is replaced by renaming, so a killed process leaves the whole old or the whole new one, and nothing is
//! synced: losing power costs more time than a window lasts, and half a file is an unreadable one. What it cannot know
//! is the last moment of a process that was killed. Where that made the difference, the gateway says `ratelimit`,
//! which books nothing and closes the window for as long as it asks.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::window::Spent;
use super::{Ledger, Scope};

/// How often the file is written while anything is spent, so that little is taken from the wall clock.
pub const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How soon a change is written: what a killed process forgets.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The one version of the file there is.
const VERSION: u32 = 1;

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
}

/// The file: what every instance had spent, and when that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    version: u32,
    /// Milliseconds since 1970 by the wall clock.
    written_at_ms: u64,
    instances: BTreeMap<String, Spending>,
}

impl Saved {
    /// What `ledgers`, by instance, have spent at `now`.
    #[must_use]
    pub fn of(ledgers: &BTreeMap<String, Ledger>, now: SystemTime) -> Self {
        let instances = ledgers.iter().map(|(instance, ledger)| (instance.clone(), ledger.spent())).collect();
        Self { version: VERSION, written_at_ms: unix_ms(now), instances }
    }

    /// The file's bytes: JSON.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Reads the file's bytes. The error is a sentence for the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let saved: Self = serde_json::from_slice(bytes).map_err(|fault| fault.to_string())?;
        if saved.version != VERSION {
            return Err(format!("version {} is not known", saved.version));
        }
        Ok(saved)
    }

    /// Counts it all in `ledgers`, as of `now`. Instances that are not in the file have spent nothing.
    pub fn restore(&self, ledgers: &BTreeMap<String, Ledger>, now: SystemTime) {
        let downtime = Duration::from_millis(unix_ms(now).saturating_sub(self.written_at_ms));
        for (instance, ledger) in ledgers {
            if let Some(spending) = self.instances.get(instance) {
                ledger.restore(spending, downtime);
            }
        }
    }
}

/// How a start found the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There was none: nothing is spent.
    Absent,
    /// It was counted.
    Counted,
    /// It could not be read, for this reason: everything counts as spent just now.
    Unreadable(String),
}

/// Counts what the file at `path` says was spent. Blocks for one small file; call it before anything is asked.
#[must_use]
pub fn restore(path: &Path, ledgers: &BTreeMap<String, Ledger>) -> Found {
    let decoded = match fs::read(path) {
        Ok(bytes) => Saved::decode(&bytes),
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Found::Absent,
        Err(fault) => Err(fault.to_string()),
    };
    match decoded {
        Ok(saved) => {
            saved.restore(ledgers, SystemTime::now());
            Found::Counted
        }
        Err(reason) => {
            ledgers.values().for_each(Ledger::assume_spent);
            Found::Unreadable(reason)
        }
    }
}

/// Writes the file at `path`: at once, soon after each change, each second while anything is spent, and a last time
/// when `stop` comes. Then it ends. Let `stop` come after the last exchange, so that nothing is in flight any more.
///
/// A file that cannot be written stops nobody from selling: it is logged once, and tried again at the next look.
pub async fn keep(path: PathBuf, ledgers: BTreeMap<String, Ledger>, stop: impl Future<Output = ()>) {
    let mut ticks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    let mut writer = Writer { path, written: None, failing: false };
    loop {
        writer.save(&ledgers, SAVE_EVERY).await;
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => {}
        }
    }
    writer.save(&ledgers, Duration::ZERO).await;
}

/// What is known of the file on disk.
struct Writer {
    path: PathBuf,
    /// What it says apart from ages, and since when.
    written: Option<(Vec<Shape>, Instant)>,
    failing: bool,
}

/// What changes in a window when something happens in it, and not by itself: points in flight, and those that ended.
type Shape = (u64, u64, bool);

fn shapes(saved: &Saved) -> Vec<Shape> {
    let windows = saved.instances.values().flat_map(|spending| spending.windows.values());
    let shape =
        |spent: &Spent| (spent.in_flight, spent.ended.iter().map(|(points, _)| points).sum(), spent.closed_for_ms > 0);
    windows.map(shape).collect()
}

impl Writer {
    /// Writes what is spent if it changed, or if what is there is older than `most_age`. That nothing is spent stays
    /// true by itself.
    async fn save(&mut self, ledgers: &BTreeMap<String, Ledger>, most_age: Duration) {
        let saved = Saved::of(ledgers, SystemTime::now());
        let (now, shapes) = (Instant::now(), shapes(&saved));
        let is_good =
            |(known, at): &(Vec<Shape>, Instant)| *known == shapes && (now - *at < most_age || shapes.is_empty());
        if self.written.as_ref().is_some_and(is_good) {
            return;
        }
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || replace(&path, &saved)).await;
        match written.map_err(Error::other).flatten() {
            Ok(()) => {
                self.written = Some((shapes, now));
                self.failing = false;
            }
            Err(fault) if !self.failing => {
                tracing::warn!(path = %self.path.display(), %fault, "what was spent cannot be saved");
                self.failing = true;
            }
            Err(_) => {}
        }
    }
}

fn replace(path: &Path, saved: &Saved) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, saved.encode()?)?;
    fs::rename(&beside, path)
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
