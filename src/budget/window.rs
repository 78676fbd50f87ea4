//! One exact weighted sliding window, free of clocks and locks.
//!
//! The gateway adds a command's cost to a counter at the moment the command *arrives*, and lets no interval of one
//! window hold more than its capacity. That moment is never seen here: it lies anywhere between the grant and the end
//! of the command (answered, timed out, or its link lost). So points are held from the grant until `window + guard`
//! after the end, the latest instant at which they can still matter; while a command is in flight they are held
//! without end. Proof in one line: of all commands that the gateway counts in one of its windows, take the one granted
//! last; at its grant every other one was still held here, so together they passed the bound here.
//!
//! It is not a token bucket, which lets through twice the capacity in one window. Points that may have been counted are
//! never given back. Instants are whole microseconds that never go back; one that does is read as the latest seen.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Entries kept for commands that ended. A window of 100 points needs at most 100 of them; only one of far greater
/// capacity gets to merge neighbours, which then all wait for the latest of them.
const MAX_ENDED: usize = 4096;

const MICROS_PER_MS: u64 = 1000;

/// How soon a waiter checks again while a probe is in flight, in microseconds: 100 ms. The answer itself notifies it sooner.
const PROBE_LOOK: u64 = 100_000;

/// An instant in whole microseconds since an origin of the caller's choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The instant `micros` microseconds after this one; the end of time where that overflows.
    #[must_use]
    pub fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from this instant to `later`; none where `later` has passed.
    #[must_use]
    pub fn until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

/// What an ask costs, and how full it may make the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price {
    /// Points added to the window.
    pub points: u64,
    /// The level that the window, these points included, may not pass.
    pub limit: u64,
}

/// Points held for one command in flight. Hand it back to the window it came from, to exactly one of
/// [`Window::ended`] and [`Window::give_back`]; a grant that is lost holds its points without end.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "points are held until the grant is handed back"]
pub struct Grant {
    points: u64,
    at: Tick,
    /// Whether its command asks if the gateway takes commands again.
    probe: bool,
    /// The token it was given to, where that is counted.
    pub(super) token: Option<Arc<str>>,
}

impl Grant {
    /// Points that it holds.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.points
    }
}

/// When an ask that cannot be granted now could be, if nothing else happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At exactly this instant, and not a microsecond before.
    Until(Tick),
    /// Not known: commands in flight hold the points. Not before this instant, even if all of them ended at once.
    InFlight {
        /// The lower bound.
        no_sooner: Tick,
    },
    /// Never: the points exceed the limit.
    Never,
}

/// Whether one command alone has to find out that the gateway takes commands again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// The gateway did not close the window, or has answered since.
    NotNeeded,
    /// The next command is the probe.
    Due,
    /// It is on its way, and no other command is granted.
    InFlight,
}

/// Points that an ended command still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    free_at: Tick,
    points: u64,
}

/// What a window holds, told in ages so that it can outlive the process and its clock. Rounded to the safe side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Points of commands that have not ended.
    pub in_flight: u64,
    /// Points and the milliseconds since their command ended, oldest first.
    pub ended: Vec<(u64, u64)>,
    /// Milliseconds for which the window stays closed.
    pub closed_for_ms: u64,
}

impl Spent {
    /// Whether nothing is held and nothing closed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a window holds, told in what is left of each time, for another replica to go on with. Rounded to the safe side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remaining {
    /// Points of commands that have not ended.
    pub in_flight: u64,
    /// Points and the milliseconds for which they are still held, the shortest first.
    pub held: Vec<(u64, u64)>,
    /// Milliseconds for which the window stays closed.
    pub closed_for_ms: u64,
    /// Whether one command alone has to find out then that the gateway takes commands again.
    pub probe: bool,
}

impl Remaining {
    /// Whether nothing is held and nothing closed.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The window. Cheap: an uncontended grant is a few additions and allocates nothing.
#[derive(Debug, Clone)]
pub struct Window {
    hold: u64,
    latest: Tick,
    closed_until: Tick,
    probe: Probe,
    in_flight: u64,
    /// Sum of `ended`.
    lingering: u64,
    /// In order of `free_at`.
    ended: VecDeque<Ended>,
}

impl Window {
    /// An empty window that holds points for `hold` microseconds (window and guard together) after their end.
    #[must_use]
    pub fn new(hold: u64) -> Self {
        Self {
            hold,
            latest: Tick::default(),
            closed_until: Tick::default(),
            probe: Probe::NotNeeded,
            in_flight: 0,
            lingering: 0,
            ended: VecDeque::new(),
        }
    }

