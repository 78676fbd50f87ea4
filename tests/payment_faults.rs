//! Every fault of the gateway at every step of a payment, with callers who stay, leave, or come at once from twenty
//! connections: counted at the gateway, one command at most may have booked, the answer is the promised one, and the
//! record tells the truth.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use concertpos_simulator::{Action, Config, Counting, Fault, Garbage, Limits};
use futures_util::future::join_all;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use support::{OPERATOR, World, eventually, problem, together};

/// Worlds side by side: most rows only wait for a timeout.
const WORLDS: usize = 8;

/// Generous for a busy machine, since rows that are answered in time must be.
const SETTINGS: &[(&str, &str)] = &[
    ("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "1500ms"),
    ("BRIDGE_GATEWAY__LATE_PATIENCE", "20s"),
    ("BRIDGE_PAYMENTS__REFUSAL_GRACE", "50ms"),
];

/// Past the request timeout.
const TOO_LATE: u64 = 3_000;

const CALLERS: usize = 20;

/// What is promised of a payment that meets the fault.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// 201.
    Booked,
    /// Refused with this answer, and the key is free.
    Refused(u16, &'static str),
    /// 504, for good.
    Unknown,
    /// 504 until the late reply books it.
    UnknownThenBooked,
}

#[derive(Debug, Clone)]
struct Row {
    name: String,
    action: Action,
    fate: Fate,
    /// Whether the gateway books it.
    books: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Caller {
    Stays,
    Leaves,
    TwentyAtOnce,
}

fn row(name: &str, action: Action, fate: Fate, books: bool) -> Row {
    Row { name: name.to_owned(), action, fate, books }
}

fn word(word: &str, code: Option<Value>, and_reply: bool) -> Action {
    Action::Error { word: word.to_owned(), code, and_reply }
}

fn rows() -> Vec<Row> {
    use Action::{
        CloseFrame, CutAfterApply, CutBeforeApply, Duplicate, ErrorAfterApply, HalfOpen, Hang, HangAfterApply, Late,
        Latency, Unasked,
    };
    use Fate::{Booked, Refused, Unknown, UnknownThenBooked};
    let garbage = |kind, instead| Action::Garbage { kind, instead };
    let mut rows = vec![
        row("slow", Latency { ms: 50 }, Booked, true),
        row("applied late", Late { ms: 50 }, Booked, true),
        row("twice", Duplicate, Booked, true),
        row("garbage first", garbage(Garbage::Text, false), Booked, true),
        row("binary first", garbage(Garbage::Binary, false), Booked, true),
        row("unasked", Unasked { event: "session".into() }, Booked, true),
        row("another's reply first", Unasked { event: "listproducts".into() }, Booked, true),
        row("hang", Hang, Unknown, false),
        row("hang after", HangAfterApply, Unknown, true),
        row("cut before", CutBeforeApply, Unknown, false),
        row("cut after", CutAfterApply, Unknown, true),
        row("half open", HalfOpen, Unknown, false),
        row("closed", CloseFrame { code: 1000 }, Unknown, false),
        row("closed by error", CloseFrame { code: 1011 }, Unknown, false),
        row("garbage", garbage(Garbage::Text, true), Unknown, true),
        row("binary", garbage(Garbage::Binary, true), Unknown, true),
        row("truncated", garbage(Garbage::Truncated, true), Unknown, true),
        row("reply too late", Latency { ms: TOO_LATE }, UnknownThenBooked, true),
        row("applied too late", Late { ms: TOO_LATE }, UnknownThenBooked, true),
    ];
    let of = |command: &str| Some(json!({"command": command, "retry_after": 1}));
    let limits = [
        ("limit", of("payitems"), false, Refused(429, "rate-limited")),
        // It is not about payitems, so it answers nothing: the reply that follows does, or nothing does.
        ("another's limit", of("listpm"), true, Booked),
        ("only another's limit", of("listpm"), false, Unknown),
        ("limit of nobody", Some(json!(0)), false, Unknown),
    ];
    rows.extend(
        limits.map(|(name, code, and_reply, fate)| row(name, word("ratelimit", code, and_reply), fate, and_reply)),
    );
    let refusals = [
        ("missing_parameter_PaymentMethod", 400, "gateway-rejected-parameters"),
        ("missing_parameter_api", 502, "gateway-credentials-rejected"),
        ("api_key_mismatch", 502, "gateway-credentials-rejected"),
        ("api_key_expired", 502, "gateway-credentials-rejected"),
        ("no_api_key", 502, "gateway-credentials-rejected"),
        ("invalid_password", 403, "pos-password-rejected"),
        ("getlicense", 502, "license-invalid"),
        ("invalid_json", 502, "gateway-error"),
        ("invalid_json5", 502, "gateway-error"),
        ("invalid_content_type", 502, "gateway-error"),
    ];
    rows.extend(refusals.map(|(name, status, code)| row(name, word(name, None, false), Refused(status, code), false)));
    for name in ["error_exec", "server_error", "invalid_instance", "payitems", "invalid", "never_heard_of", ""] {
        rows.push(row(&format!("{name} before"), word(name, None, false), Unknown, false));
        rows.push(row(&format!("{name} and on"), word(name, None, true), Booked, true));
        rows.push(row(&format!("{name} after"), ErrorAfterApply { word: name.into() }, Unknown, true));
    }
    rows
}

/// What one caller was told: status and, for a problem, its code.
type Told = (u16, String);

async fn pay(world: &World, key: &str) -> Told {
    let response = world.sale(key).send().await.unwrap();
    let status = response.status().as_u16();
    if status == 201 {
        assert_eq!(response.text().await.unwrap(), r#"{"Items":1}"#, "{key}");
        return (status, String::new());
    }
    let place = response.headers().get("location").map(|place| place.to_str().unwrap().to_owned());
    let problem = problem(response).await;
    if problem.code == "payment-outcome-unknown" {
        let place = place.unwrap_or_else(|| panic!("{key}: names no record"));
        assert!(problem.body["detail"].as_str().unwrap().contains(&place), "{}", problem.body);
        assert_eq!(problem.body["retryable"], true, "{}", problem.body);
    }
    (status, problem.code)
}

/// Again and at once for as long as the payment is in progress.
async fn pay_until_told(world: &World, key: &str) -> Told {
    loop {
        let told = pay(world, key).await;
        if told.1 != "payment-in-progress" {
            return told;
        }
    }
}

fn received(world: &World, key: &str) -> u64 {
    world.gateway.counts().payitems_received.get(key).copied().unwrap_or(0)
}

/// The latest record under a key; null where there is none.
async fn record(world: &World, key: &str) -> Value {
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
    let response = world.get(&format!("/payments?idempotency_key={key}")).await;
    let records: Value = response.json().await.unwrap();
    records["payments"][0].clone()
}

async fn state(world: &World, key: &str) -> Option<String> {
    record(world, key).await["state"].as_str().map(str::to_owned)
}

async fn leave_once_it_was_sent(world: &Arc<World>, key: &str) {
    let (there, name) = (Arc::clone(world), key.to_owned());
    let request = tokio::spawn(async move { there.sale(&name).send().await });
    eventually("the command arrives", async || received(world, key) >= 1).await;
    request.abort();
}

/// One row with one kind of caller.
async fn check(world: &Arc<World>, row: &Row, caller: Caller) {
    let key = format!("{}/{caller:?}", row.name.replace(' ', "-"));
    let fault = world.gateway.add_fault(Fault::new(row.action.clone()).on("payitems"));
    let answers = match caller {
        Caller::Stays => vec![pay(world, &key).await],
        Caller::Leaves => {
            leave_once_it_was_sent(world, &key).await;
            Vec::new()
        }
        Caller::TwentyAtOnce => {
            let one = |_| (Arc::clone(world), key.clone());
            let calls = (0..CALLERS).map(one).map(|(world, key)| async move { pay_until_told(&world, &key).await });
            together(calls).await
        }
    };
    let lost = || (504, "payment-outcome-unknown".to_owned());
    let (told, ends): (Vec<Told>, &[&str]) = match row.fate {
        Fate::Booked => (vec![(201, String::new())], &["booked"]),
        Fate::Refused(status, code) => (vec![(status, code.to_owned())], &["released"]),
        Fate::Unknown => (vec![lost()], &["unknown"]),
        Fate::UnknownThenBooked => (vec![lost(), (201, String::new())], &["unknown", "booked"]),
    };
    let is_right = answers.iter().all(|answer| told.contains(answer));
    assert!(is_right, "{key}: {answers:?}, recorded as {}", record(world, &key).await);
    let decided = async || state(world, &key).await.is_some_and(|state| ends.contains(&state.as_str()));
    eventually(&format!("{key} is recorded as it should be"), decided).await;
    world.gateway.remove_fault(fault);

    // Only a command that was certainly refused may be followed by another.
    let refused = answers.iter().filter(|_| matches!(row.fate, Fate::Refused(..))).count() as u64;
    assert_eq!(received(world, &key), refused.max(1), "{key}");
    if row.fate == Fate::UnknownThenBooked {
        eventually("the late reply books it", async || state(world, &key).await.unwrap() == "booked").await;
    }
    assert_eq!(world.gateway.counts().bookings(&key), usize::from(row.books), "{key}");

    // What the same key gets from now on.
    let again = pay(world, &key).await;
    match row.fate {
        Fate::Booked | Fate::UnknownThenBooked => assert_eq!(again.0, 201, "{key}: {again:?}"),
        Fate::Unknown => assert_eq!(again, lost(), "{key}"),
        Fate::Refused(429, _) if again.0 == 429 => {}
        Fate::Refused(..) => {
            assert_eq!(again.0, 201, "{key}: {again:?}");
            assert_eq!(world.gateway.counts().bookings(&key), 1, "{key}: the key was free");
        }
    }
    if !matches!(row.fate, Fate::Refused(..)) {
        assert_eq!(received(world, &key), 1, "{key}: a repeat sends nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_gateway_does_and_whoever_asks_a_payment_is_sent_at_most_once_and_its_record_is_true() {
    let callers = [Caller::Stays, Caller::Leaves, Caller::TwentyAtOnce];
    let cases: VecDeque<_> = rows().into_iter().flat_map(|row| callers.map(|caller| (row.clone(), caller))).collect();
    let cases = Arc::new(Mutex::new(cases));
    let workers = (0..WORLDS).map(|_| {
        let cases = Arc::clone(&cases);
        async move {
            let world = Arc::new(World::with(Config::default(), SETTINGS).await);
            let next = || cases.lock().unwrap().pop_front();
            while let Some((row, caller)) = next() {
                check(&world, &row, caller).await;
                // A limit that says no time closes payments for a window; the next row is not about that.
                let open = world.http.put(world.path("/budget/payitems")).bearer_auth(OPERATOR);
                assert_eq!(open.json(&json!({"open": true})).send().await.unwrap().status(), 200);
                let ready = async || world.get_open("/readyz?require=gateway").await.status() == 200;
                eventually("its links are back", ready).await;
            }
            // The bridge's own count kept every command, evidence included, under the gateway's limit.
            assert_eq!(world.gateway.counts().ratelimit_errors, 0);
        }
    });
    join_all(workers).await;
}

/// A payment that cannot be written: its answer, and that nothing of it was sent or kept.
async fn never_written(world: &Arc<World>, key: &str, codes: &[&str]) {
    let calls = (0..CALLERS).map(|_| (Arc::clone(world), key.to_owned()));
    let answers = together(calls.map(|(world, key)| async move { pay_until_told(&world, &key).await })).await;
    assert!(answers.iter().all(|(_, code)| codes.contains(&code.as_str())), "{key}: {answers:?}");
    assert_eq!(received(world, key), 0, "{key}");
    assert!(matches!(state(world, key).await.as_deref(), None | Some("released")), "{key}");
}

async fn books_once_the_way_is_free(world: &World, key: &str) {
    eventually("it is booked", async || pay(world, key).await.0 == 201).await;
    assert_eq!((received(world, key), world.gateway.counts().bookings(key)), (1, 1), "{key}");
}

const UNREACHABLE: [&str; 2] = ["gateway-unavailable", "overloaded"];

#[tokio::test(flavor = "multi_thread")]
async fn with_every_shard_dead_refusing_hanging_or_rejecting_nothing_is_sent_and_the_key_is_free() {
    let faults = [
        ("dead", None),
        ("refusing", Some(Action::RefuseConnect)),
        ("hanging", Some(Action::HangConnect)),
        ("rejecting", Some(Action::ConnectError { word: "invalid_instance".into() })),
    ];
    let worlds = faults.map(|(name, fault)| async move {
        let settings = [("BRIDGE_LIMITS__PAY_MAX_WAIT", "400ms"), ("BRIDGE_GATEWAY__CONNECT_TIMEOUT", "1s")];
        let world = Arc::new(World::with(Config::default(), &settings).await);
        let dead = fault.is_none();
        fault.map(|fault| world.gateway.add_fault(Fault::new(fault)));
        for shard in ["exon", "cyton", "zeus"] {
            world.gateway.kill(shard).unwrap();
            if !dead {
                world.gateway.revive(shard).unwrap();
            }
        }
        let open = async || world.get_open("/readyz?require=gateway").await.status() != 200;
        eventually("the bridge has lost its links", open).await;
        never_written(&world, name, &UNREACHABLE).await;
        world.gateway.clear_faults();
        for shard in ["exon", "cyton", "zeus"] {
            world.gateway.revive(shard).unwrap();
        }
        books_once_the_way_is_free(&world, name).await;
    });
    join_all(worlds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_frozen_take_what_is_written_and_it_is_never_written_again() {
    let world = Arc::new(World::with(Config::default(), SETTINGS).await);
    // One that opens later is not frozen.
    eventually("both links are open", async || world.gateway.counts().open() >= 2).await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.freeze(shard).unwrap();
    }
    let told = pay(&world, "frozen").await;
    assert_eq!(told, (504, "payment-outcome-unknown".to_owned()));
    books_once_the_way_is_free(&world, "another").await;
    assert_eq!(pay(&world, "frozen").await, told);
    assert_eq!(received(&world, "frozen"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_shard_is_gone_around() {
    let world = Arc::new(World::with(Config::default(), SETTINGS).await);
    for (shard, other) in [("exon", "zeus"), ("cyton", "exon"), ("zeus", "cyton")] {
        world.gateway.kill(shard).unwrap();
        let _ = world.gateway.revive(other);
        books_once_the_way_is_free(&world, shard).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_points_in_time_nothing_is_sent_and_the_key_is_free() {
    let window = Duration::from_secs(2);
    let costs = [("payitems".to_owned(), 50)].into();
    let limits = Limits { capacity: 50, window, costs, ..Limits::new(Counting::PerCommand) };
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "50"),
        ("BRIDGE_LIMITS__COST__PAYITEMS", "50"),
        ("BRIDGE_LIMITS__WINDOW", "2s"),
        ("BRIDGE_LIMITS__PAY_MAX_WAIT", "300ms"),
    ];
    let world = Arc::new(World::with(Config { limits, ..Config::default() }, &settings).await);
    assert_eq!(pay(&world, "first").await.0, 201);
    never_written(&world, "second", &["rate-limited"]).await;
    books_once_the_way_is_free(&world, "second").await;
    assert_eq!(world.gateway.counts().ratelimit_errors, 0, "the bridge never asked too early");
}
