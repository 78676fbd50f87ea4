//! One window and the asks that wait for it: grants points, lets wait, or denies at once.
//! Free of clocks and locks; a gate (`gate.rs`) adds both.
//!
//! Points may be kept for a token that is expected to ask again ([`Shares`]): no ask that comes after it in the order of
//! service is granted them meanwhile, and the first in the queue checks again when that time is over.
//! A refresh is granted only what makes nothing later that was promised to an ask that was denied; payments and other callers
//! may. So whoever comes back when it was told is not denied for the sake of a renewal.
//!
//! Every change (an end, points given back, a closing, a new ask, a dropped one) settles the queue in one pass in order of
//! service: an ask that can be granted now is granted; one that cannot meet its deadline even in the best case is denied with
//! the instant at which it could have been served; the rest wait. Since no ask overtakes another, only the first in the
//! queue needs an alarm at the instant its points come free, and the others one at their deadline. No timer task is needed,
//! and a waiter that is dropped just leaves the queue.
//!
//! While a command is in flight, the instant at which its points come free is no sooner than a hold from now, and so moves on
//! with every check. An alarm that comes too early costs one more check, so only one that would come too late is moved.
//! Otherwise the first in the queue would notify itself without end, on the thread that has to receive the reply.
//!
//! A decision is kept until its waiter takes it or leaves, so that points granted to a waiter that is gone are given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::queue::{Class, Lengths, Next, Queue, Rank};
use super::shares::{Claim, Shares};
use super::window::{Forecast, Grant, Price, Remaining, Spent, Tick, Wait, Window};

/// One ask, in the window's own terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct PointsRequest<'a> {
    pub(super) class: Class<'a>,
    pub(super) price: Price,
    pub(super) deadline: Tick,
}

/// The answer to an ask that need not wait any longer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    Granted(Grant),
    /// Not by the deadline; asking again makes sense after this many microseconds.
    Denied {
        wait: u64,
    },
}

/// The result of an ask at its arrival.
#[derive(Debug)]
pub(super) enum Entered {
    Decided(Resolution),
    Waits(Rank, Arc<Notify>),
}

/// The result of a check by a waiter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    Decided(Resolution),
    /// Undecided: check again at this instant, or when notified.
    AgainAt(Tick),
}

#[derive(Debug)]
pub(super) struct Admission {
    window: Window,
    queue: Queue,
    shares: Shares,
    /// Decisions that their waiters have not taken yet.
    verdicts: BTreeMap<Rank, Resolution>,
    /// The waiter that last got an alarm for the instant at which its points may be free, and that instant.
    told: Option<(Rank, Tick)>,
}

impl Admission {
    pub(super) fn new(window: Window) -> Self {
        let shares = Shares::new(window.hold());
        Self { window, queue: Queue::default(), shares, verdicts: BTreeMap::new(), told: None }
    }

    /// Points that are there for an ask of `class` at once, before which no other goes.
    pub(super) fn grant_now(&mut self, now: Tick, class: Class<'_>, price: Price) -> Option<Grant> {
        self.shares.advance(now);
        let token = if let Class::Caller(name) = class { Some(name) } else { None };
        let is_kept = match class {
            Class::Payment => false,
            Class::Caller(_) => self.shares.are_kept_for_others(now, token),
            // The queue finds out which points are not missed then.
            Class::Refresh { .. } => !self.shares.promises().is_empty(),
        };
        if !self.queue.is_empty() || is_kept {
            return None;
        }
        let grant = self.window.try_grant(now, price).ok()?;
        Some(self.counted(now, grant, price, token.map(Arc::from)))
    }

    /// Decides an ask, or lets it wait.
    pub(super) fn enter(&mut self, now: Tick, request: PointsRequest<'_>) -> Entered {
        let PointsRequest { class, price, deadline } = request;
        if let Some(grant) = self.grant_now(now, class, price) {
            return Entered::Decided(Resolution::Granted(grant));
        }
        let Ok(rank) = self.queue.push(now, class, price, deadline) else {
            let wait = self.wait_behind(now, class, price);
            return Entered::Decided(Resolution::Denied { wait });
        };
        let call = self.queue.get(rank).map(|waiter| Arc::clone(&waiter.call));
        self.settle(now);
        match (self.verdicts.remove(&rank), call) {
            (Some(verdict), _) => Entered::Decided(verdict),
            (None, Some(call)) => Entered::Waits(rank, call),
            (None, None) => Entered::Decided(Resolution::Denied { wait: self.window.hold() }),
        }
    }

