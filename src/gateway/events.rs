//! What connections report to the rooms above, as it happens.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::links::LinkId;
use crate::protocol::Body;

#[derive(Debug, Clone)]
pub enum LinkEvent {
    /// A connection is open; broadcasts of the instance reach it from here on.
    Opened { link: LinkId, at: Instant },
    /// A broadcast came over a connection. The same one comes over every other connection too.
    Broadcast { link: LinkId, at: Instant, message: String, parameters: Body },
    /// A message came that cannot be read and may have been a broadcast. It may come over every other connection too.
    Unreadable {
        link: LinkId,
        at: Instant,
        /// Tells it from others.
        digest: u64,
    },
    Closed {
        link: LinkId,
        /// When something was last heard on it: what came to the instance after that may have been missed.
        last_heard: Instant,
    },
}

/// Called with each event as it happens. It must return at once: the connection waits for it.
#[derive(Clone)]
pub struct EventSink(pub Arc<dyn Fn(&LinkEvent) + Send + Sync>);

impl fmt::Debug for EventSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EventSink")
    }
}
