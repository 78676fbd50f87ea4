//! From a connection's event to the cache and the log.
//!
//! Everything happens as the connection reports it, in order, under one lock: [`Matcher`] decides what the event means, the
//! cache is invalidated, and only then is the event logged, so that a client that reads again on an event gets the new state.
//! An `updatepos` that may be new invalidates even while it is held for its log entry, and so does any time in which one may
//! have been missed, and any message that may have been one and cannot be read.
//!
//! While an instance changes its owner, both owners only keep what their connections report ([`Kept`]): the new one from when
//! its connections open, the old one from when it told what it knows. Whoever owns it then matches what it kept.
//!
//! Nothing is logged while this replica may not act for the instance; what was heard meanwhile is a gap once it may again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::channel::Broadcasts;
use super::coverage::CoverageGap;
use super::entry::{Event, Gap, Reason};
use super::kept::Kept;
use super::matcher::{Decision, Matched, Matcher};
use crate::cache::Cache;
use crate::gateway::{EventSink, LinkEvent};
use crate::tenure::Tenure;

/// The broadcast that puts the catalogue out of date.
const UPDATEPOS: &str = "updatepos";

#[derive(Debug)]
pub struct Relay {
    instance: Arc<str>,
    /// What the cache calls it: its name at the gateway.
    slug: Arc<str>,
    cache: Arc<Cache>,
    broadcasts: Broadcasts,
    /// Before the first link nobody could listen.
    begun: Instant,
    skew: Duration,
    patience: Duration,
    state: Mutex<State>,
    /// Something is held that was not before.
    held: Notify,
    /// A connection has opened while what comes is only kept.
    opened: Notify,
    tenure: Tenure,
    /// Since when something was decided that could not be logged.
    unlogged: Mutex<Option<Timestamp>>,
}

#[derive(Debug)]
struct State {
    matcher: Matcher,
    /// What has come since the instance is changing its owner; none while this one is.
    kept: Option<Kept>,
}

impl Relay {
    /// Shards differ by less than `skew`, and a connection on which nothing comes any more is closed within `patience`.
    #[must_use]
    pub fn new(
        tenure: Tenure,
        (instance, slug): (&str, &str),
        cache: Arc<Cache>,
        broadcasts: Broadcasts,
        skew: Duration,
        patience: Duration,
    ) -> Arc<Self> {
        let begun = Instant::now();
        let matcher = Matcher::new(skew, patience, begun);
        let state = Mutex::new(State { matcher, kept: None });
        let (instance, slug) = (Arc::from(instance), Arc::from(slug));
        let (held, opened, unlogged) = Default::default();
        Arc::new(Self {
            instance,
            slug,
            cache,
            broadcasts,
            begun,
            skew,
            patience,
            state,
            held,
            opened,
            tenure,
            unlogged,
        })
    }

    /// Where the pool reports connection events.
    #[must_use]
    pub fn event_sink(self: &Arc<Self>) -> EventSink {
        let relay = Arc::clone(self);
        EventSink(Arc::new(move |report| relay.take(report)))
    }

    fn take(&self, report: &LinkEvent) {
        let mut state = self.state.lock();
        if let Some(kept) = &mut state.kept {
            kept.push(report, Instant::now());
            // What is heard may be news, whoever logs it.
            self.cache.catalogue_changed(&self.slug);
            return self.opened.notify_one();
        }
        self.match_report(&mut state.matcher, report, Timestamp::now());
    }

    fn match_report(&self, matcher: &mut Matcher, report: &LinkEvent, received_at: Timestamp) {
        let (outcome, concerns_catalogue) = match report {
            LinkEvent::Opened { link, at } => (matcher.opened(*link, *at), true),
            LinkEvent::Closed { link, last_heard } => (matcher.closed(*link, *last_heard), true),
            LinkEvent::Broadcast { link, at, message, parameters } => {
                tracing::trace!(instance = &*self.instance, link, message, "broadcast");
                (matcher.heard(*link, *at, message, parameters, received_at), message == UPDATEPOS)
            }
            LinkEvent::Unreadable { link, at, digest } => {
                (matcher.heard_unreadable(*link, *at, *digest, received_at), true)
            }
        };
        if outcome.news && concerns_catalogue {
            self.cache.catalogue_changed(&self.slug);
        }
        self.log(outcome);
        if matcher.due().is_some() {
            self.held.notify_one();
        }
    }

