//! The gateway room: commands in, replies out, over a pool of WebSocket connections to the shards.
//!
//! The gateway has no request ids and answers in any order, so a connection ([`link`]) carries one command at a time and
//! [`exchange`] decides which frame ends it. Shards fail and return, so [`shard`] keeps their health and [`plan`] decides how
//! many connections to open. A payment must never be sent twice, so every failure says whether the gateway can have seen the
//! command ([`error`]).
//!
//! This room sends what it is given, once. Whether a command may be sent at all (budget) or sent again (its kind) is
//! decided above it. Broadcasts are passed up unread ([`events`]).

mod attempt;
pub mod config;
mod context;
pub mod dialer;
pub mod error;
pub mod events;
pub mod exchange;
pub mod link;
mod links;
pub mod metrics;
mod outage;
pub mod plan;
pub mod pool;
mod reach;
pub mod runtimes;
pub mod shard;
mod socket;
mod state;
mod tls;

#[cfg(test)]
mod tests;

pub use attempt::{ask_once, dial_once};
pub use config::Config;
pub use dialer::{Dial, Dialer};
#[cfg(test)]
pub use error::Fault;
pub use error::{Cause, Ending, Failure, FaultKind, LateFrames, Lost, NotSent, Refusal};
pub use events::{EventSink, LinkEvent};
pub use pool::{Lease, Pool, Reply};
pub use runtimes::Runtimes;
pub use state::{LinkState, LinkStatus, Priority, ShardStatus};
pub use tls::{client_config, trusted_certificates};