    /// Holds the points of `price` from now on, or says when that could be.
    pub fn try_grant(&mut self, now: Tick, price: Price) -> Result<Grant, Wait> {
        if let Some(wait) = self.free_at(now, price) {
            return Err(wait);
        }
        self.in_flight = self.in_flight.saturating_add(price.points);
        let probe = self.probe == Probe::Due;
        if probe {
            self.probe = Probe::InFlight;
        }
        Ok(Grant { points: price.points, at: self.latest, probe, token: None })
    }

    /// When `price` could be granted; `None` is now.
    pub fn free_at(&mut self, now: Tick, price: Price) -> Option<Wait> {
        let now = self.advance(now);
        let Some(room) = price.limit.checked_sub(price.points) else { return Some(Wait::Never) };
        if self.probe == Probe::InFlight {
            return Some(Wait::InFlight { no_sooner: self.opens(now) });
        }
        let mut used = self.in_flight.saturating_add(self.lingering);
        let mut at = now.max(self.closed_until);
        let mut ended = self.ended.iter();
        while used > room {
            let Some(entry) = ended.next() else {
                return Some(Wait::InFlight { no_sooner: at.max(now.after(self.hold)) });
            };
            used = used.saturating_sub(entry.points);
            at = at.max(entry.free_at);
        }
        (at > now).then_some(Wait::Until(at))
    }

    /// The command of `grant` ended at `at`, which has come: its points are held for one more window and guard. A probe
    /// that was `answered` opens the window; after one that was not, the next command is one.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is handed back once: taking it is the point")]
    pub fn ended(&mut self, grant: Grant, at: Tick, answered: bool) {
        self.advance(at);
        // Closed anew meanwhile, or opened by hand, it has nothing to say.
        if grant.probe && self.probe == Probe::InFlight {
            self.probe = if answered { Probe::NotNeeded } else { Probe::Due };
        }
        self.in_flight = self.in_flight.saturating_sub(grant.points);
        self.linger(grant.points, at.max(grant.at).after(self.hold));
    }

    /// The command of `grant` was provably never written: its points are free at once.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is handed back once: taking it is the point")]
    pub fn give_back(&mut self, grant: Grant) {
        if grant.probe && self.probe == Probe::InFlight {
            self.probe = Probe::Due;
        }
        self.in_flight = self.in_flight.saturating_sub(grant.points);
    }

    /// Grants nothing before `until`, whatever the count says, and then one command alone until it is answered. Never
    /// shortens an earlier closing.
    pub fn close_until(&mut self, until: Tick) {
        self.closed_until = self.closed_until.max(until);
        self.probe = Probe::Due;
    }

    /// Takes back every closing. What is held stays held.
    pub fn open(&mut self) {
        self.closed_until = Tick::default();
        self.probe = Probe::NotNeeded;
    }

    /// Whether the next command, or one in flight, has to find out that the gateway takes commands again.
    #[must_use]
    pub fn needs_probe(&self) -> bool {
        self.probe != Probe::NotNeeded
    }

    /// Points held now, those in flight included.
    pub fn used(&mut self, now: Tick) -> u64 {
        self.advance(now);
        self.in_flight.saturating_add(self.lingering)
    }

    /// Points of commands in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Until when the window is closed; `None` where it is open.
    pub fn closed_until(&mut self, now: Tick) -> Option<Tick> {
        let now = self.advance(now);
        (self.closed_until > now).then_some(self.closed_until)
    }

    /// Microseconds for which points are held after their end.
    #[must_use]
    pub fn hold(&self) -> u64 {
        self.hold
    }

