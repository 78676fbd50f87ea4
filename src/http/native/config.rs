//! Settings of native connections, and what one of them may hold.

use std::time::Duration;

use crate::broadcasts::Native;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NativeConfig {
    /// When a connection hears broadcasts. One whose URL has a token hears them from the start.
    pub hearing: Native,
    /// The gateway's shards: names in a path that are no instance.
    pub shards: Vec<String>,
    pub limits: NativeLimits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeLimits {
    /// Commands in progress on one connection, and as many payments besides. One more is answered `ratelimit`.
    pub in_flight: usize,
    /// Connections that have not authenticated.
    pub anonymous: usize,
    /// How long one of them is safe from eviction.
    pub anonymous_grace: Duration,
    /// The interval between pings.
    pub ping_every: Duration,
    /// A connection that sent nothing for this long is closed.
    pub silence: Duration,
    /// A connection that takes no frame for this long is closed.
    pub write: Duration,
}

impl Default for NativeLimits {
    fn default() -> Self {
        Self {
            // The vendor's till has ten at most, just after it was told to open a point of sale.
            in_flight: 32,
            // Several times the tills of a festival, at some ten kilobytes each.
            anonymous: 1024,
            // A till presents its key within moments of connecting, a person at a terminal within this.
            anonymous_grace: Duration::from_secs(30),
            // Shorter than the idle timeout of any usual proxy, of which 30 s is the shortest.
            ping_every: Duration::from_secs(20),
            // Two pings, and the time for a slow network to answer the second.
            silence: Duration::from_secs(50),
            // As long as the gateway may take for an answer.
            write: Duration::from_secs(10),
        }
    }
}
