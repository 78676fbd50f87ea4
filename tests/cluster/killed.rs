//! Owners that are killed while callers repeat their payments.
//!
//! Two rounds, or as many as `CLUSTER_ROUNDS` says; `CLUSTER_SEED` repeats the moments of a run.

use std::time::{Duration, Instant};

use concertpos_simulator as simulator;
use tokio::time::sleep;

use super::replicas::{BACK, Cluster, SLACK, Setup};
use super::selling::Tills;
use super::{alone, number_from};

/// Slow enough that a kill often falls between a write and its reply.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_is_succeeded_in_time_and_no_sale_is_booked_twice() {
    let _alone = alone().await;
    let rounds = number_from("CLUSTER_ROUNDS", 2);
    let seed = number_from("CLUSTER_SEED", fastrand::u64(..u64::MAX / 2));
    println!("CLUSTER_ROUNDS={rounds} CLUSTER_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let gateway = simulator::Config { latency: LATENCY, ..simulator::Config::default() };
    let mut cluster = Cluster::start(Setup::of(3).gateway(gateway)).await;
    let tills = Tills::open(&cluster, "demo", 8);
    let mut back = Vec::new();
    for round in 0..rounds {
        tills.until_sold(10).await;
        sleep(Duration::from_millis(random.u64(..100))).await;
        let owner = cluster.owner("demo").await;
        cluster.replicas[owner].kill();
        let killed = Instant::now();
        let other = (0..3).find(|number| *number != owner && cluster.replicas[*number].runs()).unwrap();
        while !cluster.replicas[other].serves(&cluster.http, "demo").await {
            let waited = killed.elapsed();
            assert!(waited < BACK + SLACK, "round {round}: not served after {waited:?}:\n{}", cluster.logs());
            sleep(Duration::from_millis(5)).await;
        }
        back.push(killed.elapsed());
        cluster.replicas[owner].run();
    }
    tills.until_sold(20).await;
    let sold = tills.close().await;
    sold.check(&cluster, "demo").await;
    back.sort();
    let late = back.iter().filter(|time| **time > BACK).count();
    println!(
        "{sold}\nback after {:?} at the median, {:?} at most; {late} after more than {BACK:?}",
        back[back.len() / 2],
        back[back.len() - 1]
    );
}
