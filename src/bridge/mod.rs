//! What the bridge does, free of HTTP and of sockets: [`Instance`] answers the use cases of one instance, [`Bridge`] is all of
//! them.

pub mod access;
pub mod attention;
pub mod attention_log;
mod dispatch;
pub mod error;
mod fair_acquire;
pub mod freshness;
mod instance;
mod instance_map;
pub mod metrics;
mod patience;
mod pay;
pub mod read;
mod reconciliation;
mod sale_details;
pub mod sales;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use error::Error;
pub use freshness::CacheDirectives;
#[cfg(test)]
pub use instance::Parts;
pub use instance::{Context, Instance, Settings};
pub use instance_map::InstanceMap;
pub use patience::Patience;
pub use pay::Paid;
pub use read::{Served, Status};
pub use status::{BridgeStatus, PaymentCounts};
use status::{CacheStatus, DiskStatus, ServiceState};

use crate::cache::Cache;
use crate::clock::{unix_ms_at, whole_ms};
use crate::journal::{Condition, Filter, Journal, Listed, Page, Record, RecordId, Verdict};
use crate::shutdown::Shutdown;

/// All instances that are served. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bridge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instances: ArcSwap<InstanceMap>,
    cache: Arc<Cache>,
    journal: Journal,
    shutdown: Shutdown,
    started: Instant,
    cordons_changed: Arc<Notify>,
}

impl Bridge {
    /// These instances, over one cache and one journal.
    #[must_use]
    pub fn new(instances: Vec<Arc<Instance>>, cache: &Arc<Cache>, journal: &Journal, shutdown: Shutdown) -> Self {
        let instances = ArcSwap::from_pointee(instances.into_iter().collect());
        let (cache, journal, started) = (Arc::clone(cache), journal.clone(), Instant::now());
        let cordons_changed = Arc::default();
        Self { shared: Arc::new(Shared { instances, cache, journal, shutdown, started, cordons_changed }) }
    }

    /// The instance of this name.
    pub fn instance(&self, name: &str) -> Result<Arc<Instance>, Error> {
        self.instances().get(name).cloned().ok_or(Error::UnknownInstance)
    }

    /// The instances that are served now. Cheap: no lock, and nothing is counted up. Not to be held across an await.
    #[must_use]
    pub fn instances(&self) -> Guard<Arc<InstanceMap>> {
        self.shared.instances.load()
    }

    /// Serves these instances from now on, and returns those that were served until now.
    #[must_use]
    pub fn replace(&self, instances: InstanceMap) -> Arc<InstanceMap> {
        self.shared.instances.swap(Arc::new(instances))
    }

    /// Whether there are records of payments of an instance, which may be one that is no longer served.
    pub async fn has_records(&self, instance: &str) -> Result<bool, Error> {
        let filter = Filter { instance: instance.to_owned(), limit: 1, ..Filter::default() };
        Ok(!self.shared.journal.list(filter).await?.records.is_empty())
    }

    /// The record of a payment of an instance, served or not.
    pub async fn payment(&self, instance: &str, id: RecordId) -> Result<Listed, Error> {
        let found = self.shared.journal.find(instance, id).await?;
        found.filter(|found| found.key().instance == instance).ok_or(Error::UnknownPayment)
    }

    /// A page of records of payments, newest first.
    pub async fn payments(&self, filter: Filter) -> Result<Page, Error> {
        Ok(self.shared.journal.list(filter).await?)
    }

    /// Settles an unknown payment by a person's decision.
    pub async fn settle(&self, instance: &str, id: RecordId, revision: u64, by: Verdict) -> Result<Record, Error> {
        match self.instance(instance) {
            Ok(served) => served.settle(id, revision, by).await,
            // Its links are closed, or will be soon; a late reply that still comes is recorded beside the decision.
            Err(_) => Ok(self.shared.journal.settle(id, revision, by).await?),
        }
    }

    /// Has every listener look again at whether it may listen.
    pub fn wake_listeners(&self) {
        for instance in self.instances().iter() {
            instance.broadcasts().wake();
        }
    }

