//! Who waits for a window, and in which order they are served. Free of clocks and locks.
//!
//! Money first: payments, then callers' reads, then refreshes. Payments are served as they came. Callers take turns by
//! token, so that one who asks a hundred times at once delays the others by one ask and not by a hundred; within a
//! token the order is theirs. Of refreshes the longest stale goes first. Nobody overtakes within this order, however
//! little he asks for: a large ask would otherwise starve behind small ones.
//!
//! Turns are numbers: an ask gets the turn after its token's last or after the one served last, whichever is later.
//! Served in order of turns, tokens alternate, and a newcomer waits for at most one ask of every other token.
//!
//! Each class has a bound of its own, so that no flood of one shuts out another; what does not fit is told so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::window::{Price, Tick};

/// Payments that wait at one window.
pub(super) const MAX_PAYMENTS: usize = 1024;
/// Callers' asks that wait at one window.
pub(super) const MAX_CALLERS: usize = 1024;
/// Asks of one token that wait at one window: as many as a token has in flight by default.
pub(super) const MAX_PER_TOKEN: usize = 64;
/// Refreshes that wait at one window.
pub(super) const MAX_REFRESHES: usize = 256;

/// On whose behalf points are asked for. Decides who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class<'a> {
    /// A sale. Goes first, and may use the points kept for payments.
    Payment,
    /// A caller waits for the answer. Callers take turns by this name, usually their token's.
    Caller(&'a str),
    /// Nobody waits: a copy is to be renewed.
    Refresh {
        /// For how long the copy has been out of date; the longest goes first.
        staleness: Duration,
    },
}

/// A place in the queue: served in ascending order, and no two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Payment { arrival: u64 },
    Caller { turn: u64, arrival: u64 },
    Refresh { stale_since: i128, arrival: u64 },
}

impl Rank {
    /// Whether an ask of `class` that came now would be served after this one. Turns are not looked at: it is for
    /// estimates on behalf of asks that do not wait here.
    pub(super) fn goes_before(self, class: Class<'_>) -> bool {
        match class {
            Class::Payment => matches!(self, Self::Payment { .. }),
            Class::Caller(_) => !matches!(self, Self::Refresh { .. }),
            Class::Refresh { .. } => true,
        }
    }
}

/// One ask that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) price: Price,
    pub(super) deadline: Tick,
    /// Called when its fate is decided, and when it should look again at when that may be.
    pub(super) call: Arc<Notify>,
    token: Option<Arc<str>>,
}

/// The class's or the token's share of the queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// How many wait, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lengths {
    pub(super) payments: usize,
    pub(super) callers: usize,
    pub(super) refreshes: usize,
}

#[derive(Debug, Default)]
struct Turns {
    last: u64,
    waiting: usize,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: BTreeMap<Rank, Waiter>,
    tally: Tally,
    arrivals: u64,
}

/// What is known besides the waiters themselves.
#[derive(Debug, Default)]
struct Tally {
    lengths: Lengths,
    /// Tokens that wait.
    tokens: HashMap<Arc<str>, Turns>,
    /// The turn served last.
    turn: u64,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn lengths(&self) -> Lengths {
        self.tally.lengths
    }

    pub(super) fn first(&self) -> Option<(Rank, &Waiter)> {
        self.waiters.first_key_value().map(|(rank, waiter)| (*rank, waiter))
    }

    pub(super) fn get(&self, rank: Rank) -> Option<&Waiter> {
        self.waiters.get(&rank)
    }

    /// In order of service.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Rank, &Waiter)> {
        self.waiters.iter().map(|(rank, waiter)| (*rank, waiter))
    }

    /// Lets an ask wait, unless its class or its token has as many waiting as it may.
    pub(super) fn push(&mut self, now: Tick, class: Class<'_>, price: Price, deadline: Tick) -> Result<Rank, Full> {
        self.arrivals += 1;
        let arrival = self.arrivals;
        let (rank, token) = match class {
            Class::Payment if self.tally.lengths.payments < MAX_PAYMENTS => (Rank::Payment { arrival }, None),
            Class::Caller(name) => {
                let (turn, token) = self.tally.take_turn(name)?;
                (Rank::Caller { turn, arrival }, Some(token))
            }
            Class::Refresh { staleness } if self.tally.lengths.refreshes < MAX_REFRESHES => {
                let stale_for = i128::try_from(staleness.as_micros()).unwrap_or(i128::MAX);
                (Rank::Refresh { stale_since: i128::from(now.0).saturating_sub(stale_for), arrival }, None)
            }
            Class::Payment | Class::Refresh { .. } => return Err(Full),
        };
        *self.tally.lengths.of(rank) += 1;
        self.waiters.insert(rank, Waiter { price, deadline, call: Arc::new(Notify::new()), token });
        Ok(rank)
    }

    /// Takes out an ask that was not served.
    pub(super) fn remove(&mut self, rank: Rank) -> Option<Waiter> {
        let waiter = self.waiters.remove(&rank)?;
        self.tally.forget(rank, &waiter, false);
        Some(waiter)
    }

    /// Goes through the queue in order of service and takes out everyone for whom `decide` has decided something.
    pub(super) fn decide(&mut self, mut decide: impl FnMut(Rank, &Waiter) -> Fate) {
        let Self { waiters, tally, .. } = self;
        waiters.retain(|rank, waiter| {
            let fate = decide(*rank, waiter);
            if fate != Fate::Waits {
                tally.forget(*rank, waiter, fate == Fate::Served);
                waiter.call.notify_one();
            }
            fate == Fate::Waits
        });
    }
}

/// What becomes of a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Waits,
    Served,
    SentAway,
}

impl Lengths {
    fn of(&mut self, rank: Rank) -> &mut usize {
        match rank {
            Rank::Payment { .. } => &mut self.payments,
            Rank::Caller { .. } => &mut self.callers,
            Rank::Refresh { .. } => &mut self.refreshes,
        }
    }
}

impl Tally {
    fn take_turn(&mut self, name: &str) -> Result<(u64, Arc<str>), Full> {
        if self.lengths.callers >= MAX_CALLERS {
            return Err(Full);
        }
        let token: Arc<str> = Arc::from(name);
        let turns = self.tokens.entry(Arc::clone(&token)).or_default();
        if turns.waiting >= MAX_PER_TOKEN {
            return Err(Full);
        }
        turns.last = self.turn.max(turns.last) + 1;
        turns.waiting += 1;
        Ok((turns.last, token))
    }

    fn forget(&mut self, rank: Rank, waiter: &Waiter, served: bool) {
        let length = self.lengths.of(rank);
        *length = length.saturating_sub(1);
        let (Rank::Caller { turn, .. }, Some(token)) = (rank, &waiter.token) else { return };
        if served {
            self.turn = turn;
        }
        let Some(turns) = self.tokens.get_mut(token) else { return };
        turns.waiting = turns.waiting.saturating_sub(1);
        if turns.waiting == 0 {
            self.tokens.remove(token);
        } else if !served && turns.last == turn {
            // A turn that was not taken is not held against the token.
            turns.last = turn.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
