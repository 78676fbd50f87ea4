//! Where a plan is played: the bridge as a process, the gateway, and a proxy before each of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use concertpos_simulator::{self as simulator, Counting, Limits, Simulator};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use crate::plan::{Act, Plan, REQUEST_TIMEOUT_MS, Route, Step, Way};
use crate::proxy::{Proxy, Weather};
use crate::support::program::free_address;
use crate::support::{KEY, OPERATOR, sha256_hex};

const PROGRAM: &str = env!("CARGO_BIN_EXE_concertpos-bridge");

/// Within it the bridge must answer everything but a stream.
pub(crate) const DEADLINE: Duration = Duration::from_secs(6);

/// The most that a bridge may take to stop: its grace, and time for a busy machine.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A window that turns over many times in one run.
const WINDOW: Duration = Duration::from_secs(2);

/// The product whose price says which update a reply is from.
pub(crate) const PRICED: (i64, i64) = (1, 2);

/// The price of each update is so much and its number.
pub(crate) const PRICE_OF_NONE: u64 = 1_000;

/// What was broadcast: its message, and which update it told.
pub(crate) type Said = (String, u64);

/// A broadcast that the gateway made.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) said: Said,
    pub(crate) before: Timestamp,
    pub(crate) after: Timestamp,
}

/// Which life the bridge is in: odd while it runs and nobody has asked it to stop. A caller whose connection breaks
/// though the life is the same, and odd, was failed by the bridge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life(Arc<AtomicU64>);

impl Life {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The stage.
pub(crate) struct Stage {
    gateway: Option<Simulator>,
    to_gateway: Proxy,
    pub(crate) to_bridge: Proxy,
    pub(crate) listen: SocketAddr,
    bridge: Option<Child>,
    pub(crate) life: Life,
    pub(crate) sent: Arc<Mutex<Vec<Sent>>>,
    version: u64,
    faults: BTreeMap<usize, u64>,
    format: &'static str,
    data: tempfile::TempDir,
}

impl Stage {
    /// Sets everything up; the bridge is started last.
    pub(crate) async fn set(seed: u64, plan: &Plan) -> Self {
        let gateway = Simulator::start(simulator::Config {
            seed,
            latency: (Duration::ZERO, Duration::from_millis(20)),
            limits: Limits { window: WINDOW, ..Limits::new(Counting::PerCommand) },
            arrival_jitter: Duration::from_millis(20),
            broadcast_jitter: Duration::from_millis(50),
            session_event: seed.is_multiple_of(2),
            ..simulator::Config::default()
        })
        .await
        .unwrap();
        let listen: SocketAddr = free_address().parse().unwrap();
        let mut stage = Self {
            to_gateway: Proxy::start(gateway.addr()).await,
            to_bridge: Proxy::start(listen).await,
            gateway: Some(gateway),
            listen,
            bridge: None,
            life: Life::default(),
            sent: Arc::default(),
            version: 0,
            faults: BTreeMap::new(),
            format: plan.format,
            data: tempfile::tempdir().unwrap(),
        };
        stage.start_bridge();
        stage
    }

    pub(crate) fn gateway(&self) -> &Simulator {
        self.gateway.as_ref().unwrap()
    }

