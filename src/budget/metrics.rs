//! Metrics of one instance's budget: how long asks waited for points, how many were denied, and how the windows stand.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;

use super::queue::Class;
use super::status::WindowStatus;
use crate::protocol::command;
use crate::telemetry::metrics::{Families, Histogram};

/// The label of commands that are not in the configuration.
const OTHER: &str = "other";

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
}

impl Metrics {
    pub(super) fn record(&self, class: Class<'_>, took: Duration, denied: bool) {
        let asks = match class {
            Class::Payment => &self.payment,
            Class::Caller(_) => &self.caller,
            Class::Refresh { .. } => &self.refresh,
        };
        asks.durations.get_or_init(Box::default).record(took);
        if denied {
            asks.denied.inc();
        }
    }

    fn classes(&self) -> [(&'static str, &Asks); 3] {
        [("payment", &self.payment), ("caller", &self.caller), ("refresh", &self.refresh)]
    }
}

/// Shows the metrics of each instance.
pub fn encode(page: &mut DescriptorEncoder<'_>, instances: &[(&str, &Metrics)]) -> fmt::Result {
    let mut family = page.histogram("budget_wait_seconds", "How long points were waited for, by class.")?;
    for (instance, metrics) in instances {
        for (class, asks) in metrics.classes() {
            if let Some(durations) = asks.durations.get() {
                durations.encode(family.encode_family(&[("pos_instance", *instance), ("class", class)])?)?;
            }
        }
    }
    let mut family = page.counter("budget_denied", "Commands that got no points in time, by class.")?;
    for (instance, metrics) in instances {
        for (class, asks) in metrics.classes() {
            asks.denied.encode(family.encode_family(&[("pos_instance", *instance), ("class", class)])?)?;
        }
    }
    let mut family = page.counter("budget_closed", "How often the gateway said `ratelimit`.")?;
    for (instance, metrics) in instances {
        metrics.closed.encode(family.encode_family(&[("pos_instance", *instance)])?)?;
    }
    Ok(())
}

type PointsGauge = (&'static str, &'static str, fn(&WindowStatus) -> u64);

const POINTS: [PointsGauge; 3] = [
    ("budget_capacity_points", "Points that the gateway gives within a window.", |window| window.capacity_points),
    ("budget_used_points", "Points that are spent or promised at this moment.", |window| window.used_points),
    ("budget_in_flight_points", "Those of them whose commands have not ended.", |window| window.in_flight_points),
];

/// Shows the windows of each instance.
pub fn encode_windows(page: &mut DescriptorEncoder<'_>, instances: &[(&str, &[WindowStatus])]) -> fmt::Result {
    let known = || {
        let windows = instances.iter().flat_map(|(instance, windows)| windows.iter().map(|window| (*instance, window)));
        windows.filter(|(_, window)| is_known(window))
    };
    for (name, help, points) in POINTS {
        let mut family = page.gauge(name, help)?;
        for (instance, window) in known() {
            let labels = [("pos_instance", instance), ("command", window.command.as_str())];
            family.encode_family(&labels)?.encode_gauge(&points(window))?;
        }
    }
    let mut family =
        page.gauge("budget_closed_seconds", "For how long the gateway's `ratelimit` closes the window yet.")?;
    for (instance, window) in known() {
        let labels = [("pos_instance", instance), ("command", window.command.as_str())];
        family.encode_family(&labels)?.encode_gauge(&Duration::from_millis(window.closed_for_ms).as_secs_f64())?;
    }
    let mut family = page.gauge("budget_waiting", "Commands that wait for points, by class.")?;
    for (instance, windows) in instances {
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
    for (instance, windows) in instances {
        let others = windows.iter().filter(|window| !is_known(window)).map(|window| window.used_points);
        let labels = [("pos_instance", *instance), ("command", OTHER)];
        family.encode_family(&labels)?.encode_gauge(&others.sum::<u64>())?;
    }
    Ok(())
}

/// Whether a window may be a label: callers cannot invent it.
fn is_known(window: &WindowStatus) -> bool {
    window.command == "*" || command::find(&window.command).is_some()
}
