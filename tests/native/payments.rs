//! Money from a till: booked once, recorded, and told truly.

use concertpos_simulator::{Action, Config, Fault};
use serde_json::{Value, json};

use crate::client::{Till, event, sale, word};
use crate::support::{World, eventually};

const QUICK: &[(&str, &str)] = &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")];

/// The records in this state, newest first.
async fn records(world: &World, state: &str) -> Vec<Value> {
    let response = world.get(&format!("/payments?state={state}")).await;
    response.json::<Value>().await.unwrap()["payments"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_frame_is_a_sale_of_its_own_booked_once_and_recorded() {
    let world = World::start().await;
    let mut till = Till::at(&world, "/?instance=demo&Content-Type=json5").await;
    for _ in 0..2 {
        till.order("payitems", sale("a")).await;
        assert_eq!(till.text().await, "{type:'event',result:{event:'payitem',parameters:{Items:1}}}");
    }
    assert_eq!(world.gateway.counts().bookings("a"), 2, "the protocol cannot say that the second is the first again");
    let records = records(&world, "booked").await;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["reply"], json!({"Items": 1}));
    assert_ne!(records[0]["idempotency_key"], records[1]["idempotency_key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_after_the_write_is_error_exec_and_never_a_second_command() {
    let world = World::with(Config::default(), QUICK).await;
    let mut till = Till::open(&world).await;
    for (reference, action, booked) in [
        ("hang", Action::Hang, 0),
        ("hang-after", Action::HangAfterApply, 1),
        ("cut-before", Action::CutBeforeApply, 0),
        ("cut-after", Action::CutAfterApply, 1),
        ("late", Action::Late { ms: 900 }, 0),
        ("error-exec", Action::ErrorAfterApply { word: "error_exec".into() }, 1),
        ("new-word", Action::ErrorAfterApply { word: "never_heard_of".into() }, 1),
        ("limit-of-nobody", Action::Error { word: "ratelimit".into(), code: Some(json!(0)), and_reply: false }, 0),
    ] {
        world.gateway.add_fault(Fault::new(action).on("payitems").times(1));
        let frame = till.ask("payitems", sale(reference)).await;
        assert_eq!(frame, json!({"type": "error", "result": {"error": "error_exec", "code": -1}}), "{reference}");
        let counts = world.gateway.counts();
        assert_eq!(counts.bookings(reference), booked, "{reference}");
        assert!(counts.payitems_received.values().all(|times| *times <= 1), "{reference}");
    }
    assert!(records(&world, "unknown").await.len() >= 6, "each can be looked up and settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_s_refusals_are_passed_on_with_their_codes() {
    let world = World::start().await;
    let mut till = Till::open(&world).await;
    let limit = json!({"command": "payitems", "retry_after": 2500});
    for (word, code) in [
        ("missing_parameter_PaymentMethod", json!(3)),
        ("invalid_password", json!(0)),
        ("api_key_expired", json!(7)),
        ("no_api_key", json!(0)),
        ("getlicense", json!({"a": [1]})),
        ("ratelimit", limit),
    ] {
        let refusal = Action::Error { word: word.into(), code: Some(code.clone()), and_reply: false };
        world.gateway.add_fault(Fault::new(refusal).on("payitems").times(1));
        let frame = till.ask("payitems", sale(word)).await;
        assert_eq!(frame["result"], json!({"error": word, "code": code}));
        assert_eq!(world.gateway.counts().bookings(word), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ratelimit_is_said_only_where_nothing_was_written() {
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__COST__PAYITEMS", "100"),
        ("BRIDGE_LIMITS__PAY_MAX_WAIT", "50ms"),
    ];
    let world = World::with(Config::default(), &settings).await;
    let mut till = Till::open(&world).await;
    assert_eq!(event(&till.ask("payitems", sale("first")).await), "payitem");
    let frame = till.ask("payitems", sale("second")).await;
    assert_eq!(word(&frame), "ratelimit");
    let code = &frame["result"]["code"];
    assert_eq!(code["command"], "payitems");
    assert!((1_000..=30_500).contains(&code["retry_after"].as_u64().unwrap()), "milliseconds: {code}");
    assert_eq!(world.gateway.counts().command("payitems").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_gateway_a_till_is_told_when_to_come_back_and_copies_still_serve() {
    let world = World::start().await;
    let mut till = Till::open(&world).await;
    assert_eq!(event(&till.ask("listpos", json!({})).await), "listpos");
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get(crate::support::ANY).await.status() == 503).await;
    let frame = till.ask("payitems", sale("nobody-home")).await;
    assert_eq!((word(&frame), &frame["result"]["code"]["command"]), ("ratelimit", &json!("payitems")));
    assert_eq!(event(&till.ask("listpos", json!({})).await), "listpos");
    assert_eq!(world.gateway.counts().command("payitems").received, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_once_begun_runs_to_its_end_though_its_till_is_gone() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Late { ms: 300 }).on("payitems"));
    let mut till = Till::open(&world).await;
    till.order("payitems", sale("gone")).await;
    eventually("it is on its way", async || world.gateway.counts().command("payitems").received == 1).await;
    drop(till);
    eventually("it is recorded as booked", async || records(&world, "booked").await.len() == 1).await;
    assert_eq!(world.gateway.counts().bookings("gone"), 1);
    let mut till = Till::open(&world).await;
    till.order("payitems", sale("gone-at-once")).await;
    till.0.close(None).await.unwrap();
    eventually("what came before the goodbye counts", async || world.gateway.counts().bookings("gone-at-once") == 1)
        .await;
}
