//! What one pool counts for whoever watches it: exchanges by command and outcome, and what became of its connections.
//!
//! Commands that callers invent are counted together, so that nobody can fill the memory of those who watch.

use std::time::Duration;

use super::error::{Cause, Failure};
use crate::protocol::{Body, Meaning, command};
use crate::telemetry::meter::{Counter, Durations};

/// Under which all commands are counted that are not in the table.
const OTHER: &str = "other";

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With its reply.
    Replied,
    /// With a word that means no.
    Refused,
    /// With `ratelimit`.
    RateLimited,
    /// With a word that does not say whether the command took effect.
    Unclear,
    /// Not within the request timeout.
    TimedOut,
    /// With its connection.
    Lost,
}

impl Outcome {
    /// Every outcome with its name.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Replied, "replied"),
        (Self::Refused, "refused"),
        (Self::RateLimited, "rate-limited"),
        (Self::Unclear, "unclear"),
        (Self::TimedOut, "timed-out"),
        (Self::Lost, "lost"),
    ];

    /// The outcome of an exchange that was written.
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
pub struct Exchanges {
    outcomes: [Counter; Outcome::ALL.len()],
    /// From the write to the end.
    pub durations: Durations,
}

impl Exchanges {
    /// How many ended so.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, Counter::get)
    }
}

/// What became of the connections to one shard.
#[derive(Debug, Default)]
pub struct Connections {
    /// Opened.
    pub opened: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Lost without being told to close.
    pub lost: Counter,
}

/// What one pool counts.
#[derive(Debug)]
pub struct Tally {
    exchanges: [Exchanges; command::TABLE.len()],
    others: Exchanges,
    shards: Vec<(String, Connections)>,
    /// Broadcasts heard, each on every connection.
    pub broadcast_frames: Counter,
}

impl Tally {
    pub(super) fn new(shards: &[String]) -> Self {
        Self {
            exchanges: std::array::from_fn(|_| Exchanges::default()),
            others: Exchanges::default(),
            shards: shards.iter().map(|shard| (shard.clone(), Connections::default())).collect(),
            broadcast_frames: Counter::default(),
        }
    }

    /// An exchange that was written has ended.
    pub(super) fn ended(&self, command: &str, outcome: Outcome, took: Duration) {
        let position = command::TABLE.iter().position(|spec| spec.name == command);
        let exchanges = position.and_then(|index| self.exchanges.get(index)).unwrap_or(&self.others);
        if let Some(counter) = exchanges.outcomes.get(outcome as usize) {
            counter.count();
        }
        exchanges.durations.note(took);
    }

    /// The connections to a shard.
    pub(super) fn connections(&self, shard: usize) -> Option<&Connections> {
        self.shards.get(shard).map(|(_, connections)| connections)
    }

    /// The exchanges by command; those of commands that are not in the table together.
    pub fn exchanges(&self) -> impl Iterator<Item = (&'static str, &Exchanges)> {
        let known = command::TABLE.iter().map(|spec| spec.name).zip(&self.exchanges);
        known.chain([(OTHER, &self.others)])
    }

    /// The connections by shard.
    pub fn shards(&self) -> impl Iterator<Item = (&str, &Connections)> {
        self.shards.iter().map(|(shard, connections)| (shard.as_str(), connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_counted_under_its_own_name() {
        for (index, (outcome, _)) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
        let tally = Tally::new(&["exon".to_owned()]);
        tally.ended("getconfig", Outcome::Lost, Duration::ZERO);
        tally.ended("anything", Outcome::Replied, Duration::ZERO);
        let ended = |command: &str, outcome| {
            tally.exchanges().find(|(name, _)| *name == command).map(|(_, exchanges)| exchanges.ended(outcome))
        };
        assert_eq!((ended("getconfig", Outcome::Lost), ended("getconfig", Outcome::Replied)), (Some(1), Some(0)));
        assert_eq!((ended("other", Outcome::Replied), ended("anything", Outcome::Replied)), (Some(1), None));
    }
}
