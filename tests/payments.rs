//! Money: a payment leaves at most once, whatever happens, and the answer says what is known.

mod support;

use std::sync::Arc;
use std::time::Duration;

use concertpos_bridge::simulator::{Action, Config, Fault};
use support::{ANY, World, eventually, problem};

const QUICK: &[(&str, &str)] = &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")];

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_booked_once_and_answered_with_the_gateway_s_reply() {
    let world = World::start().await;
    let response = world.sale("k1").send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.text().await.unwrap(), r#"{"Items":1}"#);
    assert_eq!(world.gateway.counts().bookings("k1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_after_the_write_is_an_unknown_outcome_and_never_a_second_command() {
    let world = World::with(Config::default(), QUICK).await;
    for (key, action, booked) in [
        ("hang", Action::Hang, 0),
        ("hang-after", Action::HangAfterApply, 1),
        ("cut-before", Action::CutBeforeApply, 0),
        ("cut-after", Action::CutAfterApply, 1),
        ("late", Action::Late { ms: 900 }, 0),
        ("close", Action::CloseFrame { code: 1011 }, 0),
        ("half-open", Action::HalfOpen, 0),
        ("error-exec", Action::ErrorAfterApply { word: "error_exec".into() }, 1),
        ("new-word", Action::ErrorAfterApply { word: "never_heard_of".into() }, 1),
        ("instance", Action::Error { word: "invalid_instance".into(), code: None, and_reply: false }, 0),
    ] {
        world.gateway.add_fault(Fault::new(action).on("payitems").times(1)).unwrap();
        let problem = problem(world.sale(key).send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (504, "payment-outcome-unknown"), "{key}");
        let counts = world.gateway.counts();
        assert_eq!(counts.bookings(key), booked, "{key}");
        assert!(counts.payitems_received.values().all(|times| *times <= 1), "{key}: {:?}", counts.payitems_received);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_passed_on_as_what_it_means_and_nothing_was_booked() {
    let world = World::start().await;
    let limit = serde_json::json!({"command": "payitems", "retry_after": 2500});
    for (word, code, status, name) in [
        ("ratelimit", Some(limit), 429, "rate-limited"),
        ("missing_parameter_PaymentMethod", None, 400, "gateway-rejected-parameters"),
        ("api_key_expired", None, 502, "gateway-credentials-rejected"),
        ("no_api_key", None, 502, "gateway-credentials-rejected"),
        ("invalid_password", None, 403, "pos-password-rejected"),
        ("getlicense", None, 502, "license-invalid"),
        ("invalid_json", None, 502, "gateway-error"),
    ] {
        let refusal = Action::Error { word: word.into(), code, and_reply: false };
        world.gateway.add_fault(Fault::new(refusal).on("payitems").times(1)).unwrap();
        let problem = problem(world.sale(word).send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, name), "{word}: {}", problem.body);
        assert_eq!(problem.body["gateway"]["error"], word);
        if word == "ratelimit" {
            assert_eq!(problem.retry_after, Some(3), "2.5 s rounded up");
        }
        assert_eq!(world.gateway.counts().bookings(word), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_cancels_nothing() {
    let world = Arc::new(World::start().await);
    world.gateway.add_fault(Fault::new(Action::Late { ms: 200 }).on("payitems")).unwrap();
    let gone = world.sale("gone").timeout(Duration::from_millis(50)).send().await;
    assert!(gone.is_err_and(|error| error.is_timeout()), "the caller left first");
    eventually("the sale is booked all the same", async || world.gateway.counts().bookings("gone") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_gateway_nothing_is_sent_and_the_caller_is_told_when_to_come_back() {
    let world = World::start().await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get(ANY).await.status() == 503).await;
    let problem = problem(world.sale("nobody-home").send().await.unwrap()).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "gateway-unavailable"));
    assert!(problem.retry_after.is_some());
    assert_eq!(problem.body["retryable"], true);
    assert_eq!(world.gateway.counts().command("payitems").received, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_before_reads_in_the_queue_for_a_link() {
    let settings = [("BRIDGE_GATEWAY__MIN_LINKS", "1"), ("BRIDGE_GATEWAY__MAX_LINKS", "1")];
    let world = Arc::new(World::with(Config::default(), &settings).await);
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 60 }).on("listtransactions")).unwrap();
    let reads: Vec<_> = (1..=20)
        .map(|pos| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.get(&format!("/points-of-sale/{pos}/transactions")).await.status() })
        })
        .collect();
    eventually("one is under way", async || world.gateway.counts().command("listtransactions").received >= 1).await;
    let booked = world.sale("first").send().await.unwrap();
    assert_eq!(booked.status(), 201);
    let read = world.gateway.counts().command("listtransactions").received;
    assert!(read < 10, "the payment waited for {read} reads");
    for read in reads {
        assert_eq!(read.await.unwrap(), 200);
    }
}