    /// Which update the price is of.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn start_bridge(&mut self) {
        let path = |name: &str| self.data.path().join(name).display().to_string();
        let gateway = self.to_gateway.addr;
        let settings = [
            ("SERVER__LISTEN", self.listen.to_string()),
            ("SERVER__DEADLINE", format!("{}ms", DEADLINE.as_millis())),
            ("SERVER__SHUTDOWN_GRACE", "4s".to_owned()),
            ("GATEWAY__URL", format!("ws://{gateway}/{{shard}}/?instance={{instance}}&Content-Type={{format}}")),
            ("GATEWAY__FORMAT", self.format.to_owned()),
            ("GATEWAY__MIN_LINKS", "3".to_owned()),
            ("GATEWAY__CONNECT_TIMEOUT", "1s".to_owned()),
            ("GATEWAY__REQUEST_TIMEOUT", format!("{REQUEST_TIMEOUT_MS}ms")),
            ("GATEWAY__LATE_PATIENCE", "3s".to_owned()),
            ("GATEWAY__PING_INTERVAL", "1s".to_owned()),
            ("INSTANCES__DEMO__API_KEY", KEY.to_owned()),
            ("AUTH__GATEWAY_KEY__MAX_IN_FLIGHT", "1000000".to_owned()),
            ("AUTH__GATEWAY_KEY__PER_SECOND", "1000000".to_owned()),
            ("AUTH__TOKENS__OPERATOR__SHA256", sha256_hex(OPERATOR)),
            ("AUTH__TOKENS__OPERATOR__INSTANCES", "demo".to_owned()),
            ("AUTH__TOKENS__OPERATOR__SCOPES", "operate".to_owned()),
            ("LIMITS__WINDOW", format!("{}s", WINDOW.as_secs())),
            ("LIMITS__MAX_WAIT", "1s".to_owned()),
            ("LIMITS__PAY_MAX_WAIT", "2s".to_owned()),
            ("CACHE__STORE", path("cache")),
            ("PAYMENTS__JOURNAL", path("journal")),
            ("EVENTS__HEARTBEAT", "1s".to_owned()),
            ("EVENTS__HISTORY", "100000".to_owned()),
            // A tenth of what a way may be stalled is what may be told apart at most.
            ("EVENTS__SKEW", "500ms".to_owned()),
            ("TELEMETRY__LOG", "warn,concertpos_bridge=debug".to_owned()),
        ];
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").envs(settings.map(|(name, value)| (format!("BRIDGE_{name}"), value)));
        self.bridge = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.life.turn();
    }

    /// What all lives of the bridge have logged.
    pub(crate) fn log(&self) -> std::path::PathBuf {
        self.data.path().join("bridge.log")
    }

    /// Asks the bridge to stop. The first half of a step; [`Stage::await_end`] is the second.
    async fn ask_to_stop(&mut self) {
        // In its first moments a program heeds no signal, and is ended by it like any other.
        let begun = Instant::now();
        while TcpStream::connect(self.listen).await.is_err() && begun.elapsed() < STOP_PATIENCE {
            sleep(Duration::from_millis(5)).await;
        }
        let bridge = self.bridge.as_mut().unwrap();
        assert!(bridge.try_wait().unwrap().is_none(), "the bridge ended by itself");
        self.life.turn();
        assert!(Command::new("kill").args(["-TERM", &bridge.id().to_string()]).status().unwrap().success());
    }

    async fn await_end(&mut self) {
        let (mut bridge, asked) = (self.bridge.take().unwrap(), Instant::now());
        let status = loop {
            if let Some(status) = bridge.try_wait().unwrap() {
                break status;
            }
            if asked.elapsed() > STOP_PATIENCE {
                let _ = bridge.kill();
                panic!("the bridge does not stop");
            }
            sleep(Duration::from_millis(5)).await;
        };
        assert!(status.success(), "a stop in order ends with 0, and not with {status}");
    }

    fn kill(&mut self) {
        let mut bridge = self.bridge.take().unwrap();
        assert!(bridge.try_wait().unwrap().is_none(), "the bridge ended by itself");
        self.life.turn();
        bridge.kill().unwrap();
        bridge.wait().unwrap();
    }

    /// Stops the bridge for good.
    pub(crate) async fn stop(&mut self) {
        self.ask_to_stop().await;
        self.await_end().await;
    }

