//! Chaos: the real program between a gateway and callers of every kind, while everything goes wrong that can.
//!
//! A seed decides a plan (`chaos/plan.rs`): faults of the gateway, connections cut, stalled, slowed and half-closed on
//! either side of the bridge, shards dying, and both sides killed and stopped and started again. Meanwhile callers pay,
//! read and listen, and hold every answer against what they were told before; at the end the gateway's own count is held
//! against all of them, and everything has to work again. No assertion depends on how fast anything goes: those that name
//! a time are far above it.
//!
//! `CHAOS_SEED` and `CHAOS_SECONDS` play one plan of another seed or length (`./scripts/chaos`).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "chaos/answer.rs"]
mod answer;
#[path = "chaos/listener.rs"]
mod listener;
#[path = "chaos/payers.rs"]
mod payers;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/proxy.rs"]
mod proxy;
#[path = "chaos/readers.rs"]
mod readers;
#[path = "chaos/stage.rs"]
mod stage;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use answer::Asking;
use jiff::Timestamp;
use listener::Listener;
use payers::{Heard, Keys, Payer, Sales, Told};
use plan::Plan;
use readers::{PAGES, Reader, is_fresh};
use serde_json::Value;
use stage::Stage;
use support::{OPERATOR, eventually};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The seeds that are always run. Together they hold every kind of fault; further ones are here because they once failed.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// How long each of them goes wrong.
const SECONDS: u64 = 10;

/// How often the same question is asked at the end: long enough for every payment's late reply.
const LAST_ROUNDS: u32 = 400;

/// Everybody who calls.
struct Callers {
    keys: Keys,
    sales: Sales,
    payer: Payer,
    reader: Reader,
    listeners: [Listener; 2],
    enough: CancellationToken,
    deaf: CancellationToken,
    calling: Vec<JoinHandle<()>>,
    listening: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Starts them all: half of each kind talk to the bridge itself, the others through the proxy before it.
    fn start(seed: u64, stage: &Stage) -> Self {
        let (near, far) = (format!("http://{}", stage.listen), format!("http://{}", stage.to_bridge.addr));
        let direct = Asking::new(near.clone(), Some(stage.life.clone()));
        let spoiled = Asking::new(far.clone(), None);
        let (keys, sales, heard) = (Keys::default(), Sales::default(), Arc::new(AtomicU64::new(0)));
        let (enough, deaf) = (CancellationToken::new(), CancellationToken::new());
        let begun = Timestamp::now();
        let listeners =
            [near.clone(), far].map(|base| Listener { base, record: Arc::default(), heard: Arc::clone(&heard), begun });
        let mut calling = Vec::new();
        for (number, asking) in [&direct, &direct, &spoiled, &spoiled].into_iter().enumerate() {
            let seed = seed ^ ((number as u64 + 1) << 32);
            let payer = Payer { asking: asking.clone(), keys: Arc::clone(&keys) };
            calling.push(tokio::spawn(payer.sell(format!("payer{number}"), seed, enough.clone())));
            let reader = Reader { asking: asking.clone(), heard: Arc::clone(&heard) };
            calling.push(tokio::spawn(reader.read(seed, enough.clone())));
        }
        let url = format!("ws://{}/?instance=demo&Content-Type=json", stage.listen);
        calling.push(tokio::spawn(payers::till(url, Arc::clone(&sales), seed, enough.clone())));
        let listening = listeners.iter().map(|one| tokio::spawn(one.clone().listen(deaf.clone()))).collect();
        let payer = Payer { asking: direct.clone(), keys: Arc::clone(&keys) };
        let reader = Reader { asking: direct, heard };
        Self { keys, sales, payer, reader, listeners, enough, deaf, calling, listening }
    }

    /// Ends all but the listeners. What one of them found wrong is told here.
    async fn end(&mut self) {
        self.enough.cancel();
        for one in self.calling.drain(..) {
            one.await.unwrap();
        }
    }
}

async fn status(callers: &Callers) -> Option<Value> {
    let asking = &callers.reader.asking;
    let request = asking.http.get(format!("{}/v1/bridge", asking.base)).bearer_auth(OPERATOR);
    let answer = asking.send(request, "getBridge").await?;
    (answer.status == 200).then(|| serde_json::from_str(&answer.body).unwrap())
}

