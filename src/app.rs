//! The composition root: knows everybody, builds upward, drains downward.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{Bridge, Context as InstanceContext};
use crate::broadcasts::SubscriberLimit;
use crate::budget::snapshot::{self, Clocks};
use crate::budget::{Ledgers, Sent};
use crate::cache::Cache;
use crate::cache::store::Store;
use crate::cluster::{self, Directory, Replica};
use crate::config::{Cluster, Config};
use crate::database;
use crate::gateway::{self, Dialer, Runtimes};
use crate::http;
use crate::http::auth::Auth;
use crate::http::forwarding::Forwarding;
use crate::http::listener::tls::Certificates;
use crate::http::server::{Listeners, Parts, ServerHandle, Servers};
use crate::journal::{self, Journal, PostgresConfig};
use crate::reload::Reload;
use crate::shutdown::Shutdown;
use crate::supervisor::owned::Owned;
use crate::supervisor::{CommonSettings, SessionStates, Supervisor};
use crate::tenure::Tenures;

/// How long one of several replicas tries to hand over what it owns before it stops, beyond what its next owners take to
/// prepare. Past it, others take that with the end of its session.
const HAND_OVER: Duration = Duration::from_secs(5);

/// How long links may take to say goodbye once everything else has ended.
const GOODBYES: Duration = Duration::from_secs(2);

/// Instances without a link that the status line names.
const NAMED: usize = 3;

/// A bridge that listens and has begun to open its connections.
pub struct App {
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    journal: Journal,
    servers: Servers,
    reload: Reload,
    runtimes: Runtimes,
    shutdown: Shutdown,
    /// Ends what serves the instances, once nothing needs it any more.
    close: CancellationToken,
    tasks: TaskTracker,
    shutdown_delay: Duration,
    shutdown_grace: Duration,
    /// Its part among several.
    replica: Option<Arc<Replica>>,
}

/// What makes a bridge one of several replicas.
#[derive(Debug)]
pub struct Among {
    /// Where the others pass requests on.
    pub cluster: TcpListener,
    pub forwarding: Forwarding,
    /// The instances that it serves of those that are configured.
    pub owned: Vec<String>,
}

