//! Slow reads do not keep payments from selling, and neither a loud token nor renewals keep another from reading.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use concertpos_simulator::{Action, Config, Counting, Fault, Limits};
use reqwest::Method;
use support::{World, eventually, problem, token};
use tokio::time::Instant;

const READS: usize = 40;
const PAYMENTS: usize = 40;

/// Every read takes longer than a payment waits; 40 payments are made while more reads wait than there are links.
async fn payments_pass_slow_reads(min_links: &str, max_links: &str) {
    let settings = [("BRIDGE_GATEWAY__MIN_LINKS", min_links), ("BRIDGE_GATEWAY__MAX_LINKS", max_links)];
    let world = Arc::new(World::with(Config::default(), &settings).await);
    world.gateway.add_fault(Fault::new(Action::Hang).on("listtransactions"));
    let reads: Vec<_> = (1..=READS)
        .map(|limit| {
            let path = format!("/points-of-sale/1/transactions?limit={limit}");
            tokio::spawn(world.request(Method::GET, &path).send())
        })
        .collect();
    let links: usize = max_links.parse().unwrap();
    let occupied = links.saturating_sub(1).max(1);
    eventually("the reads have all links they can get", async || {
        world.gateway.counts().command("listtransactions").received >= occupied as u64
    })
    .await;
    let sales = (0..PAYMENTS).map(|number| world.sale(&format!("sale-{number}")).send());
    let answers = futures_util::future::join_all(sales).await;
    let mut statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201; PAYMENTS], "of {min_links} to {max_links} links");
    let counts = world.gateway.counts();
    assert_eq!(counts.payments_booked, PAYMENTS as u64);
    assert_eq!(counts.command("listtransactions").received, occupied as u64, "the reads were still under way");
    for read in reads {
        read.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_eight_links_is_left_for_payments() {
    payments_pass_slow_reads("2", "8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_links_is_left_for_payments() {
    payments_pass_slow_reads("2", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_one_link_it_serves_reads_and_a_waiting_payment_opens_a_second() {
    payments_pass_slow_reads("1", "1").await;
}

/// A read of one point of sale's products that no copy answers.
async fn products(world: &World, token: &str, pos: u64) -> reqwest::Response {
    let path = world.path(&format!("/points-of-sale/{pos}/products"));
    world.http.get(path).bearer_auth(token).header("Cache-Control", "no-cache").send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_when_it_was_told_is_served_however_loud_another_token_is() {
    let hold = Duration::from_millis(3_200);
    let limits = Limits { window: Duration::from_secs(3), ..Limits::new(Counting::PerCommand) };
    let (loud, quiet) = (token("loud", "read"), token("quiet", "read"));
    let mut settings = vec![
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__WINDOW", "3s"),
        ("BRIDGE_LIMITS__GUARD", "200ms"),
        ("BRIDGE_LIMITS__MAX_WAIT", "200ms"),
        ("BRIDGE_CACHE__MIN_AGE", "0s"),
    ];
    settings.extend(loud.iter().chain(&quiet).map(|(name, value)| (name.as_str(), value.as_str())));
    let world = Arc::new(World::with(Config { limits, ..Config::default() }, &settings).await);
    let (asked, refused) = (Arc::new(AtomicU64::new(1_000)), Arc::new(AtomicU64::new(0)));
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            let (world, asked, refused) = (Arc::clone(&world), Arc::clone(&asked), Arc::clone(&refused));
            tokio::spawn(async move {
                loop {
                    if products(&world, "loud", asked.fetch_add(1, Ordering::Relaxed)).await.status() == 429 {
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        })
        .collect();
    eventually("the loud one has all there is", async || refused.load(Ordering::Relaxed) > 0).await;
    for round in 0..6 {
        let first = products(&world, "quiet", round).await;
        if first.status() == 429 {
            let told = problem(first).await.retry_after.unwrap();
            tokio::time::sleep(Duration::from_secs(told)).await;
            assert_eq!(products(&world, "quiet", round).await.status(), 200, "round {round}: told {told} s");
        }
        // It asks once a window.
        tokio::time::sleep(hold).await;
    }
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(world.gateway.counts().ratelimit_errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_one_page_after_the_other_when_it_was_told_gets_the_points_before_renewals() {
    const PAGES: u64 = 20;
    // Ten fit into a window.
    let costs = [("listproducts".to_owned(), 10)].into();
    let limits = Limits { window: Duration::from_secs(3), costs, ..Limits::new(Counting::PerCommand) };
    let poller = token("poller", "read");
    let mut settings = vec![
        ("BRIDGE_LIMITS__CAPACITY", "100"),
        ("BRIDGE_LIMITS__WINDOW", "3s"),
        ("BRIDGE_LIMITS__GUARD", "200ms"),
        ("BRIDGE_LIMITS__MAX_WAIT", "200ms"),
        ("BRIDGE_LIMITS__COST__LISTPRODUCTS", "10"),
        ("BRIDGE_CACHE__LISTPRODUCTS__FRESH", "10ms"),
    ];
    settings.extend(poller.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let world = Arc::new(World::with(Config { limits, ..Config::default() }, &settings).await);
    let sent = || world.gateway.counts().command("listproducts").received;
    // Ten pages are old again at once: each read has its page renewed if there are points.
    let crowd: Vec<_> = (1..=10)
        .map(|pos| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                loop {
                    world.get(&format!("/points-of-sale/{pos}/products")).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    eventually("they are renewed", async || sent() >= 20).await;
    let (mut served, mut sent_before) = (0, None);
    let mut cold: BTreeSet<_> = (101..=100 + PAGES).map(|pos| (Instant::now(), pos)).collect();
    while let Some((due, pos)) = cold.pop_first() {
        tokio::time::sleep_until(due).await;
        let answer = products(&world, "poller", pos).await;
        if answer.status() == 429 {
            sent_before.get_or_insert_with(|| sent() - served);
            let told = problem(answer).await.retry_after.unwrap();
            cold.insert((Instant::now() + Duration::from_secs(told), pos));
        } else {
            assert_eq!(answer.status(), 200);
            served += 1;
        }
    }
    let renewals = sent() - served - sent_before.expect("a page was refused at first");
    assert!(renewals <= PAGES / 2, "{renewals} renewals while pages were refused");
    let now = sent();
    eventually("renewals go on", async || sent() > now).await;
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(world.gateway.counts().ratelimit_errors, 0);
}
