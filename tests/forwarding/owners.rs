//! Requests while owners change: they wait, go to the next owner, and never in a circle.

use std::sync::Arc;

use concertpos_simulator::{Action, Fault};
use reqwest::Method;

use crate::support::events::Stream;
use crate::support::replicas::{Plan, Replicas};
use crate::support::{eventually, problem};

fn three(serves: usize) -> Vec<Plan> {
    (0..3).map(|number| Plan { serves: number == serves, ..Plan::other() }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_until_an_owner_is_known() {
    let replicas = Arc::new(Replicas::pair().await);
    replicas.other().directory.show_owners(vec![replicas.owned(None, 1)]);
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            let replicas = Arc::clone(&replicas);
            tokio::spawn(async move {
                let sale = replicas.other().sale(&format!("k-{number}")).send();
                let (read, sale) = tokio::join!(replicas.other().get("/version"), sale);
                (read.status().as_u16(), sale.unwrap().status().as_u16())
            })
        })
        .collect();
    eventually("they wait", async || replicas.other().metric("forwarding_waiting").await == 6).await;
    replicas.show_owner(Some(0), 2);
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), (200, 201));
    }
    assert_eq!(replicas.gateway.counts().command("payitems").received, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_between_the_release_and_the_next_owner_s_claim_goes_to_that_owner() {
    let replicas = Arc::new(Replicas::pair().await);
    // Not read yet: that it gave the instance up, and who has it now.
    replicas.other().directory.show_owners(vec![replicas.owned(Some(1), 2)]);
    let asked = {
        let replicas = Arc::clone(&replicas);
        tokio::spawn(async move {
            let sale = replicas.other().sale("k").send();
            let (read, sale) = tokio::join!(replicas.other().get("/version"), sale);
            (read.status().as_u16(), sale.unwrap().status().as_u16())
        })
    };
    eventually("they wait", async || replicas.other().metric("forwarding_waiting").await == 2).await;
    replicas.other().directory.show_owners(vec![replicas.owned(Some(0), 3)]);
    assert_eq!(asked.await.unwrap(), (200, 201));
    assert_eq!(replicas.gateway.counts().command("payitems").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_owner_each_kind_of_request_is_told_in_its_own_way() {
    let replicas = Replicas::pair().await;
    replicas.show_owner(None, 1);
    let other = replicas.other();
    let stream = Stream::of(other.get("/events").await);
    assert_eq!(stream.status, 200);
    let mut stream = stream;
    let event = stream.next().await;
    assert_eq!((event.name.as_str(), event.json()["reason"].as_str()), ("overloaded", Some("no-owner")));
    assert!(event.retry_ms.is_some() && event.id.is_empty());
    let listing = other.get("/payments").await;
    assert_eq!(listing.status(), 200, "what is kept where all can read it is told by each");
    let refused = problem(other.get("/config").await).await;
    assert_eq!((refused.status, refused.code.as_str()), (503, "instance-unavailable"));
    assert!(refused.retry_after.is_some());
    let unknown = problem(other.request(Method::GET, "/x").send().await.unwrap()).await;
    assert_eq!(unknown.code, "instance-unavailable", "which routes there are, its owner says");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_passed_on_goes_on_only_to_a_higher_epoch() {
    // The third one serves; the first two know it not.
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), three(2)).await;
    let [first, second, third] = &replicas.all[..] else { panic!("three") };
    eventually("the owner has a link", async || third.get("/version").await.status() == 200).await;
    first.directory.show_owners(vec![replicas.owned(Some(1), 5)]);
    second.directory.show_owners(vec![replicas.owned(Some(2), 6)]);
    assert_eq!(first.get("/version").await.status(), 200, "an owner of the past knows the present one");
    assert_eq!(first.sale("once").send().await.unwrap().status(), 201);
    let passed_on = "forwarded_requests_total{replica=\"bridge 2\",outcome=\"answered\"}";
    assert_eq!(second.metric(passed_on).await, 2);
    // Now the second one believes in the third of no higher epoch, and in the first of a higher one.
    for (number, epoch) in [(2, 5), (0, 5)] {
        second.directory.show_owners(vec![replicas.owned(Some(number), epoch)]);
        let refused = problem(first.get("/version").await).await;
        assert_eq!(refused.code, "instance-unavailable");
    }
    let to_first = "forwarded_requests_total{replica=\"bridge 0\",outcome=\"elsewhere\"}";
    assert_eq!(second.metric(to_first).await, 0, "it never went back");
    second.directory.show_owners(vec![replicas.owned(Some(0), 6)]);
    let refused = problem(first.get("/version").await).await;
    assert_eq!(refused.code, "instance-unavailable", "two that believe in each other");
    let hops = second.metric(to_first).await;
    assert!(hops > 0, "it was passed back, for a higher epoch, once each time");
    let back = "forwarded_requests_total{replica=\"bridge 1\",outcome=\"elsewhere\"}";
    assert!(first.metric(back).await >= hops, "and no further");
    assert_eq!(replicas.gateway.counts().command("payitems").received, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_nobody_lists_is_unknown() {
    let replicas = Replicas::pair().await;
    for replica in &replicas.all {
        let answer = reqwest::Client::new().get(format!("{}/v1/instances/other/config", replica.url));
        let unknown = problem(answer.bearer_auth(crate::support::OPERATOR).send().await.unwrap()).await;
        assert!(["unknown-instance", "forbidden"].contains(&unknown.code.as_str()), "{}", unknown.code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_that_stops_refuses_is_done_by_the_next_owner() {
    let plans = vec![Plan::owner(), Plan::owner()];
    let replicas = Arc::new(Replicas::begin(concertpos_simulator::Config::default(), plans).await);
    for replica in &replicas.all {
        eventually("it has a link", async || replica.get("/version").await.status() == 200).await;
    }
    // One read keeps the first from ending.
    replicas.gateway.add_fault(Fault::new(Action::Latency { ms: 3000 }).on("listproducts").times(1));
    let slow = {
        let replicas = Arc::clone(&replicas);
        tokio::spawn(async move { replicas.owner().get("/points-of-sale/1/products").await.status().as_u16() })
    };
    eventually("it is out", async || replicas.gateway.counts().command("listproducts").received == 1).await;
    replicas.show_owner(Some(1), 2);
    replicas.owner().ask_to_stop();
    let mut sales = 0;
    eventually("what comes is passed on", async || {
        sales += 1;
        assert_eq!(replicas.owner().sale(&format!("k-{sales}")).send().await.unwrap().status(), 201);
        assert_eq!(replicas.owner().get("/version").await.status(), 200);
        replicas.other().metric("forwarding_received_total{proved=\"true\"}").await >= 4
    })
    .await;
    assert_eq!(slow.await.unwrap(), 200, "what was begun ends where it was begun");
    assert_eq!(replicas.gateway.counts().command("payitems").received, sales, "one booking a key");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_of_all_replicas_and_a_shard_is_taken_out_at_all() {
    let replicas = Replicas::pair().await;
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    let (owner, other) = (replicas.owner(), replicas.other());
    let names = |status: &serde_json::Value| status["instances"][0]["instance"].clone();
    assert_eq!(names(&other.status().await), "demo", "the other tells of what the owner serves");
    let listed = other.operate(Method::GET, "/v1/instances").send().await.unwrap();
    assert_eq!(listed.json::<serde_json::Value>().await.unwrap(), serde_json::json!({"instances": ["demo"]}));
    let cordon = |shard: &str| {
        let path = format!("/v1/bridge/shards/{shard}");
        other.operate(Method::PUT, &path).json(&serde_json::json!({"cordoned": true})).send()
    };
    assert_eq!(cordon("zeus").await.unwrap().status(), 200);
    let status = owner.status().await;
    let shards = status["instances"][0]["shards"].as_array().unwrap();
    assert!(shards.iter().any(|shard| shard["shard"] == "zeus" && shard["cordoned"] == true), "{shards:?}");
    assert_eq!(problem(cordon("nothing").await.unwrap()).await.code, "not-found");
    let path = "/v1/bridge/shards/exon";
    let by_key = other.request_to(Method::PUT, path).json(&serde_json::json!({"cordoned": true})).send().await.unwrap();
    assert_eq!(by_key.status(), 403);
    let Replicas { mut all, gateway: _gateway } = replicas;
    all.remove(0).stop().await.unwrap();
    let missed = all[0].operate(Method::PUT, path).json(&serde_json::json!({"cordoned": true})).send().await.unwrap();
    let missed = problem(missed).await;
    assert!(missed.status == 503 && missed.body["detail"].as_str().unwrap().contains("bridge 0"), "{}", missed.body);
    assert_eq!(all[0].status().await["instances"], serde_json::json!([]), "it tells what it knows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_is_gone_at_the_owner_too() {
    let replicas = Replicas::pair().await;
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    replicas.gateway.add_fault(Fault::new(Action::Latency { ms: 1500 }).on("listtransactions"));
    let read = replicas.other().get("/points-of-sale/1/transactions");
    let in_flight = async || replicas.owner().metric("requests_in_flight{caller=\"gateway-key\"}").await;
    tokio::select! {
        _ = read => panic!("it was not to be answered yet"),
        () = eventually("the owner has it", async || {
            replicas.gateway.counts().command("listtransactions").received == 1 && in_flight().await == 1
        }) => {}
    }
    eventually("and has it no more", async || in_flight().await == 0).await;
    let abandoned = "forwarded_requests_total{replica=\"bridge 0\",outcome=\"abandoned\"}";
    assert_eq!(replicas.other().metric(abandoned).await, 1);
    assert_eq!(replicas.gateway.counts().command("listtransactions").answered, 0, "before the gateway answered");
}
