//! A small TCP proxy that spoils what passes: it cuts, stalls, slows, half-closes and refuses, one way at a time.
//!
//! It knows which way a connection belongs to by the first line of what the client sends: `GET /zeus/?instance=…` is the
//! bridge on its way to a shard, anything else a caller on the way to the bridge. Beyond that it only moves bytes, and
//! never more of them than one piece at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::plan::{Route, SHARDS, Way};

/// The most that is moved at once.
const PIECE: usize = 16 * 1024;

/// The same while a way is slow: less than a frame, so that frames arrive in parts. With the pause between two pieces
/// some 60 kB/s.
const SLOW_PIECE: usize = 64;
const SLOW_PAUSE: Duration = Duration::from_millis(1);

/// How long the first line may take. Callers keep connections ready on which they say nothing yet.
const LINE_PATIENCE: Duration = Duration::from_mins(1);

/// The state of one way. `cuts` and the two `closes` are counters: each connection compares them with what they were
/// when it began.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four things that can be wrong in any combination")]
pub(crate) struct Weather {
    pub(crate) cuts: u64,
    pub(crate) closes_up: u64,
    pub(crate) closes_down: u64,
    pub(crate) stalled_up: bool,
    pub(crate) stalled_down: bool,
    pub(crate) slow: bool,
    pub(crate) refusing: bool,
}

impl Weather {
    /// Ends what lasts.
    pub(crate) fn clear(&mut self) {
        *self = Self { cuts: self.cuts, closes_up: self.closes_up, closes_down: self.closes_down, ..Self::default() };
    }

    fn closes(&self, way: Way) -> u64 {
        if way == Way::Up { self.closes_up } else { self.closes_down }
    }

    fn stalled(&self, way: Way) -> bool {
        if way == Way::Up { self.stalled_up } else { self.stalled_down }
    }
}

/// A proxy before one server. It ends with the runtime.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    /// One for each shard, and the last for callers.
    weather: [watch::Sender<Weather>; 4],
}

fn place(route: Route) -> usize {
    match route {
        Route::Shard(shard) => SHARDS.iter().position(|known| *known == shard).expect("a shard"),
        Route::Callers => SHARDS.len(),
    }
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let weather: [watch::Sender<Weather>; 4] = std::array::from_fn(|_| watch::channel(Weather::default()).0);
        let receivers: [watch::Receiver<Weather>; 4] = std::array::from_fn(|number| weather[number].subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, receivers.clone()));
            }
        });
        Self { addr, weather }
    }

    /// Changes the weather of a way, for the connections there are and for those to come.
    pub(crate) fn change(&self, route: Route, change: impl FnOnce(&mut Weather)) {
        self.weather[place(route)].send_modify(change);
    }

    /// Fair weather everywhere.
    pub(crate) fn clear(&self) {
        for weather in &self.weather {
            weather.send_modify(Weather::clear);
        }
    }
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Whatever goes wrong with one connection is its end and nothing else.
async fn serve(mut client: TcpStream, server: SocketAddr, weather: [watch::Receiver<Weather>; 4]) {
    let Ok(Some(head)) = timeout(LINE_PATIENCE, first_line(&mut client)).await else { return };
    let line = String::from_utf8_lossy(&head).into_owned();
    let shard = SHARDS.iter().find(|shard| line.starts_with(&format!("GET /{shard}/")));
    let mut weather = weather[place(shard.map_or(Route::Callers, |shard| Route::Shard(shard)))].clone();
    let began = *weather.borrow_and_update();
    let dialled = if began.refusing { None } else { TcpStream::connect(server).await.ok() };
    let Some(server) = dialled else { return reset(&client) };
    let mut server = server;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cut = async {
        let mut weather = weather.clone();
        weather.wait_for(|now| now.cuts != began.cuts).await.is_ok()
    };
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let moving = async {
        tokio::join!(
            pump(from_client, to_server, head, Way::Up, weather.clone()),
            pump(from_server, to_client, Vec::new(), Way::Down, weather.clone()),
        )
    };
    let is_cut = tokio::select! {
        is_cut = cut => is_cut,
        _ = moving => false,
    };
    if is_cut {
        reset(&client);
        reset(&server);
    }
}

async fn first_line(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(PIECE);
    while !head.contains(&b'\n') {
        if client.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Moves bytes one way until their source has ended, their target is gone, or the weather closes it.
async fn pump(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    head: Vec<u8>,
    way: Way,
    mut weather: watch::Receiver<Weather>,
) {
    let began = *weather.borrow_and_update();
    let (mut unsent, mut ended) = (head, false);
    while !(ended && unsent.is_empty()) {
        let now = *weather.borrow_and_update();
        if now.closes(way) != began.closes(way) {
            break;
        }
        let piece = if now.slow { SLOW_PIECE } else { PIECE };
        tokio::select! {
            changed = weather.changed() => if changed.is_err() { break },
            moved = step(&from, &to, &mut unsent, piece), if !now.stalled(way) => match moved {
                Ok(goes_on) => ended |= !goes_on,
                Err(_) => break,
            },
        }
        if now.slow {
            sleep(SLOW_PAUSE).await;
        }
    }
    // A target that is gone already needs no closing.
    let _ = to.shutdown().await;
}

/// The next step: sends what is unsent, or else waits for more. `Ok(false)` at the end of the source. Cancel safe: what
/// was taken stays in `unsent` until it was written.
async fn step(from: &ReadHalf<'_>, to: &WriteHalf<'_>, unsent: &mut Vec<u8>, piece: usize) -> io::Result<bool> {
    let moved = if unsent.is_empty() {
        from.readable().await?;
        let mut taken = [0; PIECE];
        let count = from.try_read(&mut taken[..piece]);
        count.map(|count| {
            unsent.extend_from_slice(&taken[..count]);
            count > 0
        })
    } else {
        to.writable().await?;
        let count = to.try_write(&unsent[..unsent.len().min(piece)]);
        count.map(|count| {
            unsent.drain(..count);
            true
        })
    };
    match moved {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        moved => moved,
    }
}
