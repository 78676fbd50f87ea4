//! The threat model's promises, through the real program: what `docs/security.md` says in its table and no other test
//! shows. And that each row of that table names a test that exists.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use concertpos_simulator::{Action, Config, Fault, Instance, Simulator};
use data_encoding::HEXLOWER;
use reqwest::{Client, Method, RequestBuilder, Response};
use running::{Running, free_address, run, wait_until};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const KEY: &str = "the-key-of-the-festival";

/// The scopes, each of which is also the secret of a token with that scope alone.
const SCOPES: [&str; 6] = ["read", "pay", "devices", "events", "raw", "operate"];

/// The secret of a token with this scope at every instance.
fn every_instance(scope: &str) -> &'static str {
    match scope {
        "read" => "every-read",
        "pay" => "every-pay",
        "devices" => "every-devices",
        "events" => "every-events",
        "raw" => "every-raw",
        _ => "every-operate",
    }
}

/// The program over a simulated gateway, with two instances, and two tokens for each scope: one at `demo`, one at every
/// instance.
struct World {
    gateway: Simulator,
    listen: String,
    data: tempfile::TempDir,
    bridge: Running,
}

fn sha256_hex(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret))
}

impl World {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let instance = |slug: &str| Instance { slug: slug.to_owned(), api_key: format!("{KEY}-{slug}") };
        let config = Config { instances: vec![instance("demo"), instance("other")], ..Config::default() };
        let gateway = Simulator::start(config).await.unwrap();
        let (listen, data) = (free_address(), tempfile::tempdir().unwrap());
        let path = |name: &str| data.path().join(name).display().to_string();
        let mut environment = vec![
            ("SERVER__LISTEN".to_owned(), listen.clone()),
            ("GATEWAY__URL".to_owned(), gateway.url()),
            ("INSTANCES__DEMO__API_KEY".to_owned(), format!("{KEY}-demo")),
            ("INSTANCES__OTHER__API_KEY".to_owned(), format!("{KEY}-other")),
            ("PAYMENTS__JOURNAL".to_owned(), path("journal")),
            ("CACHE__STORE".to_owned(), path("cache")),
        ];
        for scope in SCOPES {
            let name = |key: &str| format!("AUTH__TOKENS__{}__{key}", scope.to_uppercase());
            environment.push((name("SHA256"), sha256_hex(scope)));
            environment.push((name("INSTANCES"), "demo".to_owned()));
            environment.push((name("SCOPES"), scope.to_owned()));
            let name = |key: &str| format!("AUTH__TOKENS__EVERY_{}__{key}", scope.to_uppercase());
            environment.push((name("SHA256"), sha256_hex(every_instance(scope))));
            environment.push((name("INSTANCES"), "*".to_owned()));
            environment.push((name("SCOPES"), scope.to_owned()));
        }
        let mut environment: Vec<(String, String)> =
            environment.into_iter().map(|(name, value)| (format!("BRIDGE_{name}"), value)).collect();
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        if settings.iter().any(|(name, _)| *name == "BRIDGE_AUTH__MODE") {
            environment.retain(|(name, _)| !name.starts_with("BRIDGE_AUTH__TOKENS"));
        }
        let borrowed: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let bridge = Running::start(&["serve"], &borrowed);
        let world = Self { gateway, listen, data, bridge };
        wait_until("it is ready", || run(&["healthcheck", "--address", &world.listen], &[]).status.success());
        world
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    async fn ask(&self, method: &Method, path: &str, token: Option<&str>) -> Response {
        let mut request = Client::new().request(method.clone(), self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    }
}

/// An operation of the document.
struct Operation {
    method: Method,
    /// With something in each place; the instance is `demo`.
    path: String,
    name: String,
    /// The scopes of which a token must have one; none where any token will do.
    wanted: Vec<String>,
}

/// Every operation of the document.
fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(include_str!("../openapi/openapi.json")).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = [("{instance}", "demo"), ("{pos_id}", "1"), ("{command}", "getdeposit"), ("{uuid}", "d")]
            .into_iter()
            .chain([("{payment_id}", "0190b7a4-0000-7000-8000-000000000000"), ("{shard}", "exon")])
            .fold(path.clone(), |path, (place, value)| path.replace(place, value));
        assert!(!path.contains('{'), "{path}");
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let security = operation.get("security").unwrap_or(&document["security"]).as_array().unwrap();
            let wanted = security.iter().flat_map(|one| one["bearer"].as_array().unwrap().iter());
            found.push(Operation {
                method,
                path: path.clone(),
                name: operation["operationId"].as_str().unwrap().to_owned(),
                wanted: wanted.map(|scope| scope.as_str().unwrap().to_owned()).collect(),
            });
        }
    }
    assert!(found.len() >= 20, "{}", found.len());
    found
}

