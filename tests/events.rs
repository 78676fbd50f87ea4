//! Broadcasts reach everybody who listens, once each, in order, and what is missing is said.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use concertpos_simulator::{Config, Instance};
use support::events::{Event, Stream, ids, messages};
use support::{World, eventually, problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const LISTENER: &str = "a-token-that-can-only-listen";

/// A bridge with a token that can only listen, and these settings.
async fn world(settings: &[(&str, &str)]) -> World {
    world_over(Config::default(), settings).await
}

async fn world_over(gateway: Config, settings: &[(&str, &str)]) -> World {
    let digest = support::sha256_hex(LISTENER);
    let mut all = vec![
        ("BRIDGE_AUTH__TOKENS__LISTENER__SHA256", digest.as_str()),
        ("BRIDGE_AUTH__TOKENS__LISTENER__INSTANCES", "demo"),
        ("BRIDGE_AUTH__TOKENS__LISTENER__SCOPES", "events"),
        ("BRIDGE_AUTH__TOKENS__LISTENER__PER_SECOND", "100000"),
        ("BRIDGE_EVENTS__SKEW", "300ms"),
    ];
    all.extend(settings);
    let world = World::with(gateway, &all).await;
    settled().await;
    world
}

fn broadcast(world: &World, message: &str) {
    world.gateway.broadcast("demo", message, "{}").unwrap();
}

/// The number behind the dash.
fn offset(id: &str) -> u64 {
    id.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// Waits until each of the bridge's links has been open for longer than the skew: what they bring is then certain.
async fn settled() {
    // A length of time is what this is about: the skew of these tests.
    tokio::time::sleep(Duration::from_millis(700)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_its_cursor_and_brings_each_broadcast_once_with_the_gateway_s_own_numbers() {
    let world = world(&[("BRIDGE_GATEWAY__MIN_LINKS", "3")]).await;
    let mut stream = Stream::open(&world, "").await;
    let headers = stream.headers.clone();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert!(headers.get("content-encoding").is_none_or(|encoding| encoding == "identity"));
    let ready = stream.next().await;
    assert_eq!((ready.name.as_str(), &ready.json()["id"]), ("ready", &ready.id.as_str().into()));
    assert!(ready.retry_ms.is_some_and(|retry| (1000..=5000).contains(&retry)));
    assert_eq!(world.gateway.broadcast("demo", "updatepos", "{Price: 2.50, big: 12345678901234567890.10}").unwrap(), 3);
    broadcast(&world, "updatepos");
    let (one, two) = (stream.next().await, stream.next().await);
    assert!(one.name.is_empty(), "onmessage hears it");
    assert!(one.data.contains("\"parameters\":{\"Price\":2.50,\"big\":12345678901234567890.10}"), "{}", one.data);
    assert_eq!(one.json()["message"], "updatepos");
    assert!(one.json().get("maybe_duplicate").is_none());
    let received_at: String = one.json()["received_at"].as_str().unwrap().to_owned();
    assert!(received_at.ends_with('Z') && received_at.len() == "2026-06-08T02:47:58.120Z".len(), "{received_at}");
    assert_eq!([offset(&one.id), offset(&two.id)], [offset(&ready.id) + 1, offset(&ready.id) + 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_links_dying_and_returning_the_entries_are_the_broadcasts_but_for_marked_ones() {
    let settings = [
        ("BRIDGE_GATEWAY__MIN_LINKS", "3"),
        ("BRIDGE_EVENTS__HISTORY", "50000"),
        ("BRIDGE_GATEWAY__CONNECT_TIMEOUT", "1s"),
    ];
    let gateway = Config { broadcast_jitter: Duration::from_millis(60), ..Config::default() };
    let world = Arc::new(world_over(gateway, &settings).await);
    let mut stream = Stream::open(&world, "").await;
    stream.next().await;
    let dying = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            for round in 0.. {
                // One shard stays up: what nobody hears is another test's business.
                let shard = ["exon", "cyton"][round % 2];
                world.gateway.kill(shard).unwrap();
                tokio::time::sleep(Duration::from_millis(150)).await;
                world.gateway.revive(shard).unwrap();
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    });
    let made: Vec<String> =
        (0..10_000_u32).map(|number| format!("text {}", number - u32::from(matches!(number % 5, 1 | 3)))).collect();
    let equal = made.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!(equal, 4_000, "40% equal their predecessor");
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        loop {
            let event = stream.next().await;
            if event.name.is_empty() && event.json()["message"] == "the end" {
                return heard;
            }
            heard.push(event);
        }
    });
    for (number, text) in made.iter().enumerate() {
        broadcast(&world, text);
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    dying.abort();
    settled().await;
    broadcast(&world, "the end");
    let mut heard = heard.await.unwrap();
    // The gap before the very first link may still be logged once the stream is open.
    let begin = heard.iter().position(|event| event.name.is_empty()).unwrap();
    heard.drain(..begin);
    let named: Vec<&Event> = heard.iter().filter(|event| !event.name.is_empty()).collect();
    assert!(named.is_empty(), "one link was there all along: {named:?}");
    let certain: Vec<String> = heard.iter().filter(|event| !event.is_marked()).map(Event::message).collect();
    let mut expected = made.clone();
    let mut unmarked = certain.clone();
    expected.sort();
    unmarked.sort();
    assert_eq!(unmarked, expected, "marked: {}", heard.len() - certain.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_resumes_at_any_offset_while_events_flow_has_no_hole_and_no_repeat() {
    let world = Arc::new(world(&[("BRIDGE_EVENTS__HISTORY", "50000")]).await);
    let mut first = Stream::open(&world, "").await;
    let begin = first.next().await.id;
    let flow = tokio::spawn({
        let world = Arc::clone(&world);
        async move {
            for number in 0..3000 {
                broadcast(&world, &number.to_string());
                if number % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    });
    // Each time a little, then away in the middle of it, then back after the last id heard.
    let (mut last, mut heard, mut by_query) = (begin.clone(), Vec::new(), false);
    while heard.len() < 3000 {
        let mut stream = Stream::resume(&world, &last, by_query).await;
        by_query = !by_query;
        assert_eq!(stream.next().await.id, last, "ready tells where it begins");
        for _ in 0..fastrand::usize(1..60).min(3000 - heard.len()) {
            let event = stream.next().await;
            last.clone_from(&event.id);
            heard.push(event);
        }
    }
    flow.await.unwrap();
    let offsets: Vec<u64> = heard.iter().map(|event| offset(&event.id)).collect();
    let begin = offset(&begin);
    assert_eq!(offsets, (begin + 1..=begin + 3000).collect::<Vec<_>>());
    assert_eq!(messages(&heard), (0..3000).map(|number| number.to_string()).collect::<Vec<_>>());
    let mut all = Stream::resume(&world, &ids(&heard)[0], true).await;
    all.next().await;
    assert_eq!(all.next().await.id, heard[1].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_that_a_browser_sends_on_return_wins_over_the_query_of_its_address() {
    let world = world(&[]).await;
    let mut stream = Stream::open(&world, "").await;
    let begin = stream.next().await.id;
    broadcast(&world, "one");
    let one = stream.next().await.id;
    broadcast(&world, "two");
    stream.next().await;
    let request = world.request(reqwest::Method::GET, &format!("/events?last_event_id={begin}"));
    let mut back = Stream::of(request.header("Last-Event-ID", &one).send().await.unwrap());
    assert_eq!(back.next().await.id, one);
    assert_eq!(back.next().await.message(), "two");
    let request = world.request(reqwest::Method::GET, &format!("/events?last_event_id={begin}"));
    let mut new = Stream::of(request.header("Last-Event-ID", "").send().await.unwrap());
    assert_eq!(new.next().await.id, begin);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_an_old_id_is_told_to_begin_again_and_what_history_lost_is_said() {
    let world = world(&[("BRIDGE_EVENTS__HISTORY", "3")]).await;
    let mut stream = Stream::open(&world, "").await;
    let begin = stream.next().await.id;
    for number in 0..5 {
        broadcast(&world, &number.to_string());
        stream.next().await;
    }
    let mut back = Stream::resume(&world, &begin, false).await;
    assert_eq!(back.next().await.id, begin);
    let gap = back.next().await;
    assert_eq!((gap.name.as_str(), &gap.json()["reason"]), ("gap", &"history".into()));
    let (from, to) = (gap.json()["from"].as_str().unwrap().to_owned(), gap.json()["to"].as_str().unwrap().to_owned());
    assert_eq!([offset(&from), offset(&to)], [offset(&begin) + 1, offset(&begin) + 2]);
    assert_eq!(gap.id, to, "whoever leaves now does not hear of it again");
    assert_eq!(back.next().await.message(), "2");
    // What a bridge that was restarted makes of it, and of what no bridge ever said.
    for unknown in ["k3f9k3f9-41", "x", "%20", "k3f9k3f9-99999999999999999999999"] {
        let mut other = Stream::resume(&world, unknown, true).await;
        let reset = other.next().await;
        assert_eq!(reset.name, "reset", "{unknown}");
        assert!(reset.retry_ms.is_some());
        assert_eq!(reset.json()["id"], reset.id);
        let ready = other.next().await;
        assert_eq!((ready.name.as_str(), ready.id.as_str()), ("ready", reset.id.as_str()));
        assert_eq!(offset(&reset.id), offset(&begin) + 5, "and goes on from now");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_shards_away_there_is_a_gap_and_nothing_is_called_fresh_that_may_have_changed() {
    let world = world(&[]).await;
    let products = "/points-of-sale/1/products";
    let status = async || {
        let answer = world.get(products).await;
        answer.headers().get("cache-status").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    status().await;
    assert!(status().await.contains("hit"));
    let mut stream = Stream::open(&world, "?message=updatepos").await;
    let ready = stream.next().await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get_open("/readyz?require=gateway").await.status() == 503).await;
    let away = status().await;
    assert!(away.is_empty() || away.contains("stale"), "{away}");
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    // An outage is a stretch of time: its length is what this test is about.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.revive(shard).unwrap();
    }
    // While one shard after another went, a replacement may have come and gone: the outage is the last of the gaps.
    let mut last = offset(&ready.id);
    loop {
        let gap = stream.next().await;
        assert_eq!((gap.name.as_str(), &gap.json()["reason"]), ("gap", &"no-connection".into()));
        assert_eq!(offset(&gap.id), last + 1);
        last += 1;
        let at = |name: &str| gap.json()[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        if at("to").duration_since(at("from")) >= jiff::SignedDuration::from_secs(2) {
            break;
        }
    }
    let back = status().await;
    assert!(!back.contains("hit"), "whoever fetches on the gap gets the new state: {back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_refetches_on_updatepos_gets_the_new_state() {
    let world = world(&[]).await;
    let mut stream = Stream::open(&world, "").await;
    stream.next().await;
    let products = "/points-of-sale/1/products";
    world.get(products).await;
    for price in 1..20 {
        let price = format!("{price}.75");
        world.gateway.set_product_price("demo", 1, 1, &price).unwrap();
        broadcast(&world, "updatepos");
        stream.next().await;
        let text = world.get(products).await.text().await.unwrap();
        assert!(text.contains(&price), "{price} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_an_administrator_types_poses_as_the_stream_s_own_words() {
    let world = world(&[]).await;
    let mut stream = Stream::open(&world, "").await;
    let mut last = offset(&stream.next().await.id);
    for text in
        ["a\n\nevent: reset\nid: forged-9\ndata: {}\n\n", "\r\rretry: 1\r\r", "\r\n\r\n:", "ready", "\u{feff}\u{0}"]
    {
        let typed = serde_json::to_string(text).unwrap();
        world.gateway.broadcast("demo", text, &format!("{{t: {typed}}}")).unwrap();
        let event = stream.next().await;
        assert_eq!((event.name.as_str(), event.message().as_str()), ("", text));
        assert_eq!(event.json()["parameters"]["t"], text);
        assert_eq!((offset(&event.id), event.retry_ms), (last + 1, None));
        last += 1;
    }
}

/// A broadcast whose `message` and `parameters` are these texts, in either format.
fn frame(format: &str, message: &str, parameters: &str) -> String {
    if format == "json5" {
        let message = message.replace('"', "'");
        return format!("{{type:'broadcast',result:{{message:{message},parameters:{parameters}}}}}");
    }
    format!(r#"{{"type":"broadcast","result":{{"message":{message},"parameters":{parameters}}}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_with_half_an_emoji_reaches_every_listener_and_so_does_one_behind_a_byte_order_mark() {
    for format in ["json", "json5"] {
        let world = world(&[("BRIDGE_GATEWAY__FORMAT", format)]).await;
        let mut stream = Stream::open(&world, "").await;
        let last = offset(&stream.next().await.id);
        let cut = frame(format, r#""Beer is out \ud83c""#, r#"{"note":"\udf7a"}"#);
        assert!(world.gateway.send_text("demo", &cut).unwrap() >= 2, "over several connections");
        let told = stream.next().await;
        assert_eq!((told.name.as_str(), offset(&told.id)), ("", last + 1), "{format}");
        assert!(told.data.starts_with("{\"message\":\"Beer is out \u{fffd}\""), "{}", told.data);
        assert!(told.data.contains(r#""parameters":{"note":"\udf7a"}"#), "as it came: {}", told.data);
        world.gateway.send_text("demo", &format!("\u{feff}{}", frame(format, r#""marked""#, "{}"))).unwrap();
        assert_eq!(stream.next().await.message(), "marked", "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_may_be_a_broadcast_and_cannot_be_read_is_one_gap_and_ends_the_catalogue_s_freshness() {
    for format in ["json", "json5"] {
        let world = world(&[("BRIDGE_GATEWAY__FORMAT", format)]).await;
        let products = "/points-of-sale/1/products";
        let mut stream = Stream::open(&world, "").await;
        let mut last = offset(&stream.next().await.id);
        let messages = ["7", "null", "{}"].map(|message| frame(format, message, "{}"));
        let twice =
            frame(format, r#""a""#, "{}").replacen("message", "message:'b',message", usize::from(format == "json5"));
        let twice = twice.replacen(r#""message""#, r#""message":"b","message""#, 1);
        let cut = frame(format, r#""updatepos""#, "{}").split_at(45).0.to_owned();
        let absent = r#"{"type":"broadcast","result":{"parameters":{}}}"#.to_owned();
        for (number, text) in messages.into_iter().chain([twice, cut, absent, "updatepos".to_owned()]).enumerate() {
            assert_eq!(world.get(products).await.status(), 200);
            assert!(world.get(products).await.headers()["cache-status"].to_str().unwrap().contains("hit"));
            let price = format!("{number}.35");
            world.gateway.set_product_price("demo", 1, 1, &price).unwrap();
            assert!(world.gateway.send_text("demo", &text).unwrap() >= 2, "over several connections");
            let gap = stream.next().await;
            assert_eq!((gap.name.as_str(), &gap.json()["reason"]), ("gap", &"unreadable".into()), "{text}");
            assert_eq!(offset(&gap.id), last + 1, "one gap for all its copies: {text}");
            last += 1;
            assert!(world.get(products).await.text().await.unwrap().contains(&price), "an old price: {text}");
        }
        let reply = r#"{"type":"event","result":{"event":"listpm","parame"#;
        world.gateway.send_text("demo", reply).unwrap();
        broadcast(&world, "after it");
        let told = stream.next().await;
        assert_eq!((offset(&told.id), told.message().as_str()), (last + 1, "after it"), "half a reply is no broadcast");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_stream_does_not_lose_its_place() {
    let world = world(&[("BRIDGE_EVENTS__HEARTBEAT", "1s")]).await;
    let mut stream = Stream::open(&world, "?message=wanted").await;
    let begin = offset(&stream.next().await.id);
    broadcast(&world, "other");
    broadcast(&world, "wanted");
    let wanted = stream.next().await;
    assert_eq!((wanted.message().as_str(), offset(&wanted.id)), ("wanted", begin + 2));
    broadcast(&world, "other");
    let cursor = stream.next().await;
    assert_eq!((cursor.name.as_str(), offset(&cursor.id)), ("cursor", begin + 3));
    assert_eq!(cursor.json()["id"], cursor.id);
    assert!(stream.comments > 0, "beside a heartbeat");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_too_many_is_told_to_come_later_and_nobody_loses_a_place() {
    let world = world(&[("BRIDGE_EVENTS__MAX_SUBSCRIBERS", "1")]).await;
    let mut stream = Stream::open(&world, "").await;
    stream.next().await;
    let mut late = Stream::open(&world, "").await;
    assert_eq!(late.status, 200, "EventSource does not come back from an error");
    let told = late.next().await;
    assert_eq!((told.name.as_str(), told.id.as_str()), ("overloaded", ""));
    assert!(told.retry_ms.is_some_and(|retry| retry >= 5000) && told.json()["reason"] == "full");
    assert!(late.ended().await);
    broadcast(&world, "still here");
    assert_eq!(stream.next().await.message(), "still here");
    drop(stream);
    eventually("the place is given back", async || Stream::open(&world, "").await.next().await.name == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_has_its_share_of_the_listeners_of_an_instance_and_no_more() {
    let second = [("BRIDGE_EVENTS__MAX_LISTENERS", "2"), ("BRIDGE_INSTANCES__FEST__API_KEY", "fest-key")];
    let mut gateway = Config::default();
    gateway.instances.push(Instance { slug: "fest".into(), api_key: "fest-key".into() });
    let world = world_over(gateway, &second).await;
    let mut own = Vec::new();
    for _ in 0..2 {
        let mut stream = Stream::open(&world, "").await;
        assert_eq!(stream.next().await.name, "ready");
        own.push(stream);
    }
    let mut late = Stream::open(&world, "").await;
    let told = late.next().await;
    assert_eq!((told.name.as_str(), &told.json()["reason"]), ("overloaded", &"caller-limited".into()));
    assert!(late.ended().await);
    // Others have theirs, and so has the same name at another instance.
    let other = world.http.get(world.path("/events")).bearer_auth(LISTENER).send().await.unwrap();
    assert_eq!(Stream::of(other).next().await.name, "ready");
    let elsewhere = world.http.get(format!("{}/v1/instances/fest/events", world.url)).bearer_auth("fest-key");
    assert_eq!(Stream::of(elsewhere.send().await.unwrap()).next().await.name, "ready");
    own.pop();
    eventually("the place is given back", async || Stream::open(&world, "").await.next().await.name == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_goes_down_tells_its_streams_to_come_back_later() {
    let world = world(&[]).await;
    let mut stream = Stream::open(&world, "").await;
    stream.next().await;
    let begun = std::time::Instant::now();
    let stopped = tokio::spawn(world.stop());
    let told = stream.next().await;
    assert_eq!((told.name.as_str(), &told.json()["reason"], told.id.as_str()), ("overloaded", &"draining".into(), ""));
    assert!(told.retry_ms.is_some_and(|retry| retry >= 5000));
    assert!(stream.ended().await);
    stopped.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9), "streams hold nothing up: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_reads_too_slowly_is_cut_off_by_the_log_costs_the_others_nothing_and_is_told_on_return() {
    let world = world(&[("BRIDGE_EVENTS__HISTORY", "64")]).await;
    let mut stream = Stream::open(&world, "").await;
    stream.next().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let addr = world.url.trim_start_matches("http://").parse().unwrap();
    let mut slow = socket.connect(addr).await.unwrap();
    let request = format!("GET /v1/instances/demo/events?access_token={LISTENER} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    eventually("both listen", async || listeners(&world).await == 2).await;
    let (begun, long) = (std::time::Instant::now(), "x".repeat(100_000));
    for number in 0..200 {
        broadcast(&world, &format!("{number} {long}"));
        assert!(stream.next().await.message().starts_with(&format!("{number} ")), "the others hear all");
    }
    // What its socket holds is still read; then the log has gone past it, and the stream ends in order.
    let mut taken = Vec::new();
    let read = async { while slow.read_buf(&mut taken).await.unwrap() > 0 && !taken.ends_with(b"\r\n0\r\n\r\n") {} };
    assert!(tokio::time::timeout(Duration::from_secs(20), read).await.is_ok(), "it is still told something");
    assert!(taken.ends_with(b"\r\n0\r\n\r\n"), "the end of the last chunk");
    assert!(taken.len() < 200 * 100_000, "it was cut off before it had everything");
    // The system bears with one who takes nothing for 30 s: it was not the system.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    eventually("its place is given back", async || listeners(&world).await == 1).await;
    let taken = String::from_utf8(taken).unwrap();
    let last = taken.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let mut back = Stream::resume(&world, last, false).await;
    assert_eq!(back.next().await.id, last);
    let gap = back.next().await;
    assert_eq!((gap.name.as_str(), &gap.json()["reason"]), ("gap", &"history".into()));
    assert_eq!(offset(gap.json()["from"].as_str().unwrap()), offset(last) + 1, "nothing is missing without a word");
}

/// How many listen, told by whether there is room for more.
async fn listeners(world: &World) -> u64 {
    let status =
        world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(support::OPERATOR).send().await.unwrap();
    status.json::<serde_json::Value>().await.unwrap()["subscribers"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_that_can_only_listen_is_taken_from_the_query() {
    let world = world(&[]).await;
    let ask = async |query: &str, header: Option<&str>| {
        let request = world.http.get(world.path(&format!("/events{query}")));
        header.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token)).send().await.unwrap()
    };
    let mut stream = Stream::of(ask(&format!("?access_token={LISTENER}"), None).await);
    assert_eq!(stream.next().await.name, "ready");
    let mut stream = Stream::of(ask("", Some(LISTENER)).await);
    assert_eq!(stream.next().await.name, "ready");
    for (query, header, status, code) in [
        (format!("?access_token={}", support::KEY), None, 403, "forbidden"),
        (format!("?access_token={}", support::OPERATOR), None, 403, "forbidden"),
        ("?access_token=guess".to_owned(), None, 401, "unauthenticated"),
        (String::new(), None, 401, "unauthenticated"),
        (format!("?access_token={LISTENER}"), Some(LISTENER), 400, "invalid-request"),
        ("?message=a&message=b".to_owned(), Some(LISTENER), 400, "invalid-request"),
    ] {
        let answer = ask(&query, header).await;
        // A stream that is opened all the same has no end to be waited for.
        assert_eq!(answer.status(), status, "{query}");
        let problem = problem(answer).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{query}");
    }
    let elsewhere = world.http.get(world.path("/config?access_token=x")).send().await.unwrap();
    assert_eq!(elsewhere.status(), 401);
    let answer = world.http.get(world.path(&format!("/config?access_token={LISTENER}"))).send().await.unwrap();
    assert_eq!(answer.status(), 401, "nowhere but here");
    let answer = world.request(reqwest::Method::GET, "/events").header("Accept", "application/json").send().await;
    assert_eq!(problem(answer.unwrap()).await.status, 406);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_never_compressed_and_a_closed_one_gives_its_place_back_at_once() {
    let world = world(&[]).await;
    let mut tcp = TcpStream::connect(world.url.trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "GET /v1/instances/demo/events?access_token={LISTENER} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("event: ready") {
        assert!(tcp.read_buf(&mut text).await.unwrap() > 0);
    }
    assert_eq!(listeners(&world).await, 1);
    drop(tcp);
    eventually("the place is given back", async || listeners(&world).await == 0).await;
}
