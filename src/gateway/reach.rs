//! Whether shards can be reached, as all instances together find out.
//!
//! A name that does not resolve, or a connection, TLS handshake or upgrade that fails, concerns every instance that would
//! connect to that shard, so it is recorded once for all: two hundred instances that each found out for themselves would
//! flood a gateway that is down. A bad shard is tried by one instance at a time, after pauses that all of them keep, and the
//! first success opens it to all. What the gateway says about an instance once it is connected stays with that instance's pool
//! ([`super::shard`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::Fault;
use super::shard::Health;

/// The health of all shards. Cheap to clone; all clones share one table.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    shared: Arc<ReachTable>,
}

#[derive(Debug)]
struct ReachTable {
    shards: Mutex<BTreeMap<String, SharedHealth>>,
    /// Changes whenever a shard that could not be dialled may be.
    changed: watch::Sender<()>,
}

/// One shard as it is shared by all.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedHealth {
    pub(super) health: Health,
    /// Why it cannot be reached.
    pub(super) fault: Option<Fault>,
    /// Whether an instance is trying it; no other may meanwhile.
    pub(super) on_trial: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { shared: Arc::new(ReachTable { shards: Mutex::default(), changed: watch::Sender::new(()) }) }
    }
}

impl Reach {
    fn shards(&self) -> MutexGuard<'_, BTreeMap<String, SharedHealth>> {
        self.shared.shards.lock()
    }

    /// Changes whenever a shard may be dialled that could not be.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// What is known of a shard.
    pub(super) fn of(&self, shard: &str) -> SharedHealth {
        self.shards().get(shard).cloned().unwrap_or_default()
    }

    /// Permission to dial a shard now. None for a bad one that an instance is trying, or whose pause is not over.
    pub(super) fn begin(&self, shard: &str, now: Instant) -> Option<ReachAttempt> {
        let mut shards = self.shards();
        let trial = match shards.get_mut(shard).filter(|known| !known.health.is_good()) {
            Some(bad) if bad.on_trial || !bad.health.may_dial(now, 0) => return None,
            Some(bad) => {
                bad.on_trial = true;
                true
            }
            None => false,
        };
        Some(ReachAttempt { reach: self.clone(), shard: shard.to_owned(), begun: now, trial })
    }
}

/// An attempt to reach a shard. One that is dropped has shared out nothing.
#[derive(Debug)]
pub(super) struct ReachAttempt {
    reach: Reach,
    shard: String,
    begun: Instant,
    trial: bool,
}

impl ReachAttempt {
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    pub(super) fn succeeded(self) {
        // A good shard needs no entry.
        self.reach.shards().remove(&self.shard);
    }

    /// The shard was not reached, for this reason; see [`Health::dial_failed`].
    pub(super) fn failed(self, now: Instant, jitter: f64, fault: Fault, hung: bool) {
        let mut shards = self.reach.shards();
        let known = shards.entry(self.shard.clone()).or_default();
        known.health.dial_failed(now, self.begun, jitter, hung);
        known.fault = Some(fault);
    }
}

