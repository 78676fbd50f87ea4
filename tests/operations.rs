//! Running the bridge: what it tells its operator, and what its operator can do about it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeSet;

use concertpos_simulator::{Action, Config, Fault, Instance};
use reqwest::Method;
use serde_json::{Value, json};
use support::{ANY, OPERATOR, World, eventually, problem};

async fn status(world: &World) -> Value {
    let response = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
    response.json().await.unwrap()
}

fn open_links(status: &Value, shard: &str) -> usize {
    let shards = status["instances"][0]["shards"].as_array().unwrap();
    shards.iter().find(|known| known["shard"] == shard).unwrap()["links"].as_array().unwrap().len()
}

async fn cordon(world: &World, shard: &str, body: Value) -> reqwest::Response {
    let url = format!("{}/v1/bridge/shards/{shard}", world.url);
    world.http.request(Method::PUT, url).bearer_auth(OPERATOR).json(&body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_shards_links_budgets_copies_and_payments() {
    let world = World::start().await;
    assert_eq!(world.get("/config").await.status(), 200);
    assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
    eventually("links on two shards", async || {
        let status = status(&world).await;
        ["exon", "cyton", "zeus"].iter().filter(|shard| open_links(&status, shard) > 0).count() >= 2
    })
    .await;
    let status = status(&world).await;
    assert_eq!((&status["version"], &status["state"]), (&json!(env!("CARGO_PKG_VERSION")), &json!("serving")));
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(status["instances"][0]["instance"], "demo");
    let budgets = status["instances"][0]["budgets"].as_array().unwrap();
    let config = budgets.iter().find(|window| window["command"] == "getconfig").unwrap();
    assert_eq!(config["used_points"], 25, "{config}");
    // The configuration and, from the start, the licence.
    assert!(status["cache"]["copies"].as_u64().unwrap() >= 1 && status["cache"]["bytes"].as_u64().unwrap() > 0);
    assert_eq!((&status["payments"]["booked"], &status["payments"]["unknown"]), (&json!(1), &json!(0)));
    assert_eq!(status["subscribers"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_operator_sees_the_bridge_or_steers_it() {
    let world = World::start().await;
    for (method, path) in [(Method::GET, "/v1/bridge"), (Method::PUT, "/v1/bridge/shards/exon")] {
        let ask =
            || world.http.request(method.clone(), format!("{}{path}", world.url)).json(&json!({"cordoned": true}));
        assert_eq!(problem(ask().send().await.unwrap()).await.code, "unauthenticated");
        assert_eq!(problem(ask().bearer_auth(support::KEY).send().await.unwrap()).await.code, "forbidden");
    }
    assert_eq!(status(&world).await["instances"][0]["shards"][0]["cordoned"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_shard_loses_its_links_and_gets_none_until_it_is_put_back() {
    let world = World::start().await;
    eventually("a link on exon", async || open_links(&status(&world).await, "exon") > 0).await;
    let answer = cordon(&world, "exon", json!({"cordoned": true})).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"shard": "exon", "cordoned": true}));
    eventually("exon is empty and another took its place", async || {
        let status = status(&world).await;
        open_links(&status, "exon") == 0 && open_links(&status, "cyton") + open_links(&status, "zeus") >= 2
    })
    .await;
    assert_eq!(world.get(ANY).await.status(), 200);
    // Also when another is needed.
    let opened = world.gateway.counts().shard("exon").opened;
    world.gateway.kill("cyton").unwrap();
    eventually("both links are on zeus", async || open_links(&status(&world).await, "zeus") >= 2).await;
    assert_eq!(world.gateway.counts().shard("exon").opened, opened);
    world.gateway.revive("cyton").unwrap();
    assert_eq!(cordon(&world, "exon", json!({"cordoned": false})).await.status(), 200);
    assert_eq!(cordon(&world, "zeus", json!({"cordoned": true})).await.status(), 200);
    eventually("exon serves again", async || open_links(&status(&world).await, "exon") > 0).await;
    assert_eq!(problem(cordon(&world, "nowhere", json!({"cordoned": true})).await).await.code, "not-found");
    assert_eq!(problem(cordon(&world, "exon", json!({"cordoned": "yes"})).await).await.code, "invalid-request");
}

async fn metrics(world: &World) -> String {
    let response = world.http.get(format!("{}/metrics", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    response.text().await.unwrap()
}

fn sample(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("concertpos_bridge_{name} ")));
    assert!(line.is_some(), "no {name} in\n{metrics}");
    line.unwrap_or_default().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_what_happened() {
    let world = World::start().await;
    for _ in 0..3 {
        assert_eq!(world.get("/config").await.status(), 200);
    }
    assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
    assert_eq!(world.get_open("/no/such/path/of-mine").await.status(), 404);
    world.gateway.broadcast("demo", "hello", "{}").unwrap();
    eventually("the broadcast is counted", async || {
        sample(&metrics(&world).await, "broadcast_frames_total{pos_instance=\"demo\"}") >= 2
    })
    .await;
    let text = metrics(&world).await;
    for (name, expected) in [
        ("requests_total{route=\"/v1/instances/{instance}/config\",status=\"200\"}", 3),
        ("request_duration_seconds_count{route=\"/v1/instances/{instance}/config\"}", 3),
        ("requests_total{route=\"unmatched\",status=\"404\"}", 1),
        ("exchanges_total{pos_instance=\"demo\",command=\"getconfig\",outcome=\"replied\"}", 1),
        ("exchange_duration_seconds_count{pos_instance=\"demo\",command=\"payitems\"}", 1),
        ("budget_used_points{pos_instance=\"demo\",command=\"getconfig\"}", 25),
        ("budget_wait_seconds_count{pos_instance=\"demo\",class=\"payment\"}", 1),
        ("cache_answers_total{pos_instance=\"demo\",answer=\"miss\"}", 2),
        ("cache_answers_total{pos_instance=\"demo\",answer=\"hit\"}", 2),
        ("budget_spent_points_total{pos_instance=\"demo\",caller=\"gateway-key\",command=\"getconfig\"}", 25),
        ("budget_spent_points_total{pos_instance=\"demo\",caller=\"gateway-key\",command=\"payitems\"}", 1),
        ("payments{pos_instance=\"demo\",state=\"booked\"}", 1),
        ("journal_available", 1),
        ("draining", 0),
        ("subscribers", 0),
        ("caller_connections_ended_total{why=\"turned-away\"}", 0),
        ("native_connections{key=\"none\"}", 0),
        (concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1),
    ] {
        assert_eq!(sample(&text, name), expected, "{name}\n{text}");
    }
    let free: u64 = ["exon", "cyton", "zeus"]
        .iter()
        .map(|shard| sample(&text, &format!("links{{pos_instance=\"demo\",shard=\"{shard}\",state=\"free\"}}")))
        .sum();
    assert_eq!(free, 2);
    assert!(!text.contains("of-mine"), "a path as a caller wrote it is no label");
}

/// Names in the alert rules and on the page, without what tells counters.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter_map(|word| word.strip_prefix("concertpos_bridge_")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_at_rest_takes_little_of_a_scrape_and_shows_what_alerts_read() {
    let world = World::start().await;
    let licence =
        "concertpos_bridge_exchanges_total{pos_instance=\"demo\",command=\"getlicense\",outcome=\"replied\"} 1";
    eventually("the licence is there", async || metrics(&world).await.contains(licence)).await;
    eventually("both links are there", async || {
        metrics(&world).await.lines().filter(|line| line.contains("state=\"free\"") && line.ends_with(" 1")).count()
            == 2
    })
    .await;
    let of_the_instance = |page: &str| {
        page.split_inclusive('\n').filter(|line| line.contains("pos_instance=\"demo\"")).collect::<String>()
    };
    let at_rest = of_the_instance(&metrics(&world).await);
    assert!(at_rest.len() <= 2000, "{} bytes:\n{at_rest}", at_rest.len());
    let page = metrics(&world).await;
    let series: String = page.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
    let (rules, shown) = (include_str!("../deploy/prometheus-rules.yaml"), names(&series));
    // No caller has asked anything yet. These are there only while there is something to tell, which an alert sees at once.
    let told = ["attention", "payments", "sales_total", "budget_spent_points_total"];
    // There is one bridge: nothing is owned.
    let is_shown = |name: &&str| shown.contains(name) || told.contains(name) || name.starts_with("cluster_");
    let missing: Vec<_> = names(rules).into_iter().filter(|name| !is_shown(name)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "alerts read what is not there");
    for state in ["caller", "payment"] {
        assert_eq!(sample(&page, &format!("budget_denied_total{{pos_instance=\"demo\",class=\"{state}\"}}")), 0);
    }

    assert_eq!(world.get("/config").await.status(), 200);
    let in_use = of_the_instance(&metrics(&world).await);
    for series in [
        "exchanges_total{pos_instance=\"demo\",command=\"getlicense\",outcome=\"lost\"} 0",
        "exchange_duration_seconds_count{pos_instance=\"demo\",command=\"getlicense\"} 1",
        "exchange_duration_seconds_count{pos_instance=\"demo\",command=\"getconfig\"} 1",
        "budget_wait_seconds_count{pos_instance=\"demo\",class=\"caller\"} 2",
        "budget_waiting{pos_instance=\"demo\",class=\"payment\"} 0",
        "budget_capacity_points{pos_instance=\"demo\",command=\"getconfig\"} 100",
    ] {
        assert!(in_use.contains(series), "{series}\n{in_use}");
        assert!(!at_rest.contains(series), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_a_caller_invents_is_no_label() {
    let world = World::start().await;
    let raw = world.http.post(world.path("/commands/invented_here?reply=x")).bearer_auth(OPERATOR).json(&json!({}));
    assert!(raw.send().await.unwrap().status().as_u16() >= 400);
    let text = metrics(&world).await;
    assert!(!text.contains("invented_here"), "{text}");
    assert_eq!(sample(&text, "exchange_duration_seconds_count{pos_instance=\"demo\",command=\"other\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_bridge_ends_what_is_under_way_and_begins_nothing_new() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 3_000 }).on("payitems"));
    let first = tokio::spawn(world.sale("first").send());
    eventually("it is on its way", async || world.gateway.counts().command("payitems").received == 1).await;
    world.ask_to_stop();
    eventually("a read is refused", async || world.get(ANY).await.status() == 503).await;
    for request in [world.request(Method::GET, ANY), world.sale("second"), world.request(Method::GET, "/config")] {
        let refused = problem(request.send().await.unwrap()).await;
        assert_eq!((refused.status, refused.code.as_str()), (503, "shutting-down"));
    }
    assert_eq!(first.await.unwrap().unwrap().status(), 201);
    assert_eq!(world.gateway.counts().command("payitems").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_waits_for_a_link_when_the_bridge_stops_is_sent_and_answered() {
    let settings = [("BRIDGE_GATEWAY__MIN_LINKS", "1"), ("BRIDGE_GATEWAY__MAX_LINKS", "1")];
    let world = World::with(Config::default(), &settings).await;
    // A payment opens a second link where one is all there is, and no third.
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 1_500 }).on("payitems").times(2));
    let first = tokio::spawn(world.sale("first").send());
    let second = tokio::spawn(world.sale("second").send());
    eventually("both are on their way", async || world.gateway.counts().command("payitems").received == 2).await;
    let third = tokio::spawn(world.sale("third").send());
    eventually("the other waits", async || status(&world).await["payments"]["reserved"] == 1).await;
    world.ask_to_stop();
    // Not a read: until it is refused it would wait for a link, too.
    eventually("it stops", async || world.get_open("/readyz").await.status() == 503).await;
    assert_eq!(world.gateway.counts().command("payitems").received, 2, "it waits still");
    for sale in [first, second, third] {
        assert_eq!(sale.await.unwrap().unwrap().status(), 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_many_instances_may_have_metrics_that_do_not_tell_them_apart() {
    let settings = [
        ("BRIDGE_TELEMETRY__INSTANCE_LABEL", "false"),
        ("BRIDGE_INSTANCES__FEST__API_KEY", "fest-key"),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES", "*"),
    ];
    let gateway = Config {
        instances: ["demo", "fest"]
            .map(|slug| Instance { slug: slug.to_owned(), api_key: format!("{slug}-key") })
            .into(),
        ..Config::default()
    };
    let world = World::with(gateway, &settings).await;
    assert_eq!(world.sale("one").send().await.unwrap().status(), 201);
    eventually("both asked for their licences", async || {
        metrics(&world).await.contains("exchanges_total{command=\"getlicense\",outcome=\"replied\"} 2\n")
    })
    .await;
    let text = metrics(&world).await;
    assert!(!text.contains("pos_instance"), "{text}");
    assert_eq!(sample(&text, "sales_total{outcome=\"booked\"}"), 1);
    assert_eq!(sample(&text, "shard_good{shard=\"exon\"}"), 1);
}
