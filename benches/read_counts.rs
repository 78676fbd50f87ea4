//! How many instructions and system calls an uncached read takes, in the bridge and in a bridge without promises
//! (`support/bare_bridge.rs`), one read at a time.
//!
//! Counted over the whole running program: instructions by valgrind, system calls by strace. Unlike times, these hardly
//! depend on what else the machine does. What the program does without being asked meanwhile is counted too, which is
//! little. Instructions that fill memory with zeros are left out on both sides and told by themselves: valgrind counts one
//! such instruction as many, and the WebSocket library clears its whole read buffer before each read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a bench")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Caller, DEFAULT_BUFFER, Report, Row, Running, bare_bridge, free_address, simulate};
use tempfile::TempDir;

const LINKS: usize = 32;
/// Read before anything is counted.
const WARM_UP: u32 = 300;
const READS: u32 = 1_000;

/// One bridge under a counting program, and what to read from it.
struct Side {
    process: Running,
    caller: Caller,
}

impl Side {
    async fn bridge(wrapper: &[&str], gateway: &str, data: &Path) -> Self {
        let address = free_address();
        let links = LINKS.to_string();
        let settings = [
            ("BRIDGE_GATEWAY__MIN_LINKS", links.as_str()),
            ("BRIDGE_GATEWAY__MAX_LINKS", &links),
            ("BRIDGE_LIMITS__CAPACITY", "100000000"),
        ];
        let process = support::serve_under(wrapper, &address, gateway, data, &settings);
        support::until_ready(&address).await;
        Self::warm(process, &address).await
    }

    async fn bare(wrapper: &[&str], gateway: &str) -> Self {
        let address = free_address();
        let process = bare_bridge::start(&address, gateway, LINKS, DEFAULT_BUFFER, wrapper).await;
        Self::warm(process, &address).await
    }

    async fn warm(process: Running, address: &str) -> Self {
        let mut side = Self { process, caller: Caller::connect(address).await };
        side.read(WARM_UP).await;
        side
    }

    async fn read(&mut self, count: u32) {
        for number in 0..count {
            self.caller.get(&bare_bridge::path(i64::from(number))).await;
        }
    }
}

/// Instructions a read, without those that fill memory with zeros, and those.
async fn instructions(out: &Path, start: impl AsyncFnOnce(&[&str]) -> Side) -> (f64, f64) {
    let file = format!("--callgrind-out-file={}", out.display());
    let mut side =
        start(&["valgrind", "-q", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no", &file]).await;
    let process = side.process.id().to_string();
    let control = |action: &str| {
        let done = Command::new("callgrind_control").args([action, &process]).stdout(Stdio::null()).status();
        assert!(done.expect("callgrind_control, from Debian's package valgrind").success());
    };
    control("--zero");
    side.read(READS).await;
    control("--dump");
    let dump = fs::read_to_string(out.with_extension("1")).unwrap();
    let (mut zeros, mut others) = (0, 0);
    let (mut function, mut of_call) = ("", false);
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = name;
        } else if line.starts_with("calls=") {
            // The next line is what the called function took, which is counted where it stands.
            of_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) && !std::mem::take(&mut of_call) {
            let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            *(if function.contains("memset") { &mut zeros } else { &mut others }) += count;
        }
    }
    (per_read(others), per_read(zeros))
}

/// System calls a read.
async fn system_calls(out: &Path, start: impl AsyncFnOnce(&[&str]) -> Side) -> f64 {
    let mut side = start(&[]).await;
    let process = side.process.id().to_string();
    let strace = Command::new("strace").args(["-f", "-q", "-c", "-o", out.to_str().unwrap(), "-p", &process]).spawn();
    let mut strace = strace.expect("strace, from Debian's package of that name");
    let begun = Instant::now();
    while fs::read_to_string(format!("/proc/{process}/status")).unwrap().contains("TracerPid:\t0\n") {
        assert!(begun.elapsed() < Duration::from_secs(10), "strace never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    side.read(READS).await;
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap();
    strace.wait().unwrap();
    let summary = fs::read_to_string(out).unwrap();
    let total = summary.lines().find(|line| line.ends_with(" total")).unwrap();
    // Share, seconds, microseconds a call, calls.
    per_read(total.split_whitespace().nth(3).unwrap().parse().unwrap())
}

fn per_read(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("fewer than four thousand million")) / f64::from(READS)
}

async fn measure() {
    let folder = TempDir::new().unwrap();
    let (at, gateway) = (|name: &str| folder.path().join(name), free_address());
    let _simulator = simulate(&gateway, &["--limits", "off", "--latency-max", "0ms"]);
    // First, since it waits for the gateway.
    let bridge =
        async |wrapper: &[&str]| Side::bridge(wrapper, &gateway, &TempDir::new_in(&folder).unwrap().keep()).await;
    let bare = async |wrapper: &[&str]| Side::bare(wrapper, &gateway).await;
    let mut report = Report::new();
    let (through, zeros) = instructions(&at("bridge"), bridge).await;
    let (beside, bare_zeros) = instructions(&at("bare"), bare).await;
    let row = Row::new("uncached-instructions", "instructions of an uncached read", through, "");
    report.add(row.beside("a bridge without promises", beside).ratio(through / beside));
    let row = Row::new("uncached-zeros", "more of them to clear read buffers", zeros, "");
    report.add(row.beside("a bridge without promises", bare_zeros));
    let through = system_calls(&at("bridge.calls"), bridge).await;
    let beside = system_calls(&at("bare.calls"), bare).await;
    let row = Row::new("uncached-system-calls", "system calls of an uncached read", through, "");
    report.add(row.beside("a bridge without promises", beside).ratio(through / beside));
    report.tell();
}

fn main() {
    if bare_bridge::has_served() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}
