//! Metrics of one instance's budget: how long asks waited for points, how many were denied, and how the windows stand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use tokio::time::Instant;

use super::queue::Class;
use super::status::WindowStatus;
use crate::protocol::command;
use crate::telemetry::metrics::{Families, Histogram};
use crate::telemetry::recent::Recent;

/// The label of commands that are not in the configuration.
const OTHER: &str = "other";

/// A customer notices that.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// The asks of one class.
#[derive(Debug, Default)]
struct Asks {
    /// From the ask to the grant or the denial. Made with the first.
    durations: OnceLock<Box<Histogram>>,
    denied: Counter,
}

#[derive(Debug, Default)]
pub struct Metrics {
    payment: Asks,
    caller: Asks,
    refresh: Asks,
    /// How often the gateway's `ratelimit` closed a window.
    pub(super) closed: Counter,
    /// Denied: payments, callers' other commands. Waited for long: payments.
    recent: Recent<3>,
    /// Points of what was written, by caller and command.
    spent: Mutex<BTreeMap<Arc<str>, BTreeMap<&'static str, u64>>>,
}

/// Series of spent points that an instance may have. Callers are tokens of the configuration, of which there are fewer; what is
/// beyond it counts under [`OTHER`].
const MAX_SPENDERS: usize = 1_000;

/// How points were asked for within the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecentAsks {
    pub payments_denied: u64,
    /// Callers' asks other than payments.
    pub callers_denied: u64,
    /// Payments that waited for a second or more.
    pub payments_waited: u64,
}

impl Metrics {
    pub(super) fn record(&self, class: Class<'_>, took: Duration, denied: bool) {
        let asks = match class {
            Class::Payment => &self.payment,
            Class::Caller(_) => &self.caller,
            Class::Refresh { .. } => &self.refresh,
        };
        asks.durations.get_or_init(Box::default).record(took);
        let payment = class == Class::Payment;
        let refresh = matches!(class, Class::Refresh { .. });
        let told = [payment && denied, !payment && !refresh && denied, payment && took >= LONG_WAIT];
        if told.contains(&true) {
            self.recent.note(Instant::now(), told);
        }
        if denied {
            asks.denied.inc();
        }
    }

    /// Callers with a JWT, who are named `ISSUER|NAME`, are counted by their issuer: labels come from the configuration.
    pub(super) fn spent(&self, caller: &str, command: &str, points: u64) {
        let caller = caller.split_once('|').map_or(caller, |(issuer, _)| issuer);
        let command = command::find(command).map_or(OTHER, |spec| spec.name);
        let mut spent = self.spent.lock();
        if let Some(known) = spent.get_mut(caller).and_then(|commands| commands.get_mut(command)) {
            *known += points;
            return;
        }
        let series: usize = spent.values().map(BTreeMap::len).sum();
        let caller = if series < MAX_SPENDERS { caller } else { OTHER };
        *spent.entry(Arc::from(caller)).or_default().entry(command).or_default() += points;
    }

    #[must_use]
    pub fn last_minute(&self, now: Instant) -> RecentAsks {
        let [payments_denied, callers_denied, payments_waited] = self.recent.last_minute(now);
        RecentAsks { payments_denied, callers_denied, payments_waited }
    }

    fn classes(&self) -> [(&'static str, &Asks); 3] {
        [("payment", &self.payment), ("caller", &self.caller), ("refresh", &self.refresh)]
    }
}

/// The metrics of one instance, to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub instance: &'a str,
    pub metrics: &'a Metrics,
    /// Whether anybody has used it. Of one at rest no durations are shown, which for thousands of them are most of a scrape.
    pub in_use: bool,
}

