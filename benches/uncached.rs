//! What an uncached read costs through the bridge, beside a bare WebSocket loop on the same simulated gateway.
//!
//! Three processes on loopback: gateway and bridge as built, and this one as the caller. Bridge and bare loop take
//! turns, so that a machine that is slow for a while is slow for both; medians and ratios are what is reported.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a bench")]

mod support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use support::{KEY, free_address, serve, simulate, until_ready};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const LINKS: usize = 32;
/// More callers than links, so that no link waits for a caller.
const CALLERS: usize = 64;
const ROUNDS: usize = 8;
const LATENCY_SAMPLES: usize = 1_000;
const THROUGHPUT_SLICE: Duration = Duration::from_secs(2);

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

    async fn ask(&mut self) -> Duration {
        let begun = Instant::now();
        let command =
            format!(r#"{{"command":"listtransactions","parameters":{{"POSID":1,"Limit":1,"api_key":"{KEY}"}}}}"#);
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
    /// Differs from caller to caller: equal reads at the same moment would share one command.
    path: String,
}

/// A read that goes to the gateway, and one that the bridge answers by itself: what an HTTP round trip costs anyway.
const THROUGH: &str = "/v1/instances/demo/points-of-sale/1/transactions?limit=1";
const ITSELF: &str = "/v1/instances";

impl Caller {
    async fn connect(bridge: &str, number: usize) -> Self {
        let tcp = TcpStream::connect(bridge).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let path = format!("/v1/instances/demo/points-of-sale/{number}/transactions?limit=1");
        Self { tcp, answer: Vec::with_capacity(4096), path }
    }

    async fn ask(&mut self, path: &str) -> Duration {
        let begun = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n");
        self.tcp.write_all(request.as_bytes()).await.unwrap();
        self.answer.clear();
        // Both answers are one object: it is whole when its last brace has come.
        while self.answer.last() != Some(&b'}') {
            assert!(self.tcp.read_buf(&mut self.answer).await.unwrap() > 0);
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
        begun.elapsed()
    }
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// Counts what all workers finish in one slice of time.
async fn throughput<W>(workers: Vec<W>) -> (f64, Vec<W>)
where
    W: Worker + Send + 'static,
{
    let begun = Instant::now();
    let running: Vec<_> = workers
        .into_iter()
        .map(|mut worker| {
            tokio::spawn(async move {
                let mut count = 0_u32;
                while begun.elapsed() < THROUGHPUT_SLICE {
                    worker.work().await;
                    count += 1;
                }
                (count, worker)
            })
        })
        .collect();
    let (mut total, mut workers) = (0_u32, Vec::new());
    for one in running {
        let (count, worker) = one.await.unwrap();
        total += count;
        workers.push(worker);
    }
    (f64::from(total) / begun.elapsed().as_secs_f64(), workers)
}

trait Worker {
    fn work(&mut self) -> impl Future<Output = ()> + Send;
}

impl Worker for Bare {
    async fn work(&mut self) {
        self.ask().await;
    }
}

impl Worker for Caller {
    async fn work(&mut self) {
        let path = self.path.clone();
        self.ask(&path).await;
    }
}

#[tokio::main]
async fn main() {
    let (gateway, bridge) = (free_address(), free_address());
    let _gateway = simulate(&gateway, &["--limits", "off", "--latency-max", "0ms"]);
    let (links, data) = (LINKS.to_string(), tempfile::tempdir().unwrap());
    let settings = [
        ("BRIDGE_GATEWAY__MIN_LINKS", links.as_str()),
        ("BRIDGE_GATEWAY__MAX_LINKS", &links),
        ("BRIDGE_LIMITS__CAPACITY", "100000000"),
    ];
    let _bridge = serve(&bridge, &gateway, data.path(), &settings);
    until_ready(&bridge).await;

    let (mut bare, mut caller) = (Bare::connect(&gateway).await, Caller::connect(&bridge, 1).await);
    let (mut bare_times, mut bridge_times, mut http_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for _ in 0..LATENCY_SAMPLES / ROUNDS {
            let (one, other, itself) = (bare.ask().await, caller.ask(THROUGH).await, caller.ask(ITSELF).await);
            // The first round warms both up.
            if round > 0 {
                bare_times.push(one);
                bridge_times.push(other);
                http_times.push(itself);
            }
        }
    }
    let (bare_median, bridge_median) = (median(&mut bare_times), median(&mut bridge_times));
    let http_median = median(&mut http_times);
    println!("| uncached read | bare | bridge | figure | to reach |");
    println!("|---|---|---|---|---|");
    println!(
        "| median latency | {} µs | {} µs | +{} µs | ≤ 80 µs |",
        bare_median.as_micros(),
        bridge_median.as_micros(),
        bridge_median.saturating_sub(bare_median).as_micros()
    );
    println!(
        "| of that, beyond an HTTP round trip | {} µs | | +{} µs | |",
        http_median.as_micros(),
        bridge_median.saturating_sub(bare_median + http_median).as_micros()
    );

    let (mut sockets, mut callers) = (Vec::new(), Vec::new());
    for _ in 0..LINKS {
        sockets.push(Bare::connect(&gateway).await);
    }
    for number in 1..=CALLERS {
        callers.push(Caller::connect(&bridge, number).await);
    }
    let mut ratios = Vec::new();
    let (mut bare_best, mut bridge_best) = (0.0_f64, 0.0_f64);
    for _ in 0..ROUNDS / 2 {
        let (bare_rate, back) = throughput(sockets).await;
        sockets = back;
        let (bridge_rate, back) = throughput(callers).await;
        callers = back;
        ratios.push(bridge_rate / bare_rate);
        (bare_best, bridge_best) = (bare_best.max(bare_rate), bridge_best.max(bridge_rate));
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    println!("| throughput, {LINKS} links | {bare_best:.0}/s | {bridge_best:.0}/s | {ratio:.2} | ≥ 0.8 |");
}
