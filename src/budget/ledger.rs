//! The budget of one instance: finds the window that a command is counted in, and answers asks for points.
//!
//! A command gets its window when it is first used: an instance at rest has hardly any, of the dozen that it may have. Those of
//! the commands of the configuration are found without a lock. Callers may send any other command by name; there may be
//! [`MAX_OTHERS`] windows of those, and one that holds nothing is replaced, so that they can neither fill the memory nor shut
//! out a known command.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::admission::Admission;
use super::config::{Config, CounterScope, Payments, is_payment};
use super::gate::{Clock, Denied, Gate, Permit};
use super::metrics::Metrics;
use super::queue::Class;
use super::spending::{ALL_COMMANDS, Spending};
use super::status::WindowStatus;
use super::window::{Price, Spent, Tick};
use crate::clock::{secs_up, whole_ms};
use crate::protocol::command::PAYITEMS;

/// Windows for commands that are not in the configuration.
pub const MAX_OTHERS: usize = 256;

/// An ask for the points of one command.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The command's name on the wire.
    pub command: &'a str,
    /// On whose behalf.
    pub class: Class<'a>,
    /// Until when to wait. One that has passed asks for points that are there now, or none.
    pub deadline: Instant,
}

/// A command's budget, counted in requests, for the `RateLimit` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests that fit into one window: `q`.
    pub requests: u64,
    /// Seconds of window and guard, rounded up: `w`.
    pub window_secs: u64,
    /// Requests that could be granted now, after those that wait already: `r`.
    pub remaining: u64,
    /// Seconds until there could be one more than `remaining`, rounded up, and 0 where there never are: `t`. A lower
    /// bound where it depends on commands in flight.
    pub more_in_secs: u64,
}

/// The budget of one instance. Cheap to clone; all clones are one ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<LedgerState>,
}

#[derive(Debug)]
struct LedgerState {
    config: Config,
    clock: Clock,
    /// The one window of [`CounterScope::Instance`].
    whole: Option<Arc<Gate>>,
    /// The commands of the configuration.
    known: BTreeMap<String, Known>,
    others: Mutex<Others>,
    metrics: Metrics,
}

/// A command of the configuration.
#[derive(Debug)]
struct Known {
    /// Made with its first use.
    gate: OnceLock<Arc<Gate>>,
    cost: u32,
}

#[derive(Debug)]
struct Others {
    gates: HashMap<String, Arc<Gate>>,
    /// Windows that are made before this instant are full until then: what they hold is not known.
    full_until: Option<Instant>,
}

