//! What many instances in one process cost: 1,000 and 4,000 of them at rest, and one of 1,000 that is busy.
//!
//! The gateway is in this process, and the bridges with one instance, 1,000 and 4,000 run beside each other, since at rest they
//! hardly use the machine. They are started one after the other, and measured once the points of their licences have
//! lapsed. What an instance costs is the difference to the bridge with one, by instance. The busy one and the only one
//! of another bridge are asked in turns; a round's ratio is taken within the round, and the median round is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

mod support;

use std::fmt::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use concertpos_simulator::{self as simulator, Simulator};
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Aim, Caller, KEY, PROGRAM, Report, Row, Running, free_address, gateway_url, median, until_ready};
use tempfile::TempDir;
use tokio::time::sleep;

/// With the names of their rows.
const SIZES: [(usize, [&str; 6]); 2] = [
    (
        1_000,
        [
            "scale-memory-1000",
            "scale-processor-1000",
            "scale-listening-1000",
            "scale-ready-1000",
            "scale-scrape-size-1000",
            "scale-scrape-time-1000",
        ],
    ),
    (
        4_000,
        [
            "scale-memory-4000",
            "scale-processor-4000",
            "scale-listening-4000",
            "scale-ready-4000",
            "scale-scrape-size-4000",
            "scale-scrape-time-4000",
        ],
    ),
];
const BUSY_AMONG: usize = 1_000;

/// A window and its guard, in which the points of the licences lapse, and some more.
const SETTLED: Duration = Duration::from_secs(36);
/// Each link is pinged twice in it.
const AT_REST: Duration = Duration::from_secs(30);
const SCRAPES: usize = 15;

const ROUNDS: usize = 8;
const LATENCY_SAMPLES: usize = 300;
const CALLERS: usize = 32;
const SLICE: Duration = Duration::from_secs(2);

fn name(number: usize) -> String {
    format!("event-{number:04}")
}

/// Each instance has one of its own, as at the gateway; the first that of every bench's caller.
fn key(number: usize) -> String {
    if number == 0 { KEY.to_owned() } else { format!("key-of-{number:04}") }
}

/// One bridge with so many instances.
struct Bridge {
    address: String,
    admin: String,
    process: Running,
    listening_ms: f64,
    ready_ms: f64,
    data: TempDir,
}

impl Bridge {
    async fn start(gateway: &Simulator, instances: usize, settings: &[(&str, &str)]) -> Self {
        let (address, admin, data) = (free_address(), free_address(), tempfile::tempdir().unwrap());
        let config = data.path().join("bridge.toml");
        let mut text = String::new();
        for number in 0..instances {
            writeln!(text, "[instances.{}]\napi_key = \"{}\"", name(number), key(number)).unwrap();
        }
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--config"])
            .arg(&config)
            .env("BRIDGE_SERVER__LISTEN", &address)
            .env("BRIDGE_SERVER__ADMIN_LISTEN", &admin)
            .env("BRIDGE_GATEWAY__URL", gateway_url(&gateway.addr().to_string()))
            .env("BRIDGE_TELEMETRY__LOG", "warn")
            .env("BRIDGE_AUTH__GATEWAY_KEY__MAX_IN_FLIGHT", "1000000")
            .env("BRIDGE_AUTH__GATEWAY_KEY__PER_SECOND", "1000000000")
            .env("BRIDGE_PAYMENTS__JOURNAL", data.path().join("journal"))
            .env("BRIDGE_CACHE__STORE", data.path().join("cache"))
            .envs(settings.iter().copied());
        let begun = Instant::now();
        let process = Running::start(&mut command);
        let ms = || begun.elapsed().as_secs_f64() * 1e3;
        while TcpStream::connect(&address).is_err() {
            sleep(Duration::from_micros(200)).await;
        }
        let listening_ms = ms();
        until_ready(&address).await;
        Self { address, admin, process, listening_ms, ready_ms: ms(), data }
    }

