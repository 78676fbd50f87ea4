//! Each command gets its own reply, whatever the gateway mixes in between.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use concertpos_bridge::simulator::{Action, Config, Fault, Garbage};
use support::{World, eventually, problem, together};

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_overlapping_reads_each_get_their_own_reply_amid_garbage_and_unasked_events() {
    let config = Config {
        latency: (Duration::ZERO, Duration::from_millis(20)),
        session_event: true,
        seed: 7,
        ..Config::default()
    };
    let world = Arc::new(World::with(config, &[]).await);
    for action in [
        Action::Garbage { kind: Garbage::Text, instead: false },
        Action::Unasked { event: "session".into() },
        Action::Unasked { event: "listpm".into() },
    ] {
        world.gateway.add_fault(Fault { probability: 0.3, ..Fault::new(action) });
    }
    let reads = (0..300).map(|index| {
        let world = Arc::clone(&world);
        async move {
            let pos = index % 30 + 1;
            let response = world.get(&format!("/points-of-sale/{pos}/transactions?limit={}", index + 1)).await;
            (pos, response.status(), response.text().await.unwrap())
        }
    });
    for (pos, status, body) in together(reads).await {
        assert_eq!(status, 200, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        for transaction in body["Transactions"].as_array().unwrap() {
            assert_eq!(transaction["PointOfSaleID"], pos, "somebody else's reply");
        }
    }
    let counts = world.gateway.counts();
    assert_eq!(counts.max_in_progress, 1, "two commands at once on one connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_command_costs_its_caller_one_timeout_and_no_other_caller_anything() {
    let world = Arc::new(
        World::with(Config::default(), &[("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "2s"), ("BRIDGE_SERVER__DEADLINE", "3s")])
            .await,
    );
    world.gateway.add_fault(Fault::new(Action::Hang).on("listproducts"));
    // Two less than max_links: the last link but one is what the others use, and the last is left to payments.
    let ask_in_vain = |pos: usize| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let asked = Instant::now();
            let problem = problem(world.get(&format!("/points-of-sale/{pos}/products")).await).await;
            (problem.status, problem.code, asked.elapsed())
        })
    };
    let hung: Vec<_> = (10..16).map(ask_in_vain).collect();
    eventually("they hang", async || world.gateway.counts().command("listproducts").received == 6).await;
    let asked = Instant::now();
    for pos in 1..=20 {
        assert_eq!(world.get(&format!("/points-of-sale/{pos}/transactions?limit=1")).await.status(), 200);
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "the others waited: {:?}", asked.elapsed());
    for hung in hung {
        let (status, code, took) = hung.await.unwrap();
        assert_eq!((status, code.as_str()), (504, "gateway-timeout"));
        assert!((Duration::from_millis(1900)..Duration::from_millis(3500)).contains(&took), "one timeout: {took:?}");
    }
    // Their links are replaced: as many may hang again, and the others are served all the same.
    let before = world.gateway.counts().command("listproducts").received;
    let hung: Vec<_> = (20..27).map(ask_in_vain).collect();
    eventually("they hang again", async || world.gateway.counts().command("listproducts").received >= before + 7).await;
    for pos in 1..=20 {
        assert_eq!(world.get(&format!("/points-of-sale/{pos}/transactions?limit=1")).await.status(), 200);
    }
    for hung in hung {
        assert_eq!(hung.await.unwrap().0, 504);
    }
    world.gateway.clear_faults();
    assert_eq!(world.get("/points-of-sale/1/products").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_frame_for_a_finished_command_reaches_nobody() {
    let world = Arc::new(World::start().await);
    world.gateway.add_fault(Fault::new(Action::Duplicate).on("listtransactions"));
    let reads = (1..=30).map(|pos| {
        let world = Arc::clone(&world);
        async move { (pos, world.get(&format!("/points-of-sale/{pos}/transactions?limit=3")).await) }
    });
    for (pos, response) in together(reads).await {
        assert_eq!(response.status(), 200);
        let body: serde_json::Value = response.json().await.unwrap();
        for transaction in body["Transactions"].as_array().unwrap() {
            assert_eq!(transaction["PointOfSaleID"], pos, "somebody else's reply");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json5_replies_keep_their_numbers_as_they_were_spelled() {
    let plain = World::start().await;
    let json5 = World::with(Config::default(), &[("BRIDGE_GATEWAY__FORMAT", "json5")]).await;
    let path = "/points-of-sale/1/products";
    let (plain, json5) = (plain.get(path).await.text().await.unwrap(), json5.get(path).await.text().await.unwrap());
    assert!(plain.contains(".50"), "the sample has a price that binary floating point would respell: {plain}");
    let numbers = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|n| n.contains('.')).map(str::to_owned).collect()
    };
    assert_eq!(numbers(&plain), numbers(&json5));
}
