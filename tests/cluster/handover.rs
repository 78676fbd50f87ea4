//! Changes of owner as callers and listeners see them: in order, where nobody notices, and after a kill, where listeners are told
//! what they may have missed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use concertpos_simulator::{self as simulator, Counting, LOCKED_POS, Limits, Simulator};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::alone;
use super::replicas::{Answer, BACK, Cluster, SLACK, Setup, answer};
use super::support::{KEY, OPERATOR};

const NEWS_EVERY: Duration = Duration::from_millis(100);

/// By when an owner that is told to stop has handed over: its next owner listens for eight seconds before.
const HANDED_OVER: Duration = Duration::from_secs(12);
/// That of the gateway.
const WINDOW: Duration = Duration::from_secs(30);

/// Pages of which copies are kept.
const PAGES: [&str; 3] =
    ["/points-of-sale/1/products", "/points-of-sale/2/products", "/points-of-sale/1/payment-methods"];

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    News(u64),
    Gap(Timestamp, Timestamp),
    Other(String),
}

/// A listener that begins at one replica, and comes back to whichever takes its connection, after the last id that it had.
struct Listener {
    urls: Vec<String>,
    http: reqwest::Client,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Listener {
    async fn open(&self, after: &str) -> Option<reqwest::Response> {
        for url in &self.urls {
            let request = self.http.get(format!("{url}/v1/instances/demo/events")).bearer_auth(KEY);
            let request = request.header("Last-Event-ID", after).timeout(Duration::from_hours(1));
            if let Ok(response) = request.send().await {
                return Some(response);
            }
        }
        None
    }

    async fn listen(self) {
        let mut last = String::new();
        loop {
            if let Some(mut response) = self.open(&last).await {
                let mut unread = Vec::new();
                while let Ok(Some(chunk)) = response.chunk().await {
                    unread.extend_from_slice(&chunk);
                    while let Some(end) = unread.windows(2).position(|two| two == b"\n\n") {
                        let block: Vec<u8> = unread.drain(..end + 2).collect();
                        self.take(&String::from_utf8(block).unwrap(), &mut last);
                    }
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn take(&self, block: &str, last: &mut String) {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim_start));
        let Some(data) = field("data") else { return };
        if let Some(id) = field("id") {
            id.clone_into(last);
        }
        let data: Value = serde_json::from_str(data).unwrap();
        let told = match field("event") {
            // Who is sent to the next owner is to come back soon.
            Some("overloaded")
                if data["reason"] == "draining" && field("retry").unwrap().parse::<u64>().unwrap() > 5000 =>
            {
                Told::Other(format!("late: {block}"))
            }
            Some("overloaded" | "ready") => return,
            Some("gap") => {
                let at = |name: &str| data[name].as_str().unwrap().parse().unwrap();
                Told::Gap(at("from"), at("to"))
            }
            Some(other) => Told::Other(format!("{other}: {data}")),
            None if data["maybe_duplicate"] == true => Told::Other(format!("marked: {data}")),
            None if data["message"] == "news" => Told::News(data["parameters"]["number"].as_u64().unwrap()),
            None => return,
        };
        self.told.lock().unwrap().push(told);
    }
}

/// A listener through each replica, and numbered broadcasts. All of them end with it.
struct Audience {
    told: Vec<Arc<Mutex<Vec<Told>>>>,
    tasks: Vec<JoinHandle<()>>,
    telling: Option<JoinHandle<u64>>,
    /// There are no news for now.
    paused: Arc<AtomicBool>,
    silence: CancellationToken,
}

impl Drop for Audience {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Audience {
    async fn gather(cluster: &Cluster) -> Self {
        let urls: Vec<_> = cluster.replicas.iter().map(|replica| replica.url.clone()).collect();
        let told: Vec<Arc<Mutex<Vec<Told>>>> = urls.iter().map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        for (number, told) in told.iter().enumerate() {
            let mut urls = urls.clone();
            urls.rotate_left(number);
            let listener = Listener { urls, http: cluster.http.clone(), told: Arc::clone(told) };
            tasks.push(tokio::spawn(listener.listen()));
        }
        let (silence, paused) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let telling = tell(Arc::clone(&cluster.gateway), Arc::clone(&paused), silence.clone());
        let audience = Self { told, tasks, telling: Some(tokio::spawn(telling)), paused, silence };
        audience.until_all_hear(5, SLACK * 5).await;
        // What was told of the time before the first link is not looked at.
        audience.told.iter().for_each(|told| told.lock().unwrap().retain(|one| matches!(one, Told::News(_))));
        audience
    }

    /// Waits until each listener has heard so many more.
    async fn until_all_hear(&self, more: usize, limit: Duration) {
        let heard =
            |told: &Mutex<Vec<Told>>| told.lock().unwrap().iter().filter(|one| matches!(one, Told::News(_))).count();
        let goals: Vec<_> = self.told.iter().map(|told| heard(told) + more).collect();
        let began = Instant::now();
        while self.told.iter().zip(&goals).any(|(told, goal)| heard(told) < *goal) {
            assert!(began.elapsed() < limit, "not all of them hear any more");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What each was told, once it has heard the last of the news.
    async fn end(mut self) -> Vec<Vec<Told>> {
        self.silence.cancel();
        let last = self.telling.take().unwrap().await.unwrap();
        let began = Instant::now();
        let is_whole = |told: &Mutex<Vec<Told>>| told.lock().unwrap().contains(&Told::News(last));
        while !self.told.iter().all(|told| is_whole(told)) {
            assert!(began.elapsed() < SLACK * 5, "the last news are not heard by all: {:?}", self.told);
            sleep(Duration::from_millis(10)).await;
        }
        self.told.iter().map(|told| told.lock().unwrap().clone()).collect()
    }
}

/// Numbered broadcasts until there are enough; the last number.
async fn tell(gateway: Arc<Simulator>, paused: Arc<AtomicBool>, enough: CancellationToken) -> u64 {
    let mut number = 0;
    loop {
        if !paused.load(Ordering::SeqCst) {
            number += 1;
            gateway.broadcast("demo", "news", &format!("{{number: {number}}}")).unwrap();
        }
        if enough.run_until_cancelled(sleep(NEWS_EVERY)).await.is_none() {
            return number;
        }
    }
}

fn setup(replicas: usize) -> Setup {
    let gateway = simulator::Config {
        latency: (Duration::from_millis(5), Duration::from_millis(40)),
        limits: Limits::new(Counting::PerCommand),
        arrival_jitter: Duration::from_millis(100),
        ..simulator::Config::default()
    };
    let setup = Setup::of(replicas)
        .gateway(gateway)
        .set("limits.capacity", "100")
        .set("limits.window", &format!("\"{}s\"", WINDOW.as_secs()));
    // Longer than a handover: callers send nothing more to a replica by when it closes its connections.
    let delay = format!("\"{}s\"", HANDED_OVER.as_secs());
    setup.set("limits.max_wait", "\"500ms\"").set("server.shutdown_delay", &delay)
}

/// Reads a page through the replicas in turn, until it is told to end. Whatever was not answered 200.
fn read_all_the_time(cluster: &Cluster, page: &'static str, enough: CancellationToken) -> JoinHandle<Vec<Answer>> {
    let caller = cluster.caller();
    tokio::spawn(async move {
        let mut others = Vec::new();
        while !enough.is_cancelled() {
            let told = caller.send(|url| get(&caller.http, url, page)).await;
            if told.status() != Some(200) {
                others.push(told);
            }
            sleep(Duration::from_millis(20)).await;
        }
        others
    })
}

fn get(http: &reqwest::Client, url: &str, page: &str) -> reqwest::RequestBuilder {
    http.get(format!("{url}/v1/instances/demo{page}")).bearer_auth(KEY)
}

/// Has the owner stop, and waits until the other owns the instance.
async fn hand_over(cluster: &mut Cluster, from: usize, to: usize) {
    let asked = Instant::now();
    cluster.replicas[from].ask_to_stop();
    while cluster.owner_of("demo") != Some(to) {
        assert!(asked.elapsed() < HANDED_OVER + SLACK, "it is not handed over:\n{}", cluster.logs());
        sleep(Duration::from_millis(10)).await;
    }
    println!("handed over {} ms after the order to stop", asked.elapsed().as_millis());
    cluster.leave_out(from, true);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_an_owner_hands_over() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(setup(2)).await;
    let (owner, other) = (cluster.owner("demo").await, cluster.other("demo").await);
    let audience = Audience::gather(&cluster).await;
    let caller = cluster.caller();
    for page in PAGES {
        assert_eq!(caller.send(|url| get(&caller.http, url, page)).await.status(), Some(200), "{page}");
    }
    // Of one command the window is spent.
    let mut points_of_sale = (1..).filter(|pos| *pos != LOCKED_POS);
    let mut ask = async || {
        let page = format!("/points-of-sale/{}/transactions?limit=1", points_of_sale.next().unwrap());
        caller.send(|url| get(&caller.http, url, &page)).await
    };
    let spent = Instant::now();
    for asked in 0.. {
        if ask().await.status() == Some(429) {
            break;
        }
        assert!(asked < 200, "its window has no end");
    }
    let fetched = |cluster: &Cluster| {
        let counts = cluster.gateway.counts();
        ["listproducts", "listpm"].map(|command| counts.command(command).received)
    };
    cordon(&cluster, "zeus").await;
    let before = fetched(&cluster);
    let enough = CancellationToken::new();
    let mut readers = Vec::new();
    for page in PAGES {
        readers.push(read_all_the_time(&cluster, page, enough.clone()));
    }
    hand_over(&mut cluster, owner, other).await;
    // What was spent still is. Asked before the replica of before ends, while that has not lapsed.
    let told = ask().await;
    let since = spent.elapsed();
    assert!(since < WINDOW / 3 * 2, "it took {since:?}, and what was spent may have lapsed");
    assert_eq!(told.status(), Some(429), "{since:?} after it was spent: {told:?}\n{}", cluster.logs());
    cluster.replicas[owner].ended().await;
    audience.until_all_hear(10, SLACK * 5).await;
    enough.cancel();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), Vec::new(), "{}", cluster.logs());
    }
    assert_eq!(fetched(&cluster), before, "copies are as fresh as they were");
    assert!(is_cordoned(&cluster, other, "zeus").await, "what was taken out stays out");
    // And nothing else is spent.
    let fresh = |url: &str| get(&caller.http, url, "/points-of-sale/3/products");
    assert_eq!(caller.send(fresh).await.status(), Some(200), "{}", cluster.logs());
    assert_eq!(cluster.gateway.counts().ratelimit_errors, 0);
    // And back, where nothing has come for a while: only pings tell until when it was listened.
    cluster.replicas[owner].run();
    cluster.leave_out(owner, false);
    cluster.until_served(SLACK * 10).await;
    audience.paused.store(true, Ordering::SeqCst);
    hand_over(&mut cluster, other, owner).await;
    cluster.replicas[other].ended().await;
    audience.paused.store(false, Ordering::SeqCst);
    audience.until_all_hear(10, SLACK * 5).await;
    for told in audience.end().await {
        the_news_are_whole(&told, &cluster);
    }
}

/// Takes a shard out by hand.
async fn cordon(cluster: &Cluster, shard: &str) {
    let url = format!("{}/v1/bridge/shards/{shard}", cluster.replicas[0].url);
    let cordon = cluster.http.put(url).bearer_auth(OPERATOR).json(&serde_json::json!({ "cordoned": true }));
    assert_eq!(answer(cordon).await.status(), Some(200));
}

async fn is_cordoned(cluster: &Cluster, number: usize, shard: &str) -> bool {
    let status = cluster.replicas[number].status(&cluster.http, "/v1/bridge").await;
    let shards = status["instances"][0]["shards"].as_array().unwrap().clone();
    shards.iter().any(|one| one["shard"] == shard && one["cordoned"] == true)
}

/// No hole, no repeat, and nothing told beside the news.
fn the_news_are_whole(told: &[Told], cluster: &Cluster) {
    let Some(Told::News(first)) = told.first() else { panic!("nothing is heard: {told:?}") };
    let whole: Vec<_> = (*first..).take(told.len()).map(Told::News).collect();
    let differs = told.iter().zip(&whole).position(|(one, other)| one != other);
    let near = differs.map(|at| &told[at.saturating_sub(3)..(at + 4).min(told.len())]);
    assert_eq!(near, None, "{}", cluster.logs());
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_listeners_go_on_and_are_told_of_a_gap() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(setup(2)).await;
    let owner = cluster.owner("demo").await;
    let other = cluster.other("demo").await;
    let audience = Audience::gather(&cluster).await;
    let killed = Timestamp::now();
    cluster.replicas[owner].kill();
    audience.until_all_hear(10, BACK + SLACK * 2).await;
    assert_eq!(cluster.owner_of("demo"), Some(other));
    for told in audience.end().await {
        let mut next = None;
        let mut is_told = false;
        for one in &told {
            match one {
                Told::News(number) => {
                    let is_next = next.is_none_or(|next| *number == next);
                    let lies_in_a_gap = next.is_some_and(|next| *number > next) && is_told;
                    assert!(is_next || lies_in_a_gap, "{number} instead of {next:?}:\n{}", cluster.logs());
                    next = Some(number + 1);
                }
                Told::Gap(from, to) => is_told |= *from <= killed && *to > killed,
                Told::Other(other) => panic!("{other}\n{}", cluster.logs()),
            }
        }
        assert!(is_told, "nobody heard anything for a while, and that is not told: {told:?}\n{}", cluster.logs());
    }
}
