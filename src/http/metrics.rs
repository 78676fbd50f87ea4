//! The metrics, written out when somebody asks: what the rooms have counted, and how things stand at that moment.
//!
//! Units are in the names. Labels come from the configuration, from the table of commands or from the routes, never
//! from what a caller wrote, so their number is bounded.

use super::auth::Auth;
use super::state::AppState;
use crate::bridge::status::{BridgeStatus, InstanceStatus};
use crate::bridge::tally::Answer;
use crate::budget::WindowStatus;
use crate::gateway::tally::Outcome;
use crate::protocol::command;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::meter::Counter;

/// What the commands of callers' own invention are counted as.
const OTHER: &str = "other";

/// All metrics at this moment.
pub async fn text(shared: &AppState) -> String {
    let status = shared.bridge.overview(|_| true).await;
    let mut page = Exposition::default();
    process(&mut page, &status, shared.runtimes.tasks());
    requests(&mut page, shared);
    callers(&mut page, &shared.auth);
    connections(&mut page, shared);
    exchanges(&mut page, shared);
    links(&mut page, shared, &status.instances);
    budget_now(&mut page, &status.instances);
    budget_waits(&mut page, shared);
    reads(&mut page, shared, &status);
    payments(&mut page, &status);
    contradictions(&mut page, shared);
    page.into_text()
}

fn process(page: &mut Exposition, status: &BridgeStatus, tasks: usize) {
    page.gauge("build_info", "The running version.").sample(&[("version", status.version)], 1);
    page.gauge("uptime_seconds", "How long the bridge has been running.").sample(&[], status.uptime_seconds);
    let draining = u8::from(status.state == "draining");
    page.gauge("draining", "1 once the bridge was told to stop.").sample(&[], draining);
    page.gauge("subscribers", "Event streams that are open.").sample(&[], status.subscribers.unwrap_or_default());
    page.gauge("tasks", "Tasks that were begun and have not ended.").sample(&[], tasks as u64);
}

fn requests(page: &mut Exposition, shared: &AppState) {
    let mut family = page.counter("requests_total", "Requests answered, by route and status.");
    for (route, answers) in shared.tally.routes() {
        for (status, count) in answers.statuses() {
            family.sample(&[("route", route), ("status", &status.to_string())], count);
        }
    }
    let mut family = page.histogram("request_duration_seconds", "From a request's head to its answer's head.");
    for (route, answers) in shared.tally.routes() {
        family.durations(&[("route", route)], &answers.durations.read());
    }
}

fn callers(page: &mut Exposition, auth: &Auth) {
    let limiters = auth.limiters();
    let mut family = page.gauge("requests_in_flight", "Requests in flight, by the caller's name.");
    for (caller, limiters) in &limiters {
        let in_flight: u64 = limiters.iter().map(|one| u64::from(one.in_flight())).sum();
        family.sample(&[("caller", caller)], in_flight);
    }
    let mut family = page.counter("caller_limited_total", "Requests refused for the caller's own limits.");
    for (caller, limiters) in &limiters {
        let refused: u64 = limiters.iter().map(|one| one.refused()).sum();
        family.sample(&[("caller", caller)], refused);
    }
    let throttle = auth.throttle();
    page.counter("authentication_failures_total", "Tokens that were not known, by whether they were looked at.")
        .sample(&[("looked_at", "true")], throttle.failures.get())
        .sample(&[("looked_at", "false")], throttle.blocked.get());
}

fn connections(page: &mut Exposition, shared: &AppState) {
    let (strangers, known) = shared.connections.count();
    page.gauge("caller_connections", "Connections of callers, by whether a caller was known on them.")
        .sample(&[("known", "false")], strangers)
        .sample(&[("known", "true")], known);
    let [slow, gave_way, turned_away] =
        [&shared.connections.slow, &shared.connections.gave_way, &shared.connections.turned_away].map(Counter::get);
    page.counter("caller_connections_ended_total", "Connections of callers that the bridge ended or did not take.")
        .sample(&[("why", "slow")], slow)
        .sample(&[("why", "gave-way")], gave_way)
        .sample(&[("why", "turned-away")], turned_away);
    let (keyless, keyed) = shared.native.count();
    page.gauge("native_connections", "Connections that speak the gateway's protocol, by whether they showed a key.")
        .sample(&[("key", "none")], keyless)
        .sample(&[("key", "shown")], keyed);
}

