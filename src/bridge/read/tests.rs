//! One fetch for all who ask, whatever becomes of whoever began it.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::budget::Ledger;
use crate::cache;
use crate::gateway::{self, EventSink, Pool};
use crate::protocol::Retention;
use crate::protocol::{Parameters, command};
use crate::shutdown::Shutdown;
use concertpos_simulator::{Action, Config, Fault, Simulator};

/// A reader over a simulated gateway.
fn reader(gateway: &Simulator) -> (Arc<Reader>, CancellationToken) {
    let config = gateway::Config { url: gateway.url(), ..gateway::Config::default() };
    let dialer = gateway::Dialer::tcp(gateway::client_config(None).unwrap());
    let pool = Pool::new(config, "demo", "demo", dialer, EventSink(Arc::new(|_| {})));
    let stop = CancellationToken::new();
    tokio::spawn(pool.clone().tend(gateway::Runtimes::default(), stop.clone(), Duration::from_secs(1)));
    let dispatch = Dispatch {
        pool,
        ledger: Ledger::new(crate::budget::Config::default()),
        api_key: arc_swap::ArcSwap::from_pointee("demo-key".into()),
        access: crate::bridge::access::Access::default(),
        replaced: std::sync::atomic::AtomicU64::new(0),
        max_wait: Duration::from_secs(2),
        shutdown: Shutdown::new(),
    };
    let rule = Retention { fresh: Duration::from_mins(1), stale: Duration::from_mins(1) };
    let rules = BTreeMap::from([("getconfig".to_owned(), rule)]);
    let cache = cache::Config { max_size: 1 << 20, min_age: Duration::ZERO, rules, store: None };
    let cache = Arc::new(Cache::new(cache));
    (Arc::new(Reader::new(Arc::new(dispatch), cache, TaskTracker::new())), stop)
}

fn ask() -> Ask {
    Ask {
        spec: &command::GETCONFIG,
        command: Command::known(&command::GETCONFIG, Parameters::default()),
        key: PlainKey { instance: &"demo".into(), command: "getconfig", pos_id: None }.key(),
        turn: "shop".into(),
        directives: CacheDirectives::default(),
        patience: (Instant::now() + Duration::from_secs(10)).into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_panics_takes_no_follower_along() {
    let gateway = Simulator::start(Config::default()).await.unwrap();
    gateway.add_fault(Fault::new(Action::Latency { ms: 300 }).on("getconfig"));
    let (reader, stop) = reader(&gateway);
    let received = || gateway.counts().command("getconfig").received;
    let leader = {
        let reader = Arc::clone(&reader);
        tokio::spawn(async move {
            let read = reader.read(ask());
            let misfortune = async {
                while reader.fetches().is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = read => {}
                () = misfortune => panic!("as this test wants it"),
            }
        })
    };
    assert!(leader.await.unwrap_err().is_panic());
    let followers: Vec<_> = (0..100)
        .map(|_| {
            let reader = Arc::clone(&reader);
            tokio::spawn(async move { reader.read(ask()).await })
        })
        .collect();
    for follower in followers {
        let served = follower.await.unwrap().unwrap();
        assert!(served.copy.body.as_str().contains("Config"));
    }
    assert_eq!(received(), 1);
    assert!(reader.fetches().is_empty(), "nothing is left of the fetch");
    stop.cancel();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_began_that_went_away_after_the_write_goes_on_for_whoever_asks_next() {
    let gateway = Simulator::start(Config::default()).await.unwrap();
    gateway.add_fault(Fault::new(Action::Latency { ms: 300 }).on("getconfig"));
    let (reader, stop) = reader(&gateway);
    let received = || gateway.counts().command("getconfig").received;
    let is_out = async {
        while received() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = reader.read(ask()) => panic!("the reply takes longer"),
        () = is_out => {}
    }
    assert_eq!(reader.tasks.len(), 1, "it is waited for at the end");
    let served = reader.read(ask()).await.unwrap();
    assert!(served.status.collapsed && served.copy.body.as_str().contains("Config"), "{served:?}");
    assert_eq!(received(), 1);
    assert!(reader.fetches().is_empty(), "nothing is left of the fetch");
    stop.cancel();
    gateway.stop().await;
}
