//! A bridge that is killed and started again goes on where it was: with its copies, and with what it has spent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use concertpos_simulator::{Config, Counting, Limits, Simulator};
use support::{KEY, eventually};

const WINDOW: Duration = Duration::from_secs(4);

/// The built program over a gateway, with its data in one folder however often it is started.
struct Program {
    child: Child,
    url: String,
    http: reqwest::Client,
}

impl Program {
    async fn start(listen: &str, gateway: &Simulator, data: &std::path::Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_concertpos-bridge"))
            .arg("serve")
            .env("BRIDGE_SERVER__LISTEN", listen)
            .env("BRIDGE_GATEWAY__URL", gateway.url())
            .env("BRIDGE_INSTANCES__DEMO__API_KEY", KEY)
            .env("BRIDGE_PAYMENTS__JOURNAL", data.join("journal"))
            .env("BRIDGE_CACHE__STORE", data.join("cache"))
            .env("BRIDGE_LIMITS__WINDOW", "4s")
            .env("BRIDGE_LIMITS__MAX_WAIT", "1s")
            .env("BRIDGE_TELEMETRY__LOG", "warn")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self { child, url: format!("http://{listen}"), http: reqwest::Client::new() };
        eventually("it serves", async || {
            let ready = program.http.get(format!("{}/readyz", program.url)).send().await;
            ready.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        program
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("{}/v1/instances/demo{path}", self.url);
        self.http.get(url).bearer_auth(KEY).send().await.unwrap()
    }

    /// Ends it as a power switch would.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an operator would.
    async fn stop(mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        eventually("it has ended", async || self.child.try_wait().unwrap().is_some()).await;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn pages() -> Vec<String> {
    let of = |list: &'static str| (1..=6).map(move |pos| format!("/points-of-sale/{pos}/{list}"));
    let plain = ["/config", "/deposit", "/license", "/points-of-sale"].map(str::to_owned);
    plain.into_iter().chain(of("products")).chain(of("payment-methods")).collect()
}

/// Polls every page at once, again and again until `until`; says which are answered.
async fn poll(program: &Program, pages: &[String], until: Instant) -> Vec<bool> {
    loop {
        let answers = pages.iter().map(async |page| program.get(page).await.status() == 200);
        let answered = futures_util::future::join_all(answers).await;
        if Instant::now() >= until {
            return answered;
        }
    }
}

async fn strict_gateway() -> Simulator {
    let limits = Limits { window: WINDOW, ..Limits::new(Counting::PerCommand) };
    let broadcast_every = Some(Duration::from_secs(3));
    Simulator::start(Config { limits, broadcast_every, ..Config::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_the_festival_every_read_is_answered_and_the_limit_is_never_met() {
    let (gateway, data, listen) = (strict_gateway().await, tempfile::tempdir().unwrap(), free_address());
    let pages = pages();
    let mut program = Program::start(&listen, &gateway, data.path()).await;
    eventually("every page was answered", async || {
        poll(&program, &pages, Instant::now()).await.into_iter().all(|answered| answered)
    })
    .await;
    for _ in 0..4 {
        // Wherever in its window the gateway is by then.
        poll(&program, &pages, Instant::now() + Duration::from_millis(1_300)).await;
        program.kill();
        program = Program::start(&listen, &gateway, data.path()).await;
        let answered = poll(&program, &pages, Instant::now()).await;
        assert!(answered.iter().all(|answered| *answered), "{answered:?}");
        let old = program.get(&pages[5]).await;
        let status = old.headers()["cache-status"].to_str().unwrap();
        assert!(!status.contains("uri-miss"), "it begins with the copies that it had: {status}");
        poll(&program, &pages, Instant::now() + WINDOW).await;
        assert_eq!(gateway.counts().ratelimit_errors, 0, "{:?}", gateway.counts().commands);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started_again_it_never_meets_the_limit() {
    let (gateway, data, listen) = (strict_gateway().await, tempfile::tempdir().unwrap(), free_address());
    let pages = pages();
    for _ in 0..4 {
        let program = Program::start(&listen, &gateway, data.path()).await;
        poll(&program, &pages, Instant::now() + Duration::from_millis(1_500)).await;
        program.stop().await;
    }
    assert!(gateway.counts().command("listproducts").received > 4, "nothing was asked");
    assert_eq!(gateway.counts().ratelimit_errors, 0, "{:?}", gateway.counts().commands);
}
