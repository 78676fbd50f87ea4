//! Metrics for Prometheus. They name instances and callers, so they want the scope `operate` at every instance, or a
//! listener that only the operator reaches.
//!
//! What the rooms counted, they show themselves; the rest is read from the state at this moment. Units are in the names.
//! Labels come from the configuration, the table of commands or the routes, never from what a caller wrote, so their
//! number is bounded.

use std::fmt;
use std::time::Duration;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, get};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::bridge::attention;
use crate::bridge::metrics as bridge;
use crate::bridge::sales;
use crate::bridge::status::{BridgeStatus, ClusterStatus, InstanceStatus, ServiceState};
use crate::budget::metrics as budget;
use crate::gateway::metrics as gateway;
use crate::http::auth::{Auth, Caller, Scope};
use crate::http::problem::{Problem, table};
use crate::http::state::AppState;
use crate::telemetry::aggregate::without_instances;
use crate::telemetry::metrics::{CONTENT_TYPE, Families, page};
use crate::telemetry::process;

/// Adds the metrics for callers with a token.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(guarded)
}

#[get("/metrics")]
async fn guarded(caller: Caller, shared: Data<AppState>) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Operate)?;
    // They tell of every instance and every caller.
    if !caller.may_reach_all(shared.bridge.instances().names()) {
        return Err(Problem::new(&table::FORBIDDEN).detail("Metrics want a token that may use every instance."));
    }
    answer(shared).await
}

/// The metrics on the operator's own listener.
#[get("/metrics")]
pub(crate) async fn open(shared: Data<AppState>) -> Result<HttpResponse, Problem> {
    answer(shared).await
}

async fn answer(shared: Data<AppState>) -> Result<HttpResponse, Problem> {
    let runtime = Handle::current();
    // Those of thousands of instances take a while: not on a thread that serves callers.
    let text = spawn_blocking(move || runtime.block_on(text(shared))).await;
    let text = text.map_err(|_| Problem::new(&table::INTERNAL_ERROR))?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).insert_header((CACHE_CONTROL, "no-store")).body(text))
}

async fn text(shared: Data<AppState>) -> String {
    let (status, tasks) = (shared.overview(|_| true).await, shared.runtimes.tasks());
    let instance_label = shared.config.instance_label;
    let page = page(Scrape { shared, status, tasks });
    let page = if instance_label { page } else { without_instances(&page) };
    [page, process::page()].concat()
}

/// Everything at one moment.
#[derive(Debug)]
struct Scrape {
    shared: Data<AppState>,
    status: BridgeStatus,
    tasks: usize,
}

impl Collector for Scrape {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut page;
        let Self { shared, status, tasks } = self;
        process(page, status, *tasks)?;
        shared.metrics.encode(page)?;
        callers(page, &shared.auth)?;
        connections(page, shared)?;
        if let Some(forwarding) = &shared.forwarding {
            forwarding.metrics().encode(page)?;
        }
        let instances = shared.bridge.instances();
        let counted: Vec<_> = instances.metrics().collect();
        gateway::encode(page, &counted.iter().map(|(name, counted)| (*name, counted.gateway)).collect::<Vec<_>>())?;
        let budgets = counted.iter().map(|(instance, counted)| budget::Shown {
            instance,
            metrics: counted.budget,
            in_use: counted.gateway.is_in_use(),
        });
        budget::encode(page, &budgets.collect::<Vec<_>>())?;
        bridge::encode(page, &counted.iter().map(|(name, counted)| (*name, counted.reads)).collect::<Vec<_>>())?;
        let mut family = page.counter(
            "payment_contradictions",
            "Words of the gateway that did not agree with the record of their payment.",
        )?;
        for (instance, counted) in &counted {
            let contradictions = ConstCounter::new(counted.contradictions);
            contradictions.encode(family.encode_family(&[("pos_instance", *instance)])?)?;
        }
        sales::encode(page, &counted.iter().map(|(name, counted)| (*name, counted.sales)).collect::<Vec<_>>())?;
        needing_attention(page, status)?;
        status.cluster.iter().try_for_each(|status| cluster(page, status))?;
        now(page, status)
    }
}

