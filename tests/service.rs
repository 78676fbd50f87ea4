//! The program as a service: TLS, signals, its listeners, and its end.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod running;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use futures_util::{SinkExt, StreamExt};
use reqwest::Client;
use running::{Running, free_address, run, wait_until};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const KEY: &str = "demo-key";

/// A gateway and a bridge over it, each a process, with a configuration file that a test can change.
struct Service {
    bridge: Running,
    _gateway: Running,
    listen: String,
    folder: tempfile::TempDir,
    lines: mpsc::Receiver<String>,
    /// Every line of the log so far.
    log: Vec<String>,
}

impl Service {
    /// Starts both. `extra` is more configuration; `gateway` are more flags of the simulated gateway.
    fn start(extra: &str, gateway: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), extra, gateway)
    }

    fn start_in(folder: tempfile::TempDir, extra: &str, gateway: &[&str]) -> Self {
        let (listen, shards) = (free_address(), free_address());
        let mut flags = vec!["simulate", "--listen", &shards];
        flags.extend(gateway);
        let gateway = Running::start(&flags, &[]);
        let path = folder.path().join("bridge.toml");
        std::fs::write(&path, extra).unwrap();
        let url = format!("ws://{shards}/{{shard}}/?instance={{instance}}&Content-Type={{format}}");
        let journal = folder.path().join("journal");
        let environment = [
            ("BRIDGE_SERVER__LISTEN", listen.as_str()),
            ("BRIDGE_GATEWAY__URL", &url),
            ("BRIDGE_PAYMENTS__JOURNAL", journal.to_str().unwrap()),
            ("BRIDGE_CACHE__STORE", ""),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY),
            ("BRIDGE_TELEMETRY__LOG_FORMAT", "json"),
        ];
        let mut bridge = Running::start(&["serve", "--config", path.to_str().unwrap()], &environment);
        let lines = follow(&mut bridge);
        let service = Self { bridge, _gateway: gateway, listen, folder, lines, log: Vec::new() };
        wait_until("it listens", || TcpStream::connect(&service.listen).is_ok());
        service
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.folder.path().join("bridge.toml"), text).unwrap();
    }

    /// Waits for a line of the log that contains `part`.
    fn logged(&mut self, part: &str) {
        self.line(part);
    }

    /// The first line of the log that contains `part`, once it is there.
    fn line(&mut self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.log.iter().find(|line| line.contains(part)).cloned() {
                self.log.clear();
                return line;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "never logged: {part}\n{}", self.log.join("\n"));
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) {
                self.log.push(line);
            }
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    fn ready(&self) {
        wait_until("it is ready", || run(&["healthcheck", "--address", &self.listen], &[]).status.success());
    }
}

/// Reads the log as it is written, so that a full pipe never stops the program.
fn follow(bridge: &mut Running) -> mpsc::Receiver<String> {
    let stderr = BufReader::new(bridge.0.stderr.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

fn digest(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret))
}

fn token(name: &str, secret: &str, scopes: &str) -> String {
    let digest = digest(secret);
    format!("[auth.tokens.{name}]\nsha256 = [\"{digest}\"]\ninstances = [\"demo\"]\nscopes = [{scopes}]\n")
}

async fn status(client: &Client, url: &str, token: &str) -> u16 {
    client.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
}

/// A self-signed certificate for `localhost`, written into `folder`.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// A TLS connection whose other side must show exactly `trusted`.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    fn connect(address: &str, trusted: &CertificateDer<'static>, protocol: &str) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self(stream))
    }

    fn protocol(&self) -> &[u8] {
        self.0.conn.alpn_protocol().unwrap_or_default()
    }

    /// Sends a request over the connection as it is; the first line of the answer.
    fn ask(&mut self) -> String {
        self.0.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let length = self.0.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned()
    }
}

