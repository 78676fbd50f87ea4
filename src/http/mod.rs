//! HTTP: the room callers meet first. REST under `/v1`, problems, health, and the document that describes them.
//!
//! It turns requests into commands for [`crate::bridge::Bridge`] and outcomes into answers, and decides nothing about
//! money itself. What it refuses to do: send anything before caller, scope and body are known to be good; tell a
//! caller a secret; or let an error leave in any other form than a problem document.

pub mod answer;
pub mod auth;
pub mod body;
pub mod caching;
pub mod call;
pub mod client;
pub mod connections;
pub mod dashboard;
mod doorway;
pub mod edge;
pub mod express;
pub mod fallback;
pub mod idempotency_key;
pub mod integer;
pub mod metrics;
pub mod native;
pub mod negotiate;
pub mod openapi;
mod page;
pub mod pattern;
pub mod preconditions;
pub mod problem;
pub mod queries;
pub mod rate_limit;
pub mod representation;
pub mod routes;
pub mod sale;
pub mod server;
pub mod shared_text;
pub mod sse;
pub mod stream;
pub mod tally;
pub mod tls;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use server::{Listeners, Parts, Servers, Shared, run, workers};

/// The room's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Every answer but a stream comes within it.
    pub deadline: Duration,
    /// The largest body taken, in bytes.
    pub max_body: usize,
    /// The address callers know the bridge by, without a slash at its end; makes links in answers absolute.
    pub public_url: Option<String>,
    /// The origins of web pages that may call; none turns CORS off.
    pub cors_origins: Vec<String>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<client::Network>,
    /// How long a stopping server waits for requests in progress.
    pub shutdown_grace: Duration,
    /// How long a stream of events may be silent before it says that it is alive.
    pub heartbeat: Duration,
    /// How long a caller may take nothing of what is written to it before the system gives its connection up.
    pub untaken: Duration,
    /// The gateway's own protocol, spoken downstream.
    pub native: native::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            max_body: 1024 * 1024,
            public_url: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            shutdown_grace: Duration::from_secs(20),
            heartbeat: Duration::from_secs(15),
            // Longer than any network pauses, and not so long that callers who never read could gather.
            untaken: Duration::from_secs(30),
            native: native::Config::default(),
        }
    }
}
