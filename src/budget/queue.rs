//! The asks that wait for a window, and the order in which they are served. Free of clocks and locks.
//!
//! Payments first, then callers' reads, then refreshes. Payments are served in order of arrival. Of callers, the token that
//! was given least in the window ([`Shares`]) goes first, then the one that came first; within a token the order is that of
//! arrival. A token that is expected to ask again has a place among them. Of refreshes the longest stale goes first. No ask
//! overtakes another within this order, however little it costs: a large ask would otherwise starve behind small ones.
//!
//! Each class has a bound of its own, so that a flood of one does not shut out another; an ask beyond it is denied.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::shares::{Claim, Shares};
use super::window::{Price, Tick};

/// Payments that wait at one window.
pub(super) const MAX_PAYMENTS: usize = 1024;
/// Callers' asks that wait at one window.
pub(super) const MAX_CALLERS: usize = 1024;
/// Asks of one token that wait at one window: as many as a token has in flight by default.
pub(super) const MAX_PER_TOKEN: usize = 64;
/// Refreshes that wait at one window.
pub(super) const MAX_REFRESHES: usize = 256;

/// On whose behalf points are asked for. Decides the order of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class<'a> {
    /// A sale. Goes first, and may use the points kept for payments.
    Payment,
    /// A caller waits for the answer. Callers take turns by this name, usually their token's.
    Caller(&'a str),
    /// A copy is to be renewed, and no caller waits for it.
    Refresh {
        /// For how long the copy has been out of date; the longest goes first.
        staleness: Duration,
    },
}

/// A place in the queue. Classes are served in ascending order, and so are the asks within a class, except callers', whose
/// ranks are in order of arrival. No two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Payment { arrival: u64 },
    Caller { arrival: u64 },
    Refresh { stale_since: i128, arrival: u64 },
}

impl Rank {
    /// Whether an ask of `class` that came now would be served after this one. Shares are not looked at: it is for
    /// estimates on behalf of asks that do not wait here.
    pub(super) fn goes_before(self, class: Class<'_>) -> bool {
        match class {
            Class::Payment => matches!(self, Self::Payment { .. }),
            Class::Caller(_) => !matches!(self, Self::Refresh { .. }),
            Class::Refresh { .. } => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) price: Price,
    pub(super) deadline: Tick,
    /// Notified when it is decided, and when it should check again.
    pub(super) call: Arc<Notify>,
    pub(super) token: Option<Arc<str>>,
}

/// What is to be served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Waiter(Rank),
    /// A token that is expected to ask again.
    Expected(Claim),
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
pub(super) struct Queue {
    waiters: BTreeMap<Rank, Waiter>,
    tally: Tally,
    arrivals: u64,
}

/// What is known besides the waiters themselves.
#[derive(Debug, Default)]
struct Tally {
    lengths: Lengths,
    /// Tokens that wait, each with the arrivals of its asks.
    tokens: HashMap<Arc<str>, BTreeSet<u64>>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn lengths(&self) -> Lengths {
        self.tally.lengths
    }

    pub(super) fn get(&self, rank: Rank) -> Option<&Waiter> {
        self.waiters.get(&rank)
    }

    /// By class, and within it as they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Rank, &Waiter)> {
        self.waiters.iter().map(|(rank, waiter)| (*rank, waiter))
    }

    /// Lets an ask wait, unless its class or its token has as many waiting as it may.
    pub(super) fn push(&mut self, now: Tick, class: Class<'_>, price: Price, deadline: Tick) -> Result<Rank, Full> {
        self.arrivals += 1;
        let arrival = self.arrivals;
        let (rank, token) = match class {
            Class::Payment if self.tally.lengths.payments < MAX_PAYMENTS => (Rank::Payment { arrival }, None),
            Class::Caller(name) => (Rank::Caller { arrival }, Some(self.tally.take_place(name, arrival)?)),
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
        self.tally.forget(rank, &waiter);
        Some(waiter)
    }

    /// Takes out an ask that was decided, and notifies it.
    pub(super) fn decided(&mut self, rank: Rank) {
        if let Some(waiter) = self.remove(rank) {
            waiter.call.notify_one();
        }
    }

    /// Payments and callers, waiting or expected, in the order in which they are to be served.
    pub(super) fn order(&self, shares: &Shares) -> Vec<Next> {
        let payments = self.waiters.keys().take_while(|rank| matches!(rank, Rank::Payment { .. }));
        let mut order: Vec<_> = payments.copied().map(Next::Waiter).collect();
        let waiting = self.tally.tokens.iter().filter_map(|(token, arrivals)| {
            let first = arrivals.first()?;
            Some(Reverse((shares.given(token), *first, Candidate::Waits(token))))
        });
        let expected = shares.claims().filter(|(token, _)| !self.tally.tokens.contains_key(*token)).map(
            // A token that was not denied comes after one that waits and was given as little.
            |(token, claim)| {
                Reverse((shares.given(token), claim.denied.unwrap_or(u64::MAX), Candidate::Expected(token, claim)))
            },
        );
        let mut candidates: BinaryHeap<_> = waiting.chain(expected).collect();
        while let Some(Reverse((given, arrival, candidate))) = candidates.pop() {
            let token = match candidate {
                Candidate::Expected(_, claim) => {
                    order.push(Next::Expected(claim));
                    continue;
                }
                Candidate::Waits(token) => token,
            };
            let rank = Rank::Caller { arrival };
            order.push(Next::Waiter(rank));
            let given = given.saturating_add(self.get(rank).map_or(0, |waiter| waiter.price.points));
            let next = self.tally.tokens.get(token).and_then(|arrivals| arrivals.range(arrival + 1..).next());
            candidates.extend(next.map(|arrival| Reverse((given, *arrival, candidate))));
        }
        order
    }

    /// Refreshes in the order in which they are to be served, after all others.
    pub(super) fn refreshes(&self) -> Vec<Rank> {
        self.waiters.keys().filter(|rank| matches!(rank, Rank::Refresh { .. })).copied().collect()
    }
}

/// Compared last, and only so that the order does not depend on how a table is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate<'a> {
    Waits(&'a Arc<str>),
    Expected(&'a Arc<str>, Claim),
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
    fn take_place(&mut self, name: &str, arrival: u64) -> Result<Arc<str>, Full> {
        if self.lengths.callers >= MAX_CALLERS {
            return Err(Full);
        }
        let token: Arc<str> = Arc::from(name);
        let waiting = self.tokens.entry(Arc::clone(&token)).or_default();
        if waiting.len() >= MAX_PER_TOKEN {
            return Err(Full);
        }
        waiting.insert(arrival);
        Ok(token)
    }

    fn forget(&mut self, rank: Rank, waiter: &Waiter) {
        let length = self.lengths.of(rank);
        *length = length.saturating_sub(1);
        let (Rank::Caller { arrival }, Some(token)) = (rank, &waiter.token) else { return };
        let Some(waiting) = self.tokens.get_mut(token) else { return };
        waiting.remove(&arrival);
        if waiting.is_empty() {
            self.tokens.remove(token);
        }
    }
}

#[cfg(test)]
mod tests;
