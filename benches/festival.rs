//! The festival: what the whole is for, beside the same load through a bridge without copies and without a count.
//!
//! Twenty points of sale, five services that poll products, payment methods and configuration once a second, three
//! payments a second, `updatepos` every twenty seconds, and a gateway that enforces its limits. The catalogue costs more
//! points cold than the gateway gives in two minutes, so a warm-up comes first. What is told: `ratelimit` errors,
//! payments refused, reads answered, and how many of those were fresh. The second bridge runs with the settings that a
//! bridge without the two would amount to: nothing kept, and a count that never refuses.
//!
//! `FESTIVAL_SECONDS` and `FESTIVAL_WARM_UP` (seconds too) shorten it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a bench")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use concertpos_simulator::{self as simulator, Counting, LOCKED_POS, Limits, Simulator};
use support::{Aim, Bridge, KEY, Report, Row};

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

const WITHOUT_NAME: &str = "without copies and count";

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
    let bridge = Bridge::start(&gateway.addr().to_string(), settings).await;
    everybody(&bridge.address, "warm-up", seconds("FESTIVAL_WARM_UP", 160)).await;
    gateway.reset_counts();
    let seen = everybody(&bridge.address, "sale", seconds("FESTIVAL_SECONDS", 120)).await;
    let counts = gateway.counts();
    let commands = counts.commands.values().map(|command| command.received).sum();
    gateway.stop().await;
    Outcome { seen, ratelimit_errors: counts.ratelimit_errors, commands }
}

/// What must not happen, and beside it how often it did without copies and without a count.
fn never(name: &'static str, figure: &str, with: u64, without: u64) -> Row {
    Row::new(name, figure, count(with), "").beside(WITHOUT_NAME, count(without)).aim(Aim::AtMost(0.0))
}

#[allow(clippy::cast_precision_loss, reason = "counts of minutes")]
fn count(of: u64) -> f64 {
    of as f64
}

#[tokio::main]
async fn main() {
    // Both at once: they share nothing but the machine, which is idle most of the time.
    let (with, without) = tokio::join!(festival(&[]), festival(&WITHOUT));
    let of = |counter: fn(&Seen) -> &AtomicU64| {
        [&with, &without].map(|outcome| counter(&outcome.seen).load(Ordering::Relaxed))
    };
    let [answered, answered_without] = of(|seen| &seen.answered);
    let [fresh, _] = of(|seen| &seen.fresh);
    let [booked, booked_without] = of(|seen| &seen.booked);
    let [unanswered, unanswered_without] = of(|seen| &seen.unanswered);
    let [unbooked, unbooked_without] = of(|seen| &seen.unbooked);
    let mut report = Report::new();
    let told = "the festival: `ratelimit` errors";
    report.add(never("festival-ratelimit", told, with.ratelimit_errors, without.ratelimit_errors));
    report.add(never("festival-refused", "its payments refused", unbooked, unbooked_without));
    report.add(never("festival-unanswered", "its reads not answered", unanswered, unanswered_without));
    let beside = |name, figure: &str, with: u64, without: u64| {
        Row::new(name, figure, count(with), "").beside(WITHOUT_NAME, count(without))
    };
    report.add(beside("festival-booked", "its payments booked", booked, booked_without));
    report.add(beside("festival-answered", "its reads answered", answered, answered_without));
    let share = count(fresh) * 100.0 / count(answered.max(1));
    report.add(Row::new("festival-fresh", "of them answered fresh", share, "%"));
    report.add(beside("festival-commands", "commands that the gateway had", with.commands, without.commands));
    report.tell();
}
