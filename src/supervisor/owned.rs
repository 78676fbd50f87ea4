//! Serving what this replica owns, as ownership has it begin and end.
//!
//! An instance begins with what earlier owners left of it, before anything of it is sent, logged or answered; and leaves what the
//! next owner needs in the transaction that gives it up.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::Supervisor;
use super::opened::Opened;
use super::readings::SentByInstance;
use crate::bridge::Instance;
use crate::broadcasts::relay::Relay;
use crate::budget::SentPayments;
use crate::clock::{unix_ms, whole_ms};
use crate::cluster::state::{Begins, Carried};
use crate::cluster::{Host, Listed};
use crate::config;
use crate::database::Statement;
use crate::journal::JournalError;
use crate::tenure::Tenure;

/// How much longer than an exchange may last the owner before has to record its outcome.
const TO_RECORD: Duration = Duration::from_secs(5);

/// How soon it is tried again to mark what earlier owners left on its way.
const AGAIN: Duration = Duration::from_secs(1);

fn by_instance(sent: Vec<(String, i64)>) -> SentByInstance {
    let mut of_each = SentByInstance::new();
    for (instance, at_ms) in sent {
        of_each.entry(instance).or_default().push(at_ms);
    }
    of_each
}

/// The supervisor as ownership has it serve and give up instances.
#[derive(Debug, Clone)]
pub(crate) struct Owned(pub(crate) Arc<Supervisor>);

impl Supervisor {
    /// What earlier owners left of an instance.
    async fn carried(&self, name: &str, tenure: &Tenure) -> io::Result<Carried> {
        match &self.common.states {
            Some(states) => states.load(name, tenure).await,
            None => Ok(Carried::default()),
        }
    }

    /// What the gateway may still count of payments of earlier owners that told nothing more; what they left on its way is of
    /// unknown outcome from now on. None where it cannot be read.
    async fn left_behind(&self, name: &str, tenure: &Tenure) -> io::Result<Option<SentPayments>> {
        let in_flight = self.unknown_after_takeover(name, tenure).await.map_err(io::Error::other)?;
        Ok(self.sent_by_others(name, in_flight).await)
    }

    async fn unknown_after_takeover(&self, name: &str, tenure: &Tenure) -> Result<u64, JournalError> {
        let Some((session, epoch)) = tenure.token() else { return Ok(0) };
        let unknown = self.context.journal.unknown_after_takeover(name, session, epoch).await?;
        if unknown > 0 {
            tracing::warn!(instance = name, unknown, "payments of an earlier owner are of unknown outcome");
        }
        Ok(unknown)
    }

    /// The same once the owner that handed it over has had time to record what was under way.
    fn unknown_later(self: &Arc<Self>, instance: &Arc<Instance>) {
        let (supervisor, instance) = (Arc::clone(self), Arc::clone(instance));
        let wait = self.common.gateway.request_timeout + TO_RECORD;
        self.runtime.spawn(async move {
            let tenure = instance.tenure();
            let marked = async {
                sleep(wait).await;
                while supervisor.unknown_after_takeover(instance.name(), tenure).await.is_err() {
                    sleep(AGAIN).await;
                }
            };
            tokio::select! {
                // Its next owner does that.
                () = instance.shutdown().requested() => {}
                () = marked => {}
            }
        });
    }

    async fn sent_by_others(&self, name: &str, in_flight: u64) -> Option<SentPayments> {
        let (journal, now_ms) = (self.context.journal.clone(), unix_ms());
        let hold = self.common.gateway.request_timeout + self.ledgers.hold();
        let since_ms = now_ms.saturating_sub(i64::try_from(whole_ms(hold)).unwrap_or(i64::MAX));
        let read = || tokio::task::spawn_blocking(move || Some(by_instance(journal.sent_since(since_ms).ok()?)));
        let sent = self.sent.begun_from_now(async || read().await.ok()?).await;
        let age = |at_ms: i64| Duration::from_millis(u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or_default());
        let ended = (*sent).as_ref()?.get(name).into_iter().flatten().map(|at_ms| age(*at_ms));
        // Those that were on their way stand there as the last that ended, though they may arrive at the gateway yet.
        let ended = ended.skip(usize::try_from(in_flight).unwrap_or(usize::MAX)).collect();
        Some(SentPayments { ended, in_flight })
    }

    /// What was opened before the claim under this tenure, unless the configuration has changed since; or opens it now.
    fn opened(&self, name: &str, configured: &config::Instance, tenure: &Tenure) -> io::Result<Opened> {
        let prepared = self.prepared.lock().remove(name);
        match prepared {
            Some(opened) if opened.instance.tenure().is(tenure) && opened.instance.slug() == configured.slug => {
                opened.instance.replace_key(&configured.api_key);
                return Ok(opened);
            }
            Some(other) => self.discard(vec![other.instance]),
            None => {}
        }
        Ok(Opened { instance: self.open(name, configured, BTreeSet::new(), tenure.clone())?, ready: None })
    }

