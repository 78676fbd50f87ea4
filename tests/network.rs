//! The gateway room on a network where everything goes wrong that a seed plans: delays, losses in either direction,
//! messages held back and delivered all at once, shards that crash and come back, and a gateway that answers twice, late
//! or not at all.
//!
//! It runs in simulated time on one thread, so that a minute passes in a moment and a seed that fails, fails again. No
//! assertion depends on how fast anything really goes.
//!
//! `NETWORK_SEEDS=1000..2000` plays other seeds than the usual ones.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "network/calls.rs"]
mod calls;
#[path = "network/plan.rs"]
mod plan;
#[path = "network/stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use calls::{Book, Call, Caller, GOODBYE, Shared, TICK, Told, config, wrong};
use concertpos_bridge::internals::gateway::{
    self, Dialer, EventSink, LinkEvent, LinkState, NotSent, Pool, Priority, Runtimes, ShardStatus,
};
use concertpos_simulator::Counts;
use fastrand::Rng;
use plan::{Plan, TROUBLE_MS};
use stage::{Network, Stage};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The seeds that are always run; further ones are here because they once failed.
const SEEDS: Range<u64> = 1..7;

/// More than there are links.
const CALLERS: u64 = 12;

/// What exchanges under way are given when the pool stops.
const GRACE: Duration = Duration::from_secs(1);

/// The longest pause before a shard is dialled again.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How long everything is watched to work once it works again.
const CALM: Duration = Duration::from_secs(3);

/// Who is patient enough to be served where nothing is wrong and all links are busy.
const PATIENT: Duration = Duration::from_secs(2);

/// So many of the things that are wrong are shown.
const MOST_SHOWN: usize = 10;

/// Every end that a call can have here.
const ENDS: [&str; 14] = [
    "Left",
    "LeftTheQueue",
    "NotSent(\"no link became free in time\")",
    "NotSent(\"no shard of the gateway can be reached\")",
    "NotSent(\"shutting down\")",
    "NotSent(\"the link went away before the command was written\")",
    "Refused(\"ratelimit\")",
    "Refused(\"server_error\")",
    "Replied",
    "Unknown(\"disconnected\")",
    "Unknown(\"timeout\")",
    "Unknown(\"word\")",
    "late reply: false",
    "late reply: true",
];

/// No connection here uses it; to read the system's certificates takes longer than a run.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| gateway::client_config(None).unwrap());

/// Until the links are back once nothing is wrong any more: what is deaf has to be found out, an attempt under way fails,
/// then comes the longest pause, then one that succeeds.
fn recovery() -> Duration {
    let config = config();
    let found_out = config.ping_interval + config.connect_timeout * 2;
    found_out + config.connect_timeout + LONGEST_PAUSE + config.connect_timeout
}

/// When everything has to work again.
fn well() -> Duration {
    Duration::from_millis(TROUBLE_MS) + recovery()
}

/// What runs on the host of the bridge.
async fn bridge(plan: Plan, book: Shared) -> turmoil::Result {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (begun, before) = (Instant::now(), tasks());
    let open = Arc::new(AtomicI64::new(0));
    let heard = EventSink(Arc::new({
        let open = Arc::clone(&open);
        move |upward| {
            let change = match upward {
                LinkEvent::Opened { .. } => 1,
                LinkEvent::Closed { .. } => -1,
                LinkEvent::Broadcast { .. } | LinkEvent::Unreadable { .. } => 0,
            };
            open.fetch_add(change, Ordering::Relaxed);
        }
    }));
    let pool = Pool::new(config(), "demo", "demo", Dialer::over(Network, Arc::clone(&TLS)), heard);
    let (stop, enough) = (CancellationToken::new(), CancellationToken::new());
    let tending = tokio::spawn(pool.clone().tend(Runtimes::default(), stop.clone(), GRACE));
    let mut callers = JoinSet::new();
    callers.spawn(watch(pool.clone(), Arc::clone(&book), enough.clone()));
    for number in 1..=CALLERS {
        let dice = Rng::with_seed(plan.seed ^ (number << 32));
        let caller = Caller { pool: pool.clone(), book: Arc::clone(&book), dice, begun };
        callers.spawn(caller.call_until(enough.clone()));
    }
    if let Some(stop_ms) = plan.stop_ms {
        // Calls go on while it stops.
        sleep_until(begun + Duration::from_millis(stop_ms)).await;
        stops(&pool, &stop, tending, &book).await;
        enough.cancel();
        gone(&mut callers).await?;
    } else {
        sleep_until(begun + well()).await;
        has_its_links(&pool, &book);
        sleep(CALM).await;
        has_its_links(&pool, &book);
        enough.cancel();
        gone(&mut callers).await?;
        sleep(config().connect_timeout).await;
        has_all_links_free(&pool, &book);
        stops(&pool, &stop, tending, &book).await;
    }
    if open.load(Ordering::Relaxed) != 0 {
        wrong(&book, format!("{} links have never closed", open.load(Ordering::Relaxed)));
    }
    drop(callers);
    if tasks() != before {
        wrong(&book, format!("{} tasks are left", tasks() - before));
    }
    Ok(())
}

async fn gone(callers: &mut JoinSet<()>) -> turmoil::Result {
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    Ok(())
}