fn exchanges(page: &mut Exposition, shared: &AppState) {
    let mut family = page.counter("exchanges_total", "Commands written to the gateway, by command and outcome.");
    for (instance, tally) in shared.bridge.tallies() {
        for (command, exchanges) in tally.gateway.exchanges() {
            for (outcome, name) in Outcome::ALL {
                let labels = [("pos_instance", instance), ("command", command), ("outcome", name)];
                family.sample(&labels, exchanges.ended(outcome));
            }
        }
    }
    let mut family = page.histogram("exchange_duration_seconds", "From writing a command to the end of its exchange.");
    for (instance, tally) in shared.bridge.tallies() {
        for (command, exchanges) in tally.gateway.exchanges() {
            let read = exchanges.durations.read();
            if read.count > 0 {
                family.durations(&[("pos_instance", instance), ("command", command)], &read);
            }
        }
    }
}

fn links(page: &mut Exposition, shared: &AppState, instances: &[InstanceStatus]) {
    let shards = || instances.iter().flat_map(|one| one.shards.iter().map(|shard| (one.instance.as_str(), shard)));
    let mut family = page.gauge("links", "Connections to the gateway, by shard and state.");
    for (instance, shard) in shards() {
        for state in ["free", "busy", "set-aside"] {
            let count = shard.links.iter().filter(|link| link.state == state).count();
            family.sample(&[("pos_instance", instance), ("shard", &shard.shard), ("state", state)], count);
        }
    }
    let mut family = page.gauge("shard_good", "1 where the last attempt to connect succeeded.");
    for (instance, shard) in shards() {
        family.sample(&[("pos_instance", instance), ("shard", &shard.shard)], u8::from(shard.good));
    }
    let mut family = page.gauge("shard_cordoned", "1 where the shard is taken out by hand.");
    for (instance, shard) in shards() {
        family.sample(&[("pos_instance", instance), ("shard", &shard.shard)], u8::from(shard.cordoned));
    }
    let mut family = page.gauge("shard_round_trip_seconds", "Smoothed round trip of a ping.");
    for (instance, shard) in shards() {
        if let Some(us) = shard.round_trip_us {
            family.micros(&[("pos_instance", instance), ("shard", &shard.shard)], us);
        }
    }
    let mut family = page.counter("connections_total", "Connections to the gateway, by what became of them.");
    for (instance, tally) in shared.bridge.tallies() {
        for (shard, connections) in tally.gateway.shards() {
            let kinds = [("opened", &connections.opened), ("failed", &connections.failed), ("lost", &connections.lost)];
            for (kind, counter) in kinds {
                family.sample(&[("pos_instance", instance), ("shard", shard), ("what", kind)], counter.get());
            }
        }
    }
    let mut family = page.counter("broadcast_frames_total", "Broadcasts heard; each one on every connection.");
    for (instance, tally) in shared.bridge.tallies() {
        family.sample(&[("pos_instance", instance)], tally.gateway.broadcast_frames.get());
    }
}

