//! Instances that are started, drained and stopped beside one that goes on, over one simulated gateway.

use std::collections::BTreeMap;

use concertpos_simulator::{self as simulator, Action, Fault, Simulator};

use futures_util::future::poll_immediate;

use super::*;
use crate::broadcasts::{End, Since};
use crate::journal::{Filter, JournalError, Outcome, Reserve};
use crate::protocol::Retention;
use crate::tenure::{Lease, SessionId, boot_time};
use crate::{budget, cache, journal, scratch};

const PATIENCE: Duration = Duration::from_secs(15);

/// So many refusals without a listing that was let in mean that none under way will end.
const REFUSED_IN_A_ROW: usize = 25;

struct World {
    gateway: Simulator,
    context: Context,
}

impl World {
    async fn with(slugs: [&str; 2]) -> Self {
        let instances =
            slugs.map(|slug| simulator::Instance { slug: slug.to_owned(), api_key: format!("key-of-{slug}") });
        let config = simulator::Config { instances: instances.into(), ..simulator::Config::default() };
        let gateway = Simulator::start(config).await.unwrap();
        let cache = cache::Config { max_size: 1 << 20, min_age: Duration::ZERO, rules: BTreeMap::new(), store: None };
        let folder = scratch::folder();
        let journal = journal::Config::new(folder, journal::Config::LEAST_KEEP).unwrap();
        let context = Context {
            cache: Arc::new(Cache::new(cache)),
            journal: Journal::open(&journal).unwrap(),
            dialer: Dialer::tcp(gateway::client_config(None).unwrap()),
            runtimes: Runtimes::default(),
            subscribers: SubscriberLimit::new(9, 9),
            shutdown: Shutdown::new(),
        };
        Self { gateway, context }
    }

    async fn start(&self, slug: &str) -> Arc<Instance> {
        self.start_under(slug, Tenure::unlimited()).await
    }

    async fn start_under(&self, slug: &str, tenure: Tenure) -> Arc<Instance> {
        let settings = Settings {
            slug: slug.to_owned(),
            api_key: format!("key-of-{slug}").into(),
            gateway: gateway::Config { url: self.gateway.url(), ..gateway::Config::default() },
            max_wait: PATIENCE,
            pay_max_wait: PATIENCE,
            broadcasts: broadcasts::Config::default(),
            cordoned: BTreeSet::new(),
        };
        let ledger = Ledger::new(budget::Config::default());
        let instance = Instance::start(slug, settings, (ledger, tenure), &self.context).unwrap();
        eventually("it is connected", || instance.is_connected()).await;
        instance
    }
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
}

