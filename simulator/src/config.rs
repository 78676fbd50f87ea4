//! What a simulated gateway is made of.
//!
//! Every value has a default that is quiet and quick: no limits, no latency, no faults. A test says only what it is
//! about.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::commands::Verb;
use super::faults::Fault;

/// Slug of the instance that exists by default.
pub const DEFAULT_INSTANCE: &str = "demo";

/// Key of the instance that exists by default. It opens nothing but the simulator.
pub const DEFAULT_API_KEY: &str = "demo-key";

/// One customer of the gateway: a festival with its own points of sale and its own key.
#[derive(Clone)]
pub struct Instance {
    /// What the URL calls it.
    pub slug: String,
    /// What every command has to carry.
    pub api_key: String,
}

/// Whose requests share one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counting {
    /// Nothing is refused; points are still reported by [`super::Counts`].
    #[default]
    Off,
    /// One counter for each instance and command.
    PerCommand,
    /// One counter for each instance, shared by all commands.
    PerInstance,
}

/// The rate limit: no more than `capacity` points within any `window`, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Whose requests share one counter.
    pub counting: Counting,
    /// Points that fit into a window. The vendor documents 100.
    pub capacity: u32,
    /// How long a request is counted. The vendor documents 30 seconds.
    pub window: Duration,
    /// Points of one request where they differ from the documented ones, by command.
    pub costs: BTreeMap<String, u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Counting::Off)
    }
}

impl Limits {
    /// The documented limit, counted as `counting` says.
    #[must_use]
    pub fn new(counting: Counting) -> Self {
        Self { counting, capacity: 100, window: Duration::from_secs(30), costs: BTreeMap::new() }
    }

    /// The points of one request.
    pub(super) fn cost(&self, verb: Verb) -> u32 {
        self.costs.get(verb.name()).copied().unwrap_or_else(|| verb.documented_cost())
    }
}

/// Everything that can be chosen about a simulated gateway.
#[derive(Clone)]
pub struct Config {
    /// Where the gateway listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the control endpoint listens; none by default.
    pub control: Option<SocketAddr>,
    /// The shards, all behind the one address, told apart by the path.
    pub shards: Vec<String>,
    /// The instances, all with the same sample data to begin with.
    pub instances: Vec<Instance>,
    /// Seed of every choice left to chance: latency, jitter, and which fault strikes.
    pub seed: u64,
    /// Least and most time between applying a command and answering it, drawn anew for each: replies overtake each other.
    pub latency: (Duration, Duration),
    /// The rate limit.
    pub limits: Limits,
    /// The limiter sees each command up to this much after it was written, as on a slow network.
    pub arrival_jitter: Duration,
    /// Each connection hears a broadcast up to this much after it was made, but always in order.
    pub broadcast_jitter: Duration,
    /// How often `updatepos` goes to every instance by itself; never by default.
    pub broadcast_every: Option<Duration>,
    /// Whether the server speaks first, with a `session` event.
    pub session_event: bool,
    /// Faults in force from the start.
    pub faults: Vec<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            control: None,
            shards: ["exon", "cyton", "zeus"].map(str::to_owned).into(),
            instances: vec![Instance { slug: DEFAULT_INSTANCE.to_owned(), api_key: DEFAULT_API_KEY.to_owned() }],
            seed: 0,
            latency: (Duration::ZERO, Duration::ZERO),
            limits: Limits::default(),
            arrival_jitter: Duration::ZERO,
            broadcast_jitter: Duration::ZERO,
            broadcast_every: None,
            session_event: false,
            faults: Vec::new(),
        }
    }
}

impl Config {
    /// Refuses what cannot be simulated.
    pub(super) fn check(&self) -> io::Result<()> {
        let wrong = if self.shards.is_empty() {
            "a gateway needs at least one shard"
        } else if names_twice(self.shards.iter()) {
            "two shards have the same name"
        } else if self.instances.is_empty() {
            "a gateway needs at least one instance"
        } else if names_twice(self.instances.iter().map(|instance| &instance.slug)) {
            "two instances have the same slug"
        } else if self.latency.0 > self.latency.1 {
            "the least latency is above the most"
        } else if self.limits.window.is_zero() {
            "a window needs a length"
        } else if self.broadcast_every.is_some_and(|every| every.is_zero()) {
            "broadcasts need a pause between them"
        } else {
            return self.faults.iter().try_for_each(|fault| {
                fault.check().map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))
            });
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
    }
}

/// Whether some name is there a second time.
fn names_twice<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    let mut known = BTreeSet::new();
    !names.all(|name| known.insert(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        assert!(Config::default().check().is_ok());
        let shards = ["exon", "zeus", "exon"].map(str::to_owned).into();
        let refused = Config { shards, ..Config::default() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "two shards have the same name");
        let instance = Config::default().instances[0].clone();
        let refused = Config { instances: vec![instance; 2], ..Config::default() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "two instances have the same slug");
    }
}