#[tokio::test]
async fn without_a_token_nothing_answers_but_what_is_open_to_all() {
    let world = World::start(&[("BRIDGE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    for (number, Operation { method, path, name, .. }) in operations().into_iter().enumerate() {
        for token in [None, Some("no-token-of-this-bridge")] {
            // An address for each: one that guesses so often would no longer be listened to.
            let request = Client::new().request(method.clone(), world.url(&path));
            let request = request.header("X-Forwarded-For", format!("192.0.2.{number}"));
            let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{name} with {token:?}");
            assert_eq!(answer.headers()["www-authenticate"].to_str().unwrap().split(' ').next(), Some("Bearer"));
        }
    }
    assert_eq!(world.ask(&Method::GET, "/metrics", None).await.status(), 401);
    for open in [
        "/livez",
        "/readyz",
        "/openapi.json",
        "/openapi-3.2.json",
        "/asyncapi.json",
        "/docs/",
        "/problems",
        "/problems/forbidden",
        "/",
    ] {
        let answer = world.ask(&Method::GET, open, None).await;
        assert_eq!(answer.status(), 200, "{open}");
        let told = answer.text().await.unwrap();
        assert!(!told.contains(KEY) && !told.contains("\"other\""), "{open} tells what is configured");
    }
    assert_eq!(world.gateway.counts().command("getconfig").received, 0, "nothing was sent for strangers");
}

/// What an operation of the document is asked with, so that nothing but the token can be wrong with it, and what it answers
/// where the token is right and the instance is there.
fn sound(operation: &str, request: RequestBuilder) -> (RequestBuilder, u16) {
    match operation {
        "payItems" => {
            let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}]});
            (request.header("Idempotency-Key", "a-key").json(&sale), 201)
        }
        // No payment has the id of the path.
        "settlePayment" => {
            let decision = json!({"outcome": "booked", "reason": "a test"});
            (request.header("If-Match", "\"1\"").json(&decision), 404)
        }
        "getPayment" => (request, 404),
        "verifyAuth" => (request.json(&json!({"password": "cashier-secret"})), 200),
        "registerDevice" | "sendCommand" => (request.json(&json!({})), 200),
        "cordonShard" => (request.json(&json!({"cordoned": false})), 200),
        "openBudget" => (request.json(&json!({"open": true})), 200),
        _ => (request, 200),
    }
}

/// The code of an answer that is a problem. A stream is not read.
async fn outcome(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let is_problem = answer.headers()["content-type"] == "application/problem+json";
    let code = if is_problem {
        answer.json::<Value>().await.unwrap()["code"].as_str().unwrap().to_owned()
    } else {
        String::new()
    };
    (status, code)
}

/// A token of the table: its secret, its one scope, and whether it may use every instance. `None` is no right token.
type Holder = (Option<&'static str>, Option<(&'static str, bool)>);

/// What the document says of a token at an instance.
fn expected(wanted: &[String], holder: Holder, instance: Option<&str>, success: u16) -> (u16, &'static str) {
    let Some((scope, every_instance)) = holder.1 else { return (401, "unauthenticated") };
    let reaches = every_instance || instance.is_none_or(|instance| instance == "demo");
    if !reaches || !(wanted.is_empty() || wanted.iter().any(|wanted| wanted == scope)) {
        return (403, "forbidden");
    }
    match (instance, success) {
        (Some("nowhere"), _) => (404, "unknown-instance"),
        (_, 404) => (404, "unknown-payment"),
        (_, success) => (success, ""),
    }
}

