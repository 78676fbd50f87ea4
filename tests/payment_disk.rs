//! The real program on a disk that fills up: what cannot be recorded is not sent, and what was answered stays answered.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::time::Duration;

use concertpos_simulator::{Config, Simulator};
use serde_json::json;
use support::program::{Program, free_address};
use support::{KEY, eventually, problem};

/// More payments than fit into what an empty journal has left.
const MOST_PAYMENTS: usize = 20_000;

struct Caller {
    url: String,
    http: reqwest::Client,
}

impl Caller {
    async fn pay(&self, key: &str) -> Option<reqwest::Response> {
        let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
        let request = self.http.post(&self.url).bearer_auth(KEY).header("Idempotency-Key", key);
        request.json(&sale).timeout(Duration::from_secs(20)).send().await.ok()
    }

    async fn until_booked(&self, key: &str) {
        let booked = async || self.pay(key).await.is_some_and(|response| response.status() == 201);
        eventually(&format!("{key} is booked"), booked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_sent_that_cannot_be_recorded_and_no_answer_is_forgotten() {
    let gateway = Simulator::start(Config::default()).await.unwrap();
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let (journal, url) = (folder.path().to_str().unwrap(), gateway.url());
    let http = reqwest::Client::new();
    let caller = Caller { url: format!("http://{listen}/v1/instances/demo/points-of-sale/1/payments"), http };
    let with_room = Program::start(&listen, &url, journal);
    caller.until_booked("0").await;
    with_room.stop();

    let size = std::fs::metadata(Path::new(journal).join("payments.redb")).unwrap().len();
    let full = Program::start_on_full_disk(size / 1024, &listen, &url, journal);
    caller.until_booked("0").await;
    let (mut booked, mut lost, mut refused) = (vec!["0".to_owned()], Vec::new(), None);
    for number in 1..MOST_PAYMENTS {
        let key = number.to_string();
        let response = caller.pay(&key).await.unwrap();
        if response.status() == 201 {
            booked.push(key);
            continue;
        }
        let problem = problem(response).await;
        match (problem.status, problem.code.as_str()) {
            // Recorded as on its way, sent, and then there was no room for its outcome.
            (504, "payment-outcome-unknown") => lost.push(key),
            other => {
                assert_eq!(other, (503, "journal-unavailable"));
                assert!(problem.retry_after.is_some() && problem.body["retryable"] == true, "{}", problem.body);
                refused = Some(key);
                break;
            }
        }
    }
    let refused = refused.expect("the disk fills up");
    assert!(!gateway.counts().payitems_received.contains_key(&refused), "it was sent without a record");
    full.kill();

    let _with_room = Program::start(&listen, &url, journal);
    caller.until_booked(&refused).await;
    for key in &booked {
        let again = caller.pay(key).await.unwrap();
        assert_eq!((again.status().as_u16(), again.headers()["idempotent-replayed"].to_str().unwrap()), (201, "true"));
        assert_eq!(again.text().await.unwrap(), r#"{"Items":1}"#);
    }
    for key in &lost {
        assert_eq!(problem(caller.pay(key).await.unwrap()).await.code, "payment-outcome-unknown");
    }
    let counts = gateway.counts();
    assert!(counts.payitems_received.values().all(|times| *times == 1));
    assert_eq!(counts.payments.len(), booked.len() + lost.len() + 1);
}
