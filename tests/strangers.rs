//! What strangers can make the bridge hold, and take from others: little, whatever they do. The real program, whose
//! resident memory is looked at while a thousand connections without a token do their worst on every route.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod running;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use running::{PROGRAM, Running, free_address, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const KEY: &str = "demo-key";
const STRANGERS: usize = 1000;
const MOST_KIB: u64 = 64 * 1024;

/// How long one that writes what nobody reads goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long somebody with a token may wait meanwhile, where a program without optimization shares two processors with its
/// thousand strangers.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

/// How long the last of what strangers sent may be dealt with once they have left.
const LEFT_WITHIN: Duration = Duration::from_mins(2);

/// A bridge whose gateway is nowhere.
struct Bridge {
    program: Running,
    listen: String,
    _folder: tempfile::TempDir,
}

impl Bridge {
    fn start() -> Self {
        // The strangers are this process's.
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
        let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
        let mut command = Command::new(PROGRAM);
        command.arg("serve").stdout(Stdio::null()).stderr(Stdio::null());
        command.env("BRIDGE_SERVER__LISTEN", &listen).env("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/{instance}");
        command.env("BRIDGE_PAYMENTS__JOURNAL", folder.path().join("journal")).env("BRIDGE_CACHE__STORE", "");
        command.env("BRIDGE_INSTANCES__DEMO__API_KEY", KEY).env("BRIDGE_TELEMETRY__LOG", "error");
        let program = Running(command.spawn().unwrap());
        wait_until("it listens", || std::net::TcpStream::connect(&listen).is_ok());
        Self { program, listen, _folder: folder }
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u64 {
        resident(self.program.0.id())
    }

    /// How many files it has open, connections among them.
    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.program.0.id())).unwrap().count()
    }

    async fn connect(&self) -> TcpStream {
        connect(&self.listen).await
    }
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A connection on whose side little is taken that is not read.
async fn connect(listen: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(listen.parse().unwrap()).await.unwrap()
}

/// What a stranger writes; it never reads.
type Attack = Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>;

fn get(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bridge\r\n{more}\r\n").into_bytes()
}

/// A frame of a client's, whose mask changes nothing.
fn frame(first: u8, announced: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0xff];
    bytes.extend(announced.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn upgrade(path: &str) -> Vec<u8> {
    let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    get(path, more)
}

/// Every path and method of the document, with something in place of its names.
fn routes() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(include_str!("../openapi/openapi.json")).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path: String =
            path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect::<Vec<_>>().join("/");
        let path = path.replace("/instances/1", "/instances/demo");
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    for open in [
        "/",
        "/docs",
        "/docs/",
        "/docs/index.html",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui-bundle.js",
        "/problems",
        "/problems/forbidden",
        "/dashboard/main.js",
        "/dashboard/page.css",
        "/openapi.json",
        "/livez",
        "/nowhere",
    ] {
        routes.push(("GET".to_owned(), open.to_owned()));
    }
    routes
}