/// With nothing wrong any more, everything works: links everywhere, every read fresh and of the last update, no payment
/// on its way, and each key with its answer.
async fn works_again(stage: &Stage, callers: &Callers) {
    eventually("links on all shards", async || {
        let Some(status) = status(callers).await else { return false };
        let shards = status["instances"][0]["shards"].as_array().unwrap().clone();
        shards.len() == 3 && shards.iter().all(|shard| !shard["links"].as_array().unwrap().is_empty())
    })
    .await;
    for (page, (path, _)) in PAGES.iter().enumerate() {
        eventually(&format!("a fresh answer to {path}"), async || {
            callers.reader.ask(page, "").await.is_some_and(|answer| is_fresh(&answer))
        })
        .await;
    }
    let keys: Vec<String> = callers.keys.lock().unwrap().keys().cloned().collect();
    for key in &keys {
        let mut rounds = 0;
        while !callers.payer.ask(key).await {
            rounds += 1;
            assert!(rounds < LAST_ROUNDS, "{key} never has its answer: {:?}", callers.keys.lock().unwrap()[key]);
            sleep(Duration::from_millis(20)).await;
        }
    }
    eventually("no payment is on its way", async || {
        let Some(status) = status(callers).await else { return false };
        status["payments"]["dispatching"] == 0 && status["payments"]["reserved"] == 0
    })
    .await;
    stage.broadcast("the end", 0);
    let sent = stage.sent.lock().unwrap().clone();
    for (number, listener) in callers.listeners.iter().enumerate() {
        let fault = || listener.record.lock().unwrap().fault(&sent);
        for _ in 0..1_000 {
            if fault().is_none() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(fault(), None, "listener {number}");
    }
}

/// The gateway's word against the callers'.
fn settle_up(plan: &Plan, stage: &Stage, callers: &Callers) {
    let counts = stage.gateway().counts();
    let mut bookings: BTreeMap<&str, usize> = BTreeMap::new();
    for payment in &counts.payments {
        *bookings.entry(payment.reference.as_deref().unwrap()).or_default() += 1;
    }
    let booked = |name: &str| bookings.get(name).copied().unwrap_or(0);
    let keys = callers.keys.lock().unwrap().clone();
    for (key, told) in &keys {
        assert!(booked(key) <= 1, "{key} was booked {} times: {told:?}", booked(key));
        assert!(told.booked.is_none() || booked(key) == 1, "{key} was told 201 and is not booked: {told:?}");
        let is_refused = told.booked.is_none() && told.last.1 != "payment-outcome-unknown";
        assert!(!is_refused || booked(key) == 0, "{key} was told that it is refused and is booked: {told:?}");
    }
    let sales = callers.sales.lock().unwrap().clone();
    for (name, heard) in &sales {
        assert!(booked(name) <= 1, "{name} was booked {} times", booked(name));
        assert!(*heard != Heard::Booked || booked(name) == 1, "{name} was told to be booked and is not");
        assert!(*heard != Heard::Refused || booked(name) == 0, "{name} was told to be refused and is booked");
    }
    assert!(counts.max_in_progress <= 1, "{} commands at once on one connection", counts.max_in_progress);
    assert_eq!(counts.unreadable, 0, "the bridge sends only what can be read");
    let refused = counts.ratelimit_errors;
    assert!(refused == 0 || plan.explains_ratelimit(), "the gateway had to refuse: {:?}", counts.commands);
    let [(unmarked, marked, gaps), far] = callers.listeners.each_ref().map(|one| one.record.lock().unwrap().tally());
    let unknown = keys.values().filter(|told| told.last.1 == "payment-outcome-unknown").count();
    println!(
        "{} keys asked {} times: {} booked, {unknown} unknown; a till's {} sales: {} booked; {} commands; {} broadcasts: \
         {unmarked} heard, {marked} marked, {gaps} gaps (through the proxy {far:?}); update {}",
        keys.len(),
        keys.values().map(|told| told.asked).sum::<u32>(),
        keys.values().filter(|told| told.booked.is_some()).count(),
        sales.len(),
        sales.values().filter(|heard| **heard == Heard::Booked).count(),
        counts.commands.values().map(|command| command.received).sum::<u64>(),
        stage.sent.lock().unwrap().len(),
        stage.version(),
    );
    assert!(keys.values().filter(|told: &&Told| told.booked.is_some()).count() > 10, "hardly anything was sold");
}

async fn chaos(seed: u64, seconds: u64) {
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let plan = Plan::of(seed, seconds);
    let mut stage = Stage::set(seed, &plan).await;
    let mut callers = Callers::start(seed, &stage);
    stage.play(&plan).await;
    callers.end().await;
    works_again(&stage, &callers).await;
    settle_up(&plan, &stage, &callers);
    callers.deaf.cancel();
    for one in callers.listening.drain(..) {
        one.await.unwrap();
    }
    stage.stop().await;
    let log = std::fs::read_to_string(stage.log()).unwrap();
    assert!(!log.contains("panicked"), "the bridge panicked:\n{log}");
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_nothing_is_booked_twice_nothing_taken_back_nothing_lost_without_a_word() {
    if let Some(seed) = number_from("CHAOS_SEED") {
        return chaos(seed, number_from("CHAOS_SECONDS").unwrap_or(SECONDS)).await;
    }
    for seed in SEEDS {
        chaos(seed, SECONDS).await;
    }
}