impl App {
    /// Builds everything and binds the listener. Connections to the gateway are opened in the background: the bridge
    /// serves problems rather than nothing while the gateway is away.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(config: Config, shutdown: Shutdown) -> anyhow::Result<Self> {
        // Never as one bridge beside another: both would book under the same key.
        ensure!(config.cluster.is_none(), "one of several replicas is started with the database");
        Self::build_among(config, shutdown, None)
    }

    /// Whether it may serve under this configuration, which has no fault in itself. Reads the disk.
    pub fn check(config: &Config) -> anyhow::Result<()> {
        if config.cluster.is_none() {
            return Ok(());
        }
        let directory = config.payments.directory();
        let records = journal::records_in(directory)?;
        let place = directory.display();
        ensure!(
            records == 0,
            "[cluster]: the payment journal in {place} holds {records} records that are not in the database, where each of \
             their keys would be new: carry them over with `concertpos-bridge migrate --import {place}`"
        );
        Ok(())
    }

    /// Builds the bridge as its configuration has it: the only one, or one of several replicas, which owns nothing yet. Waits
    /// for the database.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(mut config: Config, shutdown: Shutdown) -> anyhow::Result<Self> {
        let Some(cluster) = config.cluster.take() else { return Self::build(config, shutdown) };
        let tenures = Tenures::default();
        let journal = tokio::select! {
            opened = open_shared(&config, &cluster, &tenures) => opened?,
            () = shutdown.requested() => bail!("stopped before the database answered"),
        };
        let (Cluster { database, replicas }, directory) = (cluster, Directory::default());
        let forwarding = Forwarding::new(&replicas, directory.clone()).map_err(|why| anyhow!("cluster: {why}"))?;
        let among = Among { cluster: listen(replicas.listen)?, forwarding, owned: Vec::new() };
        let mut app = Self::assemble(config, shutdown, Some(among), Some((journal, tenures, database.clone())))?;
        let host = Arc::new(Owned(Arc::clone(&app.reload.supervisor)));
        let parts = cluster::Parts { config: replicas, database, host, directory };
        let replica = Arc::new(Replica::begin(parts));
        let (supervisor, listing) = (Arc::clone(&app.reload.supervisor), Arc::clone(&replica));
        let relist = async move {
            loop {
                supervisor.relisted().await;
                listing.relist();
            }
        };
        app.tasks.spawn(app.close.clone().run_until_cancelled_owned(relist));
        app.replica = Some(replica);
        Ok(app)
    }

    /// The same as one of several, where that is given.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build_among(config: Config, shutdown: Shutdown, among: Option<Among>) -> anyhow::Result<Self> {
        Self::assemble(config, shutdown, among, None)
    }

    /// `shared`: the payments of all replicas, and the tenures of what this one owns; none where all that is configured is
    /// served.
    fn assemble(
        mut config: Config,
        shutdown: Shutdown,
        among: Option<Among>,
        shared: Option<(Journal, Tenures, database::Config)>,
    ) -> anyhow::Result<Self> {
        let gateway_keys = config.accepted_gateway_keys();
        let auth = Auth::new(&config.auth, &gateway_keys)
            .map_err(|refusals| anyhow!(refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
        let tls = gateway::client_config(config.gateway.ca_file.as_deref()).map_err(|why| anyhow!(why))?;
        let dialer = Dialer::tcp(tls);
        let certificates = config.server.tls.as_ref().map(Certificates::read).transpose();
        let certificates = certificates.map_err(|why| anyhow!(why))?.map(Arc::new);
        let (callers, admin) = (listen(config.server.listen)?, config.server.admin_listen.map(listen).transpose()?);
        let (cluster, forwarding, owned) = match among {
            None => (None, None, None),
            Some(Among { cluster, forwarding, owned }) => (Some(cluster), Some(forwarding), Some(owned)),
        };
        if shared.is_none() {
            config.instances.retain(|name, _| owned.as_ref().is_none_or(|owned| owned.contains(name)));
        }
        let addr = callers.local_addr()?;
        let admin_addr = admin.as_ref().map(TcpListener::local_addr).transpose()?;

        let (tasks, close) = (TaskTracker::new(), CancellationToken::new());
        let (journal, tenures, database) = match shared {
            Some((journal, tenures, database)) => (journal, Some(tenures), Some(database)),
            None => (Journal::open(&config.payments)?, None, None),
        };
        // Copies on this disk are older than what another owner may have sold since.
        let store = config.cache.store.as_deref().filter(|_| tenures.is_none()).map(Store::open).transpose()?;
        let cache = Arc::new(Cache::new(config.cache));
        if let Some(store) = store {
            let copies = store.load(&cache);
            tracing::info!(copies, "begun with the copies of an earlier run");
            tasks.spawn(store.keep(Arc::clone(&cache), close.clone().cancelled_owned()));
        }
        let runtimes = Runtimes::expecting(http::workers());
        let ledgers = Ledgers::new(config.limits.clone());
        // Held until the instances hold them.
        let held: Vec<_> = config.instances.iter().map(|(name, one)| ledgers.of(name, &one.slug)).collect();
        // What an owner spent is of no use to this machine once another owned the instance.
        if tenures.is_none() {
            let folder = config.payments.directory();
            let (found, spending) = snapshot::begin(folder, ledgers.clone(), Clocks::of_the_machine(), |since_ms| {
                sent_since(&journal, since_ms)
            })
            .with_context(|| format!("what was spent cannot be kept in {}", folder.display()))?;
            say(&found);
            // Told to stop once the last exchange has ended, so that nothing is in flight any more.
            tasks.spawn(spending.keep(close.clone().cancelled_owned()));
        }
        let bridge = Bridge::new(Vec::new(), &cache, &journal, shutdown.clone());
        let history = config.events.history;
        let states = database
            .map(|database| SessionStates::new(database, Arc::clone(&cache), history, bridge.cordons_changed()));
        let context = InstanceContext {
            cache,
            journal: journal.clone(),
            dialer,
            runtimes: runtimes.clone(),
            subscribers: SubscriberLimit::new(config.events.max_subscribers, config.events.max_listeners),
            shutdown: shutdown.clone(),
        };
        let (shutdown_delay, shutdown_grace) = (config.server.shutdown_delay, config.server.shutdown_grace);
        let common = CommonSettings {
            gateway: config.gateway,
            max_wait: config.limits.max_wait,
            pay_max_wait: config.limits.pay_max_wait,
            broadcasts: config.events,
            shutdown_grace,
            tenures,
            states,
        };
        let supervisor = Supervisor::begin(bridge.clone(), context, ledgers, common, config.instances)?;
        drop(held);
        let auth = Arc::new(auth);
        let reload = Reload {
            bridge: bridge.clone(),
            supervisor,
            auth: Arc::clone(&auth),
            certificates: certificates.clone(),
            is_local: config.server.listen.ip().is_loopback(),
        };
        let parts = Parts { bridge: bridge.clone(), auth, config: config.server.http, certificates, forwarding };
        let registry = runtimes.clone();
        let servers = http::run(Listeners { callers, admin, cluster }, parts, move || registry.register())?;
        let watch = Arc::clone(&servers.state.connections).watch();
        tasks.spawn(close.clone().run_until_cancelled_owned(watch));
        let (keys, listeners) = (Arc::clone(&servers.state.auth), bridge.clone());
        let tending = async move { keys.tend_keys(move || listeners.wake_listeners()).await };
        tasks.spawn(close.clone().run_until_cancelled_owned(tending));
        let state = servers.state.clone();
        tasks.spawn(close.clone().run_until_cancelled_owned(async move { state.log_attention().await }));
        let bridge = Self {
            addr,
            admin_addr,
            journal,
            servers,
            reload,
            runtimes,
            shutdown,
            close,
            tasks,
            shutdown_delay,
            shutdown_grace,
            replica: None,
        };
        Ok(bridge)
    }

    /// Where callers are served.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where metrics and probes are served without a token.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// What can be replaced while it runs.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// What a service manager is to know of it.
    #[must_use]
    pub fn health(&self) -> Health {
        Health { runtimes: self.runtimes.clone(), bridge: self.reload.bridge.clone() }
    }

    /// Serves until the drain begins, then stops in order: not ready but serving for `shutdown_delay`, then nothing
    /// new, then nothing under way, then no links, and the server last. A second request to stop cuts that short with an
    /// error.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { addr, admin_addr, journal, servers, shutdown, .. } = self;
        let Self { close, tasks, reload, shutdown_delay, shutdown_grace, replica, .. } = self;
        let handle = servers.callers.handle();
        let mut serving = tokio::spawn(servers.callers.serve());
        // Ends last: whoever watches wants to see the end too.
        let admin = servers.admin.map(|server| (server.handle(), tokio::spawn(server.serve())));
        let admin_addr = admin_addr.map(tracing::field::display);
        tracing::info!(%addr, admin_addr, version = env!("CARGO_PKG_VERSION"), "listening");
        tokio::select! {
            ended = &mut serving => {
                return ended?.context("the server ended by itself");
            }
            () = shutdown.requested() => {}
        }
        tracing::info!("draining");
        let stop = async {
            let handed_over = async {
                if let Some(replica) = &replica {
                    replica.hand_over(HAND_OVER).await;
                }
            };
            tokio::join!(sleep(shutdown_delay), handed_over);
            shutdown.refuse_new();
            let in_order = stop_in_order(&handle, &reload, &close, &tasks);
            let cut_off = timeout(shutdown_grace + GOODBYES, in_order).await.is_err();
            if let Some(replica) = &replica {
                replica.end().await;
            }
            journal.close().await;
            if let Some((admin, _)) = admin {
                admin.stop(false).await;
            }
            if cut_off {
                tracing::warn!("what was still under way was cut off by the shutdown grace");
            }
        };
        tokio::select! {
            () = stop => {
                tracing::info!("stopped");
                Ok(())
            }
            () = shutdown.forced() => Err(anyhow!("stopped without waiting for what was under way")),
        }
    }
}

