//! A disk that hangs holds up nobody who is served: what is spent is written by a thread of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use concertpos_simulator::{Config, Counting, Limits, Simulator};
use serde_json::{Value, json};
use support::program::{Program, free_address};
use support::{KEY, eventually};

/// What any answer may take, while the disk hangs and a payment's own record is written.
const PROMPT: Duration = Duration::from_secs(3);

struct World {
    gateway: Simulator,
    data: tempfile::TempDir,
    listen: String,
    http: reqwest::Client,
}

impl World {
    async fn start() -> Self {
        let limits = Limits::new(Counting::PerCommand);
        let gateway = Simulator::start(Config { limits, ..Config::default() }).await.unwrap();
        let http = reqwest::Client::builder().timeout(PROMPT).build().unwrap();
        Self { gateway, data: tempfile::tempdir().unwrap(), listen: free_address(), http }
    }

    async fn program(&self) -> Program {
        let journal = self.data.path().join("journal").display().to_string();
        let settings = [("BRIDGE_LIMITS__CAPACITY", "100")];
        let program = Program::start_with(&self.listen, &self.gateway.url(), &journal, &settings);
        eventually("it has its links", async || {
            let ready = self.http.get(format!("http://{}/readyz?require=gateway", self.listen)).send().await;
            ready.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        program
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.data.path().join("journal").join(name)
    }

    fn saved(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file("spent.jsonl")).unwrap()).unwrap()
    }

    async fn get(&self, path: &str) -> u16 {
        let answer = self.http.get(format!("http://{}{path}", self.listen)).bearer_auth(KEY).send().await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}")).status().as_u16()
    }

    async fn version(&self) -> u16 {
        self.get("/v1/instances/demo/version").await
    }

    async fn sell(&self, key: &str) -> u16 {
        let url = format!("http://{}/v1/instances/demo/points-of-sale/1/payments", self.listen);
        let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
        let answer = self.http.post(url).bearer_auth(KEY).header("Idempotency-Key", key).json(&sale).send().await;
        answer.unwrap_or_else(|error| panic!("{key}: {error}")).status().as_u16()
    }
}

/// Whether the thread that writes what is spent waits for anything but its own pause. The first number is that of the
/// system call it is in.
fn hangs(program: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{program}/task")).unwrap().flatten().map(|entry| entry.path());
    let text = |path: &Path, name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
    let writer = threads.into_iter().find(|thread| text(thread, "comm").trim() == "spending").unwrap();
    let call = text(&writer, "syscall");
    call.split(' ').next().and_then(|number| number.parse::<u32>().ok()).is_some_and(|number| number == OPENAT)
}

#[cfg(target_arch = "x86_64")]
const OPENAT: u32 = 257;
#[cfg(not(target_arch = "x86_64"))]
const OPENAT: u32 = 56;

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_hangs_everything_is_served_and_the_end_comes_and_counts_as_one_out_of_order() {
    let world = World::start().await;
    let program = world.program().await;
    // Whoever opens a pipe to write waits until somebody reads: as a file does on a disk that hangs.
    let pipe = world.file("spent.jsonl.new");
    eventually("the next file is a pipe", async || Command::new("mkfifo").arg(&pipe).status().unwrap().success()).await;
    eventually("the writer hangs", async || {
        // It writes only what is news.
        world.version().await;
        hangs(program.id())
    })
    .await;
    let before = world.gateway.counts();
    for round in 0..20 {
        assert_eq!(world.get("/livez").await, 200, "round {round}");
        assert_eq!(world.sell(&format!("sale-{round}")).await, 201, "round {round}");
        assert_eq!(
            world.get(&format!("/v1/instances/demo/points-of-sale/1/transactions?limit={}", round + 1)).await,
            200
        );
    }
    assert_eq!(world.gateway.counts().payments_booked - before.payments_booked, 20);
    assert!(hangs(program.id()));
    let told = Instant::now();
    program.stop();
    assert!(told.elapsed() < Duration::from_secs(30), "the end waited for the disk: {:?}", told.elapsed());
    assert_eq!(world.saved()["clean"], false);

    fs::remove_file(&pipe).unwrap();
    let program = world.program().await;
    assert_eq!(world.version().await, 429, "what was spent is not known");
    assert_eq!(world.sell("after").await, 201, "but what payments cost is");
    program.stop();
    assert_eq!(world.saved()["clean"], true);
    let payments: u64 = world.saved()["instances"]["demo"]["windows"]["payitems"]["ended"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry[0].as_u64().unwrap())
        .sum();
    assert_eq!(payments, 21, "each payment of the window, those before the restart too");
    assert_eq!(world.gateway.counts().ratelimit_errors, 0);
}
