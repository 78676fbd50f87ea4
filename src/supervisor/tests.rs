//! What is decided before anything is touched. Reloads of the whole bridge are in `tests/reload.rs`.

use std::sync::Weak;

use concertpos_simulator::{self as simulator, Action, Fault, Simulator};

use parking_lot::Mutex;

use super::owned::Owned;
use super::*;
use crate::broadcasts::SubscriberLimit;
use crate::budget;
use crate::cache::{self, Cache};
use crate::cluster::Host;
use crate::gateway::{Dialer, Runtimes};
use crate::journal::{self, Filter, Journal, Key, Sale, State};
use crate::protocol::{Command, Parameters, command};
use crate::scratch;
use crate::shutdown::Shutdown;
use crate::tenure::{Lease, SessionId, boot_time};

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

/// A gateway with instances `a` to `e`, and a supervisor over it.
async fn supervisor(instances: Configured) -> (Simulator, Bridge, Arc<Supervisor>) {
    supervisor_with(instances, false).await
}

async fn supervisor_with(instances: Configured, only_owned: bool) -> (Simulator, Bridge, Arc<Supervisor>) {
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
        gateway: gateway::Config {
            url: gateway.url(),
            request_timeout: Duration::from_secs(1),
            ..gateway::Config::default()
        },
        max_wait: Duration::from_secs(1),
        pay_max_wait: Duration::from_secs(1),
        broadcasts: broadcasts::Config::default(),
        shutdown_grace: Duration::from_secs(11),
        tenures: only_owned.then(Tenures::default),
        states: None,
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
    supervisor.open = |name, settings, rights, context| {
        if name == "e" {
            return Err(io::Error::other("no more randomness"));
        }
        let instance = Instance::open(name, settings, rights, context)?;
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

fn lease() -> Lease {
    let lease = Lease::of(SessionId::random().unwrap());
    lease.extend_to(boot_time() + Duration::from_hours(1));
    lease
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(15), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn names(bridge: &Bridge) -> Vec<String> {
    bridge.instances().names().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_owned_is_served_with_full_windows_under_one_tenure_at_a_time() {
    let lease = lease();
    let all = configured(&[("a", "a", "k"), ("b", "b", "k")]);
    let (gateway, bridge, supervisor) = supervisor_with(all, true).await;
    let host = Owned(Arc::clone(&supervisor));
    assert!(names(&bridge).is_empty() && !host.reaches_gateway("a"));
    let listed: Vec<_> = host.configured().into_iter().map(|listed| listed.name.to_string()).collect();
    assert_eq!(listed, ["a", "b"]);
    assert!(host.begin("none", Tenure::new(&lease, 1)).await.is_err());

    let tenure = Tenure::new(&lease, 1);
    host.begin("a", tenure.clone()).await.unwrap();
    assert_eq!(names(&bridge), ["a"]);
    let first = bridge.instance("a").unwrap();
    let remaining = |command: &str| first.quota(command).remaining;
    assert_eq!(remaining("getconfig"), 0, "nobody knows what was spent");
    assert!(remaining("payitems") > 0, "payments are counted by their records");
    eventually("it has its links", async || first.is_connected()).await;

    // Lost, and claimed again.
    tenure.release();
    let again = Tenure::new(&lease, 3);
    host.begin("a", again.clone()).await.unwrap();
    assert!(bridge.instance("a").unwrap().tenure().is(&again));
    assert!(!Arc::ptr_eq(&first, &bridge.instance("a").unwrap()));
    eventually("the links of the earlier tenure are closed", async || gateway.counts().open() == 2).await;

    host.end("a").await;
    assert!(!again.may_act() && names(&bridge).is_empty());
    eventually("nothing is open", async || gateway.counts().open() == 0).await;
    host.end("a").await;
    supervisor.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_is_listed_and_what_is_owned_keeps_its_tenure() {
    let (lease, all) = (lease(), configured(&[("a", "a", "k"), ("b", "b", "k")]));
    let (_gateway, bridge, supervisor) = supervisor_with(all, true).await;
    let host = Owned(Arc::clone(&supervisor));
    let digest = |name: &str| host.configured().into_iter().find(|one| &*one.name == name).map(|one| one.digest);
    let before = digest("a");
    for (name, epoch) in [("a", 1), ("b", 2)] {
        host.begin(name, Tenure::new(&lease, epoch)).await.unwrap();
    }
    // One moves, one goes, one comes.
    let next = configured(&[("a", "c", "k"), ("d", "d", "k")]);
    let prepared = supervisor.prepare(&next).unwrap();
    let mut in_force = supervisor.in_force().await;
    supervisor.commit(&mut in_force, next, prepared);
    drop(in_force);
    assert_eq!(names(&bridge), ["a"]);
    let moved = bridge.instance("a").unwrap();
    assert_eq!((moved.slug(), moved.tenure().token()), ("c", Some((lease.session(), 1))));
    assert!(digest("a") != before && digest("b").is_none() && digest("d").is_some());
    supervisor.context.shutdown.refuse_new();
    supervisor.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_reach_the_gateway_by_different_names_have_the_same_settings() {
    let all = || configured(&[("a", "a", "k")]);
    let (one, _, first) = supervisor_with(all(), true).await;
    let (other, _, second) = supervisor_with(all(), true).await;
    assert_ne!(one.url(), other.url());
    assert_eq!(Owned(first).configured(), Owned(second).configured());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_for_a_payment_is_recorded_by_the_owner_of_before() {
    let (lease, all) = (lease(), configured(&[("a", "a", "k")]));
    let (gateway, bridge, supervisor) = supervisor_with(all, true).await;
    let host = Owned(Arc::clone(&supervisor));
    host.begin("a", Tenure::new(&lease, 1)).await.unwrap();
    let instance = bridge.instance("a").unwrap();
    eventually("it has its links", async || instance.is_connected()).await;
    // Answered later than the request timeout.
    gateway.add_fault(Fault::new(Action::Latency { ms: 1_500 }).on("payitems"));
    let key = Key { instance: "a".into(), caller: "shop".into(), idempotency_key: "k".into() };
    let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 1)] };
    let body = br#"{"POSID":1,"PaymentMethod":1,"Products":[{"ID":1,"Amount":1}]}"#;
    let command = Command::known(&command::PAYITEMS, Parameters::parse(body).unwrap());
    let paying = {
        let instance = Arc::clone(&instance);
        tokio::spawn(async move { instance.pay(key, sale, command, Instant::now() + Duration::from_secs(9)).await })
    };
    eventually("it was written", async || gateway.counts().command("payitems").received == 1).await;
    instance.quiesce(Duration::from_millis(10)).await;
    host.end("a").await;
    assert!(matches!(paying.await.unwrap(), Err(bridge::Error::OutcomeUnknown { .. })), "it ends where it was begun");
    let filter = || Filter { instance: "a".into(), limit: 1, ..Filter::default() };
    eventually("the late reply is recorded", async || {
        let page = bridge.payments(filter()).await.unwrap();
        matches!(page.records.first(), Some(journal::Listed::Record(record)) if record.state() == State::Booked)
    })
    .await;
    supervisor.ended().await;
}
