//! A till: a bare WebSocket client that knows the gateway's protocol and nothing of the bridge.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Caller, KEY};

/// The most that anything is waited for: nothing takes this long unless it has failed. Shorter than the bridge's pings are
/// apart, so that no ping passes for something.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Till(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Till {
    /// A connection to the instance `demo` that prints JSON.
    pub(crate) async fn open(world: &Caller) -> Self {
        Self::at(world, "/?instance=demo&Content-Type=json").await
    }

    pub(crate) async fn at(world: &Caller, path: &str) -> Self {
        Self::try_at(world, path, None).await.unwrap()
    }

    /// A connection as a web page of `origin` would open it.
    pub(crate) async fn try_at(world: &Caller, path: &str, origin: Option<&str>) -> Result<Self, tungstenite::Error> {
        let mut request = format!("{}{path}", world.url.replace("http://", "ws://")).into_client_request()?;
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", HeaderValue::from_str(origin).unwrap());
        }
        connect_async(request).await.map(|(socket, _)| Self(socket))
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Gives a command with the key that is given, if one is.
    pub(crate) async fn order_with(&mut self, command: &str, mut parameters: Value, key: Option<&str>) {
        if let Some(key) = key {
            parameters["api_key"] = key.into();
        }
        self.send(&json!({"command": command, "parameters": parameters}).to_string()).await;
    }

    pub(crate) async fn order(&mut self, command: &str, parameters: Value) {
        self.order_with(command, parameters, Some(KEY)).await;
    }

    /// The next text; what else comes is passed over.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// Whatever comes next, be it the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, tungstenite::Error>> {
        timeout(PATIENCE, self.0.next()).await.expect("something comes")
    }

    pub(crate) async fn frame(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// What a command is answered with, whatever is broadcast meanwhile: a connection that breaks under a test may be one
    /// without which nobody is sure to have heard the gateway.
    pub(crate) async fn ask(&mut self, command: &str, parameters: Value) -> Value {
        self.ask_with(command, parameters, Some(KEY)).await
    }

    pub(crate) async fn ask_with(&mut self, command: &str, parameters: Value, key: Option<&str>) -> Value {
        self.order_with(command, parameters, key).await;
        loop {
            let frame = self.frame().await;
            if frame["type"] != "broadcast" {
                return frame;
            }
        }
    }

    /// That nothing was on its way: the answer to a question asked now comes next. Asked more than once, since of two
    /// frames that wait the bridge may send either first.
    pub(crate) async fn expect_nothing(&mut self) {
        for _ in 0..3 {
            self.order_with("getdeposit", json!({}), None).await;
            let frame = self.frame().await;
            assert_eq!(word(&frame), "missing_parameter_api", "{frame}");
        }
    }

    /// The code with which the connection is closed next.
    pub(crate) async fn code(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}

/// The word of an error frame, checked to be one.
pub(crate) fn word(frame: &Value) -> &str {
    assert_eq!(frame["type"], "error", "{frame}");
    frame["result"]["error"].as_str().unwrap()
}

/// The name of an event frame, checked to be one.
pub(crate) fn event(frame: &Value) -> &str {
    assert_eq!(frame["type"], "event", "{frame}");
    frame["result"]["event"].as_str().unwrap()
}

/// The message of a broadcast frame, checked to be one.
pub(crate) fn message(frame: &Value) -> &str {
    assert_eq!(frame["type"], "broadcast", "{frame}");
    frame["result"]["message"].as_str().unwrap()
}

/// A sale as the vendor's till sends it: every product of the point of sale as a whole object, a payment method as a
/// string, no password as `null`. The gateway's counts know it by `reference`.
pub(crate) fn sale(reference: &str) -> Value {
    json!({
        "Products": [
            {"ID": 1, "ProductName": "Beer 0.5 l", "Price": 4.5, "Amount": 2, "Deposit": 1, "CrewBlocked": 0},
            {"ID": 2, "ProductName": "Lemonade 0.3 l", "Price": 3, "Amount": 0, "Deposit": 1, "CrewBlocked": 0},
        ],
        "PaymentMethod": "1",
        "POSID": 1,
        "posPassword": null,
        "ref": reference,
    })
}
