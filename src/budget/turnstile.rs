//! One window and those who wait before it: decides who gets points, who waits, and who is sent away at once.
//! Free of clocks and locks; a gate (`gate.rs`) puts both around it.
//!
//! Every change (an end, points given back, a closing, a newcomer, someone leaving) settles the queue in one pass in
//! order of service: whoever can be granted now is granted; whoever cannot make his deadline even if all goes well is
//! sent away with the instant at which he could have been served; the rest wait. Since nobody overtakes, only the
//! first in the queue needs an alarm at the instant his points come free; the others need one at their deadline only.
//! That way no timer task is needed, and a waiter that is dropped is just one that leaves.
//!
//! While a command is in flight, the instant at which its points come free is no sooner than a hold from now, and so
//! moves on with every look. An alarm that rings too early costs one more look; only one that would ring too late is
//! worth a call. Were every move called, the first in the queue would call itself, and look without end on the very
//! thread that has to hear the reply.
//!
//! A fate once decided is kept until its waiter takes it or leaves, so that points granted to someone who is gone are
//! given back and not lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::queue::{Class, Fate, Lengths, Queue, Rank};
use super::window::{Forecast, Grant, Price, Spent, Tick, Wait, Window};

/// One ask, in the window's own terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entrant<'a> {
    pub(super) class: Class<'a>,
    pub(super) price: Price,
    pub(super) deadline: Tick,
}

/// The answer to an ask that need not wait any longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted(Grant),
    /// Not by the deadline; asking again makes sense after this many microseconds.
    Denied {
        wait: u64,
    },
}

/// What becomes of an ask at its arrival.
#[derive(Debug)]
pub(super) enum Entered {
    Decided(Verdict),
    Waits(Rank, Arc<Notify>),
}

/// What a waiter learns when it looks up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Decided(Verdict),
    /// Nothing yet. It must look again at this instant, or when it is called.
    AgainAt(Tick),
}

#[derive(Debug)]
pub(super) struct Turnstile {
    window: Window,
    queue: Queue,
    /// Fates that their waiters have not taken yet.
    verdicts: BTreeMap<Rank, Verdict>,
    /// Who was last told to look at the instant at which its points may be free, and at which.
    told: Option<(Rank, Tick)>,
}

impl Turnstile {
    pub(super) fn new(window: Window) -> Self {
        Self { window, queue: Queue::default(), verdicts: BTreeMap::new(), told: None }
    }

    /// Decides an ask, or lets it wait.
    pub(super) fn enter(&mut self, now: Tick, entrant: Entrant<'_>) -> Entered {
        let Entrant { class, price, deadline } = entrant;
        if self.queue.is_empty()
            && let Ok(grant) = self.window.try_grant(now, price)
        {
            return Entered::Decided(Verdict::Granted(grant));
        }
        let Ok(rank) = self.queue.push(now, class, price, deadline) else {
            let wait = self.wait_behind(now, class, price);
            return Entered::Decided(Verdict::Denied { wait });
        };
        let call = self.queue.get(rank).map(|waiter| Arc::clone(&waiter.call));
        self.settle(now);
        match (self.verdicts.remove(&rank), call) {
            (Some(verdict), _) => Entered::Decided(verdict),
            (None, Some(call)) => Entered::Waits(rank, call),
            (None, None) => Entered::Decided(Verdict::Denied { wait: self.window.hold() }),
        }
    }

    /// What has become of the waiter at `rank`. A verdict is told once.
    pub(super) fn look(&mut self, now: Tick, rank: Rank) -> Look {
        if let Some(verdict) = self.verdicts.remove(&rank) {
            return Look::Decided(verdict);
        }
        let next = self.decide(now);
        let own = next.filter(|(first, _)| *first == rank);
        self.told = own.or(self.told);
        self.call(next);
        if let Some(verdict) = self.verdicts.remove(&rank) {
            return Look::Decided(verdict);
        }
        let Some(waiter) = self.queue.get(rank) else {
            return Look::Decided(Verdict::Denied { wait: self.window.hold() });
        };
        Look::AgainAt(own.map_or(waiter.deadline, |(_, at)| at.min(waiter.deadline)))
    }

    /// The waiter at `rank` is gone: its place, or the points it was granted, go to the others.
    pub(super) fn leave(&mut self, now: Tick, rank: Rank) {
        self.queue.remove(rank);
        if let Some(Verdict::Granted(grant)) = self.verdicts.remove(&rank) {
            self.window.give_back(grant);
        }
        self.settle(now);
    }

