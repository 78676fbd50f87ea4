//! Metrics of one pool: exchanges by command and outcome, and what became of its connections.
//!
//! A command's series begin with its first exchange, all outcomes at once, so that a rate sees the first failure. Of an
//! instance that nobody has used yet, and for whose licence the bridge itself asked, only the outcomes that there were are
//! shown, and no durations: of thousands of such instances, all series of that one command would be most of a scrape. Commands
//! that callers invent share one label, so that callers cannot fill the memory of the bridge or of Prometheus.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::error::{Cause, Failure};
use super::state::{LinkState, ShardStatus};
use crate::protocol::{Body, Meaning, command};
use crate::telemetry::metrics::{Families, Histogram};
use crate::telemetry::recent::Recent;

/// The label of commands that are not in the table.
const OTHER: &str = "other";

/// A reply that takes as long is slow: a healthy gateway answers within some milliseconds.
const SLOW: Duration = Duration::from_secs(1);

/// How an exchange ended that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExchangeOutcome {
    Replied,
    Refused,
    RateLimited,
    /// With a word that does not say whether the command took effect.
    Unclear,
    TimedOut,
    /// The connection was lost.
    Lost,
}

impl ExchangeOutcome {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Replied, "replied"),
        (Self::Refused, "refused"),
        (Self::RateLimited, "rate-limited"),
        (Self::Unclear, "unclear"),
        (Self::TimedOut, "timed-out"),
        (Self::Lost, "lost"),
    ];

    pub(super) fn of(outcome: &Result<Body, Failure>) -> Self {
        match outcome {
            Ok(_) => Self::Replied,
            Err(Failure::Refused(refusal)) if matches!(refusal.error.meaning(), Meaning::RateLimit { .. }) => {
                Self::RateLimited
            }
            Err(Failure::Refused(_)) => Self::Refused,
            Err(Failure::Unknown(lost)) => match lost.cause {
                Cause::Timeout => Self::TimedOut,
                Cause::Disconnected => Self::Lost,
                Cause::Word(_) | Cause::NotUnderstood => Self::Unclear,
            },
            Err(Failure::NotSent(_)) => Self::Lost,
        }
    }
}

/// The exchanges of one command.
#[derive(Debug, Default)]
struct Exchanges {
    outcomes: [Counter; ExchangeOutcome::ALL.len()],
    /// From the write to the end.
    durations: Histogram,
}

/// The connections to one shard.
#[derive(Debug)]
pub(super) struct Connections {
    shard: String,
    pub(super) opened: Counter,
    pub(super) failed: Counter,
    /// Ended without being told to.
    pub(super) lost: Counter,
}

#[derive(Debug)]
pub struct Metrics {
    /// In the order of the table; the last is of commands that are not in it.
    exchanges: [OnceLock<Box<Exchanges>>; command::TABLE.len() + 1],
    shards: Vec<Connections>,
    /// Each broadcast on every connection.
    pub(super) broadcast_frames: Counter,
    /// All exchanges, those that took long or got no reply, and of these those without a reply.
    recent: Recent<3>,
}

/// The exchanges of the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecentExchanges {
    pub ended: u64,
    /// Took a second or more, or got no reply.
    pub slow: u64,
    /// Got no reply.
    pub unanswered: u64,
}

impl Metrics {
    pub(super) fn new(shards: &[String]) -> Self {
        let connections = |shard: &String| Connections {
            shard: shard.clone(),
            opened: Counter::default(),
            failed: Counter::default(),
            lost: Counter::default(),
        };
        Self {
            exchanges: [const { OnceLock::new() }; command::TABLE.len() + 1],
            shards: shards.iter().map(connections).collect(),
            broadcast_frames: Counter::default(),
            recent: Recent::default(),
        }
    }

    #[must_use]
    pub fn last_minute(&self, now: Instant) -> RecentExchanges {
        let [ended, slow, unanswered] = self.recent.last_minute(now);
        RecentExchanges { ended, slow, unanswered }
    }

    pub(super) fn exchange_ended(&self, command: &str, outcome: ExchangeOutcome, took: Duration, now: Instant) {
        let index = command::TABLE.iter().position(|spec| spec.name == command).unwrap_or(command::TABLE.len());
        let Some(exchanges) = self.exchanges.get(index) else { return };
        let exchanges = exchanges.get_or_init(Box::default);
        if let Some(counter) = exchanges.outcomes.get(outcome as usize) {
            counter.inc();
        }
        exchanges.durations.record(took);
        let unanswered = matches!(outcome, ExchangeOutcome::TimedOut | ExchangeOutcome::Lost);
        self.recent.note(now, [true, unanswered || took >= SLOW, unanswered]);
    }

    pub(super) fn connections(&self, shard: usize) -> Option<&Connections> {
        self.shards.get(shard)
    }

    /// Whether anything was asked of the gateway but the licence, which the bridge asks for by itself.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.exchanges().any(|(command, _)| command != command::GETLICENSE.name)
    }

    /// The commands that were written, by name.
    fn exchanges(&self) -> impl Iterator<Item = (&'static str, &Exchanges)> {
        let names = command::TABLE.iter().map(|spec| spec.name).chain([OTHER]);
        names.zip(&self.exchanges).filter_map(|(name, exchanges)| Some((name, &**exchanges.get()?)))
    }
}