/// Each attack by its name.
fn attacks() -> Vec<(&'static str, Attack)> {
    let all = Arc::new(routes());
    let (pipelined, bodies, heads) = (Arc::clone(&all), Arc::clone(&all), Arc::clone(&all));
    vec![
        (
            "the largest page, again and again, uncompressed",
            Arc::new(|_| get("/docs/swagger-ui-bundle.js", "").repeat(64)),
        ),
        (
            "the largest page, compressed",
            Arc::new(|_| get("/docs/swagger-ui-bundle.js", "Accept-Encoding: gzip\r\n").repeat(64)),
        ),
        (
            "the document in every coding",
            Arc::new(|number| {
                let codings = ["gzip", "br", "identity", "gzip, br;q=0.5", "br;q=0.1, *"];
                get("/openapi.json", &format!("Accept-Encoding: {}\r\n", codings[number % codings.len()])).repeat(64)
            }),
        ),
        ("answers without a body", Arc::new(|_| get("/docs", "").repeat(4000))),
        (
            "every route, pipelined",
            Arc::new(move |number| {
                let coding = ["gzip", "br", "*"][number % 3];
                let ask = |(method, path): &(String, String)| {
                    format!(
                        "{method} {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {coding}\r\nContent-Length: 0\r\n\r\n"
                    )
                };
                let (first, rest) = pipelined.split_at(number % pipelined.len());
                rest.iter().chain(first).map(ask).collect::<String>().repeat(8).into_bytes()
            }),
        ),
        (
            "a large body on every route",
            Arc::new(move |number| {
                let (method, path) = &bodies[number % bodies.len()];
                let coding = if number % 2 == 0 { "Content-Length: 300000" } else { "Transfer-Encoding: chunked" };
                let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{coding}\r\n\r\n").into_bytes();
                if number % 2 == 1 {
                    bytes.extend(b"493e0\r\n");
                }
                bytes.resize(bytes.len() + 300_000, b'x');
                bytes
            }),
        ),
        (
            "a head that does not end on every route",
            Arc::new(move |number| {
                let (method, path) = &heads[number % heads.len()];
                let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n").into_bytes();
                while bytes.len() < 200_000 {
                    bytes.extend(format!("X-{}: {}\r\n", bytes.len(), "y".repeat(number % 200)).as_bytes());
                }
                bytes
            }),
        ),
        (
            "a hundred heads, each as long as may be",
            Arc::new(|_| get("/livez", &format!("X: {}\r\n", "y".repeat(15_000))).repeat(100)),
        ),
        (
            "a native frame of a gigabyte",
            Arc::new(|number| {
                let path = ["/?instance=demo", "/demo", "/gateway", "/"][number % 4];
                [upgrade(path), frame(0x81, 1 << 30, &[b'x'; 100_000])].concat()
            }),
        ),
        (
            "native frames that are not whole",
            Arc::new(|_| [upgrade("/?instance=demo"), frame(0x81, 16_000, &[b'x'; 15_990])].concat()),
        ),
        (
            "a native message in fragments of one byte",
            Arc::new(|_| {
                let fragments = [vec![0x01, 0x81, 0, 0, 0, 0, b'x'], [0x00, 0x81, 0, 0, 0, 0, b'x'].repeat(16_000)];
                [upgrade("/?instance=demo"), fragments.concat()].concat()
            }),
        ),
        (
            "native commands whose answers nobody takes",
            Arc::new(|_| [upgrade("/?instance=demo"), frame(0x81, 5, b"hello").repeat(20_000)].concat()),
        ),
        (
            "native pings whose answers nobody takes",
            Arc::new(|_| {
                [
                    upgrade("/?instance=demo"),
                    [[0x89, 0xfd, 0, 0, 0, 0].to_vec(), vec![b'x'; 125]].concat().repeat(8_000),
                ]
                .concat()
            }),
        ),
    ]
}

/// Asks with a token, over a kept connection and over new ones, until told to stop and once more after that. How many
/// answers came, and after how long the slowest; nothing where one did not come in time.
async fn somebody_else(listen: String, stop: Arc<AtomicBool>) -> Option<(usize, Duration)> {
    let (mut served, mut slowest) = (0, Duration::ZERO);
    let url = format!("http://{listen}/v1/instances");
    let (kept, anew) = (reqwest::Client::new(), reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap());
    loop {
        let last = stop.load(Ordering::Relaxed);
        for client in [&kept, &anew] {
            let begun = Instant::now();
            let answer = client.get(&url).bearer_auth(KEY).timeout(SERVED_WITHIN).send().await.ok()?;
            assert_eq!(answer.status(), 200);
            (served, slowest) = (served + 1, slowest.max(begun.elapsed()));
        }
        if last {
            return Some((served, slowest));
        }
    }
}