    /// Whether a connection of every instance is open.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        let instances = self.instances();
        !instances.is_empty() && instances.iter().all(|instance| instance.is_connected())
    }

    /// Whether the gateway refuses the key or the licence of an instance.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.instances().iter().any(|instance| instance.is_denied())
    }

    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shared.shutdown
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.shutdown.is_requested()
    }

    /// Takes a shard out by hand for the instances that are `wanted`, or puts it back. The names of those instances; none
    /// where there is no such shard.
    #[must_use]
    pub fn cordon(&self, shard: &str, cordoned: bool, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let instances = self.instances();
        let concerned = instances.iter().filter(|instance| wanted(instance.name()));
        let done = concerned
            .filter(|instance| instance.cordon(shard, cordoned))
            .map(|instance| instance.name().to_string())
            .collect();
        self.shared.cordons_changed.notify_one();
        done
    }

    /// Notified when a shard was taken out by hand or put back: the owner after this one is to know it.
    #[must_use]
    pub fn cordons_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.cordons_changed)
    }

    /// Drains all instances at once; see [`Instance::drain`].
    pub async fn drain(&self) {
        let instances = self.shared.instances.load_full();
        join_all(instances.iter().map(|instance| instance.drain())).await;
    }

    /// Stops all instances at once; see [`Instance::stop`].
    pub async fn stop(&self) {
        let instances = self.shared.instances.load_full();
        join_all(instances.iter().map(|instance| instance.stop())).await;
    }

    /// The bridge at this moment. Instances for which `wanted` is false are left out, and with them whatever is told of all
    /// instances together.
    pub async fn overview(&self, wanted: impl Fn(&str) -> bool) -> BridgeStatus {
        let served = self.shared.instances.load_full();
        let whole = served.iter().all(|instance| wanted(instance.name()));
        let instances = served.iter().filter(|instance| wanted(instance.name()));
        let (copies, bytes) = self.shared.cache.size();
        let payments = self.payments_by_instance().await;
        let mut all = PaymentCounts::default();
        for (state, count) in payments.iter().flat_map(BTreeMap::values).flat_map(PaymentCounts::by_state) {
            all.add(state, count);
        }
        let has_payments = payments.is_some();
        let mut payments_by_instance = payments.unwrap_or_default();
        payments_by_instance.retain(|instance, _| whole || wanted(instance));
        BridgeStatus {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.shared.started.elapsed().as_secs(),
            state: if self.is_draining() { ServiceState::Draining } else { ServiceState::Serving },
            whole,
            instances: instances.map(|instance| instance.status()).collect(),
            cache: whole.then_some(CacheStatus { copies, bytes }),
            payments: (whole && has_payments).then_some(all),
            payments_by_instance,
            // The instances share their places.
            disk: Some(self.disk()),
            callers: None,
            cluster: None,
            subscribers: whole.then(|| served.iter().next().map_or(0, |one| one.broadcasts().listeners() as u64)),
        }
    }

    /// How the disks and the clock are doing.
    fn disk(&self) -> DiskStatus {
        let Shared { journal, cache, .. } = &*self.shared;
        let Condition { unwritable, slow, is_damaged, free_bytes, clock_step_ms } = journal.condition();
        let (journal_since, journal_fault) = unwritable.unzip();
        let (copies_since, copies_fault) = cache.store_fault().unzip();
        let (clock_step_at, clock_step_ms) = clock_step_ms.unzip();
        DiskStatus {
            journal_available: journal.is_available(),
            journal_damaged: is_damaged,
            journal_fault,
            journal_fault_since_ms: journal_since.map(unix_ms_at),
            slow_commit_ms: slow.map(whole_ms),
            free_bytes,
            copies_fault,
            copies_fault_since_ms: copies_since.map(unix_ms_at),
            clock_step_ms,
            clock_step_at_ms: clock_step_at.map(unix_ms_at),
        }
    }

    /// Payments by state of each instance that has any; `None` while the journal cannot tell.
    async fn payments_by_instance(&self) -> Option<BTreeMap<String, PaymentCounts>> {
        let mut counts: BTreeMap<String, PaymentCounts> = BTreeMap::new();
        for ((instance, state), count) in self.shared.journal.counts_by_instance().await.ok()? {
            counts.entry(instance).or_default().add(state, count);
        }
        Some(counts)
    }
}
