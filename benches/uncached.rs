//! What an uncached read costs through the bridge, beside a bridge without promises (`support/bare_bridge.rs`) on the same
//! simulated gateway.
//!
//! All on loopback: the gateway, both bridges, and `wrk` or this process as the caller. The two bridges take turns, so that
//! a machine that is slow for a while is slow for both; the median round's ratio is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use support::{
    Aim, Caller, DEFAULT_BUFFER, KEY, Report, Row, Running, Scene, bare_bridge, free_address, median, median_micros,
    wrk,
};

const LINKS: usize = 32;
/// The bridge's own read buffer: replies are short, and the WebSocket library clears the whole buffer before each read.
const SMALL_BUFFER: usize = 4 << 10;
const ROUNDS: usize = 8;
const LATENCY_SAMPLES: usize = 4_000;
const SECONDS: u64 = 3;

/// Paths that are read in turn by all connections: so many that no two equal reads are under way, which would share one
/// command.
const PATHS: i64 = 10_000;

/// One bridge, and what a round found of it.
struct Side<'a> {
    address: &'a str,
    process: &'a Running,
    rates: Vec<f64>,
    micros: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(address: &'a str, process: &'a Running) -> Self {
        Self { address, process, rates: Vec::new(), micros: Vec::new() }
    }

    /// One round of load: reads a second, and processor time a read in microseconds.
    fn load(&mut self, script: &str, seconds: u64) {
        let before = self.process.processor_seconds();
        let load = wrk::load(&format!("http://{}", self.address), seconds, &["-s", script]);
        let used = self.process.processor_seconds() - before;
        self.rates.push(load.per_second);
        self.micros.push(used * 1e6 / load.requests);
    }
}

/// The script that makes `wrk` read another point of sale each time.
fn script() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = bare_bridge::path(0).replace("/0/", "/\" .. number .. \"/");
    write!(
        file,
        "local number = 0
         wrk.headers['Authorization'] = 'Bearer {KEY}'
         function request()
           number = number % {PATHS} + 1
           return wrk.format(nil, \"{path}\")
         end"
    )
    .unwrap();
    file.flush().unwrap();
    file
}

/// Has processes run on these cores only, in the notation of `taskset`.
fn confine(processes: &[u32], cores: &str) {
    for process in processes {
        let arguments = ["--all-tasks", "--cpu-list", "--pid", cores, &process.to_string()];
        let done = Command::new("taskset").args(arguments).stdout(Stdio::null()).status().expect("Debian's util-linux");
        assert!(done.success());
    }
}

/// One caller at a time on one kept connection each.
async fn latency(bridge: &str, bare: &str, row: impl FnOnce(f64) -> Row, report: &mut Report) {
    let (mut to_bridge, mut to_bare) = (Caller::connect(bridge).await, Caller::connect(bare).await);
    let (mut bridge_times, mut bare_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (mut through, mut beside) = (Vec::new(), Vec::new());
        for sample in 0..LATENCY_SAMPLES / ROUNDS {
            let path = bare_bridge::path(i64::try_from(sample).unwrap());
            through.push(to_bridge.get(&path).await);
            beside.push(to_bare.get(&path).await);
        }
        // The first round warms both up.
        if round > 0 {
            ratios.push(median_micros(&through) / median_micros(&beside));
            bridge_times.extend(through);
            bare_times.extend(beside);
        }
    }
    let row = row(median_micros(&bridge_times)).beside("a bridge without promises", median_micros(&bare_times));
    report.add(row.ratio(median(ratios)));
}

/// All links busy.
fn rates([mut bridge, mut bare, mut small]: [Side<'_>; 3], report: &mut Report) {
    let script = script();
    let script = script.path().to_str().unwrap();
    for side in [&mut bridge, &mut bare, &mut small] {
        side.load(script, 1);
        (side.rates, side.micros) = (Vec::new(), Vec::new());
    }
    for _ in 0..ROUNDS {
        for side in [&mut bridge, &mut bare, &mut small] {
            side.load(script, SECONDS);
        }
    }
    let ratio = |one: &[f64], other: &[f64]| median(one.iter().zip(other).map(|(one, other)| one / other).collect());
    let per_second = |side: &Side<'_>| 1e6 / median(side.micros.clone());
    let per_core = |id, figure| Row::new(id, figure, per_second(&bridge), "/s");
    let row = per_core("uncached-per-core", "uncached reads a second of processor time");
    let row = row.beside("a bridge without promises", per_second(&bare));
    report.add(row.ratio(ratio(&bare.micros, &bridge.micros)).aim(Aim::AtLeast(0.9)));
    let row = per_core("uncached-small-buffers", "the same");
    let row = row.beside("one with read buffers as small as the bridge's", per_second(&small));
    report.add(row.ratio(ratio(&small.micros, &bridge.micros)));
    let row = Row::new("uncached-rate", format!("uncached reads at {LINKS} links"), median(bridge.rates.clone()), "/s");
    let row = row.beside("a bridge without promises", median(bare.rates.clone()));
    report.add(row.ratio(ratio(&bridge.rates, &bare.rates)));
}

fn main() {
    if bare_bridge::has_served() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let scene = Scene::of_links(LINKS).await;
    let (address, beside) = (free_address(), free_address());
    let bare = bare_bridge::start(&address, &scene.gateway, LINKS, DEFAULT_BUFFER, &[]).await;
    let small = bare_bridge::start(&beside, &scene.gateway, LINKS, SMALL_BUFFER, &[]).await;
    let mut report = Report::new();
    let (bridge, row) = (&scene.bridge.address, Row::new);
    let free = |micros| row("uncached-latency", "uncached read, median latency", micros, "µs").aim(Aim::AtMost(1.15));
    latency(bridge, &address, free, &mut report).await;
    let all = [std::process::id(), scene.simulator.id(), scene.bridge.process.id(), bare.id()];
    let cores = available_parallelism().unwrap().get();
    confine(&all, "0");
    let confined = |micros| row("uncached-latency-one-core", "the same, all programs on one core", micros, "µs");
    latency(bridge, &address, confined, &mut report).await;
    confine(&all, &format!("0-{}", cores - 1));
    let bridge = Side::new(&scene.bridge.address, &scene.bridge.process);
    let (bare, small) = (Side::new(&address, &bare), Side::new(&beside, &small));
    tokio::task::block_in_place(|| rates([bridge, bare, small], &mut report));
    report.tell();
}
