//! Reads stay under the gateway's limits, and never pass off as fresh what a broadcast has ended.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use concertpos_simulator::{Action, Config, Counting, Fault, Garbage, Limits, Say, Scripted};
use reqwest::Method;
use support::events::Stream;
use support::{World, eventually, problem, together};

const PRODUCTS: &str = "/points-of-sale/1/products";

/// Shards that differ by less than half a second. What a connection brings within that after it opened may be news even
/// where another has brought it, and costs a refetch.
const THREE_LINKS: [(&str, &str); 2] = [("BRIDGE_GATEWAY__MIN_LINKS", "3"), ("BRIDGE_EVENTS__SKEW", "500ms")];

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_read_costs_no_command_and_a_known_copy_no_body() {
    let world = World::start().await;
    let first = world.get(PRODUCTS).await;
    assert_eq!(header(&first, "cache-status"), "concertpos-bridge; fwd=uri-miss; stored");
    let second = world.get(PRODUCTS).await;
    assert!(header(&second, "cache-status").starts_with("concertpos-bridge; hit; ttl="), "{second:?}");
    assert_eq!(header(&second, "cache-control"), "private, no-cache");
    assert_eq!(header(&second, "vary"), "Authorization, X-POS-Password, Accept-Encoding");
    assert!(!header(&second, "age").is_empty());
    let etag = header(&second, "etag");
    let third = world.request(Method::GET, PRODUCTS).header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!((third.status().as_u16(), header(&third, "etag")), (304, etag));
    assert_eq!(world.gateway.counts().command("listproducts").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_equal_reads_share_one_command_even_when_the_first_caller_leaves() {
    let world = Arc::new(World::start().await);
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 300 }).on("listproducts"));
    let leader = world.request(Method::GET, PRODUCTS).timeout(Duration::from_millis(100)).send();
    let leader = tokio::spawn(leader);
    eventually("the command is out", async || world.gateway.counts().command("listproducts").received == 1).await;
    let followers = (0..1000).map(|_| {
        let world = Arc::clone(&world);
        async move { world.get(PRODUCTS).await.status().as_u16() }
    });
    let answers = together(followers).await;
    assert!(leader.await.unwrap().is_err_and(|gone| gone.is_timeout()), "the leader left");
    assert!(answers.iter().all(|status| *status == 200));
    assert_eq!(world.gateway.counts().command("listproducts").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn updatepos_on_three_links_ends_freshness_at_once_and_costs_one_refetch() {
    let config = Config { broadcast_jitter: Duration::from_millis(50), ..Config::default() };
    let world = World::with(config, &THREE_LINKS).await;
    world.until_links_are_old(3).await;
    for round in 1..=5_u64 {
        assert_eq!(world.get(PRODUCTS).await.status(), 200);
        let price = format!("1{round}.50");
        world.gateway.change_product("demo", 1, 1, &format!("{{Price: {price}}}")).unwrap();
        assert_eq!(world.gateway.broadcast("demo", "updatepos", "{}").unwrap(), 3);
        eventually("the new price is served", async || {
            world.get(PRODUCTS).await.text().await.unwrap().contains(&price)
        })
        .await;
        // All copies of the broadcast have come once nothing more is refetched; each further read is a hit.
        for _ in 0..20 {
            assert!(world.get(PRODUCTS).await.text().await.unwrap().contains(&price));
        }
        assert_eq!(world.gateway.counts().command("listproducts").received, 1 + round, "one refetch a broadcast");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_a_broadcast_overtook_is_never_fresh() {
    let world = Arc::new(World::with(Config::default(), &THREE_LINKS).await);
    world.until_links_are_old(3).await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 400 }).on("listproducts").times(1));
    let early = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.get(PRODUCTS).await.text().await.unwrap() })
    };
    eventually("the command is out", async || {
        world.gateway.counts().command("listproducts").answered == 0
            && world.gateway.counts().command("listproducts").received == 1
    })
    .await;
    world.gateway.change_product("demo", 1, 1, "{Price: 77.50}").unwrap();
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    // Who asks once the broadcast is in never joins the fetch that was written before it.
    eventually("the new price is served", async || world.get(PRODUCTS).await.text().await.unwrap().contains("77.50"))
        .await;
    assert!(early.await.unwrap().contains("Products"), "whoever asked before it is answered all the same");
    assert!(world.get(PRODUCTS).await.text().await.unwrap().contains("77.50"));
    assert_eq!(world.gateway.counts().command("listproducts").received, 2, "the overtaken fetch was not enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_gateway_away_an_old_copy_is_served_labelled_unless_it_is_forbidden() {
    let world = World::start().await;
    let before = world.get(PRODUCTS).await.text().await.unwrap();
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get(support::ANY).await.status() == 503).await;
    let old = world.get(PRODUCTS).await;
    let label = header(&old, "cache-status");
    assert!(
        label.contains("fwd=stale") && label.contains("ttl=-") && label.contains("detail=gateway-unavailable"),
        "{label}"
    );
    assert_eq!(old.text().await.unwrap(), before);
    let strict = world.request(Method::GET, PRODUCTS).header("Cache-Control", "max-stale=0").send().await.unwrap();
    assert_eq!(problem(strict).await.code, "gateway-unavailable");
    let other = world.request(Method::GET, "/config").header("Cache-Control", "only-if-cached").send().await.unwrap();
    let other = problem(other).await;
    assert_eq!((other.status, other.code.as_str()), (504, "not-cached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_never_has_to_say_ratelimit_and_the_retry_after_is_true() {
    let window = Duration::from_secs(2);
    let limits = Limits { window, ..Limits::new(Counting::PerCommand) };
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__WINDOW", "2s"),
        ("BRIDGE_LIMITS__GUARD", "300ms"),
        ("BRIDGE_LIMITS__MAX_WAIT", "100ms"),
    ];
    let jitter = Duration::from_millis(200);
    let world = Arc::new(World::with(Config { limits, arrival_jitter: jitter, ..Config::default() }, &settings).await);
    // Ten different points of sale, 25 points each: the window has room for four.
    let reads = (1..=6).map(|pos| {
        let world = Arc::clone(&world);
        async move { world.get(&format!("/points-of-sale/{pos}/products")).await }
    });
    let answers = together(reads).await;
    let granted = answers.iter().filter(|response| response.status() == 200).count();
    assert_eq!(granted, 4);
    let quota = answers.iter().find(|response| response.status() == 200).unwrap();
    assert_eq!(header(quota, "ratelimit-policy"), "\"listproducts\";q=4;w=3");
    assert!(header(quota, "ratelimit").starts_with("\"listproducts\";r="));
    let refused = answers.into_iter().find(|response| response.status() == 429).unwrap();
    let refused = problem(refused).await;
    assert_eq!(refused.code, "rate-limited");
    let seconds = refused.retry_after.unwrap();
    assert!((1..=3).contains(&seconds), "{seconds}");
    // The promise that is tested is about this stretch of time.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(world.get("/points-of-sale/9/products").await.status(), 200);
    assert_eq!(world.gateway.counts().ratelimit_errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_behind_a_password_opens_to_that_password_alone_and_a_wrong_one_is_asked_once() {
    let world = World::start().await;
    let locked = "/points-of-sale/7/products";
    let with = |password: &'static str| world.request(Method::GET, locked).header("X-POS-Password", password).send();
    let check = world.request(Method::POST, "/points-of-sale/7/password-check");
    let check = check.json(&serde_json::json!({"password": "backstage"})).send().await.unwrap();
    let opened: serde_json::Value = check.json().await.unwrap();
    let password: &'static str =
        Box::leak(opened["password"].as_str().unwrap_or("backstage").to_owned().into_boxed_str());
    assert_eq!(with(password).await.unwrap().status(), 200, "{opened}");
    for _ in 0..5 {
        assert_eq!(problem(world.get(locked).await).await.code, "pos-password-rejected");
        assert_eq!(problem(with("wrong").await.unwrap()).await.code, "pos-password-rejected");
    }
    assert_eq!(with(password).await.unwrap().status(), 200);
    assert_eq!(world.gateway.counts().command("listproducts").received, 3, "one for each password, one for none");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_licence_is_fetched_once_at_start_and_no_caller_waits_for_it() {
    let world = World::start().await;
    eventually("the licence is there", async || world.gateway.counts().command("getlicense").answered == 1).await;
    eventually("and kept", async || header(&world.get("/license").await, "cache-status").contains("hit")).await;
    assert_eq!(world.gateway.counts().command("getlicense").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_ends_the_copies_of_its_transactions_where_they_are_kept() {
    let settings = [("BRIDGE_CACHE__LISTTRANSACTIONS__FRESH", "1h")];
    let world = World::with(Config::default(), &settings).await;
    let (here, there) = ("/points-of-sale/1/transactions?limit=2", "/points-of-sale/2/transactions?limit=2");
    let (before, _) = (world.get(here).await.text().await.unwrap(), world.get(there).await);
    assert_eq!(world.sale("k").send().await.unwrap().status(), 201);
    assert_ne!(world.get(here).await.text().await.unwrap(), before);
    assert!(header(&world.get(there).await, "cache-status").contains("hit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_way_a_fresh_copy_is_answered_the_answer_is_the_same() {
    let seller = support::token("seller", "pay,devices,events,operate");
    let seller: Vec<_> = seller.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let world = World::with(Config::default(), &seller).await;
    let paths = ["/config", "/deposit", "/license", "/points-of-sale", "/version", "/status", PRODUCTS];
    for path in paths.into_iter().chain(["/points-of-sale/1/payment-methods"]) {
        assert_eq!(world.get(path).await.status(), 200, "{path}");
        let etag = header(&world.get(path).await, "etag");
        for known in [None, Some("\"other\""), Some(etag.as_str())] {
            let ask = |accepted: &str| {
                let request = world.request(Method::GET, path).header("Accept", accepted);
                known.map_or(request.try_clone().unwrap(), |tag| request.header("If-None-Match", tag))
            };
            // A wish that has to be looked at is enough to be routed.
            let (short, long) = (ask("*/*").send().await.unwrap(), ask("text/html, */*").send().await.unwrap());
            let facts = |response: &reqwest::Response| {
                let mut headers: Vec<_> =
                    response.headers().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                // These differ between any two answers.
                headers.retain(|(name, _)| !["x-request-id", "date", "age", "cache-status"].contains(&name.as_str()));
                headers.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
                (response.status(), response.version(), headers)
            };
            assert_eq!(facts(&short), facts(&long), "{path} {known:?}");
            assert!(header(&short, "cache-status").starts_with("concertpos-bridge; hit; ttl="));
            assert_eq!(short.text().await.unwrap(), long.text().await.unwrap());
        }
    }
    // Who may not read gets no copy by the short way either, known or not.
    for (token, code) in [("nobody-s", "unauthenticated"), ("", "unauthenticated"), ("seller", "forbidden")] {
        let answer = world.http.get(world.path(PRODUCTS)).bearer_auth(token).send().await.unwrap();
        assert_eq!(problem(answer).await.code, code, "{token}");
    }
}

/// What an answer says, but for what differs between any two.
async fn comparable(response: reqwest::Response) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<_> =
        response.headers().iter().map(|(name, _)| (name.to_string(), header(&response, name.as_str()))).collect();
    headers.retain(|(name, _)| !["x-request-id", "date", "age", "content-length"].contains(&name.as_str()));
    headers.sort();
    let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
    let without_id = |body: &str| {
        let mut document: serde_json::Value = serde_json::from_str(body).unwrap();
        document.as_object_mut().unwrap().remove("request_id");
        document.to_string()
    };
    (status, headers, if status == 200 { body } else { without_id(&body) })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_way_a_read_of_the_gateway_is_answered_the_answer_is_the_same() {
    let mut settings = support::token("seller", "pay,devices,events,operate");
    settings.push(("BRIDGE_LIMITS__CAPACITY".to_owned(), "1000".to_owned()));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    // One of each, since what the first is told of the budget is not what the second is told.
    let (one, other) =
        (World::with(Config::default(), &settings).await, World::with(Config::default(), &settings).await);
    let transactions = "/points-of-sale/1/transactions";
    let with_limit = format!("{transactions}?limit=1");
    for path in [
        "/config",
        "/version",
        transactions,
        &with_limit,
        "/points-of-sale/7/products",
        "/points-of-sale/99999/products",
    ] {
        for token in [None, Some("nobody-s"), Some("seller")] {
            let ask = |world: &World, accepted: &str| {
                let request = world.request(Method::GET, path).header("Accept", accepted);
                token.map_or(request.try_clone().unwrap(), |token| {
                    world.http.get(world.path(path)).header("Accept", accepted).bearer_auth(token)
                })
            };
            let (short, long) =
                (ask(&one, "*/*").send().await.unwrap(), ask(&other, "text/html, */*").send().await.unwrap());
            assert_eq!(comparable(short).await, comparable(long).await, "{path} {token:?}");
        }
    }
    // Nothing that has to be judged by the router is taken for something else.
    for (path, code) in [
        ("/points-of-sale/1/transactions?limit=0", "invalid-request"),
        ("/points-of-sale/1/transactions?limit=1&limit=2", "invalid-request"),
        ("/points-of-sale/1/products?limit=1", "invalid-request"),
        ("/points-of-sale/1x/products", "invalid-request"),
    ] {
        assert_eq!(problem(one.get(path).await).await.code, code, "{path}");
    }
    let elsewhere = one.http.get(one.path("/config").replace("/demo/", "/elsewhere/")).bearer_auth("demo-key");
    assert!(["forbidden", "unknown-instance"].contains(&&*problem(elsewhere.send().await.unwrap()).await.code));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_stale_copies_of_a_given_age_are_welcome_and_a_broadcast_begins_it() {
    let world = World::start().await;
    assert_eq!(world.get(PRODUCTS).await.status(), 200);
    // Old enough that its age and the time since the broadcast cannot be taken for one another.
    eventually("the copy has some age", async || {
        header(&world.get(PRODUCTS).await, "age").parse::<u64>().unwrap() >= 3
    })
    .await;
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    world.gateway.add_fault(Fault::new(Action::Error { word: "error_exec".into(), code: None, and_reply: false }));
    let ask = |wish: &'static str| world.request(Method::GET, PRODUCTS).header("Cache-Control", wish).send();
    eventually("the broadcast is in", async || {
        header(&ask("max-stale=60").await.unwrap(), "cache-status").contains("detail=gateway-error")
    })
    .await;
    let within = ask("max-stale=2").await.unwrap();
    assert_eq!(within.status(), 200, "it has been stale for less than its age");
    assert_eq!(problem(ask("max-stale=0").await.unwrap()).await.code, "gateway-error");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_that_touched_a_budget_says_what_is_left_of_it() {
    let settings = [("BRIDGE_LIMITS__CAPACITY", "50"), ("BRIDGE_LIMITS__MAX_WAIT", "10ms")];
    let world = World::with(Config::default(), &settings).await;
    let sale = world.sale("k").send().await.unwrap();
    assert_eq!(header(&sale, "ratelimit-policy"), "\"payitems\";q=50;w=31");
    assert_eq!(header(&world.sale("k").send().await.unwrap(), "ratelimit"), "", "a replay touches nothing");
    assert_eq!(header(&world.get("/version").await, "ratelimit"), "\"version\";r=0;t=31");
    let device = world.request(Method::PUT, "/devices/d1").send().await.unwrap();
    assert_eq!(header(&device, "ratelimit-policy"), "\"registerdevice\";q=5;w=31");
    let raw = world.request(Method::POST, "/commands/getstatus").send().await.unwrap();
    assert_eq!(header(&raw, "ratelimit-policy"), "\"getstatus\";q=3;w=31");
    let no_more = world.request(Method::GET, "/version").header("Cache-Control", "max-stale=0, no-cache");
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    let fresh = no_more.send().await.unwrap();
    assert_eq!(header(&fresh, "ratelimit"), "", "a copy younger than min_age answers without touching anything");
    for pos in 1..=3 {
        let answer = world.get(&format!("/points-of-sale/{pos}/products")).await;
        let left = header(&answer, "ratelimit");
        if pos == 3 {
            assert_eq!((answer.status().as_u16(), header(&answer, "retry-after")), (429, "31".to_owned()));
        }
        assert!(left.starts_with(&format!("\"listproducts\";r={};t=", 2_u64.saturating_sub(pos))), "{left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_updatepos_comes_no_old_price_is_fresh_and_each_key_is_fetched_once_for_it() {
    let latency = (Duration::from_millis(5), Duration::from_millis(60));
    let config = Config { broadcast_jitter: Duration::from_millis(80), latency, seed: 7, ..Config::default() };
    let world = Arc::new(World::with(config, &THREE_LINKS).await);
    world.until_links_are_old(3).await;
    let pages = [PRODUCTS, "/points-of-sale/1/payment-methods"];
    for page in pages {
        assert_eq!(world.get(page).await.status(), 200);
    }
    let rounds = 12_u64;
    for round in 1..=rounds {
        let price = format!("{}.25", 100 + round);
        world.gateway.change_product("demo", 1, 1, &format!("{{Price: {price}}}")).unwrap();
        world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
        // Readers all the while: before the broadcast is in, during the fetch it causes, and after it.
        let readers = (0..8).map(|_| {
            let (world, price) = (Arc::clone(&world), price.clone());
            async move {
                let mut seen = false;
                for _ in 0..25 {
                    let response = world.get(PRODUCTS).await;
                    let status = header(&response, "cache-status");
                    let is_new = response.text().await.unwrap().contains(&price);
                    assert!(is_new || !seen, "an old price after the new one: {status}");
                    seen |= is_new;
                    assert_eq!(world.get("/points-of-sale/1/payment-methods").await.status(), 200);
                }
                seen
            }
        });
        together(readers).await;
        eventually("the new price is served", async || {
            world.get(PRODUCTS).await.text().await.unwrap().contains(&price)
        })
        .await;
        let counts = world.gateway.counts();
        for command in ["listproducts", "listpm"] {
            eventually("each key is fetched once", async || world.gateway.counts().command(command).answered > round)
                .await;
            assert_eq!(counts.command(command).received, 1 + round, "{command} in round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_answer_has_a_tag_that_says_so_and_that_is_known_again() {
    let world = World::start().await;
    let ask = |path: &'static str, name: &'static str, value: String| {
        world.request(Method::GET, path).header(name, value).send()
    };
    let tag = |answer: &reqwest::Response| answer.headers()["etag"].to_str().unwrap().to_owned();
    let plain = world.get("/points-of-sale").await;
    let packed = ask("/points-of-sale", "Accept-Encoding", "gzip".into()).await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert_eq!(tag(&packed), format!("{}-gzip\"", tag(&plain).trim_end_matches('"')), "other bytes");
    let asked = async |accepted: &str, known: &str| {
        let request = world.request(Method::GET, "/points-of-sale").header("If-None-Match", known);
        let answer = request.header("Accept-Encoding", accepted).send().await.unwrap();
        assert_eq!(answer.headers().get_all("vary").iter().count(), 1);
        assert_eq!(header(&answer, "vary"), "Authorization, X-POS-Password, Accept-Encoding");
        (answer.status().as_u16(), tag(&answer))
    };
    for (accepted, had, other) in [("gzip", &packed, &plain), ("identity", &plain, &packed)] {
        assert_eq!(asked(accepted, &tag(had)).await, (304, tag(had)));
        // Whoever has it in another coding only may not be told that it has what it asks for.
        assert_eq!(asked(accepted, &tag(other)).await, (200, tag(had)), "{accepted}");
        assert_eq!(asked(accepted, &format!("{}, W/{}", tag(other), tag(had))).await, (304, tag(had)));
    }

    assert_eq!(world.sale("k").send().await.unwrap().status(), 201);
    let records: serde_json::Value = world.get("/payments").await.json().await.unwrap();
    let path = format!("/payments/{}", records["payments"][0]["id"].as_str().unwrap());
    let record = world.request(Method::GET, &path).header("Accept-Encoding", "gzip").send().await.unwrap();
    assert!(!record.headers().contains_key("content-encoding"), "nor is a coding named that is none");
    assert!(tag(&record).starts_with('"'), "`If-Match` needs it as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_not_understood_is_asked_for_once_and_the_old_copy_stands_in() {
    let settings = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")];
    let world = World::with(Config::default(), &settings).await;
    let received = || world.gateway.counts().command("listproducts").received;
    let garbage = [Garbage::NotUtf8, Garbage::Text, Garbage::Binary, Garbage::Truncated];
    let garbage = garbage.map(|kind| Action::Garbage { kind, instead: true });
    let no_object = ["[]", "7"].map(|json| {
        let parameters = Some(json.parse().unwrap());
        Action::Script { frames: vec![Scripted { after_ms: 0, say: Say::Reply { parameters } }] }
    });
    for (number, action) in (1..).zip(garbage.into_iter().chain(no_object)) {
        let (asked, kind) = (received(), format!("{action:?}"));
        world.gateway.add_fault(Fault::new(action).on("listproducts"));
        let page = format!("/points-of-sale/{number}/products");
        assert_eq!(problem(world.get(&page).await).await.code, "gateway-protocol-violation", "{kind}");
        assert_eq!(received(), asked + 1, "{kind} is asked for once");
        world.gateway.clear_faults();
        assert_eq!(world.get(&page).await.status(), 200, "{kind} is not remembered");
    }
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    world.gateway.add_fault(Fault::new(Action::Garbage { kind: Garbage::NotUtf8, instead: true }));
    eventually("the old copy stands in", async || {
        let answer = world.get(PRODUCTS).await;
        answer.status() == 200 && header(&answer, "cache-status").contains("detail=gateway-protocol-violation")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_connection_is_lost_each_time_is_told_so_and_not_that_it_took_too_long() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::CutAfterApply).on("listproducts"));
    let lost = problem(world.get(PRODUCTS).await).await;
    assert_eq!((lost.status, lost.code.as_str()), (503, "gateway-unavailable"));
    assert!(lost.retry_after.is_some() && lost.body["retryable"] == true);
    let detail = lost.body["detail"].as_str().unwrap();
    assert!(detail.contains("lost before it answered"), "{detail}");
    assert_eq!(world.gateway.counts().command("listproducts").received, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_nobody_knows_is_not_remembered_and_leaves_the_old_copy_true() {
    let world = World::start().await;
    let received = || world.gateway.counts().command("listproducts").received;
    let unknown = Action::Error { word: "backend_busy".into(), code: None, and_reply: false };
    world.gateway.add_fault(Fault::new(unknown.clone()).on("listproducts"));
    let refused = problem(world.get(PRODUCTS).await).await;
    assert_eq!((refused.code.as_str(), &refused.body["retryable"]), ("gateway-error", &true.into()));
    world.gateway.clear_faults();
    assert_eq!(world.get(PRODUCTS).await.status(), 200, "retryable means that it is asked again");
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    world.gateway.add_fault(Fault::new(unknown).on("listproducts"));
    eventually("the old copy stands in", async || {
        let answer = world.get(PRODUCTS).await;
        assert_eq!(answer.status(), 200);
        header(&answer, "cache-status").contains("detail=gateway-error")
    })
    .await;
    let asked = received();
    let forbidden = world.request(Method::GET, PRODUCTS).header("Cache-Control", "max-stale=0").send().await.unwrap();
    assert_eq!(problem(forbidden).await.code, "gateway-error");
    assert_eq!(received(), asked + 1, "each is asked for");
    world.gateway.clear_faults();
    assert!(!header(&world.get(PRODUCTS).await, "cache-status").contains("detail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_try_of_a_read_is_paid_for_and_none_is_begun_that_cannot_be() {
    let settings = [
        ("BRIDGE_LIMITS__CAPACITY", "50"),
        ("BRIDGE_LIMITS__MAX_WAIT", "10ms"),
        ("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "400ms"),
    ];
    let world = World::with(Config::default(), &settings).await;
    world.gateway.add_fault(Fault::new(Action::Hang).on("listproducts").times(1));
    let answer = world.get(PRODUCTS).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "ratelimit")), (200, "\"listproducts\";r=0;t=31".to_owned()));
    assert_eq!(world.gateway.counts().command("listproducts").received, 2);
    world.gateway.add_fault(Fault::new(Action::Hang).on("listpm"));
    let hung = problem(world.get("/points-of-sale/1/payment-methods").await).await;
    assert_eq!(hung.code, "gateway-timeout", "why it had to be asked again, not that it could not be");
    assert_eq!(world.gateway.counts().command("listpm").received, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_with_a_tag_is_judged_by_the_tags_of_the_request() {
    let world = World::start().await;
    assert_eq!(world.sale("k").send().await.unwrap().status(), 201);
    let records: serde_json::Value = world.get("/payments").await.json().await.unwrap();
    let record = format!("/payments/{}", records["payments"][0]["id"].as_str().unwrap());
    let reads = ["/config", "/license", PRODUCTS, record.as_str()].map(|path| world.path(path));
    let pages = ["/", "/dashboard/page.css", "/openapi.json", "/openapi-3.2.json", "/asyncapi.json"]
        .map(|path| format!("{}{path}", world.url));
    for url in reads.into_iter().chain(pages) {
        let ask = async |method: Method, fields: &[(&'static str, &str)]| {
            let mut request = world.http.request(method, &url).bearer_auth(support::KEY);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            request.send().await.unwrap()
        };
        let whole = ask(Method::GET, &[]).await;
        let tag = header(&whole, "etag");
        assert!(tag.len() > 2, "{url}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"a,*\" , {tag}"), "*".into()] {
            for method in [Method::GET, Method::HEAD] {
                let answer = ask(method, &[("If-None-Match", &known)]).await;
                assert_eq!((answer.status().as_u16(), header(&answer, "etag")), (304, tag.clone()), "{url} {known}");
                for name in ["vary", "cache-control", "x-content-type-options"] {
                    assert_eq!(header(&answer, name), header(&whole, name), "{url} {name}");
                }
                assert!(!answer.headers().contains_key("content-type"), "{url}");
                assert_eq!(answer.text().await.unwrap(), "");
            }
        }
        for other in ["\"a,*\"", "\"*\"", "a", ""] {
            assert_eq!(ask(Method::GET, &[("If-None-Match", other)]).await.status(), 200, "{url} {other}");
        }
        for wanted in [tag.clone(), format!("\"x\", {tag}"), "*".into()] {
            assert_eq!(ask(Method::GET, &[("If-Match", &wanted)]).await.status(), 200, "{url} {wanted}");
        }
        for other in ["\"x\"".to_owned(), format!("W/{tag}"), "\"x\", \"y\"".into()] {
            let refused = problem(ask(Method::GET, &[("If-Match", &other)]).await).await;
            assert_eq!((refused.status, refused.code.as_str()), (412, "precondition-failed"), "{url} {other}");
        }
        let both = ask(Method::GET, &[("If-Match", "\"x\""), ("If-None-Match", &tag)]).await;
        assert_eq!(both.status(), 412, "{url}: If-Match comes first");
    }
    let nothing_there = world.request(Method::GET, "/payments/0").header("If-Match", "\"x\"").send().await.unwrap();
    assert_eq!(problem(nothing_there).await.status, 404, "what is refused anyway is refused for that");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_pages_of_other_origins_may_read_every_answer_depends_on_the_origin_and_says_so_in_one_line() {
    let world = World::with(Config::default(), &[("BRIDGE_SERVER__CORS_ORIGINS", "https://shop.example")]).await;
    let names = |answer: &reqwest::Response| {
        let lines: Vec<_> = answer.headers().get_all("vary").iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let mut names: Vec<_> = lines[0].split(", ").map(str::to_ascii_lowercase).collect();
        names.sort();
        names
    };
    let mut expected = ["authorization", "x-pos-password", "accept-encoding", "origin"].to_vec();
    expected.extend(["access-control-request-method", "access-control-request-headers"]);
    expected.sort_unstable();
    for accepted in ["gzip", "identity"] {
        for origin in [None, Some("https://shop.example"), Some("https://elsewhere.example")] {
            let mut request = world.request(Method::GET, PRODUCTS).header("Accept-Encoding", accepted);
            if let Some(origin) = origin {
                request = request.header("Origin", origin);
            }
            assert_eq!(names(&request.send().await.unwrap()), expected, "{accepted} {origin:?}");
        }
        // By the short way, if it were taken.
        assert_eq!(names(&world.get(PRODUCTS).await), expected);
    }
}

/// A read of the old price that is under way while `updatepos` comes, whose reply arrives only afterwards; and a listener
/// that has heard the broadcast, and with it the cache.
async fn overtaken() -> (Arc<World>, tokio::task::JoinHandle<String>) {
    let world = Arc::new(World::start().await);
    world.until_links_are_old(2).await;
    let mut stream = Stream::of(world.get("/events").await);
    assert_eq!(stream.next().await.name, "ready");
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 1500 }).on("listproducts").times(1));
    let early = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.get(PRODUCTS).await.text().await.unwrap() })
    };
    eventually("the command is out", async || world.gateway.counts().command("listproducts").received == 1).await;
    world.gateway.change_product("demo", 1, 1, "{Price: 77.50}").unwrap();
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    assert_eq!(stream.next().await.message(), "updatepos");
    (world, early)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_very_first_request_after_a_broadcast_joins_no_fetch_from_before_it() {
    let (world, early) = overtaken().await;
    let answer = world.get(PRODUCTS).await;
    assert!(!early.is_finished(), "the fetch from before is still under way");
    assert!(!header(&answer, "cache-status").contains("collapsed"), "{answer:?}");
    assert!(answer.text().await.unwrap().contains("77.50"));
    assert!(!early.await.unwrap().contains("77.50"), "its reply is from before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_as_old_as_its_command_and_not_as_its_reply() {
    let (world, early) = overtaken().await;
    assert!(!early.await.unwrap().contains("77.50"), "its reply is from before");
    // The very first request after the reply: a second one would be right even if this one is wrong.
    let answer = world.get(PRODUCTS).await;
    let status = header(&answer, "cache-status");
    assert!(answer.text().await.unwrap().contains("77.50"), "an old price is called fresh: {status}");
    assert_eq!(world.gateway.counts().command("listproducts").received, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_judged_anew_when_it_stands_in() {
    let settings = [("BRIDGE_SERVER__DEADLINE", "3s"), ("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "3s")];
    let world = World::with(Config::default(), &settings).await;
    assert_eq!(world.get(PRODUCTS).await.status(), 200);
    let mut stream = Stream::of(world.get("/events").await);
    assert_eq!(stream.next().await.name, "ready");
    world.gateway.add_fault(Fault::new(Action::Hang).on("listproducts"));
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    assert_eq!(stream.next().await.message(), "updatepos");
    let ask =
        async |most: &str| world.request(Method::GET, PRODUCTS).header("Cache-Control", most).send().await.unwrap();
    // It is young enough when the fetch begins, and no longer when that is given up.
    let (young, old) = tokio::join!(ask("max-stale=1"), ask("max-stale=60"));
    assert_eq!(problem(young).await.code, "gateway-timeout");
    assert_eq!(old.status(), 200);
    assert!(header(&old, "cache-status").contains("detail=gateway-timeout"), "{old:?}");
}
