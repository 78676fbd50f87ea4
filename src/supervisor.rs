//! Which instances are served: starts those that a configuration adds, and retires those that it no longer has.
//!
//! An instance whose slug changes is retired, and another is started in its place; every other change leaves it running. All new
//! instances are started before one of the old is touched, so that a fault leaves everything as it was, and requests find one
//! or the other. A retired instance is drained as at the end of the program, and then all that is kept of it in memory is
//! dropped; what it spent is counted as long as the gateway counts it ([`Ledgers`]), and its payments stay in the journal.
//!
//! With several replicas nothing is started for being configured: what this replica owns is, under the tenure of the claim
//! ([`crate::cluster::Host`]). The configuration says what it could own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::bridge::{self, Bridge, Context, Instance, InstanceMap};
use crate::broadcasts;
use crate::budget::{Ledger, Ledgers};
use crate::cluster::Listed;
use crate::config;
use crate::gateway;
use crate::tenure::{Tenure, Tenures};

mod opened;
pub(crate) mod owned;
mod readings;
mod session_states;

use self::opened::Opened;
use self::readings::{Readings, SentByInstance};
pub(crate) use self::session_states::SessionStates;

/// Instances by name, as they are configured.
pub(crate) type Configured = BTreeMap<String, config::Instance>;

/// How an instance is opened: [`Instance::open`], but for tests.
type Open = fn(&str, bridge::Settings, (Ledger, Tenure), &Context) -> io::Result<Arc<Instance>>;

/// The settings that all instances have in common. They are those of the start.
#[derive(Debug)]
pub(crate) struct CommonSettings {
    pub(crate) gateway: gateway::Config,
    pub(crate) max_wait: Duration,
    pub(crate) pay_max_wait: Duration,
    pub(crate) broadcasts: broadcasts::Config,
    /// How long what is under way at a retired instance may take.
    pub(crate) shutdown_grace: Duration,
    /// With several replicas: what this one owns, which is served, and nothing for being configured.
    pub(crate) tenures: Option<Tenures>,
    /// With several replicas over a database: what outlives an owner.
    pub(crate) states: Option<SessionStates>,
}

/// What a configuration changes in the instances: names, and where an instance stays, `NAME.SETTING`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Difference {
    pub(crate) fn between(before: &Configured, after: &Configured) -> Self {
        let missing = |these: &Configured, there: &Configured| {
            these.keys().filter(|name| !there.contains_key(*name)).cloned().collect()
        };
        let both = after.iter().filter_map(|(name, now)| Some((name, before.get(name)?, now)));
        let changed = both.flat_map(|(name, then, now)| {
            let settings = [
                ("slug", then.slug != now.slug),
                ("api_key", then.api_key.expose_secret() != now.api_key.expose_secret()),
                ("accept_gateway_key", then.accept_gateway_key != now.accept_gateway_key),
            ];
            settings.into_iter().filter(|(_, differs)| *differs).map(move |(setting, _)| format!("{name}.{setting}"))
        });
        Self { added: missing(after, before), removed: missing(before, after), changed: changed.collect() }
    }
}

/// What is in force; locked while it is changed.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    pub(crate) instances: Configured,
    /// The slugs of instances that are being retired, each as often as there are.
    retiring: Vec<String>,
}

/// Instances for a configuration that is not in force yet. Whoever drops it leaves those running that were started for it.
#[derive(Debug)]
#[must_use = "what was started for it runs"]
pub(crate) struct Prepared(InstanceMap);

#[derive(Debug)]
pub(crate) struct Supervisor {
    bridge: Bridge,
    context: Context,
    ledgers: Ledgers,
    common: CommonSettings,
    open: Open,
    /// What could be served here.
    listed: RwLock<Vec<Listed>>,
    relisted: Notify,
    /// Payments that the gateway may still count: many instances are claimed at once.
    sent: Readings<Option<SentByInstance>>,
    /// What is open here and owned elsewhere.
    prepared: parking_lot::Mutex<BTreeMap<String, Opened>>,
    in_force: Mutex<InForce>,
    retiring: TaskTracker,
    /// Retired instances end here, whoever asked for it.
    runtime: Handle,
}

