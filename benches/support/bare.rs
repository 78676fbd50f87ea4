//! The least that can be done to ask: one WebSocket to the gateway, and one kept HTTP connection to the bridge.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::KEY;

/// The library's own read buffer.
pub(crate) const DEFAULT_BUFFER: usize = 128 << 10;

/// A bare connection to the gateway that asks as the bridge does: command, reply, ping, pong.
pub(crate) struct Bare(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Bare {
    pub(crate) async fn connect(gateway: &str) -> Self {
        Self::buffered(gateway, DEFAULT_BUFFER).await
    }

    /// With a read buffer of so many bytes, which the library clears before each read.
    pub(crate) async fn buffered(gateway: &str, read_buffer: usize) -> Self {
        let url = format!("ws://{gateway}/exon/?instance=demo&Content-Type=json");
        let config = WebSocketConfig::default().read_buffer_size(read_buffer);
        let (mut socket, _) = connect_async_with_config(url, Some(config), false).await.unwrap();
        if let MaybeTlsStream::Plain(tcp) = socket.get_mut() {
            tcp.set_nodelay(true).unwrap();
        }
        Self(socket)
    }

    /// How long a command took to its reply. The ping that follows is waited for and not in it.
    pub(crate) async fn ask(&mut self, command: &str) -> Duration {
        let begun = Instant::now();
        self.reply_to(command).await;
        let took = begun.elapsed();
        self.settle().await;
        took
    }

    /// The reply to a command. Before the next command, the socket has to settle.
    pub(crate) async fn reply_to(&mut self, command: &str) -> Utf8Bytes {
        self.0.send(Message::text(command)).await.unwrap();
        loop {
            if let Message::Text(reply) = self.0.next().await.unwrap().unwrap() {
                return reply;
            }
        }
    }

    /// Waits until a ping is answered.
    pub(crate) async fn settle(&mut self) {
        self.0.send(Message::Ping(vec![1].into())).await.unwrap();
        while !self.0.next().await.unwrap().unwrap().is_pong() {}
    }
}

/// A bare keep-alive connection to the bridge, so that no HTTP client's own time is measured.
pub(crate) struct Caller {
    tcp: TcpStream,
    answer: Vec<u8>,
}

impl Caller {
    pub(crate) async fn connect(bridge: &str) -> Self {
        let tcp = TcpStream::connect(bridge).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp, answer: Vec::with_capacity(4096) }
    }

    /// How long a read took that the bridge answers with 200.
    pub(crate) async fn get(&mut self, path: &str) -> Duration {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n");
        self.send(&request, "HTTP/1.1 200").await
    }

    /// How long a whole request took whose answer begins with `expected`.
    pub(crate) async fn send(&mut self, request: &str, expected: &str) -> Duration {
        let begun = Instant::now();
        self.tcp.write_all(request.as_bytes()).await.unwrap();
        self.answer.clear();
        // Every answer here is one object: it is whole when its last brace has come.
        while self.answer.last() != Some(&b'}') {
            assert!(self.tcp.read_buf(&mut self.answer).await.unwrap() > 0);
        }
        assert!(self.answer.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&self.answer));
        begun.elapsed()
    }
}
