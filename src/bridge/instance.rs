//! One instance while it is served: connections, budget, reads, payments and broadcasts, and the tasks that drive them.
//!
//! [`Instance::start`] opens its connections; [`Instance::drain`] refuses what is new and waits for what was begun;
//! [`Instance::stop`] closes its connections. All three work while other instances go on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::access::Access;
use super::dispatch::{Dispatch, Once, Unfinished};
use super::error::Error;
use super::fair_acquire::{FairAcquire, Requester, Turn};
use super::freshness::CacheDirectives;
use super::metrics::Metrics;
use super::patience::Patience;
use super::pay::{End, Paid, Payments, Shown, Unpaid};
use super::read::{Ask, Reader, Served};
use super::sales::Sales;
use super::status::{InstanceMetrics, InstanceStatus};
use crate::broadcasts::relay::Relay;
use crate::broadcasts::{self, Broadcasts, Epoch, SubscriberLimit};
use crate::budget::{Class, Ledger, Quota, WindowStatus};
use crate::cache::{Cache, Key as CopyKey, PasswordKey, PlainKey};
use crate::clock::{RETRY_SHORTLY, unix_ms_at};
use crate::gateway::{self, Cause, Dialer, Pool, Priority, Runtimes};
use crate::journal::{Journal, Key, Record, RecordId, Sale, Verdict};
use crate::protocol::{Body, Command, Parameters, Spec, command};
use crate::shutdown::Shutdown;
use crate::tenure::Tenure;

/// The turn that the bridge's own reads take.
const OWN_TURN: &str = "bridge";

/// How long after a failure the licence is asked for again.
const LICENSE_RETRY: Duration = Duration::from_secs(30);

/// How one instance is served.
#[derive(Debug)]
pub struct Settings {
    /// Its name at the gateway.
    pub slug: String,
    /// The key that goes into every command.
    pub api_key: SecretString,
    pub gateway: gateway::Config,
    /// How long a read may wait for points.
    pub max_wait: Duration,
    /// How long a payment may wait before it is written.
    pub pay_max_wait: Duration,
    pub broadcasts: broadcasts::Config,
    /// Shards that are taken out by hand.
    pub cordoned: BTreeSet<String>,
}

/// What all instances share.
#[derive(Debug, Clone)]
pub struct Context {
    pub cache: Arc<Cache>,
    pub journal: Journal,
    pub dialer: Dialer,
    /// The threads on which connections live.
    pub runtimes: Runtimes,
    pub subscribers: SubscriberLimit,
    pub shutdown: Shutdown,
}

/// What an instance is made of.
#[derive(Debug)]
pub struct Parts {
    pub pool: Pool,
    pub ledger: Ledger,
    pub api_key: SecretString,
    pub max_wait: Duration,
    pub pay_max_wait: Duration,
    pub broadcasts: Broadcasts,
    /// None where nothing comes to the log but by hand.
    pub relay: Option<Arc<Relay>>,
}

/// One instance.
#[derive(Debug)]
pub struct Instance {
    name: Arc<str>,
    /// Its name at the gateway, by which the cache knows it too.
    slug: Arc<str>,
    dispatch: Arc<Dispatch>,
    reader: Arc<Reader>,
    cache: Arc<Cache>,
    pub(super) payments: Arc<Payments>,
    passwords: PasswordKey,
    /// The key at the gateway has changed.
    key_replaced: Notify,
    metrics: Metrics,
    sales: Arc<Sales>,
    pay_max_wait: Duration,
    broadcasts: Broadcasts,
    relay: Option<Arc<Relay>>,
    /// What no caller has asked for runs here.
    runtime: Handle,
    /// What must not be cut off: in a task of its own, on the thread that asks, which has links of its own.
    commands: TaskTracker,
    /// What drives the connections and the log, until the links are closed.
    drivers: TaskTracker,
    close_links: CancellationToken,
    shutdown: Shutdown,
}

