//! The festival through a balancer over three replicas, each of which is restarted in turn: services poll, tills sell, listeners
//! listen, against a gateway that enforces its limits. No request fails, no sale is booked twice, no listener misses, repeats or is
//! told of a hole.
//!
//! Ignored among the tests, since it takes minutes: `scripts/cluster`. `FESTIVAL_WARM_UP` and `FESTIVAL_SECONDS` shorten it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use concertpos_simulator::{self as simulator, Counting, LOCKED_POS, Limits, Simulator};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::replicas::{Answer, Cluster, Setup, answer, sale};
use super::support::KEY;
use super::{alone, number_from};

const POINTS_OF_SALE: usize = 20;
const SERVICES: usize = 5;
const LISTENERS: usize = 6;
const POLL_EVERY: Duration = Duration::from_secs(1);
const PAY_EVERY: Duration = Duration::from_millis(333);
const UPDATE_EVERY: Duration = Duration::from_secs(20);
const NEWS_EVERY: Duration = Duration::from_millis(200);
/// A real gateway across the internet answers about this fast.
const LATENCY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(40));
/// How often the balancer asks each replica whether it is ready; shorter than `server.shutdown_delay`.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// A balancer as operators have one: it sends requests in turn to replicas that said they are ready, and passes a request to the
/// next one only if no connection came about.
struct Balancer {
    urls: Vec<String>,
    ready: Vec<AtomicBool>,
    turn: AtomicUsize,
    http: reqwest::Client,
}

impl Balancer {
    fn over(cluster: &Cluster, enough: &CancellationToken) -> Arc<Self> {
        let urls: Vec<_> = cluster.replicas.iter().map(|replica| replica.url.clone()).collect();
        let ready = urls.iter().map(|_| AtomicBool::new(true)).collect();
        let balancer = Arc::new(Self { urls, ready, turn: AtomicUsize::new(0), http: cluster.http.clone() });
        tokio::spawn(enough.clone().run_until_cancelled_owned(Arc::clone(&balancer).check()));
        balancer
    }

    async fn check(self: Arc<Self>) {
        loop {
            for (url, ready) in self.urls.iter().zip(&self.ready) {
                let asked = timeout(Duration::from_secs(1), self.http.get(format!("{url}/readyz")).send()).await;
                ready.store(asked.is_ok_and(|answer| answer.is_ok_and(|one| one.status() == 200)), Ordering::SeqCst);
            }
            sleep(CHECK_EVERY).await;
        }
    }

    /// The replicas in the order in which they are tried.
    fn choose(&self) -> Vec<&str> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..self.urls.len()).map(|step| (turn + step) % self.urls.len());
        let mut order: Vec<_> = order.collect();
        order.sort_by_key(|one| !self.ready[*one].load(Ordering::SeqCst));
        order.into_iter().map(|one| self.urls[one].as_str()).collect()
    }

    async fn send(&self, request: impl Fn(&str) -> reqwest::RequestBuilder) -> Answer {
        for url in self.choose() {
            match answer(request(url)).await {
                Answer::NotConnected => {}
                told => return told,
            }
        }
        Answer::NotConnected
    }

    async fn listen(&self, after: &str) -> Option<reqwest::Response> {
        for url in self.choose() {
            let request = self.http.get(format!("{url}/v1/instances/demo/events")).bearer_auth(KEY);
            // A stream has no end.
            let request = request.header("Last-Event-ID", after).timeout(Duration::from_hours(1));
            if let Ok(response) = request.send().await {
                return Some(response);
            }
        }
        None
    }
}

/// What everybody saw.
#[derive(Default)]
struct Seen {
    read: AtomicU64,
    sold: AtomicU64,
    /// What was no answer, with when.
    failed: Mutex<Vec<(Duration, String)>>,
    /// The body of each 201.
    booked: Mutex<BTreeMap<String, String>>,
}

/// Everybody at the festival.
struct Crowd {
    seen: Arc<Seen>,
    began: Instant,
    balancer: Arc<Balancer>,
    enough: CancellationToken,
}

fn points_of_sale() -> impl Iterator<Item = i64> {
    (1..).filter(|pos| *pos != LOCKED_POS).take(POINTS_OF_SALE)
}

fn pages() -> Vec<String> {
    let of = |list: &'static str| points_of_sale().map(move |pos| format!("/points-of-sale/{pos}/{list}"));
    of("products").chain(of("payment-methods")).chain(["/config".to_owned()]).collect()
}

impl Crowd {
    fn gather(cluster: &Cluster) -> Arc<Self> {
        let enough = CancellationToken::new();
        let balancer = Balancer::over(cluster, &enough);
        Arc::new(Self { seen: Arc::default(), began: Instant::now(), balancer, enough })
    }

