//! Event streams and native connections through another replica.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::events::Stream;
use crate::support::replicas::{Plan, Replica, Replicas};
use crate::support::{KEY, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

type Till = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn till(replica: &Replica, path: &str) -> Till {
    let url = format!("{}{path}", replica.url.replace("http://", "ws://"));
    connect_async(url).await.unwrap().0
}

async fn text(till: &mut Till) -> String {
    loop {
        match timeout(PATIENCE, till.next()).await.expect("something comes") {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no text: {other:?}"),
        }
    }
}

async fn order(till: &mut Till, command: &str) -> String {
    let order = json!({"command": command, "parameters": {"api_key": KEY}}).to_string();
    till.send(Message::text(order)).await.unwrap();
    text(till).await
}

async fn ready(replicas: &Replicas) {
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_as_it_comes_and_ends_with_either_side() {
    let replicas = Replicas::pair().await;
    ready(&replicas).await;
    let mut stream = Stream::of(replicas.other().get("/events").await);
    let opened = stream.next().await;
    assert_eq!(opened.name, "ready");
    for field in ["content-encoding", "transfer-encoding"] {
        assert_ne!(stream.headers.get(field).map(reqwest::header::HeaderValue::as_bytes), Some(&b"identity"[..]));
    }
    replicas.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    let heard = stream.next().await;
    assert_eq!(heard.message(), "updatepos");
    assert_eq!(replicas.owner().metric("subscribers").await, 1);
    assert_eq!(replicas.other().metric("forwarded_in_flight{replica=\"bridge 0\"}").await, 1);
    drop(stream);
    eventually("the owner knows that the caller is gone", async || replicas.owner().metric("subscribers").await == 0)
        .await;
    eventually("and so does the other", async || {
        replicas.other().metric("forwarded_in_flight{replica=\"bridge 0\"}").await == 0
    })
    .await;
    // It resumes after what it heard, at either.
    let request = replicas.other().request(reqwest::Method::GET, "/events").header("last-event-id", heard.id);
    let mut stream = Stream::of(request.send().await.unwrap());
    assert_eq!(stream.next().await.name, "ready");
    let Replicas { mut all, gateway: _gateway } = replicas;
    all.remove(0).stop().await.unwrap();
    let told = stream.next().await;
    assert_eq!((told.name.as_str(), told.json()["reason"].as_str()), ("overloaded", Some("draining")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_does_not_notice_that_its_owner_is_another_replica() {
    let replicas = Replicas::pair().await;
    ready(&replicas).await;
    for path in ["/?instance=demo&Content-Type=json", "/demo", "/zeus/?instance=demo"] {
        let mut till = till(replicas.other(), path).await;
        let version = order(&mut till, "version").await;
        assert!(version.contains("\"event\":\"version\""), "{version}");
        replicas.gateway.broadcast("demo", "updatepos", "{}").unwrap();
        assert!(text(&mut till).await.contains("updatepos"));
        // Longer than any buffer on the way.
        let long = json!({"command": "version", "parameters": {"api_key": KEY, "note": "x".repeat(200_000)}});
        till.send(Message::text(long.to_string())).await.unwrap();
        let answer = text(&mut till).await;
        assert!(answer.contains("\"event\":\"version\""), "{answer}");
        till.close(None).await.unwrap();
        while timeout(PATIENCE, till.next()).await.expect("it ends").is_some_and(|next| next.is_ok()) {}
        let open = async || replicas.owner().metric("native_connections{key=\"shown\"}").await;
        eventually("the owner knows that the till is gone", async || open().await == 0).await;
    }
    let dropped = till(replicas.other(), "/demo").await;
    let keyless = async || replicas.owner().metric("native_connections{key=\"none\"}").await;
    eventually("it is there", async || keyless().await == 1).await;
    drop(dropped);
    eventually("a till that vanishes is gone at the owner", async || keyless().await == 0).await;
    eventually("nothing is left", async || {
        replicas.other().metric("forwarded_in_flight{replica=\"bridge 0\"}").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_is_told_to_come_back_where_nobody_owns_its_instance() {
    let replicas = Replicas::pair().await;
    replicas.show_owner(None, 1);
    let mut till = till(replicas.other(), "/demo").await;
    match timeout(PATIENCE, till.next()).await.expect("something comes") {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1013),
        other => panic!("no close frame: {other:?}"),
    }
    // One that nobody lists is told so in the gateway's words, as at a single bridge.
    let mut till = self::till(replicas.other(), "/nobody-s").await;
    assert!(order(&mut till, "version").await.contains("error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_s_connection_ends_with_its_owner() {
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), vec![Plan::owner(), Plan::other()]).await;
    ready(&replicas).await;
    let mut till = till(replicas.other(), "/demo").await;
    order(&mut till, "version").await;
    let Replicas { mut all, gateway: _gateway } = replicas;
    all.remove(0).stop().await.unwrap();
    let end = async {
        while let Some(Ok(message)) = till.next().await {
            if let Message::Close(frame) = message {
                return frame.map(|frame| u16::from(frame.code));
            }
        }
        None
    };
    assert_eq!(timeout(PATIENCE, end).await.expect("it ends"), Some(1001), "as at the owner");
}
