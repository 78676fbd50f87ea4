//! The trail of a process: a line for each command, written to a file just before the command itself.
//!
//! Whoever kills a process leaves it no time to say what it spent. So the points of a command are told to the system
//! before its first byte can leave: one short `write`, not synced, since what the system holds survives any end of the
//! process, and losing power costs more time than a window lasts. A start then counts exactly what was sent.
//!
//! What it refuses to do: stop anybody from selling. A line that cannot be written is said once and forgotten.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::spending::{Line, unix_ms};

/// The most that one file may grow to if it cannot be begun anew: tens of thousands of commands, far more than a window
/// can hold. What comes after it is not written down.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The file that is written to now. All ledgers of a process share one.
#[derive(Debug, Default)]
pub(super) struct Trail {
    state: Mutex<State>,
    /// So that a disk that fails is said once.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    bytes: u64,
}

impl Trail {
    /// Goes on in `file`, which is open for appending.
    pub(super) fn turn_to(&self, file: File) {
        *self.state() = State { file: Some(file), bytes: 0 };
        self.failing.store(false, Ordering::Relaxed);
    }

    /// Writes a line in one piece. Does nothing before the first [`turn_to`](Self::turn_to).
    pub(super) fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let State { file: Some(file), bytes } = &mut *state else { return Ok(()) };
        let grown = bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        if grown > MAX_BYTES {
            return Err(io::Error::other("the file has grown too long"));
        }
        *bytes = grown;
        file.write_all(line)
    }

    fn note(&self, line: &Line) {
        let written = line.encode().map_err(io::Error::other).and_then(|line| self.append(&line));
        if let Err(fault) = written
            && !self.failing.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%fault, "what is being spent cannot be written down");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One ledger's place in the trail; none until it is given one.
#[derive(Debug, Default)]
pub(super) struct Scribe {
    place: OnceLock<Place>,
}

#[derive(Debug)]
struct Place {
    instance: String,
    trail: Arc<Trail>,
}

impl Scribe {
    /// Notes from now on what is spent by `instance`. Once for all: a second call changes nothing.
    pub(super) fn begin(&self, instance: &str, trail: &Arc<Trail>) {
        self.place.get_or_init(|| Place { instance: instance.to_owned(), trail: Arc::clone(trail) });
    }

    /// A command of so many points is about to be written.
    pub(super) fn spent(&self, window: &str, points: u64) {
        if let Some(Place { instance, trail }) = self.place.get() {
            trail.note(&Line::Spent { instance: instance.clone(), window: window.to_owned(), points });
        }
    }

    /// The gateway closed a window for `pause` from now.
    pub(super) fn closed(&self, window: &str, pause: Duration) {
        if let Some(Place { instance, trail }) = self.place.get() {
            let for_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            let (instance, window, at_ms) = (instance.clone(), window.to_owned(), unix_ms(SystemTime::now()));
            trail.note(&Line::Closed { instance, window, for_ms, at_ms });
        }
    }
}
