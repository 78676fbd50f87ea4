//! How long the caller of a read waits.

use std::time::Duration;

use tokio::time::Instant;

/// How long the caller of a read waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// When it must have an answer.
    pub deadline: Instant,
    /// For how long it waits for points at most; `limits.max_wait` where it does not say.
    pub for_points: Option<Duration>,
}

impl From<Instant> for Patience {
    fn from(deadline: Instant) -> Self {
        Self { deadline, for_points: None }
    }
}
