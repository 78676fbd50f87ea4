//! Money: a payment leaves at most once, whatever happens, and the answer says what is known.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use concertpos_simulator::{Action, Config, Fault};
use support::{ANY, World, eventually, problem};

const QUICK: &[(&str, &str)] = &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms")];

const SHARDS: [&str; 3] = ["exon", "cyton", "zeus"];

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_booked_once_and_answered_with_the_gateway_s_reply() {
    let world = World::start().await;
    let response = world.sale("k1").send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.text().await.unwrap(), r#"{"Items":1}"#);
    assert_eq!(world.gateway.counts().bookings("k1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_after_the_write_is_an_unknown_outcome_and_never_a_second_command() {
    let world = World::with(Config::default(), QUICK).await;
    for (key, action, booked) in [
        ("hang", Action::Hang, 0),
        ("hang-after", Action::HangAfterApply, 1),
        ("cut-before", Action::CutBeforeApply, 0),
        ("cut-after", Action::CutAfterApply, 1),
        ("late", Action::Late { ms: 900 }, 0),
        ("close", Action::CloseFrame { code: 1011 }, 0),
        ("half-open", Action::HalfOpen, 0),
        ("error-exec", Action::ErrorAfterApply { word: "error_exec".into() }, 1),
        ("new-word", Action::ErrorAfterApply { word: "never_heard_of".into() }, 1),
        ("instance", Action::Error { word: "invalid_instance".into(), code: None, and_reply: false }, 0),
    ] {
        world.gateway.add_fault(Fault::new(action).on("payitems").times(1));
        let problem = problem(world.sale(key).send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (504, "payment-outcome-unknown"), "{key}");
        let counts = world.gateway.counts();
        assert_eq!(counts.bookings(key), booked, "{key}");
        assert!(counts.payitems_received.values().all(|times| *times <= 1), "{key}: {:?}", counts.payitems_received);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_passed_on_as_what_it_means_and_nothing_was_booked() {
    let world = World::start().await;
    let limit = serde_json::json!({"command": "payitems", "retry_after": 2500});
    for (word, code, status, name) in [
        ("ratelimit", Some(limit), 429, "rate-limited"),
        ("missing_parameter_PaymentMethod", None, 400, "gateway-rejected-parameters"),
        ("api_key_expired", None, 502, "gateway-credentials-rejected"),
        ("no_api_key", None, 502, "gateway-credentials-rejected"),
        ("invalid_password", None, 403, "pos-password-rejected"),
        ("getlicense", None, 502, "license-invalid"),
        ("invalid_json", None, 502, "gateway-error"),
    ] {
        let refusal = Action::Error { word: word.into(), code, and_reply: false };
        world.gateway.add_fault(Fault::new(refusal).on("payitems").times(1));
        let problem = problem(world.sale(word).send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, name), "{word}: {}", problem.body);
        assert_eq!(problem.body["gateway"]["error"], word);
        if word == "ratelimit" {
            assert_eq!(problem.retry_after, Some(3), "2.5 s rounded up");
        }
        assert_eq!(world.gateway.counts().bookings(word), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_cancels_nothing() {
    let world = Arc::new(World::start().await);
    world.gateway.add_fault(Fault::new(Action::Late { ms: 200 }).on("payitems"));
    let gone = world.sale("gone").timeout(Duration::from_millis(50)).send().await;
    assert!(gone.is_err_and(|error| error.is_timeout()), "the caller left first");
    eventually("the sale is booked all the same", async || world.gateway.counts().bookings("gone") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_gateway_nothing_is_sent_and_the_caller_is_told_when_to_come_back() {
    let world = World::start().await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get(ANY).await.status() == 503).await;
    let problem = problem(world.sale("nobody-home").send().await.unwrap()).await;
    assert_eq!((problem.status, problem.code.as_str()), (503, "gateway-unavailable"));
    assert!(problem.retry_after.is_some());
    assert_eq!(problem.body["retryable"], true);
    assert_eq!(world.gateway.counts().command("payitems").received, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_before_reads_in_the_queue_for_a_link() {
    let settings = [("BRIDGE_GATEWAY__MIN_LINKS", "1"), ("BRIDGE_GATEWAY__MAX_LINKS", "1")];
    let world = Arc::new(World::with(Config::default(), &settings).await);
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 60 }).on("listtransactions"));
    let reads: Vec<_> = (1..=20)
        .map(|pos| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.get(&format!("/points-of-sale/{pos}/transactions")).await.status() })
        })
        .collect();
    eventually("one is under way", async || world.gateway.counts().command("listtransactions").received >= 1).await;
    let booked = world.sale("first").send().await.unwrap();
    assert_eq!(booked.status(), 201);
    let read = world.gateway.counts().command("listtransactions").received;
    assert!(read < 10, "the payment waited for {read} reads");
    for read in reads {
        assert_eq!(read.await.unwrap(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_replays_the_answer_however_the_sale_is_spelled_and_another_sale_is_refused() {
    let world = World::start().await;
    let first = world.sale("k").send().await.unwrap();
    let place = first.headers()["location"].to_str().unwrap().to_owned();
    assert!(!first.headers().contains_key("idempotent-replayed"));
    let body = first.text().await.unwrap();
    let request = |body: &'static str| {
        let request = world.request(reqwest::Method::POST, "/points-of-sale/1/payments");
        request.header("Idempotency-Key", "\"k\"").header("Content-Type", "application/json").body(body)
    };
    let spelled =
        r#"{"Products":[{"Amount":"2","ID":"1"},{"ID":2,"Amount":0}],"PaymentMethod":"1","posPassword":null}"#;
    let again = request(spelled).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(again.headers()["location"].to_str().unwrap(), place);
    assert_eq!(again.text().await.unwrap(), body);
    let other = request(r#"{"PaymentMethod":1,"Products":[{"ID":1,"Amount":3}]}"#).send().await.unwrap();
    let other = problem(other).await;
    assert_eq!((other.status, other.code.as_str()), (422, "idempotency-key-reused"));
    assert_eq!(world.gateway.counts().command("payitems").received, 1);
    let record = world.http.get(format!("{}{place}", world.url)).bearer_auth(support::KEY).send().await.unwrap();
    let record: serde_json::Value = record.json().await.unwrap();
    assert_eq!((&record["state"], &record["reply"]["Items"]), (&"booked".into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_callers_with_one_key_make_one_command_whatever_becomes_of_it() {
    let world = Arc::new(World::with(Config::default(), QUICK).await);
    for (key, action) in [("slow", Action::Latency { ms: 100 }), ("lost", Action::CutAfterApply)] {
        world.gateway.add_fault(Fault::new(action).on("payitems").times(1));
        let sales = (0..20).map(|_| {
            let world = Arc::clone(&world);
            async move { world.sale(key).send().await.unwrap().status().as_u16() }
        });
        let answers = support::together(sales).await;
        assert!(answers.iter().all(|status| [201, 409, 504].contains(status)), "{answers:?}");
        assert_eq!(world.gateway.counts().bookings(key), 1, "{key}");
    }
    assert_eq!(world.gateway.counts().command("payitems").received, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_stays_unknown_for_its_key_until_its_late_reply_comes() {
    let settings = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "200ms"), ("BRIDGE_GATEWAY__LATE_PATIENCE", "20s")];
    let world = World::with(Config::default(), &settings).await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 1500 }).on("payitems").times(1));
    let lost = world.sale("late").send().await.unwrap();
    let place = lost.headers()["location"].to_str().unwrap().to_owned();
    let lost = problem(lost).await;
    assert_eq!(lost.code, "payment-outcome-unknown");
    assert!(lost.body["detail"].as_str().unwrap().contains(&place), "{}", lost.body);
    assert_eq!(problem(world.sale("late").send().await.unwrap()).await.code, "payment-outcome-unknown");
    eventually("its late reply books it", async || world.sale("late").send().await.unwrap().status() == 201).await;
    assert_eq!(world.gateway.counts().command("payitems").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_or_unwritten_payment_frees_its_key() {
    let world = World::start().await;
    let refusal = Action::Error { word: "invalid_password".into(), code: None, and_reply: false };
    world.gateway.add_fault(Fault::new(refusal).on("payitems").times(1));
    assert_eq!(problem(world.sale("k").send().await.unwrap()).await.code, "pos-password-rejected");
    assert_eq!(world.sale("k").send().await.unwrap().status(), 201);
    assert_eq!(world.gateway.counts().bookings("k"), 1);

    for shard in SHARDS {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get(ANY).await.status() == 503).await;
    assert_eq!(problem(world.sale("unwritten").send().await.unwrap()).await.code, "gateway-unavailable");
    for shard in SHARDS {
        world.gateway.revive(shard).unwrap();
    }
    eventually("the gateway is back", async || world.get(ANY).await.status() == 200).await;
    assert_eq!(world.sale("unwritten").send().await.unwrap().status(), 201, "and not what was said before");
    let counts = world.gateway.counts();
    assert_eq!((counts.payitems_received["unwritten"], counts.bookings("unwritten")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_for_payments_is_there_for_them_when_reads_have_spent_the_rest() {
    let settings = [
        ("BRIDGE_LIMITS__SCOPE", "instance"),
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__PAY_RESERVE", "20"),
        ("BRIDGE_LIMITS__MAX_WAIT", "10ms"),
        ("BRIDGE_LIMITS__PAY_MAX_WAIT", "500ms"),
    ];
    let world = World::with(Config::default(), &settings).await;
    eventually("reads have spent what is there for them", async || world.get(ANY).await.status() == 429).await;
    let booked = world.sale("reserved").send().await.unwrap();
    assert_eq!(booked.status(), 201, "{}", booked.text().await.unwrap());
    assert_eq!(problem(world.get(ANY).await).await.code, "rate-limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_settles_an_unknown_payment_as_it_was_seen_and_its_key_answers_accordingly() {
    let world = World::with(Config::default(), QUICK).await;
    for (key, outcome, then) in [("yes", "booked", 201), ("no", "not-booked", 201)] {
        world.gateway.add_fault(Fault::new(Action::CutBeforeApply).on("payitems").times(1));
        let lost = world.sale(key).send().await.unwrap();
        let place = format!("{}{}", world.url, lost.headers()["location"].to_str().unwrap());
        let settle = |token: &'static str, tag: &'static str| {
            let decision = serde_json::json!({"outcome": outcome, "reason": "looked at the till"});
            world.http.put(format!("{place}/outcome")).bearer_auth(token).header("If-Match", tag).json(&decision).send()
        };
        let case = format!("{key} as {outcome}");
        assert_eq!(problem(settle(support::KEY, "\"0\"").await.unwrap()).await.code, "forbidden", "{case}");
        let changed = problem(settle(support::OPERATOR, "\"77\"").await.unwrap()).await;
        assert_eq!(changed.code, "precondition-failed", "{case}");
        for mistake in ["", ",", "2", "w/\"2\"", "\"2", "\"1\" \"2\"", "*, \"2\""] {
            let code = problem(settle(support::OPERATOR, mistake).await.unwrap()).await.code;
            assert_eq!(code, "invalid-request", "{case}: {mistake}");
        }
        for other in ["\"two\"", "\"0\", W/\"1\"", "\"*\""] {
            let code = problem(settle(support::OPERATOR, other).await.unwrap()).await.code;
            assert_eq!(code, "precondition-failed", "{case}: {other}");
        }
        let unseen = world.http.put(format!("{place}/outcome")).bearer_auth(support::OPERATOR);
        let decision = serde_json::json!({"outcome": outcome, "reason": "unseen"});
        assert_eq!(problem(unseen.json(&decision).send().await.unwrap()).await.code, "invalid-request");
        let seen = world.http.get(&place).bearer_auth(support::OPERATOR).send().await.unwrap();
        let tag: &'static str = Box::leak(seen.headers()["etag"].to_str().unwrap().to_owned().into_boxed_str());
        let settled = settle(support::OPERATOR, tag).await.unwrap();
        assert_eq!(settled.status(), 200, "{case}");
        let settled: serde_json::Value = settled.json().await.unwrap();
        let decided = (&settled["state"], &settled["settlement"]["by"]);
        assert_eq!(decided, (&"settled".into(), &"operator".into()), "{case}");
        assert_eq!(problem(settle(support::OPERATOR, tag).await.unwrap()).await.code, "outcome-conflict", "{case}");
        let again = world.sale(key).send().await.unwrap();
        assert_eq!(again.status(), then, "{case}");
        assert_eq!(again.headers().contains_key("idempotent-replayed"), key == "yes", "{case}");
    }
    let counts = world.gateway.counts();
    assert_eq!((counts.bookings("yes"), counts.bookings("no")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_settles_weakened_or_among_others_and_a_star_whatever_there_is() {
    let world = World::with(Config::default(), QUICK).await;
    let spellings: [fn(&str) -> String; 5] = [
        |tag| tag.to_owned(),
        |tag| format!("W/{tag}"),
        |tag| format!("\"99\", {tag}"),
        |tag| format!("\"a,b\" ,, W/{tag}"),
        |_| "*".to_owned(),
    ];
    for (number, spelled) in spellings.into_iter().enumerate() {
        world.gateway.add_fault(Fault::new(Action::CutBeforeApply).on("payitems").times(1));
        let lost = world.sale(&format!("lost-{number}")).send().await.unwrap();
        let place = format!("{}{}", world.url, lost.headers()["location"].to_str().unwrap());
        // Evidence may come at any time, and moves the tag.
        eventually("it is settled as it was seen", async || {
            let seen = world.http.get(&place).bearer_auth(support::OPERATOR).send().await.unwrap();
            let tag = seen.headers()["etag"].to_str().unwrap().to_owned();
            let settle = |unwanted: Option<&str>| {
                let decision = serde_json::json!({"outcome": "not-booked", "reason": "looked at the till"});
                let request = world.http.put(format!("{place}/outcome")).bearer_auth(support::OPERATOR);
                let request = unwanted.map_or(request.try_clone().unwrap(), |tag| request.header("If-None-Match", tag));
                request.header("If-Match", spelled(&tag)).json(&decision).send()
            };
            for unwanted in ["*", &tag] {
                let refused = problem(settle(Some(unwanted)).await.unwrap()).await;
                assert_eq!(refused.code, "precondition-failed", "If-None-Match: {unwanted}");
            }
            settle(Some("\"other\"")).await.unwrap().status() == 200
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_the_caller_s_own_and_everybody_s_with_operate() {
    let world = World::start().await;
    assert_eq!(world.sale("mine").send().await.unwrap().status(), 201);
    let sale = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}]});
    let theirs = world.http.post(world.path("/points-of-sale/1/payments")).bearer_auth(support::OPERATOR);
    let theirs = theirs.header("Idempotency-Key", "mine").json(&sale).send().await.unwrap();
    assert_eq!(theirs.status(), 201, "a key belongs to the token's name");
    let list = async |token: &str| -> usize {
        let response = world.http.get(world.path("/payments?state=booked")).bearer_auth(token).send().await.unwrap();
        response.json::<serde_json::Value>().await.unwrap()["payments"].as_array().unwrap().len()
    };
    assert_eq!((list(support::KEY).await, list(support::OPERATOR).await), (1, 2));
}

async fn listed(world: &World, query: &str) -> (Vec<String>, serde_json::Value) {
    let url = world.path(&format!("/payments{query}"));
    let answer = world.http.get(url).bearer_auth(support::OPERATOR).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    let page: serde_json::Value = answer.json().await.unwrap();
    let payments = page["payments"].as_array().unwrap().iter();
    (payments.map(|payment| payment["idempotency_key"].as_str().unwrap().to_owned()).collect(), page["next"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_comes_in_pages_and_is_narrowed_by_its_query() {
    let world = World::start().await;
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(world.sale(key).send().await.unwrap().status(), 201);
    }
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    while {
        let (page, next) = listed(&world, &query).await;
        assert!(page.len() <= 2);
        seen.extend(page);
        query = format!("?limit=2&cursor={}", next.as_str().unwrap_or_default());
        !next.is_null()
    } {}
    assert_eq!(seen, ["e", "d", "c", "b", "a"]);
    for (query, found) in [
        ("?idempotency_key=c", 1),
        ("?idempotency_key=%22c%22", 1),
        ("?idempotency_key=%20c", 1),
        ("?idempotency_key=x", 0),
        ("?state=booked", 5),
        ("?state=unreadable", 0),
        ("?pos_id=1", 5),
        ("?pos_id=2", 0),
        ("?from=2020-01-01T00:00:00Z", 5),
        ("?to=2020-01-01T00:00:00Z", 0),
        ("?caller=gateway-key&state=booked", 5),
        ("?caller=nobody", 0),
    ] {
        let (keys, next) = listed(&world, query).await;
        assert_eq!((keys.len(), next), (found, serde_json::Value::Null), "{query}");
    }
    let own = world.get("/payments?caller=gateway-key").await.json::<serde_json::Value>().await.unwrap();
    assert_eq!(own["payments"].as_array().unwrap().len(), 5);
    assert_eq!(problem(world.get("/payments?caller=operator").await).await.code, "forbidden");
    for mistake in [
        "idempotency_key=",
        "idempotency_key=%22c",
        "idempotency_key=a%20b",
        "state=lost",
        "pos_id=one",
        "from=yesterday",
        "to=1",
        "limit=0",
        "limit=1001",
        "cursor=2",
    ] {
        let refused = problem(world.get(&format!("/payments?{mistake}")).await).await;
        assert_eq!((refused.status, refused.code.as_str()), (400, "invalid-request"), "{mistake}");
    }
}

/// The record of the payment that `answer` is about, as text and as JSON.
async fn record_of(world: &World, answer: reqwest::Response) -> (String, serde_json::Value) {
    let place = format!("{}{}", world.url, answer.headers()["location"].to_str().unwrap());
    let record = world.http.get(place).bearer_auth(support::OPERATOR).send().await.unwrap();
    let text = record.text().await.unwrap();
    let record = serde_json::from_str(&text).unwrap();
    (text, record)
}

async fn sell(world: &World, key: &str, pos_id: i64, password: Option<&str>, products: &str) -> reqwest::Response {
    let sale = world.request(reqwest::Method::POST, &format!("/points-of-sale/{pos_id}/payments"));
    let sale = sale.header("Idempotency-Key", key).header("Content-Type", "application/json");
    let sale = password.into_iter().fold(sale, |sale, password| sale.header("X-POS-Password", password));
    sale.body(format!(r#"{{"PaymentMethod":"1","ref":"{key}","Products":[{products}]}}"#)).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_the_names_and_prices_that_were_cached_when_it_was_dispatched_and_their_exact_sum() {
    let world = World::start().await;
    let two = r#"{"ID":1,"Amount":2},{"ID":"8","Amount":3},{"ID":2,"Amount":0}"#;
    let (_, bare) = record_of(&world, sell(&world, "bare", 1, None, two).await).await;
    for absent in ["PointOfSale", "Payment", "sum", "catalogue_as_of"] {
        assert_eq!(bare[absent], serde_json::Value::Null, "{bare}");
    }
    assert_eq!(bare["Products"][0], serde_json::json!({"ID": 1, "Amount": 2}));
    assert!(bare["sum_missing"].as_str().unwrap().contains("no cached reply"), "{bare}");
    for path in ["/points-of-sale", "/points-of-sale/1/products", "/points-of-sale/1/payment-methods"] {
        assert_eq!(world.get(path).await.status(), 200);
    }
    let before = world.gateway.counts();
    let (text, seen) = record_of(&world, sell(&world, "known", 1, None, two).await).await;
    let (name, payment, sum) = (&seen["PointOfSale"], &seen["Payment"], &seen["sum"]);
    assert_eq!((name, payment, sum), (&"Bar North".into(), &"Cash".into(), &"3.00".into()), "{text}");
    assert!(text.contains(r#"{"ID":1,"Amount":2,"ProductName":"Beer 0.5 l","Price":4.50}"#), "{text}");
    assert!(text.contains(r#""Price":-2.00"#) && seen["catalogue_outdated"] == serde_json::Value::Null, "{text}");
    assert!(seen["catalogue_as_of"].as_str().unwrap() <= seen["dispatched_at"].as_str().unwrap(), "{text}");
    for command in ["listpos", "listproducts", "listpm"] {
        let received = |counts: &concertpos_simulator::Counts| counts.command(command).received;
        assert_eq!(received(&world.gateway.counts()), received(&before), "a payment asks for no {command}");
    }
    // What is changed later does not change the record, and a price that nobody knows is no price.
    world.gateway.change_product("demo", 1, 1, "{Price: null, ProductName: 'Ale'}").unwrap();
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    let mut sold = 0;
    support::eventually("the bridge knows that its copies may be out of date", async || {
        sold += 1;
        let (text, seen) = record_of(&world, sell(&world, &format!("old-{sold}"), 1, None, two).await).await;
        assert_eq!(seen["sum"], "3.00", "{text}");
        seen["catalogue_outdated"] == true
    })
    .await;
    assert_eq!(world.get("/points-of-sale/1/products").await.status(), 200);
    let (text, seen) = record_of(&world, sell(&world, "free", 1, None, two).await).await;
    assert_eq!(seen["sum_missing"], "The cached reply had no price of product 1.", "{text}");
    assert!(text.contains(r#"{"ID":1,"Amount":2,"ProductName":"Ale"}"#) && seen["sum"].is_null(), "{text}");
    let world = world.restarted().await;
    let known = world.get("/payments?idempotency_key=known").await.json::<serde_json::Value>().await.unwrap();
    assert_eq!((&known["payments"][0]["sum"], &known["payments"][0]["Payment"]), (&"3.00".into(), &"Cash".into()));
    let (lines, _) = table(&world, "/v1/instances/demo/payments?idempotency_key=known").await;
    for (column, cell) in [("pos_name", "Bar North"), ("payment_method_name", "Cash"), ("sum", "3.00")] {
        assert_eq!(lines[1][lines[0].iter().position(|name| name == column).unwrap()], cell);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_nothing_from_a_copy_that_another_password_of_the_point_of_sale_opened() {
    let world = World::start().await;
    for path in ["/points-of-sale/7/products", "/points-of-sale/7/payment-methods"] {
        let read = world.request(reqwest::Method::GET, path).header("X-POS-Password", "backstage");
        assert_eq!(read.send().await.unwrap().status(), 200);
    }
    let beer = r#"{"ID":1,"Amount":2}"#;
    for (key, password) in [("none", None), ("wrong", Some("wrong"))] {
        assert_eq!(problem(sell(&world, key, 7, password, beer).await).await.code, "pos-password-rejected");
        let listed = world.get(&format!("/payments?idempotency_key={key}")).await.text().await.unwrap();
        assert!(listed.contains(r#""state":"released""#), "{listed}");
        assert!(!listed.contains("Beer") && !listed.contains(r#""Price""#) && !listed.contains("Cash"), "{listed}");
    }
    let (text, seen) = record_of(&world, sell(&world, "right", 7, Some("backstage"), beer).await).await;
    assert_eq!((&seen["sum"], &seen["Payment"]), (&"9.00".into(), &"Cash".into()), "{text}");
}

/// One page as CSV: its lines, and the address in `Link` of the page after it.
async fn table(world: &World, place: &str) -> (Vec<Vec<String>>, Option<String>) {
    let request = world.http.get(format!("{}{place}", world.url)).bearer_auth(support::OPERATOR);
    let answer = request.header("Accept", "text/csv").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8; header=present", "{place}");
    let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
    let next = link.map(|link| link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned());
    let text = answer.text().await.unwrap();
    let lines = text.strip_suffix("\r\n").unwrap().split("\r\n");
    (lines.map(|line| line.split(',').map(str::to_owned).collect()).collect(), next)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_exported_as_csv_page_by_page_and_no_cell_is_a_formula() {
    let world = World::start().await;
    let keys = ["=1+1", "+2", "@3", "-4", "plain"];
    for key in keys {
        assert_eq!(world.sale(key).send().await.unwrap().status(), 201);
    }
    let (mut seen, mut pages) = (Vec::new(), 0);
    let mut next = Some("/v1/instances/demo/payments?limit=2&from=2020-01-01T00%3A00%3A00%2B02%3A00".to_owned());
    while let Some(place) = next {
        let (lines, after) = table(&world, &place).await;
        let (names, lines) = lines.split_first().unwrap();
        let column = |name: &str| names.iter().position(|known| known == name).unwrap_or_else(|| panic!("no {name}"));
        let [key, state, products] = ["idempotency_key", "state", "products"].map(column);
        for line in lines {
            assert_eq!((line[state].as_str(), line[products].as_str()), ("booked", "2 x 1"));
            seen.push(line[key].clone());
        }
        (next, pages) = (after, pages + 1);
    }
    assert_eq!((seen, pages), (["plain", "'-4", "'@3", "'+2", "'=1+1"].map(str::to_owned).into(), 3));
    let page = world.get("/payments?limit=2").await;
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    let page: serde_json::Value = page.json().await.unwrap();
    let place =
        format!("</v1/instances/demo/payments?limit=2&cursor={}>; rel=\"next\"", page["next"].as_str().unwrap());
    assert_eq!(link, place, "JSON has it, too");
    let neither = world.http.get(world.path("/payments")).bearer_auth(support::KEY).header("Accept", "text/html");
    assert_eq!(problem(neither.send().await.unwrap()).await.code, "not-acceptable");
    let wrong =
        world.http.get(world.path("/payments?state=lost")).bearer_auth(support::KEY).header("Accept", "text/csv");
    assert_eq!(problem(wrong.send().await.unwrap()).await.code, "invalid-request", "errors are problems all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_costs_only_itself_and_a_person_settles_it() {
    let world = World::start().await;
    let sold = world.sale("broken").send().await.unwrap();
    let place = sold.headers()["location"].to_str().unwrap().to_owned();
    let id = uuid::Uuid::parse_str(place.rsplit('/').next().unwrap()).unwrap().as_u128();
    let world = world
        .restarted_after(|file| {
            let database = redb::Database::open(file).unwrap();
            let transaction = database.begin_write().unwrap();
            let records: redb::TableDefinition<'_, u128, &[u8]> = redb::TableDefinition::new("records");
            transaction.open_table(records).unwrap().insert(id, b"{\"damaged".as_slice()).unwrap();
            transaction.commit().unwrap();
        })
        .await;
    assert_eq!(world.sale("sound").send().await.unwrap().status(), 201, "others sell");
    assert_eq!(listed(&world, "").await.0, ["sound", "broken"]);
    support::eventually("it is listed as unreadable", async || {
        listed(&world, "?state=unreadable").await.0 == ["broken"]
    })
    .await;
    let again = world.sale("broken").send().await.unwrap();
    assert!(again.headers()["location"].to_str().unwrap().ends_with(&place));
    assert_eq!(problem(again).await.code, "payment-outcome-unknown");
    assert_eq!(world.gateway.counts().bookings("broken"), 1, "nothing was sent");
    let place = format!("{}{place}", world.url);
    let seen = world.http.get(&place).bearer_auth(support::OPERATOR).send().await.unwrap();
    let tag = seen.headers()["etag"].to_str().unwrap().to_owned();
    let seen: serde_json::Value = seen.json().await.unwrap();
    assert_eq!(
        (&seen["state"], &seen["idempotency_key"], &seen["POSID"]),
        (&"unreadable".into(), &"broken".into(), &1.into())
    );
    let known = &seen["unreadable"];
    assert_eq!((&known["last_state"], &known["stored"]), (&"booked".into(), &"{\"damaged".into()));
    let status =
        world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(support::OPERATOR).send().await.unwrap();
    assert_eq!(status.json::<serde_json::Value>().await.unwrap()["payments"]["unreadable"], 1);
    let settle = world.http.put(format!("{place}/outcome")).bearer_auth(support::OPERATOR).header("If-Match", tag);
    let decision = serde_json::json!({"outcome": "booked", "reason": "it is in the gateway's list"});
    let settled = settle.json(&decision).send().await.unwrap();
    assert_eq!(settled.status(), 200);
    assert_eq!(settled.json::<serde_json::Value>().await.unwrap()["state"], "settled");
    let again = world.sale("broken").send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers().contains_key("idempotent-replayed")), (201, true));
    assert_eq!(world.gateway.counts().bookings("broken"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_faulty_sale_nothing_is_sent_or_kept_and_its_key_is_free() {
    let world = World::start().await;
    let ask = async |key: &str, body: String| {
        let request = world.request(reqwest::Method::POST, "/points-of-sale/1/payments");
        let request = request.header("Idempotency-Key", key).header("Content-Type", "application/json").body(body);
        problem(request.send().await.unwrap()).await
    };
    let sale = |products: &str| format!(r#"{{"PaymentMethod":1,"ref":"faulty","Products":[{products}]}}"#);
    let many: Vec<_> = (0..1001).map(|id| format!(r#"{{"ID":{id},"Amount":1}}"#)).collect();
    for (body, pointer) in [
        (sale(""), "/Products"),
        (sale(r#"{"ID":1,"Amount":0}"#), "/Products"),
        (sale(r#"{"ID":1,"Amount":-1}"#), "/Products/0/Amount"),
        (sale(r#"{"ID":1,"Amount":1.5}"#), "/Products/0/Amount"),
        (sale(r#"{"ID":1,"Amount":"1.5"}"#), "/Products/0/Amount"),
        (sale(r#"{"ID":1,"Amount":1e3}"#), "/Products/0/Amount"),
        (sale(r#"{"ID":1,"Amount":9007199254740993}"#), "/Products/0/Amount"),
        (sale(r#"{"ID":1,"Amount":null}"#), "/Products/0/Amount"),
        (sale(r#"{"ID":1}"#), "/Products/0/Amount"),
        (sale(r#"{"Amount":1}"#), "/Products/0/ID"),
        (sale(r#"{"ID":1,"Amount":1},{"ID":"1","Amount":1}"#), "/Products/1/ID"),
        (sale(r#"{"ID":1,"Amount":1,"Am\u006funt":9}"#), "/Products/0"),
        (sale(&many.join(",")), "/Products"),
        (r#"{"PaymentMethod":"card","Products":[{"ID":1,"Amount":1}]}"#.to_owned(), "/PaymentMethod"),
        (r#"{"Products":[{"ID":1,"Amount":1}]}"#.to_owned(), "/PaymentMethod"),
        (r#"{"PaymentMethod":1,"POSID":2,"Products":[{"ID":1,"Amount":1}]}"#.to_owned(), "/POSID"),
    ] {
        let refused = ask("faulty", body.clone()).await;
        assert_eq!((refused.status, refused.code.as_str()), (400, "invalid-request"), "{body}");
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{body}");
    }
    let twice = r#"{"PaymentMethod":1,"PaymentMethod":2,"Products":[{"ID":1,"Amount":1}]}"#;
    assert_eq!(ask("faulty", twice.to_owned()).await.code, "invalid-request");
    for no_key in ["\"\"", "\"open", &"k".repeat(256)] {
        assert_eq!(ask(no_key, sale(r#"{"ID":1,"Amount":1}"#)).await.code, "idempotency-key-missing");
    }
    let none = world.request(reqwest::Method::POST, "/points-of-sale/1/payments").json(&serde_json::json!({}));
    assert_eq!(problem(none.send().await.unwrap()).await.code, "idempotency-key-missing");
    assert_eq!(world.gateway.counts().command("payitems").received, 0);
    let kept: serde_json::Value = world.get("/payments").await.json().await.unwrap();
    assert_eq!(kept["payments"], serde_json::json!([]));
    assert_eq!(world.sale("faulty").send().await.unwrap().status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_the_server_s_deadline_names_the_record_of_a_payment_that_runs_on() {
    let settings = [("BRIDGE_SERVER__DEADLINE", "1s"), ("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "5s")];
    let world = World::with(Config::default(), &settings).await;
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 2_000 }).on("payitems").times(1));
    let response = world.sale("slow").send().await.unwrap();
    let place = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(problem(response).await.code, "payment-outcome-unknown");
    let state = async || {
        let request = world.http.get(format!("{}{place}", world.url)).bearer_auth(support::KEY);
        request.send().await.unwrap().json::<serde_json::Value>().await.unwrap()["state"].clone()
    };
    assert_eq!(state().await, "dispatching");
    assert_eq!(problem(world.sale("slow").send().await.unwrap()).await.code, "payment-in-progress");
    eventually("it is booked", async || state().await == "booked").await;
    let again = world.sale("slow").send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(world.gateway.counts().bookings("slow"), 1);
}
