//! Several replicas in one process, each on a thread of its own, against a real PostgreSQL.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::runtime::Runtime;

use super::super::Route;
use super::super::config::MARGIN;
use super::super::state;
use super::*;
use crate::database::tests::server::{Pair, Postgres, Proxy, Then};
use crate::database::tests::{config, migrated};
use crate::tenure::Tenure;

const LEASE: Duration = Duration::from_secs(4);

/// For how many instances a replica writes to the gateway.
const SHOWN: usize = 100;

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway, as far as it sees who writes: nobody may write under an epoch once a later one wrote.
#[derive(Debug, Default)]
struct Gateway {
    last: Mutex<BTreeMap<Arc<str>, (i64, SessionId)>>,
    doubled: AtomicBool,
    writes: AtomicUsize,
}

impl Gateway {
    fn write(&self, instance: &Arc<str>, tenure: &Tenure) {
        let mut last = self.last.lock();
        let (session, epoch) = tenure.token().unwrap();
        // The check comes right before the write.
        if !tenure.may_act() {
            return;
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        let before = last.insert(Arc::clone(instance), (epoch, session));
        if before.is_some_and(|(last, other)| last > epoch || (last == epoch && other != session)) {
            self.doubled.store(true, Ordering::SeqCst);
        }
    }

    fn last(&self, instance: &str) -> Option<(i64, SessionId)> {
        self.last.lock().get(instance).copied()
    }
}

/// Writes to the gateway all the time, for whatever it serves.
struct Serving {
    configured: Mutex<Vec<Listed>>,
    gateway: Arc<Gateway>,
    served: Mutex<BTreeMap<Arc<str>, Tenure>>,
    reaches: AtomicBool,
    refuses: AtomicBool,
    prepared: Mutex<BTreeMap<Arc<str>, Tenure>>,
    took_prepared: AtomicUsize,
    is_deaf: AtomicBool,
}

#[async_trait]
impl Host for Serving {
    fn configured(&self) -> Vec<Listed> {
        self.configured.lock().clone()
    }

    async fn prepare(&self, instance: &str, tenure: Tenure) -> io::Result<()> {
        self.prepared.lock().insert(instance.into(), tenure);
        Ok(())
    }

    async fn listening(&self, _: &str, _: &Tenure) {
        if self.is_deaf.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn listens_within(&self) -> Duration {
        Duration::ZERO
    }

    async fn abandon(&self, instance: &str, _: &Tenure) {
        self.prepared.lock().remove(instance);
    }

    async fn begin(&self, instance: &str, tenure: Tenure) -> io::Result<()> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(io::Error::other("refused"));
        }
        if let Some(prepared) = self.prepared.lock().remove(instance) {
            assert!(prepared.is(&tenure));
            self.took_prepared.fetch_add(1, Ordering::SeqCst);
        }
        self.served.lock().insert(instance.into(), tenure);
        Ok(())
    }

    async fn quiesce(&self, _: &str, _: Duration) -> Vec<Statement> {
        Vec::new()
    }

    async fn end(&self, instance: &str) {
        self.served.lock().remove(instance);
    }

    fn reaches_gateway(&self, _: &str) -> bool {
        self.reaches.load(Ordering::SeqCst)
    }
}

/// A replica with threads of its own, which can be killed and halted.
struct Machine {
    replica: Arc<Replica>,
    host: Arc<Serving>,
    runtime: Option<Runtime>,
    halted: Arc<AtomicBool>,
}

fn listed(names: &[&str]) -> Vec<Listed> {
    names.iter().map(|name| Listed { name: (*name).into(), slug: (*name).into(), digest: "".into() }).collect()
}

impl Machine {
    fn start(name: &str, database: database::Config, gateway: &Arc<Gateway>, instances: &[&str]) -> Self {
        let host = Arc::new(Serving {
            configured: Mutex::new(listed(instances)),
            gateway: Arc::clone(gateway),
            served: Mutex::default(),
            reaches: AtomicBool::new(true),
            refuses: AtomicBool::new(false),
            prepared: Mutex::default(),
            took_prepared: AtomicUsize::new(0),
            is_deaf: AtomicBool::new(false),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let halted = Arc::new(AtomicBool::new(false));
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: format!("{name}:9191"),
            secret: SecretString::from("secret"),
            tls: None,
            name: name.to_owned(),
            lease: LEASE,
            migrate: false,
        };
        let guard = runtime.enter();
        let parts = Parts { config, database, host: Arc::<Serving>::clone(&host), directory: Directory::default() };
        let replica = Arc::new(Replica::begin(parts));
        drop(guard);
        let (served, stopped) = (Arc::clone(&host), Arc::clone(&halted));
        runtime.spawn(async move {
            loop {
                let all: Vec<_> = served.served.lock().clone().into_iter().take(SHOWN).collect();
                for (instance, tenure) in all {
                    served.gateway.write(&instance, &tenure);
                }
                // The one thread of this machine stands still, as a process does that is stopped.
                while stopped.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
                sleep(Duration::from_millis(2)).await;
            }
        });
        Self { replica, host, runtime: Some(runtime), halted }
    }

    fn halt(&self, halted: bool) {
        self.halted.store(halted, Ordering::SeqCst);
    }

    /// Ends it without a word.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    fn session(&self) -> Option<SessionId> {
        self.replica.directory().me()
    }

