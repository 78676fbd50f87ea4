//! The gateway's own protocol, spoken downstream: a till or bot written for ConcertPOS works by changing its URL.
//!
//! A WebSocket upgrade at the forms of the gateway's URL opens a connection on which commands and replies have the shapes
//! of the gateway's wire, and share cache, budget, failover and journal with the REST callers. What differs is for the
//! better: every reply belongs to a command of this very connection, equal reads cost nothing, a broadcast comes once.
//!
//! Reading downwards: `upgrade.rs` answers the upgrade; `session.rs` is one connection's task; `reader.rs` makes messages of
//! what comes; `executor.rs` carries one command out; `subscription.rs` is what is heard unasked; `target.rs`, `frame.rs` and `error.rs` are pure: the URL, the frames,
//! and THE table of error words; `anonymous_limit.rs` bounds what strangers can hold.
//!
//! What it refuses to do: send a command before its caller is known; let a slow or silent peer hold more than its own
//! task; cancel what was begun because its peer left.

mod anonymous_limit;
mod error;
mod executor;
mod frame;
mod reader;
mod session;
mod subscription;
mod target;
mod upgrade;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::guard;
use actix_web::web::{self, ServiceConfig};

use anonymous_limit::AnonymousLimit;
use serde_json::value::RawValue;

use crate::broadcasts::Native;
use crate::http::upgrade::{PATTERNS, is_upgrade};
use crate::protocol::{Body, Format};

/// The room's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// When a connection hears broadcasts. One that came with a listener's token does so from its beginning.
    pub hearing: Native,
    /// The gateway's shards: names in a path that mean no instance.
    pub shards: Vec<String>,
    /// Instances by their slugs at the gateway, where those are not their names here: a till knows only the slug.
    pub slugs: BTreeMap<String, String>,
    /// What a connection may hold.
    pub limits: NativeLimits,
}

/// What a connection may hold, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeLimits {
    /// Commands under way on one connection; one more is answered at once that it may come later.
    pub in_flight: usize,
    /// Connections that showed no key.
    pub keyless: usize,
    /// How long one of them keeps its place when others need it.
    pub key_patience: Duration,
    /// How often a connection is asked whether it lives.
    pub ping_every: Duration,
    /// How long one may be silent before it is given up.
    pub silence: Duration,
    /// How long one may take to make room for the next frame.
    pub write: Duration,
}

impl Default for NativeLimits {
    fn default() -> Self {
        Self {
            // The vendor's till has ten at most, just after it was told to open a point of sale.
            in_flight: 32,
            // A festival's tills many times over, at some ten kilobytes each.
            keyless: 1024,
            // The till shows its key within moments of connecting, a person at a terminal within this.
            key_patience: Duration::from_secs(30),
            // Shorter than any proxy's patience with a silent connection; 30 s is the shortest usual one.
            ping_every: Duration::from_secs(20),
            // Two pings, and the time for a slow network to answer the second.
            silence: Duration::from_secs(50),
            // As long as the gateway is given to answer.
            write: Duration::from_secs(10),
        }
    }
}

/// What all connections share, made once.
#[derive(Debug)]
pub struct NativeState {
    anonymous_limit: Arc<AnonymousLimit>,
    /// One holder is the room itself, each other a connection.
    present: Arc<()>,
}

impl NativeState {
    /// An empty room.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let patience = match config.hearing {
            Native::AfterKey => Some(limits.key_patience),
            Native::Open => None,
        };
        Self { anonymous_limit: Arc::new(AnonymousLimit::new(limits.keyless, patience)), present: Arc::new(()) }
    }

    /// Counts a connection for as long as it is held.
    fn presence(&self) -> Arc<()> {
        Arc::clone(&self.present)
    }

    /// How many connections there are: of those that showed no key, and of the others.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let (all, keyless) = (Arc::strong_count(&self.present) - 1, self.anonymous_limit.count());
        // Counted one after the other, while connections come and go.
        (keyless, all.saturating_sub(keyless))
    }
}

/// Adds the upgrade. To be added after all other routes, since its paths match whatever stands at the root; it takes
/// nothing but upgrades, so a page may share a path with it.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(web::resource(PATTERNS).guard(guard::fn_guard(is_upgrade)).to(upgrade::answer))
}

/// What is read out of a till's message, its command and its parameters, and the frame in which they would be answered. For
/// the fuzzer, which is a crate of its own; nothing here goes anywhere.
#[doc(hidden)]
#[must_use]
pub fn rehearse(text: &str, format: Format) -> (Option<(String, String)>, String) {
    match frame::Request::read(text, format) {
        Ok(request) => {
            let parameters = serde_json::to_string(&request.parameters).unwrap_or_default();
            let body = serde_json::from_str::<&RawValue>(&parameters).map(Body::from);
            let answer = body.map_or_else(|_| String::new(), |body| frame::event(&request.command, &body, format));
            (Some((request.command, parameters)), answer)
        }
        Err(refusal) => (None, frame::error(&refusal, format)),
    }
}