    /// Bytes of the metrics, and how long they took, in milliseconds.
    async fn scrape(&self, http: &reqwest::Client) -> (f64, f64) {
        let (mut size, mut times) = (0, Vec::new());
        for _ in 0..SCRAPES {
            let begun = Instant::now();
            let answer = http.get(format!("http://{}/metrics", self.admin)).send().await.unwrap();
            size = answer.bytes().await.unwrap().len();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        (size as f64, median(times))
    }
}

/// What one bridge at rest takes.
struct AtRest {
    instances: usize,
    resident_kb: f64,
    /// Of one core.
    processor_percent: f64,
    listening_ms: f64,
    ready_ms: f64,
    scrape_bytes: f64,
    scrape_ms: f64,
}

/// All sizes at once, the bridge with one instance first.
async fn at_rest(gateway: &Simulator) -> Vec<AtRest> {
    let mut bridges = Vec::new();
    for instances in [1].into_iter().chain(SIZES.map(|(instances, _)| instances)) {
        bridges.push((instances, Bridge::start(gateway, instances, &[]).await));
    }
    sleep(SETTLED).await;
    let used = || bridges.iter().map(|(_, bridge)| bridge.process.processor_seconds()).collect::<Vec<_>>();
    let before = used();
    sleep(AT_REST).await;
    let http = reqwest::Client::new();
    let mut found = Vec::new();
    for ((instances, bridge), (before, after)) in bridges.iter().zip(before.into_iter().zip(used())) {
        // Before the scrapes, whose pages the allocator keeps for a while.
        let resident_kb = bridge.process.resident_mib() * 1024.0 * 1.024;
        let (scrape_bytes, scrape_ms) = bridge.scrape(&http).await;
        found.push(AtRest {
            instances: *instances,
            resident_kb,
            processor_percent: (after - before) * 100.0 / AT_REST.as_secs_f64(),
            listening_ms: bridge.listening_ms,
            ready_ms: bridge.ready_ms,
            scrape_bytes,
            scrape_ms,
        });
    }
    found
}

fn tell_at_rest(found: &[AtRest], report: &mut Report) {
    let [one, many @ ..] = found else { unreachable!() };
    for (many, (_, names)) in many.iter().zip(SIZES) {
        let [memory, processor, listening, ready, size, time] = names;
        let count = many.instances;
        let each = |of: fn(&AtRest) -> f64| (of(many) - of(one)) / (count - 1) as f64;
        let row = Row::new(
            memory,
            format!("resident memory an instance at rest, {count} in one process"),
            each(|at| at.resident_kb),
            "kB",
        );
        report.add(row.beside("a process with one", one.resident_kb).aim(Aim::AtMost(100.0)));
        let figure = format!("processor time at rest, {count} instances");
        let row = Row::new(processor, figure, many.processor_percent, "% of a core");
        report.add(row.beside("one instance", one.processor_percent));
        let row = Row::new(listening, format!("time to listening, {count} instances"), many.listening_ms, "ms");
        report.add(row.beside("one instance", one.listening_ms));
        let figure = format!("time until each of {count} instances has a link");
        report.add(Row::new(ready, figure, many.ready_ms, "ms").beside("one instance", one.ready_ms));
        let figure = format!("`/metrics` an instance at rest, {count} in one process");
        let row = Row::new(size, figure, each(|at| at.scrape_bytes) / 1e3, "kB");
        report.add(row.beside("the whole page with one", one.scrape_bytes / 1e3).aim(Aim::AtMost(2.0)));
        let row = Row::new(time, format!("a scrape of {count} instances"), many.scrape_ms, "ms");
        report.add(row.beside("of one", one.scrape_ms));
    }
}

/// Callers of one instance, whose reads always go to the gateway.
struct Busy {
    process: Running,
    callers: Vec<Caller>,
    _data: TempDir,
}

impl Busy {
    async fn connect(bridge: Bridge) -> (Self, String) {
        let callers = join_all((0..CALLERS).map(|_| Caller::connect(&bridge.address))).await;
        (Self { process: bridge.process, callers, _data: bridge.data }, bridge.admin)
    }

    /// Differs from caller to caller: equal reads at the same moment would share one command.
    fn path(caller: usize) -> String {
        format!("/v1/instances/{}/points-of-sale/{}/transactions?limit=1", name(0), caller + 1)
    }

