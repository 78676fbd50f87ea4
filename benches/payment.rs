//! What a payment costs through the bridge, beside what nothing could be cheaper than: two commits of the same store on
//! the same disk, and a bare round trip to the same simulated gateway.
//!
//! Three processes on loopback: gateway and bridge as built, and this one as the caller. Bridge and ceiling take turns,
//! so that a machine that is slow for a while is slow for both; medians and ratios are what is reported. A second table
//! shows that payments under way at the same time share their commits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    missing_docs,
    reason = "a bench"
)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use concertpos_bridge::journal::{Config, Journal, Key, Outcome, Record, RecordId, Reserve, Sale};
use concertpos_bridge::wire::Body;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use redb::{Database, TableDefinition};
use support::{KEY, free_address, serve, simulate, until_ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const CALLERS: usize = 32;
const ROUNDS: usize = 8;
const SAMPLES: usize = 2_000;
const SLICE: Duration = Duration::from_secs(3);

/// The same store with nothing around it: one record a commit, synced as the journal syncs.
struct Store(Database);

impl Store {
    const RECORDS: TableDefinition<'static, u128, &'static [u8]> = TableDefinition::new("records");

    fn make(folder: &Path) -> Self {
        Self(Database::create(folder.join("bare.redb")).unwrap())
    }

    fn commit(&self, record: &Record) -> Duration {
        let begun = Instant::now();
        let mut transaction = self.0.begin_write().unwrap();
        transaction.set_quick_repair(true);
        let json = serde_json::to_vec(record).unwrap();
        transaction.open_table(Self::RECORDS).unwrap().insert(record.id.as_u128(), json.as_slice()).unwrap();
        transaction.commit().unwrap();
        begun.elapsed()
    }
}

/// A bare connection to the gateway that asks as the bridge does: command, reply, ping, pong.
struct Bare(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Bare {
    async fn connect(gateway: &str) -> Self {
        let url = format!("ws://{gateway}/exon/?instance=demo&Content-Type=json");
        let (mut socket, _) = connect_async(url).await.unwrap();
        if let MaybeTlsStream::Plain(tcp) = socket.get_mut() {
            tcp.set_nodelay(true).unwrap();
        }
        Self(socket)
    }

    async fn pay(&mut self) -> Duration {
        let begun = Instant::now();
        let command = format!(
            r#"{{"command":"payitems","parameters":{{"PaymentMethod":1,"Products":[{{"ID":1,"Amount":2}}],"POSID":1,"api_key":"{KEY}"}}}}"#
        );
        self.0.send(Message::text(command)).await.unwrap();
        while !self.0.next().await.unwrap().unwrap().is_text() {}
        let took = begun.elapsed();
        self.0.send(Message::Ping(vec![1].into())).await.unwrap();
        while !self.0.next().await.unwrap().unwrap().is_pong() {}
        took
    }
}

/// A bare keep-alive connection to the bridge, so that no HTTP client's own time is measured.
struct Caller {
    tcp: TcpStream,
    answer: Vec<u8>,
    name: usize,
    paid: usize,
}

impl Caller {
    async fn connect(bridge: &str, name: usize) -> Self {
        let tcp = TcpStream::connect(bridge).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp, answer: Vec::with_capacity(4096), name, paid: 0 }
    }

    async fn send(&mut self, request: String, status: &[u8]) -> Duration {
        let begun = Instant::now();
        self.tcp.write_all(request.as_bytes()).await.unwrap();
        self.answer.clear();
        // Every answer is one object: it is whole when its last brace has come.
        while self.answer.last() != Some(&b'}') {
            assert!(self.tcp.read_buf(&mut self.answer).await.unwrap() > 0);
        }
        assert!(self.answer.starts_with(status), "{}", String::from_utf8_lossy(&self.answer));
        begun.elapsed()
    }

    async fn pay(&mut self) -> Duration {
        self.paid += 1;
        let body = r#"{"PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#;
        let request = format!(
            "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
             Idempotency-Key: {}-{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.name,
            self.paid,
            body.len(),
        );
        self.send(request, b"HTTP/1.1 201").await
    }

    /// What the bridge answers by itself: what an HTTP round trip costs anyway.
    async fn ask_itself(&mut self) -> Duration {
        let request = format!("GET /v1/instances HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n");
        self.send(request, b"HTTP/1.1 200").await
    }

    /// Payments made in one slice of time.
    async fn sell(mut self) -> u32 {
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < SLICE {
            self.pay().await;
            count += 1;
        }
        count
    }
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn sale() -> Sale {
    Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 2)] }
}

