//! What is heard without having been asked for: each broadcast once.

use std::time::Duration;

use concertpos_simulator::{Config, DEFAULT_INSTANCE};
use serde_json::json;

use crate::client::{Till, event, message, word};
use crate::support::{KEY, World, eventually, sha256_hex};

const DEMO: &str = DEFAULT_INSTANCE;

/// A till that has shown its key.
async fn known(world: &World) -> Till {
    let mut till = Till::open(world).await;
    assert_eq!(event(&till.ask("listpos", json!({})).await), "listpos");
    till
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broadcast_comes_once_to_each_connection_and_two_equal_ones_stay_two() {
    // What a link brings just after it opened may be news even where another has brought it.
    let world = World::with(Config::default(), &[("BRIDGE_EVENTS__SKEW", "500ms")]).await;
    world.until_links_are_old(2).await;
    let (mut first, mut second) = (known(&world).await, known(&world).await);
    let copies = world.gateway.broadcast(DEMO, "Beer's out", r#"{"where": "Bar", "n": 1.50}"#).unwrap();
    assert!(copies >= 2, "the gateway sends one to each of the bridge's connections");
    for till in [&mut first, &mut second] {
        let text = till.text().await;
        let expected =
            r#"{"type":"broadcast","result":{"message":"Beer's out","parameters":{"where":"Bar","n":1.50}}}"#;
        assert_eq!(text.replace("\": ", "\":").replace(", ", ","), expected);
        till.expect_nothing().await;
    }
    for _ in 0..2 {
        world.gateway.broadcast(DEMO, "updatepos", "{}").unwrap();
    }
    for till in [&mut first, &mut second] {
        assert_eq!([message(&till.frame().await), message(&till.frame().await)], ["updatepos"; 2]);
        till.expect_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_before_a_key_was_shown() {
    let world = World::start().await;
    let (mut stranger, mut till) = (Till::open(&world).await, known(&world).await);
    assert_eq!(word(&stranger.ask_with("listpos", json!({}), Some("wrong")).await), "api_key_mismatch");
    world.gateway.broadcast(DEMO, "secret", "{}").unwrap();
    assert_eq!(message(&till.frame().await), "secret");
    stranger.expect_nothing().await;
    assert_eq!(event(&stranger.ask("listpos", json!({})).await), "listpos");
    world.gateway.broadcast(DEMO, "news", "{}").unwrap();
    assert_eq!(message(&stranger.frame().await), "news");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_open_everybody_hears() {
    let world = World::with(Config::default(), &[("BRIDGE_EVENTS__NATIVE", "open")]).await;
    let mut stranger = Till::at(&world, "/?instance=demo&Content-Type=json5").await;
    // A first answer shows that the connection is served.
    stranger.order_with("listpos", json!({}), None).await;
    assert!(stranger.text().await.contains("missing_parameter_api"));
    world.gateway.broadcast(DEMO, "updatepos", "{}").unwrap();
    assert_eq!(stranger.text().await, "{type:'broadcast',result:{message:'updatepos',parameters:{}}}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_s_token_serves_in_the_url_and_any_other_is_turned_away() {
    let digests = ["ears", "reader"].map(sha256_hex);
    let settings = [
        ("BRIDGE_AUTH__TOKENS__EARS__SHA256", digests[0].as_str()),
        ("BRIDGE_AUTH__TOKENS__EARS__INSTANCES", DEMO),
        ("BRIDGE_AUTH__TOKENS__EARS__SCOPES", "events"),
        ("BRIDGE_AUTH__TOKENS__READER__SHA256", digests[1].as_str()),
        ("BRIDGE_AUTH__TOKENS__READER__INSTANCES", DEMO),
        ("BRIDGE_AUTH__TOKENS__READER__SCOPES", "read"),
    ];
    let world = World::with(Config::default(), &settings).await;
    let mut ears = Till::at(&world, "/?instance=demo&access_token=ears").await;
    assert_eq!(word(&ears.ask_with("listpos", json!({}), None).await), "missing_parameter_api");
    let mut reader = Till::open(&world).await;
    assert_eq!(event(&reader.ask_with("listpos", json!({}), Some("reader")).await), "listpos");
    world.gateway.broadcast(DEMO, "news", "{}").unwrap();
    assert_eq!(message(&ears.frame().await), "news");
    assert_eq!(word(&ears.ask_with("listpos", json!({}), Some("ears")).await), "api_key_mismatch");
    reader.expect_nothing().await;
    for token in [KEY, "wrong", "reader", crate::support::OPERATOR] {
        let mut refused = Till::at(&world, &format!("/?instance=demo&access_token={token}")).await;
        assert_eq!(word(&refused.frame().await), "api_key_mismatch", "{token}");
        assert_eq!(refused.code().await, Some(1008));
    }
}

/// What an event stream tells until `mark`.
async fn told(stream: &mut reqwest::Response, mark: &str) -> String {
    let mut told = String::new();
    let read = async {
        while !told.contains(mark) {
            told += std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(15), read).await.expect("it is told");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_gap_each_listener_gets_one_updatepos() {
    let world = World::start().await;
    let (mut first, mut second) = (known(&world).await, known(&world).await);
    let mut stream = world.get("/events").await;
    told(&mut stream, "event: ready").await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get(crate::support::ANY).await.status() == 503).await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.revive(shard).unwrap();
    }
    eventually("the bridge is back", async || world.get(crate::support::ANY).await.status() == 200).await;
    world.gateway.broadcast(DEMO, "news", "{}").unwrap();
    let gaps = told(&mut stream, "\"news\"").await.matches("event: gap").count();
    assert!(gaps >= 1, "nobody heard the gateway for a while");
    for till in [&mut first, &mut second] {
        for _ in 0..gaps {
            assert_eq!(message(&till.frame().await), "updatepos");
        }
        assert_eq!(message(&till.frame().await), "news");
    }
}
