//! What a payment costs whose record is in PostgreSQL with a synchronous standby, beside what nothing could be cheaper than there:
//! two synchronous commits of the same database, and a bare round trip to the same gateway. And beside the same payment
//! through a bridge with the embedded journal.
//!
//! Gateway, both bridges, primary and standby are processes on this machine, on one disk, which take turns: ratios are what is
//! reported. `BENCH_SAMPLES` is how many payments are made through each, 2000 by default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a bench")]

#[path = "../tests/support/postgres.rs"]
mod postgres;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use concertpos_bridge::internals::database::{Connection, Durability, Statement};
use concertpos_bridge::internals::gateway::client_config;
use concertpos_bridge::internals::{database, journal};
use postgres::Pair;
use support::{Aim, Bare, Bridge, Caller, KEY, Report, Row, free_address, median_micros, simulate};

const ROUNDS: usize = 8;

/// The least that keeps a payment: its record, written as on its way and again with its outcome.
const TABLE: &str = "CREATE TABLE bare (id uuid PRIMARY KEY, record text NOT NULL)";

/// Commits with nothing around them.
struct Store {
    connection: Connection,
    record: String,
}

impl Store {
    async fn make(config: database::Config) -> Self {
        let connection = Connection::new(config, "bench");
        connection.batch(Durability::On, &[Statement::new(TABLE)]).await.done().expect("a table");
        let key = journal::Key { instance: "demo".into(), caller: "demo".into(), idempotency_key: "0-0".into() };
        let sale = journal::Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 2)] };
        let record = journal::Record::reserved(journal::RecordId::fresh(), key, sale, 0);
        Self { connection, record: serde_json::to_string(&record).unwrap() }
    }

    /// Writes the record in one commit and changes it in another.
    async fn commit_twice(&self) -> [Duration; 2] {
        let id = uuid::Uuid::now_v7();
        let texts = ["INSERT INTO bare VALUES ($1, $2)", "UPDATE bare SET record = $2 WHERE id = $1"];
        let mut took = [Duration::ZERO; 2];
        for (text, took) in texts.into_iter().zip(&mut took) {
            let begun = Instant::now();
            let write = Statement::new(text).uuid(id).text(self.record.clone());
            self.connection.batch(Durability::On, &[write]).await.done().expect("a commit");
            *took = begun.elapsed();
        }
        took
    }
}

/// The payment, asked of the gateway without a bridge.
fn command() -> String {
    format!(
        r#"{{"command":"payitems","parameters":{{"PaymentMethod":1,"Products":[{{"ID":1,"Amount":2}}],"POSID":1,"api_key":"{KEY}"}}}}"#
    )
}

async fn pay(caller: &mut Caller, key: usize) -> Duration {
    let body = r#"{"PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#;
    let request = format!(
        "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
         Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len(),
    );
    caller.send(&request, "HTTP/1.1 201").await
}

/// Waits until the instance is owned: what is listed is served.
async fn until_owned(bridge: &str) {
    let (http, begun) = (reqwest::Client::new(), Instant::now());
    let url = format!("http://{bridge}/v1/instances/demo/payments");
    while !http.get(&url).bearer_auth(KEY).send().await.is_ok_and(|answer| answer.status() == 200) {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody owns the instance");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::main]
async fn main() {
    let samples: usize = std::env::var("BENCH_SAMPLES").map_or(2_000, |samples| samples.parse().unwrap());
    let pair = Pair::start();
    let place = pair.new_database();
    let gateway = free_address();
    let _simulator = simulate(&gateway, &["--limits", "off", "--latency-max", "0ms"]);
    let settings = [("BRIDGE_LIMITS__CAPACITY", "100000000")];
    let embedded = Bridge::start(&gateway, &settings).await;
    let secret = embedded.data.path().join("secret");
    fs::write(&secret, "the secret of the replicas of a bench, long enough").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let (listen, secret) = (free_address(), secret.display().to_string());
    let cluster = [
        settings[0],
        ("BRIDGE_CLUSTER__DATABASE", place.as_str()),
        ("BRIDGE_CLUSTER__LISTEN", &listen),
        ("BRIDGE_CLUSTER__SECRET_FILE", &secret),
    ];
    let replica = Bridge::start(&gateway, &cluster).await;
    until_owned(&replica.address).await;
    let config = database::Config::parse(&place, || client_config(None)).unwrap();
    let store = Store::make(config).await;
    let mut bare = Bare::connect(&gateway).await;
    let (mut till, mut till_of_replica) =
        (Caller::connect(&embedded.address).await, Caller::connect(&replica.address).await);
    let (mut commits, mut ceilings, mut here, mut there) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for number in 0..samples / ROUNDS {
            let key = round * samples + number;
            let ([first, second], trip) = (store.commit_twice().await, bare.ask(&command()).await);
            let (with_embedded, with_database) = (pay(&mut till, key).await, pay(&mut till_of_replica, key).await);
            // The first round warms all up.
            if round > 0 {
                commits.extend([first, second]);
                ceilings.push(first + trip + second);
                here.push(with_embedded);
                there.push(with_database);
            }
        }
    }
    let (there, here, ceiling) = (median_micros(&there), median_micros(&here), median_micros(&ceilings));
    let mut report = Report::new();
    let row = Row::new("replica-payment", "payment of a replica, median latency", there, "µs");
    let row = row.beside("two synchronous commits of the same database and a bare round trip", ceiling);
    report.add(row.ratio(there / ceiling).aim(Aim::AtMost(1.5)));
    let row = Row::new("replica-payment-embedded", "the same beside the embedded journal", there, "µs");
    report.add(row.beside("payment with the embedded journal", here).ratio(there / here));
    report.add(Row::new("replica-commit", "of that ceiling, one synchronous commit", median_micros(&commits), "µs"));
    report.tell();
}
