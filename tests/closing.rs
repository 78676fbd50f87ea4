//! A `ratelimit` of the gateway closes its command for no longer than a window, whatever the gateway says, and everybody
//! is told the same time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use concertpos_simulator::{Action, Config, Fault};
use reqwest::Method;
use serde_json::{Value, json};
use support::{KEY, OPERATOR, World, eventually, problem};

/// Window and guard, in seconds.
const HOLD: u64 = 2;
const SHORT: [(&str, &str); 2] = [("BRIDGE_LIMITS__WINDOW", "1800ms"), ("BRIDGE_LIMITS__GUARD", "200ms")];

async fn world() -> World {
    World::with(Config::default(), &SHORT).await
}

/// The gateway refuses the next sale, and says when to come again in these words.
fn refuse(world: &World, retry_after: &Value) {
    let code = Some(json!({"command": "payitems", "retry_after": retry_after}));
    let action = Action::Error { word: "ratelimit".into(), code, and_reply: false };
    world.gateway.add_fault(Fault::new(action).on("payitems").times(1));
}

async fn budget(world: &World, command: &str) -> Value {
    let asked = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    let status: Value = asked.json().await.unwrap();
    let budgets = status["instances"][0]["budgets"].as_array().unwrap().clone();
    budgets.into_iter().find(|budget| budget["command"] == command).unwrap()
}

async fn open(world: &World, command: &str, body: Value) -> reqwest::Response {
    let path = world.path(&format!("/budget/{command}"));
    world.http.request(Method::PUT, path).bearer_auth(OPERATOR).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn whatever_the_gateway_says_a_refused_sale_is_told_what_the_budget_holds_and_sells_then() {
    let world = world().await;
    let rows = [
        (json!(3_600_000), HOLD),
        (json!("3600000"), HOLD),
        (json!(1e15), HOLD),
        (json!(-1), HOLD),
        (json!(null), HOLD),
        (json!("soon"), HOLD),
        (json!("500"), 1),
        (json!(500), 1),
    ];
    for (number, (retry_after, seconds)) in rows.into_iter().enumerate() {
        refuse(&world, &retry_after);
        let key = format!("sale-{number}");
        let refused = world.sale(&key).send().await.unwrap();
        let left = refused.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert_eq!(left, format!("\"payitems\";r=0;t={seconds}"), "{retry_after}");
        let refused = problem(refused).await;
        assert_eq!((refused.status, refused.retry_after), (429, Some(seconds)), "{retry_after}: {}", refused.body);
        let closed_for_ms = budget(&world, "payitems").await["closed_for_ms"].as_u64().unwrap();
        assert!(closed_for_ms > 0 && closed_for_ms <= seconds * 1000, "{retry_after}: {closed_for_ms}");
        // Payments wait for their points.
        assert_eq!(world.sale(&key).send().await.unwrap().status(), 201, "{retry_after}");
    }
    assert_eq!(world.gateway.counts().command("payitems").received, 16);
}

#[tokio::test]
async fn after_a_rate_limit_one_sale_alone_asks_whether_the_gateway_is_open_again() {
    let world = world().await;
    refuse(&world, &json!(300));
    assert_eq!(world.sale("first").send().await.unwrap().status(), 429);
    // The probe takes its time, and is refused.
    let code = Some(json!({"command": "payitems", "retry_after": 400}));
    let limit = Action::Error { word: "ratelimit".into(), code, and_reply: false };
    world.gateway.add_fault(Fault::new(limit).on("payitems").times(1));
    let before = world.gateway.counts().command("payitems").received;
    let sales = (0..8).map(|number| world.sale(&format!("crowd-{number}")).send());
    let answers = futures_util::future::join_all(sales).await;
    let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 7, "{statuses:?}");
    assert_eq!(world.gateway.counts().command("payitems").received - before, 8);
}

#[tokio::test]
async fn an_operator_opens_a_command_that_the_gateway_closed() {
    let world = World::with(Config::default(), &[]).await;
    refuse(&world, &json!(3_600_000));
    assert_eq!(world.sale("k").send().await.unwrap().status(), 429);
    let closed = budget(&world, "payitems").await;
    assert!(closed["closed_for_ms"].as_u64() > Some(20_000) && closed["probing"] == true, "{closed}");

    for wrong in [json!({"open": false}), json!({"open": "true"}), json!({"open": 1}), json!({})] {
        let refused = problem(open(&world, "payitems", wrong.clone()).await).await;
        assert_eq!((refused.status, refused.code.as_str()), (400, "invalid-request"), "{wrong}");
    }
    assert_eq!(problem(open(&world, "nothing", json!({"open": true})).await).await.code, "not-found");
    let path = world.path("/budget/payitems");
    let by_the_key = world.http.put(path).bearer_auth(KEY).json(&json!({"open": true})).send().await.unwrap();
    assert_eq!(by_the_key.status(), 403);
    assert!(budget(&world, "payitems").await["closed_for_ms"].as_u64() > Some(0), "nothing was opened so far");

    let opened = open(&world, "payitems", json!({"open": true})).await;
    assert_eq!(opened.status(), 200);
    let opened: Value = opened.json().await.unwrap();
    assert_eq!(
        (&opened["command"], &opened["closed_for_ms"], &opened["probing"]),
        (&json!("payitems"), &json!(0), &json!(false))
    );
    eventually("the sale goes through", async || world.sale("k").send().await.unwrap().status() == 201).await;
}