impl Ledger {
    /// A ledger in which nothing is spent. See [`Config::faults`] for what the settings must keep to.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let clock = Clock::starting_now();
        let whole = (config.scope == CounterScope::Instance).then(|| Arc::new(Gate::new(clock, config.hold())));
        let gate = || whole.clone().map_or_else(OnceLock::new, OnceLock::from);
        let known =
            config.cost.iter().map(|(command, &cost)| (command.clone(), Known { gate: gate(), cost })).collect();
        let others = Mutex::new(Others { gates: HashMap::new(), full_until: None });
        let metrics = Metrics::default();
        Self { shared: Arc::new(LedgerState { config, clock, whole, known, others, metrics }) }
    }

    /// Waits for the points of `ask`, at most until its deadline. An ask that cannot have them by then is denied at once, or as
    /// soon as that becomes known. Dropping the future gives up the place in the queue.
    ///
    /// Payments are served first, then callers in turns, then refreshes, the longest stale first. A refresh therefore
    /// never takes points that another ask waits for; one that asks with a deadline that has passed never waits either.
    pub async fn acquire(&self, ask: Ask<'_>) -> Result<Permit, Denied> {
        let Some((gate, cost)) = self.gate(ask.command) else {
            return Err(Denied { retry_after: self.shared.config.hold() });
        };
        let (asked, price) = (Instant::now(), self.price(cost, ask.class));
        let outcome = gate.acquire(ask.class, price, ask.deadline).await;
        self.shared.metrics.record(ask.class, asked.elapsed(), outcome.is_err());
        outcome
    }

    /// The points for a command, where they are there now and no other ask goes before this one: without a wait, and
    /// without a place in the queue.
    #[must_use]
    pub fn grant_now(&self, command: &str, class: Class<'_>) -> Option<Permit> {
        let known = self.shared.known.get(command)?;
        let permit = self.gate_of(known).grant_now(class, self.price(known.cost, class))?;
        self.shared.metrics.record(class, Duration::ZERO, false);
        Some(permit)
    }

    /// What a command of this cost takes, and how full it may make its window.
    fn price(&self, cost: u32, class: Class<'_>) -> Price {
        let payment = class == Class::Payment;
        let limit = match self.shared.config.payments {
            Payments::Ask if payment => u64::MAX,
            Payments::Ask | Payments::Count => u64::from(self.shared.config.limit(payment)),
        };
        Price { points: u64::from(cost), limit }
    }

    /// Counts the points of a command of this caller that is being written, for the metrics alone.
    pub fn count_spent(&self, caller: &str, command: &str) {
        self.shared.metrics.spent(caller, command, u64::from(self.shared.config.cost_of(command)));
    }

    /// The gateway answered `ratelimit`: grants nothing more for this command (in [`CounterScope::Instance`], for any) until
    /// `retry_after` from now, and then one command alone until it is answered. Where the gateway named no time, a whole
    /// window and guard; and never longer, for by then everything that it counted has lapsed, and a slip in one number
    /// must not close the tills.
    pub fn closed_by_gateway(&self, command: &str, retry_after: Option<Duration>) {
        let hold = self.shared.config.hold();
        let pause = retry_after.unwrap_or(hold).min(hold);
        self.shared.metrics.closed.inc();
        if let Some((gate, _)) = self.gate(command) {
            gate.close_for(pause);
        }
    }

    /// For how long the gateway's `ratelimit` keeps `command` closed; nothing where it does not.
    #[must_use]
    pub fn closed_for(&self, command: &str) -> Duration {
        let Some(gate) = self.existing_gate(command) else { return Duration::ZERO };
        gate.with(|admission, now| {
            let until = admission.window().closed_until(now);
            until.map_or(Duration::ZERO, |until| Duration::from_micros(now.until(until)))
        })
    }

    /// Takes back what [`Self::closed_by_gateway`] did to the window named `window` in [`Self::status`] and says how that
    /// stands now; none where there is no such window. In [`CounterScope::Instance`] every command names the one there is.
    #[must_use]
    pub fn open(&self, window: &str) -> Option<WindowStatus> {
        let is_known = self.shared.known.contains_key(window);
        let (name, gate) = match &self.shared.whole {
            Some(gate) => (ALL_COMMANDS, (is_known || window == ALL_COMMANDS).then(|| Arc::clone(gate))),
            None if is_known => (window, self.gate(window).map(|(gate, _)| gate)),
            None => (window, self.busy_others().remove(window)),
        };
        let gate = gate?;
        gate.with(Admission::open);
        Some(self.status_of(name.to_owned(), &gate))
    }

    /// The quota of a caller that asks for `command` now.
    #[must_use]
    pub fn budget(&self, command: &str) -> Quota {
        let config = &self.shared.config;
        let payment = is_payment(command);
        let limit = u64::from(config.limit(payment));
        let full = |cost: u64| Quota {
            requests: limit / cost.max(1),
            window_secs: secs_up(config.hold()),
            remaining: limit / cost.max(1),
            more_in_secs: 0,
        };
        let cost = u64::from(config.cost_of(command)).max(1);
        let Some(gate) = self.existing_gate(command) else { return full(cost) };
        let class = if payment { Class::Payment } else { Class::Caller("") };
        gate.with(|admission, now| {
            let wait = |at: Option<Tick>| at.map_or(Duration::ZERO, |at| Duration::from_micros(now.until(at)));
            let requests = |count: u64| Price { points: cost.saturating_mul(count), limit };
            let quota = |room: u64, earliest: &mut dyn FnMut(Price) -> Option<Tick>| {
                let remaining = if wait(earliest(requests(1))).is_zero() { room / cost } else { 0 };
                Quota { remaining, more_in_secs: secs_up(wait(earliest(requests(remaining + 1)))), ..full(cost) }
            };
            if admission.is_free() {
                let window = admission.window();
                return quota(limit.saturating_sub(window.used(now)), &mut |price| window.earliest(now, price));
            }
            let forecast = admission.forecast_behind(now, class);
            quota(forecast.room(limit), &mut |price| forecast.earliest(price))
        })
    }

    /// Every window, by name. Those of commands that are not configured are shown while they hold something.
    #[must_use]
    pub fn status(&self) -> Vec<WindowStatus> {
        let others = match &self.shared.whole {
            Some(gate) => return vec![self.status_of(ALL_COMMANDS.to_owned(), gate)],
            None => self.busy_others(),
        };
        let known = self.shared.known.iter().map(|(command, known)| match known.gate.get() {
            Some(gate) => self.status_of(command.clone(), gate),
            None => self.unused(command.clone()),
        });
        let others = others.into_iter().map(|(command, gate)| self.status_of(command, &gate));
        let mut windows: Vec<_> = known.chain(others).collect();
        windows.sort_unstable_by(|one, other| one.command.cmp(&other.command));
        windows
    }

    /// A window that was never used.
    fn unused(&self, command: String) -> WindowStatus {
        let capacity_points = u64::from(self.shared.config.capacity);
        WindowStatus { command, capacity_points, ..WindowStatus::default() }
    }

    fn status_of(&self, command: String, gate: &Gate) -> WindowStatus {
        gate.with(|admission, now| {
            let waiting = admission.lengths();
            let window = admission.window();
            WindowStatus {
                command,
                was_used: true,
                capacity_points: u64::from(self.shared.config.capacity),
                used_points: window.used(now),
                in_flight_points: window.in_flight(),
                closed_for_ms: window.closed_until(now).map_or(0, |until| now.until(until).div_ceil(1000)),
                probing: window.needs_probe(),
                waiting_payments: waiting.payments,
                waiting_callers: waiting.callers,
                waiting_refreshes: waiting.refreshes,
            }
        })
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What is spent, for [`Self::restore`] in a later process. Windows that hold nothing are left out.
    #[must_use]
    pub fn spent(&self) -> Spending {
        let mut windows = BTreeMap::new();
        self.each_used(|command, gate| {
            let spent = gate.with(|admission, now| admission.window().spent(now));
            if !spent.is_nothing() {
                windows.insert(command.to_owned(), spent);
            }
        });
        Spending { scope: self.shared.config.scope, windows }
    }

    /// Every window that was used, by name.
    fn each_used(&self, mut note: impl FnMut(&str, &Gate)) {
        if let Some(gate) = &self.shared.whole {
            return note(ALL_COMMANDS, gate);
        }
        let known = self.shared.known.iter().filter_map(|(command, known)| Some((command, known.gate.get()?)));
        known.chain(&self.others().gates).for_each(|(command, gate)| note(command, gate));
    }

    /// Whether there is another clone of it.
    pub(super) fn is_held_elsewhere(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// For how long points are held after the end of their command.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.shared.config.hold()
    }

    /// Whether the numbers of an earlier process say what is spent here: it counted in the same scope.
    #[must_use]
    pub fn counts_like(&self, spending: &Spending) -> bool {
        spending.scope == self.shared.config.scope
    }

    /// Counts what an earlier process that [counted like this](Self::counts_like) had spent, `away` after it told.
    pub fn restore(&self, spending: &Spending, away: Duration) {
        let away_ms = whole_ms(away);
        for (command, spent) in &spending.windows {
            self.restore_window(command, spent, away_ms);
        }
    }

    /// Keeps closed what the gateway had closed, `away` after that was told, where it can be known here.
    pub fn restore_closings(&self, spending: &Spending, away: Duration) {
        if self.counts_like(spending) {
            let closing = |spent: &Spent| Spent { closed_for_ms: spent.closed_for_ms, ..Spent::default() };
            let windows = spending.windows.iter().map(|(command, spent)| (command.clone(), closing(spent)));
            self.restore(&Spending { scope: spending.scope, windows: windows.collect() }, away);
        }
    }

    /// Counts payments whose exchanges ended so long ago. Where they are not known, as many as fit, just now.
    pub fn count_payments(&self, ages: Option<&[Duration]>) {
        let hold = self.hold();
        let Some(ages) = ages else { return self.count(PAYITEMS.name, u64::from(self.shared.config.capacity), hold) };
        let left = ages.iter().filter_map(|age| hold.checked_sub(*age)).filter(|left| !left.is_zero());
        left.for_each(|left| self.count(PAYITEMS.name, u64::from(self.shared.config.cost_of(PAYITEMS.name)), left));
    }

    fn count(&self, command: &str, points: u64, pause: Duration) {
        if let Some((gate, _)) = self.gate(command) {
            gate.count(points, pause);
        }
    }

    /// Takes every window to be full just now, as far as other commands than payments can have filled it: what they spent
    /// is not known. To be said after [`count_payments`](Self::count_payments).
    pub fn assume_spent(&self) {
        self.assume_spent_for(self.shared.config.hold());
    }

    fn assume_spent_for(&self, pause: Duration) {
        let config = &self.shared.config;
        let (capacity, limit) = (u64::from(config.capacity), u64::from(config.limit(false)));
        if let Some(gate) = &self.shared.whole {
            // Others were never granted what would have passed the capacity together with payments.
            let payments = gate.with(|admission, now| admission.window().used(now));
            return gate.count(limit.min(capacity.saturating_sub(payments)), pause);
        }
        self.others().full_until = Instant::now().checked_add(pause);
        for (command, known) in &self.shared.known {
            if !is_payment(command) {
                self.gate_of(known).count(limit, pause);
            }
        }
    }

    fn restore_window(&self, command: &str, spent: &Spent, away_ms: u64) {
        let gate = self.shared.whole.clone().or_else(|| self.gate(command).map(|(gate, _)| gate));
        if let Some(gate) = gate {
            gate.with(|admission, now| admission.restore(now, spent, away_ms));
        }
    }

    /// The gate and cost of a command; `None` where too many unknown commands are in use.
    fn gate(&self, command: &str) -> Option<(Arc<Gate>, u32)> {
        let config = &self.shared.config;
        if let Some(known) = self.shared.known.get(command) {
            return Some((Arc::clone(self.gate_of(known)), known.cost));
        }
        if let Some(gate) = &self.shared.whole {
            return Some((Arc::clone(gate), config.cost_of(command)));
        }
        let mut others = self.others();
        others.make_room(command);
        if others.gates.len() >= MAX_OTHERS && !others.gates.contains_key(command) {
            return None;
        }
        let full_for = others.full_until.map(|until| until.saturating_duration_since(Instant::now()));
        let gate = others.gates.entry(command.to_owned()).or_insert_with(|| {
            let gate = Gate::new(self.shared.clock, config.hold());
            if let Some(pause) = full_for.filter(|pause| !pause.is_zero()) {
                gate.count(u64::from(config.capacity), pause);
            }
            Arc::new(gate)
        });
        Some((Arc::clone(gate), config.cost_of(command)))
    }

    fn gate_of<'a>(&self, known: &'a Known) -> &'a Arc<Gate> {
        known.gate.get_or_init(|| Arc::new(Gate::new(self.shared.clock, self.shared.config.hold())))
    }

    /// The gate of a command that was used.
    fn existing_gate(&self, command: &str) -> Option<Arc<Gate>> {
        if let Some(known) = self.shared.known.get(command) {
            return known.gate.get().cloned();
        }
        self.shared.whole.clone().or_else(|| self.others().gates.get(command).cloned())
    }

    /// The gates of commands that are not in the configuration, as far as they hold something.
    fn busy_others(&self) -> BTreeMap<String, Arc<Gate>> {
        let others = self.others();
        let busy = others.gates.iter().filter(|(_, gate)| !gate.with(Admission::is_idle));
        busy.map(|(command, gate)| (command.clone(), Arc::clone(gate))).collect()
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.shared.others.lock()
    }
}

impl Others {
    /// Removes idle windows where `command` would be one too many. A window that an ask is about to use is not idle: the ask
    /// holds a reference to it.
    fn make_room(&mut self, command: &str) {
        if self.gates.len() >= MAX_OTHERS && !self.gates.contains_key(command) {
            self.gates.retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.with(Admission::is_idle));
        }
    }
}

mod handover;
#[cfg(test)]
mod tests;