/// Whether a bridge makes progress, and its state in one line.
#[derive(Debug, Clone)]
pub struct Health {
    runtimes: Runtimes,
    bridge: Bridge,
}

impl Health {
    /// Resolves once the threads that serve callers have started.
    pub async fn started(&self) {
        self.runtimes.registered().await;
    }

    /// Resolves once every thread that serves callers has taken a turn. The disk is no part of it: cached replies are served
    /// without one, and a restart would not mend it.
    pub async fn progress(&self) {
        self.runtimes.all_respond().await;
    }

    /// How many instances are served, and which of them have no link. Waits for the lock of each pool of links, so it does not
    /// return where one is never released.
    #[must_use]
    pub fn line(&self) -> String {
        let instances = self.bridge.instances();
        let without: Vec<_> = instances.iter().filter(|one| !one.is_connected()).map(|one| &**one.name()).collect();
        let served = instances.iter().count();
        let plural = if served == 1 { "" } else { "s" };
        let named = without.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        match without.len() {
            0 => format!("Serving {served} instance{plural}"),
            few if few <= NAMED => format!("Serving {served} instance{plural}; no link to the gateway: {named}"),
            many => {
                format!("Serving {served} instance{plural}; no link to the gateway: {named} and {} more", many - NAMED)
            }
        }
    }
}

