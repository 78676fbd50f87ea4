//! Callers' connections: so many, and who gives way when there are more.
//!
//! A connection costs its holder nothing and the bridge an open file and some kilobytes, so whoever opens many and says
//! little could leave no room for others. Three rules stand against it. A request's head that has begun has to come, on
//! a kept connection as on a new one. Nobody keeps a connection for ever without a request. And where there is no room
//! for a newcomer, one that waits for nothing gives way: the oldest of those who never showed who they are, and only
//! without any such the oldest among the others that has nothing to do. What carries a request is never touched, and a
//! newcomer is turned away only where every connection does. Of all places three quarters are the most that strangers, or
//! any one caller, may have: whoever has them gives way to its own newcomers.
//!
//! Nothing of this reads a clock or sets a timer for a request: time is counted in seconds by one task, which looks at
//! each connection about once a second. It ends few at a time: thousands that end in the same moment, and come again in
//! the same moment, would hold up everybody else, and as long as there is room a slow one harms nobody.

mod bounded;
mod connection;
mod kept;
mod offers;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep};

pub use bounded::{AHEAD, Bounded};
pub use connection::{Connection, Request};
pub use kept::Kept;

/// In so many parts a second is divided at most, and the connections with it.
const PARTS: u32 = 100;

/// Connections ended at most in one part of a second.
const ENDED_AT_ONCE: usize = 2;

/// Seconds that a request's head may take; what is overdue is found within one more, if it is not one of many.
const HEAD_S: u32 = 5;

/// Seconds that a connection is kept without a request; longer than the server's own patience, which ends connections
/// more kindly. It is for those whose half a head has stopped the server's clock.
const IDLE_S: u32 = 90;

/// How many connections are looked at for one that may give way: enough, since those that may not are few.
const LOOKED_AT: usize = 1024;

/// How long a connection may take for what, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request's head.
    head: u32,
    /// Without a request.
    idle: u32,
    /// For taking what is written to it.
    untaken: u32,
    /// The same where another protocol than HTTP is spoken.
    upgraded_untaken: u32,
}

/// All connections of callers.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    patience: Patience,
    second: AtomicU32,
    open: Mutex<Open>,
    /// Ended since a head did not come, or what was written was not taken.
    pub slow: Counter,
    /// Ended to make room.
    pub gave_way: Counter,
    /// Not taken, since there was no room to be made.
    pub turned_away: Counter,
}

/// By number, so the first is the oldest.
#[derive(Debug, Default)]
struct Open {
    last: u64,
    strangers: BTreeMap<u64, Arc<Connection>>,
    known: BTreeMap<u64, (Arc<Connection>, Arc<str>)>,
    /// How many of those that are known each caller has.
    callers: HashMap<Arc<str>, usize>,
    /// The last ones that were looked at, of either.
    looked_at: [u64; 2],
}

impl Connections {
    /// Room for `most`, whose peers have so long to take what is written to them: over HTTP, and over anything else.
    #[must_use]
    pub fn new(most: usize, untaken: Duration, upgraded_untaken: Duration) -> Self {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let (untaken, upgraded_untaken) = (seconds(untaken), seconds(upgraded_untaken));
        let patience = Patience { head: HEAD_S, idle: IDLE_S, untaken, upgraded_untaken };
        let (slow, gave_way, turned_away) = (Counter::default(), Counter::default(), Counter::default());
        // Nothing is ever at second 0, which stands for never.
        Self { most, patience, second: AtomicU32::new(1), open: Mutex::default(), slow, gave_way, turned_away }
    }

    /// A place for a newcomer, if need be that of another; nothing where all have something to do.
    pub fn enter(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut open = self.open();
        if open.strangers.len() + open.known.len() >= self.most {
            let Some(victim) = open.give_way(self.now()) else {
                self.turned_away.inc();
                return None;
            };
            self.gave_way.inc();
            victim.end();
        } else if open.strangers.len() >= self.share()
            && let Some(victim) = open.oldest_stranger()
        {
            self.gave_way.inc();
            victim.cut();
        }
        open.last += 1;
        let number = open.last;
        let connection = Arc::new(Connection::new(number, self.now(), Arc::clone(self)));
        open.strangers.insert(number, Arc::clone(&connection));
        Some(connection)
    }