#[tokio::test]
async fn a_token_opens_what_its_scope_says_at_its_instances_and_nothing_else() {
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "1000000"),
        ("BRIDGE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8"),
        // Nobody reads what it logs meanwhile.
        ("BRIDGE_TELEMETRY__LOG", "error"),
    ];
    let world = World::start(&settings).await;
    let strangers: [Holder; 2] = [(None, None), (Some("no-token-of-this-bridge"), None)];
    let one = SCOPES.map(|scope| (Some(scope), Some((scope, false))));
    let every = SCOPES.map(|scope| (Some(every_instance(scope)), Some((scope, true))));
    let holders: Vec<Holder> = strangers.into_iter().chain(one).chain(every).collect();
    let mut asked = 0_u32;
    for Operation { method, path, name, wanted } in operations() {
        let instances: &[Option<&str>] =
            if path.contains("/demo/") { &[Some("demo"), Some("other"), Some("nowhere")] } else { &[None] };
        for (holder, instance) in holders.iter().flat_map(|holder| instances.iter().map(move |one| (*holder, *one))) {
            let path = instance.map_or(path.clone(), |instance| path.replace("/demo/", &format!("/{instance}/")));
            let request = Client::new().request(method.clone(), world.url(&path));
            let request = holder.0.into_iter().fold(request, RequestBuilder::bearer_auth);
            // An address for each: one that guesses so often would no longer be listened to.
            asked += 1;
            let (request, success) =
                sound(&name, request.header("X-Forwarded-For", Ipv4Addr::from_bits(asked).to_string()));
            let (status, code) = outcome(request.send().await.unwrap()).await;
            let expected = expected(&wanted, holder, instance, success);
            assert_eq!((status, code.as_str()), expected, "{name} at {instance:?} by {holder:?}");
        }
    }
    assert!(asked > 700, "{asked}");
    let listed = world.ask(&Method::GET, "/v1/instances", Some("read")).await.text().await.unwrap();
    assert!(listed.contains("demo") && !listed.contains("other"), "{listed}");
}

