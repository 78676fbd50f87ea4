//! What the bridge tells to others: traces that a collector can put together, and no secret, wherever one looks.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

#[path = "telemetry/collector.rs"]
mod collector;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use collector::{Collector, Span};
use concertpos_bridge::internals::config::Config;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use futures_util::{SinkExt, StreamExt};
use reqwest::Client;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use running::{Running, free_address, wait_until};
use sha2::{Digest, Sha256};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

const KEY: &str = "demo-key";
const OPERATOR: &str = "the-operator-secret";
const LISTENER: &str = "the-listener-secret";
/// Everything that nobody may be told. The first three open something.
const SECRETS: [&str; 8] = [
    KEY,
    OPERATOR,
    LISTENER,
    "query-secret-1",
    "a-wrong-secret-1",
    "till-password-1",
    "a-native-secret-1",
    "a-raw-secret-1",
];
const SALE: &str = "{\"PaymentMethod\":1,\"Products\":[{\"ID\":1,\"Amount\":2}],\"posPassword\":\"till-password-1\"}";

/// A gateway and a bridge that tells `collector` its traces and logs what its filter says.
struct Service {
    bridge: Running,
    log: std::thread::JoinHandle<String>,
    _gateway: Running,
    listen: String,
    /// A token of the issuer.
    jwt: String,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(collector: &Collector, filter: &str) -> Self {
        let ([listen, shards], folder) = ([(); 2].map(|()| free_address()), tempfile::tempdir().unwrap());
        let gateway = Running::start(&["simulate", "--listen", &shards], &[]);
        let url = format!("ws://{shards}/{{shard}}/?instance={{instance}}&Content-Type={{format}}");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let jwt = issued(&at("keys"));
        let digest = |secret: &str| HEXLOWER.encode(&Sha256::digest(secret));
        let environment = [
            ("BRIDGE_SERVER__LISTEN", listen.clone()),
            ("BRIDGE_GATEWAY__URL", url),
            ("BRIDGE_PAYMENTS__JOURNAL", at("journal")),
            ("BRIDGE_CACHE__STORE", at("cache")),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY.to_owned()),
            ("BRIDGE_AUTH__TOKENS__OPERATOR__SHA256", digest(OPERATOR)),
            ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES", "demo".to_owned()),
            ("BRIDGE_AUTH__TOKENS__OPERATOR__SCOPES", "read,pay,raw,operate".to_owned()),
            ("BRIDGE_AUTH__TOKENS__LISTENER__SHA256", digest(LISTENER)),
            ("BRIDGE_AUTH__TOKENS__LISTENER__INSTANCES", "demo".to_owned()),
            ("BRIDGE_AUTH__TOKENS__LISTENER__SCOPES", "events".to_owned()),
            ("BRIDGE_AUTH__JWT__ISSUER", "https://id.example".to_owned()),
            ("BRIDGE_AUTH__JWT__AUDIENCE", "bridge".to_owned()),
            ("BRIDGE_AUTH__JWT__JWKS_FILE", at("keys")),
            ("BRIDGE_TELEMETRY__LOG", filter.to_owned()),
            ("BRIDGE_TELEMETRY__OTLP_ENDPOINT", collector.url()),
        ];
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut bridge = Running::start(&["serve"], &environment);
        // Read as it comes: a full pipe would hold the bridge up.
        let log = BufReader::new(bridge.0.stderr.take().unwrap());
        let log = std::thread::spawn(|| {
            log.lines().map_while(Result::ok).fold(String::new(), |log, line| log + &line + "\n")
        });
        wait_until("it listens", || TcpStream::connect(&listen).is_ok());
        Self { bridge, log, _gateway: gateway, listen, jwt, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    async fn until_linked(&self, client: &Client) {
        while client.get(self.url("/readyz?require=gateway")).send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it in order, so that nothing is left to be told; the whole log.
    fn end(self) -> String {
        self.bridge.signal("-TERM");
        self.log.join().unwrap()
    }
}

/// A token that an issuer signed, whose key set is at `path`.
fn issued(path: &str) -> String {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let x = BASE64URL_NOPAD.encode(key.public_key().as_ref());
    std::fs::write(path, format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{x}\"}}]}}")).unwrap();
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let claims = format!(
        "{{\"iss\":\"https://id.example\",\"aud\":\"bridge\",\"sub\":\"board\",\"exp\":{exp},\"scope\":\"read\",\"instances\":[\"demo\"]}}"
    );
    let message = ["{\"alg\":\"EdDSA\"}", &claims].map(|part| BASE64URL_NOPAD.encode(part.as_bytes())).join(".");
    let signature = BASE64URL_NOPAD.encode(key.sign(message.as_bytes()).as_ref());
    format!("{message}.{signature}")
}

/// The name of an exchange's span.
const EXCHANGE: &str = "exchange";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_s_span_continues_its_caller_s_trace_and_has_the_exchange_with_the_gateway_as_child() {
    const PARENT: &str = "00f067aa0ba902b7";
    let collector = Collector::start();
    let service = Service::start(&collector, "info");
    let client = Client::new();
    service.until_linked(&client).await;
    let trace = |digit: &str| digit.repeat(32);
    let traced = |digit: &str| format!("00-{}-{PARENT}-01", trace(digit));
    let read = client.get(service.url("/v1/instances/demo/config")).bearer_auth(KEY).header("traceparent", traced("a"));
    assert_eq!(read.send().await.unwrap().status(), 200);
    let copy = client.get(service.url("/v1/instances/demo/config")).bearer_auth(KEY).header("traceparent", traced("b"));
    assert_eq!(copy.send().await.unwrap().status(), 200);
    let sale = client.post(service.url("/v1/instances/demo/points-of-sale/1/payments")).bearer_auth(KEY);
    let sale = sale.header("Idempotency-Key", "k").header("Content-Type", "application/json").body(SALE);
    assert_eq!(sale.header("traceparent", traced("c")).send().await.unwrap().status(), 201);
    let log = service.end();
    assert!(log.contains(&trace("a")), "the log names the trace: {log}");
    let spans = collector.spans();
    let of = |digit: &str| spans.iter().filter(|span| span.trace == trace(digit)).collect::<Vec<&Span>>();
    for (digit, name) in [
        ("a", "GET /v1/instances/{instance}/config"),
        ("c", "POST /v1/instances/{instance}/points-of-sale/{pos_id}/payments"),
    ] {
        let spans = of(digit);
        let request = spans.iter().find(|span| span.parent == PARENT);
        let request = request.unwrap_or_else(|| panic!("no span under the caller's: {spans:?}"));
        assert_eq!(request.name, name);
        let exchanges: Vec<_> = spans.iter().filter(|span| span.name == EXCHANGE).collect();
        assert_eq!(exchanges.len(), 1, "{spans:?}");
        assert_eq!(exchanges[0].parent, request.id, "{spans:?}");
    }
    assert_eq!(
        of("b").iter().map(|span| span.name.as_str()).collect::<Vec<_>>(),
        ["GET /v1/instances/{instance}/config"]
    );
}

/// Asks for everything there is, with every secret in the place that it belongs into, and one more in each that it does
/// not. What was answered.
async fn everything(service: &Service, client: &Client) -> String {
    let mut told = String::new();
    let forged = service.jwt.replacen("eyJ", "eyJhIjoxLCJ", 1);
    for (path, token) in [
        ("/v1/instances", service.jwt.as_str()),
        ("/v1/instances/demo/deposit", &service.jwt),
        ("/v1/instances/demo/payments", &service.jwt),
        ("/v1/instances", &forged),
        ("/", OPERATOR),
        ("/dashboard/main.js", OPERATOR),
        ("/v1/bridge", OPERATOR),
        ("/metrics", OPERATOR),
        ("/openapi.json", OPERATOR),
        ("/docs/swagger-initializer.js", OPERATOR),
        ("/v1/instances/demo/payments", OPERATOR),
        ("/v1/instances/demo/config?access_token=query-secret-1", KEY),
        ("/v1/instances/demo/points-of-sale/7/products", KEY),
        ("/v1/instances/demo/points-of-sale/1/payment-methods", KEY),
        ("/v1/instances", "a-wrong-secret-1"),
        ("/nowhere?access_token=query-secret-1", KEY),
        ("/v1/instances/demo/events?access_token=query-secret-1", ""),
        ("/?instance=demo&access_token=query-secret-1", ""),
    ] {
        let request = client.get(service.url(path)).header("X-POS-Password", "till-password-1");
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        let answer = request.send().await.unwrap();
        write!(told, "{:?}", answer.headers()).unwrap();
        told.push_str(&answer.text().await.unwrap());
    }
    for (path, body) in [
        ("/points-of-sale/1/payments", SALE),
        ("/points-of-sale/1/password-check", "{\"password\":\"till-password-1\"}"),
        ("/points-of-sale/1/payments", "{\"PaymentMethod\":\"till-password-1\",\"posPassword\":[\"till-password-1\"]}"),
        ("/commands/listpos", "{\"api_key\":\"a-raw-secret-1\",\"x\":{\"posPassword\":\"till-password-1\"}}"),
        ("/commands/listpos", "{\"api_key\":\"a-raw-secret-1\""),
    ] {
        let asked = client.post(service.url(&format!("/v1/instances/demo{path}"))).bearer_auth(OPERATOR);
        let asked = asked.header("Idempotency-Key", "k").header("Content-Type", "application/json").body(body);
        told.push_str(&asked.send().await.unwrap().text().await.unwrap());
    }
    // A stream is never at an end: what comes first is looked at.
    let stream = format!("/v1/instances/demo/events?access_token={LISTENER}");
    let mut stream = client.get(service.url(&stream)).send().await.unwrap();
    let first = stream.chunk().await.unwrap();
    write!(told, "{:?}{first:?}", stream.headers()).unwrap();
    told
}

/// Speaks the gateway's protocol, in both spellings. What was answered.
async fn natively(service: &Service) -> String {
    let mut told = String::new();
    for query in ["Content-Type=json", "Content-Type=json5", &format!("Content-Type=json&access_token={LISTENER}")] {
        let (mut till, _) = connect_async(format!("ws://{}/?instance=demo&{query}", service.listen)).await.unwrap();
        let frames = [
            format!("{{\"command\":\"listpos\",\"parameters\":{{\"api_key\":\"{KEY}\"}}}}"),
            format!("{{command:'listproducts',parameters:{{api_key:'{KEY}',POSID:7,posPassword:'till-password-1'}}}}"),
            format!("{{\"command\":\"listpos\",\"parameters\":{{\"api_key\":\"{}\"}}}}", service.jwt),
            "{\"command\":\"listpos\",\"parameters\":{\"api_key\":\"a-native-secret-1\"}}".to_owned(),
            "{\"command\":\"verifyauth\",\"parameters\":{\"api_key\":\"a-native-secret-1\",".to_owned(),
        ];
        for frame in frames {
            till.send(Message::text(frame)).await.unwrap();
            let answer = till.next().await.unwrap().unwrap();
            told.push_str(answer.to_text().unwrap());
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_in_answers_logs_of_every_crate_or_traces() {
    let collector = Collector::start();
    let service = Service::start(&collector, "trace");
    let client = Client::new();
    service.until_linked(&client).await;
    let mut told = everything(&service, &client).await;
    told.push_str(&natively(&service).await);
    drop(client);
    let jwt = service.jwt.clone();
    told.push_str(&service.end());
    told.push_str(&collector.text());
    for secret in jwt.rsplit('.').take(2).chain(SECRETS) {
        let at = told.find(secret).map(|at| String::from_utf8_lossy(&told.as_bytes()[at.saturating_sub(300)..at + 60]));
        assert_eq!(at, None, "{secret}");
    }
    for seen in [
        "https://id.example|board",
        "answered",
        "concertpos_bridge_build_info",
        "<!doctype html>",
        "listproducts",
        "http.route",
        "worker",
    ] {
        assert!(told.to_lowercase().contains(seen), "it did not look where it should: {seen}");
    }
}

#[test]
fn no_secret_is_shown_by_a_configuration_its_faults_or_their_debug() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let load = |settings: &[(&str, &str)]| {
        let environment = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Config::load(None::<&Path>, environment.collect::<Vec<_>>())
    };
    let (config, printed) =
        load(&[("BRIDGE_INSTANCES__A__API_KEY", KEY), ("BRIDGE_INSTANCES__B__API_KEY_FILE", file.to_str().unwrap())])
            .unwrap();
    let mut shown = format!("{config:?}{config:#?}{printed:?}");
    shown.extend(printed.iter().map(|entry| format!("{entry:?}")));
    for parts in [
        format!("{:?}{:?}{:?}", config.server, config.gateway, config.instances),
        format!("{:?}{:?}{:?}", config.auth, config.limits, config.cache),
        format!("{:?}{:?}{:?}", config.events, config.payments, config.telemetry),
        format!("{:?}", config.accepted_gateway_keys()),
    ] {
        shown.push_str(&parts);
    }
    // A secret in the wrong place or beside a fault.
    for settings in [
        &[("BRIDGE_INSTANCES__A__API_KEY", KEY), ("BRIDGE_INSTANCES__A__API_KEY_FILE", "/nowhere")][..],
        &[("BRIDGE_INSTANCES__A__API_KEY", KEY), ("BRIDGE_INSTANCES__A__APIKEY", KEY)],
        &[("BRIDGE_INSTANCES__A__API_KEY", KEY), ("BRIDGE_SERVER__LISTEN", "nonsense")],
        &[("BRIDGE_AUTH__TOKENS__SHOP__SHA256", OPERATOR), ("BRIDGE_INSTANCES__A__API_KEY", KEY)],
    ] {
        let faults = load(settings).map(|_| ()).unwrap_err();
        write!(shown, "{faults}{faults:?}").unwrap();
    }
    for secret in [KEY, OPERATOR] {
        let at = shown.find(secret).map(|at| &shown[at.saturating_sub(200)..at + 20]);
        assert_eq!(at, None, "{secret}");
    }
    assert!(shown.contains("api_key") && shown.contains("server.listen"), "it looked where it should: {shown}");
}