fn process(page: &mut DescriptorEncoder<'_>, status: &BridgeStatus, tasks: usize) -> fmt::Result {
    let mut family = page.gauge("build_info", "The running version.")?;
    family.encode_family(&[("version", status.version)])?.encode_gauge(&1_u64)?;
    page.gauge("uptime_seconds", "How long the bridge has been running.")?.encode_gauge(&status.uptime_seconds)?;
    let draining = u32::from(status.state == ServiceState::Draining);
    page.gauge("draining", "1 once the bridge was told to stop.")?.encode_gauge(&draining)?;
    let subscribers = status.subscribers.unwrap_or_default();
    page.gauge("subscribers", "Event streams that are open.")?.encode_gauge(&subscribers)?;
    page.gauge("tasks", "Tasks that were begun and have not ended.")?.encode_gauge(&tasks)
}

fn callers(page: &mut DescriptorEncoder<'_>, auth: &Auth) -> fmt::Result {
    let limiters = auth.limiters();
    let mut family = page.gauge("requests_in_flight", "Requests in flight, by the caller's name.")?;
    for (caller, limiters) in &limiters {
        let in_flight: u64 = limiters.iter().map(|one| u64::from(one.in_flight())).sum();
        family.encode_family(&[("caller", caller.as_str())])?.encode_gauge(&in_flight)?;
    }
    let mut family = page.counter("caller_limited", "Requests refused for the caller's own limits.")?;
    for (caller, limiters) in &limiters {
        let refused: u64 = limiters.iter().map(|one| one.refused()).sum();
        ConstCounter::new(refused).encode(family.encode_family(&[("caller", caller.as_str())])?)?;
    }
    let throttle = auth.throttle();
    let help = "Tokens that were not known, by whether they were looked at.";
    let mut family = page.counter("authentication_failures", help)?;
    for (looked_at, counter) in [("true", &throttle.failures), ("false", &throttle.blocked)] {
        counter.encode(family.encode_family(&[("looked_at", looked_at)])?)?;
    }
    issuer_keys(page, auth)
}