    /// Counts the seconds and ends what is overdue, for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        let begun = Instant::now();
        loop {
            let seconds = begun.elapsed().as_secs();
            self.second.store(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1), Ordering::Relaxed);
            self.look_on();
            sleep(self.pause()).await;
        }
    }

    /// Until the next look: where few are open, few looks a second see them all, and an idle bridge is left to sleep.
    fn pause(&self) -> Duration {
        let (strangers, known) = self.count();
        // One each, and one to begin anew.
        let looks = u32::try_from(strangers.max(known) + 1).unwrap_or(PARTS).min(PARTS);
        Duration::from_secs(1) / looks
    }

    /// Looks at the next of the connections, and ends some that are overdue.
    fn look_on(&self) {
        let now = self.now();
        let mut open = self.open();
        let Open { strangers, known, looked_at: [of_strangers, of_known], .. } = &mut *open;
        let mut room = ENDED_AT_ONCE;
        self.look_at(strangers, of_strangers, now, &mut room, |connection| connection);
        self.look_at(known, of_known, now, &mut room, |(connection, _)| connection);
    }

    fn look_at<T>(
        &self,
        connections: &BTreeMap<u64, T>,
        last: &mut u64,
        now: u32,
        room: &mut usize,
        connection_of: impl Fn(&T) -> &Arc<Connection>,
    ) {
        for _ in 0..=connections.len() / PARTS as usize {
            if *room == 0 {
                return;
            }
            let next = connections.range((Bound::Excluded(*last), Bound::Unbounded)).next();
            // At the end it begins anew; number 0 is nobody's.
            *last = next.map_or(0, |(number, _)| *number);
            let Some((_, entry)) = next else { return };
            let connection = connection_of(entry);
            let overdue = connection.is_overdue(now, &self.patience) && connection.end();
            if overdue || connection.is_not_taken_in_time(now, &self.patience) && connection.cut() {
                self.slow.inc();
                *room -= 1;
            }
        }
    }

    /// The most that strangers, or one caller, may have.
    fn share(&self) -> usize {
        (self.most - self.most / 4).max(1)
    }

    /// How many are open: of those who never showed who they are, and of the others.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let open = self.open();
        (open.strangers.len(), open.known.len())
    }

    pub(super) fn now(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    /// A connection showed that it is of `caller`. Says whether that caller may have one more; where it has as many as one
    /// may have, its oldest without anything to do gives way, if there is one.
    fn has_become_known(&self, number: u64, caller: &str) -> bool {
        let mut open = self.open();
        if !open.strangers.contains_key(&number) {
            // It is about to end.
            return true;
        }
        if open.callers.get(caller).is_some_and(|count| *count >= self.share()) {
            let Some(victim) = open.idle_of(caller, self.now()) else { return false };
            self.gave_way.inc();
            victim.end();
        }
        if let Some(connection) = open.strangers.remove(&number) {
            let caller =
                open.callers.get_key_value(caller).map_or_else(|| Arc::from(caller), |(name, _)| Arc::clone(name));
            *open.callers.entry(Arc::clone(&caller)).or_default() += 1;
            open.known.insert(number, (connection, caller));
        }
        true
    }

    fn leave(&self, number: u64) {
        let mut open = self.open();
        // Dropped after the lock: it may be the last to hold the connection.
        let gone = open.remove(number);
        drop(open);
        drop(gone);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Takes out the one that gives way.
    fn give_way(&mut self, now: u32) -> Option<Arc<Connection>> {
        let stranger = self.strangers.values().take(LOOKED_AT).find(|one| one.is_without_request());
        // One that had something to do a moment ago may be about to ask again.
        let known = || self.known.values().map(|(one, _)| one).take(LOOKED_AT).find(|one| one.is_idle(now));
        let number = stranger.or_else(known)?.number();
        self.remove(number)
    }

    /// Takes out the oldest stranger: if there is one, of those without a request.
    fn oldest_stranger(&mut self) -> Option<Arc<Connection>> {
        let idle = self.strangers.values().take(LOOKED_AT).find(|one| one.is_without_request());
        let number = idle.or_else(|| self.strangers.values().next())?.number();
        self.remove(number)
    }

    /// Takes out the oldest connection of `caller` that has nothing to do.
    fn idle_of(&mut self, caller: &str, now: u32) -> Option<Arc<Connection>> {
        let mut own = self.known.values().filter(|(_, owner)| **owner == *caller).map(|(one, _)| one);
        let number = own.find(|one| one.is_idle(now))?.number();
        self.remove(number)
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        if let Some(stranger) = self.strangers.remove(&number) {
            return Some(stranger);
        }
        let (connection, caller) = self.known.remove(&number)?;
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
