//! What several replicas cost: in the same run beside a bridge on its embedded stores, and beside commits of the same database;
//! and ten thousand instances on three replicas.
//!
//! Ignored among the tests, since they measure and take minutes: `scripts/cluster`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::replicas::{Cluster, Replica, Setup, answer, program, sale};
use super::support::KEY;
use super::{alone, number_from};

/// A bridge on its embedded stores, with the settings of a replica but for those of the cluster.
struct Single {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Single {
    async fn like(replica: &Replica, http: &reqwest::Client) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = std::fs::read_to_string(replica.configuration()).unwrap();
        let kept = settings.lines().filter(|line| !line.starts_with("cluster.") && !line.starts_with("server.listen"));
        let settings = kept.fold(String::new(), |settings, line| settings + line + "\n");
        let file: PathBuf = folder.path().join("bridge.toml");
        std::fs::write(&file, format!("server.listen = \"{listen}\"\n{settings}")).unwrap();
        let mut command = Command::new(program());
        command.args(["serve", "--config", "bridge.toml"]).current_dir(folder.path()).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let url = format!("http://{listen}");
        let ready = Instant::now();
        while answer(http.get(format!("{url}/readyz?require=gateway"))).await.status() != Some(200) {
            assert!(ready.elapsed() < Duration::from_secs(20), "it does not get ready");
            sleep(Duration::from_millis(20)).await;
        }
        Self { process, url, _folder: folder }
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn timed(request: reqwest::RequestBuilder, status: u16) -> Duration {
    let began = Instant::now();
    let told = answer(request).await;
    assert_eq!(told.status(), Some(status), "{told:?}");
    began.elapsed()
}

fn read(http: &reqwest::Client, url: &str) -> reqwest::RequestBuilder {
    http.get(format!("{url}/v1/instances/demo/config")).bearer_auth(KEY)
}

#[ignore = "measures: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_payment_and_a_read_cost_more_than_on_a_single_bridge() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(Setup { direct: true, ..Setup::of(2) }).await;
    let (owner, other) = (cluster.owner("demo").await, cluster.other("demo").await);
    let single = Single::like(&cluster.replicas[owner], &cluster.http).await;
    cluster.sql("CREATE TABLE IF NOT EXISTS measured (n bigserial PRIMARY KEY, words text)");
    let http = cluster.http.clone();
    let places = [single.url.clone(), cluster.replicas[owner].url.clone(), cluster.replicas[other].url.clone()];
    let (mut paid, mut cached) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..number_from("MEASURED_ROUNDS", 300) {
        for (place, url) in places.iter().enumerate() {
            // The first reads fill the cache.
            let took = timed(read(&http, url), 200).await;
            let key = format!("measured-{place}-{round}");
            let payment = timed(sale(&http, url, "demo", &key), 201).await;
            if round >= 20 {
                cached[place].push(took);
                paid[place].push(payment);
            }
        }
    }
    let mut reads = [const { Vec::new() }; 3];
    for _ in 0..2_000 {
        for (place, url) in places.iter().enumerate() {
            reads[place].push(timed(read(&http, url), 200).await);
        }
    }
    let commits = commits(&mut cluster);
    let [on_one, at_owner, passed_on] = paid.map(median);
    let [read_one, read_owner, read_passed] = reads.map(median);
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!("two synchronous commits of the database: {:?}", commits * 2);
    println!(
        "a payment: {on_one:?} on the embedded store, {at_owner:?} at the owner, {passed_on:?} through another replica"
    );
    println!(
        "  ratio to the embedded store {:.2}, through another replica {:.2}",
        ratio(at_owner, on_one),
        ratio(passed_on, on_one)
    );
    println!("  ratio to two commits {:.2}", ratio(at_owner, commits * 2));
    println!(
        "a cached read: {read_one:?} single, {read_owner:?} at the owner, {read_passed:?} through another replica"
    );
    println!("  ratio to the owner {:.2}", ratio(read_passed, read_owner));
}

/// The median of single synchronous commits, by `pgbench` on one connection.
fn commits(cluster: &mut Cluster) -> Duration {
    let (programs, address, database) = cluster.bench();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("insert.sql");
    std::fs::write(&script, "INSERT INTO measured (words) VALUES (repeat('x', 400));\n").unwrap();
    let mut command = Command::new(programs.join("pgbench"));
    command.args([
        "-n",
        "-h",
        "127.0.0.1",
        "-p",
        &address.port().to_string(),
        "-U",
        "postgres",
        "-c",
        "1",
        "-t",
        "300",
    ]);
    command.args(["-l", "--log-prefix"]).arg(folder.path().join("log")).arg("-f").arg(script).arg(database);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let log = std::fs::read_dir(folder.path()).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        entry.file_name().to_str().unwrap().starts_with("log").then(|| std::fs::read_to_string(entry.path()).unwrap())
    });
    let log: String = log.collect();
    let micros = log.lines().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap());
    median(micros.map(Duration::from_micros).collect())
}