fn issuer_keys(page: &mut DescriptorEncoder<'_>, auth: &Auth) -> fmt::Result {
    let Some((issuer, keys)) = auth.keys() else { return Ok(()) };
    let status = keys.status(&issuer);
    let mut family = page.gauge("issuer_keys", "Keys of the issuer of JWTs that are in force.")?;
    family.encode_family(&[("issuer", issuer.as_str())])?.encode_gauge(&(status.keys as u64))?;
    if let Some(age_s) = status.age_s {
        let mut family = page.gauge("issuer_keys_age_seconds", "Seconds since they were fetched.")?;
        family.encode_family(&[("issuer", issuer.as_str())])?.encode_gauge(&age_s)?;
    }
    let mut family = page.counter("issuer_key_fetches", "Fetches of an issuer's keys, by whether they brought any.")?;
    for (outcome, counter) in [("fetched", &keys.fetched), ("failed", &keys.failed)] {
        counter.encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    Ok(())
}

fn connections(page: &mut DescriptorEncoder<'_>, shared: &AppState) -> fmt::Result {
    let (anonymous, authenticated) = shared.connections.count();
    let help = "Connections of callers, by whether a caller was known on them.";
    let mut family = page.gauge("caller_connections", help)?;
    for (known, count) in [("false", anonymous), ("true", authenticated)] {
        family.encode_family(&[("known", known)])?.encode_gauge(&count)?;
    }
    let help = "Connections of callers that the bridge ended or did not take.";
    let mut family = page.counter("caller_connections_ended", help)?;
    let ended = &shared.connections;
    for (why, counter) in [("slow", &ended.timed_out), ("gave-way", &ended.evicted), ("turned-away", &ended.refused)] {
        counter.encode(family.encode_family(&[("why", why)])?)?;
    }
    let (keyless, keyed) = shared.native.count();
    let help = "Connections that speak the gateway's protocol, by whether they showed a key.";
    let mut family = page.gauge("native_connections", help)?;
    for (key, count) in [("none", keyless), ("shown", keyed)] {
        family.encode_family(&[("key", key)])?.encode_gauge(&count)?;
    }
    Ok(())
}

/// What the dashboard and `/v1/bridge` show in words.
fn needing_attention(page: &mut DescriptorEncoder<'_>, status: &BridgeStatus) -> fmt::Result {
    let found = attention::findings(status);
    let mut family = page.gauge("attention", "Things that need attention, by what they are.")?;
    for ((instance, code, severity), count) in attention::counts(&found) {
        let instance = instance.map(|instance| ("pos_instance", instance));
        let labels: Vec<_> = instance.into_iter().chain([("code", code), ("severity", severity)]).collect();
        family.encode_family(&labels)?.encode_gauge(&count)?;
    }
    Ok(())
}

/// The replicas as this one knows them.
fn cluster(page: &mut DescriptorEncoder<'_>, status: &ClusterStatus) -> fmt::Result {
    let left = status.lease_left_ms.unwrap_or_default();
    let help = "For how much longer this replica may act without another renewal; 0 while it may not.";
    page.gauge("cluster_lease_seconds", help)?.encode_gauge(&Duration::from_millis(left).as_secs_f64())?;
    let answers = u32::from(status.database.fault.is_none());
    let help = "1 while the database acknowledges renewals.";
    page.gauge("cluster_database_available", help)?.encode_gauge(&answers)?;
    let draining = status.replicas.iter().filter(|replica| replica.draining).count() as u64;
    let mut family = page.gauge("cluster_replicas", "Replicas whose sessions have not ended, by state.")?;
    for (state, count) in [("serving", status.replicas.len() as u64 - draining), ("draining", draining)] {
        family.encode_family(&[("state", state)])?.encode_gauge(&count)?;
    }
    let owned = status.owners.iter().filter(|owner| owner.replica.is_some()).count() as u64;
    let own = status.replicas.iter().find(|replica| Some(&replica.session) == status.session.as_ref());
    let own = own.map_or(0, |replica| replica.owns);
    let by_owner = [("this", own), ("other", owned.saturating_sub(own)), ("none", status.owners.len() as u64 - owned)];
    let mut family = page.gauge("cluster_instances", "Instances that some replica lists, by who owns them.")?;
    for (owner, count) in by_owner {
        family.encode_family(&[("owner", owner)])?.encode_gauge(&count)?;
    }
    let changes = ConstCounter::new(status.owner_changes);
    changes.encode(page.counter("cluster_owner_changes", "Changes of owner that were seen.")?)?;
    let sessions = ConstCounter::new(status.sessions_begun);
    sessions.encode(page.counter("cluster_sessions", "Sessions that this replica has begun.")?)
}

/// How things stand at this moment.
fn now(page: &mut DescriptorEncoder<'_>, status: &BridgeStatus) -> fmt::Result {
    let instances = || status.instances.iter().map(|one| (one.instance.as_str(), one));
    let shards: Vec<_> =
        instances().flat_map(|(name, one)| one.shards.iter().map(move |shard| (name, shard))).collect();
    gateway::encode_shards(page, &shards)?;
    let windows = instances().map(|(instance, one)| {
        let InstanceStatus { budgets, in_use, .. } = one;
        budget::ShownWindows { instance, windows: budgets, in_use: *in_use }
    });
    budget::encode_windows(page, &windows.collect::<Vec<_>>())?;
    let mut family = page.gauge("link_waiting", "Commands that wait for a link.")?;
    for (instance, one) in instances() {
        family.encode_family(&[("pos_instance", instance)])?.encode_gauge(&one.waiting)?;
    }
    if let Some(cache) = &status.cache {
        page.gauge("cache_copies", "Copies of replies.")?.encode_gauge(&cache.copies)?;
        page.gauge("cache_size_bytes", "What the copies take, roughly.")?.encode_gauge(&cache.bytes)?;
    }
    let available = u32::from(status.disk.as_ref().is_some_and(|disk| disk.journal_available));
    page.gauge("journal_available", "1 while payments can be recorded.")?.encode_gauge(&available)?;
    let mut family = page.gauge("payments", "Payments on record, by state.")?;
    for (instance, payments) in &status.payments_by_instance {
        for (state, count) in payments.by_state().into_iter().filter(|(_, count)| *count > 0) {
            let labels = [("pos_instance", instance.as_str()), ("state", state.name())];
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{auth, bridge};
    use crate::http::{Config, server};

    const GUIDE: &str = include_str!("../../../docs/operating.md");

    #[actix_web::test]
    async fn every_metric_is_in_the_operators_guide() {
        let shared = Data::new(server::state(bridge(), auth(), Config::default()));
        let mut status = shared.overview(|_| true).await;
        status.cluster = Some(ClusterStatus::default());
        let text = page(Scrape { shared, status, tasks: 0 });
        let text = [text, process::page()].concat();
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert!(names.len() >= 35, "{names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !GUIDE.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "not in docs/operating.md: {missing:?}");
    }
}
