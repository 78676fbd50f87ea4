//! Against a real PostgreSQL: what the next owner finds, whatever ended the one before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::broadcasts::relay::Relay;
use crate::broadcasts::{Broadcast, Broadcasts, Epoch, Event, Item, Left, Since, SubscriberLimit, Subscription};
use crate::budget::{Ask, Class, Ledger, SentPayments};
use crate::cache::{Cache, CachedReply, Freshness, Key, PlainKey};
use crate::cluster::config::MARGIN;
use crate::cluster::ownership::HandOver;
use crate::cluster::statements;
use crate::database::tests::server::{Pair, Postgres};
use crate::database::tests::{config, migrated};
use crate::database::{self, Connection, Durability, Statement, Type, migrate};
use crate::gateway::LinkEvent;
use crate::protocol::command::LISTPRODUCTS;
use crate::protocol::{Body, Retention};
use crate::tenure::{Lease, SessionId, Tenure, boot_time};
const SKEW: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_millis(300);
const REQUEST: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(20);
const HISTORY: usize = 8;

/// A replica, with the connection by which a test claims and gives up.
struct Replica {
    session: SessionId,
    lease: Lease,
    cache: Arc<Cache>,
    states: States,
    by_hand: Connection,
    /// What an operator has taken out at every instance.
    cordoned: Arc<Mutex<BTreeSet<String>>>,
    cordons_changed: Arc<Notify>,
    task: JoinHandle<()>,
}

/// An instance that it owns.
struct Instance {
    name: Arc<str>,
    ledger: Ledger,
    broadcasts: Broadcasts,
    relay: Arc<Relay>,
    tenure: Tenure,
    cordoned: BTreeSet<String>,
}

