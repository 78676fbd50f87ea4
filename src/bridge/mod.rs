//! The bridge itself: one method a use case, free of HTTP and of sockets.

mod dispatch;
pub mod error;
mod fair_acquire;
pub mod freshness;
mod pay;
pub mod read;
mod reconciliation;
pub mod status;
pub mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use dispatch::{Dispatch, Unfinished};
pub use error::Error;
use fair_acquire::{FairAcquire, Requester};
pub use freshness::CacheDirectives;
pub use pay::Paid;
use pay::{Payments, Shown};
use read::{Ask, Reader};
pub use read::{Served, Status};
pub use status::{BridgeStatus, InstanceStatus, PaymentCounts};
use tally::Answers;

use crate::broadcasts::Broadcasts;
use crate::budget::{Ledger, Quota, WindowStatus};
use crate::cache::{Cache, Key as CopyKey, PasswordKey, PlainKey};
use crate::clock::RETRY_SHORTLY;
use crate::gateway::{Cause, Pool};
use crate::journal::{Filter, Journal, Key, Listed, Page, Record, RecordId, Sale, Verdict};
use crate::protocol::{Body, Command, Parameters, Spec, command};
use crate::shutdown::Shutdown;

/// The turn that the bridge's own reads take.
const OWN_TURN: &str = "bridge";

/// How long after a failure the licence is asked for again.
const LICENSE_RETRY: Duration = Duration::from_secs(30);

/// Answers use cases for all configured instances. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bridge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instances: BTreeMap<String, Arc<Instance>>,
    cache: Arc<Cache>,
    journal: Journal,
    shutdown: Shutdown,
    runtime: Handle,
    tasks: TaskTracker,
    started: Instant,
}

/// One instance's room in the bridge.
#[derive(Debug)]
struct Instance {
    name: Arc<str>,
    dispatch: Arc<Dispatch>,
    reader: Arc<Reader>,
    cache: Arc<Cache>,
    payments: Arc<Payments>,
    passwords: PasswordKey,
    answers: Answers,
    pay_max_wait: Duration,
    broadcasts: Broadcasts,
}

/// What the bridge needs to serve one instance.
#[derive(Debug)]
pub struct InstanceParts {
    /// Its connections.
    pub pool: Pool,
    /// Its budget at the gateway.
    pub ledger: Ledger,
    /// The key that goes into every command.
    pub api_key: SecretString,
    /// How long a read may wait for points.
    pub max_wait: Duration,
    /// How long a payment may wait before it is written.
    pub pay_max_wait: Duration,
    /// What was broadcast, and who listens.
    pub broadcasts: Broadcasts,
}