    /// Called under the matcher's lock, so that the log has the order of the decisions.
    fn log(&self, outcome: Matched) {
        if let Some(lapsed) = self.tenure.lapsed_for() {
            return self.note_unlogged(&outcome.decisions, lapsed);
        }
        if let Some(from) = self.unlogged.lock().take() {
            self.broadcasts.publish(Event::Gap(Gap { from, to: Timestamp::now(), reason: Reason::NoConnection }));
        }
        for decision in outcome.decisions {
            self.broadcasts.publish(match decision {
                Decision::Broadcast(broadcast) => Event::Broadcast(broadcast),
                Decision::Gap(gap) => {
                    let (from, to) = (wall_clock(gap.from), wall_clock(gap.to));
                    let entry = Gap { from, to, reason: Reason::NoConnection };
                    if self.is_news(gap) {
                        tracing::info!(instance = &*self.instance, from = %entry.from, to = %entry.to,
                            "broadcasts may have been missed: no link was sure to receive them");
                    }
                    Event::Gap(entry)
                }
                Decision::Unreadable(at) => {
                    tracing::warn!(
                        instance = &*self.instance,
                        "a broadcast may have been missed: it could not be read"
                    );
                    Event::Gap(Gap { from: at, to: at, reason: Reason::Unreadable })
                }
            });
        }
    }

    /// A gap of a start or of a drain tells an operator nothing.
    fn is_news(&self, gap: CoverageGap) -> bool {
        gap.from != self.begun && !self.broadcasts.is_closed()
    }

    fn note_unlogged(&self, decisions: &[Decision], lapsed: Duration) {
        let gaps = decisions.iter().filter_map(|decision| match decision {
            Decision::Gap(gap) => Some(wall_clock(gap.from)),
            Decision::Broadcast(_) | Decision::Unreadable(_) => None,
        });
        let lapsed = Timestamp::now().checked_sub(lapsed).unwrap_or(Timestamp::UNIX_EPOCH);
        let Some(from) = gaps.chain((!decisions.is_empty()).then_some(lapsed)).min() else { return };
        let mut unlogged = self.unlogged.lock();
        *unlogged = Some(unlogged.map_or(from, |known| known.min(from)));
    }

    /// Decides in time on what is held. Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            let due = self.state.lock().due();
            let Some(due) = due else {
                self.held.notified().await;
                continue;
            };
            // What is held meanwhile is due later.
            sleep_until(due).await;
            let mut state = self.state.lock();
            if state.kept.is_none() {
                let outcome = state.matcher.tick(Instant::now());
                self.log(outcome);
            }
        }
    }
}

impl State {
    fn due(&self) -> Option<Instant> {
        self.matcher.due().filter(|_| self.kept.is_none())
    }
}

mod handover;

fn wall_clock(at: Instant) -> Timestamp {
    let ago = Instant::now().saturating_duration_since(at);
    Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::broadcasts::{Epoch, SubscriberLimit};
    use crate::cache::Config;

    #[test]
    fn a_gap_of_a_start_or_of_a_drain_is_not_logged() {
        let broadcasts = Broadcasts::new(Epoch::new(1), 10, SubscriberLimit::new(1, 1));
        let cache =
            Arc::new(Cache::new(Config { max_size: 0, min_age: Duration::ZERO, rules: BTreeMap::new(), store: None }));
        let second = Duration::from_secs(1);
        let relay = Relay::new(Tenure::unlimited(), ("demo", "demo"), cache, broadcasts.clone(), second, second);
        let gap = |from| CoverageGap { from, to: relay.begun + 2 * second };
        assert!(relay.is_news(gap(relay.begun + second)));
        assert!(!relay.is_news(gap(relay.begun)));
        broadcasts.close();
        assert!(!relay.is_news(gap(relay.begun + second)));
    }
}