/// The payments of all replicas, in a database whose schema is brought up to date where this replica is to do that.
async fn open_shared(config: &Config, cluster: &Cluster, tenures: &Tenures) -> anyhow::Result<Journal> {
    let Cluster { database, replicas } = cluster;
    if replicas.migrate {
        database::migrate(database).await.context("the schema of the database cannot be brought up to date")?;
    }
    let gateway = &config.gateway;
    let unsettled = replicas.lease + gateway.request_timeout + gateway.late_patience;
    let shared = PostgresConfig::new(database.clone(), config.payments.keep(), tenures.clone(), unsettled);
    Ok(Journal::open_postgres(shared.in_place_of(config.payments.directory())).await?)
}

/// Payments that the gateway may have counted since then; none where the journal cannot be read, which it says itself.
fn sent_since(journal: &Journal, since_ms: i64) -> Option<Vec<Sent>> {
    let sent = journal.sent_since(since_ms).ok()?;
    Some(sent.into_iter().map(|(instance, at_ms)| Sent { instance, at_ms }).collect())
}

/// Tells how the count of what was spent was found, where that costs a window.
fn say(found: &snapshot::Found) {
    let reason = match found {
        snapshot::Found::Absent | snapshot::Found::Counted => return,
        snapshot::Found::Incomplete => "the last end was not in order, or limits.scope has changed",
        snapshot::Found::WithoutBootId => "the system does not show its boot id (/proc/sys/kernel/random/boot_id)",
        snapshot::Found::Unreadable(reason) => reason,
    };
    tracing::warn!(reason, "what was spent is not known: all commands but payments count as spent for one window");
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}

async fn stop_in_order(server: &ServerHandle, reload: &Reload, close: &CancellationToken, tasks: &TaskTracker) {
    let Reload { bridge, supervisor, .. } = reload;
    // A reload that had begun has ended then, and none begins any more: what it started is drained with the others.
    drop(supervisor.in_force().await);
    // Connections to the gateway live on the server's threads, so those end last. Until then callers are told that it is
    // shutting down.
    tokio::join!(bridge.drain(), supervisor.ended());
    close.cancel();
    tasks.close();
    tokio::join!(bridge.stop(), tasks.wait());
    server.stop(true).await;
}