#[tokio::test]
async fn who_operates_one_instance_neither_sees_nor_steers_another() {
    let world = World::start(&[]).await;
    let whole = every_instance("operate");
    let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}]});
    let pay = Client::new().post(world.url("/v1/instances/other/points-of-sale/1/payments")).json(&sale);
    let pay = pay.bearer_auth(every_instance("pay")).header("Idempotency-Key", "of-another").send().await.unwrap();
    assert_eq!(pay.status(), 201);
    let status = async |token: &str| {
        let answer = world.ask(&Method::GET, "/v1/bridge", Some(token)).await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let (all, mine) = (status(whole).await, status("operate").await);
    assert_eq!((&all["whole"], &all["payments"]["booked"]), (&json!(true), &json!(1)));
    assert_eq!((all["instances"].as_array().unwrap().len(), all["cache"].is_object()), (2, true));
    assert_eq!((&mine["whole"], mine["instances"].as_array().unwrap().len()), (&json!(false), 1));
    for untold in ["payments", "cache", "subscribers"] {
        assert!(mine.get(untold).is_none(), "{untold} is told of all instances together: {mine}");
    }
    assert!(!mine.to_string().contains("other"), "{mine}");
    let metrics = async |token: &str| {
        let answer = world.ask(&Method::GET, "/metrics", Some(token)).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (refused, told) = metrics("operate").await;
    assert_eq!(refused, 403, "{told}");
    assert!(!told.contains("other"), "{told}");
    let (given, told) = metrics(whole).await;
    assert_eq!((given, told.contains("pos_instance=\"other\"")), (200, true), "{told}");

    let cordon = async |token: &str, cordoned: bool| {
        let url = world.url("/v1/bridge/shards/exon");
        let answer = Client::new().put(url).bearer_auth(token).json(&json!({"cordoned": cordoned}));
        assert_eq!(answer.send().await.unwrap().status(), 200);
    };
    let cordoned = async || {
        let of_each = status(whole).await["instances"].as_array().unwrap().clone();
        let exon =
            |one: &Value| one["shards"].as_array().unwrap().iter().find(|shard| shard["shard"] == "exon").cloned();
        of_each.iter().map(|one| exon(one).unwrap()["cordoned"] == true).collect::<Vec<_>>()
    };
    cordon("operate", true).await;
    assert_eq!(cordoned().await, [true, false], "only for demo");
    cordon(whole, true).await;
    assert_eq!(cordoned().await, [true, true]);
    cordon("operate", false).await;
    assert_eq!(cordoned().await, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_trusted_is_told_of_once() {
    for (trusted, lines) in [("", 1), ("127.0.0.0/8", 0)] {
        let world = World::start(&[("BRIDGE_SERVER__TRUSTED_PROXIES", trusted)]).await;
        for forwarded in ["192.0.2.1", "192.0.2.2"] {
            let request = Client::new().get(world.url("/v1/instances")).bearer_auth("read");
            assert_eq!(request.header("X-Forwarded-For", forwarded).send().await.unwrap().status(), 200);
        }
        world.bridge.signal("-TERM");
        let (status, log) = world.bridge.end(Duration::from_secs(20));
        assert_eq!(status, Some(0));
        assert_eq!(log.lines().filter(|line| line.contains("trusted_proxies")).count(), lines, "{log}");
        let believed = log.lines().filter(|line| line.contains("peer=192.0.2.")).count();
        assert_eq!(believed, 2 - 2 * lines, "what anybody can write is no peer: {log}");
        assert_eq!(log.matches("192.0.2.").count(), believed, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_debug_no_frame_is_a_line_of_the_log() {
    let world = World::start(&[("BRIDGE_TELEMETRY__LOG", "debug")]).await;
    let links = async || {
        let answer = world.ask(&Method::GET, "/readyz?require=gateway", None).await;
        answer.status() == 200
    };
    while !links().await {}
    world.gateway.add_fault(Fault::new(Action::Unasked { event: "event-of-the-test".into() }).on("listtransactions"));
    for number in 0..50 {
        world.gateway.broadcast("demo", &format!("broadcast-{number}-of-the-test"), "{}").unwrap();
        let read = world.ask(&Method::GET, "/v1/instances/demo/points-of-sale/1/transactions", Some("read")).await;
        assert_eq!(read.status(), 200);
    }
    world.bridge.signal("-TERM");
    let (status, log) = world.bridge.end(Duration::from_secs(20));
    assert_eq!(status, Some(0));
    assert!(!log.contains("of-the-test"), "{log}");
    // One a request, and what the start and the end have to say.
    assert!((50..100).contains(&log.lines().count()), "{} lines:\n{log}", log.lines().count());
}

#[tokio::test]
async fn an_instance_s_key_opens_its_own_instance_and_operates_nothing() {
    let world = World::start(&[("BRIDGE_INSTANCES__OTHER__ACCEPT_GATEWAY_KEY", "false")]).await;
    let ask =
        async |path: &str, slug: &str| world.ask(&Method::GET, path, Some(&format!("{KEY}-{slug}"))).await.status();
    assert_eq!(ask("/v1/instances/demo/config", "demo").await, 200);
    assert_eq!(ask("/v1/instances/other/config", "demo").await, 403);
    assert_eq!(ask("/v1/instances/other/config", "other").await, 401, "not accepted as a token");
    assert_eq!(ask("/v1/bridge", "demo").await, 403);
    assert_eq!(ask("/metrics", "demo").await, 403);
}

#[tokio::test]
async fn a_command_by_name_can_neither_sell_nor_bring_a_key_of_its_own() {
    let world = World::start(&[]).await;
    let post = async |command: &str, body: Value| {
        let url = world.url(&format!("/v1/instances/demo/commands/{command}"));
        Client::new().post(url).bearer_auth("raw").json(&body).send().await.unwrap().status()
    };
    let sale = json!({"POSID": 1, "PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}]});
    assert_eq!(post("payitems", sale.clone()).await, 400);
    assert_eq!(post("%70ayitems", sale).await, 400);
    assert_eq!(world.gateway.counts().payments_booked, 0);
    // The wrong key would be refused by the gateway.
    assert_eq!(post("getdeposit", json!({"api_key": "somebody-else-s"})).await, 200);
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_leave_unless_it_is_invited() {
    let world = World::start(&[("BRIDGE_SERVER__CORS_ORIGINS", "https://shop.example")]).await;
    let ask = async |method: Method, origin: &str| {
        let request = Client::new().request(method, world.url("/v1/instances/demo/config")).bearer_auth("read");
        let request = request.header("Origin", origin).header("Access-Control-Request-Method", "GET");
        let answer = request.header("Access-Control-Request-Headers", "authorization").send().await.unwrap();
        answer.headers().get("access-control-allow-origin").map(|given| given.to_str().unwrap().to_owned())
    };
    for method in [Method::OPTIONS, Method::GET] {
        assert_eq!(ask(method.clone(), "https://shop.example").await.as_deref(), Some("https://shop.example"));
        for origin in ["https://evil.example", "https://shop.example.evil.example", "http://shop.example", "null"] {
            assert_eq!(ask(method.clone(), origin).await, None, "{method} from {origin}");
        }
    }
}

#[tokio::test]
async fn without_tokens_no_web_page_can_use_a_bridge_on_its_reader_s_machine() {
    let world = World::start(&[("BRIDGE_AUTH__MODE", "none")]).await;
    let ask = async |host: Option<&str>, origin: Option<&str>| {
        let mut request = Client::new().get(world.url("/v1/instances/demo/deposit"));
        for (name, value) in [("Host", host), ("Origin", origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(None, None).await, 200, "a program of this machine");
    assert_eq!(ask(Some("evil.example"), None).await, 403, "a name that was pointed at this machine");
    assert_eq!(ask(None, Some("https://evil.example")).await, 403, "a page that calls across");
    assert_eq!(ask(None, Some("null")).await, 403, "a page without an origin");
    for site in ["cross-site", "same-site"] {
        let image = Client::new().get(world.url("/v1/instances/demo/deposit")).header("Sec-Fetch-Site", site);
        assert_eq!(image.send().await.unwrap().status(), 403, "an image in a page, without an origin");
    }
}

#[test]
fn the_unit_leaves_no_dump_of_secrets_and_bounds_memory() {
    let unit = include_str!("../deploy/systemd/concertpos-bridge.service");
    for line in ["LimitCORE=0", "MemoryMax=1G"] {
        assert!(unit.lines().any(|given| given == line), "{line}");
    }
}

#[test]
fn the_unit_lets_the_boot_id_be_read_by_which_a_restart_knows_what_is_spent() {
    let unit = include_str!("../deploy/systemd/concertpos-bridge.service");
    assert!(unit.lines().any(|given| given == "ProcSubset=all"));
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn what_is_kept_on_disk_is_its_owner_s_alone_and_holds_no_key_token_or_password() {
    const PASSWORD: &str = "backstage";
    let world = World::start(&[]).await;
    let products = world.url("/v1/instances/demo/points-of-sale/7/products");
    let read = Client::new().get(products).bearer_auth("read").header("X-POS-Password", PASSWORD);
    assert_eq!(read.send().await.unwrap().status(), 200);
    let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "posPassword": PASSWORD});
    let url = world.url("/v1/instances/demo/points-of-sale/7/payments");
    let pay = Client::new().post(url).bearer_auth("pay").header("Idempotency-Key", "the-key-of-a-sale").json(&sale);
    assert_eq!(pay.send().await.unwrap().status(), 201);
    world.bridge.signal("-TERM");
    let World { data, bridge, .. } = world;
    assert_eq!(bridge.end(Duration::from_secs(20)).0, Some(0));
    let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
    // The folder above is the test's own.
    for path in files(data.path()).into_iter().skip(1) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
        if path.is_file() {
            kept.extend(fs::read(&path).unwrap());
            seen.insert(path.parent().unwrap().file_name().unwrap().to_owned());
        }
    }
    assert_eq!(seen.len(), 2, "journal and copies: {seen:?}");
    let holds = |part: &str| kept.windows(part.len()).any(|window| window == part.as_bytes());
    assert!(holds("the-key-of-a-sale") && holds("ProductName"), "it looked where it should");
    // The secret of the token is also a word of the language: only with its digest it can be told apart.
    for secret in [KEY, PASSWORD, &sha256_hex("pay"), &sha256_hex(PASSWORD)] {
        assert!(!holds(secret), "{secret} is on disk");
    }
}

/// A gateway that speaks TLS with a certificate of its own making. Tells what came through, if the handshake did.
fn tls_gateway(folder: &Path) -> (String, std::thread::JoinHandle<Option<String>>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let serving = std::thread::spawn(move || {
        let (stream, _): (TcpStream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream);
        let mut came = [0; 1024];
        let length = stream.read(&mut came).ok().filter(|length| *length > 0)?;
        Some(String::from_utf8_lossy(&came[..length]).into_owned())
    });
    (address, serving)
}

#[test]
fn a_gateway_that_cannot_prove_who_it_is_hears_nothing() {
    for (trusted, heard) in [(false, false), (true, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (address, serving) = tls_gateway(folder.path());
        let (journal, authority) = (folder.path().join("journal"), folder.path().join("ca.pem"));
        let url = format!("wss://{address}/{{shard}}/?instance={{instance}}");
        let mut environment = vec![
            ("BRIDGE_SERVER__LISTEN", "127.0.0.1:0"),
            ("BRIDGE_GATEWAY__URL", &url),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY),
            ("BRIDGE_PAYMENTS__JOURNAL", journal.to_str().unwrap()),
            ("BRIDGE_CACHE__STORE", ""),
        ];
        if trusted {
            environment.push(("BRIDGE_GATEWAY__CA_FILE", authority.to_str().unwrap()));
        }
        let bridge = Running::start(&["serve"], &environment);
        let came = serving.join().unwrap();
        assert_eq!(
            came.is_some_and(|head| head.starts_with("GET /")),
            heard,
            "with its certificate trusted: {trusted}"
        );
        drop(bridge);
    }
}

/// Whether `name`, such as `native/callers::who_guesses`, is a test: a function of `tests/native/callers.rs`, or of
/// `src/…` where the name begins so, with an attribute that makes it run.
fn is_test(name: &str) -> bool {
    let Some((place, function)) = name.rsplit_once("::") else { return false };
    let folder = if place.starts_with("src/") { "" } else { "tests/" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{folder}{place}.rs"));
    let Ok(source) = fs::read_to_string(path) else { return false };
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| line.split("fn ").nth(1).is_some_and(|rest| rest.starts_with(&format!("{function}(")));
    lines.iter().position(|line| is_it(line)).is_some_and(|at| {
        let above: Vec<&&str> = lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).collect();
        above.iter().any(|line| line.contains("test")) && !above.iter().any(|line| line.contains("ignore"))
    })
}

#[test]
fn every_row_of_the_threat_model_names_a_test_that_exists() {
    assert!(is_test("security::every_row_of_the_threat_model_names_a_test_that_exists"));
    assert!(!is_test("security::is_test") && !is_test("security::nothing") && !is_test("nowhere::nothing"));
    let page = include_str!("../docs/security.md");
    let table = page.lines().skip_while(|line| !line.ends_with("| shown by |")).skip(2);
    let rows: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 25, "{} rows", rows.len());
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(is_test(name), "there is no test {name}: {row}");
        }
    }
}
