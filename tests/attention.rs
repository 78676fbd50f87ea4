//! What is wrong is seen: for each outage, `/v1/bridge`, which the page shows, and the log say so in words that name the
//! instance, and the metric that the alerts read has it; and all end with it. Through the built program. The rules that decide it
//! have tests of their own (`src/bridge/attention/`), and so have the alerts (`deploy/prometheus-rules.test.yaml`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use concertpos_simulator::{Action, Fault};
use serde_json::Value;
use support::program::PROGRAM;
use support::scene::Scene;
use support::{ANY, KEY, OPERATOR, eventually, problem, sha256_hex, token};

async fn status(world: &Scene) -> Value {
    let answer = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    answer.json().await.unwrap()
}

async fn metrics(world: &Scene) -> String {
    let answer = world.http.get(format!("{}/metrics", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    answer.text().await.unwrap()
}

/// What is found under this code.
async fn finding(world: &Scene, code: &str) -> Option<Value> {
    status(world).await["attention"].as_array().unwrap().iter().find(|one| one["code"] == code).cloned()
}

/// Waits until the bridge tells this of the instance, in the status and in the metrics, and returns its words.
async fn tells(world: &Scene, code: &str, severity: &str) -> String {
    let words = tells_of(world, code, severity, Some("demo")).await;
    assert!(words.contains("demo"), "{words}");
    words
}

async fn tells_of(world: &Scene, code: &str, severity: &str, instance: Option<&str>) -> String {
    let mut found = Value::Null;
    eventually(&format!("{code} is told"), async || {
        found = finding(world, code).await.unwrap_or_default();
        found["severity"] == severity
    })
    .await;
    assert_eq!(found["instance"].as_str(), instance, "{found}");
    let label = instance.map_or(String::new(), |instance| format!("pos_instance=\"{instance}\","));
    let series = format!("concertpos_bridge_attention{{{label}code=\"{code}\",severity=\"{severity}\"}} ");
    eventually("the metric has it", async || metrics(world).await.lines().any(|line| line.starts_with(&series))).await;
    let mut line = logged(code, severity);
    line.extend(instance.map(|instance| format!(" instance={instance} ")));
    is_logged(world, &line).await;
    found["words"].as_str().unwrap().to_owned()
}

/// What a line of the log holds that tells of it.
fn logged(code: &str, severity: &str) -> Vec<String> {
    let own = match code {
        "no-links" => " ERROR no link to the gateway: nothing can be sold ",
        "shard-unreachable" | "gateway-name" => " WARN shard cannot be reached ",
        "gateway-certificate" => " invalid peer certificate",
        "budget-closed" => ": the gateway's limit was reached ",
        "journal-unavailable" => " ERROR the payment journal cannot be written: no payment is sent ",
        "copies-unwritable" => " WARN copies cannot be kept on disk ",
        "clock-step" => " WARN the wall clock was changed",
        _ => {
            let level = if severity == "critical" { " ERROR needs attention " } else { " WARN needs attention " };
            return vec![level.to_owned(), format!(" code={code} "), " words=\"".to_owned()];
        }
    };
    vec![own.to_owned()]
}

async fn is_logged(world: &Scene, parts: &[String]) {
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    eventually(&format!("a line of the log with {parts:?}"), async || !world.lines(&parts).is_empty()).await;
}

async fn is_over(world: &Scene, code: &str) {
    eventually(&format!("{code} is over"), async || finding(world, code).await.is_none()).await;
    assert!(!metrics(world).await.contains(&format!("code=\"{code}\"")));
    let line = match code {
        "no-links" => " INFO linked to the gateway again ".to_owned(),
        "shard-unreachable" => " INFO shard can be reached again ".to_owned(),
        "journal-unavailable" => " INFO the payment journal can be written again".to_owned(),
        "copies-unwritable" => " INFO copies are kept on disk again".to_owned(),
        _ => format!(" INFO no longer needs attention code={code} "),
    };
    is_logged(world, &[line]).await;
}

async fn readiness(world: &Scene) -> u16 {
    world.get_open("/readyz?require=gateway").await.status().as_u16()
}

fn refusing(word: &str) -> Fault {
    Fault::new(Action::Error { word: word.to_owned(), code: None, and_reply: false })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_well_says_so_and_so_does_a_start() {
    let world = Scene::with(&[]).await;
    assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
    eventually("both links are there", async || status(&world).await["attention"] == serde_json::json!([])).await;
    let status = status(&world).await;
    let demo = &status["instances"][0];
    assert_eq!((&demo["without_link_since"], &demo["access_denied"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (demo["last_minute"]["sales_booked"].as_u64(), &status["disk"]["journal_available"]),
        (Some(1), &true.into())
    );
    assert!(status["disk"]["free_bytes"].as_u64() > Some(0), "{status}");
    let text = metrics(&world).await;
    assert!(text.contains("concertpos_bridge_sales_total{pos_instance=\"demo\",outcome=\"booked\"} 1\n"), "{text}");
    assert!(!text.contains("concertpos_bridge_attention{"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_told_before_anybody_sells_and_the_bridge_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "wrong").unwrap();
    let world = Scene::without_links(&[
        ("BRIDGE_INSTANCES__DEMO__API_KEY", ""),
        ("BRIDGE_INSTANCES__DEMO__API_KEY_FILE", key.to_str().unwrap()),
    ])
    .await;
    let words = tells(&world, "key-refused", "critical").await;
    assert!(words.contains("`api_key_mismatch`"), "{words}");
    eventually("the links are there", async || status(&world).await["instances"][0]["without_link_since"].is_null())
        .await;
    let unready = problem(world.get_open("/readyz?require=gateway").await).await;
    assert_eq!((unready.status, unready.code.as_str()), (503, "gateway-unavailable"));
    assert!(unready.body["detail"].as_str().unwrap().contains("refuses the key"), "{}", unready.body);
    assert_eq!(world.get_open("/readyz").await.status(), 200, "old replies are served");
    fs::write(&key, KEY).unwrap();
    world.program.hang_up();
    is_over(&world, "key-refused").await;
    assert_eq!(readiness(&world).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_and_a_licence_that_is_out_are_told_by_the_sale_that_finds_out_and_end_with_a_reply() {
    let world = Scene::with(&[]).await;
    for (word, code) in [("api_key_expired", "key-refused"), ("getlicense", "license-invalid")] {
        let fault = world.gateway.add_fault(refusing(word));
        for number in 0..3 {
            assert_eq!(world.sale(&format!("{word}-{number}")).send().await.unwrap().status(), 502);
        }
        tells(&world, code, "critical").await;
        let denied = &status(&world).await["instances"][0]["access_denied"];
        assert!(denied["word"] == word && denied["since"].is_string(), "{denied}");
        tells(&world, "sales-refused", "critical").await;
        assert_eq!(readiness(&world).await, 503);
        assert!(world.gateway.remove_fault(fault));
        assert_eq!(world.sale(word).send().await.unwrap().status(), 201);
        is_over(&world, code).await;
        assert_eq!(readiness(&world).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_gone_and_all_of_them_are_told_with_the_fault_while_it_lasts() {
    let world = Scene::with(&[]).await;
    for shard in ["exon", "cyton"] {
        world.gateway.kill(shard).unwrap();
    }
    tells(&world, "shard-unreachable", "warning").await;
    tells(&world, "one-shard", "warning").await;
    world.gateway.kill("zeus").unwrap();
    let words = tells(&world, "no-links", "critical").await;
    assert!(words.contains("nothing can be sold") && words.contains("says: "), "{words}");
    assert!(finding(&world, "no-links").await.unwrap()["since"].is_string());
    let gone = status(&world).await;
    let shard = &gone["instances"][0]["shards"][0];
    assert!(shard["last_fault"].is_string() && shard["last_fault_at"].is_string(), "{shard}");
    assert!(gone["instances"][0]["without_link_since"].is_string());
    assert_eq!(world.sale("one").send().await.unwrap().status(), 503);
    tells(&world, "sales-refused", "warning").await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.revive(shard).unwrap();
    }
    is_over(&world, "no-links").await;
    is_over(&world, "shard-unreachable").await;
    let faults = async || {
        let status = status(&world).await;
        status["instances"][0]["shards"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|shard| !shard["last_fault"].is_null())
            .count()
    };
    eventually("no fault is left of a shard that serves again", async || faults().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gateway_is_told() {
    let world = Scene::with(&[]).await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 1_050 }).on("listtransactions"));
    let reads = (1..5).map(|limit| {
        world.request(reqwest::Method::GET, &format!("/points-of-sale/1/transactions?limit={limit}")).send()
    });
    for read in support::together(reads).await {
        assert_eq!(read.unwrap().status(), 200);
    }
    let words = tells(&world, "gateway-slow", "warning").await;
    assert!(words.contains("of 5 commands"), "the licence and four reads: {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_that_are_all_refused_for_points_among_many_cached_reads_are_critical() {
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__PAY_MAX_WAIT", "100ms"),
        ("BRIDGE_LIMITS__COST__PAYITEMS", "50"),
    ];
    let world = Scene::with(&settings).await;
    assert_eq!(world.get("/config").await.status(), 200);
    for number in 0..2 {
        assert_eq!(world.sale(&format!("booked-{number}")).send().await.unwrap().status(), 201);
    }
    for number in 0..6 {
        for _ in 0..30 {
            assert_eq!(world.get("/config").await.status(), 200);
        }
        assert_eq!(problem(world.sale(&number.to_string()).send().await.unwrap()).await.code, "rate-limited");
    }
    let words = tells(&world, "sales-refused", "critical").await;
    assert!(words.starts_with("6 of 8 sales of demo") && words.contains("`rate-limited`"), "{words}");
    let text = metrics(&world).await;
    let series = "concertpos_bridge_sales_total{pos_instance=\"demo\",outcome=\"rate-limited\"} 6\n";
    assert!(
        text.contains(series) && text.contains("budget_denied_total{pos_instance=\"demo\",class=\"payment\"} 6\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_that_wait_for_points_and_reads_that_get_none_are_told() {
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__WINDOW", "1s"),
        ("BRIDGE_LIMITS__COST__LISTTRANSACTIONS", "100"),
        ("BRIDGE_LIMITS__COST__PAYITEMS", "100"),
        ("BRIDGE_LIMITS__MAX_WAIT", "1ms"),
    ];
    let world = Scene::with(&settings).await;
    let sales = ["one", "two"].map(|key| world.sale(key).send());
    for sale in support::together(sales).await {
        assert_eq!(sale.unwrap().status(), 201);
    }
    tells(&world, "sales-waiting", "warning").await;
    eventually("reads are refused", async || {
        world.get(ANY).await;
        finding(&world, "reads-refused").await.is_some()
    })
    .await;
    tells(&world, "reads-refused", "warning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_gateway_closed_is_told() {
    let world = Scene::with(&[]).await;
    let code = serde_json::json!({"command": "listtransactions", "retry_after": 20_000});
    let code = Some(code);
    world.gateway.add_fault(
        Fault::new(Action::Error { word: "ratelimit".to_owned(), code, and_reply: false }).on("listtransactions"),
    );
    assert_eq!(world.get(ANY).await.status(), 429);
    tells(&world, "budget-closed", "warning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_of_unknown_outcome_is_told_until_it_is_settled() {
    let world = Scene::with(&[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")]).await;
    world.gateway.add_fault(Fault::new(Action::Hang).on("payitems").times(1));
    assert_eq!(world.sale("one").send().await.unwrap().status(), 504);
    let words = tells(&world, "payments-unknown", "critical").await;
    assert!(words.starts_with("1 payment of unknown outcome of demo"), "{words}");
    assert!(metrics(&world).await.contains("concertpos_bridge_payments{pos_instance=\"demo\",state=\"unknown\"} 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_and_copies_that_cannot_be_written_are_told_until_they_can() {
    let world = Scene::with(&[]).await;
    let (journal, away) = (world.folder().join("journal"), world.folder().join("away"));
    fs::rename(&journal, &away).unwrap();
    let copies = world.folder().join("cache");
    fs::remove_dir_all(&copies).unwrap();
    assert_eq!(world.sale("one").send().await.unwrap().status(), 503);
    let words = tells_of(&world, "journal-unavailable", "critical", None).await;
    assert!(words.contains("no payment is sent"), "{words}");
    assert_eq!(world.get("/config").await.status(), 200);
    tells_of(&world, "copies-unwritable", "warning", None).await;
    let disk = &status(&world).await["disk"];
    assert!(disk["journal_fault"].is_string() && disk["copies_fault_since"].is_string(), "{disk}");
    fs::rename(&away, &journal).unwrap();
    fs::create_dir(&copies).unwrap();
    is_over(&world, "journal-unavailable").await;
    assert_eq!(world.get("/deposit").await.status(), 200);
    is_over(&world, "copies-unwritable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_caller_and_of_wrong_tokens_is_told() {
    let mut settings = token("flood", "read");
    settings.push(("BRIDGE_AUTH__TOKENS__FLOOD__PER_SECOND".to_owned(), "1".to_owned()));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let world = Scene::with(&settings).await;
    let ask = |token: &str| world.http.get(world.path("/config")).bearer_auth(token).send();
    // At once: what is refused beyond some is held back.
    support::together((0..40).map(|_| ask("flood"))).await;
    let words = tells_of(&world, "caller-limited", "warning", None).await;
    assert!(words.contains("the caller flood"), "{words}");
    for answer in support::together((0..60).map(|number| ask(&format!("wrong-{number}")))).await {
        assert!(answer.unwrap().status().is_client_error());
    }
    tells_of(&world, "tokens-guessed", "warning", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_told() {
    let url = [("BRIDGE_GATEWAY__URL", "ws://no-such-host.invalid/{shard}/?instance={instance}&Content-Type={format}")];
    let world = Scene::without_links(&url).await;
    tells(&world, "gateway-name", "critical").await;
    tells(&world, "no-links", "critical").await;
    assert_eq!(readiness(&world).await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_accepted_is_told() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls.unwrap()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(acceptor.accept(stream));
        }
    });
    let url = format!("wss://localhost:{port}/{{shard}}/?instance={{instance}}&Content-Type={{format}}");
    let world = Scene::without_links(&[("BRIDGE_GATEWAY__URL", &url)]).await;
    let words = tells(&world, "gateway-certificate", "critical").await;
    assert!(words.contains("invalid peer certificate"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_some_instances_is_told_of_those_and_of_the_disk() {
    let digest = sha256_hex("of-fest");
    let settings = [
        ("BRIDGE_INSTANCES__FEST__API_KEY", "wrong"),
        ("BRIDGE_AUTH__TOKENS__ONE__SHA256", digest.as_str()),
        ("BRIDGE_AUTH__TOKENS__ONE__INSTANCES", "fest"),
        ("BRIDGE_AUTH__TOKENS__ONE__SCOPES", "operate"),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES", "*"),
    ];
    let world = Scene::without_links(&settings).await;
    world.gateway.add_fault(refusing("api_key_expired"));
    assert_eq!(world.sale("one").send().await.unwrap().status(), 502);
    tells(&world, "key-refused", "critical").await;
    let answer = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth("of-fest").send().await.unwrap();
    let limited: Value = answer.json().await.unwrap();
    let text = limited["attention"].to_string();
    assert!(!text.contains("demo") && limited["callers"].is_null() && limited["disk"].is_object(), "{limited}");
}

/// What a machine tells the program, through `support/machine.c`.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/machine.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(folder.path().join("machine.so")).arg(source);
        assert!(compiler.status().unwrap().success());
        Self(folder)
    }

    async fn start(&self) -> Scene {
        let folder = self.0.path();
        let preload = folder.join("machine.so");
        Scene::with(&[("MACHINE", folder.to_str().unwrap()), ("LD_PRELOAD", preload.to_str().unwrap())]).await
    }

    fn set(&self, name: &str, number: i64) {
        fs::write(self.0.path().join(name), number.to_string()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_is_told() {
    let machine = Machine::new();
    let world = machine.start().await;
    assert_eq!(finding(&world, "disk-slow").await, None);
    machine.set("sync_ms", 700);
    assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
    let words = tells_of(&world, "disk-slow", "warning", None).await;
    assert!(words.starts_with("The disk of the payment journal is slow: a write took "), "{words}");
    assert!(status(&world).await["disk"]["slow_commit_ms"].as_u64() >= Some(700));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_in_either_direction_is_told() {
    for (step_s, words) in [(3600, "forward by 3600 s"), (-3600, "back by 3600 s")] {
        let machine = Machine::new();
        let world = machine.start().await;
        assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
        machine.set("step_s", step_s);
        let told = tells_of(&world, "clock-step", "warning", None).await;
        assert!(told.contains(words), "{told}");
        assert_eq!(world.sale("two").send().await.unwrap().status(), 201, "selling goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_is_told_until_there_is_room() {
    // A disk of its own, in a namespace that ends with the program.
    let mount = "mount -t tmpfs -o size=64m tmpfs \"$0\" || { echo 'this test needs leave to mount (CAP_SYS_ADMIN, or user \
                 namespaces)' >&2; exit 1; }; exec \"$@\"";
    let with_disk = ["unshare", "--mount", "--map-root-user", "bash", "-c", mount, "{data}", PROGRAM];
    let world = Scene::run_by(&with_disk, &[]).await;
    let words = tells_of(&world, "disk-nearly-full", "warning", None).await;
    assert!(words.starts_with("The disk of the payment journal is nearly full: 6"), "{words}");
    let process = world.program.id().to_string();
    let folder = world.folder().to_str().unwrap();
    let more = ["--preserve-credentials", "mount", "-o", "remount,size=1g", folder];
    let enter = ["--target", &process, "--user", "--mount"];
    assert!(Command::new("nsenter").args(enter).args(more).status().unwrap().success());
    is_over(&world, "disk-nearly-full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_turned_away_are_told() {
    let with_few = ["bash", "-c", "ulimit -n 256; exec \"$0\" \"$@\"", PROGRAM];
    let world = Scene::run_by(&with_few, &[]).await;
    let address = world.url.trim_start_matches("http://");
    let connect = |token: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "GET /v1/instances/demo/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).ok()?;
        (first == *b"HTTP/1.1 200").then_some(stream)
    };
    // Each has a request that does not end; none is let go for another.
    let streams: Vec<_> = [KEY, OPERATOR].iter().flat_map(|token| (0..128).map_while(|_| connect(token))).collect();
    assert!(connect(KEY).is_none() && connect(OPERATOR).is_none(), "there is no room: {}", streams.len());
    drop(streams);
    let words = tells_of(&world, "connections-turned-away", "critical", None).await;
    assert!(words.contains("there are as many as the bridge takes"), "{words}");
}
