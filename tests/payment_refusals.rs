//! A no that is not always a no: the gateway says an error and books all the same, at once or much later.
//!
//! What was booked is counted on the gateway's side. Whatever it says and whenever, a key is booked at most once as long as
//! its caller repeats it after the answer, and the record comes to say what the gateway did.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[allow(dead_code, reason = "each test file uses its own part of this")]
#[path = "native/client.rs"]
mod client;
mod support;

use std::sync::Arc;
use std::time::Duration;

use client::{Till, event};
use concertpos_simulator::{Action, Config, Fault, Say, Scripted, Simulator};
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use support::program::{Program, free_address};
use support::{KEY, OPERATOR, World, eventually, problem, together};

const GRACE_MS: u64 = 250;

/// Words with what a caller is told where nothing follows them.
const WORDS: [(&str, u16); 6] = [
    ("ratelimit", 429),
    ("invalid_password", 403),
    ("getlicense", 502),
    ("missing_parameter_PaymentMethod", 400),
    ("api_key_mismatch", 502),
    ("error_exec", 504),
];

const DELAYS_MS: [u64; 5] = [0, 1, 30, 400, 5_000];

/// Points of sale without a password: as many cases can run side by side.
const POINTS: [i64; 20] = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21];

fn error(word: &str, after_ms: u64) -> Scripted {
    let code = (word == "ratelimit").then(|| json!({"command": "payitems", "retry_after": 1}));
    Scripted { after_ms, say: Say::Error { word: word.to_owned(), code } }
}

fn reply(after_ms: u64) -> Scripted {
    Scripted { after_ms, say: Say::Reply { parameters: None } }
}

fn script(world: &World, pos_id: i64, frames: Vec<Scripted>) {
    let fault = Fault::new(Action::Script { frames }).on("payitems").times(1);
    let _ = world.gateway.add_fault(Fault { pos_id: Some(pos_id), ..fault });
}

async fn world(format: &str, links: &str) -> Arc<World> {
    let settings = [
        ("BRIDGE_GATEWAY__FORMAT", format),
        ("BRIDGE_GATEWAY__MIN_LINKS", if links == "1" { "1" } else { "2" }),
        ("BRIDGE_GATEWAY__MAX_LINKS", links),
        ("BRIDGE_LIMITS__PAY_MAX_WAIT", "14s"),
        ("BRIDGE_PAYMENTS__REFUSAL_GRACE", "250ms"),
    ];
    Arc::new(World::with(Config::default(), &settings).await)
}

/// One piece of product 1. Status and, where it was booked, whether that was a repetition.
async fn pay(world: &World, pos_id: i64, key: &str) -> (u16, bool) {
    let body = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "ref": key});
    let path = format!("/points-of-sale/{pos_id}/payments");
    let request = world.request(reqwest::Method::POST, &path).header("Idempotency-Key", key).json(&body);
    let response = request.send().await.unwrap();
    let replayed = response.headers().contains_key("idempotent-replayed");
    (response.status().as_u16(), replayed)
}

/// Records of this point of sale, newest first.
async fn records(world: &World, pos_id: i64) -> Vec<Value> {
    let (mut records, mut place) = (Vec::new(), world.path("/payments"));
    loop {
        let response = world.http.get(&place).bearer_auth(OPERATOR).send().await.unwrap();
        let page: Value = response.json().await.unwrap();
        records.extend(page["payments"].as_array().unwrap().iter().filter(|record| record["POSID"] == pos_id).cloned());
        match page["next"].as_str() {
            Some(cursor) => place = world.path(&format!("/payments?cursor={cursor}")),
            None => return records,
        }
    }
}

async fn until_state(world: &World, pos_id: i64, states: &[&str]) {
    let what = format!("the records of point of sale {pos_id} are {states:?}");
    eventually(&what, async || {
        let records = records(world, pos_id).await;
        records.len() == states.len() && records.iter().zip(states).all(|(record, state)| record["state"] == *state)
    })
    .await;
}