#[ignore = "measures: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_instances_on_three_replicas() {
    let _alone = alone().await;
    let count = usize::try_from(number_from("CLUSTER_INSTANCES", 10_000)).unwrap();
    let setup = Setup { direct: true, ..Setup::of(3).instances(count) };
    let setup = setup.set("telemetry.log", "\"warn\"").set("telemetry.instance_label", "false");
    // Few systems let a process have two for each.
    let setup = setup.set("cluster.lease", "\"6s\"").set("gateway.min_links", "1");
    let mut cluster = Cluster::begin(setup).await;
    let began = Instant::now();
    until_owned(&mut cluster, count, "", Duration::from_mins(5)).await;
    println!("{count} instances owned {:?} after the start of three replicas", began.elapsed());
    sleep(Duration::from_secs(number_from("CLUSTER_REST", 45))).await;
    for replica in &cluster.replicas {
        println!("{}: {} MiB", replica.name, replica.memory() >> 20);
    }
    println!("links at the gateway: {}", cluster.gateway.counts().open());
    let before = transactions(&mut cluster);
    sleep(Duration::from_secs(20)).await;
    let after = transactions(&mut cluster);
    println!("transactions a second at rest, of all replicas: {:.1}", (after - before) / 20.0);
    let owned = "SELECT replica.name || ' ' || count(*) FROM instance_owner JOIN replica ON replica.id = session
        WHERE NOT ended GROUP BY replica.name ORDER BY 1";
    println!("owned: {}", cluster.sql(owned).replace('\n', ", "));
    let of_killed = "SELECT instance FROM instance_owner JOIN replica ON replica.id = session
        WHERE name = 'bridge-0' ORDER BY instance LIMIT 1";
    let first = cluster.sql(of_killed);
    cluster.replicas[0].kill();
    let killed = Instant::now();
    until_owned(&mut cluster, count, "bridge-0", Duration::from_mins(3)).await;
    println!("all owned again {:?} after the kill of one", killed.elapsed());
    while !cluster.replicas[1].serves(&cluster.http, &first).await {
        assert!(killed.elapsed() < Duration::from_mins(3), "{first} is not served:\n{}", cluster.logs());
        sleep(Duration::from_millis(50)).await;
    }
    println!("{first} served again {:?} after the kill", killed.elapsed());
}

/// Transactions that the database has committed.
fn transactions(cluster: &mut Cluster) -> f64 {
    let sum = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    cluster.sql(sum).parse().unwrap()
}

/// Waits until all are owned by other replicas than `killed`, whose session ends only with its lease.
async fn until_owned(cluster: &mut Cluster, count: usize, killed: &str, limit: Duration) {
    let began = Instant::now();
    let owned = format!(
        "SELECT count(*) FROM instance_owner JOIN replica ON replica.id = session WHERE NOT ended AND name <> '{killed}'"
    );
    // There is no schema before the first replica has made it.
    while cluster.try_sql(&owned) != Ok(count.to_string()) {
        assert!(began.elapsed() < limit, "{:?} of {count} are owned:\n{}", cluster.try_sql(&owned), cluster.logs());
        sleep(Duration::from_millis(50)).await;
    }
}
