//! The broadcasts: one log of what an instance's gateway broadcast, and everybody who listens to it.
//!
//! The forces: a broadcast has no id and no second chance at the gateway, so here each becomes one entry with an offset
//! that a listener can resume after; thousands listen, so an entry is kept and encoded once and a listener is nothing
//! but a position in the log; and a listener that does not keep up must cost the others nothing, so there is no queue
//! of its own that could grow. What the log no longer holds is said, never skipped in silence.
//!
//! Which copies are one broadcast is decided by [`matcher`], which knows no log; the log takes what is decided. This
//! room knows neither sockets nor formats.

pub mod coverage;
mod entry;
mod log;
pub mod matcher;
mod subscription;
#[cfg(test)]
mod tests;
mod word;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

pub use entry::{Broadcast, Entry, Epoch, Event, Form, Gap, Id, Reason};
use log::Log;
pub use subscription::{End, Item, Subscription};

/// The settings of the section `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many entries an instance's log holds for those who resume.
    pub history: usize,
    /// How long a stream may be silent before it says that it is alive.
    pub heartbeat: Duration,
    /// The most by which shards are taken to differ in delivering a broadcast.
    pub skew: Duration,
    /// How many may listen at once, of all instances together.
    pub max_subscribers: usize,
    /// How many of them one token may have at one instance.
    pub max_listeners: usize,
    /// When a native connection hears broadcasts.
    pub native: Native,
}

/// When a native connection hears broadcasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Native {
    /// Once it has shown a key.
    #[default]
    AfterKey,
    /// From its beginning, as at the gateway itself.
    Open,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history: 1024,
            heartbeat: Duration::from_secs(15),
            skew: Duration::from_secs(2),
            max_subscribers: 20_000,
            max_listeners: 2000,
            native: Native::AfterKey,
        }
    }
}

/// Places for those who listen, shared by the hubs of all instances. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Seats {
    taken: Arc<AtomicUsize>,
    most: usize,
    /// The most that one listener may have at one broadcasts.
    each: usize,
}

impl Seats {
    /// Room for `most`, of which everybody may have `each` at each broadcasts.
    #[must_use]
    pub fn new(most: usize, each: usize) -> Self {
        Self { taken: Arc::default(), most, each }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Seat> {
        let one_more = |taken: usize| (taken < self.most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Seat(Arc::clone(&self.taken)))
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a listener begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since<'a> {
    /// With what comes from now on.
    Now,
    /// After the entry of this id, as the listener gave it.
    After(&'a str),
}

/// Why nobody may listen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All places are taken; nobody who has one loses it.
    #[error("as many listen as may")]
    Full,
    /// Whoever asks listens as often as one may.
    #[error("this token listens as often as one may")]
    Share,
    /// The bridge is going down.
    #[error("the bridge is shutting down")]
    Draining,
}

/// One instance's log and its listeners. Cheap to clone; all clones are one broadcasts.
#[derive(Debug, Clone)]
pub struct Broadcasts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seats: Seats,
    state: Mutex<State>,
    listeners: AtomicU64,
    /// Something was appended or the broadcasts was closed, and listeners are yet to be woken.
    news: Notify,
}

#[derive(Debug)]
struct State {
    log: Log,
    /// Who has heard everything and is to be woken at the next entry. Each stands here at most once.
    waiting: HashMap<u64, Waker>,
    /// How often each listens.
    callers: HashMap<Arc<str>, usize>,
    closed: bool,
}

impl State {
    /// One place more for `listener`, if it may have one; its name to be kept with the place.
    fn join(&mut self, listener: &str, most: usize) -> Option<Arc<str>> {
        let known = self.callers.get_key_value(listener).map(|(name, _)| Arc::clone(name));
        let name = known.unwrap_or_else(|| Arc::from(listener));
        let count = self.callers.entry(Arc::clone(&name)).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(name)
    }

    fn leave(&mut self, listener: &str) {
        if let Some(count) = self.callers.get_mut(listener) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(listener);
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is done under this lock cannot panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broadcasts {
    /// An empty log that begins `epoch`, keeps up to `history` entries, and takes places from `seats`.
    #[must_use]
    pub fn new(epoch: Epoch, history: usize, seats: Seats) -> Self {
        let log = Log::new(epoch, history);
        let state = State { log, waiting: HashMap::new(), callers: HashMap::new(), closed: false };
        let shared = Shared { seats, state: Mutex::new(state), listeners: AtomicU64::new(0), news: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Logs an event, unless the broadcasts is closed: then nobody is to hear of what the closing itself brings about. Returns at
    /// once: listeners are woken by [`Broadcasts::announce`].
    #[expect(clippy::must_use_candidate, reason = "few who publish care for the id")]
    pub fn publish(&self, event: Event) -> Id {
        let mut state = self.shared.state();
        if state.closed {
            return state.log.cursor();
        }
        let id = state.log.append(event);
        drop(state);
        self.shared.news.notify_one();
        id
    }

    /// The id of the newest entry: whoever resumes after it misses nothing from now on.
    #[must_use]
    pub fn cursor(&self) -> Id {
        self.shared.state().log.cursor()
    }

    /// Begins to listen. What is logged from this moment on is heard, and before it what the log still holds after
    /// `since`: no hole, no repeat. `listener` is who asks, by which its places are counted.
    pub fn subscribe(&self, listener: &str, since: Since<'_>) -> Result<Subscription, Refused> {
        let seat = self.shared.seats.take().ok_or(Refused::Full)?;
        let mut state = self.shared.state();
        if state.closed {
            return Err(Refused::Draining);
        }
        let listener = state.join(listener, self.shared.seats.each).ok_or(Refused::Share)?;
        let begins = match since {
            Since::Now => Some(state.log.cursor()),
            Since::After(text) => state.log.find(text),
        };
        let (cursor, reset) = (begins.unwrap_or_else(|| state.log.cursor()), begins.is_none());
        drop(state);
        let key = self.shared.listeners.fetch_add(1, Ordering::Relaxed);
        Ok(Subscription::new(Arc::clone(&self.shared), (key, listener), cursor, reset, seat))
    }

    /// How many listen, of all instances together.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.shared.seats.taken()
    }

    /// Has everybody who waits look again at what it listens for.
    pub fn wake(&self) {
        self.shared.news.notify_one();
    }

    /// Ends every subscription once it has heard what is logged, refuses new ones, and logs nothing more.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.news.notify_one();
    }

    /// Wakes those who wait whenever something was logged, until the broadcasts is closed. A task of its own, since whoever
    /// publishes must not wait until thousands are woken.
    pub async fn announce(&self) {
        loop {
            self.shared.news.notified().await;
            let (waiting, closed) = {
                let mut state = self.shared.state();
                (state.waiting.drain().map(|(_, waker)| waker).collect::<Vec<_>>(), state.closed)
            };
            for waker in waiting {
                waker.wake();
            }
            if closed {
                return;
            }
        }
    }
}
