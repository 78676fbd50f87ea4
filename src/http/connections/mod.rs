//! The register of callers' connections: how many there may be, and which one is closed when there are too many.
//!
//! A connection costs its peer nothing and the bridge an open file and some kilobytes, so a peer that opens many could
//! leave no room for others. The rules:
//!
//! - The head of a request must come within [`HEAD_TIMEOUT_S`] of its first byte, on a connection that is kept alive too.
//! - A connection without a request is closed after [`IDLE_TIMEOUT_S`].
//! - Where there is no room, a new connection evicts one without a request: the oldest anonymous one (`anonymous.rs`), else
//!   the oldest idle one of a caller. Where all have a request, the new one is refused.
//! - Anonymous connections may have three quarters of all room, and so may those of one caller. Beyond that a new one
//!   evicts one of the same kind.
//!
//! No request reads a clock or sets a timer: [`Connections::watch`] counts seconds and checks each connection about once a
//! second. It closes few at a time: thousands that are closed at once, and connect again at once, would delay all others.

mod anonymous;
mod bounded;
mod connection;
mod offers;
mod tracked_stream;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep};

pub(crate) use anonymous::Anonymous;
use anonymous::MAX_SEARCHED;
pub use bounded::{AHEAD, Bounded};
pub use connection::{Connection, RequestInProgress};
use connection::{Register, Timeouts};
pub use tracked_stream::TrackedStream;

use crate::telemetry::recent::Recent;

/// Checks a second at most, each of so large a part of the connections.
const CHECKS_A_SECOND: u32 = 100;

/// Connections that one check may close.
const MAX_CLOSED_AT_ONCE: usize = 2;

/// How long a request's head may take. It is closed within a second after that, unless many are overdue.
const HEAD_TIMEOUT_S: u32 = 5;

/// How long a connection is kept without a request. Longer than the server's own timeout, which closes connections more
/// gracefully but does not run while half a head has come.
const IDLE_TIMEOUT_S: u32 = 90;

/// All connections of callers.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    timeouts: Timeouts,
    /// The register's clock, from 1.
    second: AtomicU32,
    open: Mutex<Open>,
    /// Closed because a head did not come or the peer did not read.
    pub timed_out: Counter,
    /// Closed for another one.
    pub evicted: Counter,
    /// Not accepted.
    pub refused: Counter,
    /// Those of them of the last minute.
    pub refused_lately: Recent<1>,
}

#[derive(Debug, Default)]
struct Open {
    /// The last number that was given out.
    last: u64,
    anonymous: Anonymous<Arc<Connection>>,
    /// By number, so the first is the oldest.
    authenticated: BTreeMap<u64, (Arc<Connection>, Arc<str>)>,
    /// How many authenticated connections each caller has.
    callers: HashMap<Arc<str>, usize>,
    /// The last one that was checked of either kind.
    checked: [u64; 2],
}

impl Connections {
    /// Room for `max`. The timeouts are for a peer's reading of what is written, over HTTP and over other protocols.
    #[must_use]
    pub fn new(max: usize, write_timeout: Duration, upgraded_write_timeout: Duration) -> Self {
        let [write, upgraded_write] =
            [write_timeout, upgraded_write_timeout].map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        let timeouts = Timeouts { head: HEAD_TIMEOUT_S, idle: IDLE_TIMEOUT_S, write, upgraded_write };
        let [timed_out, evicted, refused] = [(); 3].map(|()| Counter::default());
        Self {
            max,
            timeouts,
            second: AtomicU32::new(1),
            open: Mutex::default(),
            timed_out,
            evicted,
            refused,
            refused_lately: Recent::default(),
        }
    }

    /// Registers a new connection, if need be instead of another; `None` where all have a request.
    pub fn enter(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut open = self.open.lock();
        if open.anonymous.len() + open.authenticated.len() >= self.max {
            let Some(evicted) = open.evict(self.now()) else {
                self.refused.inc();
                self.refused_lately.note(Instant::now(), [true]);
                return None;
            };
            self.evicted.inc();
            evicted.close();
        } else if open.anonymous.len() >= self.share()
            && let Some(evicted) = open.evict_anonymous()
        {
            self.evicted.inc();
            evicted.abort();
        }
        open.last += 1;
        let number = open.last;
        let register: Arc<dyn Register> = Arc::<Self>::clone(self);
        let connection = Arc::new(Connection::new(number, register));
        open.anonymous.insert(number, None, Arc::clone(&connection));
        Some(connection)
    }