async fn deposit(instance: &Instance) -> Result<Served, Error> {
    let parameters = Parameters::parse(br#"{"POSID":1}"#).unwrap();
    instance.read(&command::GETDEPOSIT, parameters, "shop", CacheDirectives::default(), Instant::now() + PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_drained_and_stopped_while_another_goes_on_and_can_be_started_again() {
    let world = World::with(["leaves", "stays"]).await;
    let (leaves, stays) = (world.start("leaves").await, world.start("stays").await);
    let mut listener = leaves.broadcasts().subscribe("shop", Since::Now).unwrap();
    world.gateway.add_fault(Fault::new(Action::Latency { ms: 300 }).on("getdeposit").times(1));

    let under_way = tokio::spawn({
        let leaves = Arc::clone(&leaves);
        async move { deposit(&leaves).await }
    });
    eventually("the command is under way", || world.gateway.counts().command("getdeposit").received == 1).await;
    leaves.drain().await;
    assert_eq!(world.gateway.counts().command("getdeposit").answered, 1, "it is waited for");
    assert!(under_way.await.unwrap().is_ok(), "and its caller gets its reply");
    assert!(matches!(deposit(&leaves).await, Err(Error::ShuttingDown { .. })));
    let end = async {
        loop {
            if let Err(end) = listener.next().await {
                return end;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.ok(), Some(End::Draining), "its listeners are told");
    assert!(leaves.is_connected(), "its connections stay until it is stopped");

    let open = || world.gateway.counts().open();
    let before = open();
    leaves.stop().await;
    assert!(!leaves.is_connected());
    eventually("its connections are closed at the gateway", || open() < before).await;
    assert!(deposit(&stays).await.is_ok());

    let again = world.start("leaves").await;
    assert!(deposit(&again).await.is_ok());
    world.context.shutdown.request();
    world.context.shutdown.refuse_new();
    for instance in [&stays, &again] {
        assert!(matches!(deposit(instance).await, Err(Error::ShuttingDown { .. })), "all stop with the whole");
        instance.drain().await;
        instance.stop().await;
    }
    eventually("nothing is open any more", || open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_lease_copies_are_labelled_stale_nothing_is_logged_and_a_renewal_tells_of_a_gap() {
    let mut world = World::with(["owned", "other"]).await;
    let rule = Retention { fresh: Duration::from_mins(1), stale: Duration::from_mins(1) };
    let rules = BTreeMap::from([("listtransactions".to_owned(), rule)]);
    let cache = cache::Config { max_size: 1 << 20, min_age: Duration::ZERO, rules, store: None };
    world.context.cache = Arc::new(Cache::new(cache));
    let lease = Lease::of(SessionId::random().unwrap());
    let lasts = Duration::from_secs(2);
    lease.extend_to(boot_time() + lasts);
    let instance = world.start_under("owned", Tenure::new(&lease, 1)).await;
    let list = || async {
        let parameters = Parameters::parse(br#"{"POSID":1,"POSPassword":""}"#).unwrap();
        let directives = CacheDirectives::default();
        instance.read(&command::LISTTRANSACTIONS, parameters, "shop", directives, Instant::now() + PATIENCE).await
    };
    list().await.unwrap();
    assert!(list().await.unwrap().status.ttl_s.is_some_and(|ttl_s| ttl_s > 0));
    let mut listener = instance.broadcasts().subscribe("shop", Since::Now).unwrap();
    let received = || world.gateway.counts().command("listtransactions").received;
    let before = received();

    eventually("the lease is over", || !lease.is_valid()).await;
    let served = list().await.unwrap();
    assert!(served.status.hit && served.status.ttl_s.is_some_and(|ttl_s| ttl_s < 0), "{served:?}");
    assert!(matches!(deposit(&instance).await, Err(Error::NotOwner { .. })));
    let key = Key { instance: "owned".into(), caller: "shop".into(), idempotency_key: "k".into() };
    let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 1)] };
    let pay = Command::known(&command::PAYITEMS, Parameters::parse(br#"{"POSID":1}"#).unwrap());
    let paid = instance.pay(key, sale, pay, Instant::now() + PATIENCE).await;
    assert!(matches!(paid, Err(Error::NotOwner { .. })), "{paid:?}");
    eventually("its links are closed", || !instance.is_connected()).await;
    assert!(poll_immediate(Box::pin(listener.next())).await.is_none(), "nothing is logged, and streams stay open");
    assert_eq!(received(), before, "nothing was sent");

    lease.extend_to(boot_time() + PATIENCE);
    let entry = tokio::time::timeout(PATIENCE, listener.next()).await.unwrap().unwrap();
    assert!(format!("{entry:?}").contains("Gap"), "{entry:?}");
    assert!(list().await.is_ok());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_left_unknown_is_looked_for_though_the_journal_is_busy_at_the_start() {
    let world = World::with(["left", "other"]).await;
    let journal = &world.context.journal;
    let key = Key { instance: "left".into(), caller: "shop".into(), idempotency_key: "lost".into() };
    let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 1)] };
    let Reserve::Fresh(reservation) = journal.reserve(key, sale).await else { unreachable!() };
    let dispatched = journal.dispatch(reservation).await.unwrap();
    journal.finish(dispatched, Outcome::Unknown(None)).await.unwrap();
    // As many instances would that start at the same time. Nobody takes what the first of them find; those that wait behind them
    // keep their places.
    let mut listings = Vec::new();
    let mut refused = 0;
    while refused < REFUSED_IN_A_ROW {
        let filter = Filter { instance: "other".into(), limit: 1, ..Filter::default() };
        let mut listing = Box::pin(journal.list(filter));
        match poll_immediate(&mut listing).await {
            Some(Err(JournalError::Overloaded)) => {
                refused += 1;
                // A listing that ends now makes room for another.
                sleep(Duration::from_millis(2)).await;
                continue;
            }
            Some(ended) => drop(ended.unwrap()),
            None => listings.push(listing),
        }
        refused = 0;
    }
    let instance = world.start("left").await;
    let looked = || world.gateway.counts().command("listtransactions").received;
    assert_eq!(looked(), 0, "nothing is known of it yet");
    drop(listings);
    eventually("it is looked for", || looked() >= 1).await;
    instance.drain().await;
    instance.stop().await;
}

#[test]
fn a_licence_that_is_out_is_asked_for_every_half_minute_though_a_copy_of_it_is_fresh() {
    let hour = Duration::from_hours(1);
    for (is_denied, fresh_for, pause) in [
        (true, hour, LICENSE_RETRY),
        (true, Duration::ZERO, LICENSE_RETRY),
        (false, hour, hour),
        (false, Duration::ZERO, LICENSE_RETRY),
    ] {
        assert_eq!(license_pause(is_denied, fresh_for), pause, "{is_denied} {fresh_for:?}");
    }
}