fn received(world: &World, key: &str) -> u64 {
    world.gateway.counts().payitems_received.get(key).copied().unwrap_or(0)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Door {
    Rest,
    Till,
}

/// One word, one delay and one door: what is told at once, and what becomes of it.
async fn check(bridge: &World, pos_id: i64, door: Door, (word, refused): (&str, u16), delay_ms: u64) {
    let key = format!("{word}-{delay_ms}-{door:?}");
    script(bridge, pos_id, vec![error(word, 0), reply(delay_ms)]);
    let in_grace = delay_ms < GRACE_MS;
    let before = records(bridge, pos_id).await.len();
    match door {
        Door::Rest => {
            let (told, _) = pay(bridge, pos_id, &key).await;
            // On a busy machine a short delay may become a longer one, and a silence too long to prove anything.
            assert!(told == 201 || (delay_ms > 0 && [refused, 504].contains(&told)), "{key}: {told}");
            assert!(in_grace || delay_ms == 400 || told != 201, "{key}: {told}");
        }
        Door::Till => {
            let mut till = Till::open(bridge).await;
            let sale = json!({"POSID": pos_id, "PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "ref": key});
            let frame = till.ask("payitems", sale).await;
            let booked = frame["type"] == "event" && event(&frame) == "payitem";
            let said = frame["result"]["error"].as_str();
            assert!(booked || (delay_ms > 0 && [Some(word), Some("error_exec")].contains(&said)), "{key}: {frame}");
            assert!(in_grace || delay_ms == 400 || !booked, "{key}: {frame}");
        }
    }
    eventually(&format!("{key} is recorded as booked"), async || {
        let records = records(bridge, pos_id).await;
        records.len() == before + 1 && records[0]["state"] == "booked"
    })
    .await;
    if door == Door::Rest {
        assert_eq!(pay(bridge, pos_id, &key).await, (201, true), "{key}");
    }
    assert_eq!((received(bridge, &key), bridge.gateway.counts().bookings(&key)), (1, 1), "{key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_error_comes_before_the_reply_and_however_long_before_the_sale_is_booked_once_and_recorded() {
    let worlds = [("json", "8"), ("json5", "8"), ("json", "1"), ("json5", "1")].map(|(format, links)| async move {
        let world = world(format, links).await;
        let doors = [Door::Rest, Door::Till];
        let cases = WORDS.into_iter().flat_map(|word| DELAYS_MS.map(|delay| (word, delay)));
        let cases = cases.flat_map(|(word, delay)| doors.map(|door| (word, delay, door)));
        // A point of sale is free for the next case once the case before it has ended.
        let lanes = POINTS.iter().enumerate().map(|(lane, pos_id)| {
            let mine: Vec<_> = cases.clone().skip(lane).step_by(POINTS.len()).collect();
            let world = Arc::clone(&world);
            async move {
                for (word, delay_ms, door) in mine {
                    check(&world, *pos_id, door, word, delay_ms).await;
                }
            }
        });
        stream::iter(lanes).for_each_concurrent(POINTS.len(), |lane| lane).await;
    });
    futures_util::future::join_all(worlds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_which_nothing_comes_is_one_and_frees_its_key() {
    let world = world("json", "2").await;
    for (pos_id, (word, refused)) in POINTS.into_iter().zip(WORDS.into_iter().filter(|(word, _)| *word != "error_exec"))
    {
        script(&world, pos_id, vec![error(word, 0)]);
        assert_eq!(pay(&world, pos_id, word).await, (refused, false), "{word}");
        until_state(&world, pos_id, &["released"]).await;
        eventually("its points are free", async || pay(&world, pos_id, word).await == (201, false)).await;
        assert_eq!(world.gateway.counts().bookings(word), 1, "{word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_frames_for_one_sale_are_told_as_what_they_prove_together() {
    for format in ["json", "json5"] {
        let world = world(format, "1").await;
        let garbage = Scripted { after_ms: 0, say: Say::Text("{\"type\":\"event\",\"res".to_owned()) };
        let cases = [
            ("error-error", vec![error("getlicense", 0), error("getlicense", 30)], 502, "released", 0),
            ("refusal-unclear", vec![error("getlicense", 0), error("error_exec", 30)], 504, "unknown", 0),
            ("unclear-refusal", vec![error("error_exec", 0), error("getlicense", 30)], 504, "unknown", 0),
            ("refusal-garbage", vec![error("getlicense", 0), garbage.clone()], 504, "unknown", 0),
            ("error-error-reply", vec![error("getlicense", 0), error("error_exec", 0), reply(0)], 201, "booked", 1),
            ("reply-error", vec![reply(0), error("getlicense", 0)], 201, "booked", 1),
            ("reply-error-later", vec![reply(0), error("getlicense", 30)], 201, "booked", 1),
            ("reply-reply", vec![reply(0), reply(0)], 201, "booked", 1),
            ("reply-reply-later", vec![reply(0), reply(30)], 201, "booked", 1),
            ("error-reply-error", vec![error("getlicense", 0), reply(0), error("error_exec", 0)], 201, "booked", 1),
            ("error-reply-reply", vec![error("getlicense", 0), reply(0), reply(0)], 201, "booked", 1),
        ];
        for (pos_id, (name, frames, told, state, booked)) in POINTS.into_iter().zip(cases) {
            script(&world, pos_id, frames);
            assert_eq!(pay(&world, pos_id, name).await.0, told, "{format} {name}");
            until_state(&world, pos_id, &[state]).await;
            assert_eq!((received(&world, name), world.gateway.counts().bookings(name)), (1, booked), "{format} {name}");
            // The next sale on the only link is not touched by what the last one drew.
            let next = format!("after-{name}");
            assert_eq!(pay(&world, 30, &next).await, (201, false), "{format} {next}");
            assert_eq!(world.gateway.counts().bookings(&next), 1, "{format} {next}");
        }
    }
}

/// A late error of one sale that meets the next one on the same link: nobody can tell whose it is, and neither is booked
/// twice nor forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_comes_after_the_pong_and_meets_the_next_sale_doubles_nothing() {
    let world = world("json", "1").await;
    script(&world, 1, vec![reply(0), error("getlicense", 400)]);
    script(&world, 2, vec![reply(1_200)]);
    assert_eq!(pay(&world, 1, "first").await, (201, false));
    let (told, _) = pay(&world, 2, "second").await;
    assert!(told == 201 || told == 502, "{told}");
    until_state(&world, 2, &["booked"]).await;
    assert_eq!(pay(&world, 2, "second").await, (201, true));
    for key in ["first", "second"] {
        assert_eq!((received(&world, key), world.gateway.counts().bookings(key)), (1, 1), "{key}");
    }
}

async fn contradictions(world: &World) -> u64 {
    let status = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    status.json::<Value>().await.unwrap()["instances"][0]["contradictions"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_after_the_key_was_used_again_is_a_contradiction_on_both_records() {
    let world = world("json", "8").await;
    script(&world, 1, vec![error("invalid_password", 0), reply(2_000)]);
    assert_eq!(pay(&world, 1, "twice").await, (403, false));
    assert_eq!(contradictions(&world).await, 0);
    assert_eq!(pay(&world, 1, "twice").await, (201, false), "the key was free");
    eventually("both records say so", async || {
        let records = records(&world, 1).await;
        records.len() == 2
            && records.iter().all(|record| record["contradictions"].as_array().is_some_and(|all| all.len() == 1))
    })
    .await;
    let records = records(&world, 1).await;
    assert_eq!((records[0]["state"].as_str(), records[1]["state"].as_str()), (Some("booked"), Some("released")));
    assert_eq!(records[0]["contradictions"][0]["payment"], records[1]["id"]);
    assert_eq!(records[1]["contradictions"][0]["says"], "booked");
    assert_eq!(world.gateway.counts().bookings("twice"), 2, "what nobody could prevent is not hidden");
    eventually("it is counted", async || contradictions(&world).await == 1).await;
    let metrics = world.http.get(format!("{}/metrics", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("concertpos_bridge_payment_contradictions_total{pos_instance=\"demo\"} 1"), "{metrics}");
    assert_eq!(pay(&world, 1, "twice").await, (201, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_after_the_key_was_used_again_and_refused_again_takes_the_key() {
    let world = world("json", "8").await;
    script(&world, 1, vec![error("invalid_password", 0), reply(2_500)]);
    script(&world, 1, vec![error("invalid_password", 0)]);
    assert_eq!(pay(&world, 1, "again").await, (403, false));
    assert_eq!(pay(&world, 1, "again").await, (403, false));
    until_state(&world, 1, &["released", "booked"]).await;
    assert_eq!(pay(&world, 1, "again").await, (201, true));
    assert_eq!((received(&world, "again"), world.gateway.counts().bookings("again")), (2, 1));
    assert_eq!(contradictions(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_whose_refused_sale_was_booked_is_told_to_the_operator() {
    let world = world("json", "2").await;
    script(&world, 1, vec![error("invalid_password", 0), reply(1_000)]);
    let mut till = Till::open(&world).await;
    let sale = json!({"POSID": 1, "PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "ref": "till"});
    assert_eq!(till.ask("payitems", sale).await["result"]["error"], "invalid_password");
    until_state(&world, 1, &["booked"]).await;
    eventually("it is counted", async || contradictions(&world).await == 1).await;
    assert_eq!(records(&world, 1).await[0]["contradictions"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refused_sales_keep_nobody_else_from_selling() {
    const REFUSED: usize = 100;
    let world = world("json", "8").await;
    let refusing = Fault::new(Action::Script { frames: vec![error("invalid_password", 0)] }).on("payitems");
    let _ = world.gateway.add_fault(Fault { pos_id: Some(2), ..refusing });
    let theirs = Arc::clone(&world);
    let refused = tokio::spawn(async move {
        for burst in 0..REFUSED / 10 {
            let keys = (0..10).map(|one| format!("refused-{burst}-{one}"));
            let sales = keys.map(|key| (Arc::clone(&theirs), key));
            let told = together(sales.map(|(world, key)| async move { pay(&world, 2, &key).await.0 })).await;
            assert_eq!(told, [403; 10]);
        }
    });
    let mut sold = 0;
    while !refused.is_finished() || sold < 20 {
        let key = format!("sold-{sold}");
        assert_eq!(pay(&world, 1, &key).await, (201, false), "{key}");
        sold += 1;
    }
    refused.await.unwrap();
    let closed_early = async || {
        let records = records(&world, 2).await;
        let ended = records.iter().filter(|record| record["listened_until"].is_string()).count();
        (records.len(), ended)
    };
    eventually("the oldest are listened to no longer", async || closed_early().await == (REFUSED, REFUSED - 32)).await;
    let status = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    let status: Value = status.json().await.unwrap();
    let links = status["instances"][0]["shards"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|shard| shard["links"].as_array().unwrap());
    assert_eq!(links.filter(|link| link["state"] == "set-aside").count(), 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_drain_a_record_says_until_when_its_late_reply_was_listened_for() {
    let world = World::with(Config::default(), &[]).await;
    script(&world, 1, vec![error("error_exec", 0)]);
    script(&world, 2, vec![error("getlicense", 0)]);
    assert_eq!(pay(&world, 1, "unclear").await.0, 504);
    assert_eq!(pay(&world, 2, "refused").await.0, 502);
    for pos_id in [1, 2] {
        assert!(records(&world, pos_id).await[0]["listened_until"].is_null(), "it is listened for");
    }
    let world = world.restarted().await;
    for pos_id in [1, 2] {
        assert!(records(&world, pos_id).await[0]["listened_until"].is_string(), "it was given up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_does_not_say_what_was_sold_is_noted_or_proves_nothing() {
    let world = world("json", "2").await;
    let said = |parameters: Value| vec![Scripted { after_ms: 0, say: Say::Reply { parameters: Some(parameters) } }];
    script(&world, 1, said(json!({"Items": 0})));
    assert_eq!(pay(&world, 1, "none").await, (201, false));
    assert_eq!(records(&world, 1).await[0]["contradictions"][0]["says"], "booked");
    assert_eq!(contradictions(&world).await, 1);
    script(&world, 2, said(json!({"success": false})));
    assert_eq!(pay(&world, 2, "failed").await, (504, false));
    assert_eq!(records(&world, 2).await[0]["gateway"], json!({"error": "payitem", "code": {"success": false}}));
    let named = json!({"command": "payitem", "retry_after": 1});
    let limit = Scripted { after_ms: 0, say: Say::Error { word: "ratelimit".into(), code: Some(named) } };
    script(&world, 3, vec![limit]);
    assert_eq!(pay(&world, 3, "limited").await, (429, false));
    until_state(&world, 3, &["released"]).await;
}

/// What the built program tells of a sale that is refused, after which it is stopped for longer than the grace.
async fn told_by_a_program_that_was_paused(frames: Vec<Scripted>, answered: u64) -> (u16, String) {
    let gateway = Simulator::start(Config::default()).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let (address, journal) = (free_address(), data.path().join("journal").display().to_string());
    let program = Program::start(&address, &gateway.url(), &journal);
    let http = reqwest::Client::new();
    let ready = format!("http://{address}/readyz?require=gateway");
    eventually("it is ready", async || http.get(&ready).send().await.is_ok_and(|ready| ready.status() == 200)).await;
    gateway.add_fault(Fault::new(Action::Script { frames }).on("payitems"));
    let payment = http
        .post(format!("http://{address}/v1/instances/demo/points-of-sale/1/payments"))
        .bearer_auth(KEY)
        .header("Idempotency-Key", "paused")
        .json(&json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "ref": "paused"}));
    let payment = tokio::spawn(async move { payment.send().await.unwrap() });
    eventually("the gateway has refused", async || gateway.counts().command("payitems").answered == 1).await;
    program.pause(true);
    eventually("what was to be booked is", async || gateway.counts().bookings("paused") as u64 == answered).await;
    // Not a wait for something to happen: the program has to stand still for longer than the grace.
    tokio::time::sleep(Duration::from_secs(2)).await;
    program.pause(false);
    let response = payment.await.unwrap();
    let status = response.status().as_u16();
    let place = format!("http://{address}/v1/instances/demo/payments?idempotency_key=paused");
    let records: Value = http.get(place).bearer_auth(KEY).send().await.unwrap().json().await.unwrap();
    gateway.stop().await;
    (status, records["payments"][0]["state"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_during_which_the_program_stood_still_proves_nothing() {
    let told = told_by_a_program_that_was_paused(vec![error("getlicense", 0)], 0).await;
    assert_eq!(told, (504, "unknown".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_came_while_the_program_stood_still_is_heard() {
    let told = told_by_a_program_that_was_paused(vec![error("getlicense", 0), reply(600)], 1).await;
    assert_eq!(told, (201, "booked".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_caller_of_a_refused_sale_waits_for_the_silence() {
    let world = world("json", "8").await;
    script(&world, 1, vec![error("getlicense", 0)]);
    let begun = std::time::Instant::now();
    let response = world.sale("refused").send().await.unwrap();
    assert_eq!(problem(response).await.code, "license-invalid");
    // Not less; how much more is the machine's.
    assert!(begun.elapsed() >= Duration::from_millis(GRACE_MS), "{:?}", begun.elapsed());
}
