//! Instances that come, go and change while the bridge runs.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod support;

#[allow(dead_code, unused_imports, reason = "tests of tills use the rest")]
#[path = "native/client.rs"]
mod client;
#[path = "reload/crowd.rs"]
mod crowd;
#[path = "reload/midway.rs"]
mod midway;

use client::Till;
use concertpos_simulator::{self as simulator, Action, Counting, Fault, Limits};
use serde_json::{Value, json};
use support::events::{Stream, ids, messages};
use support::{KEY, OPERATOR, World, eventually, problem};
use tokio_tungstenite::tungstenite::Message;

/// A read that only the gateway answers.
const UNCACHED: &str = "/status";

/// Settings in the environment's form.
type Settings = Vec<(String, String)>;

/// The instances with their keys, `NAME=SLUG`; `demo` is always there. The operator may use all, and so may `shop`, who only
/// reads and pays.
fn instances(others: &[&str]) -> Settings {
    let mut settings = vec![
        ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES".to_owned(), "*".to_owned()),
        ("BRIDGE_CACHE__MIN_AGE".to_owned(), "0s".to_owned()),
        ("BRIDGE_EVENTS__HEARTBEAT".to_owned(), "1h".to_owned()),
        // None comes and goes with the load.
        ("BRIDGE_GATEWAY__MAX_LINKS".to_owned(), "2".to_owned()),
    ];
    settings.extend(
        ["MAX_IN_FLIGHT", "PER_SECOND"]
            .map(|limit| (format!("BRIDGE_AUTH__TOKENS__OPERATOR__{limit}"), "100000".to_owned())),
    );
    settings.extend(support::token("shop", "read,pay,events"));
    settings
        .iter_mut()
        .filter(|(name, _)| name.ends_with("SHOP__INSTANCES"))
        .for_each(|(_, all)| all.replace_range(.., "*"));
    for other in others {
        let (name, slug) = other.split_once('=').unwrap_or((other, other));
        let key = |part: &str| format!("BRIDGE_INSTANCES__{}__{part}", name.to_uppercase());
        settings.extend([(key("SLUG"), slug.to_owned()), (key("API_KEY"), key_of(slug))]);
    }
    settings
}

fn key_of(slug: &str) -> String {
    if slug == "demo" { KEY.to_owned() } else { format!("key-of-{slug}") }
}

fn with(mut settings: Settings, more: &[(&str, &str)]) -> Settings {
    for (name, value) in more {
        settings.retain(|(known, _)| known != name);
        settings.push(((*name).to_owned(), (*value).to_owned()));
    }
    settings
}

fn gateway(slugs: &[&str]) -> simulator::Config {
    let all = ["demo"].iter().chain(slugs);
    let instances = all.map(|slug| simulator::Instance { slug: (*slug).to_owned(), api_key: key_of(slug) });
    simulator::Config { instances: instances.collect(), ..simulator::Config::default() }
}

async fn start(gateway: simulator::Config, settings: &Settings) -> World {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    World::with(gateway, &settings).await
}

/// A request to an instance.
fn request(world: &World, method: reqwest::Method, instance: &str, path: &str, token: &str) -> reqwest::RequestBuilder {
    world.http.request(method, format!("{}/v1/instances/{instance}{path}", world.url)).bearer_auth(token)
}

async fn get(world: &World, instance: &str, path: &str, token: &str) -> reqwest::Response {
    request(world, reqwest::Method::GET, instance, path, token).send().await.expect("an answer")
}

fn sale(world: &World, instance: &str, key: &str, token: &str) -> reqwest::RequestBuilder {
    request(world, reqwest::Method::POST, instance, "/points-of-sale/1/payments", token)
        .header("Idempotency-Key", key)
        .json(&json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key}))
}

