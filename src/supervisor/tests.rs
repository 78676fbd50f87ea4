//! What is decided before anything is touched. Reloads of the whole bridge are in `tests/reload.rs`.

use std::sync::Weak;

use concertpos_simulator::{self as simulator, Simulator};

use parking_lot::Mutex;

use super::*;
use crate::broadcasts::SubscriberLimit;
use crate::budget;
use crate::cache::{self, Cache};
use crate::gateway::{Dialer, Runtimes};
use crate::journal::{self, Journal};
use crate::scratch;
use crate::shutdown::Shutdown;

fn configured(instances: &[(&str, &str, &str)]) -> Configured {
    let one = |&(name, slug, api_key): &(&str, &str, &str)| {
        let instance = config::Instance { slug: slug.into(), api_key: api_key.into(), accept_gateway_key: true };
        (name.to_owned(), instance)
    };
    instances.iter().map(one).collect()
}

#[test]
fn a_difference_names_what_came_and_went_and_each_setting_that_changed() {
    let before = configured(&[("a", "a", "k"), ("b", "b", "k"), ("c", "c", "k"), ("same", "same", "k")]);
    let mut after = configured(&[("b", "b2", "k2"), ("c", "c", "k"), ("d", "d", "k"), ("same", "same", "k")]);
    after.get_mut("c").unwrap().accept_gateway_key = false;
    let Difference { added, removed, changed } = Difference::between(&before, &after);
    assert_eq!((added, removed), (vec!["d".to_owned()], vec!["a".to_owned()]));
    assert_eq!(changed, ["b.slug", "b.api_key", "c.accept_gateway_key"]);
    assert_eq!(Difference::between(&after, &after), Difference::default());
}

/// A gateway with instances `a` to `e`, and a supervisor over it whose cache is returned too.
async fn supervisor(instances: Configured) -> (Simulator, Bridge, Arc<Supervisor>) {
    let known = ["a", "b", "c", "d", "e"].map(|slug| simulator::Instance { slug: slug.into(), api_key: "k".into() });
    let config = simulator::Config { instances: known.into(), ..simulator::Config::default() };
    let gateway = Simulator::start(config).await.unwrap();
    let cache = cache::Config { max_size: 1 << 20, min_age: Duration::ZERO, rules: BTreeMap::new(), store: None };
    let folder = scratch::folder();
    let context = Context {
        cache: Arc::new(Cache::new(cache)),
        journal: Journal::open(&journal::Config::new(folder, journal::Config::LEAST_KEEP).unwrap()).unwrap(),
        dialer: Dialer::tcp(gateway::client_config(None).unwrap()),
        runtimes: Runtimes::default(),
        subscribers: SubscriberLimit::new(9, 9),
        shutdown: Shutdown::new(),
    };
    let common = CommonSettings {
        gateway: gateway::Config { url: gateway.url(), ..gateway::Config::default() },
        max_wait: Duration::from_secs(1),
        pay_max_wait: Duration::from_secs(1),
        broadcasts: broadcasts::Config::default(),
        shutdown_grace: Duration::from_secs(11),
    };
    let bridge = Bridge::new(Vec::new(), &context.cache, &context.journal, context.shutdown.clone());
    let ledgers = Ledgers::new(budget::Config::default());
    let supervisor = Supervisor::begin(bridge.clone(), context, ledgers, common, instances).unwrap();
    (gateway, bridge, supervisor)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_of_the_new_instances_cannot_be_started_none_is_and_the_old_ones_go_on() {
    static STARTED: Mutex<Vec<Weak<Instance>>> = Mutex::new(Vec::new());
    let (gateway, bridge, supervisor) = supervisor(configured(&[("a", "a", "k"), ("b", "b", "k")])).await;
    let open = || gateway.counts().open();
    let patience = Instant::now() + Duration::from_secs(15);
    while open() < 4 || !bridge.has_gateway() {
        assert!(Instant::now() < patience, "its links are not open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut supervisor = Arc::into_inner(supervisor).unwrap();
    supervisor.start = |name, settings, rights, context| {
        if name == "e" {
            return Err(io::Error::other("no more randomness"));
        }
        let instance = Instance::start(name, settings, rights, context)?;
        STARTED.lock().push(Arc::downgrade(&instance));
        Ok(instance)
    };
    // One stays, one moves, one goes, two come.
    let refused = supervisor.prepare(&configured(&[("a", "c", "k"), ("d", "d", "k"), ("e", "e", "k")]));
    assert_eq!(refused.unwrap_err().to_string(), "no more randomness");
    supervisor.ended().await;
    let started = std::mem::take(&mut *STARTED.lock());
    let run = |one: &Weak<Instance>| one.upgrade().is_some_and(|one| !one.shutdown().refuses_new());
    assert_eq!((started.len(), started.iter().filter(|one| run(one)).count()), (2, 0), "those begun were stopped");
    assert_eq!(bridge.instances().names().collect::<Vec<_>>(), ["a", "b"]);
    let slugs: Vec<_> = bridge.instances().iter().map(|instance| instance.slug().to_owned()).collect();
    assert_eq!(slugs, ["a", "b"]);
    assert!(bridge.has_gateway(), "nothing happened to the old ones");
    while open() != 4 {
        assert!(Instant::now() < patience, "the links of the new ones stay open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