    /// What is held, for [`Self::restore`] in a later process.
    pub fn spent(&mut self, now: Tick) -> Spent {
        let now = self.advance(now);
        let age_ms = |entry: &Ended| self.hold.saturating_sub(now.until(entry.free_at)) / MICROS_PER_MS;
        Spent {
            in_flight: self.in_flight,
            ended: self.ended.iter().map(|entry| (entry.points, age_ms(entry))).collect(),
            closed_for_ms: now.until(self.closed_until).div_ceil(MICROS_PER_MS),
        }
    }

    /// Counts what an earlier process spent, `away_ms` after it told. What was then in flight is taken to have ended
    /// now: when it did is not known, and this is the latest it can have been.
    pub fn restore(&mut self, now: Tick, spent: &Spent, away_ms: u64) {
        let now = self.advance(now);
        for &(points, age_ms) in &spent.ended {
            let age = age_ms.saturating_add(away_ms).saturating_mul(MICROS_PER_MS);
            if age < self.hold {
                self.linger(points, now.after(self.hold.saturating_sub(age)));
            }
        }
        self.linger(spent.in_flight, now.after(self.hold));
        let closed_ms = spent.closed_for_ms.saturating_sub(away_ms);
        if closed_ms > 0 {
            // An earlier release may have been closed for longer.
            self.close_until(now.after(closed_ms.saturating_mul(MICROS_PER_MS).min(self.hold)));
        }
    }

    /// What is held, for [`Self::take_over`] on another replica.
    pub fn remaining(&mut self, now: Tick) -> Remaining {
        let now = self.advance(now);
        let left_ms = |until: Tick| now.until(until).div_ceil(MICROS_PER_MS);
        Remaining {
            in_flight: self.in_flight,
            held: self.ended.iter().map(|entry| (entry.points, left_ms(entry.free_at))).collect(),
            closed_for_ms: left_ms(self.closed_until),
            probe: self.needs_probe(),
        }
    }

    /// Goes on with what another replica held, as of now. What was then in flight there ends within `in_flight_for`
    /// microseconds, whatever is heard of it here. Nothing is held or closed for longer than a hold and that.
    pub fn take_over(&mut self, now: Tick, remaining: &Remaining, in_flight_for: u64) {
        let now = self.advance(now);
        let most = self.hold.saturating_add(in_flight_for);
        let left = |ms: u64| ms.saturating_mul(MICROS_PER_MS).min(most);
        for &(points, left_ms) in &remaining.held {
            self.linger(points, now.after(left(left_ms)));
        }
        self.linger(remaining.in_flight, now.after(most));
        if remaining.probe || remaining.closed_for_ms > 0 {
            self.close_until(now.after(left(remaining.closed_for_ms)));
        }
    }

    /// Forgets what ended commands hold: whoever says what is held counts it anew.
    pub fn forget_ended(&mut self) {
        self.ended.clear();
        self.lingering = 0;
    }

    /// Counts points that were spent without a grant here; they are held until `until`.
    pub fn count(&mut self, points: u64, until: Tick) {
        self.linger(points, until);
    }

    /// How the window goes on if asks are granted in a given order and nothing else happens.
    pub fn forecast(&mut self, now: Tick) -> Forecast {
        let now = self.advance(now);
        let (used, at, hold) = (self.in_flight.saturating_add(self.lingering), self.opens(now), self.hold);
        Forecast { used, at, hold, passed: 0, frees: self.frees(now).collect() }
    }

    /// When `price` is granted if nothing goes before it; `None` is never. What [`Self::forecast`] says, without a copy of
    /// what is held.
    pub fn earliest(&mut self, now: Tick, price: Price) -> Option<Tick> {
        let now = self.advance(now);
        let room = price.limit.checked_sub(price.points)?;
        let (mut at, mut used) = (self.opens(now), self.in_flight.saturating_add(self.lingering));
        for entry in self.frees(now) {
            if used <= room && entry.free_at > at {
                break;
            }
            used = used.saturating_sub(entry.points);
            at = at.max(entry.free_at);
        }
        (used <= room).then_some(at)
    }

    /// What becomes free and when, in order.
    fn frees(&self, now: Tick) -> impl Iterator<Item = Ended> {
        // Whatever ended did so by now, and is therefore freed before what is taken to end now.
        let in_flight = Ended { free_at: now.after(self.hold), points: self.in_flight };
        self.ended.iter().copied().chain(iter::once(in_flight))
    }

