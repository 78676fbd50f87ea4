//! The journal in a real PostgreSQL: what every store promises, and what this one promises while its database fails.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::database::migrate;
use crate::database::tests::server::{Postgres, Proxy, Then, database_of, url};
use crate::database::tests::{config as database_config, until as eventually};
use crate::journal::postgres::config::PostgresConfig;
use crate::journal::postgres::store::PostgresStore;
use crate::journal::state_machine::Rejection;
use crate::tenure::{Lease, SessionId, Tenure, Tenures, boot_time};

/// How long a taken-over payment cannot be settled as not booked.
const UNSETTLED: Duration = Duration::from_secs(30);

/// In the text of every statement that writes payments, and of no other.
const A_WRITE: &str = "given AS MATERIALIZED";

/// The server of these tests.
pub(super) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

/// One schema of a database, reached through a way that can lose messages.
pub(crate) struct Database {
    /// Without the schema.
    name: String,
    schema: String,
    /// Lives for ever: a journal may outlive its place.
    proxy: &'static Proxy,
    /// Holds every commit back while it is held.
    holder: Mutex<Option<Child>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.schema)
    }
}

/// Runs a future to its end from wherever the test is.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(run).join().unwrap()
    })
}

impl Default for Database {
    fn default() -> Self {
        let name = database_of(&server().new_database()).to_owned();
        let place = Self::in_schema(name, "public".into());
        block_on(migrate(&place.config())).unwrap();
        place
    }
}

impl Database {
    fn in_schema(name: String, schema: String) -> Self {
        Self {
            name,
            schema,
            proxy: Box::leak(Box::new(Proxy::to_postgres(server().address()))),
            holder: Mutex::new(None),
        }
    }

    pub(super) fn config(&self) -> crate::database::Config {
        self.config_at(self.proxy.address())
    }

    fn config_at(&self, address: SocketAddr) -> crate::database::Config {
        database_config(&format!("{}&options=-csearch_path%3D{}", url(&[address], &self.name), self.schema))
    }

    pub(super) fn proxy(&self) -> &Proxy {
        self.proxy
    }

    /// Around the proxy.
    pub(super) fn sql(&self, text: &str) -> String {
        server().sql(&self.name, &format!("SET search_path = {}; {text}", self.schema))
    }

    /// Claims the instance for a new session.
    fn claim(&self, tenures: &Tenures) -> (SessionId, i64) {
        claim(tenures, |text| self.sql(text))
    }

    /// Opens the journal as the instance's next owner.
    fn take_over(&self, clock: Arc<dyn Clock>, unsettled: Duration) -> Journal {
        let tenures = Tenures::default();
        let (session, epoch) = self.claim(&tenures);
        let journal = self.journal(&tenures, clock, unsettled);
        opened(async {
            eventually(|| journal.unknown_after_takeover("demo", session, epoch)).await;
            // What has expired is forgotten with the first look.
            eventually(|| settled_down(&journal)).await;
        });
        journal
    }

    fn journal(&self, tenures: &Tenures, clock: Arc<dyn Clock>, unsettled: Duration) -> Journal {
        let config = PostgresConfig::new(self.config(), KEEP, tenures.clone(), unsettled).with_pace(Duration::ZERO);
        let opening = PostgresStore::open(config, Arc::clone(&clock));
        let (store, newest) = opened(opening).unwrap();
        Journal::over(Arc::new(store), newest, clock)
    }
}

/// Claims the instance for a new session in the database that `sql` asks.
pub(super) fn claim(tenures: &Tenures, sql: impl FnOnce(&str) -> String) -> (SessionId, i64) {
    let session = SessionId::from(Uuid::from_u128(fastrand::u128(..)));
    let id = session.as_uuid();
    let epoch = sql(&format!(
        "INSERT INTO replica (id, name, address, version, format) VALUES ('{id}', 'r', 'a', 'v', 1); \
         INSERT INTO instance_owner AS o (instance, session, epoch) VALUES ('demo', '{id}', 1) \
         ON CONFLICT (instance) DO UPDATE SET session = excluded.session, epoch = o.epoch + 1 RETURNING epoch"
    ));
    let (lease, epoch) = (Lease::of(session), epoch.lines().last().unwrap().parse().unwrap());
    lease.extend_to(boot_time() + Duration::from_hours(1));
    tenures.insert("demo", Tenure::new(&lease, epoch));
    (session, epoch)
}

/// The journal's tasks run on the runtime of the test, or on one of their own where it has a single thread.
pub(super) fn opened<T: Send>(opening: impl Future<Output = T> + Send) -> T {
    static OWN: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let own = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let handle = OWN.get_or_init(own).handle();
    std::thread::scope(|scope| scope.spawn(|| handle.block_on(opening)).join().unwrap())
}

impl Place for Database {
    fn open(&self, clock: Arc<dyn Clock>) -> Journal {
        self.take_over(clock, Duration::ZERO)
    }

