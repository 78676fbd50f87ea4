//! Connections to a real server with short limits, over a bridge without a gateway. Tests that need a gateway are in
//! `tests/native.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::http::server::ServerHandle;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::NativeLimits;
use crate::http::server::{Listeners, Parts, run};
use crate::http::testing::{auth, bridge};
use crate::http::{Config, native};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer to any frame: the bridge has no instance.
const ANSWER: &str = r#"{"type":"error","result":{"error":"invalid_instance","code":0}}"#;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn serve(limits: NativeLimits) -> (SocketAddr, ServerHandle) {
    serve_with(limits, Duration::from_secs(1))
}

/// `untaken` is how long the system waits for a peer that reads nothing.
fn serve_with(limits: NativeLimits, untaken: Duration) -> (SocketAddr, ServerHandle) {
    let native = native::NativeConfig { limits, ..native::NativeConfig::default() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { native, max_body: 1024, untaken, ..Config::default() };
    let listeners = Listeners { callers: listener, admin: None, cluster: None };
    let parts = Parts { bridge: bridge(), auth: auth(), config, certificates: None, forwarding: None };
    let server = run(listeners, parts, || ()).unwrap().callers;
    let handle = server.handle();
    actix_web::rt::spawn(server.serve());
    (address, handle)
}

async fn try_open(address: SocketAddr) -> Result<Client, tungstenite::Error> {
    connect_async(format!("ws://{address}/?instance=nowhere")).await.map(|(client, _)| client)
}

/// A connection that has sent its first frame.
async fn open(address: SocketAddr) -> Client {
    let mut client = try_open(address).await.unwrap();
    assert_eq!(text(&mut client).await, ANSWER);
    client
}

async fn next(client: &mut Client) -> Option<Result<Message, tungstenite::Error>> {
    timeout(PATIENCE, client.next()).await.expect("something comes")
}

async fn text(client: &mut Client) -> String {
    next(client).await.unwrap().unwrap().into_text().unwrap().to_string()
}

/// The code with which the connection is closed, whatever comes before.
async fn code(client: &mut Client) -> Option<CloseCode> {
    let closed = async {
        loop {
            match client.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("it is closed")
}

/// A connection, as soon as there is room for one.
async fn open_in_time(address: SocketAddr) -> Client {
    let opened = async {
        loop {
            if let Ok(client) = try_open(address).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, opened).await.expect("a place becomes free")
}

#[actix_web::test]
async fn a_peer_that_answers_no_ping_is_closed_and_one_that_does_is_not() {
    let limits = NativeLimits {
        ping_every: Duration::from_millis(50),
        silence: Duration::from_millis(150),
        ..NativeLimits::default()
    };
    let (address, server) = serve(limits);
    let mut lively = open(address).await;
    let silent = open(address).await;
    let begun = Instant::now();
    let mut pings = 0;
    while begun.elapsed() < Duration::from_millis(400) {
        // Reading answers pings.
        assert!(matches!(next(&mut lively).await, Some(Ok(Message::Ping(_)))));
        pings += 1;
    }
    assert!(pings >= 4, "{pings}");
    let MaybeTlsStream::Plain(mut raw) = silent.into_inner() else { panic!("no TLS here") };
    let mut waste = Vec::new();
    let read = raw.read_to_end(&mut waste);
    timeout(PATIENCE, read).await.expect("the silent one is closed").ok();
    lively.send(Message::text("{}")).await.unwrap();
    server.stop(false).await;
}

#[actix_web::test]
async fn a_peer_that_does_not_read_is_closed_and_delays_no_other() {
    let limits = NativeLimits { write: Duration::from_millis(200), ..NativeLimits::default() };
    // The system would wait longer.
    let (address, server) = serve_with(limits, Duration::from_mins(10));
    let mut slow = open(address).await;
    let mut quick = open(address).await;
    let flood = async {
        // Until the bridge stops reading, and then until it has closed the connection.
        while slow.send(Message::text("hello")).await.is_ok() {}
    };
    let others = async {
        for _ in 0..200 {
            quick.send(Message::text("hello")).await.unwrap();
            assert_eq!(text(&mut quick).await, ANSWER);
        }
    };
    timeout(PATIENCE, async { tokio::join!(flood, others) }).await.expect("the slow one is closed");
    server.stop(false).await;
}

#[actix_web::test]
async fn a_peer_that_does_not_read_holds_its_slot_no_longer_than_a_write_may_take() {
    let native = NativeLimits { write: Duration::from_millis(200), anonymous: 1, ..NativeLimits::default() };
    let (address, server) = serve_with(native, Duration::from_mins(10));
    let mut slow = open(address).await;
    let flood = async {
        while slow.send(Message::text("hello")).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = flood => {}
        _ = open_in_time(address) => {}
    }
    server.stop(false).await;
}

#[actix_web::test]
async fn strangers_have_so_many_places_and_give_way_after_a_while() {
    let limits = NativeLimits { anonymous: 2, anonymous_grace: Duration::from_millis(300), ..NativeLimits::default() };
    let (address, server) = serve(limits);
    let mut first = open(address).await;
    let mut second = open(address).await;
    let Err(tungstenite::Error::Http(refused)) = try_open(address).await else { panic!("there is no third place") };
    assert_eq!(refused.status(), 503);
    let third = open_in_time(address).await;
    assert_eq!(code(&mut first).await, Some(CloseCode::Policy));
    drop(third);
    second.send(Message::text("hello")).await.unwrap();
    assert_eq!(text(&mut second).await, ANSWER);
    server.stop(false).await;
}

#[actix_web::test]
async fn a_frame_that_is_too_large_or_none_closes_its_connection_with_the_right_code() {
    let (address, server) = serve(NativeLimits::default());
    let mut large = open(address).await;
    large.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(code(&mut large).await, Some(CloseCode::Size));
    let mut small = open(address).await;
    small.send(Message::text("x".repeat(1024))).await.unwrap();
    assert_eq!(text(&mut small).await, ANSWER);
    server.stop(false).await;
}

/// Sends bytes past the client's own rules.
async fn send_raw(client: &mut Client, bytes: &[u8]) {
    let MaybeTlsStream::Plain(raw) = client.get_mut() else { panic!("no TLS here") };
    raw.write_all(bytes).await.unwrap();
}

#[actix_web::test]
async fn a_frame_is_refused_when_its_length_is_announced_and_a_fault_of_the_protocol_is_called_one() {
    let (address, server) = serve(NativeLimits::default());
    let gigabyte = [&[0x81, 0xff][..], &(1_u64 << 30).to_be_bytes(), &[0; 4]].concat();
    let reserved = [0xc1, 0x81, 0, 0, 0, 0, b'x'];
    let unmasked = [0x81, 0x01, b'x'];
    let no_text = [0x81, 0x81, 0, 0, 0, 0, 0xff];
    let fragments = [&[0x01, 0xfe, 0x04, 0x00, 0, 0, 0, 0][..], &[b'x'; 1024], &[0x00, 0x81, 0, 0, 0, 0]].concat();
    for (bytes, expected) in [
        (&gigabyte[..], CloseCode::Size),
        (&fragments, CloseCode::Size),
        (&reserved, CloseCode::Protocol),
        (&unmasked, CloseCode::Protocol),
        (&no_text, CloseCode::Invalid),
    ] {
        let mut client = open(address).await;
        send_raw(&mut client, bytes).await;
        assert_eq!(code(&mut client).await, Some(expected), "{:02x?}", &bytes[..bytes.len().min(16)]);
    }
    server.stop(false).await;
}

#[actix_web::test]
async fn another_version_of_the_protocol_is_refused_with_the_supported_one() {
    let (address, server) = serve(NativeLimits::default());
    let mut raw = TcpStream::connect(address).await.unwrap();
    let head = "GET /?instance=nowhere HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = timeout(PATIENCE, raw.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 400") && answer.contains("\r\nsec-websocket-version: 13\r\n"), "{answer}");
    server.stop(false).await;
}
