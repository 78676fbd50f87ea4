//! The soak: the festival's load for an hour, and whether the program holds at its end what it held before.
//!
//! Twenty points of sale, five services that poll, three payments a second, `updatepos` every twenty seconds, a gateway
//! that enforces its limits; beside them listeners that come and go, and a till that connects anew for each command,
//! since what leaks, leaks where something ends. Every ten seconds resident memory, descriptors, threads and tasks are read.
//! After a warm-up of a quarter of the time, at most ten minutes, a line is fitted through each: what it would grow by
//! in the rest of the run must stay within an allowance. The exit status says whether it did.
//!
//! Copies fill and history grows within the warm-up. A payment leaves its record on disk; of the journal's pages a bounded
//! part stays in memory, which three payments a second would take half an hour to fill. So the journal is that of a
//! festival under way: its payments were booked before, at a gateway without limits, and each is sent once more with its
//! key, which reads its record and nothing else.
//!
//! `SOAK_MINUTES` shortens it; `./scripts/soak`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use concertpos_simulator::{self as simulator, Counting, LOCKED_POS, Limits, Simulator};
use data_encoding::HEXLOWER;
use futures_util::{SinkExt, StreamExt};
use sha2::{Digest, Sha256};
use support::{KEY, free_address, serve, until_ready};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

const OPERATOR: &str = "operator-of-the-soak";
const SERVICES: usize = 5;
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
const LONGEST_WARM_UP: Duration = Duration::from_mins(10);
/// How often the till connects for each of its sales.
const LOOKS_A_SALE: usize = 10;
/// Payments booked before: their records are several times what the journal keeps in memory.
const BOOKED_BEFORE: usize = 16_000;
const TILLS_BEFORE: usize = 32;
/// What was spent before counts until this has passed: the window of the limits, and a guard.
const SPENT_COUNTS: Duration = Duration::from_secs(35);
const LATENCY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(40));

/// A figure that is read from the program.
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// By how much it may grow from the end of the warm-up to the end of the run, whatever it is then.
    allowance: f64,
}

/// Memory: what an allocator returns late, in a run of any length. The others come back exactly, but a sample may fall
/// into the moment in which a listener or a payment is there.
const FIGURES: [Figure; 4] = [
    Figure { name: "resident memory", unit: "KiB", allowance: 2_048.0 },
    Figure { name: "descriptors", unit: "", allowance: 3.0 },
    Figure { name: "threads", unit: "", allowance: 1.0 },
    Figure { name: "tasks", unit: "", allowance: 3.0 },
];

#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    unread: AtomicU64,
    booked: AtomicU64,
    unbooked: AtomicU64,
    streams: AtomicU64,
    looks: AtomicU64,
    sales: AtomicU64,
}

impl Seen {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Twenty of them; the locked one wants a password.
fn points_of_sale() -> impl Iterator<Item = i64> {
    (1..).filter(|pos| *pos != LOCKED_POS).take(20)
}

/// Ticks that are not made up for: a machine that stood still must not be followed by a burst.
fn steadily(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// Sends the payments of before, once each, and wants them booked: the first time by the gateway, then by their records.
async fn pay_before(base: &str, replayed: bool) {
    let pay = |till: usize| {
        let (http, url) =
            (reqwest::Client::new(), format!("http://{base}/v1/instances/demo/points-of-sale/1/payments"));
        let body = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}]});
        tokio::spawn(async move {
            for sale in (till..BOOKED_BEFORE).step_by(TILLS_BEFORE) {
                let request = http.post(&url).bearer_auth(KEY).header("Idempotency-Key", format!("before-{sale}"));
                let answer = request.json(&body).send().await.expect("an answer");
                assert_eq!(answer.status(), 201);
                assert_eq!(answer.headers().contains_key("Idempotent-Replayed"), replayed);
            }
        })
    };
    for till in (0..TILLS_BEFORE).map(pay).collect::<Vec<_>>() {
        till.await.expect("a till");
    }
}

/// Leaves a journal of a festival under way.
async fn days_before(data: &Path) {
    let gateway = Simulator::start(simulator::Config::default()).await.expect("a gateway");
    let base = free_address();
    let _bridge = serve(&base, &gateway.addr().to_string(), data, &[("BRIDGE_LIMITS__CAPACITY", "100000000")]);
    until_ready(&base).await;
    pay_before(&base, false).await;
}