/// Shows the metrics of each instance.
pub fn encode(page: &mut DescriptorEncoder<'_>, instances: &[Shown<'_>]) -> fmt::Result {
    let mut family = page.histogram("budget_wait_seconds", "How long points were waited for, by class.")?;
    for Shown { instance, metrics, .. } in instances.iter().filter(|shown| shown.in_use) {
        for (class, asks) in metrics.classes() {
            if let Some(durations) = asks.durations.get() {
                durations.encode(family.encode_family(&[("pos_instance", *instance), ("class", class)])?)?;
            }
        }
    }
    let mut family = page.counter("budget_denied", "Commands that got no points in time, by class.")?;
    for Shown { instance, metrics, .. } in instances {
        for (class, asks) in metrics.classes() {
            // An alert reads the denials of the others, and is to see the first.
            if class == "refresh" && asks.denied.get() == 0 {
                continue;
            }
            asks.denied.encode(family.encode_family(&[("pos_instance", *instance), ("class", class)])?)?;
        }
    }
    let mut family =
        page.counter("budget_spent_points", "Points of commands that were written, by caller and command.")?;
    for Shown { instance, metrics, .. } in instances.iter().filter(|shown| shown.in_use) {
        for (caller, commands) in metrics.spent.lock().iter() {
            for (command, points) in commands {
                let labels = [("pos_instance", *instance), ("caller", caller), ("command", *command)];
                ConstCounter::new(*points).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let mut family = page.counter("budget_closed", "How often the gateway said `ratelimit`.")?;
    for Shown { instance, metrics, .. } in instances {
        metrics.closed.encode(family.encode_family(&[("pos_instance", *instance)])?)?;
    }
    Ok(())
}

/// The windows of one instance, to be shown.
#[derive(Debug, Clone, Copy)]
pub struct ShownWindows<'a> {
    pub instance: &'a str,
    pub windows: &'a [WindowStatus],
    /// Whether anybody has used it.
    pub in_use: bool,
}

type PointsGauge = (&'static str, &'static str, fn(&WindowStatus) -> Option<u64>);

/// A window that was never used is not shown, and of one that was, what is mostly zero only while it is not.
const POINTS: [PointsGauge; 3] = [
    ("budget_capacity_points", "Points that the gateway gives within a window.", |window| Some(window.capacity_points)),
    ("budget_used_points", "Points that are spent or promised at this moment.", |window| Some(window.used_points)),
    ("budget_in_flight_points", "Those of them whose commands have not ended.", |window| {
        Some(window.in_flight_points).filter(|points| *points > 0)
    }),
];

/// Shows the windows of each instance.
pub fn encode_windows(page: &mut DescriptorEncoder<'_>, instances: &[ShownWindows<'_>]) -> fmt::Result {
    let known = || {
        let windows = instances.iter().flat_map(|shown| shown.windows.iter().map(|window| (shown.instance, window)));
        windows.filter(|(_, window)| window.was_used && is_known(window))
    };
    for (name, help, points) in POINTS {
        let mut family = page.gauge(name, help)?;
        for (instance, window) in known() {
            let Some(points) = points(window) else { continue };
            let labels = [("pos_instance", instance), ("command", window.command.as_str())];
            family.encode_family(&labels)?.encode_gauge(&points)?;
        }
    }
    let mut family =
        page.gauge("budget_closed_seconds", "For how long the gateway's `ratelimit` closes the window yet.")?;
    for (instance, window) in known().filter(|(_, window)| window.closed_for_ms > 0) {
        let labels = [("pos_instance", instance), ("command", window.command.as_str())];
        family.encode_family(&labels)?.encode_gauge(&Duration::from_millis(window.closed_for_ms).as_secs_f64())?;
    }
    let mut family = page.gauge("budget_waiting", "Commands that wait for points, by class.")?;
    for ShownWindows { instance, windows, .. } in instances.iter().filter(|shown| shown.in_use) {
        let sum = |waiting: fn(&WindowStatus) -> usize| windows.iter().map(waiting).sum::<usize>();
        for (class, waiting) in [
            ("payment", sum(|window| window.waiting_payments)),
            ("caller", sum(|window| window.waiting_callers)),
            ("refresh", sum(|window| window.waiting_refreshes)),
        ] {
            family.encode_family(&[("pos_instance", *instance), ("class", class)])?.encode_gauge(&waiting)?;
        }
    }
    let mut family = page.gauge("budget_other_used_points", "Points of commands that are not in the configuration.")?;
    for ShownWindows { instance, windows, .. } in instances {
        let others: u64 = windows.iter().filter(|window| !is_known(window)).map(|window| window.used_points).sum();
        if others > 0 {
            family.encode_family(&[("pos_instance", *instance), ("command", OTHER)])?.encode_gauge(&others)?;
        }
    }
    Ok(())
}

/// Whether a window may be a label: callers cannot invent it.
fn is_known(window: &WindowStatus) -> bool {
    window.command == "*" || command::find(&window.command).is_some()
}