async fn text(world: &World, path: &str) -> String {
    let answer = world.http.get(format!("{}{path}", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.unwrap()
}

async fn bridge(world: &World) -> Value {
    serde_json::from_str(&text(world, "/v1/bridge").await).unwrap()
}

/// The instances as the status lists them.
async fn served(world: &World) -> Vec<String> {
    let status = bridge(world).await;
    let instances = status["instances"].as_array().unwrap().iter();
    instances.map(|one| one["instance"].as_str().unwrap().to_owned()).collect()
}

/// The links of an instance, each by shard and number.
async fn links(world: &World, instance: &str) -> Vec<String> {
    let status = bridge(world).await;
    let one = status["instances"].as_array().unwrap().iter().find(|one| one["instance"] == instance).cloned();
    let shards = one.expect("it is served")["shards"].as_array().cloned().unwrap();
    let link = |shard: &Value| {
        let links = shard["links"].as_array().cloned().unwrap().into_iter();
        let name = shard["shard"].as_str().unwrap().to_owned();
        links.map(move |link| format!("{name} {}", link["link"])).collect::<Vec<_>>()
    };
    shards.iter().flat_map(link).collect()
}

/// Waits until each instance that is served has its links, and the gateway has no other connection.
async fn until_linked(world: &World) {
    eventually("the links are those of the instances that are served", async || {
        let status = bridge(world).await;
        are_all_linked(&status) && world.gateway.counts().open() == count_links(&status)
    })
    .await;
}

fn links_of(one: &Value) -> impl Iterator<Item = &Value> {
    one["shards"].as_array().unwrap().iter().flat_map(|shard| shard["links"].as_array().unwrap())
}

fn count_links(status: &Value) -> u64 {
    status["instances"].as_array().unwrap().iter().map(|one| links_of(one).count() as u64).sum()
}

/// Whether each instance has at least its two links, in service.
fn are_all_linked(status: &Value) -> bool {
    let linked = |one: &Value| links_of(one).count() >= 2 && links_of(one).all(|link| link["state"] == "free");
    status["instances"].as_array().unwrap().iter().all(linked)
}

/// The place of an entry in its log.
fn offset(id: &str) -> u64 {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

fn received(world: &World, command: &str) -> u64 {
    world.gateway.counts().command(command).received
}

/// The code with which a till's connection is closed.
async fn closed_with(till: &mut Till) -> u16 {
    loop {
        match till.next().await {
            Some(Ok(Message::Close(Some(reason)))) => return reason.code.into(),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_added_and_removed_and_added_again_while_another_goes_on() {
    let (alone, both) = (instances(&[]), instances(&["fest"]));
    let world = start(gateway(&["fest"]), &alone).await;
    let mut demo = Stream::of(get(&world, "demo", "/events", "shop").await);
    let began = offset(&demo.next().await.id);
    until_linked(&world).await;
    let before = links(&world, "demo").await;
    assert_eq!(problem(get(&world, "fest", UNCACHED, "shop").await).await.code, "unknown-instance");
    assert_eq!(get(&world, "fest", UNCACHED, &key_of("fest")).await.status(), 401, "its key opens nothing yet");

    let difference = world.reload(&both).await.unwrap();
    assert_eq!((difference.added, difference.removed, difference.changed), (vec!["fest".to_owned()], vec![], vec![]));
    assert_eq!(get(&world, "fest", UNCACHED, &key_of("fest")).await.status(), 200);
    assert_eq!(served(&world).await, ["demo", "fest"]);
    assert_eq!(text(&world, "/v1/instances").await, r#"{"instances":["demo","fest"]}"#);
    assert!(text(&world, "/metrics").await.contains("pos_instance=\"fest\""));
    until_linked(&world).await;
    assert_eq!(get(&world, "fest", "/config", "shop").await.status(), 200);
    assert_eq!(get(&world, "demo", "/config", "shop").await.status(), 200);
    let copies = bridge(&world).await["cache"]["copies"].as_u64().unwrap();
    let mut fest = Stream::of(get(&world, "fest", "/events", &key_of("fest")).await);
    while fest.next().await.name != "ready" {}
    let mut till = Till::at(&world, "/?instance=fest").await;
    assert_eq!(till.ask_with("listpos", json!({}), Some(&key_of("fest"))).await["type"], "event");
    assert_eq!(sale(&world, "fest", "one", "shop").send().await.unwrap().status(), 201);
    let record = get(&world, "fest", "/payments", OPERATOR).await.json::<Value>().await.unwrap();
    let id = record["payments"][0]["id"].as_str().unwrap().to_owned();

    let difference = world.reload(&alone).await.unwrap();
    assert_eq!(difference.removed, ["fest"]);
    loop {
        let last = fest.next().await;
        if last.name == "overloaded" {
            assert!(last.data.contains("draining") && last.retry_ms >= Some(5000), "{last:?}");
            break;
        }
    }
    assert!(fest.ended().await);
    assert_eq!(closed_with(&mut till).await, 1001);
    for path in ["/events", "/config", UNCACHED, "/payments"] {
        assert_eq!(problem(get(&world, "fest", path, "shop").await).await.code, "unknown-instance", "{path}");
    }
    assert_eq!(get(&world, "fest", UNCACHED, &key_of("fest")).await.status(), 401);
    assert_eq!(served(&world).await, ["demo"]);
    let metrics = text(&world, "/metrics").await;
    let mut of_fest = metrics.lines().filter(|line| line.contains("fest"));
    // Its payments are still in the journal, and one of unknown outcome still has to be settled.
    assert!(of_fest.all(|line| line.starts_with("concertpos_bridge_payments{")), "{metrics}");
    until_linked(&world).await;
    eventually("its copies are dropped", async || bridge(&world).await["cache"]["copies"].as_u64().unwrap() < copies)
        .await;
    // Whoever operates the bridge still sees its payments, and of no instance that never was.
    let listed: Value = get(&world, "fest", "/payments?state=booked", OPERATOR).await.json().await.unwrap();
    assert_eq!((listed["payments"].as_array().unwrap().len(), &listed["payments"][0]["id"]), (1, &json!(id)));
    assert_eq!(get(&world, "fest", &format!("/payments/{id}"), OPERATOR).await.status(), 200);
    assert_eq!(get(&world, "fest", &format!("/payments/{id}"), "shop").await.status(), 404);
    assert_eq!(problem(get(&world, "never", "/payments", OPERATOR).await).await.code, "unknown-instance");

    world.reload(&both).await.unwrap();
    let again = sale(&world, "fest", "one", "shop").send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(world.gateway.counts().bookings("one"), 1);
    // The other one has noticed nothing.
    assert_eq!(links(&world, "demo").await, before);
    world.gateway.broadcast("demo", "hello", "{}").unwrap();
    let heard = demo.next().await;
    assert_eq!((heard.message().as_str(), offset(&heard.id)), ("hello", began + 1), "{heard:?}");
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_instance_spent_is_still_counted_after_it_was_removed_and_added_again_under_another_name() {
    let mut limited = gateway(&["fest"]);
    limited.limits = Limits::new(Counting::PerCommand);
    let limits = [("BRIDGE_LIMITS__CAPACITY", "100"), ("BRIDGE_LIMITS__MAX_WAIT", "0s")];
    let [alone, fest, renamed] = [&[][..], &["fest"], &["other=fest"]].map(|others| with(instances(others), &limits));
    let world = start(limited, &fest).await;
    let fetch = async |instance: &str| {
        let fetch =
            request(&world, reqwest::Method::GET, instance, "/config", "shop").header("Cache-Control", "no-cache");
        fetch.header("Cache-Control", "max-stale=0").send().await.unwrap().status().as_u16()
    };
    for _ in 0..2 {
        assert_eq!(fetch("fest").await, 200);
    }
    world.reload(&alone).await.unwrap();
    until_linked(&world).await;
    world.reload(&renamed).await.unwrap();
    for _ in 0..2 {
        assert_eq!(fetch("other").await, 200);
    }
    world.reload(&fest).await.unwrap();
    assert_eq!(fetch("fest").await, 429, "a hundred points are spent");
    assert_eq!(world.gateway.counts().ratelimit_errors, 0);
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_slug_restarts_one_instance_without_a_moment_in_which_it_is_not_there() {
    let (old, new) = (instances(&["fest=first"]), instances(&["fest=second"]));
    let world = start(gateway(&["first", "second"]), &old).await;
    world.gateway.set_product_price("second", 1, 1, "77.70").unwrap();
    let products = "/points-of-sale/1/products";
    assert!(!get(&world, "fest", products, "shop").await.text().await.unwrap().contains("77.70"));
    until_linked(&world).await;
    let demo = links(&world, "demo").await;
    let mut stream = Stream::of(get(&world, "fest", "/events", "shop").await);
    let cordon = world.http.put(format!("{}/v1/bridge/shards/exon", world.url)).bearer_auth(OPERATOR);
    assert_eq!(cordon.json(&json!({"cordoned": true})).send().await.unwrap().status(), 200);
    let calling = async |path: &str, mut is_over: Box<dyn FnMut(&str) -> bool>| {
        loop {
            let answer = get(&world, "fest", path, "shop").await;
            let (status, body) = (answer.status().as_u16(), answer.text().await.unwrap());
            assert_eq!(status, 200, "{path}: {body}");
            if is_over(&body) {
                return;
            }
        }
    };
    let mut more = 0;
    let steady = calling(
        UNCACHED,
        Box::new(move |_| {
            more += 1;
            more > 60
        }),
    );
    let switched = calling(products, Box::new(|body| body.contains("77.70")));
    let (difference, (), ()) = tokio::join!(tokio::spawn(world.reloading(&new)), steady, switched);
    assert_eq!(difference.unwrap().unwrap().changed, ["fest.slug", "fest.api_key"]);
    // The copy of the other festival is gone from its answers for good.
    assert!(get(&world, "fest", products, "shop").await.text().await.unwrap().contains("77.70"));
    while stream.next().await.name != "overloaded" {}
    eventually("the old one has ended", async || {
        let links = [links(&world, "fest").await, links(&world, "demo").await].concat();
        !links.iter().any(|link| link.starts_with("exon")) && world.gateway.counts().open() == links.len() as u64
    })
    .await;
    let status = bridge(&world).await;
    let shards = status["instances"].as_array().unwrap().iter().flat_map(|one| one["shards"].as_array().unwrap());
    let cordoned: Vec<_> = shards.filter(|shard| shard["cordoned"] == true).map(|shard| &shard["shard"]).collect();
    assert_eq!(cordoned, ["exon", "exon"], "the new one begins without the shard that was taken out");
    assert!(
        links(&world, "demo").await.iter().filter(|link| !link.starts_with("exon")).any(|link| demo.contains(link))
    );
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_tried_at_once_and_nothing_that_the_old_one_was_refused_is_remembered() {
    let slow = [("BRIDGE_CACHE__GETLICENSE__FRESH", "1h")];
    let good = with(instances(&["fest"]), &slow);
    let bad = with(good.clone(), &[("BRIDGE_INSTANCES__FEST__API_KEY", "leaked")]);
    let world = start(gateway(&["fest"]), &good).await;
    // Both keep their licence fresh.
    eventually("the licences are there", async || received(&world, "getlicense") == 2).await;
    until_linked(&world).await;
    let links = links(&world, "fest").await;
    assert_eq!(world.reload(&bad).await.unwrap().changed, ["fest.api_key"]);
    // Though a copy is fresh for an hour: whether the key is taken is known at once.
    eventually("the new key was tried", async || received(&world, "getlicense") == 3).await;
    assert_eq!(get(&world, "fest", UNCACHED, "shop").await.status(), 502);
    assert_eq!(get(&world, "fest", "/deposit", "shop").await.status(), 502);
    assert_eq!(get(&world, "fest", UNCACHED, &key_of("fest")).await.status(), 401, "callers show the new one too");

    world.gateway.replace_api_key("fest", "renewed").unwrap();
    let renewed = with(good.clone(), &[("BRIDGE_INSTANCES__FEST__API_KEY", "renewed")]);
    world.reload(&renewed).await.unwrap();
    eventually("the renewed key was tried", async || received(&world, "getlicense") == 4).await;
    assert_eq!(get(&world, "fest", UNCACHED, "renewed").await.status(), 200);
    assert_eq!(get(&world, "fest", "/deposit", "renewed").await.status(), 200, "its refusal is forgotten");
    assert_eq!(self::links(&world, "fest").await, links, "no link was closed for it");
    // A reload without any change tries nothing.
    let before = received(&world, "getlicense");
    assert_eq!(world.reload(&renewed).await.unwrap().changed, Vec::<String>::new());
    assert_eq!(get(&world, "fest", UNCACHED, "renewed").await.status(), 200);
    assert_eq!(received(&world, "getlicense"), before);
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_anywhere_leaves_everything_as_it_was() {
    let before = instances(&["fest", "gone"]);
    let world = start(gateway(&["fest", "gone", "new"]), &before).await;
    until_linked(&world).await;
    let opened = || world.gateway.counts().shards.values().map(|shard| shard.opened).sum::<u64>();
    let (links, so_far) = (links(&world, "fest").await, opened());
    let wanted = [("BRIDGE_INSTANCES__FEST__API_KEY", "another"), ("BRIDGE_AUTH__TOKENS__SHOP__SCOPES", "read")];
    let wanted = with(instances(&["fest", "new"]), &wanted);
    for (fault, at) in [
        (("BRIDGE_INSTANCES__NEW__API_KEY", ""), "instances.new.api_key"),
        (("BRIDGE_INSTANCES__FEST__SLUG", "new"), "instances.new.slug"),
        (("BRIDGE_INSTANCES__NEW__SLOG", "x"), "instances.new.slog"),
        (("BRIDGE_AUTH__TOKENS__SHOP__INSTANCES", "gone"), "auth.tokens.shop.instances"),
        (("BRIDGE_AUTH__TOKENS__GATEWAY_KEY__SHA256", &"0".repeat(64)), "auth"),
        (("BRIDGE_LIMITS__CAPACITY", "0"), "limits.capacity"),
        (("BRIDGE_INSTANCES__EXON__API_KEY", "x"), "instances.exon"),
    ] {
        let why = world.reload(&with(wanted.clone(), &[fault])).await.unwrap_err();
        assert!(why.contains(at), "{why}");
    }
    // What a start would take and a reload cannot.
    let moved = [("BRIDGE_GATEWAY__SHARDS", "a,b,c"), ("BRIDGE_INSTANCES__EXON__API_KEY", "x")];
    let why = world.reload(&with(wanted.clone(), &moved)).await.unwrap_err();
    assert!(why.contains("named like a shard"), "{why}");
    assert_eq!(served(&world).await, ["demo", "fest", "gone"]);
    assert_eq!((self::links(&world, "fest").await, opened()), (links, so_far), "nothing was begun");
    assert_eq!(sale(&world, "fest", "still", "shop").send().await.unwrap().status(), 201, "key and token of old");
    let difference = world.reload(&wanted).await.unwrap();
    assert_eq!((difference.added, difference.removed), (vec!["new".to_owned()], vec!["gone".to_owned()]));
    assert_eq!(sale(&world, "fest", "later", "shop").send().await.unwrap().status(), 403);
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_listens_to_the_network_is_not_opened_to_everybody_though_the_file_names_a_loopback_address() {
    let wide = with(instances(&[]), &[("BRIDGE_SERVER__LISTEN", "0.0.0.0:0")]);
    let world = start(gateway(&[]), &wide).await;
    let open = with(instances(&[]), &[("BRIDGE_AUTH__MODE", "none"), ("BRIDGE_SERVER__LISTEN", "127.0.0.1:0")]);
    let why = world.reload(&open).await.unwrap_err();
    assert!(why.contains("auth.mode") && why.contains("waits for a restart"), "{why}");
    assert_eq!(world.http.get(format!("{}/v1/instances", world.url)).send().await.unwrap().status(), 401);
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_that_came_before_its_instance_is_told_to_come_again_once_it_is_there() {
    let world = start(gateway(&["Fest.2026"]), &instances(&[])).await;
    let (mut till, mut stranger) =
        (Till::at(&world, "/?instance=Fest.2026").await, Till::at(&world, "/?instance=nowhere").await);
    for till in [&mut till, &mut stranger] {
        assert_eq!(till.frame().await["result"]["error"], "invalid_instance");
    }
    world.reload(&instances(&["fest=Fest.2026"])).await.unwrap();
    assert_eq!(closed_with(&mut till).await, 1012);
    let mut till = Till::at(&world, "/?instance=Fest.2026").await;
    assert_eq!(till.ask_with("listpos", json!({}), Some(&key_of("Fest.2026"))).await["type"], "event");
    assert_eq!(stranger.ask("listpos", json!({})).await["result"]["error"], "invalid_instance", "it stays");
    world.stop().await.unwrap();
}
