//! `Prefer: wait=N`: for how long a read waits for points, and the repeat of a payment in flight for its outcome; and
//! `Proxy-Status`: whose refusal an error is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use concertpos_simulator::{Action, Config, Fault};
use reqwest::{RequestBuilder, Response};
use support::{ANY, World, eventually, problem, together};

/// Points for one listing of transactions; the next can have some after about three seconds.
const SCARCE: &[(&str, &str)] = &[
    ("BRIDGE_LIMITS__CAPACITY", "100"),
    ("BRIDGE_LIMITS__COST__LISTTRANSACTIONS", "100"),
    ("BRIDGE_LIMITS__WINDOW", "3s"),
    ("BRIDGE_LIMITS__MAX_WAIT", "1s"),
    ("BRIDGE_CACHE__STORE", ""),
];

fn applied(response: &Response) -> Option<&str> {
    response.headers().get("preference-applied").map(|value| value.to_str().unwrap())
}

fn spawn(request: RequestBuilder) -> tokio::task::JoinHandle<Response> {
    tokio::spawn(async move { request.send().await.unwrap() })
}

async fn until_sent(world: &World, key: &str) {
    let sent = async || world.gateway.counts().payitems_received.contains_key(key);
    eventually("the payment is at the gateway", sent).await;
}