impl Drop for ReachAttempt {
    fn drop(&mut self) {
        if self.trial {
            if let Some(known) = self.reach.shards().get_mut(&self.shard) {
                known.on_trial = false;
            }
            self.reach.shared.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::time::sleep;
    use tokio_util::sync::CancellationToken;

    use super::super::dialer::Stream;
    use super::super::error::FaultKind;
    use super::super::{Config, Dial, Dialer, EventSink, Pool, Runtimes, client_config};
    use super::*;
    use concertpos_simulator::{self as simulator, Simulator};

    const SHARD: &str = "exon";

    /// What the network does with an attempt to connect.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Network {
        Connects,
        Refuses,
        Hangs,
    }

    /// The way to a simulated gateway, which counts attempts.
    #[derive(Debug, Clone)]
    struct Way {
        gateway: Arc<Simulator>,
        network: Arc<Mutex<Network>>,
        dials: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Dial for Way {
        async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn Stream>> {
            self.dials.fetch_add(1, Ordering::Relaxed);
            let network = *self.network.lock();
            match network {
                Network::Hangs => std::future::pending().await,
                Network::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
                Network::Connects => {
                    let (near, far) = tokio::io::duplex(4096);
                    tokio::spawn(self.gateway.serve(far));
                    Ok(Box::new(near))
                }
            }
        }
    }

    impl Way {
        fn new(network: Network) -> Self {
            let gateway = Arc::new(Simulator::without_listener(simulator::Config::default()).unwrap());
            Self { gateway, network: Arc::new(Mutex::new(network)), dials: Arc::default() }
        }

        /// Pools of these names at the gateway, which share one way and are tended until `stop`.
        fn pools(&self, slugs: &[&str], stop: &CancellationToken) -> Vec<Pool> {
            let dialer = Dialer::over(self.clone(), client_config(None).unwrap());
            let tended = |slug: &&str| {
                let config = Config { url: self.gateway.url(), ..Config::default() };
                let pool = Pool::new(config, slug, slug, dialer.clone(), EventSink(Arc::new(|_| {})));
                tokio::spawn(pool.clone().tend(Runtimes::default(), stop.clone(), Duration::ZERO));
                pool
            };
            slugs.iter().map(tended).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_instances_dial_a_dead_gateway_a_few_times_a_second_and_all_are_back_soon_after_it_is() {
        let (way, stop) = (Way::new(Network::Refuses), CancellationToken::new());
        let pools = way.pools(&["demo"; 200], &stop);
        sleep(Duration::from_secs(10)).await;
        let before = way.dials.load(Ordering::Relaxed);
        sleep(Duration::from_secs(30)).await;
        let dials = way.dials.load(Ordering::Relaxed) - before;
        assert!((30..=90).contains(&dials), "{dials} attempts in 30 s on three shards");
        assert!(pools.iter().all(|pool| pool.status().shards.iter().all(|shard| !shard.good)), "all know it");
        *way.network.lock() = Network::Connects;
        sleep(Duration::from_secs(5)).await;
        assert!(pools.iter().all(Pool::is_connected));
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_gateway_says_about_an_instance_costs_the_others_nothing() {
        let (way, stop) = (Way::new(Network::Connects), CancellationToken::new());
        let pools = way.pools(&["nobody-there", "demo"], &stop);
        sleep(Duration::from_secs(30)).await;
        let bad = |pool: &Pool| pool.status().shards.iter().filter(|shard| !shard.good).count();
        assert_eq!((bad(&pools[0]), pools[0].is_connected()), (3, false), "{:?}", pools[0].status());
        assert_eq!((bad(&pools[1]), pools[1].is_connected()), (0, true), "{:?}", pools[1].status());
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_was_refused_is_dialled_at_once_when_what_was_refused_may_have_been_mended() {
        let (way, stop) = (Way::new(Network::Connects), CancellationToken::new());
        let pools = way.pools(&["nobody-there"], &stop);
        sleep(Duration::from_secs(30)).await;
        let dials = || way.dials.load(Ordering::Relaxed);
        // The pauses are long by now.
        let before = dials();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(dials(), before);
        pools[0].retry_now();
        sleep(Duration::from_millis(1)).await;
        assert!(dials() > before, "{} attempts", dials());
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_does_not_hold_up_the_end() {
        let (way, stop) = (Way::new(Network::Hangs), CancellationToken::new());
        let dialer = Dialer::over(way.clone(), client_config(None).unwrap());
        let pool = Pool::new(Config::default(), "demo", "demo", dialer, EventSink(Arc::new(|_| {})));
        let tending = tokio::spawn(pool.tend(Runtimes::default(), stop.clone(), Duration::from_secs(5)));
        sleep(Duration::from_millis(100)).await;
        assert!(way.dials.load(Ordering::Relaxed) > 0);
        let begun = Instant::now();
        stop.cancel();
        tending.await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    }

    fn fault(at: Instant) -> Fault {
        Fault { words: "refused".to_owned(), kind: FaultKind::Other, at }
    }

    #[test]
    fn a_bad_shard_is_tried_by_one_at_a_time_and_the_first_success_opens_it_to_all() {
        let (reach, now) = (Reach::default(), Instant::now());
        let mut changes = reach.changes();
        let (one, other) = (reach.begin(SHARD, now).unwrap(), reach.begin(SHARD, now).unwrap());
        one.failed(now, 1.0, fault(now), false);
        let shared = reach.of(SHARD);
        assert_eq!((shared.health.failures(), shared.fault), (1, Some(fault(now))));
        assert!(reach.begin(SHARD, now).is_none(), "its pause is not over");
        other.failed(now, 1.0, fault(now), false);
        assert_eq!(reach.of(SHARD).health.failures(), 1, "two that were under way together are one failure");
        let later = now + Duration::from_secs(1);
        let trial = reach.begin(SHARD, later).unwrap();
        assert!(reach.of(SHARD).on_trial && reach.begin(SHARD, later).is_none());
        assert!(reach.begin("zeus", later).is_some(), "another shard is another matter");
        assert!(!changes.has_changed().unwrap());
        trial.succeeded();
        assert!(changes.has_changed().unwrap() && !reach.of(SHARD).on_trial);
        changes.mark_unchanged();
        assert!(reach.of(SHARD).health.is_good());
        assert!(reach.begin(SHARD, later).is_some() && reach.begin(SHARD, later).is_some());
    }

    #[test]
    fn a_trial_that_is_given_up_lets_the_next_one_try() {
        let (reach, now) = (Reach::default(), Instant::now());
        let changes = reach.changes();
        reach.begin(SHARD, now).unwrap().failed(now, 0.0, fault(now), false);
        let later = now + Duration::from_secs(1);
        drop(reach.begin(SHARD, later).unwrap());
        assert!(changes.has_changed().unwrap());
        assert_eq!(reach.of(SHARD).health.failures(), 1, "nothing was shared out");
        assert!(reach.begin(SHARD, later).is_some());
    }
}
