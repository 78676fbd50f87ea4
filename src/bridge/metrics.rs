//! Metrics of one instance's reads: how they were answered.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;

use super::error::Error;
use super::freshness::Forward;
use super::read::Served;
use crate::telemetry::metrics::Families;

/// How a read was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// From a fresh copy.
    Hit,
    /// From an old copy that the caller allowed, while a new one is fetched.
    Stale,
    /// Fetched: there was no copy.
    Miss,
    /// Fetched: the copy was out of date.
    Expired,
    /// Fetched: the caller asked for it.
    Requested,
    /// By a fetch that another caller had begun.
    Shared,
    /// From an old copy, since no new one could be had.
    Fallback,
    /// Not: only a copy was wanted, and there was none.
    Absent,
    /// Not: the gateway could not be asked, or refused.
    Failed,
}

impl Answer {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Hit, "hit"),
        (Self::Stale, "stale"),
        (Self::Miss, "miss"),
        (Self::Expired, "expired"),
        (Self::Requested, "requested"),
        (Self::Shared, "shared"),
        (Self::Fallback, "fallback"),
        (Self::Absent, "absent"),
        (Self::Failed, "failed"),
    ];

    fn of(outcome: &Result<Served, Error>) -> Self {
        let status = match outcome {
            Ok(served) => served.status,
            Err(Error::NotCached) => return Self::Absent,
            Err(_) => return Self::Failed,
        };
        match status.forward {
            _ if status.detail.is_some() => Self::Fallback,
            None if status.ttl_s.is_some_and(|ttl_s| ttl_s < 0) => Self::Stale,
            None => Self::Hit,
            Some(_) if status.collapsed => Self::Shared,
            Some(Forward::UriMiss) => Self::Miss,
            Some(Forward::Stale) => Self::Expired,
            Some(Forward::Request) => Self::Requested,
        }
    }
}

/// What one instance counts.
#[derive(Debug, Default)]
pub struct Metrics([Counter; Answer::ALL.len()]);

impl Metrics {
    pub(super) fn answered(&self, outcome: &Result<Served, Error>) {
        if let Some(counter) = self.0.get(Answer::of(outcome) as usize) {
            counter.inc();
        }
    }
}

/// Shows the metrics of each instance.
pub fn encode(page: &mut DescriptorEncoder<'_>, instances: &[(&str, &Metrics)]) -> fmt::Result {
    let mut family = page.counter("cache_answers", "Reads, by how they were answered.")?;
    for (instance, Metrics(counters)) in instances {
        for ((_, answer), counter) in Answer::ALL.iter().zip(counters).filter(|(_, counter)| counter.get() > 0) {
            counter.encode(family.encode_family(&[("pos_instance", *instance), ("answer", *answer)])?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_under_its_own_name() {
        for (index, (answer, _)) in Answer::ALL.into_iter().enumerate() {
            assert_eq!(answer as usize, index);
        }
    }
}