#[test]
fn tls_offers_http_1_1_alone_and_a_new_certificate_is_taken_at_sighup_without_dropping_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls = format!("[server.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", at("tls.pem"), at("tls.key"));
    let mut service = Service::start_in(folder, &tls, &[]);
    assert!(Tls::connect(&service.listen, &first, "h2").is_err(), "there is no HTTP/2");
    let mut before = Tls::connect(&service.listen, &first, "http/1.1").unwrap();
    assert_eq!(before.protocol(), b"http/1.1");
    assert_eq!(before.ask(), "HTTP/1.1 200 OK");

    std::fs::write(service.folder.path().join("tls.pem"), "no certificate").unwrap();
    service.bridge.signal("-HUP");
    service.logged("stays as it was");
    assert!(Tls::connect(&service.listen, &first, "http/1.1").is_ok());

    let second = certificate(service.folder.path());
    assert!(Tls::connect(&service.listen, &second, "http/1.1").is_err(), "not in force yet");
    service.bridge.signal("-HUP");
    service.logged("reread and in force");
    assert_eq!(Tls::connect(&service.listen, &second, "http/1.1").unwrap().ask(), "HTTP/1.1 200 OK");
    assert!(Tls::connect(&service.listen, &first, "http/1.1").is_err());
    assert_eq!(before.ask(), "HTTP/1.1 200 OK", "over the connection of old, which goes on");
}

#[tokio::test]
async fn sighup_rereads_tokens_and_a_bad_file_leaves_the_old_ones_in_force() {
    let mut service = Service::start(&token("shop", "old-secret", "\"read\""), &[]);
    let (client, url) = (Client::new(), service.url("/v1/instances"));
    assert_eq!(status(&client, &url, "old-secret").await, 200);
    service.configure(&(token("shop", "new-secret", "\"read\"") + "nonsense = 1\n"));
    service.bridge.signal("-HUP");
    service.logged("stays as it was");
    assert_eq!((status(&client, &url, "old-secret").await, status(&client, &url, "new-secret").await), (200, 401));
    certificate(service.folder.path());
    let at = |name: &str| service.folder.path().join(name).display().to_string();
    let tls = format!("[server.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", at("tls.pem"), at("tls.key"));
    let later = format!("[limits]\ncapacity = 90\n[server]\ndeadline = \"14s\"\n{tls}");
    service.configure(&(token("shop", "new-secret", "\"read\"") + &later));
    service.bridge.signal("-HUP");
    service.logged("TLS is switched on or off at the next start");
    service.logged("\"waits_for_restart\":\"server.deadline, limits.capacity\"");
    assert_eq!((status(&client, &url, "old-secret").await, status(&client, &url, "new-secret").await), (401, 200));
}