    /// Whether the waiter at `rank` is decided. A resolution is returned once.
    pub(super) fn check(&mut self, now: Tick, rank: Rank) -> Check {
        if let Some(verdict) = self.verdicts.remove(&rank) {
            return Check::Decided(verdict);
        }
        let next = self.decide(now);
        let own = next.filter(|(first, _)| *first == rank);
        self.told = own.or(self.told);
        self.call(next);
        if let Some(verdict) = self.verdicts.remove(&rank) {
            return Check::Decided(verdict);
        }
        let Some(waiter) = self.queue.get(rank) else {
            return Check::Decided(Resolution::Denied { wait: self.window.hold() });
        };
        Check::AgainAt(own.map_or(waiter.deadline, |(_, at)| at.min(waiter.deadline)))
    }

    /// The waiter at `rank` is gone: its place, or the points it was granted, go to the others.
    pub(super) fn leave(&mut self, now: Tick, rank: Rank) {
        self.queue.remove(rank);
        if let Some(Resolution::Granted(grant)) = self.verdicts.remove(&rank) {
            return self.give_back(now, grant);
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
        if let Some(token) = &grant.token {
            self.shares.returned(token, grant.points());
        }
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

    /// Whether forgetting this admission would forget nothing.
    pub(super) fn is_idle(&mut self, now: Tick) -> bool {
        self.queue.is_empty()
            && self.verdicts.is_empty()
            && self.window.used(now) == 0
            && self.window.closed_until(now).is_none()
    }

    /// The window's future once every ask that goes before one of `class` is served.
    pub(super) fn forecast_behind(&mut self, now: Tick, class: Class<'_>) -> Forecast {
        let mut forecast = self.window.forecast(now);
        for (_, waiter) in self.queue.iter().filter(|(rank, _)| rank.goes_before(class)) {
            forecast.place(waiter.price);
        }
        forecast
    }

    /// Whether no ask waits.
    pub(super) fn is_free(&self) -> bool {
        self.queue.is_empty()
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

    /// See [`Window::take_over`].
    pub(super) fn take_over(&mut self, now: Tick, remaining: &Remaining, in_flight_for: u64) {
        self.window.take_over(now, remaining, in_flight_for);
        self.settle(now);
    }

    /// See [`Window::forget_ended`]. Nobody is granted anything for it: what is held is yet to be counted.
    pub(super) fn forget_ended(&mut self) {
        self.window.forget_ended();
    }

    fn wait_behind(&mut self, now: Tick, class: Class<'_>, price: Price) -> u64 {
        let at = self.forecast_behind(now, class).earliest(price);
        at.map_or(self.window.hold(), |at| now.until(at))
    }

    fn settle(&mut self, now: Tick) {
        let next = self.decide(now);
        self.call(next);
    }

    /// The grant, counted as its token's.
    fn counted(&mut self, now: Tick, mut grant: Grant, price: Price, token: Option<Arc<str>>) -> Grant {
        if let Some(token) = token {
            self.shares.granted(now, &token, price);
            grant.token = Some(token);
        }
        grant
    }

    /// Decides every ask that can be decided. Returns the first one left in the queue, and the instant at which it can be
    /// granted in the best case.
    fn decide(&mut self, now: Tick) -> Option<(Rank, Tick)> {
        if self.queue.is_empty() {
            return None;
        }
        self.shares.advance(now);
        let order = self.queue.order(&self.shares);
        let mut outlook = Outlook::new(&mut self.window, now);
        let mut first = None;
        for next in &order {
            match next {
                Next::Expected(claim) => outlook.keep(*claim),
                Next::Waiter(rank) => first = first.or(self.decide_one(now, *rank, &mut outlook)),
            }
        }
        let refreshes = self.queue.refreshes();
        if refreshes.is_empty() {
            return first;
        }
        // Points kept for a token that is only expected to ask again are ignored for refreshes, for which no caller waits, unless
        // something was promised.
        let mut outlook = Outlook::new(&mut self.window, now);
        for next in order {
            if let Next::Waiter(rank) = next
                && let Some(waiter) = self.queue.get(rank)
            {
                outlook.place(waiter.price);
            }
        }
        outlook.promises = self.promised(now);
        for rank in refreshes {
            first = first.or(self.decide_one(now, rank, &mut outlook));
        }
        first
    }

    /// What refreshes must not make later, the earliest first.
    fn promised(&self, now: Tick) -> Vec<Claim> {
        let promises = self.shares.promises();
        if promises.is_empty() {
            return Vec::new();
        }
        let probes = self.window.needs_probe();
        let denied = promises.iter().map(|promise| {
            // A probe that failed would be a refusal for whoever comes back, so it goes to that one.
            let goes_alone = probes && promise.from <= now;
            let points = if goes_alone { promise.price.limit } else { promise.price.points };
            let price = Price { points, ..promise.price };
            Claim { price, from: promise.from, until: promise.until, denied: None }
        });
        // Whoever comes back may have to leave points to a token that was given less.
        let expected = self.shares.claims().map(|(_, claim)| claim).filter(|claim| claim.denied.is_none());
        let mut all: Vec<_> = denied.chain(expected).collect();
        all.sort_unstable_by_key(|promise| promise.from);
        all
    }

    /// Decides about one waiter, where that can be. Else it is placed in the outlook, and this says when it should look
    /// again if it is the first.
    fn decide_one(&mut self, now: Tick, rank: Rank, outlook: &mut Outlook) -> Option<(Rank, Tick)> {
        let waiter = self.queue.get(rank)?;
        let (price, deadline, token) = (waiter.price, waiter.deadline, waiter.token.clone());
        let at = outlook.earliest(price);
        let denied = match at {
            Some(at) if at <= now => match self.window.try_grant(now, price) {
                Ok(grant) => {
                    outlook.place(price);
                    let grant = self.counted(now, grant, price, token);
                    self.verdicts.insert(rank, Resolution::Granted(grant));
                    self.queue.decided(rank);
                    return None;
                }
                // A probe was granted to the one before.
                Err(Wait::Until(at) | Wait::InFlight { no_sooner: at }) => {
                    outlook.place(price);
                    return Some((rank, at));
                }
                Err(Wait::Never) => self.window.hold(),
            },
            Some(at) if at <= deadline => {
                outlook.place_waiting(at, price);
                return Some((rank, outlook.changes_by().map_or(at, |until| at.min(until))));
            }
            Some(at) => now.until(at),
            None => self.window.hold(),
        };
        if let (Some(token), Rank::Caller { arrival }) = (token, rank) {
            self.shares.denied(&token, arrival, price, now.after(denied));
        }
        self.verdicts.insert(rank, Resolution::Denied { wait: denied });
        self.queue.decided(rank);
        None
    }

    /// Notifies the first in the queue, unless its alarm comes in time.
    fn call(&self, next: Option<(Rank, Tick)>) {
        let Some((first, at)) = next else { return };
        if self.told.is_none_or(|(told, alarm)| told != first || alarm > at)
            && let Some(waiter) = self.queue.get(first)
        {
            waiter.call.notify_one();
        }
    }
}

/// The forecast for the asks that are decided in order of service.
struct Outlook {
    now: Tick,
    /// Counting only what is certain now.
    sure: Forecast,
    /// Counting every expected token too.
    whole: Forecast,
    /// From when on a token is expected before the ask that is decided.
    expected_from: Option<Tick>,
    /// The earliest end of the points kept before the ask that is decided.
    kept_until: Option<Tick>,
    /// What must not come later for the ask that is decided, the earliest first.
    promises: Vec<Claim>,
}

impl Outlook {
    fn new(window: &mut Window, now: Tick) -> Self {
        let sure = window.forecast(now);
        Self { now, whole: sure.clone(), sure, expected_from: None, kept_until: None, promises: Vec::new() }
    }

    /// When an ask of `price` is granted if all goes well.
    fn earliest(&self, price: Price) -> Option<Tick> {
        let sure = self.sure.earliest(price)?;
        if self.expected_from.is_some_and(|from| from <= sure) {
            return self.whole.earliest(price).max(Some(sure));
        }
        Some(self.missed_until(price, sure).map_or(sure, |until| until.max(sure)))
    }

    /// Until when something is promised that an ask of `price`, granted at `granted`, would make later; none where whichever of
    /// those who were denied come back, and in whatever order, each finds as much as it would have found.
    fn missed_until(&self, price: Price, granted: Tick) -> Option<Tick> {
        let (mut held, mut promised) = (self.sure.held(), 0_u64);
        let hold_ends = self.sure.hold_ends(granted);
        let mut meanwhile = self.promises.iter().take_while(|promise| granted.max(promise.from) < hold_ends);
        let missed = meanwhile.find(|promise| {
            promised = promised.saturating_add(promise.price.points);
            let needed = held(granted.max(promise.from)).saturating_add(promised).saturating_add(price.points);
            needed > promise.price.limit
        });
        missed.map(|promise| promise.until)
    }

    fn place(&mut self, price: Price) {
        self.sure.place(price);
        self.whole.place(price);
    }

    /// Places an ask that waits until `at`. Where that is for the sake of a promise, the next refresh waits behind it.
    fn place_waiting(&mut self, at: Tick, price: Price) {
        if !self.promises.is_empty() {
            self.sure.skip_to(at);
        }
        self.place(price);
    }

    /// The earliest end of what is kept, or promised, before the ask that is decided.
    fn changes_by(&self) -> Option<Tick> {
        self.promises.iter().map(|promise| promise.until).chain(self.kept_until).min()
    }

    fn keep(&mut self, claim: Claim) {
        self.kept_until = Some(earlier(self.kept_until, claim.until));
        if claim.is_due(self.now) {
            self.sure.place(claim.price);
        } else {
            self.expected_from = Some(earlier(self.expected_from, claim.from));
            self.whole.skip_to(claim.from);
        }
        self.whole.place(claim.price);
    }
}

fn earlier(known: Option<Tick>, at: Tick) -> Tick {
    known.map_or(at, |known| known.min(at))
}

#[cfg(test)]
mod tests;
