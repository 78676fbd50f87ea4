//! Each command gets its own reply, whatever the gateway mixes in between.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use concertpos_simulator::{Action, Config, Fault, Garbage, Say, Scripted};
use support::program::free_address;
use support::{World, eventually, problem, together};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// How long a byte is under way between the bridge and a gateway behind [`distant`].
const DISTANCE: Duration = Duration::from_millis(40);

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
    let hung: Vec<_> = (20..26).map(ask_in_vain).collect();
    eventually("they hang again", async || world.gateway.counts().command("listproducts").received >= before + 6).await;
    for pos in 1..=20 {
        assert_eq!(world.get(&format!("/points-of-sale/{pos}/transactions?limit=1")).await.status(), 200);
    }
    for hung in hung {
        assert_eq!(hung.await.unwrap().0, 504);
    }
    world.gateway.clear_faults();
    assert_eq!(world.get("/points-of-sale/1/products").await.status(), 200);
}

/// The address of a way to `server` that takes [`DISTANCE`] in each direction. It ends with the runtime.
async fn distant(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&server).await else { continue };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(carry(from_client, to_server));
            tokio::spawn(carry(from_server, to_client));
        }
    });
    address
}

/// Moves bytes one way until their source has ended or their target is gone.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (sender, mut under_way) = mpsc::channel(1_000);
    let reading = async move {
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut some).await {
            let due = tokio::time::Instant::now() + DISTANCE;
            if sender.send((due, some[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_frame_for_a_finished_command_reaches_nobody() {
    let gateway = free_address();
    let config = Config { listen: gateway.parse().unwrap(), ..Config::default() };
    // The gateway is far away: what it says a little after its reply comes when the next command could be out already, and
    // before a ping that was sent with the reply's coming is answered.
    let url = format!("ws://{}/{{shard}}/?instance={{instance}}&Content-Type={{format}}", distant(gateway).await);
    let world = Arc::new(World::with(config, &[("BRIDGE_GATEWAY__URL", &url)]).await);
    let reply = |after_ms| Scripted { after_ms, say: Say::Reply { parameters: None } };
    for after_ms in [0, 5] {
        world.gateway.clear_faults();
        let twice = Action::Script { frames: vec![reply(0), reply(after_ms)] };
        world.gateway.add_fault(Fault::new(twice).on("listtransactions"));
        let reads = (1..=20).map(|pos| {
            let world = Arc::clone(&world);
            async move { (pos, world.get(&format!("/points-of-sale/{pos}/transactions?limit=3")).await) }
        });
        for (pos, response) in together(reads).await {
            assert_eq!(response.status(), 200, "{after_ms} ms");
            let body: serde_json::Value = response.json().await.unwrap();
            let transactions = body["Transactions"].as_array().unwrap();
            assert!(!transactions.is_empty(), "{after_ms} ms, {pos}: {body}");
            for transaction in transactions {
                assert_eq!(transaction["PointOfSaleID"], pos, "{after_ms} ms: somebody else's reply");
            }
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