#[tokio::test]
async fn sighup_tells_in_one_line_what_it_changed_and_is_refused_while_the_bridge_drains() {
    let everywhere = "[auth.tokens.shop]\ninstances = [\"*\"]\nscopes = [\"read\"]\n";
    let file = |instances: &str, secret: &str| format!("{instances}{everywhere}sha256 = [\"{}\"]\n", digest(secret));
    let fest = "[instances.fest]\napi_key = \"k\"\n";
    let mut service = Service::start(&(file(fest, "old") + "[server]\nshutdown_delay = \"1h\"\n"), &[]);
    let (client, url) = (Client::new(), service.url("/v1/instances"));
    assert_eq!(
        client.get(&url).bearer_auth("old").send().await.unwrap().text().await.unwrap(),
        r#"{"instances":["demo","fest"]}"#
    );

    let rest = "[server]\nshutdown_delay = \"1h\"\ndeadline = \"14s\"\n";
    service.configure(&(file("[instances.new]\napi_key = \"k\"\n[instances.demo]\nslug = \"other\"\n", "new") + rest));
    service.bridge.signal("-HUP");
    let line = service.line("reread and in force");
    for field in [
        r#""added":"new""#,
        r#""removed":"fest""#,
        r#""changed":"demo.slug, auth.tokens.shop.sha256""#,
        r#""waits_for_restart":"server.deadline""#,
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    assert_eq!(
        client.get(&url).bearer_auth("new").send().await.unwrap().text().await.unwrap(),
        r#"{"instances":["demo","new"]}"#
    );

    service.configure(&file(fest, "new"));
    service.bridge.signal("-TERM");
    service.logged("draining");
    service.bridge.signal("-HUP");
    let line = service.line("stays as it was");
    assert!(line.contains("the bridge is shutting down"), "{line}");
    assert_eq!(
        client.get(&url).bearer_auth("new").send().await.unwrap().text().await.unwrap(),
        r#"{"instances":["demo","new"]}"#
    );
}

#[tokio::test]
async fn a_sighup_during_a_reload_is_not_lost_and_the_last_file_stays() {
    let fest = |number: usize| format!("[instances.fest{number}]\napi_key = \"k{number}\"\n");
    let fests = |count: usize| (0..count).map(fest).collect::<Vec<_>>().concat();
    let shop = token("shop", "secret", "\"read\"").replace("\"demo\"", "\"*\"");
    let service = Service::start(&shop, &[]);
    let (client, url) = (Client::new(), service.url("/v1/instances"));
    for count in [40, 3, 30, 7, 50, 20] {
        service.configure(&format!("{shop}{}", fests(count)));
        service.bridge.signal("-HUP");
    }
    let begun = Instant::now();
    loop {
        let listed = client.get(&url).bearer_auth("secret").send().await.unwrap().text().await.unwrap();
        if listed.matches("fest").count() == 20 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{listed}");
    }
    // And the next is taken at its turn.
    service.configure(&shop);
    service.bridge.signal("-HUP");
    loop {
        let listed = client.get(&url).bearer_auth("secret").send().await.unwrap().text().await.unwrap();
        if listed == r#"{"instances":["demo"]}"# {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{listed}");
    }
}

/// A till of `instance` that showed `secret`, and was answered; or one that came with it in its URL.
async fn till(service: &Service, instance: &str, secret: &str, in_url: bool) -> Till {
    let token = if in_url { format!("&access_token={secret}") } else { String::new() };
    let url = format!("ws://{}/?instance={instance}{token}", service.listen);
    let (mut till, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    if !in_url {
        let order = format!(r#"{{"command":"nothing","parameters":{{"api_key":"{secret}"}}}}"#);
        till.send(Message::text(order)).await.unwrap();
        let answer = till.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(answer.contains("api_key_mismatch"), "it lacks the scope: {answer}");
    }
    till
}

type Till = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A stream that has begun.
async fn stream(service: &Service, instance: &str, secret: &str) -> reqwest::Response {
    let url = service.url(&format!("/v1/instances/{instance}/events"));
    let mut stream = Client::new().get(url).bearer_auth(secret).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let begin = stream.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&begin).contains("event: ready"), "{begin:?}");
    stream
}

#[tokio::test]
async fn a_token_that_is_taken_away_stops_listening_at_once() {
    let instance = |name: &str| format!("[instances.{name}]\napi_key = \"{KEY}-{name}\"\n");
    let token = |name: &str, secrets: &[&str], instances: &str, scopes: &str| {
        let digests: Vec<_> = secrets.iter().map(|secret| format!("\"{}\"", digest(secret))).collect();
        let digests = digests.join(",");
        format!("[auth.tokens.{name}]\nsha256 = [{digests}]\ninstances = [{instances}]\nscopes = [{scopes}]\n")
    };
    let before = [
        instance("fest"),
        token("gone", &["gone"], "\"demo\"", "\"events\""),
        token("rotated", &["old", "new"], "\"demo\"", "\"events\""),
        token("moved", &["moved"], "\"demo\",\"fest\"", "\"events\""),
        token("deaf", &["deaf"], "\"demo\"", "\"events\",\"read\""),
    ];
    // A heartbeat is no sign of an end, and would wake a stream that has not noticed.
    let events = "[events]\nheartbeat = \"1h\"\n";
    let mut service = Service::start(&format!("{events}{}", before.concat()), &[]);
    // The time before the first link is a gap, of which a stream would tell.
    service.logged("link open");
    let (mut ends, mut goes_on) = (Vec::new(), Vec::new());
    let (mut ending_tills, mut lasting_tills) = (Vec::new(), Vec::new());
    for (instance, secret, lasts) in [
        ("demo", "gone", false),
        ("demo", "old", false),
        ("demo", "new", true),
        ("fest", "moved", true),
        ("demo", "moved", false),
        ("demo", "deaf", false),
    ] {
        let opened = stream(&service, instance, secret).await;
        let by_key = till(&service, instance, secret, false).await;
        let (streams, tills) = if lasts { (&mut goes_on, &mut lasting_tills) } else { (&mut ends, &mut ending_tills) };
        streams.push(opened);
        tills.push(by_key);
        if secret != "deaf" {
            tills.push(till(&service, instance, secret, true).await);
        }
    }
    let after = [
        instance("fest"),
        token("rotated", &["new"], "\"demo\"", "\"events\""),
        token("moved", &["moved"], "\"fest\"", "\"events\""),
        token("deaf", &["deaf"], "\"demo\"", "\"read\""),
    ];
    service.configure(&format!("{events}{}", after.concat()));
    service.bridge.signal("-HUP");
    service.logged("reread and in force");
    let at_once = Duration::from_secs(3);
    for mut stream in ends {
        let rest = timeout(at_once, stream.chunk()).await.expect("it ends at once");
        assert_eq!(rest.unwrap(), None, "in good order, and nothing more is heard");
    }
    for mut till in ending_tills {
        let end = timeout(at_once, till.next()).await.expect("it ends at once");
        let Some(Ok(Message::Close(Some(reason)))) = end else { panic!("no close frame: {end:?}") };
        assert_eq!(u16::from(reason.code), 1008);
    }
    // Those that were not touched are there still: they end only when the bridge does.
    service.bridge.signal("-TERM");
    for mut stream in goes_on {
        let rest = timeout(at_once, stream.chunk()).await.expect("it hears of the end").unwrap().unwrap();
        assert!(String::from_utf8_lossy(&rest).contains("draining"), "{rest:?}");
    }
    for mut till in lasting_tills {
        let Some(Ok(Message::Close(Some(reason)))) = till.next().await else { panic!("no close frame") };
        assert_eq!(u16::from(reason.code), 1001);
    }
}

#[tokio::test]
async fn sighup_rereads_the_key_of_an_instance_which_goes_to_the_gateway_and_opens_what_the_old_one_did() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "an-old-key").unwrap();
    let instance = format!(
        "[instances.demo]\nslug = \"other\"\n[instances.fest]\nslug = \"demo\"\napi_key_file = \"{}\"\n",
        key.display()
    );
    let mut service = Service::start_in(folder, &instance, &[]);
    let (client, url) = (Client::new(), service.url("/v1/instances/fest/status"));
    // Of `fest` alone: the gateway has no instance `other`.
    service.logged("link open");
    assert_eq!(status(&client, &url, "an-old-key").await, 502, "the gateway does not know it");
    std::fs::write(&key, KEY).unwrap();
    service.bridge.signal("-HUP");
    service.logged("reread and in force");
    // At once, and what was refused to the old key too.
    assert_eq!((status(&client, &url, "an-old-key").await, status(&client, &url, KEY).await), (401, 200));
}

