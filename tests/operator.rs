//! The commands for operators, as programs of their own, against a running bridge.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod running;
mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use concertpos_simulator::{Action, Config, Fault, Instance};
use running::{PROGRAM, Running, free_address, text, wait_until};
use serde_json::Value;
use support::World;

/// Settings under which an unanswered payment is soon one of unknown outcome.
const QUICK: &[(&str, &str)] = &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")];

/// What a command left behind.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    /// What was printed by one that succeeded.
    #[track_caller]
    fn printed(self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.out
    }

    /// What was printed, as JSON.
    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.printed()).unwrap()
    }

    /// What was said by one that was refused or failed, which prints nothing.
    #[track_caller]
    fn failed(self, status: i32) -> String {
        assert_eq!((self.status, self.out.as_str()), (Some(status), ""), "{self:?}");
        self.err
    }
}

/// Runs a command with nothing on standard input.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ended { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Runs a command as this bridge's operator.
async fn operate(world: &World, arguments: &[&str]) -> Ended {
    run(arguments, &[("BRIDGE_URL", &world.url), ("BRIDGE_TOKEN", support::OPERATOR)]).await
}

/// Makes a payment of unknown outcome; its id.
async fn unknown_payment(world: &World, key: &str) -> String {
    world.gateway.add_fault(Fault::new(Action::CutBeforeApply).on("payitems").times(1));
    let lost = world.sale(key).send().await.unwrap();
    assert_eq!(lost.status(), 504);
    lost.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// What the bridge answers to its operator there.
async fn asked(world: &World, path: &str) -> String {
    let url = format!("{}{path}", world.url);
    world.http.get(url).bearer_auth(support::OPERATOR).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_listed_over_all_pages_with_filters_as_a_table_and_as_the_bridge_s_json() {
    let world = World::with(Config::default(), QUICK).await;
    // Prices are those of a cached reply.
    assert_eq!(world.get("/points-of-sale/1/products").await.status(), 200);
    for key in ["one", "two", "three"] {
        assert_eq!(world.sale(key).send().await.unwrap().status(), 201);
    }
    let unknown = unknown_payment(&world, "lost").await;
    let table = operate(&world, &["payments", "list"]).await.printed();
    let keys: Vec<_> = table.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(keys, ["KEY", "lost", "three", "two", "one"], "{table}");
    let line = table.lines().nth(1).unwrap();
    assert!(line.starts_with(&unknown) && line.contains("  unknown  "), "{table}");
    let as_json = operate(&world, &["payments", "list", "--json"]).await.printed();
    assert_eq!(as_json.trim_end(), asked(&world, "/v1/instances/demo/payments").await);
    let listed: Value = serde_json::from_str(&as_json).unwrap();
    let sum = listed["payments"][0]["sum"].as_str().unwrap();
    assert!(line.contains(&format!(" {sum} ")), "{line}");

    let some = operate(&world, &["payments", "list", "--limit", "2"]).await;
    assert!(some.err.contains("There may be more: --all, or --cursor "), "{some:?}");
    let cursor = some.err.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(some.printed().lines().count(), 3);
    let rest = operate(&world, &["payments", "list", "--all", "--cursor", &cursor]).await;
    assert!(!rest.err.contains("more"), "{rest:?}");
    assert_eq!(rest.printed().lines().count(), 3);

    let list = async |filters: &[&str]| {
        let arguments = [&["payments", "list", "--json"], filters].concat();
        operate(&world, &arguments).await.json()["payments"].as_array().unwrap().len()
    };
    assert_eq!(list(&["--state", "unknown"]).await, 1);
    assert_eq!(list(&["--key", "two"]).await, 1);
    assert_eq!(list(&["--pos-id", "7"]).await, 0);
    assert_eq!(list(&["--caller", "nobody"]).await, 0);
    assert_eq!(list(&["--from", "2020-01-01", "--to", "2020-01-02T12:00"]).await, 0);
    assert_eq!(list(&["--from", "2020-01-01T00:00:00Z"]).await, 4);
    let none = operate(&world, &["payments", "list", "--state", "released"]).await;
    assert!(none.err.contains("No payments."), "{none:?}");
    let none = operate(&world, &["payments", "list", "--state", "released", "--json"]).await;
    assert_eq!(none.err, "");
    assert_eq!(none.json()["payments"], serde_json::json!([]));
    let wrong = operate(&world, &["payments", "list", "--state", "lost"]).await.failed(1);
    assert!(wrong.contains("`state` in the query must be one of"), "{wrong}");
    for usage in [&["--from", "yesterday"][..], &["--limit", "0"], &["--all", "--limit", "3"]] {
        assert_eq!(operate(&world, &[&["payments", "list"], usage].concat()).await.status, Some(2), "{usage:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_more_payments_than_a_page_holds_goes_on_page_by_page() {
    let world = World::start().await;
    // A few at a time, so that none waits long for a link.
    for batch in 0..67 {
        let sales = (0..15).map(|number| world.sale(&format!("k{batch}-{number}")).send());
        for answer in support::together(sales).await {
            assert_eq!(answer.unwrap().status(), 201);
        }
    }
    let table = operate(&world, &["payments", "list", "--all"]).await.printed();
    let ids: std::collections::BTreeSet<_> = table.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!((table.lines().count(), ids.len()), (1006, 1006), "one heading, and each payment once");
    let pages = operate(&world, &["payments", "list", "--json", "--limit", "1003"]).await.printed();
    let pages: Vec<Value> = pages.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts: usize = pages.iter().map(|page| page["payments"].as_array().unwrap().len()).sum();
    assert!(pages.len() > 1 && counts == 1003, "{counts}");
    for (limit, records) in [(&["--all"][..], 1005), (&["--limit", "1003"], 1003), (&["--limit", "2"], 2)] {
        let csv = operate(&world, &[&["payments", "list", "--csv"], limit].concat()).await.printed();
        let heads = csv.lines().filter(|line| line.starts_with("id,state,")).count();
        assert_eq!((heads, csv.lines().count()), (1, records + 1), "{limit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_settled_as_it_was_seen_and_only_with_a_confirmation() {
    let world = World::with(Config::default(), QUICK).await;
    let id = unknown_payment(&world, "lost").await;
    let settle = ["payments", "settle", &id, "--outcome", "booked", "--reason", "seen \u{1b}[2J at the till"];
    let state = async || operate(&world, &["payments", "show", &id, "--json"]).await.json();

    let shown = operate(&world, &["status"]).await.printed();
    let attention = shown.split("needs attention:").nth(1).unwrap_or_default();
    assert!(attention.contains("demo"), "an unknown payment: {shown}");

    let unasked = operate(&world, &settle).await.failed(2);
    assert!(unasked.contains("--yes"), "{unasked}");
    let changed = operate(&world, &[&settle[..], &["--yes", "--revision", "77"]].concat()).await.failed(1);
    for part in ["The record has changed", "412 precondition-failed", "payments show"] {
        assert!(changed.contains(part), "{part}: {changed}");
    }
    let as_json = operate(&world, &[&settle[..], &["--yes", "--revision", "77", "--json"]].concat()).await.failed(1);
    assert_eq!(serde_json::from_str::<Value>(&as_json).unwrap()["code"], "precondition-failed");
    assert_eq!(at_a_terminal(&world, &settle, "n\n").await, Some(1));
    assert_eq!(state().await["state"], "unknown");

    let seen = state().await["revision"].to_string();
    let settled = operate(&world, &[&settle[..], &["--yes", "--revision", &seen]].concat()).await.printed();
    assert_eq!(settled, format!("payment {id} is settled as booked\n"));
    let shown = operate(&world, &["payments", "show", &id]).await.printed();
    assert!(shown.contains("seen \\u{1b}[2J at the till") && !shown.contains('\u{1b}'), "{shown}");
    let again = operate(&world, &[&settle[..], &["--yes"]].concat()).await.failed(1);
    assert!(again.contains("409 outcome-conflict"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_is_confirmed_at_a_terminal() {
    let world = World::with(Config::default(), QUICK).await;
    let id = unknown_payment(&world, "lost").await;
    let settle = ["payments", "settle", &id, "--outcome", "not-booked", "--reason", "nothing in its list", "--json"];
    assert_eq!(at_a_terminal(&world, &settle, "yes\n").await, Some(0));
    let record = operate(&world, &["payments", "show", &id, "--json"]).await.json();
    assert_eq!(record["settlement"]["outcome"], "not-booked");
}

/// Runs a command at a terminal where `typed` is typed; its exit status.
async fn at_a_terminal(world: &World, arguments: &[&str], typed: &'static str) -> Option<i32> {
    let quoted = arguments.iter().map(|argument| format!("'{argument}'")).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &format!("'{PROGRAM}' {quoted}"), "/dev/null"]);
    command.env("BRIDGE_URL", &world.url).env("BRIDGE_TOKEN", support::OPERATOR);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = move || {
        let mut child = command.spawn().unwrap();
        // Kept open until the end: a terminal that is gone would be an answer too.
        let mut keyboard = child.stdin.take().unwrap();
        keyboard.write_all(typed.as_bytes()).unwrap();
        let status = child.wait().unwrap();
        drop(keyboard);
        status.code()
    };
    tokio::task::spawn_blocking(ended).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_shards_and_budgets_and_a_shard_is_taken_out_and_put_back() {
    let world = World::start().await;
    assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
    let shown = operate(&world, &["status"]).await.printed();
    for part in ["serving", "payments: 1 booked", "demo", "exon", "cyton", "zeus", "payitems"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let as_json = operate(&world, &["status", "--json"]).await.json();
    assert_eq!(as_json["instances"][0]["instance"], "demo");
    let out = operate(&world, &["shards", "cordon", "zeus"]).await.printed();
    assert_eq!(out, "shard zeus is taken out\n");
    let shown = operate(&world, &["status", "--instance", "demo"]).await.printed();
    assert!(shown.contains("zeus taken out"), "{shown}");
    let back = operate(&world, &["shards", "uncordon", "zeus", "--json"]).await.json();
    assert_eq!(back, serde_json::json!({"shard": "zeus", "cordoned": false}));
    let nowhere = operate(&world, &["shards", "cordon", "nowhere"]).await.failed(1);
    assert!(nowhere.contains("404 not-found"), "{nowhere}");
    let nowhere = operate(&world, &["status", "--instance", "nowhere"]).await.failed(1);
    assert!(nowhere.contains("`nowhere`"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_must_be_named_where_the_token_may_use_several() {
    let instance = |slug: &str| Instance { slug: slug.to_owned(), api_key: support::KEY.to_owned() };
    let gateway = Config { instances: vec![instance("demo"), instance("other")], ..Config::default() };
    let settings = [
        ("BRIDGE_INSTANCES__OTHER__API_KEY", support::KEY),
        ("BRIDGE_INSTANCES__OTHER__ACCEPT_GATEWAY_KEY", "false"),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES", "*"),
    ];
    let world = World::with(gateway, &settings).await;
    let unnamed = operate(&world, &["payments", "list"]).await.failed(2);
    assert!(unnamed.contains("demo, other") && unnamed.contains("--instance"), "{unnamed}");
    let named = operate(&world, &["payments", "list", "--instance", "other", "--json"]).await.json();
    assert_eq!(named["payments"], serde_json::json!([]));
    let environment =
        [("BRIDGE_URL", world.url.as_str()), ("BRIDGE_TOKEN", support::OPERATOR), ("BRIDGE_INSTANCE", "demo")];
    assert_eq!(run(&["payments", "list"], &environment).await.status, Some(0));
    let unknown = operate(&world, &["payments", "list", "--instance", "nowhere"]).await.failed(1);
    assert!(unknown.contains("404 unknown-instance"), "{unknown}");
    let overview = operate(&world, &["status"]).await.printed();
    assert!(overview.contains("\nother ") && !overview.contains("SHARD  "), "{overview}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_by_its_problem_and_bad_usage_exits_with_2() {
    let world = World::start().await;
    let url = world.url.as_str();
    let without = run(&["status", "--url", url], &[]).await.failed(1);
    assert!(without.contains("401 unauthenticated") && without.contains("No token was given"), "{without}");
    let wrong = run(&["status", "--url", url], &[("BRIDGE_TOKEN", "wrong-secret")]).await.failed(1);
    assert!(wrong.contains("not accepted") && !wrong.contains("wrong-secret"), "{wrong}");
    let weak = run(&["status", "--url", url], &[("BRIDGE_TOKEN", support::KEY)]).await.failed(1);
    assert!(weak.contains("403 forbidden"), "{weak}");
    let as_json = run(&["status", "--url", url, "--json"], &[("BRIDGE_TOKEN", support::KEY)]).await.failed(1);
    assert_eq!(serde_json::from_str::<Value>(&as_json).unwrap()["code"], "forbidden");
    let unknown = operate(&world, &["payments", "show", "../../x y"]).await.failed(1);
    assert!(unknown.contains("404 unknown-payment"), "{unknown}");
    // What answers, and is no bridge: a page without authentication.
    let other = run(&["payments", "list", "--instance", "x", "--url", &format!("{url}/docs/#")], &[]).await.failed(2);
    assert!(other.contains("--url"), "{other}");
    let other = run(&["status", "--url", &format!("{url}/docs")], &[]).await;
    assert_eq!(other.status, Some(1), "{other:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, empty) = (file("token", &format!("{}\n", support::OPERATOR)), file("empty", " \n"));
    let wrong = [("BRIDGE_TOKEN", "wrong"), ("BRIDGE_URL", "")];
    assert_eq!(run(&["status", "--url", url, "--token-file", &good], &wrong).await.status, Some(0));
    let from_environment = [("BRIDGE_TOKEN_FILE", good.as_str()), ("BRIDGE_TOKEN", "")];
    assert_eq!(run(&["status", "--url", url], &from_environment).await.status, Some(0));
    for usage in [
        &["--url", "ftp://bridge"][..],
        &["--url", "http://me:hush@bridge"],
        &["--url", "bridge:8080"],
        &["--token-file", "/nowhere/token"],
        &["--token-file", &empty],
        &["--url", "https://localhost", "--ca-file", &empty],
        &["--token", "secret"],
    ] {
        assert_eq!(run(&[&["status"], usage].concat(), &[]).await.status, Some(2), "{usage:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_away_or_silent_is_told_in_time() {
    let away = format!("http://{}", free_address());
    let told = run(&["status", "--url", &away], &[]).await.failed(1);
    assert!(told.contains(&away) && told.to_lowercase().contains("refused"), "{told}");
    // Connects, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let told =
        run(&["payments", "list", "--instance", "demo", "--url", &url, "--timeout", "200ms"], &[]).await.failed(1);
    assert!(told.contains("no answer within 200ms"), "{told}");
    let nowhere = run(&["status", "--url", "http://nowhere.invalid"], &[]).await.failed(1);
    assert!(nowhere.contains("http://nowhere.invalid"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_bridge_s_certificate_must_be_trusted_by_a_file_or_the_system() {
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("tls.pem"), made.cert.pem()).unwrap();
    std::fs::write(at("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let (certificate, key, journal) = (at("tls.pem"), at("tls.key"), at("journal"));
    let environment = [
        ("BRIDGE_SERVER__LISTEN", listen.as_str()),
        ("BRIDGE_SERVER__TLS__CERTIFICATE", &certificate),
        ("BRIDGE_SERVER__TLS__KEY", &key),
        ("BRIDGE_PAYMENTS__JOURNAL", &journal),
        ("BRIDGE_CACHE__STORE", ""),
        ("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/?instance={instance}"),
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "key"),
    ];
    let _bridge = Running::start(&["serve"], &environment);
    wait_until("it listens", || std::net::TcpStream::connect(&listen).is_ok());
    let url = format!("https://localhost:{}", listen.rsplit(':').next().unwrap());
    let list = ["payments", "list", "--url", &url, "--json"];
    let token = ("BRIDGE_TOKEN", "key");
    assert_eq!(run(&list, &[token, ("BRIDGE_CA_FILE", &certificate)]).await.json()["payments"], serde_json::json!([]));
    assert_eq!(run(&[&list[..], &["--ca-file", &certificate]].concat(), &[token]).await.status, Some(0));
    let strange = run(&list, &[token]).await.failed(1);
    assert!(strange.contains("certificate"), "{strange}");
    // In the clear it is no HTTP.
    assert_eq!(run(&["status", "--url", &format!("http://{listen}")], &[token]).await.status, Some(1));
}

#[test]
fn help_names_the_environment_and_the_exit_status_and_takes_no_token() {
    let help = text(&running::run(&["payments", "settle", "--help"], &[]).stdout);
    for part in ["--reason", "BRIDGE_TOKEN_FILE", "Exit status"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert!(!help.contains("--token "), "a token in an argument can be read by every user: {help}");
}