fn times_sent(world: &World, key: &str) -> u64 {
    world.gateway.counts().payitems_received.get(key).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_points_as_long_as_it_prefers_and_says_so() {
    let settings = [SCARCE, &[("BRIDGE_SERVER__DEADLINE", "9s")]].concat();
    let world = World::with(Config::default(), &settings).await;
    let read = |wait: &str| world.request(reqwest::Method::GET, ANY).header("Prefer", format!("{wait}, foo; wait=1"));
    let first = read("wait=soon").send().await.unwrap();
    assert_eq!((first.status().as_u16(), applied(&first)), (200, None), "what is malformed is ignored");
    let begun = Instant::now();
    let impatient = read("wait=0").send().await.unwrap();
    assert_eq!(applied(&impatient), Some("wait=0"));
    assert_eq!(problem(impatient).await.code, "rate-limited");
    assert_eq!(problem(world.get(ANY).await).await.code, "rate-limited", "points come later than by max_wait");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let patient = read("wait=99999").send().await.unwrap();
    assert_eq!((patient.status().as_u16(), applied(&patient)), (200, Some("wait=9")), "capped by the deadline");
    assert_eq!(world.gateway.counts().command("listtransactions").received, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_s_patience_is_not_another_s() {
    let world = Arc::new(World::with(Config::default(), SCARCE).await);
    assert_eq!(world.get(ANY).await.status(), 200);
    let request = |wait: &str| world.request(reqwest::Method::GET, ANY).header("Prefer", format!("wait={wait}"));
    let patient = spawn(request("8"));
    let waiting = async || {
        let status = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(support::OPERATOR).send().await;
        let status: serde_json::Value = status.unwrap().json().await.unwrap();
        status["instances"][0]["budgets"].to_string().contains("\"waiting_callers\":1")
            || status["instances"][0]["budgets"].to_string().contains("\"waiting\":1")
    };
    eventually("the patient one waits", waiting).await;
    for (wait, most) in [("0", 1), ("1", 2)] {
        let begun = Instant::now();
        let impatient = request(wait).send().await.unwrap();
        assert_eq!(problem(impatient).await.code, "rate-limited", "it asks for what another waits for already");
        assert!(begun.elapsed() < Duration::from_secs(most), "{wait}: {:?}", begun.elapsed());
    }
    assert!(!patient.is_finished(), "they left the patient one waiting");
    assert_eq!(patient.await.unwrap().status(), 200);
    assert_eq!(world.gateway.counts().command("listtransactions").received, 2, "one fetch for all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_patience_of_whoever_joins_is_not_cut_short_by_whoever_began_it() {
    let world = Arc::new(World::with(Config::default(), SCARCE).await);
    assert_eq!(world.get(ANY).await.status(), 200);
    let request = |wait: u64| world.request(reqwest::Method::GET, ANY).header("Prefer", format!("wait={wait}"));
    let all = together([1, 2, 8, 8, 1, 8].map(|wait| {
        let request = request(wait);
        async move { (wait, request.send().await.unwrap().status().as_u16()) }
    }))
    .await;
    for (wait, status) in all {
        assert_eq!(status, if wait == 8 { 200 } else { 429 }, "wait={wait}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_payment_in_flight_waits_for_its_outcome_and_sends_nothing() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 800 }).on("payitems"));
    let first = spawn(world.sale("k"));
    until_sent(&world, "k").await;
    let other = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 3}]});
    let other = world.sale("k").header("Prefer", "wait=9").json(&other).send().await.unwrap();
    assert_eq!(problem(other).await.code, "idempotency-key-reused", "another sale has nothing to wait for");
    assert_eq!(problem(world.sale("k").send().await.unwrap()).await.code, "payment-in-progress");
    let repeats = together((0..5).map(|_| world.sale("k").header("Prefer", "wait=9").send())).await;
    let first = first.await.unwrap();
    assert_eq!((first.status().as_u16(), applied(&first)), (201, None), "the first one waited for no other");
    for repeat in repeats {
        let repeat = repeat.unwrap();
        assert_eq!((repeat.status().as_u16(), applied(&repeat)), (201, Some("wait=9")));
        assert_eq!(repeat.headers()["idempotent-replayed"], "true");
        assert_eq!(repeat.headers()["location"], first.headers()["location"]);
        assert_eq!(repeat.text().await.unwrap(), r#"{"Items":1}"#);
    }
    assert_eq!((times_sent(&world, "k"), world.gateway.counts().bookings("k")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_that_wait_make_one_command_and_all_learn_its_outcome() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 200 }).on("payitems"));
    for round in 0..5 {
        let key = format!("at-once-{round}");
        let answers = together((0..20).map(|_| world.sale(&key).header("Prefer", "wait=9").send())).await;
        let replayed = answers.into_iter().map(|answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 201);
            answer.headers().contains_key("idempotent-replayed")
        });
        assert_eq!(replayed.filter(|replayed| !replayed).count(), 1);
        assert_eq!((times_sent(&world, &key), world.gateway.counts().bookings(&key)), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_waits_is_told_a_refusal_or_an_unknown_outcome_and_does_not_try_again() {
    let settings = [("BRIDGE_PAYMENTS__REFUSAL_GRACE", "1s"), ("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "900ms")];
    let world = World::with(Config::default(), &settings).await;
    let refusal = Action::Error { word: "invalid_password".into(), code: None, and_reply: false };
    for (key, action, code) in [
        ("refused", refusal, "pos-password-rejected"),
        ("unknown", Action::Hang, "payment-outcome-unknown"),
        ("booked-unheard", Action::HangAfterApply, "payment-outcome-unknown"),
    ] {
        world.gateway.add_fault(Fault::new(action).on("payitems").times(1));
        let first = spawn(world.sale(key));
        until_sent(&world, key).await;
        let repeat = world.sale(key).header("Prefer", "wait=9").send().await.unwrap();
        assert_eq!(applied(&repeat), Some("wait=9"), "{key}");
        let (first, repeat) = (first.await.unwrap(), repeat);
        assert_eq!(repeat.headers().get("location"), first.headers().get("location"), "{key}");
        assert_eq!((problem(first).await.code, problem(repeat).await.code), (code.to_owned(), code.to_owned()));
        assert_eq!(times_sent(&world, key), 1, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_over_ends_in_409_and_a_caller_that_goes_away_while_it_waits_changes_nothing() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 2500 }).on("payitems"));
    let first = spawn(world.sale("k"));
    until_sent(&world, "k").await;
    let gone = world.sale("k").header("Prefer", "wait=9").timeout(Duration::from_millis(50)).send().await;
    assert!(gone.is_err_and(|error| error.is_timeout()), "the caller left first");
    let begun = Instant::now();
    let repeat = world.sale("k").header("Prefer", "wait=1").send().await.unwrap();
    assert_eq!(applied(&repeat), Some("wait=1"));
    assert_eq!(problem(repeat).await.code, "payment-in-progress");
    assert!(begun.elapsed() >= Duration::from_millis(900), "it waited: {:?}", begun.elapsed());
    assert!(!first.is_finished());
    assert_eq!(first.await.unwrap().status(), 201);
    assert_eq!((times_sent(&world, "k"), world.gateway.counts().bookings("k")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_whether_the_bridge_or_the_gateway_refused() {
    let quick = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms"), ("BRIDGE_SERVER__DEADLINE", "2s")];
    let world = World::with(Config::default(), &quick).await;
    let told = async |request: RequestBuilder| {
        let response = request.send().await.unwrap();
        let told = response.headers()["proxy-status"].to_str().unwrap().to_owned();
        problem(response).await;
        told
    };
    let by_bridge = |error: &str, code: &str| format!("concertpos-bridge; error={error}; details=\"{code}\"");
    let get = |path: &str| world.request(reqwest::Method::GET, path);
    let nobody = world.http.get(world.path(ANY));
    assert_eq!(told(nobody).await, by_bridge("http_request_denied", "unauthenticated"));
    assert_eq!(told(get("/config?x=1")).await, by_bridge("http_request_error", "invalid-request"));
    assert_eq!(told(get("/nothing")).await, by_bridge("http_request_error", "not-found"));
    let operator = world.http.get(format!("{}/v1/instances/demo/payments/nothing", world.url));
    let operator = operator.bearer_auth(support::OPERATOR);
    assert_eq!(told(operator).await, by_bridge("proxy_internal_response", "unknown-payment"));
    let refusal = Action::Error { word: "error_exec".into(), code: None, and_reply: false };
    world.gateway.add_fault(Fault::new(refusal).on("listtransactions").times(1));
    assert_eq!(told(get(ANY)).await, "concertpos-bridge; details=\"the gateway answered error_exec\"");
    world.gateway.add_fault(Fault::new(Action::Hang).on("listtransactions"));
    assert_eq!(told(get(ANY)).await, by_bridge("http_response_timeout", "gateway-timeout"));
    world.gateway.add_fault(Fault::new(Action::Hang).on("payitems").times(1));
    assert_eq!(told(world.sale("k")).await, by_bridge("http_response_incomplete", "payment-outcome-unknown"));
    world.gateway.clear_faults();
    world.gateway.add_fault(Fault::new(Action::CutBeforeApply).on("listtransactions"));
    assert_eq!(told(get(ANY)).await, by_bridge("connection_terminated", "gateway-unavailable"));
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || {
        told(get(ANY)).await == by_bridge("destination_unavailable", "gateway-unavailable")
    })
    .await;
}
