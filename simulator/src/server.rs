//! The listener: one address for all shards, told apart by the path.
//!
//! The upgrade is answered here rather than by the library's acceptor, because a dead shard has to reset a connection
//! after its request and before any byte of an answer. The library still parses and checks the request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::commands::Refusal;
use super::connection;
use super::desk::Desk;
use super::faults::{Action, Occasion};
use super::printer::Format;
use super::value::Value;
use super::world::World;

/// Connections at a time, on all shards together; one too many is dropped unheard.
const MOST_CONNECTIONS: usize = 20_000;

/// The longest request head taken, and how long it may take to come.
const MOST_HEAD: usize = 16 * 1024;
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// The largest message taken: a sale of every product of a point of sale is a hundredth of it.
const MOST_MESSAGE: usize = 1024 * 1024;

/// A pause after the system refused a connection (out of files, mostly), so that the listener does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the world stops.
pub(super) async fn listen(world: Arc<World>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = world.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&room).try_acquire_owned() else { continue };
        let guest = Arc::clone(&world);
        world.tasks.spawn(async move {
            if stream.set_nodelay(true).is_ok() {
                receive(guest, stream, connection::reset).await;
            }
            drop(seat);
        });
    }
}

/// Serves one connection until its end or the world's. Whatever goes wrong with it is its own end and nothing else.
/// `reset` makes the coming end of a stream one without ceremony.
pub(super) async fn receive<S: AsyncRead + AsyncWrite + Unpin>(world: Arc<World>, stream: S, reset: fn(&S)) {
    let stop = world.stop.clone();
    let served = async {
        if let Ok(Ok(arrival)) = timeout(HEAD_PATIENCE, read_head(stream, reset)).await {
            welcome(world, arrival).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = served => {}
    }
}

/// A connection whose request was read.
struct Arrival<S> {
    stream: S,
    reset: fn(&S),
    request: Request,
    /// What came behind the request.
    tail: Vec<u8>,
}

async fn read_head<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, reset: fn(&S)) -> io::Result<Arrival<S>> {
    let mut head = Vec::with_capacity(1_024);
    loop {
        if stream.read_buf(&mut head).await? == 0 || head.len() > MOST_HEAD {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match Request::try_parse(&head) {
            Ok(Some((length, request))) => {
                let tail = head.get(length..).unwrap_or_default().to_vec();
                return Ok(Arrival { stream, reset, request, tail });
            }
            Ok(None) => {}
            Err(_) => {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(world: Arc<World>, mut arrival: Arrival<S>) {
    let target = Target::of(arrival.request.uri(), &world.config.shards);
    let instance = world.instance(&target.instance).ok();
    // Before it is told anything: a shard's death that comes after the answer must not pass it by.
    let Some(mut seat) = world.roster.join(target.shard, instance, target.format) else {
        return refuse(&world, target.shard, &arrival);
    };
    let mut present = Present { world: Arc::clone(&world), shard: target.shard, seat: seat.id, is_open: false };
    let occasion = Occasion { shard: world.shard_name(target.shard), command: None };
    let fault = world.faults.strike(&occasion, || world.chance());
    if fault == Some(Action::RefuseConnect) {
        return refuse(&world, target.shard, &arrival);
    }
    if fault == Some(Action::HangConnect) {
        world.counters.refused(target.shard);
        return connection::ignore(arrival.stream, &mut seat.fate, arrival.reset).await;
    }
    if upgrade(&mut arrival, || present.open()).await.is_err() {
        return;
    }
    let desk = Desk {
        world: Arc::clone(&world),
        shard: target.shard,
        instance,
        format: target.format,
        in_progress: Arc::new(AtomicUsize::new(0)),
    };
    let mut greeting = Vec::new();
    if world.config.session_event {
        let session = Value::object([("id", Value::from(format!("session-{}", seat.id)))]);
        greeting.push(desk.event("session", &session));
    }
    if instance.is_none() {
        greeting.push(desk.error(&Refusal::new("invalid_instance", 0)));
    }
    if let Some(Action::ConnectError { word }) = fault {
        greeting.push(desk.error(&Refusal::new(word, 0)));
    }
    let limits = WebSocketConfig::default().read_buffer_size(16 * 1024).max_message_size(Some(MOST_MESSAGE));
    let Arrival { stream, reset, tail, .. } = arrival;
    let socket = WebSocketStream::from_partially_read(stream, tail, Role::Server, Some(limits)).await;
    connection::run(desk, socket, seat, greeting, reset).await;
}

/// A connection that is on the roster, until it is dropped, with its task or without.
struct Present {
    world: Arc<World>,
    shard: usize,
    seat: u64,
    is_open: bool,
}

impl Present {
    fn open(&mut self) {
        self.is_open = true;
        self.world.counters.opened(self.shard);
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.world.roster.leave(self.seat);
        if self.is_open {
            self.world.counters.closed(self.shard);
        }
    }
}

fn refuse<S>(world: &World, shard: usize, arrival: &Arrival<S>) {
    world.counters.refused(shard);
    (arrival.reset)(&arrival.stream);
}

/// Calls `open` and answers the upgrade; what is no upgrade is told to upgrade, as Node's `ws` does.
async fn upgrade<S: AsyncWrite + Unpin>(arrival: &mut Arrival<S>, open: impl FnOnce()) -> io::Result<()> {
    let Ok(response) = create_response(&arrival.request) else {
        let text = b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 16\r\n\r\nUpgrade Required";
        arrival.stream.write_all(text).await?;
        return Err(io::ErrorKind::InvalidData.into());
    };
    open();
    let mut head = Vec::with_capacity(256);
    write_response(&mut head, &response).map_err(io::Error::other)?;
    arrival.stream.write_all(&head).await
}

/// What a URL asks for.
#[derive(Debug, PartialEq)]
struct Target {
    shard: usize,
    instance: String,
    format: Format,
}

impl Target {
    /// Reads `/{shard}/?instance=…`, `/?instance=…` and the older `/{instance}`; the latter two mean the first shard.
    fn of(uri: &Uri, shards: &[String]) -> Self {
        let segment = decode(uri.path().trim_matches('/'));
        let shard = shards.iter().position(|shard| *shard == segment);
        let mut instance = if shard.is_none() { segment } else { String::new() };
        let mut format = Format::Json;
        for field in uri.query().unwrap_or_default().split('&') {
            match field.split_once('=').unwrap_or((field, "")) {
                ("instance", slug) => instance = decode(slug),
                ("Content-Type", "" | "json") => format = Format::Json,
                // Any other type is JSON5 to the sister server, and the vendor's own build sends `Content-Typejson5`.
                ("Content-Type" | "Content-Typejson5", _) => format = Format::Json5,
                _ => {}
            }
        }
        Self { shard: shard.unwrap_or_default(), instance, format }
    }
}

/// Undoes percent encoding; what is no encoding stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = encoded.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_url_is_understood() {
        let shards = ["exon", "zeus"].map(str::to_owned);
        let target = |uri: &str| {
            let Target { shard, instance, format } = Target::of(&uri.parse().unwrap(), &shards);
            (shard, instance, format)
        };
        assert_eq!(target("/zeus/?instance=demo&Content-Type=json5"), (1, "demo".into(), Format::Json5));
        assert_eq!(target("/zeus?instance=a%20b%2"), (1, "a b%2".into(), Format::Json));
        assert_eq!(target("/?instance=demo&Content-Type=json"), (0, "demo".into(), Format::Json));
        assert_eq!(target("/?instance=demo&Content-Typejson5"), (0, "demo".into(), Format::Json5));
        assert_eq!(target("/demo"), (0, "demo".into(), Format::Json));
        assert_eq!(target("/"), (0, String::new(), Format::Json));
    }
}