    /// See [`Window::ended`].
    pub(super) fn ended(&mut self, now: Tick, grant: Grant, answered: bool) {
        self.window.ended(grant, now, answered);
        self.settle(now);
    }

    /// See [`Window::give_back`].
    pub(super) fn give_back(&mut self, now: Tick, grant: Grant) {
        self.window.give_back(grant);
        self.settle(now);
    }

    /// See [`Window::close_until`].
    pub(super) fn close_until(&mut self, now: Tick, until: Tick) {
        self.window.close_until(until);
        self.settle(now);
    }

    /// See [`Window::open`].
    pub(super) fn open(&mut self, now: Tick) {
        self.window.open();
        self.settle(now);
    }

    /// Whether forgetting this turnstile would forget nothing.
    pub(super) fn is_idle(&mut self, now: Tick) -> bool {
        self.queue.is_empty()
            && self.verdicts.is_empty()
            && self.window.used(now) == 0
            && self.window.closed_until(now).is_none()
    }

    /// The window's future once everybody who goes before an ask of `class` is served.
    pub(super) fn forecast_behind(&mut self, now: Tick, class: Class<'_>) -> Forecast {
        let mut forecast = self.window.forecast(now);
        for (_, waiter) in self.queue.iter().filter(|(rank, _)| rank.goes_before(class)) {
            forecast.place(waiter.price);
        }
        forecast
    }

    pub(super) fn lengths(&self) -> Lengths {
        self.queue.lengths()
    }

    pub(super) fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// See [`Window::count`].
    pub(super) fn count(&mut self, now: Tick, points: u64, until: Tick) {
        self.window.count(points, until);
        self.settle(now);
    }

    /// See [`Window::restore`].
    pub(super) fn restore(&mut self, now: Tick, spent: &Spent, away_ms: u64) {
        self.window.restore(now, spent, away_ms);
        self.settle(now);
    }

    fn wait_behind(&mut self, now: Tick, class: Class<'_>, price: Price) -> u64 {
        let at = self.forecast_behind(now, class).earliest(price);
        at.map_or(self.window.hold(), |at| now.until(at))
    }

    fn settle(&mut self, now: Tick) {
        let next = self.decide(now);
        self.call(next);
    }

    /// Decides whatever can be decided. Returns who is the first in the queue then, and the instant at which it can be
    /// granted if all goes well.
    fn decide(&mut self, now: Tick) -> Option<(Rank, Tick)> {
        if self.queue.is_empty() {
            return None;
        }
        let Self { window, queue, verdicts, .. } = self;
        let mut forecast = window.forecast(now);
        let mut next = None;
        queue.decide(|rank, waiter| {
            let mut no_sooner = now;
            let (fate, verdict) = match forecast.earliest(waiter.price) {
                Some(at) if at <= now => match window.try_grant(now, waiter.price) {
                    Ok(grant) => (Fate::Served, Some(Verdict::Granted(grant))),
                    Err(wait) => {
                        // A probe was granted to the one before.
                        if let Wait::Until(at) | Wait::InFlight { no_sooner: at } = wait {
                            no_sooner = at;
                        }
                        (Fate::Waits, None)
                    }
                },
                Some(at) if at <= waiter.deadline => (Fate::Waits, None),
                Some(at) => (Fate::SentAway, Some(Verdict::Denied { wait: now.until(at) })),
                None => (Fate::SentAway, Some(Verdict::Denied { wait: window.hold() })),
            };
            if fate != Fate::SentAway {
                let at = forecast.place(waiter.price);
                if fate == Fate::Waits {
                    next = next.or(at.map(|at| at.max(no_sooner)));
                }
            }
            if let Some(verdict) = verdict {
                verdicts.insert(rank, verdict);
            }
            fate
        });
        self.queue.first().zip(next).map(|((rank, _), at)| (rank, at))
    }

    /// Has the first in the queue look, unless it will do so in time by itself.
    fn call(&self, next: Option<(Rank, Tick)>) {
        let Some((first, at)) = next else { return };
        if self.told.is_none_or(|(told, alarm)| told != first || alarm > at)
            && let Some(waiter) = self.queue.get(first)
        {
            waiter.call.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
