//! Shards come and go; readers must not notice while one is left, and must be told at once when none is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use concertpos_simulator::{Action, Config, Fault};
use serde_json::{Value, json};
use support::{ANY, OPERATOR, World, eventually, problem, together};

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_while_one_shard_is_killed_then_a_second_and_both_come_back() {
    let world = Arc::new(World::start().await);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (1..=4)
        .map(|pos| {
            let (world, stop, answered) = (Arc::clone(&world), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let response = world.get(&format!("/points-of-sale/{pos}/transactions?limit=1")).await;
                    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async |count: usize| {
        let target = answered.load(Ordering::Relaxed) + count;
        eventually("reads go on", async || answered.load(Ordering::Relaxed) >= target).await;
    };
    more(200).await;
    world.gateway.kill("exon").unwrap();
    more(200).await;
    world.gateway.kill("cyton").unwrap();
    more(200).await;
    world.gateway.revive("exon").unwrap();
    more(200).await;
    world.gateway.revive("cyton").unwrap();
    more(200).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_shards_gone_a_read_is_told_at_once_and_when_to_come_back() {
    let world = World::start().await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    eventually("the bridge knows", async || world.get_open("/readyz?require=gateway").await.status() == 503).await;
    assert_eq!(world.get_open("/readyz").await.status(), 200, "a gateway that is down does not make it unready");
    eventually("each shard was tried", async || world.get(ANY).await.status() == 503).await;
    let asked = Instant::now();
    let problem = problem(world.get(ANY).await).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "at once, not after a timeout: {:?}", asked.elapsed());
    assert_eq!((problem.status, problem.code.as_str()), (503, "gateway-unavailable"));
    assert!(problem.retry_after.is_some_and(|seconds| (1..=4).contains(&seconds)), "{:?}", problem.retry_after);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_the_bridge_is_back_within_five_seconds_and_has_not_stormed_the_gateway() {
    let world = World::start().await;
    for shard in ["exon", "cyton", "zeus"] {
        world.gateway.kill(shard).unwrap();
    }
    // An outage is a stretch of time: its length is what this test is about.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let refused: u64 = world.gateway.counts().shards.values().map(|shard| shard.refused).sum();
    assert!(refused <= 3 * 12, "{refused} attempts in eight seconds on three shards");
    let revived = Instant::now();
    world.gateway.revive("zeus").unwrap();
    eventually("a read is answered", async || world.get(ANY).await.status() == 200).await;
    assert!(revived.elapsed() < Duration::from_secs(5), "{:?}", revived.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_falls_silent_is_found_out_and_left() {
    let settings = [("BRIDGE_GATEWAY__PING_INTERVAL", "100ms"), ("BRIDGE_GATEWAY__CONNECT_TIMEOUT", "200ms")];
    let world = World::with(Config::default(), &settings).await;
    let opened = |shard: &str| world.gateway.counts().shard(shard).opened;
    let before = opened("exon") + opened("cyton") + opened("zeus");
    world.gateway.freeze("exon").unwrap();
    world.gateway.freeze("cyton").unwrap();
    eventually("both links are replaced", async || opened("exon") + opened("cyton") + opened("zeus") >= before + 2)
        .await;
    assert_eq!(world.get(ANY).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_on_a_shard_that_has_gone_silent_is_answered_by_another_in_the_time_that_is_left() {
    // In the proportion of the settings that come with the program, one whole timeout is two thirds of the deadline; and a
    // timeout as long as the deadline leaves time for another try all the same.
    for request_timeout in ["2s", "3s"] {
        let settings = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", request_timeout), ("BRIDGE_SERVER__DEADLINE", "3s")];
        let world = World::with(Config::default(), &settings).await;
        // One that opens later is not silent. The third shard has no link yet.
        eventually("both links are open", async || world.gateway.counts().open() >= 2).await;
        world.gateway.freeze("exon").unwrap();
        world.gateway.freeze("cyton").unwrap();
        let asked = Instant::now();
        let answer = world.get(ANY).await;
        assert_eq!(answer.status(), 200, "{} after {:?}", answer.text().await.unwrap(), asked.elapsed());
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_without_any_shard_costs_a_read_that_moment_and_nothing_more() {
    let world = Arc::new(World::start().await);
    for round in 0..3 {
        for shard in ["exon", "cyton", "zeus"] {
            world.gateway.kill(shard).unwrap();
        }
        let asking = Arc::clone(&world);
        let reads = (0..20).map(move |number: u64| {
            let world = Arc::clone(&asking);
            async move {
                // A moment is a stretch of time, and so is when in it a read comes.
                tokio::time::sleep(Duration::from_millis(number * 15)).await;
                let answer = world.get(ANY).await;
                (answer.status().as_u16(), answer.text().await.unwrap())
            }
        });
        let reads = tokio::spawn(together(reads));
        tokio::time::sleep(Duration::from_millis(300)).await;
        for shard in ["exon", "cyton", "zeus"] {
            world.gateway.revive(shard).unwrap();
        }
        for (status, text) in reads.await.unwrap() {
            assert_eq!(status, 200, "round {round}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_hangs_does_not_hold_up_the_end() {
    let world = World::start().await;
    world.gateway.add_fault(Fault::new(Action::HangConnect));
    let hanging = || world.gateway.counts().shards.values().map(|shard| shard.refused).sum::<u64>();
    world.gateway.kill("exon").unwrap();
    world.gateway.revive("exon").unwrap();
    eventually("a dial hangs", async || hanging() > 0).await;
    let asked = Instant::now();
    world.stop().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

/// One shard in `GET /v1/bridge`.
async fn seen(world: &World, shard: &str) -> Value {
    let status = world.http.get(format!("{}/v1/bridge", world.url)).bearer_auth(OPERATOR).send().await.unwrap();
    let status: Value = status.json().await.unwrap();
    status["instances"][0]["shards"].as_array().unwrap().iter().find(|one| one["shard"] == shard).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_nobody_needs_is_seen_to_be_gone_and_to_be_back() {
    let world = World::start().await;
    let mut linked = "";
    eventually("two shards have links", async || {
        let mut with_links = Vec::new();
        for shard in ["exon", "cyton", "zeus"] {
            with_links.extend((seen(&world, shard).await["links"] != json!([])).then_some(shard));
        }
        linked = with_links[0];
        with_links.len() == 2
    })
    .await;
    world.gateway.kill(linked).unwrap();
    eventually("it is found to be down", async || seen(&world, linked).await["good"] == false).await;
    // Of what it does by itself, nothing comes after this.
    eventually("it has fetched the licence", async || world.gateway.counts().command("getlicense").answered > 0).await;
    let sent = |world: &World| world.gateway.counts().commands.values().map(|one| one.received).sum::<u64>();
    let before = sent(&world);
    world.gateway.revive(linked).unwrap();
    eventually("it is found to be back", async || {
        let shard = seen(&world, linked).await;
        shard["good"] == true && shard["in_doubt"] == false && shard["links"] != json!([])
    })
    .await;
    assert_eq!(sent(&world), before, "looking costs no points");
}