impl Supervisor {
    /// Starts `instances`, which `bridge` serves from then on; where only what is owned is served, nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn begin(
        bridge: Bridge,
        context: Context,
        ledgers: Ledgers,
        common: CommonSettings,
        instances: Configured,
    ) -> io::Result<Arc<Self>> {
        let listed = RwLock::new(listed(&common, &ledgers, &instances));
        let supervisor = Self {
            bridge,
            context,
            ledgers,
            common,
            open: Instance::open,
            listed,
            relisted: Notify::new(),
            sent: Readings::default(),
            prepared: parking_lot::Mutex::default(),
            in_force: Mutex::default(),
            retiring: TaskTracker::new(),
            runtime: Handle::current(),
        };
        let prepared = supervisor.prepare(&instances)?;
        let _ = supervisor.bridge.replace(prepared.0);
        let in_force = Mutex::new(InForce { instances, retiring: Vec::new() });
        Ok(Arc::new(Self { in_force, ..supervisor }))
    }

    /// What is in force, once no other change is under way.
    pub(crate) async fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().await
    }

    /// Resolves once what could be served here has changed.
    pub(crate) async fn relisted(&self) {
        self.relisted.notified().await;
    }

    /// The gateway's shards.
    pub(crate) fn shards(&self) -> &[String] {
        &self.common.gateway.shards
    }

    /// Starts what of `next` does not run yet; where only what is owned is served, what runs under another slug. Where one cannot be started,
    /// none is.
    pub(crate) fn prepare(&self, next: &Configured) -> io::Result<Prepared> {
        let served = self.bridge.instances();
        let cordoned_everywhere = served.cordoned();
        let (mut instances, mut started) = (Vec::new(), Vec::new());
        for (name, configured) in next {
            let known = served.get(name);
            if let Some(same) = known.filter(|known| known.slug() == configured.slug) {
                instances.push(Arc::clone(same));
                continue;
            }
            if known.is_none() && self.common.tenures.is_some() {
                continue;
            }
            let cordoned = known.map_or_else(|| cordoned_everywhere.clone(), |known| known.cordoned());
            let tenure = known.map_or_else(Tenure::unlimited, |known| known.tenure().clone());
            match self.open(name, configured, cordoned, tenure) {
                Ok(new) => {
                    new.serve();
                    started.push(new);
                }
                Err(fault) => {
                    self.discard(started);
                    return Err(fault);
                }
            }
        }
        let instances = instances.into_iter().chain(started).collect();
        Ok(Prepared(instances))
    }

    fn open(
        &self,
        name: &str,
        instance: &config::Instance,
        cordoned: BTreeSet<String>,
        tenure: Tenure,
    ) -> io::Result<Arc<Instance>> {
        let settings = bridge::Settings {
            slug: instance.slug.clone(),
            api_key: instance.api_key.clone(),
            gateway: self.common.gateway.clone(),
            max_wait: self.common.max_wait,
            pay_max_wait: self.common.pay_max_wait,
            broadcasts: self.common.broadcasts.clone(),
            cordoned,
        };
        (self.open)(name, settings, (self.ledgers.of(name, &instance.slug), tenure), &self.context)
    }

    /// Stops instances that nobody was told of.
    fn discard(&self, instances: Vec<Arc<Instance>>) {
        for instance in instances {
            self.retiring.spawn_on(async move { instance.stop().await }, &self.runtime);
        }
    }

    /// Takes `next` into force. Cannot fail. The event streams and tills of what is retired are told before this returns.
    pub(crate) fn commit(self: &Arc<Self>, in_force: &mut InForce, next: Configured, prepared: Prepared) {
        let before = self.bridge.replace(prepared.0);
        let served = self.bridge.instances();
        for old in before.iter() {
            match (served.get(old.name()), next.get(&**old.name())) {
                (Some(same), Some(configured)) if Arc::ptr_eq(same, old) => same.replace_key(&configured.api_key),
                (new, _) => {
                    if let (Some(states), Some(new)) = (&self.common.states, new) {
                        states.write_first(new);
                        states.serve(new, false);
                    }
                    self.retire(in_force, Arc::clone(old));
                }
            }
        }
        *self.listed.write() = listed(&self.common, &self.ledgers, &next);
        self.relisted.notify_one();
        in_force.instances = next;
    }

    fn retire(self: &Arc<Self>, in_force: &mut InForce, instance: Arc<Instance>) {
        instance.refuse_new();
        in_force.retiring.push(instance.slug().to_owned());
        let supervisor = Arc::clone(self);
        self.retiring.spawn_on(async move { supervisor.end(instance).await }, &self.runtime);
    }

    async fn end(&self, instance: Arc<Instance>) {
        let begun = Instant::now();
        if timeout(self.common.shutdown_grace, instance.drain()).await.is_err() {
            tracing::warn!(instance = &**instance.name(), "what was still under way was cut off by the shutdown grace");
        } else if instance.tenure().token().is_some() {
            // Another replica serves it: what comes for payments that were made here comes only here.
            let patience = self.common.gateway.late_patience + self.common.gateway.request_timeout;
            tokio::select! {
                _ = timeout(patience, instance.late_frames_heard()) => {}
                () = self.context.shutdown.refusing() => {}
            }
        }
        instance.stop().await;
        // Without links they end soon, and none may keep a reply once the cache has forgotten the instance.
        instance.drain().await;
        let mut in_force = self.in_force.lock().await;
        let slug = instance.slug();
        if let Some(at) = in_force.retiring.iter().position(|retiring| retiring == slug) {
            in_force.retiring.swap_remove(at);
        }
        let is_served = if self.common.tenures.is_some() {
            self.bridge.instances().iter().any(|served| served.slug() == slug)
        } else {
            in_force.instances.values().any(|configured| configured.slug == slug)
        };
        let is_needed = is_served || in_force.retiring.iter().any(|retiring| retiring == slug);
        if !is_needed {
            self.context.cache.forget(slug);
        }
        tracing::info!(instance = &**instance.name(), slug, took = ?begun.elapsed(), "instance stopped");
    }

    /// Returns once no change is under way and every retired instance has ended.
    pub(crate) async fn ended(&self) {
        let prepared = std::mem::take(&mut *self.prepared.lock());
        self.discard(prepared.into_values().map(|opened| opened.instance).collect());
        drop(self.in_force.lock().await);
        self.retiring.close();
        self.retiring.wait().await;
    }
}

/// What could be served here, each with a digest of what replicas must agree on.
fn listed(common: &CommonSettings, ledgers: &Ledgers, instances: &Configured) -> Vec<Listed> {
    let gateway = &common.gateway;
    let waits = [gateway.request_timeout, gateway.refusal_grace, gateway.late_patience, common.broadcasts.skew];
    // Not where the gateway is: replicas may reach it by different names.
    let of_all = format!("{:?} {waits:?} {}", gateway.shards, ledgers.settings());
    let of_one = |(name, instance): (&String, &config::Instance)| {
        let settings = format!("{of_all} {} {}", instance.slug, instance.accept_gateway_key);
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(settings));
        Listed { name: name.as_str().into(), slug: instance.slug.as_str().into(), digest: digest.into() }
    };
    instances.iter().map(of_one).collect()
}

#[cfg(test)]
mod tests;
