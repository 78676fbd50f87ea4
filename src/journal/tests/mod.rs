//! The journal as a whole: on a simulated disk that fails and crashes as told, and on real files.

pub(crate) mod disk;
mod embedded;
mod faults;
mod import;
mod listing;
mod memory;
mod model;
mod moved;
mod opening;
mod pair;
pub(crate) mod postgres;
mod power;
mod restored;
mod suite;
mod unreadable;
mod upgrade;
mod verification;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redb::{Builder, ReadableDatabase};
use serde_json::value::RawValue;
use tokio::task;

use super::clock::{Clock, SystemClock};
use super::embedded::medium::Medium;
use super::embedded::store::EmbeddedStore;
use super::embedded::tables;
use super::{
    Candidate, Config, Dispatched, Filter, Journal, JournalError, Key, Lookup, OpenError, Outcome, ProductDetails,
    Record, RecordId, Release, Reservation,
};
use super::{Reserve, Sale, SaleDetails, State, Verdict};
use crate::journal::record::Finding;
use crate::protocol::{Body, GatewayError};
use disk::{Disk, Failure};
use memory::Memory;
use postgres::Database;

const KEEP: Duration = Config::LEAST_KEEP;
const INSTANT: Duration = Duration::from_millis(1);

/// A clock that moves when told.
#[derive(Debug, Default)]
struct HandClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl HandClock {
    fn run(&self, time: Duration) {
        self.monotonic_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn step_wall(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// What a journal is kept on, and what outlives it.
trait Place: fmt::Debug + Default + Sized {
    fn open(&self, clock: Arc<dyn Clock>) -> Journal;

    /// What a crash now leaves.
    fn after_crash(&self, seed: u64) -> Self;

    /// Lets commits hang until they are let go.
    fn hold_commits(&self);

    fn release_commits(&self);

    fn has_held_commit(&self) -> bool;

    /// Fails after some more operations, where the place can fail.
    fn fail_after(&self, _: Failure, _: u32) {}

    fn heal(&self) {}
}

impl Place for Disk {
    fn open(&self, clock: Arc<dyn Clock>) -> Journal {
        open_on(self.clone(), clock).unwrap()
    }

    fn after_crash(&self, seed: u64) -> Self {
        self.after_crash(seed)
    }

    fn hold_commits(&self) {
        self.hold_syncs();
    }

    fn release_commits(&self) {
        self.release_syncs();
    }

    fn has_held_commit(&self) -> bool {
        self.has_hanging_sync()
    }

    fn fail_after(&self, failure: Failure, operations: u32) {
        self.fail_after(failure, operations);
    }

    fn heal(&self) {
        self.heal();
    }
}

fn open(place: &impl Place, clock: &Arc<HandClock>) -> Journal {
    place.open(Arc::<HandClock>::clone(clock))
}

fn open_on(medium: impl Medium, clock: Arc<dyn Clock>) -> Result<Journal, OpenError> {
    let (store, newest) = EmbeddedStore::open_on(medium, KEEP, Arc::clone(&clock))?;
    Ok(Journal::over(Arc::new(store), newest, clock))
}

/// A journal, and its store for what only the embedded one has.
fn open_embedded(disk: &Disk) -> (Arc<EmbeddedStore>, Journal) {
    let clock: Arc<dyn Clock> = Arc::new(HandClock::default());
    let (store, newest) = EmbeddedStore::open_on(disk.clone(), KEEP, Arc::clone(&clock)).unwrap();
    let store = Arc::new(store);
    (Arc::clone(&store), Journal::over(store, newest, clock))
}

fn on_new<P: Place>() -> (P, Journal) {
    let place = P::default();
    let journal = open(&place, &Arc::default());
    (place, journal)
}

/// A journal on a simulated disk, with the machine's own clock, for tests of those who pay.
pub(crate) fn on_disk(disk: &Disk) -> Journal {
    open_on(disk.clone(), Arc::new(SystemClock::default())).unwrap()
}

fn on_new_disk() -> (Disk, Journal) {
    on_new()
}

fn key(name: &str) -> Key {
    Key { instance: "demo".into(), caller: "shop".into(), idempotency_key: name.into() }
}

fn sale(amount: u64) -> Sale {
    Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, amount)] }
}