#[tokio::test]
async fn the_operator_s_own_listener_has_metrics_and_probes_and_nothing_else() {
    let admin = free_address();
    let operator = token("operator", "the-operator", "\"operate\"");
    let service = Service::start(&format!("[server]\nadmin_listen = \"{admin}\"\n{operator}"), &[]);
    let client = Client::new();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(client.get(format!("http://{admin}{path}")).send().await.unwrap().status(), 200, "{path}");
    }
    for path in ["/v1/instances", "/v1/bridge", "/openapi.json"] {
        assert_eq!(client.get(format!("http://{admin}{path}")).send().await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(client.get(service.url("/metrics")).send().await.unwrap().status(), 401);
    assert_eq!(status(&client, &service.url("/metrics"), KEY).await, 403);
    assert_eq!(status(&client, &service.url("/metrics"), "the-operator").await, 200);
}

#[test]
fn a_slow_sender_loses_its_connection_and_a_head_without_end_is_refused() {
    let service = Service::start("", &[]);
    let mut slow = TcpStream::connect(&service.listen).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").unwrap();
    let begun = Instant::now();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    let mut endless = TcpStream::connect(&service.listen).unwrap();
    endless.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    head.resize(head.len() + 1_000_000, b'a');
    // The far side may close before it has read it all.
    let _ = endless.write_all(&head);
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    service.ready();
}

const SALE: &str = "{\"PaymentMethod\":1,\"Products\":[{\"ID\":1,\"Amount\":2}],\"posPassword\":\"till-password-1\"}";

#[tokio::test]
async fn sigterm_under_load_loses_nothing_and_ends_with_0_within_the_grace() {
    let operator = token("operator", "the-operator", "\"operate\"");
    let slow = ["--latency-min", "1s", "--latency-max", "1200ms"];
    let mut service = Service::start(&format!("[server]\nshutdown_grace = \"11s\"\n{operator}"), &slow);
    let url = service.url("/v1/instances/demo/points-of-sale/1/payments");
    wait_until("it has links", || {
        let address = format!("http://{}/readyz?require=gateway", service.listen);
        std::process::Command::new("curl").args(["-sf", &address]).output().is_ok_and(|asked| asked.status.success())
    });
    let client = Client::new();
    let sales: Vec<_> = (0..8)
        .map(|key| {
            let sale = client.post(&url).bearer_auth(KEY).header("Idempotency-Key", format!("k{key}"));
            tokio::spawn(sale.header("Content-Type", "application/json").body(SALE).send())
        })
        .collect();
    // All are in, and no reply can have come yet.
    let in_flight = "concertpos_bridge_requests_in_flight{caller=\"gateway-key\"} 8";
    loop {
        let metrics = client.get(service.url("/metrics")).bearer_auth("the-operator").send().await.unwrap();
        if metrics.text().await.unwrap().contains(in_flight) {
            break;
        }
    }
    let begun = Instant::now();
    service.bridge.signal("-TERM");
    for sale in sales {
        let answer = sale.await.unwrap().unwrap();
        assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap());
    }
    let status = loop {
        if let Some(status) = service.bridge.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(11), "not within the grace");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(0));
    service.logged("stopped");
}

