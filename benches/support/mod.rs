//! What the benches share: the program as its operators run it, on loopback, ended with the bench.

#![allow(dead_code, unused_imports, reason = "each bench uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that cannot go on ends"
)]

mod bare;
pub(crate) mod bare_bridge;
mod report;
pub(crate) mod wrk;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use bare::{Bare, Caller, DEFAULT_BUFFER};
pub(crate) use report::{Aim, Report, Row};

/// The program under measurement, built with this bench.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_concertpos-bridge");

/// The key of the simulated instance; also a token that may do everything but operate.
pub(crate) const KEY: &str = "demo-key";

/// The most that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a process may take to end.
const GOODBYE: Duration = Duration::from_secs(3);

/// A process that is ended when the bench is.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn processor_seconds(&self) -> f64 {
        /// `USER_HZ`, in which Linux tells times to programs: the same on all its common architectures.
        const TICKS_A_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // Behind the name, which may hold anything: state is the first, times in the program and in the system are
        // the 12th and 13th.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS_A_SECOND
    }

    /// Memory that it holds, in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// The process, for `/proc`.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// The same, with what it prints in a file.
    pub(crate) fn start_into(command: &mut Command, output: std::fs::File) -> Self {
        Self(command.stdout(output).spawn().unwrap())
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    /// Asks it to end, so that it ends what it has started itself, and insists where it does not.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let begun = Instant::now();
        while begun.elapsed() < GOODBYE && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The template of the gateway's URL.
pub(crate) fn gateway_url(gateway: &str) -> String {
    format!("ws://{gateway}/{{shard}}/?instance={{instance}}&Content-Type={{format}}")
}

/// A simulated gateway.
pub(crate) fn simulate(gateway: &str, flags: &[&str]) -> Running {
    Running::start(Command::new(PROGRAM).args(["simulate", "--listen", gateway]).args(flags))
}

/// `program`, run by `wrapper` where there is one.
pub(crate) fn wrapped(wrapper: &[&str], program: &str) -> Command {
    let Some((first, further)) = wrapper.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(further).arg(program);
    command
}

/// A bridge over a gateway, with its data in a folder and further settings.
pub(crate) fn serve(bridge: &str, gateway: &str, data: &Path, settings: &[(&str, &str)]) -> Running {
    serve_under(&[], bridge, gateway, data, settings)
}

/// The same, run by `wrapper`.
pub(crate) fn serve_under(
    wrapper: &[&str],
    bridge: &str,
    gateway: &str,
    data: &Path,
    settings: &[(&str, &str)],
) -> Running {
    let mut command = wrapped(wrapper, PROGRAM);
    command
        .arg("serve")
        .env("BRIDGE_SERVER__LISTEN", bridge)
        .env("BRIDGE_GATEWAY__URL", gateway_url(gateway))
        .env("BRIDGE_INSTANCES__DEMO__API_KEY", KEY)
        .env("BRIDGE_TELEMETRY__LOG", "warn")
        .env("BRIDGE_AUTH__GATEWAY_KEY__MAX_IN_FLIGHT", "1000000")
        .env("BRIDGE_AUTH__GATEWAY_KEY__PER_SECOND", "1000000000")
        .env("BRIDGE_PAYMENTS__JOURNAL", data.join("journal"))
        .env("BRIDGE_CACHE__STORE", data.join("cache"))
        .envs(settings.iter().copied());
    Running::start(&mut command)
}

/// Waits until a bridge has a link to its gateway.
pub(crate) async fn until_ready(bridge: &str) {
    until_answered(&format!("http://{bridge}/readyz?require=gateway")).await;
}

/// Waits until `url` is answered with 200.
pub(crate) async fn until_answered(url: &str) {
    let begun = Instant::now();
    let http = reqwest::Client::new();
    while begun.elapsed() < PATIENCE {
        if http.get(url).send().await.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{url} was never answered");
}

/// A bridge with a link to its gateway, and the folder with its data.
pub(crate) struct Bridge {
    pub(crate) address: String,
    pub(crate) process: Running,
    pub(crate) data: TempDir,
}

impl Bridge {
    /// Over a gateway that is there already.
    pub(crate) async fn start(gateway: &str, settings: &[(&str, &str)]) -> Self {
        let (address, data) = (free_address(), tempfile::tempdir().unwrap());
        let process = serve(&address, gateway, data.path(), settings);
        until_ready(&address).await;
        Self { address, process, data }
    }
}

/// A simulated gateway that refuses nothing, and a bridge over it.
pub(crate) struct Scene {
    pub(crate) bridge: Bridge,
    pub(crate) gateway: String,
    pub(crate) simulator: Running,
}

impl Scene {
    pub(crate) async fn set(flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let gateway = free_address();
        let simulator = simulate(&gateway, &[&["--limits", "off"], flags].concat());
        let bridge = Bridge::start(&gateway, settings).await;
        Self { bridge, gateway, simulator }
    }

    /// One whose gateway answers at once, and whose bridge keeps so many links and never runs out of points.
    pub(crate) async fn of_links(links: usize) -> Self {
        let links = links.to_string();
        let settings = [
            ("BRIDGE_GATEWAY__MIN_LINKS", links.as_str()),
            ("BRIDGE_GATEWAY__MAX_LINKS", &links),
            ("BRIDGE_LIMITS__CAPACITY", "100000000"),
        ];
        Self::set(&["--latency-max", "0ms"], &settings).await
    }
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The middle of some times, in microseconds.
pub(crate) fn median_micros(times: &[Duration]) -> f64 {
    median(times.iter().map(|time| time.as_secs_f64() * 1e6).collect())
}
