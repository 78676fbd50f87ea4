//! Streams through a real server whose system bears with peers that take nothing for a short time only.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::rt::spawn;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::EventStream;
use crate::broadcasts::{Broadcast, Broadcasts, Epoch, Event, Item, Since, SubscriberLimit};
use crate::http::Config;
use crate::http::auth::authorization::Authorization;
use crate::http::server::{Listeners, Parts, run};
use crate::http::testing::{auth, bridge_over};
use crate::protocol::Body;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than sockets hold, and less than a log.
const FLOOD: (usize, usize) = (40, 256 * 1024);

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never came: {what}");
}

/// All that a stream sends whose token has no right to its instance any more, where the log was `closed` or is open.
async fn sent_without_a_right(closed: bool) -> String {
    let broadcasts = Broadcasts::new(Epoch::new(7), 16, SubscriberLimit::new(9, 9));
    let subscription = broadcasts.subscribe("one", Since::Now).unwrap();
    let auth = auth();
    let caller = auth.by_token("ALL", IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let authorization = Authorization::new(auth, caller, Arc::from("gone"), None);
    let mut stream = EventStream::new(subscription, authorization, None, PATIENCE);
    if closed {
        broadcasts.close();
    }
    let mut sent = Vec::new();
    while let Some(Ok(piece)) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        sent.extend_from_slice(&piece);
    }
    String::from_utf8(sent).unwrap()
}

#[actix_web::test]
async fn a_stream_whose_token_went_with_its_instance_is_told_to_come_back_and_one_whose_token_was_revoked_just_ends() {
    let told = sent_without_a_right(true).await;
    assert!(told.contains("event: overloaded") && told.contains("draining") && told.contains("retry: "), "{told}");
    assert_eq!(sent_without_a_right(false).await, "");
}

#[actix_web::test]
async fn one_who_never_reads_is_given_up_by_the_system_however_long_the_log_holds_what_it_has_yet_to_hear() {
    let broadcasts = Broadcasts::new(Epoch::new(7), 1024, SubscriberLimit::new(9, 9));
    spawn({
        let broadcasts = broadcasts.clone();
        async move { broadcasts.announce().await }
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config { untaken: Duration::from_secs(1), heartbeat: Duration::from_hours(1), ..Config::default() };
    let parts =
        Parts { bridge: bridge_over(broadcasts.clone()), auth: auth(), config, certificates: None, forwarding: None };
    let server = run(Listeners { callers: listener, admin: None, cluster: None }, parts, || ()).unwrap().callers;
    let handle = server.handle();
    spawn(server.serve());

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut mute = socket.connect(address).await.unwrap();
    let request = "GET /v1/instances/demo/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ALL\r\n\r\n";
    mute.write_all(request.as_bytes()).await.unwrap();
    until("it listens", || broadcasts.listeners() == 1).await;
    for _ in 0..FLOOD.0 {
        let parameters = Body::from(&*RawValue::from_string("{}".to_owned()).unwrap());
        let (message, received_at) = (Arc::from("x".repeat(FLOOD.1)), Timestamp::UNIX_EPOCH);
        broadcasts.publish(Event::Broadcast(Broadcast { message, parameters, received_at, maybe_duplicate: false }));
    }
    until("its place is given back", || broadcasts.listeners() == 0).await;
    // The log has not gone past it.
    let begin = Epoch::new(7).to_string() + "-0";
    let first = broadcasts.subscribe("one", Since::After(&begin)).unwrap().next().now_or_never();
    assert!(matches!(first, Some(Ok(Item::Entry(entry))) if entry.id.offset == 1));
    // Nobody told it that this is the end: it was cut off.
    let mut taken = Vec::new();
    let read = async { while mute.read_buf(&mut taken).await.is_ok_and(|read| read > 0) {} };
    assert!(timeout(PATIENCE, read).await.is_ok(), "it is still connected");
    assert!(!taken.ends_with(b"0\r\n\r\n") && taken.len() < FLOOD.0 * FLOOD.1);
    handle.stop(false).await;
}