    /// The earliest instant at which the gateway's closing lets another command through.
    fn opens(&self, now: Tick) -> Tick {
        let probed = if self.probe == Probe::InFlight { now.after(PROBE_LOOK) } else { now };
        probed.max(self.closed_until)
    }

    fn linger(&mut self, points: u64, free_at: Tick) {
        if points == 0 {
            return;
        }
        self.lingering = self.lingering.saturating_add(points);
        let place = self.ended.partition_point(|entry| entry.free_at <= free_at);
        self.ended.insert(place, Ended { free_at, points });
        if self.ended.len() > MAX_ENDED {
            self.merge_neighbours();
        }
    }

    /// Halves the entries. Each pair waits for the later of the two, so nothing is freed early.
    fn merge_neighbours(&mut self) {
        let mut merged = VecDeque::with_capacity(MAX_ENDED);
        let mut entries = self.ended.drain(..);
        while let Some(earlier) = entries.next() {
            merged.push_back(match entries.next() {
                Some(later) => Ended { free_at: later.free_at, points: earlier.points.saturating_add(later.points) },
                None => earlier,
            });
        }
        drop(entries);
        self.ended = merged;
    }

    /// Moves to `now` and frees what is due.
    fn advance(&mut self, now: Tick) -> Tick {
        self.latest = self.latest.max(now);
        while let Some(entry) = self.ended.pop_front_if(|entry| entry.free_at <= self.latest) {
            self.lingering = self.lingering.saturating_sub(entry.points);
        }
        self.latest
    }
}

/// A window's future under the best of assumptions: whatever is in flight ends now, and whatever is placed ends the
/// moment it is granted. So what it says is exact where nothing in flight matters, and never too late where it does.
#[derive(Debug, Clone)]
pub struct Forecast {
    hold: u64,
    used: u64,
    /// No earlier than the last grant, since no ask overtakes another.
    at: Tick,
    /// Entries of `frees` that are freed by `at`.
    passed: usize,
    /// In order of their instants: a placed grant is freed after everything that was held before it.
    frees: Vec<Ended>,
}

impl Forecast {
    /// When `price` is granted if it comes after everything placed so far; `None` is never.
    #[must_use]
    pub fn earliest(&self, price: Price) -> Option<Tick> {
        self.step(price).map(|(at, ..)| at)
    }

    /// Places nothing any more before `at`.
    pub fn skip_to(&mut self, at: Tick) {
        self.at = self.at.max(at);
    }

    /// Grants `price` at its earliest instant, before whatever is placed after it.
    pub fn place(&mut self, price: Price) -> Option<Tick> {
        let (at, used, passed) = self.step(price)?;
        (self.at, self.used, self.passed) = (at, used.saturating_add(price.points), passed);
        self.frees.push(Ended { free_at: at.after(self.hold), points: price.points });
        Some(at)
    }

    /// Points that could be granted together at the instant of the last grant without passing `limit`.
    #[must_use]
    pub fn room(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.used)
    }

    /// Tells the points held at instants that come in order, none sooner than the last grant, if nothing more is placed.
    pub fn held(&self) -> impl FnMut(Tick) -> u64 {
        let (mut used, mut frees) = (self.used, self.frees.iter().skip(self.passed).peekable());
        move |at| {
            while let Some(entry) = frees.next_if(|entry| entry.free_at <= at) {
                used = used.saturating_sub(entry.points);
            }
            used
        }
    }

    /// Until when points are held that are granted at `at`.
    #[must_use]
    pub fn hold_ends(&self, at: Tick) -> Tick {
        at.after(self.hold)
    }

    fn step(&self, price: Price) -> Option<(Tick, u64, usize)> {
        let room = price.limit.checked_sub(price.points)?;
        let (mut at, mut used, mut passed) = (self.at, self.used, self.passed);
        loop {
            match self.frees.get(passed) {
                Some(entry) if used > room || entry.free_at <= at => {
                    used = used.saturating_sub(entry.points);
                    at = at.max(entry.free_at);
                    passed += 1;
                }
                _ if used > room => return None,
                _ => return Some((at, used, passed)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