/// Polls every page once a second, on connections that are kept.
async fn poll(base: String, seen: Arc<Seen>, until: Instant) {
    let http = reqwest::Client::new();
    let mut ticks = steadily(Duration::from_secs(1));
    while Instant::now() < until {
        ticks.tick().await;
        let lists = points_of_sale().flat_map(|pos| ["products", "payment-methods"].map(|list| (pos, list)));
        let pages = lists.map(|(pos, list)| format!("/points-of-sale/{pos}/{list}")).chain(["/config".to_owned()]);
        let asks = pages.map(|page| {
            let request = http.get(format!("http://{base}/v1/instances/demo{page}")).bearer_auth(KEY);
            async { request.send().await.is_ok_and(|answer| answer.status() == 200) }
        });
        for answered in futures_util::future::join_all(asks).await {
            Seen::count(if answered { &seen.reads } else { &seen.unread });
        }
    }
}

/// Three sales a second, each at the next point of sale, each on a connection of its own.
async fn pay(base: String, seen: Arc<Seen>, until: Instant) {
    let mut ticks = steadily(Duration::from_millis(333));
    for (sale, pos) in points_of_sale().collect::<Vec<_>>().into_iter().cycle().enumerate() {
        if Instant::now() >= until {
            return;
        }
        ticks.tick().await;
        let url = format!("http://{base}/v1/instances/demo/points-of-sale/{pos}/payments");
        let body = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}]});
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let http = reqwest::Client::new();
            let request = http.post(url).bearer_auth(KEY).header("Idempotency-Key", format!("sale-{sale}")).json(&body);
            let booked = request.send().await.is_ok_and(|answer| answer.status() == 201);
            Seen::count(if booked { &seen.booked } else { &seen.unbooked });
        });
    }
}

/// Listeners that come, hear for a few seconds, and go without a word.
async fn listen(base: String, seen: Arc<Seen>, until: Instant) {
    let http = reqwest::Client::new();
    while Instant::now() < until {
        let request = http.get(format!("http://{base}/v1/instances/demo/events")).bearer_auth(KEY);
        if let Ok(mut stream) = request.send().await {
            Seen::count(&seen.streams);
            let listening = async { while matches!(stream.chunk().await, Ok(Some(_))) {} };
            let _ = timeout(Duration::from_secs(3), listening).await;
        }
    }
}

/// A till that connects anew for each command. It looks at its products, and sells now and then: the payments a second
/// leave room in the budget for no more than ten others in a window, and who waits for points would be counted as a task.
async fn till(base: String, seen: Arc<Seen>, until: Instant) {
    let url = format!("ws://{base}/?instance=demo&Content-Type=json5");
    let look = serde_json::json!({"command": "listproducts", "parameters": {"api_key": KEY, "POSID": 1}});
    let sale = serde_json::json!({"command": "payitems", "parameters": {"api_key": KEY, "POSID": 1,
        "PaymentMethod": "1", "Products": [{"ID": 1, "Amount": 1}]}});
    for number in 1_usize.. {
        if Instant::now() >= until {
            return;
        }
        sleep(Duration::from_secs(1)).await;
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(&url).await else { continue };
        let sells = number.is_multiple_of(LOOKS_A_SALE);
        let (command, counter) = if sells { (&sale, &seen.sales) } else { (&look, &seen.looks) };
        if socket.send(Message::text(command.to_string())).await.is_ok()
            && timeout(Duration::from_secs(20), socket.next()).await.is_ok()
        {
            Seen::count(counter);
        }
    }
}

/// A look at the process.
struct Sample {
    at: Duration,
    figures: [f64; FIGURES.len()],
}

fn from_proc(id: u32) -> [f64; 3] {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the program lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc");
        line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).expect("a number")
    };
    let descriptors = fs::read_dir(format!("/proc/{id}/fd")).expect("the program lives").count();
    [field("VmRSS:"), descriptors as f64, field("Threads:")]
}

async fn tasks(http: &reqwest::Client, base: &str) -> f64 {
    let answer = http.get(format!("http://{base}/metrics")).bearer_auth(OPERATOR).send().await.expect("an answer");
    let page = answer.text().await.expect("metrics");
    let line = page.lines().find_map(|line| line.strip_prefix("concertpos_bridge_tasks ")).expect("the gauge");
    line.parse().expect("a number")
}

fn sha256_hex(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

/// How much the least-squares line through points rises for each second.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let under: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    over / under
}