    fn failed(&self, what: String) {
        self.seen.failed.lock().unwrap().push((self.began.elapsed(), what));
    }

    /// One service: asks for every page once a second, all at once.
    async fn poll(self: Arc<Self>) {
        while !self.enough.is_cancelled() {
            let next = Instant::now() + POLL_EVERY;
            futures_util::future::join_all(pages().into_iter().map(|page| self.read(page))).await;
            tokio::time::sleep_until(next.into()).await;
        }
    }

    async fn read(&self, page: String) {
        let http = &self.balancer.http;
        match self.balancer.send(|url| http.get(format!("{url}/v1/instances/demo{page}")).bearer_auth(KEY)).await {
            Answer::Whole(200, ..) => {
                self.seen.read.fetch_add(1, Ordering::Relaxed);
            }
            other => self.failed(format!("GET {page}: {other:?}")),
        }
    }

    /// The tills: a sale three times a second, each asked once.
    async fn pay(self: Arc<Self>, name: &'static str) {
        let mut asked = Vec::new();
        for number in 0_u64.. {
            if self.enough.is_cancelled() {
                break;
            }
            let (crowd, key) = (Arc::clone(&self), format!("{name}-{number}"));
            asked.push(tokio::spawn(async move {
                let told = crowd.balancer.send(|url| sale(&crowd.balancer.http, url, "demo", &key)).await;
                if let Answer::Whole(201, _, body) = told {
                    crowd.seen.sold.fetch_add(1, Ordering::Relaxed);
                    crowd.seen.booked.lock().unwrap().insert(key, body);
                } else {
                    crowd.failed(format!("POST {key}: {told:?}"));
                }
            }));
            sleep(PAY_EVERY).await;
        }
        for one in asked {
            one.await.unwrap();
        }
    }

    fn begin(self: &Arc<Self>, name: &'static str) -> Vec<JoinHandle<()>> {
        let mut tasks: Vec<_> = (0..SERVICES).map(|_| tokio::spawn(Arc::clone(self).poll())).collect();
        tasks.push(tokio::spawn(Arc::clone(self).pay(name)));
        tasks
    }

    async fn end(&self, tasks: Vec<JoinHandle<()>>) {
        self.enough.cancel();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

/// What one listener heard: the numbers of the news, and every event that is no broadcast.
#[derive(Default)]
struct Heard {
    numbers: Vec<u64>,
    others: Vec<String>,
    connections: u32,
}

/// Listens and resumes after the last id until it is enough, as an `EventSource` does.
async fn listen(balancer: Arc<Balancer>, enough: CancellationToken, heard: Arc<Mutex<Heard>>) {
    let (mut last, mut pause) = (String::new(), Duration::from_millis(100));
    while !enough.is_cancelled() {
        if let Some(mut response) = balancer.listen(&last).await {
            heard.lock().unwrap().connections += 1;
            let mut unread = Vec::new();
            while let Some(Ok(Some(chunk))) = enough.run_until_cancelled(response.chunk()).await {
                unread.extend_from_slice(&chunk);
                while let Some(end) = unread.windows(2).position(|two| two == b"\n\n") {
                    let block: Vec<u8> = unread.drain(..end + 2).collect();
                    take(&String::from_utf8(block).unwrap(), &mut last, &mut pause, &heard);
                }
            }
        }
        sleep(pause).await;
    }
}

/// One block of the stream.
fn take(block: &str, last: &mut String, pause: &mut Duration, heard: &Mutex<Heard>) {
    let field =
        |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim_start));
    if let Some(retry) = field("retry").and_then(|value| value.parse().ok()) {
        *pause = Duration::from_millis(retry);
    }
    let Some(data) = field("data") else { return };
    let data: Value = serde_json::from_str(data).unwrap();
    let mut heard = heard.lock().unwrap();
    match field("event") {
        Some("overloaded" | "ready") => {}
        Some(other) => heard.others.push(format!("{other}: {data}")),
        None if data["message"] == "news" => {
            let number = data["parameters"]["number"].as_u64().unwrap_or_else(|| panic!("{data}"));
            heard.numbers.push(number);
            if data["maybe_duplicate"] == true {
                heard.others.push(format!("maybe_duplicate: {data}"));
            }
        }
        None => {}
    }
    if let Some(id) = field("id") {
        id.clone_into(last);
    }
}

/// Numbered broadcasts, until it is enough. How many.
async fn news(gateway: Arc<Simulator>, enough: CancellationToken) -> u64 {
    for number in 0.. {
        if enough.run_until_cancelled(sleep(NEWS_EVERY)).await.is_none() {
            return number;
        }
        gateway.broadcast("demo", "news", &format!("{{number: {number}}}")).unwrap();
    }
    0
}

