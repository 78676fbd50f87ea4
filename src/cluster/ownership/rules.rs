//! Until when a session acts, and how long others wait.

use std::time::Duration;

use crate::cluster::config::MARGIN;

/// For how long a session may act, and others must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    pub lease: Duration,
    pub margin: Duration,
}

impl Rules {
    #[must_use]
    pub fn of(lease: Duration) -> Self {
        Self { lease, margin: MARGIN }
    }

    /// Until when a session may act whose renewal was sent at `sent` and acknowledged.
    #[must_use]
    pub fn valid_until(&self, sent: Duration) -> Duration {
        (sent + self.lease).saturating_sub(self.margin)
    }

    /// How long a beat stands still before others may end the session.
    #[must_use]
    pub fn overdue_after(&self) -> Duration {
        self.lease + self.margin
    }
}
