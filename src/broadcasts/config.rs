//! The settings of the section `events`.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How many entries an instance's log holds to resume from.
    pub history: usize,
    /// How long a stream may be silent before it says that it is alive.
    pub heartbeat: Duration,
    /// The most by which shards are taken to differ in delivering a broadcast.
    pub skew: Duration,
    /// How many may listen at once, of all instances together.
    pub max_subscribers: usize,
    /// How many of them one token may have at one instance.
    pub max_listeners: usize,
    /// When a native connection receives broadcasts.
    pub native: Native,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Native {
    /// Once it has shown a key.
    #[default]
    AfterKey,
    /// From its beginning, as at the gateway itself.
    Open,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history: 1024,
            heartbeat: Duration::from_secs(15),
            skew: Duration::from_secs(2),
            max_subscribers: 20_000,
            max_listeners: 2000,
            native: Native::AfterKey,
        }
    }
}