/// What was known of such a sale at its dispatch; of every other one nothing.
fn details(amount: u64) -> Option<SaleDetails> {
    let json = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let mut details = SaleDetails { as_of_ms: -1, outdated: true, ..SaleDetails::default() };
    details.add_products(&sale(amount), |id| {
        Some(ProductDetails::new(id, Some(&json(r#""Beer \"0,5\"""#)), Some(&json("4.50"))))
    });
    Some(details).filter(|_| amount.is_multiple_of(2))
}

fn body(json: &str) -> Body {
    Body::from(serde_json::from_str::<&RawValue>(json).unwrap())
}

fn booked() -> Outcome {
    Outcome::Booked(body(r#"{"Items": 1.0}"#))
}

fn refused() -> Outcome {
    Outcome::Released(Release::Refused(GatewayError::word("invalid_password")))
}

fn verdict(outcome: Finding) -> Verdict {
    Verdict { outcome, reason: "counted the till".into(), by: "ops".into() }
}

async fn reserve(journal: &Journal, name: &str) -> Reservation {
    match journal.reserve(key(name), sale(1)).await {
        Reserve::Fresh(reservation) => reservation,
        other => panic!("{name} should be free: {other:?}"),
    }
}

async fn dispatch(journal: &Journal, name: &str) -> Dispatched {
    journal.dispatch(reserve(journal, name).await).await.unwrap()
}

async fn pay(journal: &Journal, name: &str, outcome: Outcome) -> Record {
    let dispatched = dispatch(journal, name).await;
    journal.finish(dispatched, outcome).await.unwrap()
}

/// Changes what is stored of a record, as damage or a later release would, in a journal that is closed.
fn overwrite(disk: &Disk, id: RecordId, stored: Option<&[u8]>) {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut records = transaction.open_table(tables::RECORDS).unwrap();
    match stored {
        Some(stored) => drop(records.insert(id.as_u128(), stored).unwrap()),
        None => drop(records.remove(id.as_u128()).unwrap()),
    }
    drop(records);
    transaction.commit().unwrap();
}

/// What is stored of a record, in a journal that is closed.
fn stored(disk: &Disk, id: RecordId) -> Vec<u8> {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    let records = database.begin_read().unwrap().open_table(tables::RECORDS).unwrap();
    records.get(id.as_u128()).unwrap().unwrap().value().to_vec()
}

/// The latest attempt under a key.
async fn current(journal: &Journal, name: &str) -> Result<Option<Record>, JournalError> {
    let Key { instance, caller, idempotency_key } = key(name);
    let filter = Filter {
        instance,
        caller: Some(caller),
        idempotency_key: Some(idempotency_key),
        limit: 1,
        ..Filter::default()
    };
    Ok(journal.list(filter).await?.readable().pop())
}

async fn state(journal: &Journal, id: RecordId) -> Option<State> {
    journal.get(id).await.unwrap().map(|record| record.state())
}

/// Everything handed in before this was committed when it returns.
async fn settled_down(journal: &Journal) -> Result<(), JournalError> {
    match journal.attach_evidence(RecordId::fresh(), Lookup::default()).await {
        Err(JournalError::NoSuchRecord) => Ok(()),
        other => Err(other.expect_err("no record has a fresh id")),
    }
}

/// A journal with so many booked payments, under the keys `0` and up, closed.
pub(crate) async fn filled(payments: usize) -> Disk {
    let (disk, journal) = on_new_disk();
    let names: Vec<_> = (0..payments).map(|number| number.to_string()).collect();
    for names in names.chunks(100) {
        futures_util::future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    }
    journal.close().await;
    disk
}

/// How often to try what is tried at random: a few times, or as often as the variable of this name says.
fn rounds(variable: &str, few: usize) -> usize {
    std::env::var(variable).ok().map_or(few, |rounds| rounds.parse().expect("a number of rounds"))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_so() {
            task::yield_now().await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never happened: {what}"));
}
