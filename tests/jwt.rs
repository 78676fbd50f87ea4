//! Callers who present a JWT: who they are, what they may, and for how long, through the real program.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use concertpos_simulator::Config;
use data_encoding::BASE64URL_NOPAD;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use support::events::Stream;
use support::{ANY, OPERATOR, World, eventually, problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

const ISSUER: &str = "https://id.example";

/// An issuer: a key server whose answer can be changed, and keys.
struct Issuer {
    url: String,
    /// The body; none where the server is away.
    keys: Arc<Mutex<Option<String>>>,
    fetches: Arc<AtomicU64>,
}

struct Key {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, pair: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let x = BASE64URL_NOPAD.encode(self.pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "alg": "EdDSA", "x": x})
    }

    fn token(&self, name: &str, scope: &str, valid_for_s: i64) -> String {
        self.token_for(name, scope, valid_for_s, "bridge")
    }

    fn token_for(&self, name: &str, scope: &str, valid_for_s: i64, audience: &str) -> String {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let header = json!({"alg": "EdDSA", "kid": self.id}).to_string();
        let claims = json!({
            "iss": ISSUER, "aud": audience, "sub": name, "scope": scope, "instances": ["demo"],
            "iat": now, "exp": now + valid_for_s,
        });
        let message = [header, claims.to_string()].map(|part| BASE64URL_NOPAD.encode(part.as_bytes())).join(".");
        let signature = BASE64URL_NOPAD.encode(self.pair.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

impl Issuer {
    async fn with(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let issuer = Self { url, keys: Arc::default(), fetches: Arc::default() };
        issuer.has(keys);
        let (keys, fetches) = (Arc::clone(&issuer.keys), Arc::clone(&issuer.fetches));
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                fetches.fetch_add(1, Ordering::SeqCst);
                let body = keys.lock().clone();
                let answer = match body {
                    Some(body) => {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
                    }
                    None => "HTTP/1.1 503 Away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
                };
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    fn has(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        *self.keys.lock() = Some(json!({ "keys": keys }).to_string());
    }

    fn goes_away(&self) {
        *self.keys.lock() = None;
    }

    fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    fn settings(&self) -> Vec<(&'static str, &str)> {
        vec![
            ("BRIDGE_AUTH__JWT__ISSUER", ISSUER),
            ("BRIDGE_AUTH__JWT__AUDIENCE", "bridge"),
            ("BRIDGE_AUTH__JWT__JWKS_URL", &self.url),
            ("BRIDGE_AUTH__JWT__LEEWAY", "0s"),
        ]
    }

    async fn world(&self, settings: &[(&str, &str)]) -> World {
        World::with(Config::default(), &[self.settings().as_slice(), settings].concat()).await
    }
}

async fn read(world: &World, token: &str) -> reqwest::Response {
    world.http.get(world.path(ANY)).bearer_auth(token).send().await.unwrap()
}

async fn refused(world: &World, token: &str) -> String {
    let problem = problem(read(world, token).await).await;
    assert_eq!((problem.status, problem.code.as_str()), (401, "unauthenticated"), "{}", problem.body);
    assert!(!problem.body.to_string().contains(token.rsplit('.').next().unwrap()), "no token in an answer");
    problem.body["detail"].as_str().unwrap().to_owned()
}

fn sale(world: &World, token: &str, key: &str) -> reqwest::RequestBuilder {
    let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
    let request = world.http.post(world.path("/points-of-sale/1/payments")).bearer_auth(token);
    request.header("Idempotency-Key", key).json(&sale)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_a_jwt_owns_its_payments_and_may_what_the_claims_say() {
    let key = Key::new("k");
    let world = Issuer::with(&[&key]).await.world(&[]).await;
    let (shop, kiosk) = (key.token("shop", "read pay", 60), key.token("kiosk", "read pay events", 60));
    assert_eq!(read(&world, &shop).await.status(), 200, "the very first request");
    let sold = sale(&world, &shop, "one").send().await.unwrap();
    assert_eq!(sold.status(), 201);
    let record = format!("{}{}", world.url, sold.headers()["location"].to_str().unwrap());
    let found = async |token: &str| world.http.get(&record).bearer_auth(token).send().await.unwrap().status().as_u16();
    assert_eq!((found(&shop).await, found(&kiosk).await), (200, 404), "another subject of the same issuer");
    // The same subject, and the same key: the same payment.
    let again = sale(&world, &key.token("shop", "pay", 30), "one").send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(sale(&world, &kiosk, "one").send().await.unwrap().status(), 201, "another caller's key is its own");
    let all = world.http.get(world.path("/payments")).bearer_auth(OPERATOR).send().await.unwrap().text().await.unwrap();
    assert!(all.contains("https://id.example|shop") && all.contains("https://id.example|kiosk"), "{all}");
    let lacking = problem(sale(&world, &key.token("shop", "read", 60), "two").send().await.unwrap()).await;
    assert_eq!((lacking.status, lacking.code.as_str()), (403, "forbidden"));
    let status = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(&shop).send().await.unwrap();
    assert_eq!(status.status(), 403);
    let metrics = world.http.get(format!("{}/v1/instances", world.url)).bearer_auth(&shop).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("demo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_this_bridge_or_over_is_refused_with_the_reason_and_blocks_no_address() {
    let key = Key::new("k");
    let world = Issuer::with(&[&key]).await.world(&[]).await;
    for _ in 0..40 {
        assert!(refused(&world, &key.token("shop", "read", -1)).await.contains("expired"));
    }
    assert!(refused(&world, &key.token_for("shop", "read", 60, "another")).await.contains("`aud`"));
    assert_eq!(read(&world, &key.token("shop", "read", 60)).await.status(), 200, "its address is not blocked");
    let forged = Key::new("k");
    for _ in 0..40 {
        let answer = read(&world, &forged.token("shop", "read", 60)).await;
        assert!(matches!(answer.status().as_u16(), 401 | 429));
    }
    assert_eq!(read(&world, &key.token("other", "read", 60)).await.status(), 429, "that was guessing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_by_a_new_key_is_accepted_and_made_up_keys_do_not_flood_the_issuer() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::with(&[&old]).await;
    let world = issuer.world(&[("BRIDGE_AUTH__JWT__REFRESH_FLOOR", "1s")]).await;
    assert_eq!(read(&world, &old.token("shop", "read", 60)).await.status(), 200);
    assert_eq!(issuer.fetches(), 1);
    issuer.has(&[&old, &new]);
    // The floor has to pass.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let token = new.token("shop", "read", 60);
    let at_once = support::together((0..10).map(|_| world.http.get(world.path(ANY)).bearer_auth(&token).send())).await;
    for answer in at_once {
        assert_eq!(answer.unwrap().status(), 200, "the first token by the new key");
    }
    assert_eq!(issuer.fetches(), 2, "one fetch for all of them");
    for _ in 0..15 {
        refused(&world, &Key::new("made-up").token("shop", "read", 60)).await;
    }
    assert!(issuer.fetches() <= 4, "{}", issuer.fetches());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_server_that_is_away_leaves_the_keys_in_force_and_is_told() {
    let key = Key::new("k");
    let issuer = Issuer::with(&[&key]).await;
    let world = issuer.world(&[("BRIDGE_AUTH__JWT__REFRESH", "1s")]).await;
    let token = key.token("shop", "read", 600);
    assert_eq!(read(&world, &token).await.status(), 200);
    issuer.goes_away();
    let told = async || {
        let status = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
        status.text().await.unwrap().contains("issuer-keys")
    };
    eventually("it is told", told).await;
    let metrics = world.http.get(format!("{}/metrics", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("concertpos_bridge_issuer_keys{issuer=\"https://id.example\"} 1"), "{metrics}");
    assert!(!metrics.contains("|shop"), "no caller's name is a label");
    for name in ["shop", "another"] {
        assert_eq!(read(&world, &key.token(name, "read", 600)).await.status(), 200);
    }
    issuer.has(&[&key]);
    eventually("it is over", async || !told().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_key_known_a_good_token_is_refused_until_the_key_server_is_back_and_nobody_is_blocked() {
    let key = Key::new("k");
    let issuer = Issuer::with(&[]).await;
    issuer.goes_away();
    let quick = [("BRIDGE_AUTH__JWT__REFRESH", "1s"), ("BRIDGE_AUTH__JWT__REFRESH_FLOOR", "1s")];
    let world = issuer.world(&quick).await;
    for _ in 0..40 {
        assert!(refused(&world, &key.token("shop", "read", 60)).await.contains("not known yet"));
    }
    issuer.has(&[&key]);
    let token = key.token("shop", "read", 60);
    eventually("it is accepted", async || read(&world, &token).await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires_and_not_only_at_the_next_heartbeat() {
    let key = Key::new("k");
    let world = Issuer::with(&[&key]).await.world(&[("BRIDGE_EVENTS__HEARTBEAT", "60s")]).await;
    let open = async |seconds| {
        let token = key.token("board", "events", seconds);
        let request = world.http.get(world.path("/events")).bearer_auth(token);
        Stream::of(request.send().await.unwrap())
    };
    let (mut short, mut long) = (open(3).await, open(600).await);
    assert_eq!((short.next().await.name, long.next().await.name), ("ready".to_owned(), "ready".to_owned()));
    let ended = tokio::time::timeout(Duration::from_secs(10), short.ended()).await;
    assert!(ended.expect("long before a heartbeat"));
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    assert_eq!(long.next().await.message(), "updatepos", "the other one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_takes_the_issuer_away_ends_its_callers_and_one_that_leaves_it_does_not() {
    let key = Key::new("k");
    let issuer = Issuer::with(&[&key]).await;
    let world = issuer.world(&[]).await;
    let token = key.token("board", "events read", 600);
    let mut stream = Stream::of(world.http.get(world.path("/events")).bearer_auth(&token).send().await.unwrap());
    stream.next().await;
    let owned = |settings: Vec<(&str, &str)>| -> Vec<(String, String)> {
        settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let more = [issuer.settings(), vec![("BRIDGE_AUTH__GATEWAY_KEY__PER_SECOND", "99999")]].concat();
    world.reload(&owned(more)).await.unwrap();
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    assert_eq!(stream.next().await.message(), "updatepos");
    assert_eq!(issuer.fetches(), 1, "the keys are kept");
    world.reload(&[]).await.unwrap();
    assert!(stream.ended().await);
    refused(&world, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_may_show_a_jwt_as_its_key_and_is_let_go_when_it_expires() {
    let key = Key::new("k");
    let world = Issuer::with(&[&key]).await.world(&[]).await;
    let url = format!("{}/?instance=demo&Content-Type=json", world.url.replace("http:", "ws:"));
    let (mut till, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let ask = |token: String| {
        let command = json!({"command": "getlicense", "parameters": {"api_key": token}});
        Message::text(command.to_string())
    };
    assert_eq!(read(&world, &key.token("till", "read", 60)).await.status(), 200, "the keys are known");
    till.send(ask(key.token("till", "read", 3))).await.unwrap();
    let reply = till.next().await.unwrap().unwrap();
    assert!(reply.to_text().unwrap().contains("getlicense"), "{reply}");
    let end = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match till.next().await {
                Some(Ok(Message::Close(reason))) => break reason,
                Some(Ok(_)) => {}
                _ => break None,
            }
        }
    });
    let reason = end.await.expect("it ends").expect("with a reason");
    assert_eq!(reason.reason.as_str(), "the token is no longer valid");
}
