//! What a crowd costs somebody else: the p99 of token B alone, and then beside 10,000 slow connections and a flood of
//! token A far beyond its limits.
//!
//! B asks at a steady rate for a copy, over kept connections, and each time also over a new one: whoever comes has to
//! find room. A latency counts from when a request was due, so that a stall is not counted once for all that it delays.
//! The crowd is a process of its own, since open files are limited for each, and has only what the others leave of the
//! processors, since its own work is not what is measured. It holds four kinds of connections, each opened again as soon
//! as it is ended: half a first head, half a second head, half a body of token A, and silence.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use support::{Aim, KEY, Report, Row, Running, free_address, median, serve, simulate, until_ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

/// Says to this program that it is the crowd, and where the bridge is.
const CROWD: &str = "BENCH_CROWD";
const FLOODER: &str = "token-a";
/// SHA-256 of [`FLOODER`].
const FLOODER_SHA256: &str = "a70bf50e531ce1a817561f2f5d5b6645d4e806becf58ccc5e8cf6b8045a090a8";
/// Connections of each of the four slow kinds.
const EACH: usize = 2_500;
/// Connections on which A asks again as soon as it is answered.
const FLOOD: usize = 128;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(8);
/// What B asks in a second on kept connections; a tenth of it also over new ones.
const PER_SECOND: u32 = 200;
const PATH: &str = "/v1/instances/demo/points-of-sale/1/products";

