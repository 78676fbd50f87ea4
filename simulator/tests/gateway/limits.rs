//! The rate limit as a client meets it: exact, on the server's clock, and never counting what it refused.

use std::time::{Duration, Instant};

use concertpos_simulator::{Config, Counting, Limits};
use serde_json::json;
use tokio::time::sleep;

use crate::client::{Client, error_word, event, start};

#[tokio::test]
async fn a_command_s_limit_bites_exactly_and_on_that_command_alone() {
    let window = Duration::from_millis(300);
    let limits = Limits { window, ..Limits::new(Counting::PerCommand) };
    let (simulator, mut client) = start(Config { limits, ..Config::default() }).await;
    let mut other = Client::open(&simulator, "cyton", "json").await;
    let begun = Instant::now();
    for _ in 0..2 {
        assert!(event("version")(&client.ask("version", json!({})).await));
    }
    let refused = other.ask("version", json!({})).await;
    assert_eq!(error_word(&refused), "ratelimit");
    assert_eq!(refused["result"]["code"]["command"], "version");
    let retry_after = refused["result"]["code"]["retry_after"].as_u64().unwrap();
    assert!((1..=300).contains(&retry_after), "{refused}");
    assert!(event("getconfig")(&other.ask("getconfig", json!({})).await), "another command has its own counter");

    let mut refusals = 1;
    while !event("version")(&other.ask("version", json!({})).await) {
        refusals += 1;
    }
    assert!(begun.elapsed() >= window, "it was let in {:?} after the first", begun.elapsed());
    let counts = simulator.counts();
    assert_eq!((counts.ratelimit_errors, counts.command("version").points), (refusals, 150));
}

#[tokio::test]
async fn whoever_waits_exactly_as_long_as_told_is_let_in() {
    let limits = Limits { window: Duration::from_millis(50), ..Limits::new(Counting::PerCommand) };
    let (_simulator, mut client) = start(Config { limits, ..Config::default() }).await;
    for _ in 0..10 {
        let mut frame = client.ask("version", json!({})).await;
        if let Some(ms) = frame["result"]["code"]["retry_after"].as_u64() {
            sleep(Duration::from_millis(ms)).await;
            frame = client.ask("version", json!({})).await;
        }
        assert!(event("version")(&frame), "{frame}");
    }
}

#[tokio::test]
async fn an_instance_s_limit_is_shared_by_its_commands() {
    let limits = Limits { costs: [("listpos".to_owned(), 60)].into(), ..Limits::new(Counting::PerInstance) };
    let (_simulator, mut client) = start(Config { limits, ..Config::default() }).await;
    assert!(event("listpos")(&client.ask("listpos", json!({})).await));
    assert_eq!(error_word(&client.ask("version", json!({})).await), "ratelimit");
    assert!(event("getconfig")(&client.ask("getconfig", json!({})).await));
}

#[tokio::test]
async fn late_arrivals_are_counted_late() {
    let window = Duration::from_millis(100);
    let limits = Limits { window, ..Limits::new(Counting::PerCommand) };
    let jitter = Config { limits, arrival_jitter: Duration::from_millis(200), seed: 3, ..Config::default() };
    let (simulator, mut client) = start(jitter).await;
    // Two versions fit into a window. Written at once, more than two fit if their arrivals are spread over three.
    for _ in 0..12 {
        client.send("version", json!({})).await;
    }
    for _ in 0..12 {
        client.frame().await;
    }
    assert!(simulator.counts().command("version").points > 100);
}