    /// Gives an instance what earlier owners left of it.
    fn give(&self, opened: &Opened, carried: Carried, payments: Option<&SentPayments>) {
        let Opened { instance, ready } = opened;
        let Some(relay) = instance.relay() else { return };
        // One that nobody owned begins as one that a reload adds.
        let cordoned = if carried.is_first { self.bridge.instances().cordoned() } else { carried.cordoned.clone() };
        for shard in &cordoned {
            // One that the gateway no longer has needs no cordon.
            let _ = instance.cordon(shard, true);
        }
        let goes_on = carried.log.is_some();
        if let Some(states) = &self.common.states {
            states.write_first(instance);
        }
        carried.begin(&Begins {
            slug: instance.slug(),
            ledger: instance.ledger(),
            cache: &self.context.cache,
            broadcasts: instance.broadcasts(),
            relay,
            request_timeout: self.common.gateway.request_timeout,
            payments,
            ready: *ready,
        });
        if let Some(states) = &self.common.states {
            states.serve(instance, goes_on);
        }
    }
}

#[async_trait]
impl Host for Owned {
    fn configured(&self) -> Vec<Listed> {
        self.0.listed.read().clone()
    }

    async fn prepare(&self, name: &str, tenure: Tenure) -> io::Result<()> {
        let supervisor = &self.0;
        let in_force = supervisor.in_force.lock().await;
        let configured = in_force.instances.get(name);
        let configured = configured.ok_or_else(|| io::Error::other("the instance is no longer configured"))?;
        if supervisor.context.shutdown.is_requested() {
            return Err(io::Error::other("this replica is shutting down"));
        }
        let instance = supervisor.open(name, configured, BTreeSet::new(), tenure)?;
        let before = supervisor.prepared.lock().insert(name.to_owned(), Opened { instance, ready: None });
        supervisor.discard(before.into_iter().map(|before| before.instance).collect());
        tracing::info!(instance = name, "links are opened for an instance that is to be taken over");
        Ok(())
    }

    async fn listening(&self, name: &str, tenure: &Tenure) {
        let is_of = |opened: &Opened| opened.instance.tenure().is(tenure);
        let prepared = &self.0.prepared;
        let relay = prepared
            .lock()
            .get(name)
            .filter(|opened| is_of(opened))
            .and_then(|opened| opened.instance.relay().cloned());
        let Some(relay) = relay else { return pending().await };
        let ready = relay.until_listening().await;
        if let Some(opened) = prepared.lock().get_mut(name).filter(|opened| is_of(opened)) {
            opened.ready = Some(ready);
        }
    }

    fn listens_within(&self) -> Duration {
        Relay::listens_after(self.0.common.broadcasts.skew)
    }

    async fn abandon(&self, name: &str, tenure: &Tenure) {
        let mut prepared = self.0.prepared.lock();
        if prepared.get(name).is_some_and(|opened| opened.instance.tenure().is(tenure))
            && let Some(opened) = prepared.remove(name)
        {
            self.0.discard(vec![opened.instance]);
        }
    }

    async fn begin(&self, name: &str, tenure: Tenure) -> io::Result<()> {
        let supervisor = &self.0;
        // Read before anything is served, so that no point is granted that was spent elsewhere.
        let carried = supervisor.carried(name, &tenure).await?;
        let was_handed_over = carried.handed_over.is_some();
        let payments = if was_handed_over { None } else { supervisor.left_behind(name, &tenure).await? };
        let mut in_force = supervisor.in_force.lock().await;
        let configured = in_force.instances.get(name).cloned();
        let configured = configured.ok_or_else(|| io::Error::other("the instance is no longer configured"))?;
        if supervisor.context.shutdown.is_requested() {
            return Err(io::Error::other("this replica is shutting down"));
        }
        let known = supervisor.bridge.instances().get(name).cloned();
        let opened = supervisor.opened(name, &configured, &tenure)?;
        supervisor.give(&opened, carried, payments.as_ref());
        let started = opened.instance;
        if let Some(tenures) = &supervisor.common.tenures {
            tenures.insert(name, tenure);
        }
        started.serve();
        let served = supervisor.bridge.instances().with(&started);
        let _ = supervisor.bridge.replace(served);
        if was_handed_over {
            supervisor.unknown_later(&started);
        }
        if let Some(known) = known {
            known.broadcasts().moved();
            supervisor.retire(&mut in_force, known);
        }
        tracing::info!(instance = name, was_handed_over, "this replica owns the instance");
        Ok(())
    }

    async fn quiesce(&self, name: &str, limit: Duration) -> Vec<Statement> {
        let Some(instance) = self.0.bridge.instances().get(name).cloned() else { return Vec::new() };
        instance.quiesce(limit).await;
        // Now, since the end of this replica may close its streams before the instance is retired.
        instance.broadcasts().moved();
        let states = self.0.common.states.as_ref();
        states.map(|states| states.hand_over(&instance)).unwrap_or_default()
    }

    async fn end(&self, name: &str) {
        let supervisor = &self.0;
        let mut in_force = supervisor.in_force.lock().await;
        let Some(instance) = supervisor.bridge.instances().get(name).cloned() else { return };
        // Whatever ended it, it never acts again.
        instance.tenure().release();
        if let Some(tenures) = &supervisor.common.tenures {
            tenures.remove(name, instance.tenure());
        }
        if let Some(states) = &supervisor.common.states {
            states.end(&instance);
        }
        let served = supervisor.bridge.instances().without(name);
        let _ = supervisor.bridge.replace(served);
        instance.broadcasts().moved();
        supervisor.retire(&mut in_force, instance);
        tracing::info!(instance = name, "this replica no longer owns the instance");
    }

    fn reaches_gateway(&self, name: &str) -> bool {
        self.0.bridge.instances().get(name).is_some_and(|instance| instance.has_prospect())
    }
}
