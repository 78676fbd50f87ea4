//! The bridge itself: one method a use case, free of HTTP and of sockets.

pub mod error;

use tokio::time::Instant;

pub use error::Error;

use crate::wire::{Body, Command};

/// Answers use cases for all configured instances. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bridge {}

impl Bridge {
    /// The configured instances, in order of name.
    #[must_use]
    pub fn instances(&self) -> Vec<String> {
        Vec::new()
    }

    /// Asks a read or an upsert, on another shard if the first fails, within `deadline`.
    pub async fn ask(&self, instance: &str, command: Command, deadline: Instant) -> Result<Body, Error> {
        let _ = (instance, command, deadline);
        Err(Error::UnknownInstance)
    }

    /// Sends a command that must not be repeated (a payment, or a raw command): written once, never again, and run to
    /// its end even if the caller goes away.
    pub async fn send_once(&self, instance: &str, command: Command, deadline: Instant) -> Result<Body, Error> {
        let _ = (instance, command, deadline);
        Err(Error::UnknownInstance)
    }

    /// Whether a gateway connection of every instance is open.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        false
    }

    /// Whether the bridge has begun to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        false
    }
}
