//! Who may do what, and how much at once.

use std::time::{Duration, Instant};

use concertpos_simulator::{Action, Config, Fault};
use serde_json::json;
use tokio_tungstenite::tungstenite;

use crate::client::{Till, event, sale, word};
use crate::support::scene::Scene;
use crate::support::{KEY, OPERATOR, World, eventually, sha256_hex};

/// Settings with a token of this name and these scopes, which is its own secret.
fn token<'a>(name: &'a str, scopes: &'a str, held: &'a mut Vec<(String, String)>) -> Vec<(&'a str, &'a str)> {
    let key = |part: &str| format!("BRIDGE_AUTH__TOKENS__{}__{part}", name.to_uppercase());
    *held = vec![
        (key("SHA256"), sha256_hex(name)),
        (key("INSTANCES"), "demo".to_owned()),
        (key("SCOPES"), scopes.to_owned()),
    ];
    held.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_token_may_do_what_its_scopes_say_and_nothing_else_leaves() {
    let mut held = Vec::new();
    let world = World::with(Config::default(), &token("reader", "read", &mut held)).await;
    let mut till = Till::open(&world).await;
    let ask = async |till: &mut Till, command, parameters| till.ask_with(command, parameters, Some("reader")).await;
    assert_eq!(event(&ask(&mut till, "listpos", json!({})).await), "listpos");
    for (command, parameters) in
        [("payitems", sale("a")), ("registerdevice", json!({"UUID": "x"})), ("newthing", json!({}))]
    {
        assert_eq!(word(&ask(&mut till, command, parameters).await), "api_key_mismatch", "{command}");
        assert_eq!(world.gateway.counts().command(command).received, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_s_own_key_serves_only_where_it_is_accepted() {
    let refused = [("BRIDGE_INSTANCES__DEMO__ACCEPT_GATEWAY_KEY", "false")];
    let world = World::with(Config::default(), &refused).await;
    let mut till = Till::open(&world).await;
    assert_eq!(word(&till.ask("listpos", json!({})).await), "api_key_mismatch");
    let frame = till.ask_with("listpos", json!({}), Some(crate::support::OPERATOR)).await;
    assert_eq!(event(&frame), "listpos");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_nobody_knows_is_sent_once_and_its_answer_passed_on() {
    let world = World::start().await;
    let mut till = Till::open(&world).await;
    assert_eq!(word(&till.ask("newthing", json!({"x": 1})).await), "invalid_command", "the gateway's own word");
    assert_eq!(world.gateway.counts().command("newthing").received, 1);
    world.gateway.add_fault(Fault::new(Action::CutAfterApply).on("otherthing"));
    assert_eq!(word(&till.ask("otherthing", json!({})).await), "error_exec");
    assert_eq!(world.gateway.counts().command("otherthing").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_from_the_copies_that_rest_callers_share() {
    let world = World::start().await;
    assert_eq!(world.get("/points-of-sale/1/products").await.status(), 200);
    let mut till = Till::open(&world).await;
    for pos_id in [json!(1), json!("1")] {
        let frame = till.ask("listproducts", json!({"POSID": pos_id, "posPassword": null})).await;
        assert_eq!(event(&frame), "listproducts");
    }
    assert_eq!(world.gateway.counts().command("listproducts").received, 1);
    let other = till.ask("listproducts", json!({"POSID": "2"})).await;
    assert_eq!(event(&other), "listproducts");
    assert_eq!(world.gateway.counts().command("listproducts").received, 2, "another point of sale is another copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_command_does_not_hold_up_the_next_one() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 500 }).on("getstatus"));
    let mut till = Till::open(&world).await;
    till.order("getstatus", json!({})).await;
    let frames = [till.ask("listpos", json!({})).await, till.frame().await];
    assert_eq!(frames.each_ref().map(event), ["listpos", "getstatus"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_too_many_at_once_is_answered_and_not_sent() {
    let world = World::start().await;
    // As many as there are links: nothing is answered before all have come.
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 1_000 }).on("payitems").times(8));
    let mut till = Till::open(&world).await;
    for number in 0..65 {
        till.order("payitems", sale(&number.to_string())).await;
    }
    let frame = till.frame().await;
    let expected = json!({"command": "payitems", "retry_after": 1000});
    assert_eq!((word(&frame), &frame["result"]["code"]), ("ratelimit", &expected));
    for _ in 0..64 {
        assert_eq!(event(&till.frame().await), "payitem");
    }
    assert_eq!(world.gateway.counts().command("payitems").received, 64);
    assert_eq!(world.gateway.counts().bookings("64"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_s_limits_hold_over_all_its_connections_and_what_is_too_much_is_not_sent() {
    let mut held = Vec::new();
    let mut settings = token("one", "pay", &mut held);
    settings.push(("BRIDGE_AUTH__TOKENS__ONE__MAX_IN_FLIGHT", "1"));
    let world = World::with(Config::default(), &settings).await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 400 }).on("payitems").times(2));
    let (mut first, mut second) = (Till::open(&world).await, Till::open(&world).await);
    // One at once, and one more that is a payment.
    for _ in 0..2 {
        first.order_with("payitems", sale("first"), Some("one")).await;
    }
    eventually("they are on their way", async || world.gateway.counts().command("payitems").received == 2).await;
    let refused = second.ask_with("payitems", sale("second"), Some("one")).await;
    assert_eq!((word(&refused), &refused["result"]["code"]["command"]), ("ratelimit", &json!("payitems")));
    assert_eq!(event(&first.frame().await), "payitem");
    let again = second.ask_with("payitems", sale("second"), Some("one")).await;
    assert_eq!(event(&again), "payitem", "its place is free once its answer is there");
    assert_eq!(world.gateway.counts().bookings("second"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_keys_is_not_listened_to_for_a_while() {
    let world = World::start().await;
    let mut guesser = Till::open(&world).await;
    let mut count = 0;
    let refused = loop {
        let frame = guesser.ask_with("listpos", json!({}), Some(&format!("guess-{count}"))).await;
        count += 1;
        if word(&frame) != "api_key_mismatch" || count == 1_000 {
            break frame;
        }
    };
    assert_eq!(word(&refused), "ratelimit", "after {count}");
    assert!(refused["result"]["code"]["retry_after"].as_u64().unwrap() >= 1, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_no_page_of_another_machine_may_connect_and_no_key_is_asked_for() {
    let settings = [("BRIDGE_AUTH__MODE", "none")];
    let world = World::with(Config::default(), &settings).await;
    let path = "/?instance=demo";
    for origin in ["https://evil.example", "null"] {
        let Err(tungstenite::Error::Http(refused)) = Till::try_at(&world, path, Some(origin)).await else {
            panic!("{origin} may connect")
        };
        assert_eq!(refused.status(), 403);
    }
    for origin in [None, Some("http://localhost:3000")] {
        let mut till = Till::try_at(&world, path, origin).await.unwrap();
        assert_eq!(event(&till.ask_with("listpos", json!({}), None).await), "listpos");
    }
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    eventually("the copy is out of date", async || {
        world.get("/points-of-sale").await;
        world.gateway.counts().command("listpos").received == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_that_floods_is_read_no_faster_than_it_may_ask() {
    const TOKEN: &str = "BRIDGE_AUTH__TOKENS__OPERATOR__PER_SECOND";
    let world = World::with(Config::default(), &[(TOKEN, "5")]).await;
    let mut till = Till::open(&world).await;
    let begun = Instant::now();
    // Five are carried out and five refused at once; then no more than a few are read in a second.
    for _ in 0..20 {
        till.order_with("getconfig", json!({}), Some(crate::support::OPERATOR)).await;
    }
    for _ in 0..20 {
        till.text().await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_take_neither_the_places_of_a_connection_s_payments_nor_those_of_its_token_s() {
    let settings = [("BRIDGE_AUTH__TOKENS__OPERATOR__MAX_IN_FLIGHT", "2")];
    for (key, places) in [(KEY, 32), (OPERATOR, 2)] {
        let world = World::with(Config::default(), &settings).await;
        world.gateway.add_fault(Fault::new(Action::Hang).on("listtransactions"));
        let mut till = Till::open(&world).await;
        for number in 0..=places {
            let read = json!({"POSID": number % 30 + 1, "Limit": number + 1});
            till.order_with("listtransactions", read, Some(key)).await;
        }
        assert_eq!(word(&till.frame().await), "ratelimit", "{key} has no place for one read more");
        assert_eq!(event(&till.ask_with("payitems", sale("paid"), Some(key)).await), "payitem", "{key}");
        assert_eq!(world.gateway.counts().bookings("paid"), 1, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_is_one_line_of_the_log_that_holds_no_secret() {
    let scene = Scene::with(&[]).await;
    let mut till = Till::open(&scene).await;
    let is_logged = async |level: &str, parts: &[&str]| {
        let start = format!(" {level} answered command=");
        let parts = [&[start.as_str(), " duration_us="], parts].concat();
        eventually(&format!("{parts:?}"), async || scene.lines(&parts).len() == 1).await;
    };
    till.ask("listproducts", json!({"POSID": "7", "posPassword": "password-of-the-test"})).await;
    let of_caller = " instance=demo pos_id=7 caller=gateway-key peer=127.0.0.1 ";
    is_logged("INFO", &["command=listproducts", of_caller]).await;
    till.ask("payitems", sale("a")).await;
    is_logged("INFO", &["command=payitems instance=demo pos_id=1 caller=gateway-key "]).await;
    till.ask("command_of_the_test", json!({})).await;
    is_logged("INFO", &["command=raw code=invalid_command instance=demo caller=gateway-key "]).await;
    till.ask_with("listpos", json!({}), Some("key-of-the-test")).await;
    is_logged("INFO", &["command=listpos code=api_key_mismatch instance=demo peer=127.0.0.1 "]).await;
    scene.gateway.add_fault(Fault::new(Action::CutAfterApply).on("payitems"));
    assert_eq!(word(&till.ask("payitems", sale("b")).await), "error_exec");
    is_logged("WARN", &["command=payitems code=error_exec instance=demo pos_id=1 "]).await;
    for secret in ["of-the-test", "of_the_test", KEY] {
        assert_eq!(scene.lines(&[secret]), [""; 0]);
    }
}
