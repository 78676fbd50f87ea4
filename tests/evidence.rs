//! Payments of unknown outcome: what the gateway's own transactions tell about them, and that it decides nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use concertpos_simulator::{Action, Config, Fault};
use serde_json::{Value, json};
use support::{OPERATOR, World, eventually, problem};

const QUICK: &[(&str, &str)] = &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")];

/// A world whose bridge has seen the transactions of point of sale 1.
async fn world() -> World {
    let world = World::with(Config::default(), QUICK).await;
    assert_eq!(world.get(support::ANY).await.status(), 200);
    world
}

/// A payment whose reply is lost by `action`; returns the URL of its record.
async fn lose(world: &World, key: &str, action: Action) -> String {
    world.gateway.add_fault(Fault::new(action).on("payitems").times(1));
    let response = world.sale(key).send().await.unwrap();
    let place = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(problem(response).await.code, "payment-outcome-unknown");
    place
}

struct Seen {
    tag: String,
    text: String,
    record: Value,
}

async fn see(world: &World, place: &str) -> Seen {
    let response = world.http.get(format!("{}{place}", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    let record = serde_json::from_str(&text).unwrap();
    Seen { tag, text, record }
}

/// The record once the gateway was looked at so many times.
async fn after_looks(world: &World, place: &str, looks: u64) -> Seen {
    let looked = async || see(world, place).await.record["evidence"]["looks"].as_u64().unwrap_or(0) >= looks;
    eventually("the gateway's transactions are looked at", looked).await;
    see(world, place).await
}

async fn settle(world: &World, place: &str, tag: &str, outcome: &str) -> reqwest::Response {
    let request = world.http.put(format!("{}{place}/outcome", world.url)).bearer_auth(OPERATOR);
    request.header("If-Match", tag).json(&json!({"outcome": outcome, "reason": "counted"})).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_payment_shows_the_transaction_that_it_may_have_become_as_the_gateway_spelled_it() {
    let world = world().await;
    let place = lose(&world, "booked", Action::CutAfterApply).await;
    let seen = after_looks(&world, &place, 1).await;
    let all = world.gateway.transactions("demo").unwrap();
    let all: Vec<&serde_json::value::RawValue> = serde_json::from_str(&all).unwrap();
    let booked = all[0].get();
    assert!(seen.text.contains(booked), "{booked} is not in {}", seen.text);
    let evidence = &seen.record["evidence"];
    assert_eq!(evidence["transactions"].as_array().unwrap().len(), 1);
    assert_eq!((&evidence["complete"], &evidence["transactions"][0]["other_payments"]), (&json!(true), &json!(0)));
    assert_eq!(evidence["transactions"][0]["transaction"]["Product_ID"], 1);
    let before = seen.record["newest_transaction_before"].as_i64().unwrap();
    assert!(evidence["transactions"][0]["transaction"]["ID"].as_i64().unwrap() > before);
    assert_eq!(seen.record["state"], "unknown", "it decides nothing");
    assert_eq!(problem(world.sale("booked").send().await.unwrap()).await.code, "payment-outcome-unknown");
    assert_eq!(world.gateway.counts().payitems_received["booked"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_was_not_booked_shows_that_it_was_looked_for_in_vain() {
    let world = world().await;
    let place = lose(&world, "lost", Action::CutBeforeApply).await;
    let seen = after_looks(&world, &place, 1).await;
    assert_eq!(seen.record["evidence"]["transactions"], json!([]));
    assert_eq!(seen.record["evidence"]["complete"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_payment_that_sold_the_same_is_counted_as_an_explanation() {
    let world = world().await;
    let place = lose(&world, "lost", Action::CutBeforeApply).await;
    assert_eq!(world.sale("other").send().await.unwrap().status(), 201);
    let seen = after_looks(&world, &place, 1).await;
    let transactions = seen.record["evidence"]["transactions"].as_array().unwrap();
    assert_eq!((transactions.len(), &transactions[0]["other_payments"]), (1, &json!(1)));
}

/// A sale of product 1 at the point of sale 2.
async fn sell_elsewhere(world: &World, number: usize) -> u16 {
    let sale = world.request(reqwest::Method::POST, "/points-of-sale/2/payments");
    let sale = sale.header("Idempotency-Key", format!("elsewhere-{number}"));
    let sale = sale.json(&json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}]}));
    sale.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_payment_stays_an_explanation_after_more_than_a_thousand_payments_and_a_restart() {
    let world = world().await;
    let place = lose(&world, "lost", Action::CutBeforeApply).await;
    assert_eq!(world.sale("other").send().await.unwrap().status(), 201);
    let others = |seen: &Seen| seen.record["evidence"]["transactions"][0]["other_payments"].as_u64();
    assert_eq!(others(&after_looks(&world, &place, 1).await), Some(1));
    let world = std::sync::Arc::new(world);
    let sellers = support::together((0..16).map(|seller| {
        let world = std::sync::Arc::clone(&world);
        async move {
            for number in 0..64 {
                assert_eq!(sell_elsewhere(&world, 64 * seller + number).await, 201);
            }
        }
    }));
    assert_eq!(sellers.await.len(), 16);
    let world = std::sync::Arc::into_inner(world).unwrap().restarted().await;
    let before = see(&world, &place).await;
    let looks = before.record["evidence"]["looks"].as_u64().unwrap();
    let seen = after_looks(&world, &place, looks + 1).await;
    assert_eq!((others(&seen), &seen.record["evidence"]["complete"]), (Some(1), &json!(true)));
    assert_eq!(seen.tag, before.tag, "nothing new");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_settles_against_evidence_unseen_and_a_look_without_news_voids_no_decision() {
    let world = world().await;
    let place = lose(&world, "booked", Action::CutAfterApply).await;
    let at_first = see(&world, &place).await.tag;
    let found = after_looks(&world, &place, 1).await.tag;
    assert_ne!(found, at_first);
    let refused = problem(settle(&world, &place, &at_first, "not-booked").await).await;
    assert_eq!(refused.code, "precondition-failed");
    after_looks(&world, &place, 2).await;
    assert_eq!(settle(&world, &place, &found, "booked").await.status(), 200);
    let settled = see(&world, &place).await;
    assert_eq!(settled.record["evidence"]["transactions"].as_array().unwrap().len(), 1, "it stays to be seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_gathered_after_a_restart_too() {
    let world = world().await;
    // No look before the restart can bring anything.
    world.gateway.add_fault(Fault::new(Action::CutBeforeApply).on("listtransactions"));
    let place = lose(&world, "booked", Action::CutAfterApply).await;
    let world = world.restarted().await;
    assert_eq!(see(&world, &place).await.record["state"], "unknown");
    world.gateway.clear_faults();
    let seen = after_looks(&world, &place, 1).await;
    assert_eq!(seen.record["evidence"]["transactions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_ends_when_the_payment_is_decided() {
    let settings = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "200ms"), ("BRIDGE_GATEWAY__LATE_PATIENCE", "20s")];
    let world = World::with(Config::default(), &settings).await;
    let place = lose(&world, "late", Action::Latency { ms: 900 }).await;
    eventually("its late reply comes", async || see(&world, &place).await.record["state"] == "booked").await;
    let before = see(&world, &place).await.record["evidence"].clone();
    // Another lost payment at the same point of sale is looked for longer than the first would have been.
    let other = lose(&world, "other", Action::CutAfterApply).await;
    after_looks(&world, &other, 2).await;
    assert_eq!(see(&world, &place).await.record["evidence"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_never_waits_for_what_evidence_asks() {
    // Nothing is known of the point of sale, so its first payment leaves word that its transactions are to be asked for.
    let world = World::with(Config::default(), QUICK).await;
    world.gateway.add_fault(Fault::new(Action::Hang).on("listtransactions"));
    assert_eq!(world.sale("first").send().await.unwrap().status(), 201);
    eventually("its transactions are asked for", async || {
        world.gateway.counts().command("listtransactions").received > 0
    })
    .await;
    for number in 0..20 {
        let key = format!("sale-{number}");
        let booked = world.sale(&key).timeout(std::time::Duration::from_millis(250)).send().await;
        assert_eq!(booked.unwrap().status(), 201, "sooner than the hanging read is given up");
    }
}