impl Bridge {
    /// A bridge for these instances, by name, over one cache. Work that must outlive its caller runs on the runtime
    /// this is called on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(
        instances: BTreeMap<String, InstanceParts>,
        cache: &Arc<Cache>,
        journal: &Journal,
        shutdown: Shutdown,
    ) -> Self {
        let (runtime, tasks) = (Handle::current(), TaskTracker::new());
        let instance = |name: &str, parts: InstanceParts| {
            let InstanceParts { pool, ledger, api_key, max_wait, pay_max_wait, broadcasts } = parts;
            let passwords = PasswordKey::derived(&api_key);
            let api_key = ArcSwap::from_pointee(api_key);
            let (replaced, shutdown) = (AtomicU64::new(0), shutdown.clone());
            let dispatch = Arc::new(Dispatch { pool, ledger, api_key, replaced, max_wait, shutdown });
            let reader = Reader::new(Arc::clone(&dispatch), Arc::clone(cache), tasks.clone());
            let (name, reader, cache): (Arc<str>, _, _) = (Arc::from(name), Arc::new(reader), Arc::clone(cache));
            let payments = Payments::new(Arc::clone(&dispatch), journal.clone(), Arc::clone(&cache), Arc::clone(&name));
            let (payments, answers) = (Arc::new(payments), Answers::default());
            Arc::new(Instance { name, dispatch, reader, cache, payments, passwords, answers, pay_max_wait, broadcasts })
        };
        let instances = instances
            .into_iter()
            .map(|(name, parts)| {
                let instance = instance(&name, parts);
                (name, instance)
            })
            .collect();
        let (cache, journal, started) = (Arc::clone(cache), journal.clone(), Instant::now());
        Self { shared: Arc::new(Shared { instances, cache, journal, shutdown, runtime, tasks, started }) }
    }

    /// Gives an instance another key at the gateway. Commands written from now on carry it. False where there is
    /// no such instance.
    #[must_use]
    pub fn replace_key(&self, instance: &str, api_key: &SecretString) -> bool {
        let Some(instance) = self.shared.instances.get(instance) else { return false };
        instance.dispatch.replace_key(api_key);
        true
    }

    /// The configured instances, in order of name.
    #[must_use]
    pub fn instances(&self) -> Vec<String> {
        self.shared.instances.keys().cloned().collect()
    }

    /// Answers a read: from a copy where one will do, else from one fetch that all who ask for the same share.
    pub async fn read(
        &self,
        instance: &str,
        spec: &'static Spec,
        parameters: Parameters,
        turn: &str,
        directives: CacheDirectives,
        deadline: Instant,
    ) -> Result<Served, Error> {
        let instance = self.instance(instance)?;
        let key = instance.key(spec, &parameters);
        let command = Command::known(spec, parameters);
        let pos_id = key.pos_id.filter(|_| spec == &command::LISTTRANSACTIONS);
        let ask = Ask { spec, command, key, turn: Arc::from(turn), directives, deadline };
        let outcome = instance.reader.read(ask).await;
        instance.answers.note(&outcome);
        if let (Some(pos_id), Ok(served)) = (pos_id, &outcome) {
            instance.payments.reconciliation.passed_by(pos_id, &served.copy.body);
        }
        outcome
    }

    /// The answer to a read without wishes, where a fresh copy has it: at once, and without a command. Whether the
    /// caller is `admitted` is asked only where one has.
    pub fn lookup_fresh(
        &self,
        instance: &str,
        spec: &'static Spec,
        pos_id: Option<i64>,
        admitted: impl FnOnce() -> bool,
    ) -> Option<Served> {
        let instance = self.shared.instances.get(instance)?;
        let key = PlainKey { instance: &instance.name, command: spec.name, pos_id };
        let served = Ok(instance.reader.lookup_fresh(spec, &key).filter(|_| admitted())?);
        instance.answers.note(&served);
        served.ok()
    }

    /// Counts an answer that was at hand and was given.
    pub fn answered_at_hand(&self, instance: &str) {
        if let Some(instance) = self.shared.instances.get(instance) {
            instance.answers.note_hit();
        }
    }

    /// Asks a read or an upsert that is never kept, on another shard if the first fails, within `deadline`.
    pub async fn ask(&self, instance: &str, command: Command, turn: &str, deadline: Instant) -> Result<Body, Error> {
        let dispatch = Arc::clone(&self.instance(instance)?.dispatch);
        let turns = FairAcquire::of(Requester::Caller(Arc::from(turn)));
        // In a task, so that a caller who goes away does not take the command's points off the books too early.
        let work = async move { dispatch.repeatable(&command, &turns, deadline, || ()).await };
        self.shared.tasks.spawn_on(work.in_current_span(), &self.shared.runtime).await.unwrap_or(Err(Error::Timeout))
    }

    /// Sends a raw command: written once, never again, and run to its end even if the caller goes away.
    pub async fn send_once(
        &self,
        instance: &str,
        command: Command,
        turn: &str,
        deadline: Instant,
    ) -> Result<Body, Error> {
        let instance = self.instance(instance)?;
        let (dispatch, turn) = (Arc::clone(&instance.dispatch), turn.to_owned());
        let write_by = deadline.min(Instant::now() + instance.pay_max_wait);
        let work = async move {
            match dispatch.once(&command, &turn, write_by).await {
                Ok(body) => Ok(body),
                Err(Unfinished::Nothing(error)) => Err(error),
                Err(Unfinished::Unknown(lost)) => {
                    let gateway = if let Cause::Word(error) = lost.cause { Some(error) } else { None };
                    Err(Error::OutcomeUnknown { gateway, payment: None })
                }
            }
        };
        self.carry_out(work, deadline).await
    }

    /// Runs what must run to its end, and answers by `deadline` whether or not it has.
    async fn carry_out<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
        deadline: Instant,
    ) -> Result<T, Error> {
        let task = self.shared.tasks.spawn_on(work.in_current_span(), &self.shared.runtime);
        match timeout_at(deadline, task).await {
            Ok(Ok(outcome)) => outcome,
            // It runs on; or it panicked, and nobody knows how far it got.
            Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown { gateway: None, payment: None }),
        }
    }

    /// Books a sale under its key, at most once; or says what became of the sale that the key names. Runs to its end
    /// and is recorded even if the caller goes away.
    pub async fn pay(
        &self,
        instance: &str,
        key: Key,
        sale: Sale,
        command: Command,
        deadline: Instant,
    ) -> Result<Paid, Error> {
        let instance = self.instance(instance)?;
        let write_by = deadline.min(Instant::now() + instance.pay_max_wait);
        let shown = Shown::default();
        // Decided now, and kept: a sale that came before the bridge refused new ones is not refused for what it waits for
        // meanwhile, such as the disk. The stopping bridge waits from here on.
        let waited_for = self.shared.tasks.token();
        let may_begin = instance.dispatch.begin();
        let work = Arc::clone(&instance.payments).pay(key, sale, command, may_begin, (write_by, Arc::clone(&shown)));
        let task = self.shared.tasks.spawn_on(work.in_current_span(), &self.shared.runtime);
        drop(waited_for);
        match (timeout_at(deadline, task).await, shown.get()) {
            (Ok(Ok(outcome)), _) => outcome,
            // It runs on; or it panicked, and nobody knows how far it got.
            (_, Some(id)) => Err(Error::OutcomeUnknown { gateway: None, payment: Some(id.to_string()) }),
            // It has not been written, and is too late to be.
            (_, None) => Err(Error::Overloaded { retry_after: RETRY_SHORTLY }),
        }
    }

    /// The record of a payment of this instance.
    pub async fn payment(&self, instance: &str, id: RecordId) -> Result<Listed, Error> {
        let instance = self.instance(instance)?;
        let found = instance.payments.journal.look_up(&instance.name, id).await?;
        found.filter(|found| found.key().instance == *instance.name).ok_or(Error::UnknownPayment)
    }

    /// A page of records of payments, newest first.
    pub async fn payments(&self, instance: &str, filter: Filter) -> Result<Page, Error> {
        Ok(self.instance(instance)?.payments.journal.list(filter).await?)
    }

    /// Settles an unknown payment by a person's decision.
    pub async fn settle(&self, instance: &str, id: RecordId, revision: u64, verdict: Verdict) -> Result<Record, Error> {
        Ok(self.instance(instance)?.payments.settle(id, revision, verdict).await?)
    }

    /// Keeps the licence of every instance fresh until the drain begins, so that no caller ever waits for it: it is
    /// asked for once at start and then by its own rhythm.
    pub async fn keep_licenses(self) {
        let keepers = self.shared.instances.keys().map(|name| self.keep_license(name));
        let shutdown = self.shared.shutdown.clone();
        tokio::select! {
            () = shutdown.requested() => {}
            () = async { drop(futures_util::future::join_all(keepers).await) } => {}
        }
    }

    /// Gathers evidence about payments of unknown outcome until the drain begins.
    pub async fn gather_evidence(self) {
        let Shared { instances, shutdown, runtime, tasks, .. } = &*self.shared;
        let gatherers = instances.values().map(|instance| instance.payments.reconciliation.gather(runtime, tasks));
        tokio::select! {
            () = shutdown.requested() => {}
            () = async { drop(futures_util::future::join_all(gatherers).await) } => {}
        }
    }

    async fn keep_license(&self, instance: &str) {
        let Some(rule) = self.shared.instances.get(instance).and_then(|one| one.cache.rule("getlicense")) else {
            return;
        };
        loop {
            let deadline = Instant::now() + LICENSE_RETRY;
            let spec = &command::GETLICENSE;
            let parameters = Parameters::default();
            let served = self.read(instance, spec, parameters, OWN_TURN, CacheDirectives::default(), deadline).await;
            let pause = match served.map(|served| served.status.ttl_s) {
                // A fetch has no `ttl` of its own: it is as fresh as its rule says.
                Ok(None) => rule.fresh,
                Ok(Some(ttl_s)) => Duration::from_secs(u64::try_from(ttl_s).unwrap_or_default()),
                Err(_) => Duration::ZERO,
            };
            sleep(pause.max(LICENSE_RETRY)).await;
        }
    }

    /// A command's budget, for the `RateLimit` headers.
    #[must_use]
    pub fn quota(&self, instance: &str, command: &str) -> Option<Quota> {
        Some(self.shared.instances.get(instance)?.dispatch.ledger.budget(command))
    }

    /// Opens a command that the gateway closed, and says how its budget stands; none where there is no such command.
    pub fn open_budget(&self, instance: &str, command: &str) -> Result<Option<WindowStatus>, Error> {
        Ok(self.instance(instance)?.dispatch.ledger.open(command))
    }

    /// An instance's broadcasts, to listen to.
    pub fn broadcasts(&self, instance: &str) -> Result<&Broadcasts, Error> {
        Ok(&self.instance(instance)?.broadcasts)
    }

    /// Has every listener look again at whether it may listen.
    pub fn wake_listeners(&self) {
        for instance in self.shared.instances.values() {
            instance.broadcasts.wake();
        }
    }

    /// Ends every stream once it has heard what is logged, and refuses new ones.
    pub fn close_broadcasts(&self) {
        for instance in self.shared.instances.values() {
            instance.broadcasts.close();
        }
    }

    /// Whether a connection of every instance is open.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        let mut pools = self.shared.instances.values().map(|instance| &instance.dispatch.pool);
        !self.shared.instances.is_empty() && pools.all(Pool::is_connected)
    }

    /// The program's wish to stop.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shared.shutdown
    }

    /// Whether the bridge has begun to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.shutdown.is_requested()
    }

    /// Takes a shard out by hand for the instances that are `wanted`, or puts it back. The names of those instances; none
    /// where there is no such shard.
    #[must_use]
    pub fn cordon(&self, shard: &str, cordoned: bool, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let concerned = self.shared.instances.iter().filter(|(name, _)| wanted(name));
        let done = concerned.filter(|(_, instance)| instance.dispatch.pool.cordon(shard, cordoned));
        done.map(|(name, _)| name.clone()).collect()
    }

    /// Waits for everything that must not be cut off. Bounded by what each of them is bounded by.
    pub async fn finished(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Waits until what late frames told of payments is recorded. To be called once the links are closed.
    pub async fn late_frames_recorded(&self) {
        for instance in self.shared.instances.values() {
            instance.payments.late_frames_recorded().await;
        }
    }

    fn instance(&self, name: &str) -> Result<&Arc<Instance>, Error> {
        self.shared.instances.get(name).ok_or(Error::UnknownInstance)
    }
}

impl Instance {
    /// What the reply to a read is a copy of.
    fn key(&self, spec: &'static Spec, parameters: &Parameters) -> CopyKey {
        let given = |name| parameters.get(name).map(serde_json::value::RawValue::get);
        let password: Option<String> = given("posPassword").and_then(|raw| serde_json::from_str(raw).ok());
        CopyKey {
            limit: given("Limit").and_then(|raw| raw.parse().ok()),
            password: password.map(|password| self.passwords.hash(&password)),
            ..CopyKey::plain(&self.name, spec, given("POSID").and_then(|raw| raw.parse().ok()))
        }
    }
}
