//! Metrics of requests that are passed on, and of those that are taken from other replicas.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;

use crate::telemetry::metrics::Families;

/// Replicas with counts of their own. A cluster has a few; a name that changes with each start must not fill the page.
const MAX_NAMES: usize = 64;

/// Under which further replicas are counted.
const OTHERS: &str = "others";

/// How a request that was passed on ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    /// The other replica is not the owner, and nothing was begun.
    Elsewhere,
    NotSent,
    /// Some of it may have arrived, and no answer came.
    NoAnswer,
    /// The caller went away before the answer.
    Abandoned,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Answered, Self::Elsewhere, Self::NotSent, Self::NoAnswer, Self::Abandoned];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Elsewhere => "elsewhere",
            Self::NotSent => "not-sent",
            Self::NoAnswer => "no-answer",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Of one other replica.
#[derive(Debug, Default)]
pub(super) struct PeerMetrics {
    outcomes: [Counter; Outcome::ALL.len()],
    in_flight: AtomicU64,
}

/// A request that is under way, until it is dropped; with its answer's body.
#[derive(Debug)]
pub(super) struct InFlight {
    peer: Arc<PeerMetrics>,
    outcome: Outcome,
}

#[derive(Debug, Default)]
pub struct Metrics {
    peers: RwLock<BTreeMap<Arc<str>, Arc<PeerMetrics>>>,
    /// Requests of other replicas that were taken.
    pub(super) taken: Counter,
    /// Requests on the cluster's listener without a proof that is right.
    pub(super) refused: Counter,
    /// Replicas that did not prove that they know the secret.
    pub(super) unproved: Counter,
    /// Requests that wait for an owner to become known.
    pub(super) waiting: AtomicU64,
}

impl Metrics {
    pub(super) fn begin(&self, peer: &Arc<str>) -> InFlight {
        let known = self.peers.read().get(peer).cloned();
        let peer = known.unwrap_or_else(|| self.add(peer));
        peer.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { peer, outcome: Outcome::Abandoned }
    }

    fn add(&self, peer: &Arc<str>) -> Arc<PeerMetrics> {
        let mut peers = self.peers.write();
        let name = if peers.len() < MAX_NAMES { Arc::clone(peer) } else { Arc::from(OTHERS) };
        Arc::clone(peers.entry(name).or_default())
    }

    /// How many requests to other replicas are under way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.peers.read().values().map(|peer| peer.in_flight.load(Ordering::Relaxed)).sum()
    }

    pub fn encode(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let peers = self.peers.read();
        let help = "Requests passed on to another replica, by that replica and by how they ended.";
        let mut family = page.counter("forwarded_requests", help)?;
        for (peer, counted) in peers.iter() {
            for (outcome, counter) in Outcome::ALL.iter().zip(&counted.outcomes) {
                let labels = [("replica", &**peer), ("outcome", outcome.name())];
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Requests passed on whose answer has not ended, streams included, by replica.";
        let mut family = page.gauge("forwarded_in_flight", help)?;
        for (peer, counted) in peers.iter() {
            let in_flight = counted.in_flight.load(Ordering::Relaxed);
            family.encode_family(&[("replica", &**peer)])?.encode_gauge(&in_flight)?;
        }
        let help = "Requests that wait until an owner of their instance is known.";
        page.gauge("forwarding_waiting", help)?.encode_gauge(&self.waiting.load(Ordering::Relaxed))?;
        let help = "Requests of other replicas, by whether their proof of the cluster's secret was right.";
        let mut family = page.counter("forwarding_received", help)?;
        for (proved, counter) in [("true", &self.taken), ("false", &self.refused)] {
            counter.encode(family.encode_family(&[("proved", proved)])?)?;
        }
        let help = "Connections to replicas that did not prove that they know the cluster's secret.";
        self.unproved.encode(page.counter("forwarding_unproved", help)?)
    }
}

impl InFlight {
    /// How it ended, until something else is said.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let counter = Outcome::ALL.iter().position(|one| *one == self.outcome);
        if let Some(counter) = counter.and_then(|at| self.peer.outcomes.get(at)) {
            counter.inc();
        }
        self.peer.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
