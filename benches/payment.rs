//! What a payment costs through the bridge, beside what nothing could be cheaper than: two commits of the same store on
//! the same disk, and a bare round trip to the same simulated gateway.
//!
//! Three processes on loopback: gateway and bridge as built, and this one as the caller. Bridge and ceiling take turns,
//! so that a machine that is slow for a while is slow for both; medians and ratios are what is reported. Further rows
//! show that payments under way at the same time share their commits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a bench")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use concertpos_bridge::internals::journal::{Config, Journal, Key, Outcome, Record, RecordId, Reserve, Sale};
use concertpos_bridge::internals::protocol::Body;
use futures_util::future::join_all;
use redb::{Database, TableDefinition};
use support::{Aim, Bare, Caller, KEY, Report, Row, Scene, median_micros};

const CALLERS: usize = 32;
const ROUNDS: usize = 8;
const SAMPLES: usize = 2_000;
const SLICE: Duration = Duration::from_secs(3);

/// What the bridge answers by itself: what an HTTP round trip costs anyway.
const ITSELF: &str = "/v1/instances";

/// The same store with nothing around it: one record a commit, synced as the journal syncs.
struct Store(Database);

impl Store {
    const RECORDS: TableDefinition<'static, u128, &'static [u8]> = TableDefinition::new("records");

    fn make(folder: &Path) -> Self {
        Self(Database::create(folder.join("bare.redb")).unwrap())
    }

    fn commit(&self, record: &Record) -> Duration {
        let begun = Instant::now();
        let mut transaction = self.0.begin_write().unwrap();
        transaction.set_quick_repair(true);
        let json = serde_json::to_vec(record).unwrap();
        transaction.open_table(Self::RECORDS).unwrap().insert(record.id.as_u128(), json.as_slice()).unwrap();
        transaction.commit().unwrap();
        begun.elapsed()
    }
}

/// The payment, asked of the gateway without a bridge.
fn command() -> String {
    format!(
        r#"{{"command":"payitems","parameters":{{"PaymentMethod":1,"Products":[{{"ID":1,"Amount":2}}],"POSID":1,"api_key":"{KEY}"}}}}"#
    )
}

/// Who pays through the bridge, each time under a new key.
struct Till {
    caller: Caller,
    name: usize,
    paid: usize,
}

impl Till {
    async fn connect(bridge: &str, name: usize) -> Self {
        Self { caller: Caller::connect(bridge).await, name, paid: 0 }
    }

    async fn pay(&mut self) -> Duration {
        self.paid += 1;
        let body = r#"{"PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#;
        let request = format!(
            "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\
             Idempotency-Key: {}-{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.name,
            self.paid,
            body.len(),
        );
        self.caller.send(&request, "HTTP/1.1 201").await
    }

    /// Payments made in one slice of time.
    async fn sell(mut self) -> u32 {
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < SLICE {
            self.pay().await;
            count += 1;
        }
        count
    }
}

fn sale() -> Sale {
    Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 2)] }
}

fn key(name: usize, number: usize) -> Key {
    Key { instance: "demo".into(), caller: "demo".into(), idempotency_key: format!("{name}-{number}") }
}

/// Payments of a journal by itself in one slice of time, whose gateway answers at once.
async fn record(journal: Journal, name: usize) -> u32 {
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < SLICE {
        count += 1;
        let Reserve::Fresh(reservation) = journal.reserve(key(name, count), sale()).await else { panic!("a new key") };
        let dispatched = journal.dispatch(reservation).await.unwrap();
        journal.finish(dispatched, Outcome::Booked(Body::items(1))).await.unwrap();
    }
    u32::try_from(count).unwrap()
}

/// Payments a second, and commits a payment, of so many at a time.
async fn journal_alone(folder: &Path, callers: usize) -> (f64, f64) {
    let config = Config::new(folder.join(format!("journal-{callers}")), Config::LEAST_KEEP).unwrap();
    let journal = Journal::open(&config).unwrap();
    let before = journal.commits();
    let tasks = (0..callers).map(|name| tokio::spawn(record(journal.clone(), name)));
    let paid: u32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    let commits = u32::try_from(journal.commits() - before).unwrap();
    journal.close().await;
    (f64::from(paid) / SLICE.as_secs_f64(), f64::from(commits) / f64::from(paid))
}

async fn bridge_rate(bridge: &str, callers: usize) -> f64 {
    let mut tasks = Vec::new();
    for name in 0..callers {
        tasks.push(tokio::spawn(Till::connect(bridge, 1000 * callers + name).await.sell()));
    }
    let paid: u32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    f64::from(paid) / SLICE.as_secs_f64()
}

/// One till, payment by payment, in turns with what nothing could be cheaper than.
async fn latency(scene: &Scene, report: &mut Report) {
    let store = Store::make(scene.bridge.data.path());
    let (mut bare, mut till) = (Bare::connect(&scene.gateway).await, Till::connect(&scene.bridge.address, 0).await);
    let mut record = Record::reserved(RecordId::fresh(), key(0, 0), sale(), 0);
    let (mut commits, mut trips, mut ceilings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut payments, mut itself) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for _ in 0..SAMPLES / ROUNDS {
            record.id = RecordId::fresh();
            let (first, trip, second) = (store.commit(&record), bare.ask(&command()).await, store.commit(&record));
            let (payment, http) = (till.pay().await, till.caller.get(ITSELF).await);
            // The first round warms both up.
            if round > 0 {
                commits.extend([first, second]);
                trips.push(trip);
                ceilings.push(first + trip + second);
                payments.push(payment);
                itself.push(http);
            }
        }
    }
    let (payment, ceiling) = (median_micros(&payments), median_micros(&ceilings));
    let row = Row::new("payment", "payment with a durable record, median latency", payment, "µs");
    let row = row.beside("two commits of the same store and a bare round trip", ceiling);
    report.add(row.ratio(payment / ceiling).aim(Aim::AtMost(1.5)));
    report.add(Row::new("payment-commit", "of that ceiling, one commit", median_micros(&commits), "µs"));
    report.add(Row::new("payment-trip", "of that ceiling, the round trip", median_micros(&trips), "µs"));
    report.add(Row::new("payment-http", "an HTTP round trip to the bridge itself", median_micros(&itself), "µs"));
}

/// Many tills: payments under way at the same time share their commits.
async fn rates(scene: &Scene, report: &mut Report) {
    let bridge = &scene.bridge.address;
    let (one, many) = (bridge_rate(bridge, 1).await, bridge_rate(bridge, CALLERS).await);
    let row = Row::new("payment-rate", format!("payments a second, {CALLERS} tills"), many, "/s");
    report.add(row.beside("one till", one).ratio(many / one));
    let (alone, _) = journal_alone(scene.bridge.data.path(), 1).await;
    let (together, commits) = journal_alone(scene.bridge.data.path(), CALLERS).await;
    let row = Row::new("journal-rate", format!("of the journal by itself, {CALLERS} at a time"), together, "/s");
    report.add(row.beside("one at a time", alone).ratio(together / alone));
    report.add(Row::new("journal-commits", format!("its commits a payment, {CALLERS} at a time"), commits, ""));
}

#[tokio::main]
async fn main() {
    let scene = Scene::of_links(CALLERS).await;
    let mut report = Report::new();
    latency(&scene, &mut report).await;
    rates(&scene, &mut report).await;
    report.tell();
}
