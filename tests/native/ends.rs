//! How connections end: what is under way first.

use concertpos_simulator::{Action, Fault};
use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Till, event, sale, word};
use crate::support::{World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_bridge_answers_what_is_under_way_refuses_what_is_new_and_then_says_goodbye() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 800 }).on("payitems"));
    let mut busy = Till::open(&world).await;
    let mut idle = Till::open(&world).await;
    busy.order("payitems", sale("last")).await;
    eventually("it is on its way", async || world.gateway.counts().command("payitems").received == 1).await;
    assert_eq!(event(&idle.ask("listpos", json!({})).await), "listpos");
    let stopped = tokio::spawn(world.stop());
    assert_eq!(idle.code().await, Some(1001));
    let refused = busy.ask("listpos", json!({})).await;
    assert_eq!((word(&refused), &refused["result"]["code"]["command"]), ("ratelimit", &json!("listpos")));
    assert_eq!(event(&busy.frame().await), "payitem");
    assert_eq!(busy.code().await, Some(1001));
    stopped.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_goodbyes_are_answered() {
    let world = World::start().await;
    let mut till = Till::open(&world).await;
    till.0.send(Message::Ping(b"alive?".to_vec().into())).await.unwrap();
    assert_eq!(till.next().await.unwrap().unwrap(), Message::Pong(b"alive?".to_vec().into()));
    till.0
        .send(Message::Binary(br#"{"command":"listpos","parameters":{"api_key":"demo-key"}}"#.to_vec().into()))
        .await
        .unwrap();
    assert_eq!(event(&till.frame().await), "listpos");
    till.0.close(None).await.unwrap();
    assert_eq!(till.code().await, None);
}
