//! What ten thousand listeners cost: memory each, the time to the last byte of one broadcast beside writing the same
//! bytes to as many bare sockets, all of them coming back at once, and one that never reads. Where pushpin is installed,
//! the same of it.
//!
//! Bridge, bare sockets and either's listeners are processes of their own, since both ends of so many connections do not
//! fit into one process's limit of open files. Both crowds are the same program and hear their broadcasts in turn, so
//! that a machine that is slow for a while is slow for both; a round's ratio is taken within the round, and the median
//! round is told. The bytes of the bare sockets are those that a listener of the bridge has received.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench"
)]

#[path = "events/crowd.rs"]
mod crowd;
#[path = "events/pushpin.rs"]
mod pushpin;
#[path = "events/sockets.rs"]
mod sockets;
mod support;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use crowd::{Crowd, Heard};
use futures_util::FutureExt;
use pushpin::Pushpin;
use sockets::Sockets;
use support::{Aim, KEY, Report, Row, Running, free_address, median, serve, simulate, until_ready};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// As many as the aim says; another number can be given in the environment.
const LISTENERS: usize = 10_000;
const COUNT: &str = "BENCH_LISTENERS";
const ROUNDS: usize = 15;
/// How many connect at once where it is no storm.
const AT_ONCE: usize = 512;
/// As many as pushpin holds for certain on a machine of two cores, and how many connect to it at once: of more, some are
/// never told.
const LISTENERS_AT_PUSHPIN: usize = 5_000;
const AT_ONCE_AT_PUSHPIN: usize = 8;
/// Broadcasts to as many at the bridge and at pushpin, after one that warms up.
const ROUNDS_BESIDE: usize = 5;
/// What is missed by those who come back in a storm.
const MISSED: usize = 3;
/// Broadcasts that only the one who never reads has asked for, and the bytes of each: more than sockets hold, and less
/// than the log does.
const FLOOD: (usize, usize) = (200, 48 * 1024);

fn request(query: &str, last: Option<&str>) -> String {
    let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    format!(
        "GET /v1/instances/demo/events{query} HTTP/1.1\r\nhost: bridge\r\nauthorization: Bearer {KEY}\r\n{last}\r\n"
    )
}

fn resident_kib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes that the system holds for the connection from local port `from` to `to`, on the side of `from`.
fn unsent(from: u16, to: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| {
        let port = |address: &str| u16::from_str_radix(address.rsplit_once(':').unwrap().1, 16).unwrap();
        port(row[1]) == from && port(row[2]) == to
    });
    row.map_or(0, |row| u64::from_str_radix(row[4].split_once(':').unwrap().0, 16).unwrap())
}

