//! One thing after the other goes away: the database, its primary, its standby, a way.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::alone;
use super::replicas::{Answer, BACK, Cluster, LEASE, SLACK, Setup, answer, sale};
use super::selling::Tills;
use super::support::{KEY, OPERATOR, eventually};

async fn pay(cluster: &Cluster, replica: usize, key: &str) -> (Option<u16>, Option<String>) {
    let told = answer(sale(&cluster.http, &cluster.replicas[replica].url, "demo", key)).await;
    (told.status(), told.code().map(str::to_owned))
}

/// A read whose reply the replicas hold a copy of.
async fn read(cluster: &Cluster, replica: usize) -> Option<u16> {
    let url = format!("{}/v1/instances/demo/config", cluster.replicas[replica].url);
    answer(cluster.http.get(url).bearer_auth(KEY)).await.status()
}

async fn until_paid(cluster: &Cluster, replica: usize, limit: Duration, what: &str) {
    let began = Instant::now();
    for number in 0.. {
        let told = pay(cluster, replica, &format!("{what}-{number}")).await;
        if told.0 == Some(201) {
            return;
        }
        assert!(began.elapsed() < limit, "{what}: {told:?} after {:?}\n{}", began.elapsed(), cluster.logs());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_dies_and_the_standby_is_promoted_within_a_lease() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let owner = cluster.owner("demo").await;
    let tills = Tills::open(&cluster, "demo", 4);
    tills.until_sold(20).await;
    cluster.pair.kill_primary();
    let killed = Instant::now();
    tokio::task::block_in_place(|| cluster.pair.promote());
    println!("promoted after {:?}", killed.elapsed());
    tills.until_sold(20).await;
    println!("20 more sold {:?} after the kill", killed.elapsed());
    assert_eq!(cluster.owner("demo").await, owner, "who lived through it goes on");
    let sold = tills.close().await;
    sold.check(&cluster, "demo").await;
    println!("{sold}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_away_for_longer_than_a_lease() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let owner = cluster.owner("demo").await;
    eventually("a copy is kept", async || read(&cluster, owner).await == Some(200)).await;
    let cut = |cluster: &Cluster, cut| cluster.replicas.iter().for_each(|replica| replica.cut_database(cut));
    cut(&cluster, true);
    let away = Instant::now();
    let told = pay(&cluster, owner, "while-away").await;
    assert_eq!(told, (Some(503), Some("journal-unavailable".to_owned())), "{}", cluster.logs());
    assert_eq!(cluster.gateway.counts().bookings("while-away"), 0);

    // Beyond the lease nothing is sent, and copies are still served.
    sleep((LEASE + Duration::from_secs(1)).saturating_sub(away.elapsed())).await;
    eventually("the lease is over", async || {
        cluster.replicas[owner].status(&cluster.http, "/v1/bridge").await["cluster"]["lease_left_ms"].is_null()
    })
    .await;
    let sent = cluster.replicas[owner].gateway.messages();
    assert_eq!(read(&cluster, owner).await, Some(200), "a copy is served, stale");
    let status = cluster.replicas[owner].status(&cluster.http, "/v1/bridge").await;
    let codes: Vec<_> = status["attention"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert!(codes.contains(&"lease-lost".into()) && codes.contains(&"database-away".into()), "{codes:?}");
    assert_eq!(pay(&cluster, owner, "beyond-the-lease").await.0, Some(503));
    assert_eq!(cluster.replicas[owner].gateway.messages(), sent, "it sends without a lease");

    // What nothing is kept of waits for an owner.
    let waiting = {
        let url = format!("{}/v1/instances/demo/points-of-sale/1/transactions?limit=1", cluster.replicas[owner].url);
        tokio::spawn(answer(cluster.http.get(url).bearer_auth(KEY)))
    };
    eventually("it waits for an owner", async || {
        let metrics = cluster.http.get(format!("{}/metrics", cluster.replicas[owner].url)).bearer_auth(OPERATOR);
        let told = answer(metrics).await;
        matches!(told, Answer::Whole(200, _, text) if text.contains("concertpos_bridge_forwarding_waiting 1"))
    })
    .await;
    cut(&cluster, false);
    assert_eq!(
        waiting.await.unwrap().status(),
        Some(200),
        "it is answered once the lease is renewed\n{}",
        cluster.logs()
    );
    // A payment that comes before the lease is renewed waits for that, and no longer.
    until_paid(&cluster, owner, BACK + SLACK, "back").await;
    assert_eq!(cluster.owner("demo").await, owner, "the same owner goes on where nobody took over");
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn the_standby_is_away_and_comes_back() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let owner = cluster.owner("demo").await;
    eventually("a copy is kept", async || read(&cluster, owner).await == Some(200)).await;
    tokio::task::block_in_place(|| cluster.pair.stop_standby());
    let told = pay(&cluster, owner, "alone").await;
    assert_eq!(told, (Some(503), Some("journal-unavailable".to_owned())), "{}", cluster.logs());
    assert_eq!(cluster.gateway.counts().payitems_received.get("alone"), None, "it is not sent");
    assert_eq!(read(&cluster, owner).await, Some(200));
    eventually("the status says so", async || {
        let status = cluster.replicas[owner].status(&cluster.http, "/v1/bridge").await;
        status["attention"].as_array().is_some_and(|found| found.iter().any(|one| one["code"] == "standby-away"))
    })
    .await;
    tokio::task::block_in_place(|| cluster.pair.start_standby());
    until_paid(&cluster, owner, BACK + SLACK, "two-again").await;
    // What was refused with 503 has left its key free, or takes it until it is known that nothing was sent.
    let began = Instant::now();
    while pay(&cluster, owner, "alone").await.0 != Some(201) {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", cluster.logs());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.gateway.counts().bookings("alone"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_cut_off_from_the_database_is_succeeded_and_passes_on_afterwards() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let (owner, other) = (cluster.owner("demo").await, cluster.other("demo").await);
    cluster.replicas[owner].cut_database(true);
    let cut = Instant::now();
    while cluster.owner_of("demo") != Some(other) {
        assert!(cut.elapsed() < BACK + SLACK, "nobody took over:\n{}", cluster.logs());
        sleep(Duration::from_millis(10)).await;
    }
    until_paid(&cluster, other, SLACK, "at-the-new-one").await;
    let sent = cluster.replicas[owner].gateway.messages();
    cluster.replicas[owner].cut_database(false);
    until_paid(&cluster, owner, BACK + SLACK, "at-the-old-one").await;
    assert_eq!(cluster.owner("demo").await, other);
    assert_eq!(cluster.replicas[owner].gateway.messages(), sent, "it sends what it no longer owns");
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_to_the_owner_requests_are_refused_and_the_owner_serves() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let (owner, other) = (cluster.owner("demo").await, cluster.other("demo").await);
    cluster.replicas[owner].peers.cut(true);
    let (status, code) = pay(&cluster, other, "no-way").await;
    assert!(matches!(status, Some(503 | 504)), "{status:?} {code:?}");
    assert_eq!(pay(&cluster, owner, "direct").await.0, Some(201));
    assert_eq!(cluster.owner("demo").await, owner, "a way between replicas decides nothing");
    cluster.replicas[owner].peers.cut(false);
    until_paid(&cluster, other, Duration::from_secs(10), "the-way-is-back").await;
    assert!(cluster.gateway.counts().bookings("no-way") <= 1);
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_the_gateway_hands_over_to_one_that_reaches_it() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup::of(2)).await;
    let (owner, other) = (cluster.owner("demo").await, cluster.other("demo").await);
    cluster.replicas[owner].gateway.cut(true);
    let cut = Instant::now();
    while cluster.owner_of("demo") != Some(other) {
        assert!(cut.elapsed() < Duration::from_secs(25), "it is not handed over:\n{}", cluster.logs());
        sleep(Duration::from_millis(20)).await;
    }
    println!("handed over {:?} after the gateway was gone", cut.elapsed());
    until_paid(&cluster, owner, Duration::from_secs(10), "through-the-one-without").await;
}