/// What an operator has taken out, unless a test says otherwise.
fn cordons() -> BTreeSet<String> {
    BTreeSet::from(["exon".to_owned()])
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replica {
    fn new(database: &database::Config) -> Self {
        let rule = Retention { fresh: Duration::from_mins(5), stale: Duration::from_hours(1) };
        let rules = BTreeMap::from([("listproducts".to_owned(), rule)]);
        let of_cache = crate::cache::Config { max_size: 1 << 20, min_age: Duration::ZERO, rules, store: None };
        let (session, cache) = (SessionId::random().unwrap(), Arc::new(Cache::new(of_cache)));
        let lease = Lease::of(session);
        lease.extend_to(boot_time() + Duration::from_hours(1));
        let (cordoned, cordons_changed) = (Arc::new(Mutex::new(cordons())), Arc::<Notify>::default());
        let states = States::new(session, database, Arc::clone(&cache), HISTORY, Arc::clone(&cordons_changed));
        let running = states.clone();
        let task = tokio::spawn(async move { running.run().await });
        let by_hand = Connection::new(database.clone(), "test");
        Self { session, lease, cache, states, by_hand, cordoned, cordons_changed, task }
    }

    /// Owns an instance from now on, whoever did before.
    async fn claim(&self, name: &str) -> Tenure {
        let claim = "INSERT INTO instance_owner (instance, session, epoch) VALUES ($1, $2, 1) ON CONFLICT (instance) \
                     DO UPDATE SET session = excluded.session, epoch = instance_owner.epoch + 1 RETURNING epoch";
        let claim = Statement::new(claim).text(name).uuid(self.session.as_uuid());
        let rows = loop {
            if let Some(rows) = self.by_hand.batch(Durability::On, std::slice::from_ref(&claim)).await.done() {
                break rows;
            }
        };
        Tenure::new(&self.lease, rows[0][0].get(0))
    }

    async fn load(&self, name: &str, tenure: &Tenure) -> Carried {
        let (_, epoch) = tenure.token().unwrap();
        self.states.load(&name.into(), epoch).await.unwrap()
    }

    /// Claims an instance and begins with what is found of it.
    async fn begin(&self, name: &str) -> Instance {
        let instance = self.made(name);
        self.begin_as(instance, None).await
    }

    fn made(&self, name: &str) -> Instance {
        let broadcasts = Broadcasts::new(Epoch::random().unwrap(), HISTORY, SubscriberLimit::new(99, 99));
        let relay =
            Relay::new(Tenure::unlimited(), (name, name), Arc::clone(&self.cache), broadcasts.clone(), SKEW, PATIENCE);
        relay.keep();
        let (ledger, tenure) = (Ledger::new(crate::budget::Config::default()), Tenure::unlimited());
        let cordoned = BTreeSet::new();
        Instance { name: name.into(), ledger, broadcasts, relay, tenure, cordoned }
    }

    async fn begin_as(&self, instance: Instance, ready: Option<Instant>) -> Instance {
        let tenure = self.claim(&instance.name).await;
        let carried = self.load(&instance.name, &tenure).await;
        let (goes_on, cordoned) = (carried.log.is_some(), carried.cordoned.clone());
        self.states.write_first(&instance.name, &instance.broadcasts);
        carried.begin(&Begins {
            slug: &instance.name,
            ledger: &instance.ledger,
            cache: &self.cache,
            broadcasts: &instance.broadcasts,
            relay: &instance.relay,
            request_timeout: REQUEST,
            payments: Some(&SentPayments::default()),
            ready,
        });
        let instance = Instance { tenure, cordoned, ..instance };
        let by_operator = Arc::clone(&self.cordoned);
        let serving = Serving {
            name: Arc::clone(&instance.name),
            slug: Arc::clone(&instance.name),
            tenure: instance.tenure.clone(),
            ledger: instance.ledger.clone(),
            broadcasts: instance.broadcasts.clone(),
            relay: Arc::clone(&instance.relay),
            cordoned: Arc::new(move || by_operator.lock().clone()),
            heard: Arc::new(|| HashMap::from([(1, Instant::now())])),
        };
        self.states.serve(serving, goes_on);
        instance
    }

    async fn count(&self, text: &'static str) -> i64 {
        let rows = self.by_hand.read(&[Statement::new(text)]).await;
        rows.map_or(-1, |rows| rows[0][0].get(0))
    }

    /// Waits until a statement counts this many.
    async fn until(&self, text: &'static str, count: i64) {
        let is = async {
            while self.count(text).await != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, is).await.unwrap_or_else(|_| panic!("{text} never gives {count}"));
    }
}

const BEGUN: &str = "SELECT count(*) FROM event_coverage";
const LOGGED: &str = "SELECT count(*) FROM event_log";

fn parameters() -> Body {
    Body::from(&*RawValue::from_string(r#"{"Note":"\u0000 \ud800"}"#.to_owned()).unwrap())
}

impl Instance {
    fn publish(&self, message: &str) {
        self.broadcasts.publish(Event::Broadcast(Broadcast {
            message: message.into(),
            parameters: parameters(),
            received_at: Timestamp::now(),
            maybe_duplicate: false,
        }));
    }

    fn subscribe(&self, since: Since<'_>) -> Subscription {
        self.broadcasts.subscribe("shop", since).unwrap()
    }

    fn open(&self, link: u64) {
        (self.relay.event_sink().0)(&LinkEvent::Opened { link, at: Instant::now() });
    }

    fn hear(&self, link: u64, message: &str) {
        let event =
            LinkEvent::Broadcast { link, at: Instant::now(), message: message.to_owned(), parameters: parameters() };
        (self.relay.event_sink().0)(&event);
    }
}

/// The next thing that is heard, in short.
async fn next(subscription: &mut Subscription) -> String {
    let mut next = std::pin::pin!(async {
        match subscription.next().await.unwrap() {
            Item::Reset => "reset".to_owned(),
            Item::Lost { .. } => "lost".to_owned(),
            Item::Entry(entry) => match &entry.event {
                Event::Gap(_) => "gap".to_owned(),
                Event::Broadcast(told) if told.maybe_duplicate => format!("{}?", told.message),
                Event::Broadcast(told) => {
                    assert_eq!(told.parameters, parameters());
                    told.message.to_string()
                }
            },
        }
    });
    // Nobody wakes listeners here.
    let heard = async {
        loop {
            let once = poll_fn(|context| {
                Poll::Ready(match next.as_mut().poll(context) {
                    Poll::Ready(heard) => Some(heard),
                    Poll::Pending => None,
                })
            });
            if let Some(heard) = once.await {
                return heard;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, heard).await.expect("something is heard")
}

fn key(name: &str) -> Key {
    let instance = Arc::from(name);
    PlainKey { instance: &instance, command: "listproducts", pos_id: Some(7) }.key()
}

fn keep(cache: &Cache, name: &str) {
    let key = key(name);
    cache.keep(&key, CachedReply::new(parameters(), Instant::now(), cache.epoch(&LISTPRODUCTS, &key)));
}

fn is_fresh(cache: &Cache, name: &str) -> Option<bool> {
    let copy = cache.copy(&key(name))?;
    let freshness = cache.freshness(&LISTPRODUCTS, &key(name), &copy, Instant::now());
    Some(matches!(freshness, Freshness::Fresh { .. }))
}

async fn spend(ledger: &Ledger) {
    let ask = Ask { command: "getconfig", class: Class::Caller("shop"), deadline: Instant::now() };
    ledger.acquire(ask).await.unwrap().answered();
}

#[tokio::test]
async fn an_entry_is_written_before_it_is_heard_and_the_next_owner_goes_on_after_it_with_a_gap() {
    let database = migrated().await;
    let (one, other) = (Replica::new(&database), Replica::new(&database));
    let first = one.begin("demo").await;
    first.open(1);
    let mut listener = first.subscribe(Since::Now);
    first.hear(1, "one");
    assert_eq!(next(&mut listener).await, "gap");
    assert_eq!(next(&mut listener).await, "one");
    assert_eq!(one.count(LOGGED).await, 2);
    let last = listener.cursor().to_string();

    let second = other.begin("demo").await;
    let mut resumed = second.subscribe(Since::After(&last));
    second.open(1);
    second.hear(1, "two");
    assert_eq!(next(&mut resumed).await, "gap");
    assert_eq!(next(&mut resumed).await, "two");
    // Whoever does not know that it is no longer the owner logs nothing, for nobody.
    first.hear(1, "late");
    second.hear(1, "three");
    assert_eq!(next(&mut resumed).await, "three");
    other.until(LOGGED, 5).await;
    assert_eq!(first.broadcasts.carried().newest, 2);
}

#[tokio::test]
async fn an_owner_of_the_past_changes_nothing() {
    let database = migrated().await;
    let (one, other) = (Replica::new(&database), Replica::new(&database));
    let first = one.begin("demo").await;
    one.until(BEGUN, 1).await;
    let second = other.begin("demo").await;
    other.until("SELECT epoch FROM event_coverage", 2).await;
    keep(&one.cache, "demo");
    spend(&first.ledger).await;
    first.publish("late");
    assert!(one.states.hand_over("demo").is_some(), "it does not know yet");
    for _ in 0..3 {
        one.until("SELECT count(*) FROM session_coverage", 2).await;
        sleep(Duration::from_millis(500)).await;
    }
    for text in ["SELECT count(*) FROM copy", "SELECT count(*) FROM spending WHERE epoch = 1", LOGGED] {
        assert_eq!(other.count(text).await, 0, "{text}");
    }
    let statements = one.states.hand_over("demo").unwrap_or_default();
    one.by_hand.batch(Durability::On, &statements).await.done();
    assert_eq!(other.count("SELECT count(*) FROM handed_over").await, 0);
    drop(second);
}

#[tokio::test]
async fn a_handover_goes_on_without_a_gap_with_what_was_spent_and_with_fresh_copies() {
    let database = migrated().await;
    let (one, other) = (Replica::new(&database), Replica::new(&database));
    let first = one.begin("demo").await;
    first.open(1);
    let mut listener = first.subscribe(Since::Now);
    first.hear(1, "one");
    assert_eq!([next(&mut listener).await, next(&mut listener).await], ["gap", "one"]);
    spend(&first.ledger).await;
    keep(&one.cache, "demo");

    let prepared = other.made("demo");
    prepared.open(1);
    let ready = prepared.relay.until_listening().await;
    let last = listener.cursor().to_string();
    first.hear(1, "two");
    prepared.hear(1, "two");
    let statements = one.states.hand_over("demo").unwrap();
    // Heard by the next alone, before and after it owns the instance.
    first.hear(1, "three");
    prepared.hear(1, "three");
    one.by_hand.batch(Durability::On, &statements).await.done().unwrap();
    let claimed = Instant::now();
    // The skew of this test is shorter than what its database may need.
    let ready =
        if claimed.saturating_duration_since(ready) > SKEW { claimed.checked_sub(SKEW).unwrap() } else { ready };
    let second = other.begin_as(prepared, Some(ready)).await;
    let mut resumed = second.subscribe(Since::After(&last));
    second.hear(1, "four");
    for message in ["two", "three", "four"] {
        assert_eq!(next(&mut resumed).await, message);
    }
    assert_eq!(second.ledger.budget("getconfig").remaining, 3);
    assert_eq!(is_fresh(&other.cache, "demo"), Some(true));
    other.until("SELECT count(*) FROM handed_over", 0).await;
    assert_eq!(second.cordoned, cordons());
    // The next one goes on after what was matched at the handover, too.
    other.until(LOGGED, 5).await;
    let third = one.begin("demo").await;
    let mut heard = third.subscribe(Since::After(&last));
    for message in ["two", "three", "four"] {
        assert_eq!(next(&mut heard).await, message);
    }
}

#[tokio::test]
async fn after_a_death_windows_are_full_and_copies_are_old() {
    let database = migrated().await;
    let (one, other) = (Replica::new(&database), Replica::new(&database));
    let first = one.begin("demo").await;
    spend(&first.ledger).await;
    keep(&one.cache, "demo");
    one.until("SELECT count(*) FROM copy", 1).await;
    one.until("SELECT count(*) FROM spending", 1).await;
    let second = other.begin("demo").await;
    assert_eq!(second.ledger.budget("getconfig").remaining, 0);
    assert_eq!(second.ledger.budget("payitems").remaining, 100);
    assert_eq!(second.cordoned, cordons());
    assert_eq!(is_fresh(&other.cache, "demo"), Some(false));
}

/// Or what is broadcast to its successor could be taken for another copy of what it logged last.
#[tokio::test]
async fn an_owner_whose_session_others_ended_had_received_nothing_for_a_while() {
    let database = migrated().await;
    let other = Replica::new(&database);
    let ended_for = MARGIN * 2;
    let cases = [(true, false, ended_for), (true, true, Duration::ZERO), (false, false, Duration::ZERO)];
    for (number, (ended, draining, gone_for)) in (1..).zip(cases) {
        let one = Replica::new(&database);
        let session = "INSERT INTO replica (id, name, address, version, format, ended, draining) \
                       VALUES ($1, 'one', '', '', 1, $2, $3)";
        let session = Statement::new(session).uuid(one.session.as_uuid());
        let session = session.bind(ended, Type::BOOL).bind(draining, Type::BOOL);
        one.by_hand.batch(Durability::On, &[session]).await.done().unwrap();
        let name = format!("demo-{number}");
        let _first = one.begin(&name).await;
        one.until(BEGUN, number).await;
        let tenure = other.claim(&name).await;
        assert_eq!(other.load(&name, &tenure).await.gone_for, gone_for, "{ended} {draining}");
        // Somebody owned it since.
        let tenure = other.claim(&name).await;
        assert_eq!(other.load(&name, &tenure).await.gone_for, Duration::ZERO);
    }
}

#[tokio::test]
async fn a_cordon_is_written_at_once() {
    let database = migrated().await;
    let one = Replica::new(&database);
    let _first = one.begin("demo").await;
    one.until(BEGUN, 1).await;
    let begun = Instant::now();
    for number in 0..10 {
        let shard = format!("shard-{number}");
        *one.cordoned.lock() = BTreeSet::from([shard.clone()]);
        one.cordons_changed.notify_one();
        let state = Statement::new("SELECT state FROM spending");
        while !one.by_hand.read(std::slice::from_ref(&state)).await.unwrap()[0]
            .first()
            .is_some_and(|row| row.get::<_, String>(0).contains(&shard))
        {
            sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "each waits for the next second: {:?}", begun.elapsed());
}

/// It would wait for its row of `instance_owner` with rows of state written, and whoever holds that row for those.
#[tokio::test]
async fn a_release_waits_for_who_writes_state_before_it_writes_any() {
    let database = migrated().await;
    let one = Replica::new(&database);
    let instance = one.begin("demo").await;
    one.until(BEGUN, 1).await;
    one.task.abort();
    let state = one.states.hand_over("demo").unwrap();
    let mut writing = one.by_hand.begin(Durability::Local).await.unwrap();
    let lock = "SELECT FROM instance_owner WHERE instance = 'demo' FOR SHARE";
    writing.run(&Statement::new(lock)).await.unwrap();
    let (session, epoch) = instance.tenure.token().unwrap();
    let given = [HandOver { instance: "demo".into(), epoch, next: None }];
    let releasing = Connection::new(database.clone(), "test");
    let releasing = tokio::spawn(async move { statements::release(&releasing, session, &given, state).await });
    let looking = Connection::new(database, "test");
    let locked =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let is_locked = async {
        while looking.read(&[Statement::new(locked)]).await.unwrap()[0][0].get::<_, i64>(0) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, is_locked).await.unwrap();
    writing.run(&Statement::new("UPDATE event_coverage SET covered_until_ms = 0")).await.unwrap();
    writing.commit().await.done().unwrap();
    releasing.await.unwrap().done().unwrap();
    assert_eq!(one.count("SELECT count(*) FROM handed_over").await, 1);
}

#[tokio::test]
async fn a_handover_of_an_earlier_claim_is_none() {
    let database = migrated().await;
    let (one, other) = (Replica::new(&database), Replica::new(&database));
    let _first = one.begin("demo").await;
    one.until(BEGUN, 1).await;
    let statements = one.states.hand_over("demo").unwrap();
    one.by_hand.batch(Durability::On, &statements).await.done().unwrap();
    let between = other.claim("demo").await;
    assert!(other.load("demo", &between).await.handed_over.is_some());
    let after = one.claim("demo").await;
    assert!(one.load("demo", &after).await.handed_over.is_none());
}

#[tokio::test]
async fn while_the_database_is_away_entries_wait_and_what_does_not_fit_is_a_gap() {
    let mut server = Postgres::start();
    let database = config(&server.new_database());
    migrate(&database).await.unwrap();
    let one = Replica::new(&database);
    let first = one.begin("demo").await;
    let mut listener = first.subscribe(Since::Now);
    first.publish("before");
    assert_eq!(next(&mut listener).await, "before");
    server.server().kill();
    for number in 0..HISTORY + 3 {
        first.publish(&number.to_string());
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(first.broadcasts.carried().newest, 1, "nobody hears what is not written");
    server.server().start();
    assert_eq!(next(&mut listener).await, "0");
    let mut heard = Vec::new();
    for _ in 0..6 {
        heard.push(next(&mut listener).await);
    }
    assert_eq!(heard, ["1", "2", "3", "4", "5", "gap"]);
}

#[tokio::test]
async fn an_owner_that_lives_through_a_failover_writes_its_log_anew_and_one_that_did_not_begins_another() {
    let mut pair = Pair::start();
    let database = config(&pair.new_database());
    migrate(&database).await.unwrap();
    let (one, other) = (Replica::new(&database), Replica::new(&database));
    let lives = one.begin("lives").await;
    let dies = one.begin("dies").await;
    for instance in [&lives, &dies] {
        let mut listener = instance.subscribe(Since::Now);
        instance.publish("before");
        assert_eq!(next(&mut listener).await, "before");
    }
    one.states.end("dies", &dies.tenure);
    pair.kill_primary();
    pair.promote();
    let timeline = "SELECT count(DISTINCT timeline) FROM event_coverage";
    one.until(timeline, 2).await;
    let again = other.begin("lives").await;
    assert_eq!(again.broadcasts.carried(), lives.broadcasts.carried());
    let anew = other.begin("dies").await;
    assert_ne!(anew.broadcasts.epoch(), dies.broadcasts.epoch());
    let last = dies.subscribe(Since::Now).cursor().to_string();
    assert_eq!(next(&mut anew.subscribe(Since::After(&last))).await, "reset");
}

#[tokio::test]
async fn instances_at_rest_cost_a_statement_or_two_a_second_however_many_they_are() {
    const MANY: i64 = 2000;
    let database = migrated().await;
    let one = Replica::new(&database);
    let claim = "INSERT INTO instance_owner (instance, session, epoch) \
                 SELECT 'i' || number, $1, 1 FROM generate_series(1, $2) AS number";
    let claim = Statement::new(claim).uuid(one.session.as_uuid()).bigint(MANY);
    one.by_hand.batch(Durability::On, &[claim]).await.done().unwrap();
    let tenure = Tenure::new(&one.lease, 1);
    for number in 1..=MANY {
        let Instance { name, ledger, broadcasts, relay, .. } = one.made(&format!("i{number}"));
        one.states.write_first(&name, &broadcasts);
        relay.resume_after_loss(&Left::default(), SKEW);
        (relay.event_sink().0)(&LinkEvent::Opened { link: 1, at: Instant::now() });
        let heard = Arc::new(|| HashMap::from([(1, Instant::now())]));
        let (slug, tenure) = (Arc::clone(&name), tenure.clone());
        let cordoned = Arc::new(BTreeSet::new);
        one.states.serve(Serving { name, slug, tenure, ledger, broadcasts, relay, cordoned, heard }, false);
    }
    one.until(BEGUN, MANY).await;
    one.until(LOGGED, MANY).await;
    one.until("SELECT count(*) FROM event_coverage WHERE covered_until_ms IS NULL", MANY).await;
    let changes = "SELECT (sum(n_tup_ins + n_tup_upd + n_tup_del) - \
        (SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'session_coverage'))::bigint \
        FROM pg_stat_user_tables";
    // The server's own counts come a little later.
    let mut before = -1;
    while before != one.count(changes).await {
        before = one.count(changes).await;
        sleep(Duration::from_secs(2)).await;
    }
    let seconds =
        one.count("SELECT sum(n_tup_upd)::bigint FROM pg_stat_user_tables WHERE relname = 'session_coverage'").await;
    one.by_hand.read(&[Statement::new("SELECT pg_stat_force_next_flush()")]).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(one.count(changes).await, before, "nothing else is written");
    let after =
        one.count("SELECT sum(n_tup_upd)::bigint FROM pg_stat_user_tables WHERE relname = 'session_coverage'").await;
    assert!(after - seconds <= 7, "{} updates in five seconds", after - seconds);
}