    /// Plays the plan from beginning to end. Each step begins and ends no earlier than it says, and in their order.
    pub(crate) async fn play(&mut self, plan: &Plan) {
        let begun = Instant::now();
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (number, step) in plan.steps.iter().enumerate() {
            moments.push((step.at_ms, true, number));
            moments.push((step.at_ms + step.for_ms, false, number));
        }
        moments.sort_unstable_by_key(|(at_ms, begins, number)| (*at_ms, *number, !*begins));
        for (at_ms, begins, number) in moments {
            sleep_until(begun + Duration::from_millis(at_ms)).await;
            let step = &plan.steps[number];
            if begins { self.begin(number, step).await } else { self.end(number, step).await }
        }
        self.gateway().clear_faults();
        self.to_gateway.clear();
        self.to_bridge.clear();
    }

    fn proxy(&self, route: Route) -> &Proxy {
        if route == Route::Callers { &self.to_bridge } else { &self.to_gateway }
    }

    async fn begin(&mut self, number: usize, step: &Step) {
        match &step.act {
            Act::Fault(fault) => {
                self.faults.insert(number, self.gateway().add_fault(fault.clone()));
            }
            Act::Dead(shard) => self.gateway().kill(shard).unwrap(),
            Act::Freeze(shard) => self.gateway().freeze(shard).unwrap(),
            Act::Cut(route) => self.proxy(*route).change(*route, |now| now.cuts += 1),
            Act::HalfClose(route, Way::Up) => self.proxy(*route).change(*route, |now| now.closes_up += 1),
            Act::HalfClose(route, Way::Down) => self.proxy(*route).change(*route, |now| now.closes_down += 1),
            Act::Stall(route, Way::Up) => self.proxy(*route).change(*route, |now| now.stalled_up = true),
            Act::Stall(route, Way::Down) => self.proxy(*route).change(*route, |now| now.stalled_down = true),
            Act::Slow(route) => self.proxy(*route).change(*route, |now| now.slow = true),
            Act::Refuse(route) => self.proxy(*route).change(*route, |now| now.refusing = true),
            Act::RestartGateway => {
                self.faults.clear();
                let down = Duration::from_millis(step.for_ms);
                self.gateway = Some(self.gateway.take().unwrap().restarted(down).await.unwrap());
            }
            Act::KillBridge => self.kill(),
            Act::StopBridge => self.ask_to_stop().await,
            Act::Update => {
                self.version += 1;
                let price = format!("{}.00", PRICE_OF_NONE + self.version);
                self.gateway().set_product_price("demo", PRICED.0, PRICED.1, &price).unwrap();
                self.broadcast("updatepos", self.version);
            }
            Act::Say => self.broadcast(&format!("say {number}"), 0),
            Act::SayTwice => {
                self.broadcast(&format!("say {number}"), 0);
                self.broadcast(&format!("say {number}"), 0);
            }
        }
    }

    async fn end(&mut self, number: usize, step: &Step) {
        match &step.act {
            Act::Fault(_) => {
                if let Some(id) = self.faults.remove(&number) {
                    self.gateway().remove_fault(id);
                }
            }
            Act::Dead(shard) => self.gateway().revive(shard).unwrap(),
            Act::Stall(route, _) | Act::Slow(route) | Act::Refuse(route) => {
                self.proxy(*route).change(*route, Weather::clear);
            }
            Act::KillBridge => self.start_bridge(),
            Act::StopBridge => {
                self.await_end().await;
                self.start_bridge();
            }
            _ => {}
        }
    }

    /// Broadcasts, and notes when.
    pub(crate) fn broadcast(&self, message: &str, version: u64) {
        let before = Timestamp::now();
        self.gateway().broadcast("demo", message, &format!("{{version: {version}}}")).unwrap();
        let sent = Sent { said: (message.to_owned(), version), before, after: Timestamp::now() };
        self.sent.lock().unwrap().push(sent);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.data.disable_cleanup(true);
            println!("what the bridge logged: {}", self.log().display());
        }
        if let Some(bridge) = &mut self.bridge {
            let _ = bridge.kill();
            let _ = bridge.wait();
        }
    }
}
