//! A bare WebSocket client, and what tests say often.

use std::time::Duration;

use concertpos_simulator::{Config, Counts, DEFAULT_API_KEY, Fault, Simulator};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longer than anything here takes, and shorter than anybody's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn open(simulator: &Simulator, shard: &str, format: &str) -> Self {
        Self::try_open(simulator, shard, "demo", format).await.unwrap()
    }

    pub(crate) async fn try_open(
        simulator: &Simulator,
        shard: &str,
        instance: &str,
        format: &str,
    ) -> Result<Self, tungstenite::Error> {
        let url = simulator.url().replace("{shard}", shard).replace("{instance}", instance).replace("{format}", format);
        connect_async(url).await.map(|(socket, _)| Self(socket))
    }

    pub(crate) async fn send(&mut self, command: &str, mut parameters: Value) {
        parameters["api_key"] = DEFAULT_API_KEY.into();
        self.send_text(&json!({"command": command, "parameters": parameters}).to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Whatever comes next, be it the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, tungstenite::Error>> {
        timeout(PATIENCE, self.0.next()).await.expect("something comes")
    }

    pub(crate) async fn text(&mut self) -> String {
        self.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    }

    pub(crate) async fn frame(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    pub(crate) async fn ask(&mut self, command: &str, parameters: Value) -> Value {
        self.send(command, parameters).await;
        self.frame().await
    }

    /// That the next thing is a TCP reset: no frame, no close frame, and no ordinary end either.
    pub(crate) async fn expect_reset(&mut self) {
        match self.next().await {
            Some(Err(tungstenite::Error::Io(fault))) => assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionReset),
            other => panic!("not a reset: {other:?}"),
        }
    }
}

pub(crate) async fn start(config: Config) -> (Simulator, Client) {
    let simulator = Simulator::start(config).await.unwrap();
    let client = Client::open(&simulator, "exon", "json").await;
    (simulator, client)
}

pub(crate) async fn start_with(fault: Fault) -> (Simulator, Client) {
    start(Config { faults: vec![fault], ..Config::default() }).await
}

pub(crate) async fn wait_until(simulator: &Simulator, what: impl Fn(&Counts) -> bool) {
    let waiting = async {
        while !what(&simulator.counts()) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the condition comes true");
}

pub(crate) fn sale(reference: &str) -> Value {
    json!({"POSID": 1, "PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}, {"ID": 2, "Amount": 0}], "ref": reference})
}

pub(crate) fn event(name: &str) -> impl Fn(&Value) -> bool {
    move |frame| frame["type"] == "event" && frame["result"]["event"] == name
}

pub(crate) fn error_word(frame: &Value) -> &str {
    assert_eq!(frame["type"], "error", "{frame}");
    frame["result"]["error"].as_str().unwrap()
}
