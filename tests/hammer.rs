//! A minute against a gateway that enforces its limits to the letter: it never has to say so, nothing it would give is
//! left unused, money gets through, and nobody's greed delays another by more than a turn.
//!
//! These tests take the minute they are about.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use concertpos_simulator::{Config, Counting, Limits};
use reqwest::Method;
use support::{World, together, token};

const MINUTE: Duration = Duration::from_mins(1);
const CALLERS: u64 = 50;

/// What the hammering asks for, and what one costs.
const READS: [(&str, &str, u64); 6] = [
    ("/config", "getconfig", 25),
    ("/deposit", "getdeposit", 10),
    ("/points-of-sale", "listpos", 10),
    ("/points-of-sale/{pos}/products", "listproducts", 25),
    ("/points-of-sale/{pos}/payment-methods", "listpm", 20),
    ("/points-of-sale/{pos}/transactions?limit={pos}", "listtransactions", 2),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_hammering_meets_no_limit_uses_the_budget_and_lets_every_payment_through() {
    let limits = Limits::new(Counting::PerCommand);
    let gateway = Config { limits, arrival_jitter: Duration::from_millis(300), ..Config::default() };
    let settings = [("BRIDGE_LIMITS__CAPACITY", "100"), ("BRIDGE_CACHE__MIN_AGE", "0s")];
    let world = Arc::new(World::with(gateway, &settings).await);
    let begun = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let world = Arc::clone(&world);
        async move {
            let mut round = caller;
            while begun.elapsed() < MINUTE {
                let (path, ..) = READS[usize::try_from(round).unwrap() % READS.len()];
                // Without the one that is guarded by a password.
                let pos = 1 + round % 20;
                let path = path.replace("{pos}", &if pos == 7 { 21 } else { pos }.to_string());
                let asked = world.request(Method::GET, &path).header("Cache-Control", "no-cache").send().await.unwrap();
                assert!([200, 429].contains(&asked.status().as_u16()), "{path}: {}", asked.status());
                assert!(
                    asked.headers().contains_key("ratelimit"),
                    "{path}: an answer that touched a budget speaks of it"
                );
                round += 1;
                // Fast enough that every point is wanted the moment it is free; the machine is not what is tested.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    });
    let till = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut sales = 0_u64;
            while begun.elapsed() < MINUTE {
                assert_eq!(world.sale(&format!("sale-{sales}")).send().await.unwrap().status(), 201);
                sales += 1;
                tokio::time::sleep(Duration::from_millis(350)).await;
            }
            sales
        })
    };
    together(callers).await;
    let sales = till.await.unwrap();
    let counts = world.gateway.counts();
    assert_eq!(counts.ratelimit_errors, 0, "{:?}", counts.commands);
    assert_eq!(counts.payments_booked, sales);
    // Two windows of 30.5 s begin within the minute.
    for (_, command, cost) in READS {
        let (used, allowed) = (counts.command(command).points, 2 * (100 / cost) * cost);
        assert!(used * 10 >= allowed * 9, "{command}: {used} of {allowed} points were used");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_one_token_s_greed_delays_another_s_misses_by_no_more_than_a_turn() {
    let (window, hold) = ("2s", Duration::from_millis(2_200));
    let limits = Limits { window: Duration::from_secs(2), ..Limits::new(Counting::PerCommand) };
    let (loud, quiet) = (token("loud", "read"), token("quiet", "read"));
    let mut settings = vec![
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__WINDOW", window),
        ("BRIDGE_LIMITS__GUARD", "200ms"),
        ("BRIDGE_LIMITS__MAX_WAIT", "12s"),
        ("BRIDGE_CACHE__MIN_AGE", "0s"),
    ];
    settings.extend(loud.iter().chain(&quiet).map(|(name, value)| (name.as_str(), value.as_str())));
    let world = Arc::new(World::with(Config { limits, ..Config::default() }, &settings).await);
    let begun = Instant::now();
    let invented = Arc::new(AtomicU64::new(1_000));
    let ask = |world: &World, token: &str, pos: u64| {
        let path = world.path(&format!("/points-of-sale/{pos}/products"));
        world.http.get(path).bearer_auth(token).header("Cache-Control", "no-cache").send()
    };
    let greedy = (0..40).map(|_| {
        let (world, invented) = (Arc::clone(&world), Arc::clone(&invented));
        tokio::spawn(async move {
            while begun.elapsed() < MINUTE {
                let pos = invented.fetch_add(1, Ordering::Relaxed);
                let answer = ask(&world, "loud", pos).await.unwrap();
                if answer.status() == 429 {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        })
    });
    let greedy: Vec<_> = greedy.collect();
    let mut waits = Vec::new();
    for round in 0_u64.. {
        if begun.elapsed() >= MINUTE {
            break;
        }
        // Every other one is for what the greedy token asked for last, and has waited for in its own turns.
        let pos = if round % 2 == 0 { 1_000_000 + round } else { invented.load(Ordering::Relaxed).saturating_sub(1) };
        let asked = Instant::now();
        let answer = ask(&world, "quiet", pos).await.unwrap();
        assert_eq!(answer.status(), 200, "after {:?}", asked.elapsed());
        waits.push(asked.elapsed());
    }
    for task in greedy {
        task.await.unwrap();
    }
    let longest = waits.iter().max().unwrap();
    // Its turn comes with the next points, after one of the other's at most; behind all that the other has in the queue
    // it would wait ten times as long.
    assert!(*longest < hold * 2, "of {} misses one waited {longest:?}", waits.len());
    assert!(waits.len() > 20, "{} misses in a minute", waits.len());
    assert_eq!(world.gateway.counts().ratelimit_errors, 0);
}
