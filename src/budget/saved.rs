//! What was spent, carried over a restart: a small file, begun anew each second, added to before each command is written,
//! and counted at start.
//!
//! Without it a bridge that restarts would take its windows for empty while the gateway still counts what the earlier
//! process sent. How it is read, always on the safe side of what is known:
//!
//! - *Absent*: the first start here, so nothing was spent. The file is written before anything is, so an earlier
//!   process would have left one.
//! - *Unreadable*, or of an unknown version: something was spent and nobody knows what, so every window counts as spent
//!   a moment ago. That costs one window; a wrong guess would cost refused payments.
//! - *In flight when the process ended*: counted as ended at the start that reads it.
//!
//! A new file is first added to and then finished: from the moment at which what all windows hold is gathered, each
//! command is in it already. It replaces the old one by renaming, so a killed process leaves at least one that is whole.
//! Nothing is synced: losing power costs more time than a window lasts, and half a file is an unreadable one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::Ledger;
use super::spending::{Line, Saved};
use super::trail::Trail;

/// How often the file is begun anew while anything is spent, so that it stays short and little is taken from the wall
/// clock. Also how soon a disk that failed is tried again.
pub const SAVE_EVERY: Duration = Duration::from_secs(1);

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

/// Counts what the file at `path` says was spent, and leaves word there of all that is spent from now on. Blocks for two
/// small files; call it before anything is asked, and [`Keeper::keep`] what it gives.
pub fn begin(path: PathBuf, ledgers: BTreeMap<String, Ledger>) -> (Found, Keeper) {
    let found = restore(&path, &ledgers);
    let trail = Arc::new(Trail::default());
    for (instance, ledger) in &ledgers {
        ledger.leave(instance, &trail);
    }
    let mut keeper = Keeper { path, ledgers, trail, says_nothing: false, failing: false };
    let begun = keeper.begin_anew();
    keeper.say(begun);
    (found, keeper)
}

fn restore(path: &Path, ledgers: &BTreeMap<String, Ledger>) -> Found {
    let read = match (read(path), read(&begun(path))) {
        (Ok(None), Ok(None)) => return Found::Absent,
        (Ok(finished), Ok(begun)) => Saved::read(&finished.unwrap_or_default(), &begun.unwrap_or_default()),
        (Err(fault), _) | (_, Err(fault)) => Err(fault.to_string()),
    };
    match read {
        Ok(saved) => {
            let downtime = saved.downtime(SystemTime::now());
            for (instance, spending) in saved.instances() {
                if let Some(ledger) = ledgers.get(instance) {
                    ledger.restore(spending, downtime);
                }
            }
            Found::Counted
        }
        Err(reason) => {
            ledgers.values().for_each(Ledger::assume_spent);
            Found::Unreadable(reason)
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The file that is not finished yet.
fn begun(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

/// Whoever begins the file anew.
#[derive(Debug)]
#[must_use = "what is not kept grows for ever"]
pub struct Keeper {
    path: PathBuf,
    ledgers: BTreeMap<String, Ledger>,
    trail: Arc<Trail>,
    /// Whether the file on disk says that nothing is spent, which stays true by itself.
    says_nothing: bool,
    failing: bool,
}

impl Keeper {
    /// Begins the file anew each second while anything is spent, and a last time when `stop` comes. Then it ends. Let
    /// `stop` come after the last exchange, so that nothing is in flight any more.
    ///
    /// A file that cannot be written stops nobody from selling: it is logged once, and tried again each second.
    pub async fn keep(mut self, stop: impl Future<Output = ()>) {
        let mut ticks = interval(SAVE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        let mut stopped = false;
        while !stopped {
            tokio::select! {
                () = &mut stop => stopped = true,
                _ = ticks.tick() => {}
            }
            let blocking = tokio::task::spawn_blocking(move || {
                let begun = self.begin_anew();
                self.say(begun);
                self
            });
            match blocking.await {
                Ok(keeper) => self = keeper,
                // The runtime is going away, and everything that spends with it.
                Err(_) => return,
            }
        }
    }

    /// Blocks for one small file.
    fn begin_anew(&mut self) -> io::Result<()> {
        if self.says_nothing && self.spends_nothing() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let begun = begun(&self.path);
        let _ = fs::remove_file(&begun);
        self.trail.turn_to(File::options().append(true).create_new(true).mode(0o600).open(&begun)?);
        let spent = self.ledgers.iter().map(|(instance, ledger)| (instance.clone(), ledger.spent()));
        let saved = Saved::new(spent.collect(), SystemTime::now());
        let nothing = saved.instances().values().all(|spending| spending.windows.is_empty());
        self.trail.append(&Line::Saved(saved).encode()?)?;
        fs::rename(&begun, &self.path)?;
        self.says_nothing = nothing;
        Ok(())
    }

    fn spends_nothing(&self) -> bool {
        self.ledgers.values().all(|ledger| ledger.spent().windows.is_empty())
    }

    fn say(&mut self, begun: io::Result<()>) {
        match begun {
            Ok(()) => self.failing = false,
            Err(fault) if !self.failing => {
                tracing::warn!(path = %self.path.display(), %fault, "what was spent cannot be saved");
                self.failing = true;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