fn setup() -> Setup {
    let gateway = simulator::Config {
        latency: LATENCY,
        limits: Limits::new(Counting::PerCommand),
        broadcast_every: Some(UPDATE_EVERY),
        broadcast_jitter: Duration::from_millis(50),
        arrival_jitter: Duration::from_millis(100),
        ..simulator::Config::default()
    };
    Setup::of(3)
        .gateway(gateway)
        .set("limits.capacity", "100")
        .set("limits.window", "\"30s\"")
        .set("server.shutdown_delay", "\"1s\"")
}

/// Restarts one replica, and waits until it serves again and all has settled.
async fn restart(cluster: &mut Cluster, number: usize) {
    cluster.replicas[number].stop().await;
    cluster.replicas[number].run();
    let began = Instant::now();
    loop {
        let url = format!("{}/readyz", cluster.replicas[number].url);
        if answer(cluster.http.get(url)).await.status() == Some(200) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it does not get ready:\n{}", cluster.logs());
        sleep(Duration::from_millis(50)).await;
    }
    cluster.owner("demo").await;
}

#[ignore = "takes minutes: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_all_replicas_are_restarted_one_after_the_other() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(setup()).await;
    let warm = Crowd::gather(&cluster);
    let tasks = warm.begin("warm-up");
    sleep(Duration::from_secs(number_from("FESTIVAL_WARM_UP", 160))).await;
    warm.end(tasks).await;
    cluster.gateway.reset_counts();

    let crowd = Crowd::gather(&cluster);
    let tasks = crowd.begin("sale");
    let hearing: Vec<Arc<Mutex<Heard>>> = (0..LISTENERS).map(|_| Arc::default()).collect();
    let (listening, silence) = (CancellationToken::new(), CancellationToken::new());
    let ears: Vec<_> = hearing
        .iter()
        .map(|heard| tokio::spawn(listen(Arc::clone(&crowd.balancer), listening.clone(), Arc::clone(heard))))
        .collect();
    sleep(Duration::from_secs(2)).await;
    let telling = tokio::spawn(news(Arc::clone(&cluster.gateway), silence.clone()));
    let pause = Duration::from_secs(number_from("FESTIVAL_SECONDS", 90)) / 4;
    for number in 0..3 {
        sleep(pause).await;
        let owner = cluster.owner("demo").await;
        let began = Instant::now();
        restart(&mut cluster, number).await;
        let now = cluster.owner("demo").await;
        println!("bridge-{number} restarted in {:?}; owned by bridge-{owner}, then by bridge-{now}", began.elapsed());
    }
    sleep(pause).await;
    silence.cancel();
    let told = telling.await.unwrap();
    crowd.end(tasks).await;
    // The last news may be on their way.
    sleep(Duration::from_secs(5)).await;
    listening.cancel();
    for ear in ears {
        ear.await.unwrap();
    }
    check(&cluster, &crowd, &hearing, told);
}

/// All that was seen and heard, against what the gateway has.
fn check(cluster: &Cluster, crowd: &Crowd, hearing: &[Arc<Mutex<Heard>>], told: u64) {
    let (seen, counts) = (&crowd.seen, cluster.gateway.counts());
    let failed = seen.failed.lock().unwrap().clone();
    let booked = seen.booked.lock().unwrap();
    println!(
        "{} reads answered, {} sales; {} requests failed; {} ratelimit; {} commands",
        seen.read.load(Ordering::Relaxed),
        seen.sold.load(Ordering::Relaxed),
        failed.len(),
        counts.ratelimit_errors,
        counts.commands.values().map(|command| command.received).sum::<u64>(),
    );
    for (key, received) in &counts.payitems_received {
        assert!(*received <= 1 && counts.bookings(key) <= 1, "{key} is booked twice");
    }
    for key in booked.keys() {
        assert_eq!(counts.bookings(key), 1, "{key} was told 201");
    }
    let mut holes = Vec::new();
    for (number, heard) in hearing.iter().enumerate() {
        let heard = heard.lock().unwrap();
        let first = heard.numbers.first().copied().unwrap_or(0);
        let whole: Vec<_> = (first..told).collect();
        println!(
            "listener {number}: {} of {told} news, from the {first}th, on {} connections; beside them {:?}",
            heard.numbers.len(),
            heard.connections,
            heard.others
        );
        if heard.numbers != whole || !heard.others.is_empty() {
            holes.push(number);
        }
    }
    assert_eq!(failed, Vec::new(), "requests failed:\n{}", cluster.logs());
    assert_eq!(counts.ratelimit_errors, 0, "the gateway said ratelimit");
    assert_eq!(holes, Vec::<usize>::new(), "listeners missed, repeated or were told of holes");
}