fn key(name: usize, number: usize) -> Key {
    Key { instance: "demo".into(), caller: "demo".into(), idempotency_key: format!("{name}-{number}") }
}

/// Payments of a journal by itself in one slice of time, whose gateway answers at once.
async fn record(journal: Journal, name: usize) -> u32 {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < SLICE {
        count += 1;
        let Reserve::Fresh(reservation) = journal.reserve(key(name, count), sale()) else { panic!("a new key") };
        let dispatched = journal.dispatch(reservation).await.unwrap();
        journal.finish(dispatched, Outcome::Booked(Body::items(1))).await.unwrap();
    }
    u32::try_from(count).unwrap()
}

/// Payments a second, and commits a payment, of so many at a time.
async fn journal_alone(folder: &Path, callers: usize) -> (f64, f64) {
    let config = Config::new(folder.join(format!("journal-{callers}")), Config::LEAST_KEEP).unwrap();
    let journal = Journal::open(&config).unwrap();
    let before = journal.commits();
    let tasks = (0..callers).map(|name| tokio::spawn(record(journal.clone(), name)));
    let paid: u32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    let commits = u32::try_from(journal.commits() - before).unwrap();
    journal.close().await;
    (f64::from(paid) / SLICE.as_secs_f64(), f64::from(commits) / f64::from(paid))
}

async fn bridge_rate(bridge: &str, callers: usize) -> f64 {
    let mut tasks = Vec::new();
    for name in 0..callers {
        tasks.push(tokio::spawn(Caller::connect(bridge, 1000 * callers + name).await.sell()));
    }
    let paid: u32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    f64::from(paid) / SLICE.as_secs_f64()
}

#[tokio::main]
async fn main() {
    let (gateway, bridge) = (free_address(), free_address());
    let _gateway = simulate(&gateway, &["--limits", "off", "--latency-max", "0ms"]);
    let (links, data) = (CALLERS.to_string(), tempfile::tempdir().unwrap());
    let settings = [
        ("BRIDGE_GATEWAY__MIN_LINKS", links.as_str()),
        ("BRIDGE_GATEWAY__MAX_LINKS", &links),
        ("BRIDGE_LIMITS__CAPACITY", "100000000"),
    ];
    let _bridge = serve(&bridge, &gateway, data.path(), &settings);
    until_ready(&bridge).await;

    let (store, mut bare, mut caller) =
        (Store::make(data.path()), Bare::connect(&gateway).await, Caller::connect(&bridge, 0).await);
    let mut record = Record::reserved(RecordId::fresh(), key(0, 0), sale(), 0);
    let (mut commits, mut trips, mut ceilings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut payments, mut itself) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for _ in 0..SAMPLES / ROUNDS {
            record.id = RecordId::fresh();
            let (first, trip, second) = (store.commit(&record), bare.pay().await, store.commit(&record));
            let (payment, http) = (caller.pay().await, caller.ask_itself().await);
            // The first round warms both up.
            if round > 0 {
                commits.extend([first, second]);
                trips.push(trip);
                ceilings.push(first + trip + second);
                payments.push(payment);
                itself.push(http);
            }
        }
    }
    let (ceiling, payment) = (median(&mut ceilings), median(&mut payments));
    println!("| payment | ceiling | bridge | figure | to reach |");
    println!("|---|---|---|---|---|");
    println!(
        "| median latency with a durable record | {} µs (commit {} µs, round trip {} µs) | {} µs | {:.2} | ≤ 1.5 |",
        ceiling.as_micros(),
        median(&mut commits).as_micros(),
        median(&mut trips).as_micros(),
        payment.as_micros(),
        payment.as_secs_f64() / ceiling.as_secs_f64(),
    );
    println!("| of that, an HTTP round trip | | {} µs | | |", median(&mut itself).as_micros());

    let (one, many) = (bridge_rate(&bridge, 1).await, bridge_rate(&bridge, CALLERS).await);
    let (alone, alone_commits) = journal_alone(data.path(), 1).await;
    let (together, together_commits) = journal_alone(data.path(), CALLERS).await;
    println!("\n| payments a second | 1 caller | {CALLERS} callers | times |");
    println!("|---|---|---|---|");
    println!("| through the bridge | {one:.0} | {many:.0} | {:.1} |", many / one);
    println!("| of the journal alone | {alone:.0} | {together:.0} | {:.1} |", together / alone);
    println!("| its commits a payment | {alone_commits:.2} | {together_commits:.2} | |");
}
