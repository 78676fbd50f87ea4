//! What the tasks of one pool share, and what they report to it.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::dialer::Dialer;
use super::error::{DialError, Ended, Fault, FaultKind};
use super::events::EventSink;
use super::links::{Entry, LinkId};
use super::metrics::Metrics;
use super::outage::OutageNews;
use super::reach::ReachAttempt;
use super::socket::Socket;
use super::state::{Shard, State};
use crate::tenure::Tenure;

/// One pool's settings, state and tasks.
#[derive(Debug)]
pub(super) struct PoolContext {
    pub(super) config: Config,
    pub(super) instance: String,
    pub(super) events: EventSink,
    pub(super) metrics: Metrics,
    pub(super) slug: String,
    pub(super) dialer: Dialer,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
    /// A link came back, or is over, while none is given.
    pub(super) returned: Notify,
    pub(super) tasks: TaskTracker,
    /// Ends attempts to connect: the pool is closing.
    pub(super) closing: CancellationToken,
}

impl PoolContext {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn tenure(&self) -> &Tenure {
        self.dialer.tenure()
    }

    /// A link may carry a command again.
    pub(super) fn put_back(&self, link: LinkId) {
        self.returned(|state| state.put_back(link, Instant::now()));
    }

    /// A link may carry a command again, whose ping was answered after `round_trip`.
    pub(super) fn settled(&self, link: LinkId, round_trip: Duration, now: Instant) {
        self.returned(|state| state.settled(link, round_trip, now));
    }

    fn returned(&self, put_back: impl FnOnce(&mut State)) {
        let mut state = self.state();
        put_back(&mut state);
        let (draining, held) = (state.draining, state.held);
        drop(state);
        if held {
            self.returned.notify_waiters();
        }
        if draining {
            self.changed.notify_one();
        }
    }

    /// A link listens for a late reply from now on.
    pub(super) fn set_aside(&self, link: LinkId, is_unknown: bool) {
        let now = Instant::now();
        let mut state = self.state();
        let closed = state.set_aside(link, is_unknown, now);
        self.observe_links(&mut state, now);
        drop(state);
        tracing::debug!(instance = self.instance, link, "link set aside for a late reply");
        if let Some(closed) = closed {
            tracing::warn!(
                instance = self.instance,
                link = closed,
                "too many connections are set aside for late replies: one is closed"
            );
        }
        self.changed.notify_one();
        self.returned.notify_waiters();
    }

    /// Whether a ping on `link` waits for its answer.
    pub(super) fn doubt(&self, link: LinkId, doubted: bool) {
        self.state().links.doubt(link, doubted);
    }

    /// A command on `shard` was not answered in time.
    pub(super) fn timed_out(&self, shard: usize) {
        if let Some(shard) = self.state().shards.get_mut(shard) {
            shard.health.timed_out();
        }
    }

    /// Has the planner run again.
    pub(super) fn replan(&self) {
        self.changed.notify_one();
    }

    /// A link is over.
    pub(super) fn link_ended(&self, link: LinkId, index: usize, proved: bool, ended: &Ended) {
        let now = Instant::now();
        let mut state = self.state();
        state.links.remove(link);
        if let (Some(shard), Ended::Lost(why) | Ended::Garbled(why) | Ended::Untrusted(why)) =
            (state.shards.get_mut(index), ended)
        {
            tracing::warn!(instance = self.instance, shard = shard.name, link, why, "link lost");
            if let Some(connections) = self.metrics.connections(index) {
                connections.lost.inc();
            }
            shard.health.lost(now, proved, fastrand::f64());
            shard.last_fault = Some(Fault { words: why.clone(), kind: FaultKind::Other, at: now });
        }
        state.fail_waiting_without_prospect(now);
        self.observe_links(&mut state, now);
        // With this link gone, a waiting read may get one that was reserved for payments.
        state.serve_waiting(now);
        drop(state);
        self.returned.notify_waiters();
        self.changed.notify_one();
    }

    /// Records the result of an attempt to connect.
    pub(super) fn dialled(
        &self,
        index: usize,
        name: &str,
        reaching: ReachAttempt,
        dialled: Result<(Socket, Duration), DialError>,
    ) -> Option<Socket> {
        let now = Instant::now();
        let mut state = self.state();
        let shard = state.shards.get_mut(index)?;
        match dialled {
            Ok((socket, round_trip)) => {
                reaching.succeeded();
                if !shard.is_good() {
                    tracing::info!(instance = self.instance, shard = name, "shard can be reached again");
                }
                shard.health.dial_succeeded();
                shard.last_fault = None;
                shard.health.measured(round_trip);
                state.look_at(self.dialer.reach());
                Some(socket)
            }
            Err(DialError::NotOwner) => {
                shard.dialling -= 1;
                None
            }
            Err(why) => {
                shard.dialling -= 1;
                if let Some(connections) = self.metrics.connections(index) {
                    connections.failed.inc();
                }
                // The change is a warning, each further failure is logged at debug level.
                if shard.is_good() {
                    tracing::warn!(instance = self.instance, shard = name, %why, "shard cannot be reached");
                } else {
                    let failures = shard.failures();
                    tracing::debug!(instance = self.instance, shard = name, %why, failures, "shard still out of reach");
                }
                let fault = Fault { words: why.to_string(), kind: why.kind(), at: now };
                shard.last_fault = Some(fault.clone());
                if why.is_of_shard() {
                    reaching.failed(now, fastrand::f64(), fault, why == DialError::Timeout);
                } else {
                    // The shard answered; what it said is about this instance.
                    shard.health.dial_failed(now, reaching.begun(), fastrand::f64(), false);
                    reaching.succeeded();
                }
                state.look_at(self.dialer.reach());
                state.fail_waiting_without_prospect(now);
                self.observe_links(&mut state, now);
                None
            }
        }
    }

    /// Takes note of whether a link is in service, and logs that none is left, or that there is one again.
    pub(super) fn observe_links(&self, state: &mut State, now: Instant) {
        // A drain closes them all.
        let news = state.observe_links(now).filter(|_| !state.draining);
        match news {
            None => {}
            Some(OutageNews::Begun) => {
                let told = |shard: &Shard| {
                    if shard.cordoned {
                        return Some(format!("{}: cordoned", shard.name));
                    }
                    shard.last_fault.as_ref().map(|fault| format!("{}: {}", shard.name, fault.words))
                };
                let why = state.shards.iter().filter_map(told).collect::<Vec<_>>().join("; ");
                tracing::error!(instance = self.instance, why, "no link to the gateway: nothing can be sold");
            }
            Some(OutageNews::Ended(without_for)) => {
                tracing::info!(instance = self.instance, ?without_for, "linked to the gateway again");
            }
        }
    }

    /// Enters a new connection, busy until its task puts it in service. `None` while draining.
    pub(super) fn admit(&self, entry: Entry) -> Option<LinkId> {
        let mut state = self.state();
        let id = state.next_id();
        state.shards.get_mut(entry.shard)?.dialling -= 1;
        if state.draining {
            return None;
        }
        state.links.insert(id, entry);
        self.observe_links(&mut state, Instant::now());
        Some(id)
    }
}