fn budget_now(page: &mut Exposition, instances: &[InstanceStatus]) {
    type Gauge = (&'static str, &'static str, fn(&WindowStatus) -> u64);
    let gauges: [Gauge; 3] = [
        ("budget_capacity_points", "Points that the gateway gives within a window.", |window| window.capacity_points),
        ("budget_used_points", "Points that are spent or promised at this moment.", |window| window.used_points),
        ("budget_in_flight_points", "Those of them whose commands have not ended.", |window| window.in_flight_points),
    ];
    for (name, help, value) in gauges {
        let mut family = page.gauge(name, help);
        for one in instances {
            for window in known(one) {
                family.sample(&[("pos_instance", &one.instance), ("command", &window.command)], value(window));
            }
        }
    }
    let mut family =
        page.gauge("budget_closed_seconds", "For how long the gateway's `ratelimit` closes the window yet.");
    for one in instances {
        for window in known(one) {
            let labels = [("pos_instance", one.instance.as_str()), ("command", &window.command)];
            family.micros(&labels, window.closed_for_ms.saturating_mul(1000));
        }
    }
    let mut family = page.gauge("budget_waiting", "Commands that wait for points, by class.");
    for one in instances {
        let sum = |waiting: fn(&WindowStatus) -> usize| one.budgets.iter().map(waiting).sum::<usize>();
        let classes = [
            ("payment", sum(|window| window.waiting_payments)),
            ("caller", sum(|window| window.waiting_callers)),
            ("refresh", sum(|window| window.waiting_refreshes)),
        ];
        for (class, waiting) in classes {
            family.sample(&[("pos_instance", &one.instance), ("class", class)], waiting);
        }
    }
    let mut family = page.gauge("link_waiting", "Commands that wait for a link.");
    for one in instances {
        family.sample(&[("pos_instance", &one.instance)], one.waiting);
    }
    let mut family = page.gauge("budget_other_used_points", "Points of commands that are not in the configuration.");
    for one in instances {
        let others = one.budgets.iter().filter(|window| !is_known(window)).map(|window| window.used_points);
        family.sample(&[("pos_instance", &one.instance), ("command", OTHER)], others.sum::<u64>());
    }
}

/// The windows that may be a label: callers cannot invent them.
fn known(instance: &InstanceStatus) -> impl Iterator<Item = &WindowStatus> {
    instance.budgets.iter().filter(|window| is_known(window))
}

fn is_known(window: &WindowStatus) -> bool {
    window.command == "*" || command::find(&window.command).is_some()
}

fn budget_waits(page: &mut Exposition, shared: &AppState) {
    let mut family = page.histogram("budget_wait_seconds", "How long points were waited for, by class.");
    for (instance, tally) in shared.bridge.tallies() {
        for (class, waits) in tally.waits.classes() {
            family.durations(&[("pos_instance", instance), ("class", class)], &waits.durations.read());
        }
    }
    let mut family = page.counter("budget_denied_total", "Commands that got no points in time, by class.");
    for (instance, tally) in shared.bridge.tallies() {
        for (class, waits) in tally.waits.classes() {
            family.sample(&[("pos_instance", instance), ("class", class)], waits.denied.get());
        }
    }
    let mut family = page.counter("budget_closed_total", "How often the gateway said `ratelimit`.");
    for (instance, tally) in shared.bridge.tallies() {
        family.sample(&[("pos_instance", instance)], tally.waits.closed.get());
    }
}

fn reads(page: &mut Exposition, shared: &AppState, status: &BridgeStatus) {
    let mut family = page.counter("cache_answers_total", "Reads, by how they were answered.");
    for (instance, tally) in shared.bridge.tallies() {
        for (answer, name) in Answer::ALL {
            family.sample(&[("pos_instance", instance), ("answer", name)], tally.answers.of(answer));
        }
    }
    let Some(cache) = &status.cache else { return };
    page.gauge("cache_copies", "Copies of replies.").sample(&[], cache.copies);
    page.gauge("cache_size_bytes", "What the copies take, roughly.").sample(&[], cache.bytes);
}

fn payments(page: &mut Exposition, status: &BridgeStatus) {
    let available = u8::from(status.payments.is_some());
    page.gauge("journal_available", "1 while payments can be recorded.").sample(&[], available);
    let Some(payments) = &status.payments else { return };
    let mut family = page.gauge("payments", "Payments on record, by state.");
    for (state, count) in payments.by_state() {
        family.sample(&[("state", state.name())], count);
    }
}

fn contradictions(page: &mut Exposition, shared: &AppState) {
    let help = "Words of the gateway that did not agree with the record of their payment.";
    let mut family = page.counter("payment_contradictions_total", help);
    for (instance, tally) in shared.bridge.tallies() {
        family.sample(&[("pos_instance", instance)], tally.contradictions);
    }
}
