//! An owner that dies at each point of a request: what may have been done is never done twice, and is told as what it is.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;

use crate::gate::{Break, Gate};
use crate::support::replicas::{Plan, Replicas};
use crate::support::{OPERATOR, eventually, problem};

/// An owner behind a gate.
async fn behind_a_gate() -> (Replicas, Gate) {
    let gate = Gate::open().await;
    let owner = Plan { advertise: Some(gate.address), ..Plan::owner() };
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), vec![owner, Plan::other()]).await;
    gate.leads_to(replicas.owner().cluster);
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    (replicas, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_without_an_answer_is_of_unknown_outcome_and_is_sent_once() {
    let (replicas, gate) = behind_a_gate().await;
    for (number, at) in [Break::Request, Break::Answer, Break::MostOfAnswer, Break::Silent].into_iter().enumerate() {
        for is_kept in [false, true] {
            let key = format!("{at:?}-{is_kept}");
            if is_kept {
                assert_eq!(replicas.other().get("/version").await.status(), 200);
            }
            gate.breaks(at);
            let unknown = problem(replicas.other().sale(&key).send().await.unwrap()).await;
            assert_eq!((unknown.status, unknown.code.as_str()), (504, "payment-outcome-unknown"), "{key}");
            assert_eq!(unknown.body["retryable"], true, "{key}");
            assert_eq!(gate.broken(), 2 * number + usize::from(is_kept) + 1, "{key}: it was not sent again");
            eventually("the same key has an outcome", async || {
                replicas.other().sale(&key).send().await.unwrap().status() == 201
            })
            .await;
            let bookings = replicas.gateway.counts().command("payitems").received;
            assert_eq!(bookings, 2 * number as u64 + u64::from(is_kept) + 1, "{key}: one booking a key");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_command_without_an_answer_is_not_sent_again_and_not_called_retryable() {
    let (replicas, gate) = behind_a_gate().await;
    for at in [Break::Request, Break::Answer] {
        gate.breaks(at);
        let before = gate.broken();
        let raw = reqwest::Client::new().post(format!("{}/v1/instances/demo/commands/getstatus", replicas.other().url));
        let unknown = problem(raw.bearer_auth(OPERATOR).json(&json!({})).send().await.unwrap()).await;
        assert_eq!((unknown.status, unknown.code.as_str()), (504, "gateway-timeout"), "{at:?}");
        assert_eq!(unknown.body["retryable"], false, "{at:?}");
        assert_eq!(gate.broken(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_asked_again_within_its_deadline() {
    let (replicas, gate) = behind_a_gate().await;
    for at in [Break::Request, Break::Answer, Break::MostOfAnswer] {
        for is_kept in [false, true] {
            if is_kept {
                assert_eq!(replicas.other().get("/version").await.status(), 200);
            }
            gate.breaks(at);
            let before = gate.broken();
            assert_eq!(replicas.other().get("/points-of-sale/1/products").await.status(), 200, "{at:?}");
            assert_eq!(gate.broken(), before + 1, "{at:?}");
        }
    }
    gate.breaks(Break::Silent);
    let late = problem(replicas.other().get("/points-of-sale/1/products").await).await;
    assert_eq!((late.status, late.code.as_str()), (504, "gateway-timeout"), "it may have been asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_waits_and_is_then_told_so() {
    let (replicas, gate) = behind_a_gate().await;
    let replicas = Arc::new(replicas);
    gate.breaks(Break::Connecting);
    let refused = problem(replicas.other().sale("never").send().await.unwrap()).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "instance-unavailable"));
    assert!(refused.retry_after.is_some() && refused.body["retryable"] == true);
    let waiting = {
        let replicas = Arc::clone(&replicas);
        tokio::spawn(async move { replicas.other().sale("patient").send().await.unwrap().status().as_u16() })
    };
    eventually("it waits", async || replicas.other().metric("forwarding_waiting").await > 0).await;
    gate.breaks(Break::Nowhere);
    assert_eq!(waiting.await.unwrap(), 201);
    assert_eq!(replicas.gateway.counts().command("payitems").received, 1);
    eventually("nothing waits", async || replicas.other().metric("forwarding_waiting").await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_never_passed_off_as_whole() {
    let (replicas, gate) = behind_a_gate().await;
    let settle = replicas.other().request(Method::PUT, "/devices/0f0e").json(&json!({}));
    gate.breaks(Break::MostOfAnswer);
    assert_eq!(settle.send().await.unwrap().status(), 200, "a registration may be asked again");
    gate.breaks(Break::MostOfAnswer);
    let opening = reqwest::Client::new().put(format!("{}/v1/instances/demo/budget/payitems", replicas.other().url));
    let unknown = problem(opening.bearer_auth(OPERATOR).json(&json!({"open": true})).send().await.unwrap()).await;
    assert_eq!((unknown.status, unknown.code.as_str()), (504, "gateway-timeout"));
}