fn head(token: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// One slow connection of a kind, for ever.
async fn linger(bridge: String, kind: usize, open: Arc<AtomicU64>) {
    let body = format!(
        "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {FLOODER}\r\n\
         Idempotency-Key: k\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{{"
    );
    loop {
        let Ok(mut stream) = TcpStream::connect(&bridge).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.fetch_add(1, Ordering::Relaxed);
        let beginning = match kind {
            0 => "GET /livez HTTP/1.1\r\nX-",
            1 => "GET /livez HTTP/1.1\r\nHost: bridge\r\n\r\nGET /livez HTTP/1.1\r\nX-",
            2 => &body,
            _ => "",
        };
        let _ = stream.write_all(beginning.as_bytes()).await;
        let mut answer = [0; 1024];
        loop {
            match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
                Ok(Ok(0) | Err(_)) => break,
                // Nothing came: one more byte.
                Err(_) if kind < 3 && stream.write_all(b"a").await.is_err() => break,
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks again and again on one connection.
async fn flood(bridge: String, answered: Arc<AtomicU64>) {
    let request = head(FLOODER);
    loop {
        let Ok(mut stream) = TcpStream::connect(&bridge).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut answer = vec![0; 16 * 1024];
        while stream.write_all(request.as_bytes()).await.is_ok() {
            if !matches!(stream.read(&mut answer).await, Ok(length) if length > 0) {
                break;
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The crowd. Says once a second how many of its connections are open and what was answered to its flood.
async fn crowd(bridge: String) {
    let (open, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for index in 0..4 * EACH {
        tokio::spawn(linger(bridge.clone(), index % 4, Arc::clone(&open)));
        // Not all in one moment: the crowd is there before it is measured.
        if index % 20 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    for _ in 0..FLOOD {
        tokio::spawn(flood(bridge.clone(), Arc::clone(&answered)));
    }
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        let (open, answered) = (open.load(Ordering::Relaxed), answered.swap(0, Ordering::Relaxed));
        println!("{open} {answered}");
    }
}

/// Asks at a steady rate and returns how long each answer took, from when it was due.
async fn ask_steadily(bridge: &str, per_second: u32, kept: bool) -> Vec<Duration> {
    let request = head(KEY);
    let (begun, pause) = (Instant::now(), Duration::from_secs(1) / per_second);
    let mut took = Vec::new();
    let mut stream = None;
    let mut answer = vec![0; 16 * 1024];
    for due in (0..).map(|count| begun + pause * count).take_while(|due| *due < begun + ROUND) {
        // Late is only what an answer before it made late, and not the clock that wakes this up.
        let since = if Instant::now() < due {
            sleep_until(due).await;
            Instant::now()
        } else {
            due
        };
        if stream.is_none() || !kept {
            stream = Some(TcpStream::connect(bridge).await.unwrap());
        }
        let stream = stream.as_mut().unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
        took.push(since.elapsed());
    }
    took
}

/// The p99 of one round, over kept and over new connections, in microseconds.
async fn round(bridge: &str) -> [f64; 2] {
    let lanes = [true; 4].into_iter().chain([false]).map(|kept| {
        let bridge = bridge.to_owned();
        let per_second = if kept { PER_SECOND / 4 } else { PER_SECOND / 10 };
        tokio::spawn(async move { (kept, ask_steadily(&bridge, per_second, kept).await) })
    });
    let mut by_kind = [Vec::new(), Vec::new()];
    for lane in lanes.collect::<Vec<_>>() {
        let (kept, took) = lane.await.unwrap();
        by_kind[usize::from(!kept)].extend(took);
    }
    by_kind.map(|mut took| {
        took.sort();
        took[took.len() * 99 / 100].as_secs_f64() * 1e6
    })
}

#[tokio::main]
async fn main() {
    if let Ok(bridge) = std::env::var(CROWD) {
        return crowd(bridge).await;
    }
    let data = tempfile::tempdir().unwrap();
    let [gateway, bridge] = [(); 2].map(|()| free_address());
    let _gateway = simulate(&gateway, &["--limits", "off"]);
    let token = |part: &str| format!("BRIDGE_AUTH__TOKENS__A__{part}");
    let settings = [
        ("BRIDGE_CACHE__LISTPRODUCTS__FRESH".to_owned(), "1h"),
        (token("SHA256"), FLOODER_SHA256),
        (token("INSTANCES"), "demo"),
        (token("SCOPES"), "read,pay"),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let _bridge = serve(&bridge, &gateway, data.path(), &settings);
    until_ready(&bridge).await;
    // The first round warms all up.
    round(&bridge).await;
    let mut alone = Vec::new();
    for _ in 0..ROUNDS {
        alone.push(round(&bridge).await);
    }
    let log = data.path().join("crowd");
    let output = std::fs::File::create(&log).unwrap();
    let itself = std::env::current_exe().unwrap();
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(itself).env(CROWD, &bridge);
    let _crowd = Running::start_into(&mut command, output);
    let told = || {
        let text = std::fs::read_to_string(&log).unwrap();
        let line = text.lines().last().unwrap_or_default().to_owned();
        let (open, answered) = line.split_once(' ').unwrap_or(("0", "0"));
        (open.parse::<f64>().unwrap_or_default(), answered.parse::<f64>().unwrap_or_default())
    };
    while told().0 < (4 * EACH) as f64 * 0.95 {
        sleep(Duration::from_millis(100)).await;
    }
    let (mut beside, mut open, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        beside.push(round(&bridge).await);
        let (there, answered) = told();
        open.push(there);
        refused.push(answered);
    }
    let mut report = Report::new();
    let rows = [
        ("crowd-kept", "p99 of another token on kept connections, beside a crowd"),
        ("crowd-new", "the same on new connections"),
    ];
    for (at, (name, figure)) in rows.into_iter().enumerate() {
        let [alone, beside] = [&alone, &beside].map(|rounds| median(rounds.iter().map(|round| round[at]).collect()));
        let row = Row::new(name, figure, beside, "µs").beside("alone", alone);
        report.add(row.ratio(beside / alone).aim(Aim::AtMost(2.0)));
    }
    report.add(Row::new("crowd-open", "slow connections in that crowd", median(open), ""));
    report.add(Row::new("crowd-flood", "answers to its flood", median(refused), "/s"));
    report.tell();
}
