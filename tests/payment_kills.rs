//! The real program, killed with SIGKILL at random moments and started again on the same journal, while callers repeat
//! their payments with the same keys until they have an answer.
//!
//! 25 rounds as part of the tests; `KILL_ROUNDS` says how many else (`./scripts/kill-rounds`). The moments are random,
//! from a seed that a failure names and `KILL_SEED` repeats.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use concertpos_simulator::{Config, Simulator};
use serde_json::{Value, json};
use support::program::{Program, free_address};
use support::{KEY, eventually};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const CALLERS: usize = 8;

/// From the start of the program to its kill, for every other life: most of these end before it serves.
const STARTING_MS: std::ops::Range<u64> = 0..150;

/// From its first answer to its kill, for the others.
const SERVING_MS: std::ops::Range<u64> = 0..100;

/// Slow enough that a kill often falls between a write and its reply.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

/// Longer than any answer takes of a bridge that lives.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the callers of one key have seen of it.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The body of its 201.
    booked: Option<String>,
    /// A request was cut off, so a payment may have been on its way when the program was killed.
    cut_off: bool,
    unknown: bool,
    replays: u32,
}

type Keys = Arc<Mutex<BTreeMap<String, Seen>>>;

/// A payment's caller: knows its keys, and holds every answer against those before it.
#[derive(Clone)]
struct Caller {
    url: String,
    http: reqwest::Client,
    keys: Keys,
    answers: Arc<AtomicU64>,
}

impl Caller {
    /// Asks once. Whether the key has its answer.
    async fn ask(&self, key: &str) -> bool {
        let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
        let url = format!("{}/points-of-sale/1/payments", self.url);
        let request = self.http.post(url).bearer_auth(KEY).header("Idempotency-Key", key).json(&sale);
        let answer = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                response.text().await.map(|body| (status, body))
            }
            Err(error) => Err(error),
        };
        if answer.is_ok() {
            self.answers.fetch_add(1, Ordering::SeqCst);
        }
        let mut keys = self.keys.lock().unwrap();
        let seen = keys.entry(key.to_owned()).or_default();
        match answer {
            Err(error) => {
                // Where nothing listens, nothing was sent.
                seen.cut_off |= !error.is_connect();
                false
            }
            Ok((201, body)) => {
                assert!(!seen.unknown, "{key} was of unknown outcome, and nobody settled it");
                assert_eq!(
                    *seen.booked.get_or_insert_with(|| body.clone()),
                    body,
                    "{key}: a 201 is given again as it was"
                );
                seen.replays += 1;
                true
            }
            Ok((504, body)) => {
                assert!(seen.booked.is_none(), "{key} was booked, and is now said to be unknown");
                assert!(body.contains("payment-outcome-unknown"), "{body}");
                seen.unknown = true;
                true
            }
            Ok((status, body)) => {
                assert!(
                    seen.booked.is_none() && !seen.unknown,
                    "{key} had its answer, and is now told {status}: {body}"
                );
                assert!([409, 429, 503].contains(&status), "{key}: {status} {body}");
                false
            }
        }
    }

    /// Repeats one key until it has its answer.
    async fn pay(&self, key: &str) {
        let asking = async {
            while !self.ask(key).await {
                sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(PATIENCE, asking).await.is_ok(), "{key} never has its answer");
    }

    /// One sale after the other, now and then asking again for an old one.
    async fn sell(self, name: usize, seed: u64, enough: CancellationToken) {
        let mut random = fastrand::Rng::with_seed(seed + name as u64);
        for number in 0.. {
            if enough.is_cancelled() {
                break;
            }
            self.pay(&format!("{name}-{number}")).await;
            if random.u8(..) < 64 {
                self.pay(&format!("{name}-{}", random.u32(..=number))).await;
            }
        }
    }

    /// The state that the latest record of a key shows.
    async fn state(&self, key: &str) -> String {
        let url = format!("{}/payments?idempotency_key={key}", self.url);
        let records: Value = self.http.get(url).bearer_auth(KEY).send().await.unwrap().json().await.unwrap();
        records["payments"][0]["state"].as_str().unwrap().to_owned()
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_no_sale_is_booked_twice_and_no_answer_is_taken_back() {
    let rounds = number_from("KILL_ROUNDS").unwrap_or(25);
    let seed = number_from("KILL_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    println!("KILL_ROUNDS={rounds} KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let gateway = Simulator::start(Config { latency: LATENCY, ..Config::default() }).await.unwrap();
    let listen = free_address();
    let journal = tempfile::tempdir().unwrap();
    let start = || Program::start(&listen, &gateway.url(), journal.path().to_str().unwrap());

    let enough = CancellationToken::new();
    let url = format!("http://{listen}/v1/instances/demo");
    let caller = Caller { url, http: reqwest::Client::new(), keys: Keys::default(), answers: Arc::default() };
    let selling: Vec<_> =
        (0..CALLERS).map(|name| tokio::spawn(caller.clone().sell(name, seed, enough.clone()))).collect();
    for round in 0..rounds {
        let answers = || caller.answers.load(Ordering::SeqCst);
        let (before, bridge) = (answers(), start());
        let life_ms = if round % 2 == 0 {
            random.u64(STARTING_MS)
        } else {
            eventually("it answers", async || answers() > before).await;
            random.u64(SERVING_MS)
        };
        sleep(Duration::from_millis(life_ms)).await;
        bridge.kill();
    }
    let _bridge = start();
    enough.cancel();
    for one in selling {
        one.await.unwrap();
    }

    let keys = caller.keys.lock().unwrap().clone();
    for key in keys.keys() {
        caller.pay(key).await;
    }
    check(&caller, &gateway, &keys).await;
}

/// The callers' word against the gateway's.
async fn check(caller: &Caller, gateway: &Simulator, keys: &BTreeMap<String, Seen>) {
    let counts = gateway.counts();
    let received = |key: &str| counts.payitems_received.get(key).copied().unwrap_or(0);
    let (mut unknown, mut never_arrived) = (Vec::new(), 0);
    for (key, seen) in keys {
        let bookings = counts.bookings(key);
        assert!(bookings <= 1 && received(key) <= 1, "{key}: {bookings} bookings, {} commands", received(key));
        assert!(seen.booked.is_none() || bookings == 1, "{key} was told 201 and is not booked");
        let told = if seen.unknown { "unknown" } else { "booked" };
        assert_eq!(caller.state(key).await, told, "{key}: the record tells what its caller was told");
        if seen.unknown {
            assert!(seen.cut_off, "{key} is unknown, and nothing of it was on its way at a kill");
            never_arrived += u32::from(received(key) == 0);
            unknown.push(key);
        }
    }
    let sum = |count: fn(&Seen) -> u32| keys.values().map(count).sum::<u32>();
    println!(
        "{} keys: {} booked, {} unknown (of these {} booked at the gateway, {never_arrived} never \
         arrived there); {} requests cut off; {} answers given again",
        keys.len(),
        sum(|seen| u32::from(seen.booked.is_some())),
        unknown.len(),
        unknown.iter().filter(|key| counts.bookings(key) == 1).count(),
        sum(|seen| u32::from(seen.cut_off)),
        sum(|seen| seen.replays.saturating_sub(1)),
    );
    assert!(keys.len() > CALLERS, "the program never got to serve anybody");
}