impl Instance {
    /// Begins to open its connections and to serve, as long as `tenure` lasts. `ledger` knows what was spent: the first command
    /// may leave at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        name: &str,
        settings: Settings,
        rights: (Ledger, Tenure),
        context: &Context,
    ) -> std::io::Result<Arc<Self>> {
        let instance = Self::open(name, settings, rights, context)?;
        instance.serve();
        Ok(instance)
    }

    /// Begins to open its connections, and only keeps what they bring: until [`serve`](Self::serve) nothing is sent by itself and
    /// nothing is logged.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(
        name: &str,
        settings: Settings,
        (ledger, tenure): (Ledger, Tenure),
        context: &Context,
    ) -> std::io::Result<Arc<Self>> {
        let Settings { slug, api_key, gateway, max_wait, pay_max_wait, broadcasts: log, cordoned } = settings;
        let broadcasts = Broadcasts::new(Epoch::random()?, log.history, context.subscribers.clone());
        let (cache, patience) = (Arc::clone(&context.cache), gateway.longest_silence());
        let relay = Relay::new(tenure.clone(), (name, &slug), cache, broadcasts.clone(), log.skew, patience);
        relay.keep();
        let grace = gateway.request_timeout;
        let dialer = context.dialer.clone().under(tenure);
        let pool = Pool::new(gateway, name, &slug, dialer, relay.event_sink());
        let parts = Parts {
            pool: pool.clone(),
            ledger,
            api_key,
            max_wait,
            pay_max_wait,
            broadcasts: broadcasts.clone(),
            relay: Some(Arc::clone(&relay)),
        };
        let instance = Self::new(name, parts, &context.cache, &context.journal, &context.shutdown);
        // Nobody listened until now: copies that an earlier instance of this slug left may be out of date.
        context.cache.catalogue_changed(&instance.slug);
        for shard in &cordoned {
            // One that the gateway no longer has needs no cordon.
            let _ = instance.cordon(shard, true);
        }
        let tend = pool.tend(context.runtimes.clone(), instance.close_links.clone(), grace);
        instance.drivers.spawn(async {
            tokio::select! {
                () = tend => {}
                () = relay.run() => {}
            }
        });
        instance.drivers.spawn(async move { broadcasts.announce().await });
        Ok(instance)
    }

    /// Begins to serve, once it has what it begins with: logs what its connections brought, and asks what it keeps fresh by itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn serve(self: &Arc<Self>) {
        if let Some(relay) = &self.relay {
            relay.go_on();
        }
        let (license, reconciliation) = (Arc::clone(self), Arc::clone(self));
        self.drivers.spawn(async move { license.until_shutdown(license.keep_license()).await });
        self.drivers.spawn(async move {
            let gather =
                reconciliation.payments.reconciliation.gather(&reconciliation.runtime, &reconciliation.commands);
            reconciliation.until_shutdown(gather).await;
        });
    }

    /// An instance of these parts, which nothing drives.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(name: &str, parts: Parts, cache: &Arc<Cache>, journal: &Journal, shutdown: &Shutdown) -> Arc<Self> {
        let Parts { pool, ledger, api_key, max_wait, pay_max_wait, broadcasts, relay } = parts;
        let (name, cache, shutdown): (Arc<str>, _, _) = (Arc::from(name), Arc::clone(cache), shutdown.child());
        let (commands, passwords) = (TaskTracker::new(), PasswordKey::derived(&api_key));
        let slug = Arc::from(pool.slug());
        let (api_key, replaced) = (ArcSwap::from_pointee(api_key), AtomicU64::new(0));
        let dispatch = Arc::new(Dispatch {
            pool,
            ledger,
            api_key,
            access: Access::default(),
            replaced,
            max_wait,
            shutdown: shutdown.clone(),
        });
        let reader = Arc::new(Reader::new(Arc::clone(&dispatch), Arc::clone(&cache), commands.clone()));
        let of_cache = (Arc::clone(&cache), passwords.clone());
        let payments = Payments::new(Arc::clone(&dispatch), journal.clone(), of_cache, Arc::clone(&name));
        Arc::new(Self {
            name,
            slug,
            dispatch,
            reader,
            cache,
            payments: Arc::new(payments),
            passwords,
            key_replaced: Notify::new(),
            metrics: Metrics::default(),
            sales: Arc::default(),
            pay_max_wait,
            broadcasts,
            relay,
            runtime: Handle::current(),
            commands,
            drivers: TaskTracker::new(),
            close_links: CancellationToken::new(),
            shutdown,
        })
    }

    /// Refuses new commands, ends every stream of broadcasts once it has been sent what is logged, and waits for the commands
    /// under way. Bounded by what each of them is bounded by.
    pub async fn drain(&self) {
        self.refuse_new();
        self.commands.close();
        self.commands.wait().await;
    }

    /// Closes its connections, and returns once what late frames told of payments is recorded. Without
    /// [`drain`](Self::drain) before it, commands under way are cut off.
    pub async fn stop(&self) {
        self.refuse_new();
        self.close_links.cancel();
        self.drivers.close();
        self.drivers.wait().await;
        self.payments.late_frames_recorded().await;
    }

    /// Refuses new commands, and ends every stream of broadcasts once it has been sent what is logged.
    pub fn refuse_new(&self) {
        if !self.shutdown.is_requested() {
            self.shutdown.request();
        }
        self.shutdown.refuse_new();
        // Streams have no end of their own that could be waited for.
        self.broadcasts.close();
    }

    /// Gives no link to a command from now on, and returns once nothing is under way, or after `limit`. Its callers wait until
    /// its tenure is over.
    pub async fn quiesce(&self, limit: Duration) {
        self.dispatch.pool.hold(limit).await;
    }

    /// Returns once no late frame of a payment is awaited any more. To be called once [`drain`](Self::drain) has ended.
    pub async fn late_frames_heard(&self) {
        self.payments.late_frames_recorded().await;
    }

    async fn until_shutdown(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = self.shutdown.requested() => {}
            () = work => {}
        }
    }

    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its name at the gateway.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// How far it has come in stopping; it stops with the whole.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Answers a read: from a copy where one will do, else from one fetch that all who ask for the same share.
    pub async fn read(
        &self,
        spec: &'static Spec,
        parameters: Parameters,
        turn: &str,
        directives: CacheDirectives,
        patience: impl Into<Patience>,
    ) -> Result<Served, Error> {
        let patience = patience.into();
        let key = self.key(spec, &parameters);
        let command = Command::known(spec, parameters);
        let pos_id = key.pos_id.filter(|_| spec == &command::LISTTRANSACTIONS);
        let ask = Ask { spec, command, key, turn: Arc::from(turn), directives, patience };
        let outcome = self.reader.read(ask).await;
        self.metrics.answered(&outcome);
        if let (Some(pos_id), Ok(served)) = (pos_id, &outcome) {
            self.payments.reconciliation.note_reply(pos_id, &served.copy.body);
        }
        outcome
    }

    /// The answer to a read without wishes, where a fresh copy has it: at once, and without a command. Whether the
    /// caller is `admitted` is asked only where one has.
    pub fn lookup_fresh(
        &self,
        spec: &'static Spec,
        pos_id: Option<i64>,
        admitted: impl FnOnce() -> bool,
    ) -> Option<Served> {
        let key = PlainKey { instance: &self.slug, command: spec.name, pos_id };
        let served = Ok(self.reader.lookup_fresh(spec, &key).filter(|_| admitted())?);
        self.metrics.answered(&served);
        served.ok()
    }

    /// Asks a read or an upsert that is never kept, on another shard if the first fails, within `deadline`.
    pub async fn ask(&self, command: Command, turn: &str, deadline: Instant) -> Result<Body, Error> {
        let dispatch = Arc::clone(&self.dispatch);
        let turns = FairAcquire::of(Turn::new(Requester::Caller(Arc::from(turn)), dispatch.max_wait));
        // In a task, so that a caller who goes away does not take the command's points off the books too early.
        let work = async move { dispatch.repeatable(&command, &turns, deadline, || ()).await };
        self.commands.spawn(work.in_current_span()).await.unwrap_or(Err(Error::Timeout))
    }

    /// Sends a raw command: written once, never again, and run to its end even if the caller goes away.
    pub async fn send_once(&self, command: Command, turn: &str, deadline: Instant) -> Result<Body, Error> {
        let (dispatch, turn) = (Arc::clone(&self.dispatch), turn.to_owned());
        let write_by = deadline.min(Instant::now() + self.pay_max_wait);
        let work = async move {
            dispatch.begin()?;
            let once = Once { class: Class::Caller(&turn), caller: &turn, priority: Priority::Ordinary, write_by };
            let way = dispatch.way_once(&command, once).await?;
            let too_late = Error::Overloaded { retry_after: RETRY_SHORTLY };
            match dispatch.write_once(&command, way, once, too_late).await {
                Ok(body) => Ok(body),
                Err(Unfinished::NotWritten(error)) => Err(error),
                Err(Unfinished::Refused(refusal)) => Err(dispatch.refused(&command, refusal.error)),
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
        let task = self.commands.spawn(work.in_current_span());
        match timeout_at(deadline, task).await {
            Ok(Ok(outcome)) => outcome,
            // It runs on; or it panicked, and nobody knows how far it got.
            Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown { gateway: None, payment: None }),
        }
    }

    /// Books a sale under its key, at most once; or says what became of the sale that the key names. Runs to its end
    /// and is recorded even if the caller goes away.
    pub async fn pay(&self, key: Key, sale: Sale, command: Command, deadline: Instant) -> Result<Paid, Error> {
        self.pay_or_wait(key, sale, command, deadline, None).await.0
    }

    /// The same; where the same sale is under way under the key, waits for its end until `wait_until`. Says whether it waited.
    /// That sends nothing, however the payment ends: a refusal is this caller's answer too.
    pub async fn pay_or_wait(
        &self,
        key: Key,
        sale: Sale,
        command: Command,
        deadline: Instant,
        wait_until: Option<Instant>,
    ) -> (Result<Paid, Error>, bool) {
        match (self.ask_to_pay(key, sale, command, deadline).await, wait_until) {
            (Err(Unpaid::UnderWay(Some(end))), Some(until)) => {
                // Here and in no task: a caller that goes away while it waits leaves nothing behind.
                let ended = end.by(until.min(deadline)).await;
                (ended.unwrap_or_else(|| Err(Unpaid::UnderWay(None).into())), true)
            }
            (asked, _) => (asked.map_err(Error::from), false),
        }
    }

    async fn ask_to_pay(&self, key: Key, sale: Sale, command: Command, deadline: Instant) -> Result<Paid, Unpaid> {
        let write_by = deadline.min(Instant::now() + self.pay_max_wait);
        let shown = Shown::default();
        // Decided now, and kept: a sale that came before the bridge refused new ones is not refused for what it waits for
        // meanwhile, such as the disk. The stopping bridge waits from here on.
        let waited_for = self.commands.token();
        let may_begin = self.dispatch.begin();
        let (ending, end) = End::new();
        let work = Arc::clone(&self.payments).pay(key, sale, command, may_begin, (write_by, Arc::clone(&shown)), end);
        // Counted as it ended, and told to those who repeat it, whether or not its caller is still there.
        let sales = Arc::clone(&self.sales);
        let work = async move {
            let asked = work.await;
            sales.ended(asked.as_ref(), Instant::now());
            ending.tell(&asked);
            asked
        };
        let task = self.commands.spawn(work.in_current_span());
        drop(waited_for);
        match (timeout_at(deadline, task).await, shown.get()) {
            (Ok(Ok(outcome)), _) => outcome,
            // It runs on; or it panicked, and nobody knows how far it got.
            (_, Some(id)) => Err(Error::OutcomeUnknown { gateway: None, payment: Some(id.to_string()) }.into()),
            // It has not been written, and is too late to be.
            (_, None) => Err(Error::Overloaded { retry_after: RETRY_SHORTLY }.into()),
        }
    }

    /// Settles an unknown payment by a person's decision.
    pub async fn settle(&self, id: RecordId, revision: u64, verdict: Verdict) -> Result<Record, Error> {
        Ok(self.payments.settle(id, revision, verdict).await?)
    }

    /// A command's budget, for the `RateLimit` headers.
    #[must_use]
    pub fn quota(&self, command: &str) -> Quota {
        self.dispatch.ledger.budget(command)
    }

    /// Opens a command that the gateway closed, and says how its budget stands; none where there is no such command.
    #[must_use]
    pub fn open_budget(&self, command: &str) -> Option<WindowStatus> {
        self.dispatch.ledger.open(command)
    }

    /// Its broadcasts, to listen to.
    #[must_use]
    pub fn broadcasts(&self) -> &Broadcasts {
        &self.broadcasts
    }

    /// What takes events of its connections to its log; none where nothing drives it.
    #[must_use]
    pub fn relay(&self) -> Option<&Arc<Relay>> {
        self.relay.as_ref()
    }

    /// What it spends.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.dispatch.ledger
    }

    /// Tells which shards are taken out by hand.
    pub fn cordons(&self) -> impl Fn() -> BTreeSet<String> + Send + Sync + 'static {
        let pool = self.dispatch.pool.clone();
        move || pool.cordoned()
    }

    /// Tells when something last came on each of its connections.
    pub fn heard(&self) -> impl Fn() -> HashMap<u64, Instant> + Send + Sync + 'static {
        let pool = self.dispatch.pool.clone();
        move || pool.heard()
    }

    /// Commands written from now on carry this key at the gateway. A new one is tried at once: what was refused to the former
    /// one is forgotten and asked again.
    pub fn replace_key(&self, api_key: &SecretString) {
        let before = self.dispatch.api_key_number();
        self.dispatch.replace_key(api_key);
        if self.dispatch.api_key_number() != before {
            self.key_replaced.notify_one();
            self.payments.reconciliation.retry_now();
            self.dispatch.pool.retry_now();
        }
    }

    /// Whether a connection is open.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.dispatch.pool.is_connected()
    }

    /// Whether a connection is open, or may soon be.
    #[must_use]
    pub fn has_prospect(&self) -> bool {
        self.dispatch.pool.has_prospect()
    }

    /// Until when it may act.
    #[must_use]
    pub fn tenure(&self) -> &Tenure {
        self.dispatch.pool.tenure()
    }

    /// Whether the gateway refuses its key or its licence.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.dispatch.access.is_denied()
    }

    /// The shards that are taken out by hand.
    #[must_use]
    pub fn cordoned(&self) -> BTreeSet<String> {
        self.dispatch.pool.cordoned()
    }

    /// Takes a shard out by hand, or puts it back; false where there is no such shard.
    #[must_use]
    pub fn cordon(&self, shard: &str, cordoned: bool) -> bool {
        self.dispatch.pool.cordon(shard, cordoned)
    }

    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        let (pool, now) = (self.dispatch.pool.status(), Instant::now());
        InstanceStatus {
            instance: self.name.to_string(),
            waiting: pool.waiting,
            shards: pool.shards,
            budgets: self.dispatch.ledger.status(),
            contradictions: self.payments.contradictions(),
            unlinked_since_ms: pool.unlinked_since.map(unix_ms_at),
            denied: self.dispatch.access.denied(),
            sales: self.sales.last_minute(now),
            asks: self.dispatch.ledger.metrics().last_minute(now),
            exchanges: self.dispatch.pool.metrics().last_minute(now),
            in_use: self.dispatch.pool.metrics().is_in_use(),
        }
    }

    /// What it has counted since the start.
    #[must_use]
    pub fn metrics(&self) -> InstanceMetrics<'_> {
        InstanceMetrics {
            gateway: self.dispatch.pool.metrics(),
            budget: self.dispatch.ledger.metrics(),
            reads: &self.metrics,
            sales: &self.sales,
            contradictions: self.payments.contradictions(),
        }
    }

    /// Keeps the licence fresh, so that no caller ever waits for it: it is asked for once at start and then by its own
    /// rhythm, and again with each new key.
    async fn keep_license(&self) {
        let Some(rule) = self.cache.rule("getlicense") else { return };
        let mut directives = CacheDirectives::default();
        loop {
            let deadline = Instant::now() + LICENSE_RETRY;
            let spec = &command::GETLICENSE;
            let parameters = Parameters::default();
            let served = self.read(spec, parameters, OWN_TURN, directives, deadline).await;
            let is_denied = self.dispatch.access.is_denied();
            let fresh_for = match served.map(|served| served.status.ttl_s) {
                // A fetch has no `ttl` of its own: it is as fresh as its rule says.
                Ok(None) => rule.fresh,
                Ok(Some(ttl_s)) => Duration::from_secs(u64::try_from(ttl_s).unwrap_or_default()),
                Err(_) => Duration::ZERO,
            };
            let pause = license_pause(is_denied, fresh_for);
            // A copy would not tell whether the gateway takes the key.
            let anew = CacheDirectives { no_cache: true, ..CacheDirectives::default() };
            tokio::select! {
                () = sleep(pause) => directives = if is_denied { anew } else { CacheDirectives::default() },
                () = self.key_replaced.notified() => directives = anew,
                () = self.dispatch.access.refused.notified() => directives = anew,
            }
        }
    }

    /// What the reply to a read is a copy of.
    fn key(&self, spec: &'static Spec, parameters: &Parameters) -> CopyKey {
        CopyKey::new(&self.slug, spec, parameters, &self.passwords)
    }
}

/// What was refused may have been mended at the gateway, however long a copy of the licence would be fresh.
fn license_pause(is_denied: bool, fresh_for: Duration) -> Duration {
    if is_denied { LICENSE_RETRY } else { fresh_for.max(LICENSE_RETRY) }
}

#[cfg(test)]
mod tests;