    /// Counts seconds and closes what is overdue, for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        let begun = Instant::now();
        loop {
            let seconds = begun.elapsed().as_secs();
            self.second.store(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1), Ordering::Relaxed);
            self.check_some();
            sleep(self.pause()).await;
        }
    }

    /// Until the next check. Few connections need few checks a second, so that an idle bridge can sleep.
    fn pause(&self) -> Duration {
        let (anonymous, authenticated) = self.count();
        // One each, and one to begin anew.
        let checks = u32::try_from(anonymous.max(authenticated) + 1).unwrap_or(CHECKS_A_SECOND).min(CHECKS_A_SECOND);
        Duration::from_secs(1) / checks
    }

    /// Checks the next of the connections of either kind.
    fn check_some(&self) {
        let mut open = self.open.lock();
        let Open { anonymous, authenticated, checked: [last_anonymous, last_authenticated], .. } = &mut *open;
        let mut closed = 0;
        self.check(anonymous.len(), last_anonymous, &mut closed, |last| anonymous.after(last));
        self.check(authenticated.len(), last_authenticated, &mut closed, |last| {
            let next = authenticated.range((Bound::Excluded(last), Bound::Unbounded)).next();
            next.map(|(number, (connection, _))| (*number, connection))
        });
    }

    /// Checks the next of `count` connections after `last`. `next` returns the one after a number.
    fn check<'a>(
        &self,
        count: usize,
        last: &mut u64,
        closed: &mut usize,
        next: impl Fn(u64) -> Option<(u64, &'a Arc<Connection>)>,
    ) {
        let now = self.now();
        for _ in 0..=count / CHECKS_A_SECOND as usize {
            if *closed == MAX_CLOSED_AT_ONCE {
                return;
            }
            let Some((number, connection)) = next(*last) else {
                // Begins anew: no connection has number 0.
                *last = 0;
                return;
            };
            *last = number;
            let is_overdue = connection.is_overdue(now, &self.timeouts) && connection.close();
            if is_overdue || connection.is_write_overdue(now, &self.timeouts) && connection.abort() {
                self.timed_out.inc();
                *closed += 1;
            }
        }
    }

    /// The most that anonymous connections, or those of one caller, may be.
    fn share(&self) -> usize {
        (self.max - self.max / 4).max(1)
    }

    /// How many are open: anonymous and authenticated.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let open = self.open.lock();
        (open.anonymous.len(), open.authenticated.len())
    }
}

impl Register for Connections {
    fn now(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    fn claim(&self, number: u64, caller: &str) -> bool {
        let mut open = self.open.lock();
        if !open.anonymous.contains(number) {
            // It is being closed.
            return true;
        }
        if open.callers.get(caller).is_some_and(|count| *count >= self.share()) {
            let Some(evicted) = open.evict_idle_of(caller, self.now()) else { return false };
            self.evicted.inc();
            evicted.close();
        }
        if let Some(connection) = open.anonymous.remove(number) {
            let caller =
                open.callers.get_key_value(caller).map_or_else(|| Arc::from(caller), |(name, _)| Arc::clone(name));
            *open.callers.entry(Arc::clone(&caller)).or_default() += 1;
            open.authenticated.insert(number, (connection, caller));
        }
        true
    }

    fn leave(&self, number: u64) {
        let mut open = self.open.lock();
        let connection = open.remove(number);
        // Dropped after the lock: it may be the last reference.
        drop(open);
        drop(connection);
    }
}

impl Open {
    /// Removes a connection without a request.
    fn evict(&mut self, now: u32) -> Option<Arc<Connection>> {
        let anonymous = self.anonymous.unprotected(|one| !one.has_no_request());
        let idle = || {
            let mut oldest = self.authenticated.values().map(|(one, _)| one).take(MAX_SEARCHED);
            oldest.find(|one| one.is_idle(now)).map(|one| one.number())
        };
        let number = anonymous.or_else(idle)?;
        self.remove(number)
    }

    /// Removes an anonymous connection: one without a request if there is one.
    fn evict_anonymous(&mut self) -> Option<Arc<Connection>> {
        let number = self.anonymous.unprotected(|one| !one.has_no_request()).or_else(|| self.anonymous.oldest())?;
        self.anonymous.remove(number)
    }

    /// Removes the oldest idle connection of `caller`.
    fn evict_idle_of(&mut self, caller: &str, now: u32) -> Option<Arc<Connection>> {
        let mut own = self.authenticated.values().filter(|(_, owner)| **owner == *caller).map(|(one, _)| one);
        let number = own.find(|one| one.is_idle(now))?.number();
        self.remove(number)
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        if let Some(connection) = self.anonymous.remove(number) {
            return Some(connection);
        }
        let (connection, caller) = self.authenticated.remove(&number)?;
        if let Some(count) = self.callers.get_mut(&caller) {
            *count -= 1;
            if *count == 0 {
                self.callers.remove(&caller);
            }
        }
        Some(connection)
    }
}

#[cfg(test)]
mod tests;
