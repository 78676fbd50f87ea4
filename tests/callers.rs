//! Who may call how much: one token's flood and one address's guesses are its own affair.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::time::{Duration, Instant};

use concertpos_simulator::{Action, Config, Fault};
use reqwest::{Method, StatusCode};
use support::{ANY, KEY, OPERATOR, Problem, World, eventually, problem, together};

const MAX_IN_FLIGHT: &str = "BRIDGE_AUTH__TOKENS__OPERATOR__MAX_IN_FLIGHT";
const PER_SECOND: &str = "BRIDGE_AUTH__TOKENS__OPERATOR__PER_SECOND";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_too_much_in_flight_is_told_so_and_nobody_else_is() {
    let world = World::with(Config::default(), &[(MAX_IN_FLIGHT, "2")]).await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 600 }).on("listtransactions"));
    let slow: Vec<_> = (1..=2)
        .map(|pos| world.http.get(world.path(&format!("/points-of-sale/{pos}/transactions"))).bearer_auth(OPERATOR))
        .map(|request| async move { request.send().await.unwrap().status() })
        .collect();
    let slow = tokio::spawn(together(slow));
    eventually("both are under way", async || world.gateway.counts().command("listtransactions").received == 2).await;
    let refused = problem(world.http.get(world.path("/config")).bearer_auth(OPERATOR).send().await.unwrap()).await;
    assert_eq!((refused.status, refused.code.as_str(), refused.retry_after), (429, "caller-limited", Some(1)));
    assert_eq!(world.get("/config").await.status(), 200, "another caller");
    assert_eq!(slow.await.unwrap(), [StatusCode::OK, StatusCode::OK]);
    eventually("there is room again", async || {
        world.http.get(world.path("/config")).bearer_auth(OPERATOR).send().await.unwrap().status() == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_take_neither_the_places_of_a_token_s_payments_nor_their_turns() {
    let world = World::with(Config::default(), &[(MAX_IN_FLIGHT, "2"), (PER_SECOND, "5")]).await;
    world.gateway.add_fault(Fault::new(Action::Hang).on("listtransactions"));
    let read = |path: &str| world.http.get(world.path(path)).bearer_auth(OPERATOR).send();
    let slow = [1, 2].map(|pos| tokio::spawn(read(&format!("/points-of-sale/{pos}/transactions"))));
    eventually("both are under way", async || world.gateway.counts().command("listtransactions").received == 2).await;
    let pay = async |key: &str| {
        let sale = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
        let request = world.http.post(world.path("/points-of-sale/1/payments")).bearer_auth(OPERATOR);
        request.header("Idempotency-Key", key).json(&sale).send().await.unwrap()
    };
    assert_eq!(problem(read("/config").await.unwrap()).await.code, "caller-limited");
    assert_eq!(pay("one").await.status(), 201, "although its reads have all the places there are for them");
    for task in slow {
        task.abort();
    }
    world.gateway.clear_faults();
    let mut refused = 0;
    eventually("its reads of a second are used up", async || {
        refused += u32::from(read("/config").await.unwrap().status() == 429);
        refused == 3
    })
    .await;
    assert_eq!(pay("two").await.status(), 201);
    // Payments have an end too.
    let mut many = Vec::new();
    for number in 0..20 {
        many.push(pay(&format!("many-{number}")).await.status().as_u16());
    }
    assert!(many.contains(&201) && many.contains(&429), "{many:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_asks_too_often_is_told_when_to_come_back_and_nothing_is_sent() {
    let world = World::with(Config::default(), &[(PER_SECOND, "5")]).await;
    let before = world.gateway.counts().command("listtransactions").received;
    let mut answered = 0;
    let refused = loop {
        let answer = world.http.get(world.path(ANY)).bearer_auth(OPERATOR).send().await.unwrap();
        if answer.status() != 200 {
            break problem(answer).await;
        }
        answered += 1;
        assert!(answered < 200, "never refused");
    };
    assert_eq!((refused.status, refused.code.as_str(), refused.retry_after), (429, "caller-limited", Some(1)));
    assert!(answered >= 5, "{answered}");
    assert_eq!(world.gateway.counts().command("listtransactions").received - before, answered);
    assert_eq!(world.get(ANY).await.status(), 200, "another caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_s_refusals_are_held_back_and_nobody_else_waits() {
    let world = World::with(Config::default(), &[(PER_SECOND, "5")]).await;
    assert_eq!(world.get("/config").await.status(), 200);
    let mut refusals = 0;
    let held = loop {
        let begun = Instant::now();
        let answer = world.http.get(world.path("/config")).bearer_auth(OPERATOR).send().await.unwrap();
        refusals += u32::from(answer.status() == 429);
        if begun.elapsed() >= Duration::from_secs(1) {
            break problem(answer).await;
        }
        assert!(refusals < 100, "a hundred refusals, and none was held back");
    };
    assert_eq!(held.code, "caller-limited");
    assert!(refusals > 5, "the first are told at once, since whoever sends one too many is no flood: {refusals}");
    let flood: Vec<_> = (0..50).map(|_| world.http.get(world.path("/config")).bearer_auth(OPERATOR).send()).collect();
    let flood = tokio::spawn(together(flood));
    let begun = Instant::now();
    assert_eq!(world.get("/config").await.status(), 200, "another caller");
    assert!(begun.elapsed() < Duration::from_secs(1), "it had to wait: {:?}", begun.elapsed());
    flood.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_tokens_is_slowed_and_a_forged_header_does_not_help_it() {
    let world = World::with(Config::default(), &[("BRIDGE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let ask = async |forwarded: &str, token: &str| {
        let request = world.http.request(Method::GET, world.path("/config")).bearer_auth(token);
        request.header("X-Forwarded-For", forwarded).send().await.unwrap()
    };
    assert_eq!(ask("192.0.2.1", KEY).await.status(), 200);
    let mut statuses = Vec::new();
    for guess in 0..40 {
        // What stands before the address that the proxy added is the guesser's own invention.
        statuses.push(ask(&format!("10.9.8.{guess}, 198.51.100.9"), &format!("guess-{guess}")).await.status().as_u16());
    }
    assert_eq!(statuses.first(), Some(&401));
    assert_eq!(statuses.last(), Some(&429));
    let slowed = problem(ask("198.51.100.9", KEY).await).await;
    assert_eq!(slowed.code, "caller-limited", "even the right key is not looked at");
    assert!(slowed.retry_after.unwrap() >= 1);
    assert_eq!(ask("192.0.2.1", KEY).await.status(), 200, "nobody elsewhere is slowed");
    for guess in 0..40 {
        ask("192.0.2.1", &format!("old-key-{guess}")).await;
    }
    assert_eq!(problem(ask("192.0.2.1", "old-key").await).await.code, "caller-limited");
    assert_eq!(ask("192.0.2.1", KEY).await.status(), 200, "who was known there is still let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_address_is_believed_from_nobody_unless_configured() {
    let world = World::start().await;
    let ask = async |forwarded: u8, token: &str| {
        let request = world.http.request(Method::GET, world.path("/config")).bearer_auth(token);
        request.header("X-Forwarded-For", format!("192.0.2.{forwarded}")).send().await.unwrap()
    };
    let mut last = 0;
    for guess in 0..40 {
        last = ask(guess, "guess").await.status().as_u16();
    }
    assert_eq!(last, 429, "a new address in the header is not a new address");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_address_is_slowed_right_and_wrong_tokens_are_answered_alike() {
    let world = World::with(Config::default(), &[("BRIDGE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let ask = async |from: &str, token: &str| {
        let request = world.http.request(Method::GET, world.path("/config")).bearer_auth(token);
        request.header("X-Forwarded-For", from).header("X-Request-Id", "one").send().await.unwrap()
    };
    let (guesser, tills) = ("198.51.100.9", "192.0.2.1");
    assert_eq!(ask(guesser, OPERATOR).await.status(), 200);
    assert_eq!(ask(tills, KEY).await.status(), 200, "known, and from elsewhere");
    // All at once: what each failure adds to the time that the address is slowed is short.
    let attempts = (0..60).map(|guess| {
        let request = world.http.get(world.path("/config")).bearer_auth(format!("guess-{guess}"));
        request.header("X-Forwarded-For", guesser).send()
    });
    together(attempts.collect::<Vec<_>>()).await;
    let mut answers = Vec::new();
    let (wrong, right) = tokio::join!(ask(guesser, "guess"), ask(guesser, KEY));
    for answer in [wrong, right] {
        let mut headers = answer.headers().clone();
        for changing in ["date", "retry-after"] {
            headers.remove(changing);
        }
        let Problem { status, code, mut body, .. } = problem(answer).await;
        body["retry_after"].take();
        answers.push((status, code, headers, body));
    }
    assert_eq!(answers[0], answers[1], "a right guess looks like a wrong one");
    assert_eq!(answers[0].0, 429);
    assert_eq!(ask(guesser, OPERATOR).await.status(), 200, "this token was accepted from there before");
}
