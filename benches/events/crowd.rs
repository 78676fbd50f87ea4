//! A crowd of listeners, in a process of its own: each end of ten thousand connections fills a process's limit of open
//! files by itself.
//!
//! It is told what to do by lines on its standard way in and answers by lines on its way out. The same crowd listens to
//! the bridge, to bare sockets and to others, so that what it costs itself is the same for all.

use std::io::BufRead;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Says to this program that it is a crowd.
pub(crate) const CROWD: &str = "BENCH_CROWD";

/// What a block of a stream ends with, with the end of its chunk.
const END: &[u8] = b"\n\n\r\n";

/// The most blocks that one connection is sent.
const MOST_BLOCKS: usize = 4096;

/// The most that anything is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a crowd is told.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// To open so many connections, so many at once, and to send this on each.
    Open { address: String, count: usize, at_once: usize, request: String },
    /// To say when each connection has had so many blocks.
    Until { blocks: usize },
    /// To close all connections.
    Close,
}

/// What a crowd has heard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    /// Bytes over all connections, since they were opened.
    pub(crate) bytes: usize,
    /// How many connections have had one more block than was asked for.
    pub(crate) too_many: usize,
    /// What one of them read last.
    pub(crate) sample: String,
}

/// A crowd as it is seen from outside.
pub(crate) struct Crowd {
    /// Ends with this.
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    pub(crate) count: usize,
}

impl Crowd {
    /// A crowd of `count`, not connected to anything yet.
    pub(crate) fn gather(count: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(CROWD, "").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { orders: process.stdin.take().unwrap(), _process: process, answers, count }
    }

    async fn order(&mut self, order: &Order) -> Heard {
        let line = serde_json::to_string(order).unwrap() + "\n";
        self.orders.write_all(line.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE * 2, self.answers.next_line()).await.expect("an answer");
        serde_json::from_str(&answer.unwrap().expect("the crowd goes on")).unwrap()
    }

    /// Begins to connect to `address`, `at_once` at a time.
    pub(crate) async fn open(&mut self, address: &str, request: &str, at_once: usize) {
        let (address, request, count) = (address.to_owned(), request.to_owned(), self.count);
        self.order(&Order::Open { address, count, at_once, request }).await;
    }

    /// Waits until each has had exactly so many blocks since it connected.
    pub(crate) async fn until(&mut self, blocks: usize) -> Heard {
        let heard = self.order(&Order::Until { blocks }).await;
        assert_eq!(heard.too_many, 0, "a block came twice");
        heard
    }

    /// Leaves.
    pub(crate) async fn close(&mut self) {
        self.order(&Order::Close).await;
    }
}

/// What the listeners of a crowd share.
struct Ears {
    count: usize,
    bytes: AtomicUsize,
    /// How many have had at least so many blocks.
    had: Vec<AtomicUsize>,
    all_had: Notify,
    sample: Mutex<Vec<u8>>,
}

impl Ears {
    fn new(count: usize) -> Arc<Self> {
        let had = (0..MOST_BLOCKS).map(|_| AtomicUsize::new(0)).collect();
        let (bytes, all_had, sample) = (AtomicUsize::new(0), Notify::new(), Mutex::default());
        Arc::new(Self { count, bytes, had, all_had, sample })
    }

    async fn until(&self, blocks: usize) -> Heard {
        let all = async {
            while self.had[blocks].load(Ordering::SeqCst) < self.count {
                self.all_had.notified().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, all).await.is_ok();
        assert!(in_time, "only {:?} of {} have heard block {blocks}", self.had[blocks], self.count);
        let sample = String::from_utf8_lossy(&self.sample.lock().unwrap()).into_owned();
        let too_many = self.had[blocks + 1].load(Ordering::SeqCst);
        Heard { bytes: self.bytes.load(Ordering::SeqCst), too_many, sample }
    }

    /// Reads one connection until it ends. Its seat is given back with its first block.
    async fn listen(&self, mut socket: TcpStream, samples: bool, mut seat: Option<OwnedSemaphorePermit>) {
        let (mut buffer, mut matched, mut mine) = ([0; 2048], 0, 0);
        loop {
            let taken = socket.read(&mut buffer).await.unwrap_or(0);
            if taken == 0 {
                return;
            }
            if samples {
                buffer[..taken].clone_into(&mut self.sample.lock().unwrap());
            }
            self.bytes.fetch_add(taken, Ordering::SeqCst);
            for byte in &buffer[..taken] {
                matched = match byte {
                    byte if *byte == END[matched] => matched + 1,
                    // Of two line feeds too many the last two still count.
                    b'\n' => matched.clamp(1, 2),
                    _ => 0,
                };
                if matched == END.len() {
                    (matched, mine) = (0, mine + 1);
                    drop(seat.take());
                    if self.had[mine].fetch_add(1, Ordering::SeqCst) + 1 == self.count {
                        self.all_had.notify_one();
                    }
                }
            }
        }
    }
}

fn open(address: &str, count: usize, at_once: usize, request: &str) -> (JoinSet<()>, Arc<Ears>) {
    let (mut tasks, ears, seats) = (JoinSet::new(), Ears::new(count), Arc::new(Semaphore::new(at_once)));
    let request: Arc<str> = Arc::from(request);
    let address: std::net::SocketAddr = address.parse().unwrap();
    for number in 0..count {
        let (ears, seats, request) = (Arc::clone(&ears), Arc::clone(&seats), Arc::clone(&request));
        tasks.spawn(async move {
            let seat = seats.acquire_owned().await.unwrap();
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            // Who asks nothing is told nothing yet.
            let seat = (!request.is_empty()).then_some(seat);
            ears.listen(socket, number == 0, seat).await;
        });
    }
    (tasks, ears)
}

/// What the process of a crowd does.
pub(crate) async fn be_a_crowd() {
    let (mut tasks, mut ears) = (JoinSet::new(), Ears::new(0));
    // Waits on the main thread, while the connections are those of the runtime's.
    for order in std::io::stdin().lock().lines() {
        let mut heard = Heard { bytes: 0, too_many: 0, sample: String::new() };
        match serde_json::from_str(&order.unwrap()).unwrap() {
            Order::Open { address, count, at_once, request } => {
                (tasks, ears) = open(&address, count, at_once, &request);
            }
            Order::Until { blocks } => heard = ears.until(blocks).await,
            Order::Close => tasks.shutdown().await,
        }
        println!("{}", serde_json::to_string(&heard).unwrap());
    }
}
