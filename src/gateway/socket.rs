//! One WebSocket connection to the gateway. The only file of the bridge that names tungstenite.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::config::Config;
use super::dialer::{Dialer, Fenced, Unresolved};
use super::error::DialError;

/// The largest message accepted. All transactions of a season's busiest point of sale are some tens of megabytes.
const MAX_MESSAGE: usize = 64 << 20;

/// Bytes read at a time, which each link holds and the library clears before each read. Most replies fit; its own 128 KiB would
/// be most of an idle bridge's memory.
const READ_BUFFER: usize = 4 << 10;

#[derive(Debug)]
pub(super) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A ping of ours, answered, with its payload.
    Pong(u64),
    /// A foreign pong, or a ping, which the library answers.
    Ignored,
    /// The connection is over; the reason is for the log.
    Closed(String),
    /// The connection is over: what came breaks the WebSocket protocol or is too large.
    Garbled(String),
}

#[derive(Debug)]
pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<Fenced>>,
}

impl Socket {
    /// Connects to `url` within the connect timeout.
    pub(super) async fn connect(url: &str, dialer: &Dialer, config: &Config) -> Result<Self, DialError> {
        let opening = Self::open(url, dialer, config.request_timeout);
        timeout(config.connect_timeout, opening).await.unwrap_or(Err(DialError::Timeout))
    }

    async fn open(url: &str, dialer: &Dialer, patience: Duration) -> Result<Self, DialError> {
        let bad_url = |reason: &str| DialError::Url(reason.to_owned());
        let request = url.into_client_request().map_err(|error| DialError::Url(error.to_string()))?;
        let host = request.uri().host().ok_or_else(|| bad_url("it names no host"))?;
        let port = match (request.uri().port_u16(), request.uri().scheme_str()) {
            (Some(port), _) => port,
            (None, Some("wss")) => 443,
            (None, Some("ws")) => 80,
            (None, _) => return Err(bad_url("it must begin with ws:// or wss://")),
        };
        // A literal IPv6 address stands in brackets in a URL and without them in a socket address.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = dialer.dial(host, port, patience).await.map_err(|error| unreached(&error))?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        client_async_tls_with_config(request, stream, Some(limits), Some(Connector::Rustls(dialer.tls())))
            .await
            .map(|(stream, _)| Self { stream })
            .map_err(|error| match error {
                // 408 and 429 concern the shard, not this request.
                WsError::Http(answer)
                    if answer.status().is_client_error() && ![408, 429].contains(&answer.status().as_u16()) =>
                {
                    DialError::Status(answer.status().as_u16())
                }
                WsError::Io(error) => unreached(&error),
                other => DialError::Connect(other.to_string()),
            })
    }

    /// How many bytes were written so far, below TLS.
    pub(super) fn written(&self) -> u64 {
        match self.stream.get_ref() {
            MaybeTlsStream::Plain(stream) => stream.written(),
            MaybeTlsStream::Rustls(stream) => stream.get_ref().0.written(),
            _ => 0,
        }
    }

    /// Writes one text message. On an error some of it may have left.
    pub(super) async fn send(&mut self, text: String) -> Result<(), String> {
        self.stream.send(Message::text(text)).await.map_err(|error| error.to_string())
    }

    /// Writes a ping that carries `payload`.
    pub(super) async fn ping(&mut self, payload: u64) -> Result<(), String> {
        let payload = payload.to_be_bytes().to_vec();
        self.stream.send(Message::Ping(payload.into())).await.map_err(|error| error.to_string())
    }

    /// The next thing that comes. Cancel safe: nothing is lost when the future is dropped.
    pub(super) async fn receive(&mut self) -> Received {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text),
            Some(Ok(Message::Pong(payload))) => {
                payload.as_ref().try_into().map_or(Received::Ignored, |bytes| Received::Pong(u64::from_be_bytes(bytes)))
            }
            Some(Ok(Message::Close(frame))) => Received::Closed(closing_words(frame)),
            Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes),
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => Received::Ignored,
            Some(Err(WsError::Utf8(_))) => Received::Garbled("a text message was not UTF-8".to_owned()),
            // The library reports an end without a close frame as a protocol error.
            Some(Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                Received::Closed("the gateway closed the connection without a close frame".to_owned())
            }
            Some(Err(error @ (WsError::Protocol(_) | WsError::Capacity(_)))) => Received::Garbled(error.to_string()),
            Some(Err(error)) => Received::Closed(error.to_string()),
            None => Received::Closed("the gateway closed the connection".to_owned()),
        }
    }

    /// Sends a close frame with code 1000, waiting no longer than `limit`.
    pub(super) async fn close(mut self, limit: Duration) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        // Whether the frame arrives changes nothing: the connection is over either way.
        let _ = timeout(limit, self.stream.close(Some(frame))).await;
    }
}

/// Why no connection came about.
fn unreached(error: &io::Error) -> DialError {
    let (words, source) = (error.to_string(), error.get_ref());
    let is_certificate = |source: &rustls::Error| {
        matches!(source, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    };
    match source {
        Some(source) if source.is::<Unresolved>() => DialError::Name(words),
        Some(source) if source.downcast_ref().is_some_and(is_certificate) => DialError::Certificate(words),
        _ => DialError::Connect(words),
    }
}

fn closing_words(frame: Option<CloseFrame>) -> String {
    frame.map_or_else(
        || "the gateway closed the connection".to_owned(),
        |frame| format!("the gateway closed the connection with code {}", u16::from(frame.code)),
    )
}
