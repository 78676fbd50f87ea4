//! What the benches share: the program as its operators run it, on loopback, ended with the bench.

#![allow(dead_code, reason = "each bench uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that cannot go on ends"
)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// A bridge over a gateway, with its data in a folder and further settings.
pub(crate) fn serve(bridge: &str, gateway: &str, data: &std::path::Path, settings: &[(&str, &str)]) -> Running {
    let mut command = Command::new(PROGRAM);
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
    let begun = Instant::now();
    let http = reqwest::Client::new();
    while begun.elapsed() < PATIENCE {
        let ready = http.get(format!("http://{bridge}/readyz?require=gateway")).send().await;
        if ready.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the bridge at {bridge} never became ready");
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
