//! Callers who pay: over REST, repeating a sale with the same key until they know, and a till on the native endpoint.
//!
//! Each answer is held against those before it. What was booked stays booked, word for word; what is unknown may become
//! known, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::answer::Asking;
use crate::support::KEY;

/// Longer than the bridge takes for any frame.
const FRAME_PATIENCE: Duration = Duration::from_secs(16);

/// What the callers of one key have been told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// The body of its 201.
    pub(crate) booked: Option<String>,
    pub(crate) unknown: bool,
    pub(crate) asked: u32,
    /// Its last answer: status and code.
    pub(crate) last: (u16, String),
}

pub(crate) type Keys = Arc<Mutex<BTreeMap<String, Told>>>;

/// A caller over REST.
#[derive(Debug, Clone)]
pub(crate) struct Payer {
    pub(crate) asking: Asking,
    pub(crate) keys: Keys,
}

impl Payer {
    /// Asks once for the sale of a key. Whether what became of it is known now.
    pub(crate) async fn ask(&self, key: &str) -> bool {
        let pos = 1 + key.len() % 3;
        let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
        let url = self.asking.url(&format!("/points-of-sale/{pos}/payments"));
        let request = self.asking.http.post(url).bearer_auth(KEY).header("Idempotency-Key", key).json(&sale);
        let before = self.keys.lock().unwrap().entry(key.to_owned()).or_default().clone();
        let answer = self.asking.send(request, "payItems").await;
        let mut keys = self.keys.lock().unwrap();
        let told = keys.get_mut(key).unwrap();
        told.asked += 1;
        let Some(answer) = answer else { return false };
        told.last = (answer.status, answer.code.clone());
        // Two may ask for the same key at once: only what was told before this was asked must still hold.
        match (answer.status, answer.code.as_str()) {
            (201, _) => {
                let booked = told.booked.get_or_insert_with(|| answer.body.clone());
                assert_eq!(*booked, answer.body, "{key}: a 201 is given again as it was");
                true
            }
            (504, "payment-outcome-unknown") => {
                assert!(before.booked.is_none(), "{key} was booked, and is now said to be unknown");
                told.unknown = true;
                true
            }
            // These say nothing of the sale.
            (503, "shutting-down" | "journal-unavailable") => false,
            (status, code) => {
                assert!(before.booked.is_none(), "{key} was booked, and is now told {status} {code}: {}", answer.body);
                // A refusal by the gateway is an answer; the sale may be tried again.
                !matches!(status, 409 | 429 | 503)
            }
        }
    }

    /// One sale after the other until there are enough, each asked for a few times, and now and then an old one again.
    pub(crate) async fn sell(self, name: String, seed: u64, enough: CancellationToken) {
        let mut dice = Rng::with_seed(seed);
        for number in 0_u32.. {
            if enough.is_cancelled() {
                return;
            }
            let key = format!("{name}-{number}");
            for _ in 0..dice.u8(1..8) {
                if self.ask(&key).await {
                    break;
                }
                sleep(Duration::from_millis(dice.u64(5..100))).await;
            }
            if dice.u8(..) < 64 {
                self.ask(&format!("{name}-{}", dice.u32(0..=number))).await;
            }
            sleep(Duration::from_millis(dice.u64(10..80))).await;
        }
    }
}

/// What a till was told of a sale, which it sent once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing, or that nobody knows.
    Unknown,
    Booked,
    Refused,
}

pub(crate) type Sales = Arc<Mutex<BTreeMap<String, Heard>>>;

/// A till: connects, sells until its connection breaks, and connects again.
pub(crate) async fn till(url: String, sales: Sales, seed: u64, enough: CancellationToken) {
    let mut dice = Rng::with_seed(seed);
    let mut number = 0_u32;
    while !enough.is_cancelled() {
        let Ok(Ok((mut socket, _))) = timeout(FRAME_PATIENCE, connect_async(&url)).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        loop {
            if enough.is_cancelled() {
                return;
            }
            number += 1;
            let name = format!("till-{number}");
            let sale = json!({"api_key": KEY, "POSID": 2, "PaymentMethod": "1",
                "Products": [{"ID": 1, "Amount": "1"}], "ref": name});
            sales.lock().unwrap().insert(name.clone(), Heard::Unknown);
            let frame = json!({"command": "payitems", "parameters": sale}).to_string();
            if socket.send(Message::text(frame)).await.is_err() {
                break;
            }
            let Some(heard) = reply(&mut socket).await else { break };
            sales.lock().unwrap().insert(name, heard);
            sleep(Duration::from_millis(dice.u64(10..100))).await;
        }
    }
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// What the sale is answered with; nothing where the connection breaks.
async fn reply(socket: &mut Socket) -> Option<Heard> {
    loop {
        let message = timeout(FRAME_PATIENCE, socket.next()).await.expect("a till is answered in time")?;
        let Ok(Message::Text(text)) = message else {
            if message.is_err() {
                return None;
            }
            continue;
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let result = &frame["result"];
        match (frame["type"].as_str().unwrap(), result["event"].as_str(), result["error"].as_str()) {
            ("broadcast", ..) => {}
            ("event", Some("payitem"), _) => return Some(Heard::Booked),
            ("error", _, Some("error_exec")) => return Some(Heard::Unknown),
            ("error", _, Some(word)) => {
                let refusals = ["ratelimit", "invalid_password", "api_key_", "getlicense", "missing_parameter_"];
                assert!(refusals.iter().any(|known| word.starts_with(known)), "no word for a sale: {text}");
                return Some(Heard::Refused);
            }
            _ => panic!("no answer to a sale: {text}"),
        }
    }
}
