//! What is served, and the calls of [`Host`] that begin and end it: one after the other for an instance, some at once for several.
//!
//! An instance whose tenure is over stays, fenced, until another owner is known: its callers are answered from cached replies, and
//! their streams stay open.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::host::Host;
use crate::tenure::{Lease, Tenure};

/// How many instances begin or end at once. Each opens or closes connections.
const AT_ONCE: usize = 16;

pub(super) struct Hosting {
    pub(super) host: Arc<dyn Host>,
    served: HashMap<Arc<str>, Tenure>,
    prepared: HashMap<Arc<str>, Tenure>,
    /// The last call for each instance.
    calls: HashMap<Arc<str>, JoinHandle<()>>,
    /// At how many calls those that have returned are forgotten.
    forget_at: usize,
    room: Arc<Semaphore>,
}

impl Hosting {
    pub(super) fn new(host: Arc<dyn Host>) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        Self { host, served: HashMap::new(), prepared: HashMap::new(), calls: HashMap::new(), forget_at: AT_ONCE, room }
    }

    /// Runs `work` after the calls for `instance` that were asked for before.
    pub(super) fn run(&mut self, instance: &Arc<str>, work: impl Future<Output = ()> + Send + 'static) {
        if self.calls.len() >= self.forget_at {
            self.calls.retain(|_, call| !call.is_finished());
            self.forget_at = (self.calls.len() * 2).max(AT_ONCE);
        }
        let before = self.calls.remove(instance);
        let room = Arc::clone(&self.room);
        let call = tokio::spawn(async move {
            if let Some(before) = before {
                // One that panicked has ended too.
                let _ = before.await;
            }
            let _permit = room.acquire().await;
            work.await;
        });
        self.calls.insert(Arc::clone(instance), call);
    }

    pub(super) fn tenure(&self, instance: &str) -> Option<&Tenure> {
        self.served.get(instance)
    }

    /// Prepares for `instance` under `lease`; `listening` is called once that has gone on for long enough.
    pub(super) fn prepare(
        &mut self,
        instance: &Arc<str>,
        lease: &Lease,
        listening: impl Future<Output = ()> + Send + 'static,
    ) {
        let tenure = Tenure::prepared(lease);
        self.prepared.insert(Arc::clone(instance), tenure.clone());
        let (host, named) = (Arc::clone(&self.host), Arc::clone(instance));
        self.run(instance, async move {
            if let Err(fault) = host.prepare(&named, tenure.clone()).await {
                return tracing::warn!(instance = &*named, %fault, "nothing can be prepared for an instance");
            }
            tokio::spawn(async move {
                tokio::select! {
                    () = tenure.lapsed() => {}
                    () = host.listening(&named, &tenure) => listening.await,
                }
            });
        });
    }

    /// What was prepared for `instance` is of no use.
    pub(super) fn abandon(&mut self, instance: &Arc<str>) {
        let Some(tenure) = self.prepared.remove(instance) else { return };
        tenure.release();
        let (host, named) = (Arc::clone(&self.host), Arc::clone(instance));
        self.run(instance, async move { host.abandon(&named, &tenure).await });
    }

    /// Nothing that was prepared is of use.
    pub(super) fn abandon_all(&mut self) {
        let all: Vec<_> = self.prepared.keys().cloned().collect();
        for instance in &all {
            self.abandon(instance);
        }
    }

    /// Serves `instance` under `lease` in this epoch; `failed` is called if that cannot be.
    pub(super) fn begin(
        &mut self,
        instance: &Arc<str>,
        (lease, epoch): (&Lease, i64),
        failed: impl Future<Output = ()> + Send + 'static,
    ) {
        let tenure = self.prepared.remove(instance).unwrap_or_else(|| Tenure::prepared(lease));
        tenure.grant(epoch);
        self.served.insert(Arc::clone(instance), tenure.clone());
        let (host, named) = (Arc::clone(&self.host), Arc::clone(instance));
        self.run(instance, async move {
            if let Err(fault) = host.begin(&named, tenure).await {
                tracing::error!(instance = &*named, %fault, "an instance cannot be served here: it is given up");
                failed.await;
            }
        });
    }

    /// Retires what of the instances satisfies `is_gone` and may never be acted for again under its tenure.
    pub(super) fn retire(&mut self, is_gone: impl Fn(&Arc<str>) -> bool) {
        let gone: Vec<_> = self
            .served
            .iter()
            .filter(|(instance, tenure)| tenure.is_over() && is_gone(instance))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for instance in gone {
            self.served.remove(&instance);
            let (host, named) = (Arc::clone(&self.host), Arc::clone(&instance));
            self.run(&instance, async move { host.end(&named).await });
        }
    }
}
