//! The festival: what the whole is for, beside the same load through a bridge without copies and without a count.
//!
//! Twenty points of sale, five services that poll products, payment methods and configuration once a second, three
//! payments a second, `updatepos` every twenty seconds, and a gateway that enforces its limits. The catalogue costs more
//! points cold than the gateway gives in two minutes, so a warm-up comes first. What is told: `ratelimit` errors,
//! payments refused, reads answered, and how many of those were fresh. The second bridge runs with the settings that a
//! bridge without the two would amount to: nothing kept, and a count that never refuses.
//!
//! `FESTIVAL_SECONDS` and `FESTIVAL_WARM_UP` (seconds too) shorten it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use concertpos_bridge::simulator::{self, Counting, LOCKED_POS, Limits, Simulator};
use support::{KEY, free_address, serve, until_ready};

const POINTS_OF_SALE: usize = 20;
const SERVICES: u64 = 5;
const POLL_EVERY: Duration = Duration::from_secs(1);
const PAY_EVERY: Duration = Duration::from_millis(333);
const UPDATE_EVERY: Duration = Duration::from_secs(20);
/// A real gateway across the internet answers about this fast.
const LATENCY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(40));

/// A bridge without copies and without a count.
const WITHOUT: [(&str, &str); 7] = [
    ("BRIDGE_CACHE__LISTPRODUCTS__FRESH", "0s"),
    ("BRIDGE_CACHE__LISTPRODUCTS__STALE", "0s"),
    ("BRIDGE_CACHE__LISTPM__FRESH", "0s"),
    ("BRIDGE_CACHE__LISTPM__STALE", "0s"),
    ("BRIDGE_CACHE__GETCONFIG__FRESH", "0s"),
    ("BRIDGE_CACHE__GETCONFIG__STALE", "0s"),
    ("BRIDGE_LIMITS__CAPACITY", "100000000"),
];

#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    fresh: AtomicU64,
    unanswered: AtomicU64,
    booked: AtomicU64,
    unbooked: AtomicU64,
}

impl Seen {
    fn read(&self, response: &reqwest::Response) {
        if response.status() != 200 {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        let status = response.headers()["cache-status"].to_str().unwrap();
        if !status.contains("ttl=-") {
            self.fresh.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Outcome {
    seen: Arc<Seen>,
    ratelimit_errors: u64,
    commands: u64,
}

fn seconds(variable: &str, default: u64) -> Duration {
    Duration::from_secs(std::env::var(variable).map_or(default, |text| text.parse().unwrap()))
}

/// All but the one that is guarded by a password.
fn points_of_sale() -> impl Iterator<Item = i64> {
    (1..).filter(|pos| *pos != LOCKED_POS).take(POINTS_OF_SALE)
}

fn pages() -> Vec<String> {
    let of = |list: &'static str| points_of_sale().map(move |pos| format!("/points-of-sale/{pos}/{list}"));
    of("products").chain(of("payment-methods")).chain(["/config".to_owned()]).collect()
}

/// One service: asks for every page once a second, all at once.
async fn poll(bridge: String, seen: Arc<Seen>, until: Instant) {
    let http = reqwest::Client::new();
    while Instant::now() < until {
        let next = Instant::now() + POLL_EVERY;
        let asks = pages().into_iter().map(|page| {
            let request = http.get(format!("http://{bridge}/v1/instances/demo{page}")).bearer_auth(KEY);
            let seen = Arc::clone(&seen);
            async move { seen.read(&request.send().await.unwrap()) }
        });
        futures_util::future::join_all(asks).await;
        tokio::time::sleep_until(next.into()).await;
    }
}

/// The tills: a sale at the next point of sale three times a second.
async fn pay(bridge: String, name: &'static str, seen: Arc<Seen>, until: Instant) {
    let http = reqwest::Client::new();
    for (sale, pos) in points_of_sale().collect::<Vec<_>>().into_iter().cycle().enumerate() {
        if Instant::now() >= until {
            return;
        }
        let url = format!("http://{bridge}/v1/instances/demo/points-of-sale/{pos}/payments");
        let body = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}]});
        let request = http.post(url).bearer_auth(KEY).header("Idempotency-Key", format!("{name}-{sale}")).json(&body);
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let booked = request.send().await.unwrap().status() == 201;
            let counter = if booked { &seen.booked } else { &seen.unbooked };
            counter.fetch_add(1, Ordering::Relaxed);
        });
        tokio::time::sleep(PAY_EVERY).await;
    }
}

async fn everybody(bridge: &str, name: &'static str, length: Duration) -> Arc<Seen> {
    let (seen, until) = (Arc::new(Seen::default()), Instant::now() + length);
    let mut tasks: Vec<_> =
        (0..SERVICES).map(|_| tokio::spawn(poll(bridge.to_owned(), Arc::clone(&seen), until))).collect();
    tasks.push(tokio::spawn(pay(bridge.to_owned(), name, Arc::clone(&seen), until)));
    for task in tasks {
        task.await.unwrap();
    }
    seen
}

async fn festival(settings: &[(&str, &str)]) -> Outcome {
    let gateway = Simulator::start(simulator::Config {
        latency: LATENCY,
        limits: Limits::new(Counting::PerCommand),
        broadcast_every: Some(UPDATE_EVERY),
        broadcast_jitter: Duration::from_millis(50),
        arrival_jitter: Duration::from_millis(100),
        ..simulator::Config::default()
    })
    .await
    .unwrap();
    let (bridge, data) = (free_address(), tempfile::tempdir().unwrap());
    let _bridge = serve(&bridge, &gateway.addr().to_string(), data.path(), settings);
    until_ready(&bridge).await;
    everybody(&bridge, "warm-up", seconds("FESTIVAL_WARM_UP", 160)).await;
    gateway.reset_counts();
    let seen = everybody(&bridge, "sale", seconds("FESTIVAL_SECONDS", 120)).await;
    let counts = gateway.counts();
    let commands = counts.commands.values().map(|command| command.received).sum();
    gateway.stop().await;
    Outcome { seen, ratelimit_errors: counts.ratelimit_errors, commands }
}

#[tokio::main]
async fn main() {
    println!(
        "| the festival | `ratelimit` errors | payments booked | refused | reads answered | not | of them fresh | commands |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    // Both at once: they share nothing but the machine, which is idle most of the time.
    let (with, without) = tokio::join!(festival(&[]), festival(&WITHOUT));
    for (name, Outcome { seen, ratelimit_errors, commands }) in
        [("bridge", with), ("without copies and count", without)]
    {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (answered, fresh) = (of(&seen.answered), of(&seen.fresh));
        println!(
            "| {name} | {ratelimit_errors} | {} | {} | {answered} | {} | {} % | {commands} |",
            of(&seen.booked),
            of(&seen.unbooked),
            of(&seen.unanswered),
            fresh * 100 / answered.max(1),
        );
    }
    println!("| to reach | 0 | all | 0 | all | 0 | | |");
}