/// The id of the block that was read last.
fn last_id(heard: &Heard) -> String {
    let id = heard.sample.lines().filter_map(|line| line.strip_prefix("id: ")).next_back();
    id.expect("a block has an id").to_owned()
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// The bridge and who listens to it.
struct Bench {
    http: reqwest::Client,
    control: String,
    bridge: Running,
    address: String,
    crowd: Crowd,
    /// How many blocks each has had.
    blocks: usize,
    heard: Heard,
}

impl Bench {
    async fn broadcast(&self, message: &str, text: &str) {
        let body = serde_json::json!({"message": message, "parameters": {"text": text}}).to_string();
        let answer = self.http.post(format!("http://{}/broadcasts", self.control)).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    async fn tick(&self, number: usize) {
        self.broadcast("tick", &format!("{number:0100}")).await;
    }

    /// Milliseconds until the last of all has heard a broadcast, and the bytes that each was sent.
    async fn hear(&mut self, number: usize) -> (f64, usize) {
        let (before, begun) = (self.heard.bytes, Instant::now());
        self.tick(number).await;
        self.blocks += 1;
        self.heard = self.crowd.until(self.blocks).await;
        let (took, bytes) = (ms(begun), self.heard.bytes - before);
        assert_eq!(bytes % self.crowd.count, 0, "all are sent the same");
        (took, bytes / self.crowd.count)
    }

    fn resident_kib(&self) -> f64 {
        resident_kib(self.bridge.id())
    }

    /// Milliseconds until the last of so many others has heard a broadcast, once all who were there have left.
    async fn last_byte(&mut self, count: usize) -> f64 {
        self.crowd.close().await;
        let mut crowd = Crowd::gather(count);
        crowd.open(&self.address, &request("?message=tick", None), AT_ONCE).await;
        crowd.until(1).await;
        last_byte(&mut crowd, async |round| self.tick(2000 + round).await).await
    }

    /// Everybody leaves, something is broadcast, and all come back at once after what they heard last. Seconds until
    /// each has heard all that it missed, once.
    async fn storm(&mut self) -> f64 {
        let last = last_id(&self.heard);
        self.crowd.close().await;
        for number in 0..MISSED {
            self.tick(number).await;
        }
        let (address, begun) = (self.address.clone(), Instant::now());
        self.crowd.open(&address, &request("?message=tick", Some(&last)), self.crowd.count).await;
        self.blocks = 1 + MISSED;
        self.heard = self.crowd.until(self.blocks).await;
        begun.elapsed().as_secs_f64()
    }

    /// One who takes nothing, and has been sent more than its socket holds.
    async fn lazy(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(2048).unwrap();
        let mut lazy = socket.connect(self.address.parse().unwrap()).await.unwrap();
        lazy.write_all(request("", None).as_bytes()).await.unwrap();
        for number in 0..FLOOD.0 {
            self.broadcast("flood", &format!("{number} {}", "x".repeat(FLOOD.1))).await;
        }
        lazy
    }

    /// Whether it takes nothing while there is something for it.
    fn is_stuck(&self, lazy: &TcpStream) -> bool {
        let port = self.address.rsplit_once(':').unwrap().1.parse().unwrap();
        unsent(port, lazy.local_addr().unwrap().port()) > 0
    }
}

/// What was measured.
struct Figures {
    each_kib: f64,
    each_later_kib: f64,
    told_ms: f64,
    ceiling_ms: f64,
    ratio: f64,
    bytes: usize,
    with_lazy: f64,
    storm_s: f64,
    /// How many are told when pushpin's are, and how soon.
    few: usize,
    few_told_ms: f64,
    /// Memory each and the last byte.
    pushpin: Option<(f64, f64)>,
}

/// The rounds: bridge and bare sockets in turn.
async fn rounds(bench: &mut Bench, count: usize) -> (Vec<(f64, f64)>, usize) {
    let address = free_address();
    let mut bare = Sockets::start(&address, count).await;
    let mut crowd = Crowd::gather(count);
    crowd.open(&address, "", AT_ONCE).await;
    bare.until_connected().await;
    let (mut rounds, mut length) = (Vec::new(), 0);
    for round in 0..=ROUNDS {
        let (told, bytes) = bench.hear(round).await;
        assert_eq!(bench.heard.sample.len(), bytes, "what one has read is what each was sent");
        let begun = Instant::now();
        bare.tell(bench.heard.sample.as_bytes()).await;
        crowd.until(round + 1).await;
        let ceiling = ms(begun);
        // The first round warms both up.
        if round > 0 {
            rounds.push((told, ceiling));
        }
        length = bytes;
    }
    (rounds, length)
}

/// So many listeners at pushpin, and a block as long as those of the bridge.
async fn beside(folder: &Path, http: &reqwest::Client, count: usize, bytes: usize) -> Option<(f64, f64)> {
    let pushpin = Pushpin::start(folder).await?;
    let before = pushpin.resident_kib();
    let mut crowd = Crowd::gather(count);
    crowd.open(&pushpin.address, "GET / HTTP/1.1\r\nhost: pushpin\r\n\r\n", AT_ONCE_AT_PUSHPIN).await;
    crowd.until(1).await;
    let each = (pushpin.resident_kib() - before) / count as f64;
    let block = |round| format!("data: {round:03}{}\n\n", "x".repeat(bytes.saturating_sub(18)));
    let last = last_byte(&mut crowd, async |round| pushpin.publish(http, &block(round)).await).await;
    Some((each, last))
}

/// Milliseconds from telling something to the last of a crowd that hears it.
async fn last_byte(crowd: &mut Crowd, tell: impl AsyncFn(usize)) -> f64 {
    let mut took = Vec::new();
    for round in 0..=ROUNDS_BESIDE {
        let begun = Instant::now();
        tell(round).await;
        crowd.until(2 + round).await;
        took.push(ms(begun));
    }
    median(took.split_off(1))
}

async fn measure(count: usize) -> Figures {
    let data = tempfile::tempdir().unwrap();
    let [gateway, control, address] = [(); 3].map(|()| free_address());
    let _gateway = simulate(&gateway, &["--limits", "off", "--control", &control, "--broadcast-jitter", "0ms"]);
    // One link: which copies are one broadcast is not what this is about. No signs of life while it is measured.
    let settings = [
        ("BRIDGE_GATEWAY__MIN_LINKS", "1"),
        ("BRIDGE_EVENTS__MAX_SUBSCRIBERS", "20000"),
        ("BRIDGE_EVENTS__MAX_LISTENERS", "20000"),
        ("BRIDGE_EVENTS__HEARTBEAT", "1h"),
    ];
    let bridge = serve(&address, &gateway, data.path(), &settings);
    until_ready(&address).await;
    let before = resident_kib(bridge.id());
    let mut crowd = Crowd::gather(count);
    crowd.open(&address, &request("?message=tick", None), AT_ONCE).await;
    let heard = crowd.until(1).await;
    let mut bench = Bench { http: reqwest::Client::new(), control, bridge, address, crowd, blocks: 1, heard };
    let each_kib = (bench.resident_kib() - before) / count as f64;
    let (rounds, bytes) = rounds(&mut bench, count).await;
    let of = |figure: &dyn Fn(&(f64, f64)) -> f64| median(rounds.iter().map(figure).collect());
    let (told_ms, ceiling_ms, ratio) = (of(&|round| round.0), of(&|round| round.1), of(&|round| round.0 / round.1));
    let each_later_kib = (bench.resident_kib() - before) / count as f64;

    // In turn with and without, as above.
    let lazy = bench.lazy().await;
    let mut with_lazy = Vec::new();
    for round in 0..ROUNDS {
        assert!(bench.is_stuck(&lazy), "it never reads, and there is something for it");
        with_lazy.push(bench.hear(1000 + round).await.0);
    }
    assert!(bench.is_stuck(&lazy), "it was there all along");
    drop(lazy);
    let storm_s = bench.storm().await;
    let few = count.min(LISTENERS_AT_PUSHPIN);
    let few_told_ms = bench.last_byte(few).await;
    let http = bench.http.clone();
    // Its sockets are those of the listeners that are next.
    drop(bench);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // It does not always hold as many; what was measured of the bridge is told all the same.
    let pushpin = AssertUnwindSafe(beside(data.path(), &http, few, bytes)).catch_unwind().await.ok().flatten();
    let with_lazy = median(with_lazy);
    Figures {
        each_kib,
        each_later_kib,
        told_ms,
        ceiling_ms,
        ratio,
        bytes,
        with_lazy,
        storm_s,
        few,
        few_told_ms,
        pushpin,
    }
}

#[tokio::main]
async fn main() {
    if std::env::var(crowd::CROWD).is_ok() {
        return crowd::be_a_crowd().await;
    }
    if let Ok(setup) = std::env::var(sockets::SOCKETS) {
        return tokio::task::spawn_blocking(move || sockets::be_sockets(&setup)).await.unwrap();
    }
    let count = std::env::var(COUNT).map_or(LISTENERS, |count| count.parse().unwrap());
    let figures = measure(count).await;
    let Figures { each_kib, each_later_kib, told_ms, ceiling_ms, ratio, bytes, with_lazy, storm_s, .. } = figures;
    let mut report = Report::new();
    let memory = |name, figure: String, each: f64| Row::new(name, figure, each, "KiB").aim(Aim::AtMost(12.0));
    report.add(memory("events-memory", format!("resident memory a listener, once {count} have come"), each_kib));
    report.add(memory("events-memory-later", "the same after some broadcasts".to_owned(), each_later_kib));
    let figure = format!("one broadcast of {bytes} bytes to {count} listeners, last byte");
    let row = Row::new("events-last-byte", figure, told_ms, "ms").beside("the same bytes to bare sockets", ceiling_ms);
    report.add(row.ratio(ratio).aim(Aim::AtMost(1.5)));
    let row = Row::new("events-one-never-reads", "the same while one never reads", with_lazy, "ms");
    report.add(row.beside("while all read", told_ms).ratio(with_lazy / told_ms));
    let figure = format!("all come back at once, until each has heard the {MISSED} that it missed");
    report.add(Row::new("events-storm", figure, storm_s, "s"));
    if let Figures { few, few_told_ms, pushpin: Some((each, last)), .. } = figures {
        let row = Row::new("events-memory-pushpin", "resident memory a listener", each_later_kib, "KiB");
        report.add(row.beside(format!("pushpin, with {few}"), each).ratio(each_later_kib / each));
        let figure = format!("one broadcast to {few} listeners, last byte");
        let row = Row::new("events-last-byte-pushpin", figure, few_told_ms, "ms");
        report.add(row.beside("pushpin, as many", last).ratio(few_told_ms / last));
    }
    report.tell();
}
