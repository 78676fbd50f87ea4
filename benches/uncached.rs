//! What an uncached read costs through the bridge, beside a bare WebSocket loop on the same simulated gateway.
//!
//! Three processes on loopback: gateway and bridge as built, and this one as the caller. Bridge and bare loop take
//! turns, so that a machine that is slow for a while is slow for both; medians and ratios are what is reported.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

mod support;

use std::time::{Duration, Instant};

use support::{Aim, Bare, Caller, KEY, Report, Row, Scene, median, median_micros};

const LINKS: usize = 32;
/// More callers than links, so that no link waits for a caller.
const CALLERS: usize = 64;
const ROUNDS: usize = 8;
const LATENCY_SAMPLES: usize = 1_000;
const THROUGHPUT_SLICE: Duration = Duration::from_secs(2);

/// A read that goes to the gateway, and one that the bridge answers by itself: what an HTTP round trip costs anyway.
const THROUGH: &str = "/v1/instances/demo/points-of-sale/1/transactions?limit=1";
const ITSELF: &str = "/v1/instances";

/// The same read, asked of the gateway without a bridge.
fn command() -> String {
    format!(r#"{{"command":"listtransactions","parameters":{{"POSID":1,"Limit":1,"api_key":"{KEY}"}}}}"#)
}

/// Counts what all workers finish in one slice of time.
async fn throughput<W>(workers: Vec<W>) -> (f64, Vec<W>)
where
    W: Worker + Send + 'static,
{
    let begun = Instant::now();
    let running: Vec<_> = workers
        .into_iter()
        .map(|mut worker| {
            tokio::spawn(async move {
                let mut count = 0_u32;
                while begun.elapsed() < THROUGHPUT_SLICE {
                    worker.work().await;
                    count += 1;
                }
                (count, worker)
            })
        })
        .collect();
    let (mut total, mut workers) = (0_u32, Vec::new());
    for one in running {
        let (count, worker) = one.await.unwrap();
        total += count;
        workers.push(worker);
    }
    (f64::from(total) / begun.elapsed().as_secs_f64(), workers)
}

trait Worker {
    fn work(&mut self) -> impl Future<Output = ()> + Send;
}

/// A connection to the gateway and what it asks, again and again.
struct Alone(Bare, String);

/// A connection to the bridge and what it reads. That differs from caller to caller: equal reads at the same moment
/// would share one command.
struct Through(Caller, String);

impl Worker for Alone {
    async fn work(&mut self) {
        self.0.ask(&self.1).await;
    }
}

impl Worker for Through {
    async fn work(&mut self) {
        self.0.get(&self.1).await;
    }
}

/// One caller at a time: what a read takes longer than without a bridge.
async fn latency(scene: &Scene, report: &mut Report) {
    let (mut bare, mut caller) = (Bare::connect(&scene.gateway).await, Caller::connect(&scene.bridge.address).await);
    let (mut bare_times, mut bridge_times, mut http_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for _ in 0..LATENCY_SAMPLES / ROUNDS {
            let (one, other, itself) =
                (bare.ask(&command()).await, caller.get(THROUGH).await, caller.get(ITSELF).await);
            // The first round warms both up.
            if round > 0 {
                bare_times.push(one);
                bridge_times.push(other);
                http_times.push(itself);
            }
        }
    }
    let (alone, through) = (median_micros(&bare_times), median_micros(&bridge_times));
    let http = median_micros(&http_times);
    let added = Row::new("uncached-added", "uncached read, added median latency", through - alone, "µs");
    report.add(added.beside("the read itself, over a bare WebSocket", alone).aim(Aim::AtMost(80.0)));
    let beyond = Row::new("uncached-beyond-http", "of that, beyond an HTTP round trip", through - alone - http, "µs");
    report.add(beyond.beside("an answer of the bridge by itself", http));
}

/// All links busy.
async fn rates(scene: &Scene, report: &mut Report) {
    let (mut sockets, mut callers) = (Vec::new(), Vec::new());
    for _ in 0..LINKS {
        sockets.push(Alone(Bare::connect(&scene.gateway).await, command()));
    }
    for number in 1..=CALLERS {
        let path = format!("/v1/instances/demo/points-of-sale/{number}/transactions?limit=1");
        callers.push(Through(Caller::connect(&scene.bridge.address).await, path));
    }
    let (mut alone, mut through, mut ratios, mut per_second) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS / 2 {
        let (bare_rate, back) = throughput(sockets).await;
        sockets = back;
        let (used, begun) = (scene.bridge.process.processor_seconds(), Instant::now());
        let (bridge_rate, back) = throughput(callers).await;
        let used = scene.bridge.process.processor_seconds() - used;
        callers = back;
        ratios.push(bridge_rate / bare_rate);
        per_second.push(bridge_rate * begun.elapsed().as_secs_f64() / used);
        alone.push(bare_rate);
        through.push(bridge_rate);
    }
    let row = Row::new("uncached-rate", format!("uncached reads at {LINKS} links"), median(through), "/s");
    let row = row.beside(format!("a bare loop on {LINKS} sockets"), median(alone));
    report.add(row.ratio(median(ratios)).aim(Aim::AtLeast(0.8)));
    let row = Row::new("uncached-per-core", "uncached reads a second of processor time", median(per_second), "/s");
    report.add(row);
}

#[tokio::main]
async fn main() {
    let scene = Scene::of_links(LINKS).await;
    let mut report = Report::new();
    latency(&scene, &mut report).await;
    rates(&scene, &mut report).await;
    report.tell();
}