/// Does one attack with all strangers at once. What was resident at most meanwhile, and how somebody else was served.
async fn attacked(bridge: &Bridge, attack: &Attack) -> (u64, Option<(usize, Duration)>) {
    let (process, most, over) = (bridge.program.0.id(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watching = std::thread::spawn({
        let (most, over) = (Arc::clone(&most), Arc::clone(&over));
        move || {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(resident(process), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    // On a thread of its own: the strangers are to hold up the bridge, and not whoever looks at it.
    let stop = Arc::new(AtomicBool::new(false));
    let asking = somebody_else(bridge.listen.clone(), Arc::clone(&stop));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::task::spawn_blocking(move || runtime.block_on(asking));
    let mut strangers = JoinSet::new();
    for number in 0..STRANGERS {
        let (bytes, listen) = (attack(number), bridge.listen.clone());
        strangers.spawn(async move {
            let mut stream = connect(&listen).await;
            // It goes on until the bridge takes no more of it.
            let _ = timeout(PATIENCE, stream.write_all(&bytes)).await;
            stream
        });
    }
    // All are held at once.
    let held = strangers.join_all().await;
    stop.store(true, Ordering::Relaxed);
    let served = other.await.unwrap();
    most.fetch_max(resident(process), Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    watching.join().unwrap();
    drop(held);
    (most.load(Ordering::Relaxed), served)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_strangers_at_their_worst_hold_little_and_others_are_served_meanwhile() {
    let _alone = ALONE.lock().await;
    let mut worst = Vec::new();
    for (name, attack) in attacks() {
        // A bridge for each: of one attack the allocator keeps pages for a while, which the next would be blamed for.
        let bridge = Bridge::start();
        // What is made once is there before it is measured.
        let client = reqwest::Client::new();
        for (_, path) in routes() {
            for coding in ["gzip", "identity"] {
                let asked = client.get(format!("http://{}{path}", bridge.listen)).header("Accept-Encoding", coding);
                let _ = asked.send().await;
            }
        }
        drop(client);
        let (rest, files) = (bridge.resident(), bridge.files());
        let (mut most, served) = attacked(&bridge, &attack).await;
        // What they had sent is dealt with though they have left.
        let begun = Instant::now();
        while bridge.files() > files {
            assert!(begun.elapsed() < LEFT_WITHIN, "their connections are kept: {name}");
            most = most.max(bridge.resident());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{name}: {rest} KiB at rest, {most} KiB at most, {} KiB after; {served:?}", bridge.resident());
        if served.is_none() {
            worst.push(format!("{name}: somebody else is not served"));
        }
        if most > rest + MOST_KIB {
            worst.push(format!("{name}: {} KiB above rest", most - rest));
        }
    }
    assert!(worst.is_empty(), "{worst:?}");
}

/// Each measures a bridge that has the machine to itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The status of the first answer, read to the connection's end.
async fn talk(bridge: &Bridge, bytes: &[u8]) -> (u16, usize) {
    let mut stream = bridge.connect().await;
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let written = async { drop(writing.write_all(bytes).await) };
    let read = async { drop(reading.read_to_end(&mut answer).await) };
    timeout(Duration::from_secs(20), async { tokio::join!(written, read) }).await.expect("the connection ends");
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, text.matches("HTTP/1.1 ").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_head_may_have_16_kib_and_with_one_a_body_comes_whole() {
    let _alone = ALONE.lock().await;
    let bridge = Bridge::start();
    let head = |size: usize| get("/livez", &format!("Connection: close\r\nX: {}\r\n", "y".repeat(size)));
    assert_eq!(talk(&bridge, &head(16_000)).await, (200, 1));
    assert_eq!(talk(&bridge, &head(16_400)).await, (431, 1));
    assert_eq!(talk(&bridge, &[get("/livez", ""), head(16_400)].concat()).await, (200, 1), "nor the second one");
    // What begins no request is refused, though it does not end.
    for garbage in
        [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], b"SSH-2.0-x\r\n", b"GET / HTTP/2.0\r\nHost: a\r\n"]
    {
        assert_eq!(talk(&bridge, garbage).await, (400, 1), "{}", garbage.escape_ascii());
    }
    // Requests that are in good order are served, however many come at once.
    let many = [get("/livez", "").repeat(500), get("/livez", "Connection: close\r\n")].concat();
    assert_eq!(talk(&bridge, &many).await, (200, 501));
    // A body that comes together with the first head is its caller's, and one without a token is nobody's.
    let sale =
        format!("{{\"PaymentMethod\":1,\"Products\":[{{\"ID\":1,\"Amount\":2}}],\"x\":\"{}\"}}", "y".repeat(500_000));
    let post = |token: &str| {
        format!(
            "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Idempotency-Key: k\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{sale}",
            sale.len()
        )
    };
    assert_eq!(talk(&bridge, post(KEY).as_bytes()).await, (503, 1), "it was read, and there is no gateway");
    assert_eq!(talk(&bridge, post("wrong").as_bytes()).await, (401, 1));
}

/// How long a connection is kept on which `bytes` are written again and again and nothing is read, from the moment at which
/// no more of them is taken.
async fn kept(bridge: &Bridge, begin: &[u8], bytes: &[u8]) -> Duration {
    let mut stream = bridge.connect().await;
    stream.write_all(begin).await.unwrap();
    let (mut taken_at, mut written) = (Instant::now(), 0);
    loop {
        match timeout(Duration::from_millis(50), stream.write(&bytes[written % bytes.len()..])).await {
            Ok(Ok(more)) => (taken_at, written) = (Instant::now(), written + more),
            Ok(Err(_)) => return taken_at.elapsed(),
            Err(_) => assert!(taken_at.elapsed() < Duration::from_mins(1), "it is kept for ever"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_that_reads_nothing_is_dropped_after_ten_seconds_and_any_other_after_thirty() {
    let _alone = ALONE.lock().await;
    let bridge = Bridge::start();
    let command = format!(r#"{{"command":"nothing","parameters":{{"api_key":"{KEY}"}}}}"#);
    let frame = frame(0x81, command.len() as u64, command.as_bytes()).repeat(10);
    let page = get("/docs/swagger-ui-bundle.js", "");
    let first = upgrade("/?instance=demo");
    let (till, other) = tokio::join!(kept(&bridge, &first, &frame), kept(&bridge, b"", &page));
    println!("a till was dropped after {till:?}, another after {other:?}");
    assert!(till > Duration::from_secs(8) && till < Duration::from_secs(20), "{till:?}");
    assert!(other > Duration::from_secs(25) && other < Duration::from_secs(40), "{other:?}");
}