/// Whatever happens, there are never more links than may be, but for one while connections move between shards.
async fn watch(pool: Pool, book: Shared, enough: CancellationToken) {
    while !enough.is_cancelled() {
        let status = pool.status();
        let in_service =
            status.shards.iter().flat_map(|shard| &shard.links).filter(|link| link.state != LinkState::SetAside);
        if in_service.count() > config().max_links + 1 {
            wrong(&book, format!("too many links: {status:?}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn has_its_links(pool: &Pool, book: &Shared) {
    let status = pool.status();
    let in_service = |shard: &&ShardStatus| shard.links.iter().any(|link| link.state != LinkState::SetAside);
    if status.shards.iter().filter(in_service).count() < config().min_links {
        wrong(book, format!("links are missing: {status:?}"));
    }
}

/// With nobody calling and nothing wrong, no link may count as busy, and none be listened to for a late reply.
fn has_all_links_free(pool: &Pool, book: &Shared) {
    let status = pool.status();
    if status.waiting > 0
        || status.shards.iter().flat_map(|shard| &shard.links).any(|link| link.state != LinkState::Free)
    {
        wrong(book, format!("not at rest: {status:?}"));
    }
}

/// Tells the pool to stop, and waits until it has. What is being dialled then is dialled to its end and closed.
async fn stops(pool: &Pool, stop: &CancellationToken, tending: JoinHandle<()>, book: &Shared) {
    stop.cancel();
    let limit = GRACE + GOODBYE.max(config().connect_timeout * 2) + TICK;
    if timeout(limit, tending).await.is_err() {
        wrong(book, format!("stopping takes more than {limit:?}: {:?}", pool.status()));
    }
    let refused = pool.checkout(Priority::Payment, Instant::now() + PATIENT, None).await.map(drop);
    if refused != Err(NotSent::Draining) {
        wrong(book, format!("a stopped pool says {refused:?}"));
    }
}

/// A run of one seed: every call, and what the gateway says.
struct Run {
    plan: Plan,
    calls: Vec<Call>,
    wrong: Vec<String>,
    counts: Counts,
}

impl Run {
    fn of(seed: u64) -> Self {
        let plan = Plan::of(seed);
        let book = Shared::default();
        let mut stage = Stage::set(seed, bridge(plan.clone(), Arc::clone(&book)));
        let played = stage.play(&plan);
        let counts = stage.gateway.counts();
        let Book { calls, mut wrong, .. } = std::mem::take(&mut *book.lock().unwrap());
        wrong.extend(played.err().map(|why| why.to_string()));
        let mut run = Self { plan, calls, wrong, counts };
        run.hold_against_the_gateway();
        run.hold_against_the_calm();
        run
    }

    /// What was told has to be what the gateway saw.
    fn hold_against_the_gateway(&mut self) {
        for call in self.calls.iter().filter(|call| call.ask.books()) {
            let reference = call.reference();
            let received = self.counts.payitems_received.get(&reference).copied().unwrap_or_default();
            let booked = self.counts.bookings(&reference);
            let holds = match &call.told {
                Told::NotSent(_) | Told::LeftTheQueue => received == 0,
                // The gateway may book what it refused; then that is heard later.
                Told::Refused(_) => booked == 0 || call.late == Some(true),
                Told::Replied => received == 1 && booked == 1,
                Told::Unknown(_) => call.late != Some(true) || booked == 1,
                Told::Left => true,
            };
            if !holds || received > 1 || booked > 1 {
                self.wrong.push(format!("received {received} times and booked {booked} times: {call:?}"));
            }
        }
        if self.counts.max_in_progress > 1 {
            self.wrong.push(format!("{} commands at once on one connection", self.counts.max_in_progress));
        }
    }

    /// Where nothing is wrong any more, everybody who is patient is served.
    fn hold_against_the_calm(&mut self) {
        if self.plan.stop_ms.is_some() {
            return;
        }
        let calm = self.calls.iter().filter(|call| call.begun >= well() && call.patience >= PATIENT);
        let unserved = calm.filter(|call| !matches!(call.told, Told::Replied | Told::LeftTheQueue | Told::Left));
        self.wrong.extend(unserved.map(|call| format!("not served though all is well: {call:?}")));
    }

    /// What is wrong with it, with all that one needs to look into it.
    fn complaint(&self) -> Option<String> {
        let shown: Vec<_> = self.wrong.iter().take(MOST_SHOWN).map(String::as_str).collect();
        let (seed, count) = (self.plan.seed, self.wrong.len());
        (count > 0).then(|| format!("seed {seed}, {count} things wrong:\n{}\n{:#?}\n", shown.join("\n"), self.plan))
    }

    /// Every kind of end that there was.
    fn ends(&self) -> impl Iterator<Item = String> {
        let late = self.calls.iter().filter_map(|call| call.late).map(|came| format!("late reply: {came}"));
        self.calls.iter().map(|call| format!("{:?}", call.told)).chain(late)
    }
}

/// `NETWORK_SEEDS`, or nothing.
fn other_seeds() -> Option<Range<u64>> {
    let given = std::env::var("NETWORK_SEEDS").ok()?;
    let (first, end) = given.split_once("..").expect("NETWORK_SEEDS is like 1000..2000");
    Some(first.parse().expect("a seed")..end.parse().expect("a seed"))
}

#[test]
fn whatever_the_network_does_each_call_ends_in_time_with_the_truth_and_the_links_come_back() {
    let (mut ends, mut complaints) = (BTreeSet::new(), Vec::new());
    for seed in other_seeds().unwrap_or(SEEDS) {
        let run = Run::of(seed);
        ends.extend(run.ends());
        complaints.extend(run.complaint());
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    if other_seeds().is_none() {
        let expected = ENDS.into_iter().map(str::to_owned).collect();
        assert_eq!(ends, expected, "together the usual seeds hold every end that a call can have");
    }
}

#[test]
fn a_seed_does_the_same_each_time() {
    let (first, second) = (Run::of(SEEDS.start), Run::of(SEEDS.start));
    for (first, second) in first.calls.iter().zip(&second.calls) {
        assert_eq!(first, second);
    }
    assert_eq!((first.calls.len(), first.counts), (second.calls.len(), second.counts));
}