/// Shows the metrics of each instance.
pub fn encode(page: &mut DescriptorEncoder<'_>, instances: &[(&str, &Metrics)]) -> fmt::Result {
    let mut family = page.counter("exchanges", "Commands written to the gateway, by command and outcome.")?;
    for (instance, metrics) in instances {
        let in_use = metrics.is_in_use();
        for (command, exchanges) in metrics.exchanges() {
            for ((_, outcome), counter) in ExchangeOutcome::ALL.iter().zip(&exchanges.outcomes) {
                if counter.get() == 0 && !in_use {
                    continue;
                }
                let labels = [("pos_instance", *instance), ("command", command), ("outcome", *outcome)];
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let mut family =
        page.histogram("exchange_duration_seconds", "From writing a command to the end of its exchange.")?;
    for (instance, metrics) in instances.iter().filter(|(_, metrics)| metrics.is_in_use()) {
        for (command, exchanges) in metrics.exchanges() {
            let labels = [("pos_instance", *instance), ("command", command)];
            exchanges.durations.encode(family.encode_family(&labels)?)?;
        }
    }
    let mut family = page.counter("connections", "Connections to the gateway, by what became of them.")?;
    for (instance, metrics) in instances {
        for Connections { shard, opened, failed, lost } in &metrics.shards {
            // A rate is to see the first loss, which comes after an opening.
            let lost = (opened.get() > 0).then_some(("lost", lost));
            let counted = [("opened", opened), ("failed", failed)].into_iter().filter(|(_, counter)| counter.get() > 0);
            for (what, counter) in counted.chain(lost) {
                let labels = [("pos_instance", *instance), ("shard", shard.as_str()), ("what", what)];
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let mut family = page.counter("broadcast_frames", "Broadcasts heard; each one on every connection.")?;
    for (instance, metrics) in instances {
        metrics.broadcast_frames.encode(family.encode_family(&[("pos_instance", *instance)])?)?;
    }
    Ok(())
}

/// Shows the shards as each instance sees them.
pub fn encode_shards(page: &mut DescriptorEncoder<'_>, shards: &[(&str, &ShardStatus)]) -> fmt::Result {
    let mut family = page.gauge("links", "Connections to the gateway, by shard and state.")?;
    for (instance, shard) in shards {
        for state in LinkState::ALL {
            let count = shard.links.iter().filter(|link| link.state == state).count();
            // An alert looks for an instance without links: one series of each shard is always there.
            if count == 0 && state != LinkState::Free {
                continue;
            }
            let labels = [("pos_instance", *instance), ("shard", shard.shard.as_str()), ("state", state.name())];
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    let mut family = page.gauge("shard_good", "1 where the last attempt to connect succeeded.")?;
    for (instance, shard) in shards {
        let labels = [("pos_instance", *instance), ("shard", shard.shard.as_str())];
        family.encode_family(&labels)?.encode_gauge(&u32::from(shard.good))?;
    }
    let mut family = page.gauge("shard_cordoned", "1 where the shard is taken out by hand.")?;
    for (instance, shard) in shards.iter().filter(|(_, shard)| shard.cordoned) {
        let labels = [("pos_instance", *instance), ("shard", shard.shard.as_str())];
        family.encode_family(&labels)?.encode_gauge(&1_u32)?;
    }
    let mut family = page.gauge("shard_round_trip_seconds", "Smoothed round trip of a ping.")?;
    for (instance, shard) in shards {
        if let Some(us) = shard.round_trip_us {
            let labels = [("pos_instance", *instance), ("shard", shard.shard.as_str())];
            family.encode_family(&labels)?.encode_gauge(&Duration::from_micros(us).as_secs_f64())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;

    use super::*;
    use crate::telemetry::metrics::page;

    #[derive(Debug)]
    struct Demo(Metrics);

    impl Collector for Demo {
        fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
            encode(&mut page, &[("demo", &self.0)])
        }
    }

    #[test]
    fn of_an_instance_that_only_its_licence_was_asked_for_no_durations_are_shown_and_no_outcome_that_there_was_not() {
        let metrics = Metrics::new(&["exon".to_owned()]);
        metrics.exchange_ended("getlicense", ExchangeOutcome::TimedOut, Duration::ZERO, Instant::now());
        let text = page(Demo(metrics));
        let outcome = |outcome| format!("command=\"getlicense\",outcome=\"{outcome}\"}}");
        assert!(text.contains(&format!("{} 1\n", outcome("timed-out"))), "{text}");
        assert!(!text.contains(&outcome("replied")) && !text.contains("exchange_duration_seconds_count"), "{text}");
    }

    #[test]
    fn a_shard_s_losses_are_shown_from_its_first_connection_on() {
        let metrics = Metrics::new(&["exon".to_owned(), "cyton".to_owned()]);
        metrics.connections(1).unwrap().opened.inc();
        let text = page(Demo(metrics));
        assert!(text.contains("shard=\"cyton\",what=\"lost\"} 0\n"), "{text}");
        assert!(!text.contains("failed") && !text.contains("exon"), "{text}");
    }

    #[test]
    fn an_outcome_is_counted_under_its_own_name_and_a_command_without_an_exchange_has_no_series() {
        let metrics = Metrics::new(&["exon".to_owned()]);
        for (index, (outcome, _)) in ExchangeOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        metrics.exchange_ended("getconfig", ExchangeOutcome::Lost, Duration::ZERO, Instant::now());
        metrics.exchange_ended("anything", ExchangeOutcome::Replied, Duration::ZERO, Instant::now());
        let text = page(Demo(metrics));
        for (command, outcome, count) in
            [("getconfig", "lost", 1), ("getconfig", "replied", 0), ("other", "replied", 1), ("other", "lost", 0)]
        {
            let series =
                format!("exchanges_total{{pos_instance=\"demo\",command=\"{command}\",outcome=\"{outcome}\"}}");
            assert!(text.contains(&format!("{series} {count}\n")), "{series} in {text}");
        }
        for absent in ["anything", "listpos"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
    }
}