    /// Whether it serves the instance and may act for it.
    fn acts_for(&self, instance: &str) -> bool {
        self.host.served.lock().get(instance).is_some_and(Tenure::may_act)
    }

    fn count(&self) -> usize {
        self.host.served.lock().values().filter(|tenure| tenure.may_act()).count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.halt(false);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn new_database() -> database::Config {
    Runtime::new().unwrap().block_on(migrated())
}

fn migrated_pair(pair: &Pair) -> database::Config {
    let config = config(&pair.new_database());
    Runtime::new().unwrap().block_on(database::migrate(&config)).unwrap();
    config
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[test]
fn two_sessions_share_the_instances_and_each_knows_who_has_what() {
    let (database, gateway) = (new_database(), Arc::default());
    let one = Machine::start("one", database.clone(), &gateway, &NAMES);
    until("the first owns all", || one.count() == NAMES.len());
    let other = Machine::start("other", database, &gateway, &NAMES);
    until("the other knows", || {
        NAMES.iter().all(|name| matches!(other.replica.directory().route(name), Route::Other(_)))
    });
    assert_eq!(other.count(), 0, "what is owned is not taken");
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn what_a_killed_session_owned_is_taken_over_within_its_lease_and_a_moment() {
    let (database, gateway) = (new_database(), Arc::default());
    let mut one = Machine::start("one", database.clone(), &gateway, &NAMES);
    until("the first owns all", || one.count() == NAMES.len());
    let other = Machine::start("other", database, &gateway, &NAMES);
    until("the other has read", || other.replica.directory().members().len() == 2);
    let killed = Instant::now();
    one.kill();
    until("the other owns all", || other.count() == NAMES.len());
    let took = killed.elapsed();
    assert!(took < LEASE + MARGIN + Duration::from_secs(2), "{took:?}");
    assert!(took > LEASE.saturating_sub(Duration::from_secs(1)), "the lease was not waited for: {took:?}");
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn a_session_that_stood_still_for_longer_than_its_lease_writes_nothing_when_it_wakes() {
    let (database, gateway) = (new_database(), Arc::<Gateway>::default());
    let one = Machine::start("one", database.clone(), &gateway, &["a"]);
    until("the first owns it", || one.count() == 1);
    let first = one.session();
    let other = Machine::start("other", database, &gateway, &["a"]);
    until("the other has read", || other.replica.directory().members().len() == 2);
    one.halt(true);
    until("the other owns it", || gateway.last("a").is_some_and(|(epoch, _)| epoch > 1));
    let taken_over = gateway.last("a");
    one.halt(false);
    until("the first begins another session", || one.session() != first);
    until("the first retires it", || one.host.served.lock().is_empty());
    until("the first knows the owner", || matches!(one.replica.directory().route("a"), Route::Other(_)));
    assert_eq!(gateway.last("a").map(|(epoch, _)| epoch), taken_over.map(|(epoch, _)| epoch));
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn a_session_that_drains_hands_over_without_waiting_for_its_lease() {
    let (database, gateway) = (new_database(), Arc::default());
    let one = Machine::start("one", database.clone(), &gateway, &NAMES);
    until("the first owns all", || one.count() == NAMES.len());
    let other = Machine::start("other", database.clone(), &gateway, &NAMES);
    until("the other has read", || other.replica.directory().members().len() == 2);
    let begun = Instant::now();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(one.replica.hand_over(PATIENCE));
    until("the other owns all", || other.count() == NAMES.len());
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    assert_eq!(one.count(), 0);
    assert_eq!(other.host.took_prepared.load(Ordering::SeqCst), NAMES.len(), "what was opened before is taken");
    runtime.block_on(one.replica.end());
    let connection = Connection::new(database, "test");
    let read = Statement::new("SELECT count(*) FROM replica WHERE NOT ended");
    let rows = runtime.block_on(connection.read(&[read])).unwrap();
    assert_eq!(rows[0][0].get::<_, i64>(0), 1);
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn a_session_that_drains_does_not_wait_for_who_never_listens() {
    let (database, gateway) = (new_database(), Arc::default());
    let one = Machine::start("one", database.clone(), &gateway, &NAMES);
    until("the first owns all", || one.count() == NAMES.len());
    let other = Machine::start("other", database.clone(), &gateway, &NAMES);
    other.host.is_deaf.store(true, Ordering::SeqCst);
    until("the other has read", || other.replica.directory().members().len() == 2);
    Runtime::new().unwrap().block_on(one.replica.hand_over(PATIENCE));
    until("the other owns all", || other.count() == NAMES.len());
    assert!(other.host.prepared.lock().is_empty());
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn without_notifications_a_handover_takes_a_moment_longer() {
    let (database, gateway) = (new_database(), Arc::default());
    let one = Machine::start("one", database.clone(), &gateway, &["a"]);
    until("the first owns it", || one.count() == 1);
    let other = Machine::start("other", database.clone(), &gateway, &["a"]);
    until("the other has read", || other.replica.directory().members().len() == 2);
    let deaf = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%hints%' \
                AND datname = current_database()";
    let (connection, runtime) = (Connection::new(database, "test"), Runtime::new().unwrap());
    runtime.block_on(connection.batch(database::Durability::Local, &[Statement::new(deaf)])).done().unwrap();
    runtime.block_on(one.replica.hand_over(PATIENCE));
    until("the other owns it", || other.count() == 1);
    assert_eq!(other.host.took_prepared.load(Ordering::SeqCst), 1);
}

#[test]
fn an_owner_goes_on_where_the_database_was_away() {
    let mut server = Postgres::start();
    let database = config(&server.new_database());
    Runtime::new().unwrap().block_on(database::migrate(&database)).unwrap();
    let gateway = Arc::<Gateway>::default();
    let one = Machine::start("one", database.clone(), &gateway, &["a"]);
    until("it owns it", || gateway.last("a").is_some());
    let (session, token) = (one.session(), gateway.last("a"));
    server.server().kill();
    until("its lease is over", || !one.acts_for("a"));
    assert!(one.replica.directory().standing().fault.is_some());
    assert!(one.host.served.lock().contains_key("a"), "what is fenced is served on");
    // A start without the database: it waits, and says so.
    let late = Machine::start("late", database, &gateway, &["a"]);
    until("the late one says so", || late.replica.directory().standing().fault.is_some());
    assert!(!late.replica.is_ready());
    server.server().start();
    let writes = gateway.writes.load(Ordering::SeqCst);
    until("it acts again", || gateway.writes.load(Ordering::SeqCst) > writes);
    until("the late one has a session", || late.replica.is_ready());
    assert_eq!((one.session(), gateway.last("a")), (session, token), "the same owner under the same epoch");
    until("it says nothing of it any more", || one.replica.directory().standing().fault.is_none());
}

#[test]
fn owners_go_on_across_a_failover() {
    let mut pair = Pair::start();
    let (database, gateway) = (migrated_pair(&pair), Arc::<Gateway>::default());
    let one = Machine::start("one", database.clone(), &gateway, &["a", "b"]);
    until("the first owns all", || one.count() == 2);
    let other = Machine::start("other", database, &gateway, &["a", "b", "c"]);
    until("the other owns its own", || other.acts_for("c"));
    let sessions = (one.session(), other.session());
    pair.kill_primary();
    pair.promote();
    let writes = gateway.writes.load(Ordering::SeqCst);
    until("both are renewed", || {
        [&one, &other]
            .iter()
            .all(|machine| machine.replica.directory().standing().fault.is_none() && machine.replica.is_ready())
            && gateway.writes.load(Ordering::SeqCst) > writes
    });
    until("all are acted for", || one.acts_for("a") && one.acts_for("b") && other.acts_for("c"));
    assert_eq!((one.session(), other.session()), sessions);
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn while_the_standby_is_away_nobody_is_renewed() {
    let mut pair = Pair::start();
    let (database, gateway) = (migrated_pair(&pair), Arc::<Gateway>::default());
    let one = Machine::start("one", database, &gateway, &["a"]);
    until("it owns it", || one.acts_for("a"));
    pair.stop_standby();
    until("its lease is over", || !one.acts_for("a"));
    pair.start_standby();
    until("it acts again", || one.acts_for("a"));
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn a_claim_and_a_release_whose_acknowledgement_is_lost_leave_one_owner() {
    let server = Postgres::start();
    let url = server.new_database();
    Runtime::new().unwrap().block_on(database::migrate(&config(&url))).unwrap();
    let proxy = Proxy::to_postgres(server.address());
    let by_proxy = url.replace(&server.address().to_string(), &proxy.address().to_string());
    assert_ne!(url, by_proxy);
    let gateway = Arc::<Gateway>::default();
    proxy.swallow("claimed_at = now()", Then::Silence);
    let one = Machine::start("one", config(&by_proxy), &gateway, &["a"]);
    until("it owns it in spite of that", || gateway.last("a").is_some());
    assert_eq!(proxy.struck(), 1);
    assert_eq!(gateway.last("a").map(|(epoch, _)| epoch), Some(2), "the epoch that nobody heard of is not acted under");
    // Cut off from the gateway it hands over to whoever is not, and its release is not heard of.
    let other = Machine::start("other", config(&url), &gateway, &["a"]);
    until("it has read", || one.replica.directory().members().len() == 2);
    proxy.swallow("SET session = NULL", Then::Cut);
    one.host.reaches.store(false, Ordering::SeqCst);
    until("the other owns it", || other.acts_for("a"));
    assert_eq!(proxy.struck(), 2);
    until("the first retires it", || one.host.served.lock().is_empty());
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn an_instance_that_cannot_be_served_here_is_served_elsewhere() {
    let (database, gateway) = (new_database(), Arc::<Gateway>::default());
    let one = Machine::start("one", database.clone(), &gateway, &[]);
    one.host.refuses.store(true, Ordering::SeqCst);
    *one.host.configured.lock() = listed(&["a"]);
    until("it has a session", || one.replica.is_ready());
    one.replica.relist();
    until("it is known", || one.replica.directory().route("a") == Route::Nobody);
    let other = Machine::start("other", database, &gateway, &["a"]);
    until("the other serves it", || other.acts_for("a"));
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

#[test]
fn nothing_is_claimed_of_data_in_a_newer_format() {
    let (database, gateway) = (new_database(), Arc::<Gateway>::default());
    let one = Machine::start("one", database.clone(), &gateway, &[]);
    until("it has a session", || one.replica.is_ready());
    let newer = Statement::new("UPDATE bridge_schema SET format = format + 1");
    let connection = Connection::new(database, "test");
    Runtime::new().unwrap().block_on(connection.batch(database::Durability::On, &[newer])).done().unwrap();
    *one.host.configured.lock() = listed(&["a"]);
    one.replica.relist();
    let claim = Claim { instance: "a".into(), after: 0 };
    let me = one.session().unwrap();
    let claimed = Runtime::new().unwrap().block_on(statements::claim(&connection, (me, database::FORMAT), &[claim]));
    assert_eq!(claimed.done(), Some(Vec::new()), "the statement refuses as well");
    until("it lists it", || one.replica.directory().route("a") != Route::Unknown);
    assert_eq!(one.count(), 0);
}

#[test]
fn an_instance_whose_state_is_of_a_newer_format_is_not_claimed() {
    let (database, gateway) = (new_database(), Arc::<Gateway>::default());
    let connection = Connection::new(database.clone(), "test");
    let newer = Statement::new(
        "INSERT INTO event_coverage (instance, session, epoch, log_epoch, timeline, format) \
         VALUES ('a', gen_random_uuid(), 1, '1', '1', $1)",
    );
    let newer = newer.bind(state::FORMAT + 1, database::Type::INT4);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(connection.batch(database::Durability::On, &[newer])).done().unwrap();
    let one = Machine::start("one", database, &gateway, &["a", "b"]);
    until("it owns the other", || one.acts_for("b"));
    let claims = [Claim { instance: "a".into(), after: 0 }, Claim { instance: "b".into(), after: 1 }];
    let me = one.session().unwrap();
    let claimed = runtime.block_on(statements::claim(&connection, (me, database::FORMAT), &claims));
    assert_eq!(claimed.done(), Some(vec![("b".into(), 2)]));
}

/// What a newer replica does at its start, as far as an older one sees it: the schema rises, each table has a column more, and its
/// session says more. Beside it, one whose list cannot be read.
const NEWER: &str = r#"DO $$ DECLARE of_bridge regclass; BEGIN
    FOR of_bridge IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN added integer NOT NULL DEFAULT 1', of_bridge);
    END LOOP;
    UPDATE bridge_schema SET format = format + 1;
    INSERT INTO replica (id, name, address, version, format, instances)
        SELECT gen_random_uuid(), introduced.name, introduced.name || ':9191', '9', bridge_schema.format, introduced.listed
        FROM bridge_schema, (VALUES
            ('newer', (SELECT jsonb_agg(jsonb_build_object('name', name, 'slug', name, 'digest', '', 'added', 1))
                FROM unnest('{a,b,c,d,e,f,g,h}'::text[]) AS name)),
            ('unread', '{"all": true}'::jsonb)) AS introduced (name, listed);
    END $$"#;

/// The newer replica goes on, and is prepared for whatever it is offered.
const NEWER_GOES_ON: [&str; 2] = [
    "UPDATE replica SET beat = beat + 1 WHERE version = '9'",
    "UPDATE instance_owner SET prepared = offered, changed = pg_current_xact_id() WHERE prepared IS NULL \
     AND offered = (SELECT id FROM replica WHERE name = 'newer')",
];

#[test]
fn older_replicas_go_on_beside_a_newer_one_and_hand_over_to_it() {
    let (database, gateway) = (new_database(), Arc::default());
    let one = Machine::start("one", database.clone(), &gateway, &NAMES);
    until("the first owns all", || one.count() == NAMES.len());
    let other = Machine::start("other", database.clone(), &gateway, &[&NAMES[..], &["z"]].concat());
    until("the other owns its own", || other.acts_for("z"));
    let (connection, runtime) = (Connection::new(database, "test"), Runtime::new().unwrap());
    let run = |texts: &[&'static str]| {
        let statements: Vec<_> = texts.iter().map(|text| Statement::new(*text)).collect();
        runtime.block_on(connection.batch(database::Durability::Local, &statements)).done()
    };
    run(&[NEWER]).unwrap();
    let goes_on = || {
        // Rows may be locked in another order.
        run(&NEWER_GOES_ON);
        true
    };
    until("both know it", || {
        goes_on() && [&one, &other].iter().all(|one| one.replica.directory().members().len() == 4)
    });
    let sessions = (one.session(), other.session());
    thread::scope(|scope| {
        let handing_over = scope.spawn(|| Runtime::new().unwrap().block_on(one.replica.hand_over(PATIENCE)));
        until("the first handed over", || goes_on() && handing_over.is_finished());
    });
    let released = "SELECT count(*) FROM instance_owner JOIN replica ON replica.id = instance_owner.next \
                    WHERE replica.name = 'newer' AND instance_owner.session IS NULL";
    assert_eq!(run(&[released]).unwrap()[0][0].get::<_, i64>(0), 8, "all of them go to the newer one");
    assert_eq!(other.host.took_prepared.load(Ordering::SeqCst), 0);
    let lease = |one: &Machine| one.replica.directory().standing().lease.unwrap().until();
    let renewed = lease(&other);
    until("the other goes on", || goes_on() && lease(&other) > renewed + LEASE);
    assert!(other.acts_for("z") && other.count() == 1, "it acts for what it owns, and claims nothing");
    assert_eq!((one.session(), other.session()), sessions);
    assert!(!gateway.doubled.load(Ordering::SeqCst));
}

/// Prints how long three replicas take to own 10,000 instances, what that costs the database at rest, and how long the
/// instances of one that is killed are away.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_instances() {
    let server = Postgres::start();
    let url = server.new_database();
    let name = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    let database = config(&url);
    Runtime::new().unwrap().block_on(database::migrate(&database)).unwrap();
    let names: Vec<String> = (0..10_000).map(|number| format!("festival-{number}")).collect();
    let instances: Vec<&str> = names.iter().map(String::as_str).collect();
    let gateway = Arc::<Gateway>::default();
    let begun = Instant::now();
    let start = |number| Machine::start(&format!("bridge-{number}"), database.clone(), &gateway, &instances);
    let mut machines: Vec<_> = (0..3).map(start).collect();
    let owned = |machines: &[Machine]| machines.iter().map(Machine::count).collect::<Vec<_>>();
    until("all are owned", || owned(&machines).iter().sum::<usize>() == 10_000);
    println!("owned after {:?}: {:?}", begun.elapsed(), owned(&machines));
    let commits = || -> u64 {
        let query = format!("SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'");
        server.sql("postgres", &query).parse().unwrap()
    };
    // The statistics are a second behind.
    thread::sleep(Duration::from_secs(3));
    let (before, since) = (commits(), Instant::now());
    thread::sleep(Duration::from_secs(10));
    let rate = (commits() - before) / since.elapsed().as_secs();
    println!("{rate} transactions a second at rest, of three replicas together");
    let killed = Instant::now();
    machines.pop().unwrap().kill();
    until("all are owned again", || owned(&machines).iter().sum::<usize>() == 10_000);
    println!("owned again after {:?}: {:?}", killed.elapsed(), owned(&machines));
}