#[test]
fn a_sale_whose_body_is_still_coming_at_sigterm_is_answered_and_not_cut_off() {
    let admin = free_address();
    let mut service = Service::start(&format!("[server]\nadmin_listen = \"{admin}\"\n"), &[]);
    service.ready();
    let mut late = TcpStream::connect(&service.listen).unwrap();
    late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {KEY}\r\n\
         Idempotency-Key: late\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        SALE.len()
    );
    let (begun, rest) = SALE.split_at(20);
    late.write_all(format!("{head}{begun}").as_bytes()).unwrap();
    wait_until("it has come in", || {
        let asked =
            std::process::Command::new("curl").args(["-s", &format!("http://{admin}/metrics")]).output().unwrap();
        let under_way = "concertpos_bridge_requests_in_flight{caller=\"gateway-key\"} 1";
        String::from_utf8_lossy(&asked.stdout).contains(under_way)
    });
    service.bridge.signal("-TERM");
    // The server itself is stopping once nobody new is let in.
    wait_until("nobody new is let in", || TcpStream::connect(&service.listen).is_err());
    assert!(service.bridge.0.try_wait().unwrap().is_none(), "it waits for what is under way");
    late.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("shutting-down"), "{answer}");
    wait_until("it has ended", || service.bridge.0.try_wait().unwrap().is_some());
    assert_eq!(service.bridge.0.try_wait().unwrap().unwrap().code(), Some(0));
}

#[test]
fn a_key_that_the_gateway_does_not_take_is_in_the_log_before_anybody_has_called() {
    let mut service = Service::start("", &["--api-key", "another-key"]);
    service.logged("the gateway refuses the key or the licence of the instance");
}

#[tokio::test]
async fn a_bridge_that_stops_closes_connections_with_their_next_answer() {
    let mut service = Service::start("[server]\nshutdown_delay = \"1h\"\n", &[]);
    service.ready();
    let (client, url) = (Client::new(), service.url("/livez"));
    let connection = async || {
        let answer = client.get(&url).send().await.unwrap();
        answer.headers().get("connection").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(connection().await, None);
    service.bridge.signal("-TERM");
    service.logged("draining");
    assert_eq!(connection().await.as_deref(), Some("close"), "no request is sent on it while it is closed");
}

#[test]
fn a_second_signal_ends_it_now() {
    let mut service = Service::start("[server]\nshutdown_delay = \"1h\"\n", &[]);
    service.ready();
    service.bridge.signal("-TERM");
    service.logged("draining");
    let ready = run(&["healthcheck", "--address", &service.listen], &[]);
    assert_eq!(ready.status.code(), Some(1), "it serves on, and says that it is not ready");
    assert!(run(&["healthcheck", "--live", "--address", &service.listen], &[]).status.success());
    service.bridge.signal("-TERM");
    wait_until("it has ended", || service.bridge.0.try_wait().unwrap().is_some());
    assert_eq!(service.bridge.0.try_wait().unwrap().unwrap().code(), Some(1));
}
