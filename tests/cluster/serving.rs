//! Replicas that are well: one owns an instance, and all serve it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use concertpos_simulator as simulator;
use serde_json::Value;

use super::alone;
use super::replicas::{Cluster, Replica, SLACK, Setup, answer, sale};
use super::selling::Tills;
use super::support::{KEY, OPERATOR, eventually};

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn every_replica_serves_an_instance_that_one_of_them_owns() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup { direct: true, ..Setup::of(3) }).await;
    let owner = cluster.owner("demo").await;
    let links = cluster.gateway.counts().open();
    assert!(links <= 3, "only the owner has links: {links} are open");

    // A sale through each, and each of them again through every other.
    for number in 0..3 {
        let key = format!("sale-{number}");
        let first = answer(sale(&cluster.http, &cluster.replicas[number].url, "demo", &key)).await;
        assert_eq!(first.status(), Some(201), "{first:?}\n{}", cluster.logs());
        for replica in &cluster.replicas {
            assert_eq!(answer(sale(&cluster.http, &replica.url, "demo", &key)).await, first, "{}", replica.name);
        }
        assert_eq!(cluster.gateway.counts().bookings(&key), 1);
    }
    assert_eq!(cluster.owner("demo").await, owner, "nobody moves what nobody has to move");
    the_status_of_each_names_all(&cluster, owner).await;
}

/// `cluster` in `GET /v1/bridge`, and the metrics.
async fn the_status_of_each_names_all(cluster: &Cluster, owner: usize) {
    for replica in &cluster.replicas {
        let seen = async || replica.status(&cluster.http, "/v1/bridge").await["cluster"].clone();
        eventually("it sees all replicas", async || seen().await["replicas"].as_array().map(Vec::len) == Some(3)).await;
        let seen = seen().await;
        let names: BTreeSet<_> =
            seen["replicas"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, BTreeSet::from(["bridge-0", "bridge-1", "bridge-2"]));
        assert_eq!(seen["replica"], replica.name);
        assert!(seen["lease_left_ms"].as_u64() > Some(0), "{seen}");
        assert_eq!(seen["database"]["fault"], Value::Null);
        assert_eq!(seen["database"]["has_standby"], true);
        assert_eq!(seen["owners"][0]["replica"], cluster.replicas[owner].name, "{seen}");
        assert_eq!(seen["settings_differ"], serde_json::json!([]));
    }
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_owned_before_begins_with_all_its_points() {
    let _alone = alone().await;
    let cluster = Cluster::start(Setup::of(2).set("limits.window", "\"30s\"")).await;
    let read = cluster.http.get(format!("{}/v1/instances/demo/config", cluster.replicas[0].url)).bearer_auth(KEY);
    let told = answer(read).await;
    assert_eq!(told.status(), Some(200), "{told:?}\n{}", cluster.logs());
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn listeners_hear_a_broadcast_through_every_replica() {
    let _alone = alone().await;
    let cluster = Cluster::start(Setup::of(2)).await;
    let mut streams = Vec::new();
    for replica in &cluster.replicas {
        let request = cluster.http.get(format!("{}/v1/instances/demo/events", replica.url)).bearer_auth(KEY);
        streams.push(super::support::events::Stream::of(request.send().await.unwrap()));
    }
    eventually("broadcasts are heard by both", async || {
        cluster.gateway.broadcast("demo", "hello", "{}").unwrap();
        true
    })
    .await;
    for stream in &mut streams {
        assert_eq!(stream.status, 200);
        loop {
            let event = stream.next().await;
            if event.name.is_empty() {
                assert_eq!(event.message(), "hello");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_told_to_stop_gives_its_instances_up_first() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let owner = cluster.owner("demo").await;
    let other = cluster.other("demo").await;
    let tills = Tills::open(&cluster, "demo", 4);
    tills.until_sold(20).await;
    let asked = Instant::now();
    cluster.replicas[owner].ask_to_stop();
    while cluster.owner_of("demo") != Some(other) {
        assert!(asked.elapsed() < Duration::from_secs(15), "it is not handed over:\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("the other owns it {} ms after the order to stop", asked.elapsed().as_millis());
    tills.until_sold(20).await;
    cluster.replicas[owner].ended().await;
    let sold = tills.close().await;
    sold.check(&cluster, "demo").await;
    println!("{sold}");
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_differ_between_replicas_are_told() {
    let _alone = alone().await;
    // Each reaches the gateway by another name.
    let mut cluster = Cluster::start(Setup::of(2)).await;
    assert_eq!(
        cluster.replicas[0].status(&cluster.http, "/v1/bridge").await["cluster"]["settings_differ"],
        serde_json::json!([])
    );
    cluster.replicas[1].stop().await;
    cluster.replicas[1].configure(|file| file.replace("limits.window = \"1s\"", "limits.window = \"2s\""));
    cluster.replicas[1].run();
    for replica in &cluster.replicas {
        eventually("the settings differ", async || {
            let status = replica.status(&cluster.http, "/v1/bridge").await;
            status["cluster"]["settings_differ"] == serde_json::json!(["demo"])
        })
        .await;
    }
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_only_another_replica_has_is_served_and_one_that_nobody_has_is_unknown() {
    let _alone = alone().await;
    let setup = Setup::of(2).gateway(simulator::Config::default());
    let mut cluster = Cluster::start(setup).await;
    cluster.replicas[0].stop().await;
    cluster.replicas[0].configure(|file| file.replace("instances.demo.api_key", "instances.other.api_key"));
    cluster.replicas[0].run();
    let url = cluster.replicas[0].url.clone();
    let read = |instance: &str| {
        let url = format!("{url}/v1/instances/{instance}/points-of-sale/1/transactions?limit=1");
        answer(cluster.http.get(url).bearer_auth(KEY))
    };
    let began = Instant::now();
    while read("demo").await.status() != Some(200) {
        assert!(began.elapsed() < Duration::from_secs(20) + SLACK, "{:?}\n{}", read("demo").await, cluster.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let nobody = format!("{url}/v1/instances/nobody/points-of-sale/1/transactions?limit=1");
    let unknown = answer(cluster.http.get(nobody).bearer_auth(OPERATOR)).await;
    assert_eq!((unknown.status(), unknown.code()), (Some(404), Some("unknown-instance")), "{unknown:?}");
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_reload_takes_out_is_unknown_and_what_it_adds_is_owned_and_served() {
    let _alone = alone().await;
    let cluster = Cluster::start(Setup::of(2).instances(2)).await;
    let url = |replica: &Replica| format!("{}/v1/instances/demo1/points-of-sale/1/transactions?limit=1", replica.url);
    for replica in &cluster.replicas {
        replica.configure(|file| file.replace("instances.demo1.", "# instances.demo1."));
        replica.reload();
    }
    for replica in &cluster.replicas {
        eventually("no replica has it", async || {
            let told = answer(cluster.http.get(url(replica)).bearer_auth(OPERATOR)).await;
            (told.status(), told.code()) == (Some(404), Some("unknown-instance"))
        })
        .await;
        assert!(replica.serves(&cluster.http, "demo0").await, "nothing happens to the other");
    }
    for replica in &cluster.replicas {
        replica.configure(|file| file.replace("# instances.demo1.", "instances.demo1."));
        replica.reload();
    }
    cluster.until_served(Duration::from_secs(20)).await;
}
