//! Reloads in the middle of something.

use super::*;

/// Long enough for a reload to come before it is over.
const SLOW: Action = Action::Latency { ms: 700 };

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_under_way_at_a_removed_instance_is_booked_and_answered_by_rest_and_at_a_till() {
    let world = start(gateway(&["fest"]), &instances(&["fest"])).await;
    until_linked(&world).await;
    let mut till = Till::at(&world, "/?instance=fest").await;
    assert_eq!(till.ask_with("listpos", json!({}), Some(&key_of("fest"))).await["type"], "event");
    world.gateway.add_fault(Fault::new(SLOW).on("payitems").times(2));
    let paying = tokio::spawn(sale(&world, "fest", "midway", "shop").send());
    let products = json!({"POSID": 1, "PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "ref": "till"});
    till.order_with("payitems", products, Some(&key_of("fest"))).await;
    eventually("both are under way", async || received(&world, "payitems") == 2).await;

    world.reload(&instances(&[])).await.unwrap();
    assert_eq!(world.gateway.counts().command("payitems").answered, 0, "they are in the middle of it");
    assert_eq!(problem(sale(&world, "fest", "late", "shop").send().await.unwrap()).await.code, "unknown-instance");
    till.order_with("listpos", json!({}), Some(&key_of("fest"))).await;
    let paid = paying.await.unwrap().unwrap();
    assert_eq!(paid.status(), 201, "{}", paid.text().await.unwrap());
    let answers = [till.frame().await, till.frame().await].map(|frame| frame["result"]["event"].clone());
    assert!(answers.contains(&json!("payitem")), "the till gets its answer too: {answers:?}");
    assert_eq!(closed_with(&mut till).await, 1001);
    until_linked(&world).await;
    let listed: Value = get(&world, "fest", "/payments?state=booked", OPERATOR).await.json().await.unwrap();
    assert_eq!(listed["payments"].as_array().unwrap().len(), 2);
    assert_eq!(["midway", "till"].map(|key| world.gateway.counts().bookings(key)), [1, 1]);
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_instance_waits_no_longer_than_the_grace_and_what_was_not_sent_by_then_never_is() {
    let quick = [
        ("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "300ms"),
        ("BRIDGE_SERVER__SHUTDOWN_GRACE", "400ms"),
        ("BRIDGE_LIMITS__CAPACITY", "1"),
        ("BRIDGE_LIMITS__PAY_MAX_WAIT", "40s"),
        ("BRIDGE_SERVER__DEADLINE", "3s"),
        ("BRIDGE_LIMITS__WINDOW", "2s"),
    ];
    let costs = [
        "GETCONFIG",
        "GETDEPOSIT",
        "GETLICENSE",
        "LISTPOS",
        "LISTPM",
        "LISTPRODUCTS",
        "LISTTRANSACTIONS",
        "VERIFYAUTH",
        "REGISTERDEVICE",
        "VERSION",
        "GETSTATUS",
        "PAYITEMS",
    ]
    .map(|command| format!("BRIDGE_LIMITS__COST__{command}"));
    let costs: Vec<_> = costs.iter().map(|command| (command.as_str(), "1")).collect();
    let [alone, both] = [&[][..], &["fest"]].map(|others| with(with(instances(others), &quick), &costs));
    let world = start(gateway(&["fest"]), &both).await;
    until_linked(&world).await;
    assert_eq!(sale(&world, "fest", "first", "shop").send().await.unwrap().status(), 201);
    let waits = tokio::spawn(sale(&world, "fest", "second", "shop").send());
    let waiting = "budget_waiting{pos_instance=\"fest\",class=\"payment\"} 1";
    eventually("it waits for points", async || text(&world, "/metrics").await.contains(waiting)).await;
    world.reload(&alone).await.unwrap();
    until_linked(&world).await;
    assert!(!waits.is_finished(), "the links did not wait for it");
    let refused = problem(waits.await.unwrap().unwrap()).await;
    assert!(refused.body["retryable"] == true && refused.status != 504, "{:?}", refused.body);
    assert_eq!((received(&world, "payitems"), world.gateway.counts().bookings("second")), (1, 0));
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payment_of_a_removed_instance_is_settled_by_hand_and_its_key_stays_taken() {
    let settings = with(instances(&["fest"]), &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "400ms")]);
    let world = start(gateway(&["fest"]), &settings).await;
    world.gateway.add_fault(Fault::new(Action::HangAfterApply).on("payitems").times(1));
    assert_eq!(
        problem(sale(&world, "fest", "lost", "shop").send().await.unwrap()).await.code,
        "payment-outcome-unknown"
    );
    world.reload(&with(instances(&[]), &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "400ms")])).await.unwrap();
    until_linked(&world).await;
    let unknown = get(&world, "fest", "/payments?state=unknown", OPERATOR).await.json::<Value>().await.unwrap();
    let id = unknown["payments"][0]["id"].as_str().unwrap().to_owned();
    let seen = get(&world, "fest", &format!("/payments/{id}"), OPERATOR).await;
    let tag = seen.headers()["etag"].clone();
    let decision = json!({"outcome": "booked", "reason": "seen in the till"});
    let outcome = format!("/payments/{id}/outcome");
    let settle =
        |token| request(&world, reqwest::Method::PUT, "fest", &outcome, token).header("If-Match", &tag).json(&decision);
    assert_eq!(settle("shop").send().await.unwrap().status(), 403);
    assert_eq!(settle(OPERATOR).send().await.unwrap().status(), 200);
    world.reload(&settings).await.unwrap();
    let again = sale(&world, "fest", "lost", "shop").send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(world.gateway.counts().bookings("lost"), 1);
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_under_way_at_a_removed_instance_answers_all_who_wait_and_leaves_no_copy_behind() {
    let (alone, both) = (instances(&[]), instances(&["fest"]));
    let world = start(gateway(&["fest"]), &both).await;
    until_linked(&world).await;
    eventually("the licences are there", async || bridge(&world).await["cache"]["copies"] == 2).await;
    world.gateway.add_fault(Fault::new(SLOW).on("getconfig").times(1));
    let waiting: Vec<_> =
        (0..5).map(|_| tokio::spawn(request(&world, reqwest::Method::GET, "fest", "/config", "shop").send())).collect();
    let all_wait = "concertpos_bridge_requests_in_flight{caller=\"shop\"} 5";
    eventually("all wait for the fetch", async || {
        received(&world, "getconfig") == 1 && text(&world, "/metrics").await.contains(all_wait)
    })
    .await;
    world.reload(&alone).await.unwrap();
    // And it comes back while the fetch of the former one still runs.
    world.reload(&both).await.unwrap();
    assert_eq!(world.gateway.counts().command("getconfig").answered, 0, "in the middle of it");
    assert_eq!(get(&world, "fest", "/deposit", "shop").await.status(), 200);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    until_linked(&world).await;
    world.reload(&alone).await.unwrap();
    until_linked(&world).await;
    eventually("only the other's copy is left", async || bridge(&world).await["cache"]["copies"] == 1).await;
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_in_the_middle_of_reloads_come_once_each_under_ids_without_a_hole() {
    const ROUNDS: usize = 12;
    let [alone, both, moved] = [&[][..], &["fest=first"], &["fest=second"]].map(instances);
    let world = start(gateway(&["first", "second"]), &alone).await;
    until_linked(&world).await;
    let mut stream = Stream::of(get(&world, "demo", "/events", "shop").await);
    let began = offset(&stream.next().await.id);
    let reloads = async {
        for round in 0..ROUNDS {
            world.reload([&both, &moved, &alone][round % 3]).await.unwrap();
        }
    };
    let broadcasts = async {
        for number in 0..ROUNDS * 4 {
            world.gateway.broadcast("demo", &format!("n{number}"), "{}").unwrap();
            tokio::task::yield_now().await;
        }
    };
    let heard = async {
        let mut events = Vec::new();
        while events.len() < ROUNDS * 4 {
            events.push(stream.next().await);
        }
        events
    };
    let ((), (), heard) = tokio::join!(reloads, broadcasts, heard);
    assert_eq!(messages(&heard), (0..ROUNDS * 4).map(|number| format!("n{number}")).collect::<Vec<_>>());
    let offsets: Vec<u64> = ids(&heard).iter().map(|id| offset(id) - began).collect();
    assert_eq!(offsets, (1..=ROUNDS as u64 * 4).collect::<Vec<_>>());
    until_linked(&world).await;
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_that_come_at_once_are_done_one_after_the_other_and_leave_every_instance_whole() {
    let world = start(gateway(&["a", "b", "c"]), &instances(&[])).await;
    let sets: Vec<_> =
        [&["a"][..], &["a", "b"], &["b", "c"], &["c=a", "b"], &["a=c"], &["b", "c=a"]].map(instances).into();
    for last in 0..sets.len() {
        let mut order: Vec<_> = (0..sets.len()).collect();
        order.rotate_left(last);
        let reloads: Vec<_> = order.iter().map(|set| tokio::spawn(world.reloading(&sets[*set]))).collect();
        for reload in reloads {
            reload.await.unwrap().unwrap();
        }
        for instance in served(&world).await {
            assert_eq!(get(&world, &instance, UNCACHED, "shop").await.status(), 200, "{instance}");
        }
    }
    world.reload(&instances(&[])).await.unwrap();
    until_linked(&world).await;
    world.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_drain_a_reload_is_refused_and_what_a_removed_instance_has_under_way_is_waited_for() {
    let mut world = start(gateway(&["fest", "late"]), &instances(&["fest"])).await;
    until_linked(&world).await;
    world.gateway.add_fault(Fault::new(SLOW).on("payitems").times(1));
    let paying = tokio::spawn(sale(&world, "fest", "midway", "shop").send());
    eventually("it is under way", async || received(&world, "payitems") == 1).await;
    world.reload(&instances(&[])).await.unwrap();
    let opened = world.gateway.counts().shards.values().map(|shard| shard.opened).sum::<u64>();
    world.ask_to_stop();
    let refused = world.reload(&instances(&["late"])).await;
    assert_eq!(refused.unwrap_err(), "the bridge is shutting down");
    assert_eq!(world.gateway.counts().shards.values().map(|shard| shard.opened).sum::<u64>(), opened);
    assert_eq!(paying.await.unwrap().unwrap().status(), 201, "it ends in order");
    assert_eq!(world.gateway.counts().bookings("midway"), 1);
    world.ended().await.unwrap();
    eventually("no link is open", async || world.gateway.counts().open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_drain_a_payment_of_a_removed_instance_is_recorded_though_nobody_waits_for_it_any_more() {
    let world = start(gateway(&["fest"]), &instances(&["fest"])).await;
    until_linked(&world).await;
    world.gateway.add_fault(Fault::new(SLOW).on("payitems").times(1));
    let paying = tokio::spawn(sale(&world, "fest", "left", "shop").send());
    eventually("it is under way", async || received(&world, "payitems") == 1).await;
    world.reload(&instances(&[])).await.unwrap();
    paying.abort();
    // With the instances of the first start.
    let world = world.restarted().await;
    let again = sale(&world, "fest", "left", "shop").send().await.unwrap();
    assert_eq!(again.status(), 201, "{}", again.text().await.unwrap());
    assert_eq!(world.gateway.counts().bookings("left"), 1);
    world.stop().await.unwrap();
}

/// A reload that has begun when the bridge is told to stop: what it starts is stopped with the rest.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_a_drain_at_the_same_moment_leave_no_link_open() {
    for _ in 0..8 {
        let mut world = start(gateway(&["a", "b", "c"]), &instances(&["a"])).await;
        let reloads: Vec<_> =
            [&["b"][..], &["a", "c"], &["b=c"]].map(|set| tokio::spawn(world.reloading(&instances(set)))).into();
        tokio::task::yield_now().await;
        world.ask_to_stop();
        for reload in reloads {
            let outcome = reload.await.unwrap();
            assert!(outcome.is_ok() || outcome == Err("the bridge is shutting down".to_owned()), "{outcome:?}");
        }
        world.ended().await.unwrap();
        eventually("no link is open", async || world.gateway.counts().open() == 0).await;
    }
}
