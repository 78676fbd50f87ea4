//! Instances that are started, drained and stopped beside one that goes on, over one simulated gateway.

use std::collections::BTreeMap;

use concertpos_simulator::{self as simulator, Action, Fault, Simulator};

use futures_util::future::poll_immediate;

use super::*;
use crate::broadcasts::{End, Since};
use crate::journal::{Filter, JournalError, Outcome, Reserve};
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
        let settings = Settings {
            slug: slug.to_owned(),
            api_key: format!("key-of-{slug}").into(),
            gateway: gateway::Config { url: self.gateway.url(), ..gateway::Config::default() },
            max_wait: PATIENCE,
            pay_max_wait: PATIENCE,
            broadcasts: broadcasts::Config::default(),
            cordoned: BTreeSet::new(),
        };
        let instance = Instance::start(slug, settings, Ledger::new(budget::Config::default()), &self.context).unwrap();
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