    /// Microseconds of reads by one caller at a time, in order.
    async fn latencies(&mut self) -> Vec<f64> {
        let (path, mut times) = (Self::path(0), Vec::new());
        for _ in 0..LATENCY_SAMPLES {
            times.push(self.callers[0].get(&path).await.as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        times
    }

    /// Reads a second of processor time, by all callers.
    async fn per_core(&mut self) -> f64 {
        let (used, end) = (self.process.processor_seconds(), Instant::now() + SLICE);
        let reading = self.callers.drain(..).enumerate().map(|(number, mut caller)| {
            tokio::spawn(async move {
                let (path, mut count) = (Self::path(number), 0_u32);
                while Instant::now() < end {
                    caller.get(&path).await;
                    count += 1;
                }
                (caller, count)
            })
        });
        let (callers, counts): (_, Vec<u32>) =
            join_all(reading.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).unzip();
        self.callers = callers;
        f64::from(counts.iter().sum::<u32>()) / (self.process.processor_seconds() - used)
    }
}

/// The p99 of sorted times.
fn p99(times: &[f64]) -> f64 {
    times[times.len() * 99 / 100]
}

/// One busy instance among many, beside one that is alone.
async fn busy(gateway: &Simulator, report: &mut Report) {
    let settings = [("BRIDGE_LIMITS__CAPACITY", "100000000")];
    let (mut alone, _) = Busy::connect(Bridge::start(gateway, 1, &settings).await).await;
    let (mut among, admin) = Busy::connect(Bridge::start(gateway, BUSY_AMONG, &settings).await).await;
    let (mut latency, mut per_core) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (one, other) = (alone.latencies().await, among.latencies().await);
        let rates = if round % 2 == 0 { Some((alone.per_core().await, among.per_core().await)) } else { None };
        // The first round warms both up.
        if round > 0 {
            latency.push((median(one), median(other)));
            per_core.extend(rates);
        }
    }
    let middle = |pairs: &[(f64, f64)], of: fn((f64, f64)) -> f64| median(pairs.iter().copied().map(of).collect());
    let row = |name, figure: String, pairs: &[(f64, f64)], unit| {
        let row = Row::new(name, figure, middle(pairs, |(_, among)| among), unit);
        row.beside("of the only one", middle(pairs, |(alone, _)| alone))
            .ratio(middle(pairs, |(alone, among)| among / alone))
    };
    let figure = format!("uncached read of one busy instance of {BUSY_AMONG}, median latency");
    report.add(row("scale-busy-latency", figure, &latency, "µs"));
    let figure = format!("uncached reads a second of processor time, one busy instance of {BUSY_AMONG}");
    report.add(row("scale-busy-per-core", figure, &per_core, "/s"));
    let mut scraped = Vec::new();
    for _ in 0..ROUNDS {
        let quiet = p99(&among.latencies().await);
        let beside = tokio::select! {
            times = among.latencies() => p99(&times),
            () = scrape_on(&admin) => unreachable!("it has no end"),
        };
        scraped.push((quiet, beside));
    }
    let figure = "p99 of its reads while the metrics are scraped without pause";
    let row = Row::new("scale-busy-scraped", figure, middle(&scraped, |(_, beside)| beside), "µs");
    let row = row.beside("not scraped", middle(&scraped, |(quiet, _)| quiet));
    report.add(row.ratio(middle(&scraped, |(quiet, beside)| beside / quiet)));
}

/// Scrapes for as long as it is polled.
async fn scrape_on(admin: &str) {
    let http = reqwest::Client::new();
    loop {
        http.get(format!("http://{admin}/metrics")).send().await.unwrap().bytes().await.unwrap();
    }
}

/// Both ends of the links need open files, one here.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::main]
async fn main() {
    raise_open_files();
    let most = SIZES.iter().map(|(count, _)| *count).max().unwrap_or_default();
    let instances = (0..most).map(|number| simulator::Instance { slug: name(number), api_key: key(number) });
    let config = simulator::Config { instances: instances.collect(), ..simulator::Config::default() };
    let gateway = Simulator::start(config).await.unwrap();
    let mut report = Report::new();
    tell_at_rest(&at_rest(&gateway).await, &mut report);
    busy(&gateway, &mut report).await;
    gateway.stop().await;
    report.tell();
}