    /// A copy of what is committed now: the process of before writes to the other one, which nobody reads any more.
    fn after_crash(&self, _: u64) -> Self {
        let schema = format!("copy_{}", fastrand::u64(..));
        let copy = Self::in_schema(self.name.clone(), schema.clone());
        server().sql(&self.name, &format!("CREATE SCHEMA {schema} AUTHORIZATION bridge"));
        block_on(migrate(&copy.config_at(server().address()))).unwrap();
        let from = &self.schema;
        server().sql(
            &self.name,
            &format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; \
                 INSERT INTO {schema}.payment SELECT * FROM {from}.payment; \
                 INSERT INTO {schema}.instance_owner SELECT * FROM {from}.instance_owner; \
                 DELETE FROM {schema}.journal_age; INSERT INTO {schema}.journal_age SELECT * FROM {from}.journal_age; \
                 COMMIT"
            ),
        );
        copy
    }

    fn hold_commits(&self) {
        let text =
            format!("BEGIN; LOCK TABLE {}.payment IN SHARE MODE; SELECT 'held'; SELECT pg_sleep(60)", self.schema);
        let mut psql = Command::new("psql");
        let address = server().address();
        psql.args(["-X", "-q", "-h", "127.0.0.1", "-p", &address.port().to_string(), "-U", "postgres"]);
        psql.args(["-d", &self.name, "-c", &text]).stdout(Stdio::null());
        *self.holder.lock() = Some(psql.spawn().unwrap());
        let is_held = || {
            let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                WHERE d.datname = current_database() AND mode = 'ShareLock' AND locktype = 'relation' AND granted";
            self.sql(locks) != "0"
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_held() {
            assert!(Instant::now() < deadline, "the table is never locked");
        }
    }

    fn release_commits(&self) {
        let held = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE datname = current_database() AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";
        self.sql(held);
        if let Some(mut holder) = self.holder.lock().take() {
            holder.wait().unwrap();
        }
    }

    fn has_held_commit(&self) -> bool {
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
            WHERE d.datname = current_database() AND NOT granted";
        self.sql(waiting) != "0"
    }

    fn fail_after(&self, failure: Failure, operations: u32) {
        let then = if operations.is_multiple_of(2) { Then::Cut } else { Then::Silence };
        match failure {
            // Everything is done, and nobody is told.
            Failure::Sync | Failure::Full => self.proxy.swallow(A_WRITE, then),
            // Nothing is done.
            _ => self.proxy.lose(A_WRITE, Then::Cut),
        }
    }
}

/// A payment that was on its way under an owner of before is unknown to the next one, and the owner of before begins nothing
/// more; what it hears is recorded all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_before_begins_nothing_and_what_it_hears_is_recorded() {
    let place = Database::default();
    let before = open(&place, &Arc::default());
    let (sent, lost) = (dispatch(&before, "a").await, dispatch(&before, "b").await);
    let (unsent, sent_id, lost_id) = (reserve(&before, "c").await, sent.id(), lost.id());
    let unknown = pay(&before, "d", Outcome::Unknown(None)).await;
    let after = open(&place, &Arc::default());
    assert_eq!(state(&after, sent_id).await, Some(State::Unknown));
    assert_eq!(before.dispatch(unsent).await.map(|_| ()), Err(JournalError::Unavailable));
    let settled = before.settle(unknown.id, unknown.revision, verdict(Finding::Booked)).await;
    assert_eq!(settled, Err(JournalError::Unavailable));
    assert_eq!(before.finish(sent, booked()).await.unwrap().state(), State::Booked);
    assert!(matches!(after.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
    drop(lost);
    settled_down(&before).await.unwrap();
    assert_eq!(state(&after, lost_id).await, Some(State::Unknown));
    pay(&after, "c", booked()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_over_is_not_settled_as_not_booked_while_its_owner_of_before_may_hear_of_it() {
    let place = Database::default();
    let before = open(&place, &Arc::default());
    let lost = dispatch(&before, "a").await;
    let clock = Arc::new(HandClock::default());
    let after = place.take_over(Arc::<HandClock>::clone(&clock), UNSETTLED);
    let record = after.get(lost.id()).await.unwrap().unwrap();
    let early = after.settle(record.id, record.revision, verdict(Finding::NotBooked)).await;
    assert_eq!(early, Err(JournalError::Rejected(Rejection::TooEarly { seconds: UNSETTLED.as_secs() })));
    clock.run(UNSETTLED);
    after.settle(record.id, record.revision, verdict(Finding::NotBooked)).await.unwrap();
    drop(reserve(&after, "a").await);
}

const FAULTS: [(bool, Then); 4] =
    [(true, Then::Cut), (true, Then::Silence), (false, Then::Cut), (false, Then::Silence)];

impl Database {
    /// The next write of a payment is done and not acknowledged, or not done.
    fn lose_next(&self, is_done: bool, then: Then) {
        if is_done { self.proxy.swallow(A_WRITE, then) } else { self.proxy.lose(A_WRITE, then) }
    }
}

async fn recovered(journal: &Journal) {
    eventually(|| async { journal.is_available().then_some(()).ok_or(()) }).await;
}

/// Nothing was sent, so the key is free once that is on record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatch_whose_acknowledgement_is_lost_sends_nothing_and_frees_its_key_once_it_is_released() {
    for (is_done, then) in FAULTS {
        let (place, journal) = on_new::<Database>();
        let reservation = reserve(&journal, "a").await;
        let id = reservation.id();
        place.lose_next(is_done, then);
        assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable), "{then:?}");
        assert_eq!(place.proxy.struck(), 1);
        recovered(&journal).await;
        assert_eq!(state(&journal, id).await, Some(State::Released), "{is_done} {then:?}");
        pay(&journal, "a", booked()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_whose_acknowledgement_is_lost_is_kept_until_it_is_acknowledged() {
    for (is_done, then) in FAULTS {
        let (place, journal) = on_new::<Database>();
        let dispatched = dispatch(&journal, "a").await;
        place.lose_next(is_done, then);
        assert_eq!(journal.finish(dispatched, booked()).await, Err(JournalError::Unavailable), "{is_done} {then:?}");
        recovered(&journal).await;
        assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
        let after = open(&place.after_crash(0), &Arc::default());
        assert!(matches!(after.reserve(key("a"), sale(1)).await, Reserve::Replay(_)), "and it is on disk");
    }
}