/// Prints the table and says whether everything is flat.
fn judge(samples: &[Sample], warm_up: Duration) -> bool {
    println!("| figure | least | most | at the end of the warm-up | at the end | fitted growth | allowed | flat |");
    println!("|---|---|---|---|---|---|---|---|");
    let settled: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= warm_up).collect();
    let length = settled.last().map_or(Duration::ZERO, |last| last.at.saturating_sub(settled[0].at)).as_secs_f64();
    let mut all_flat = true;
    for (number, Figure { name, unit, allowance }) in FIGURES.iter().enumerate() {
        let points: Vec<_> = settled.iter().map(|one| (one.at.as_secs_f64(), one.figures[number])).collect();
        let growth = slope(&points) * length;
        let is_flat = growth <= *allowance;
        all_flat &= is_flat;
        let values = points.iter().map(|point| point.1);
        let (least, most) = (values.clone().fold(f64::MAX, f64::min), values.fold(0.0, f64::max));
        let (begun, ended) = (points[0].1, points[points.len() - 1].1);
        println!(
            "| {name} | {least} {unit} | {most} {unit} | {begun} {unit} | {ended} {unit} | {growth:+.1} {unit} in {:.0} min | \
             {allowance} {unit} | {} |",
            length / 60.0,
            if is_flat { "yes" } else { "NO" }
        );
    }
    all_flat
}

async fn soak(length: Duration, data: &Path) -> bool {
    days_before(data).await;
    let gateway = Simulator::start(simulator::Config {
        latency: LATENCY,
        limits: Limits::new(Counting::PerCommand),
        broadcast_every: Some(Duration::from_secs(20)),
        broadcast_jitter: Duration::from_millis(50),
        arrival_jitter: Duration::from_millis(100),
        ..simulator::Config::default()
    })
    .await
    .expect("a gateway");
    let base = free_address();
    let digest = sha256_hex(OPERATOR);
    let operator = [
        ("BRIDGE_AUTH__TOKENS__OPERATOR__SHA256", digest.as_str()),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES", "demo"),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__SCOPES", "operate"),
    ];
    let bridge = serve(&base, &gateway.addr().to_string(), data, &operator);
    until_ready(&base).await;
    pay_before(&base, true).await;
    sleep(SPENT_COUNTS).await;
    println!("{BOOKED_BEFORE} payments booked before: {} KiB", from_proc(bridge.id())[0]);
    let (begun, seen) = (Instant::now(), Arc::new(Seen::default()));
    let (until, warm_up) = (begun + length, (length / 4).min(LONGEST_WARM_UP));
    for _ in 0..SERVICES {
        tokio::spawn(poll(base.clone(), Arc::clone(&seen), until));
    }
    tokio::spawn(pay(base.clone(), Arc::clone(&seen), until));
    tokio::spawn(listen(base.clone(), Arc::clone(&seen), until));
    tokio::spawn(till(base.clone(), Arc::clone(&seen), until));
    let (http, mut samples) = (reqwest::Client::new(), Vec::new());
    for number in 1_u32.. {
        let at = begun + SAMPLE_EVERY * number;
        if at > until {
            break;
        }
        sleep_until(at).await;
        let [memory, descriptors, threads] = from_proc(bridge.id());
        let figures = [memory, descriptors, threads, tasks(&http, &base).await];
        samples.push(Sample { at: begun.elapsed(), figures });
        if number.is_multiple_of(30) {
            println!(
                "after {} min: {} KiB, {} descriptors, {} threads, {} tasks",
                number / 6,
                figures[0],
                figures[1],
                figures[2],
                figures[3]
            );
        }
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} reads answered and {} not, {} payments booked and {} not, {} streams, {} looks and {} sales of a till, {} ratelimit \
         errors",
        of(&seen.reads),
        of(&seen.unread),
        of(&seen.booked),
        of(&seen.unbooked),
        of(&seen.streams),
        of(&seen.looks),
        of(&seen.sales),
        gateway.counts().ratelimit_errors,
    );
    judge(&samples, warm_up)
}

#[tokio::main]
async fn main() -> ExitCode {
    let minutes = std::env::var("SOAK_MINUTES").ok().map_or(60, |value| value.parse().expect("minutes"));
    assert!(minutes >= 2, "a line needs more than a minute");
    let data = tempfile::tempdir().expect("a folder");
    if soak(Duration::from_mins(minutes), data.path()).await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
