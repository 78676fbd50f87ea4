//! Whether this replica reaches the gateway, as the others are to know.

use std::time::Duration;

/// How long no instance has a link before they are handed over.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the replica is then the last choice for any instance.
const LAST_CHOICE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    failing_since: Option<Duration>,
    doubted_until: Option<Duration>,
}

impl Reach {
    /// Whether of the instances served at `now` any reaches the gateway; none where no instance is served.
    pub fn saw(&mut self, any: Option<bool>, now: Duration) {
        if any == Some(false) {
            let since = *self.failing_since.get_or_insert(now);
            if now.saturating_sub(since) >= PATIENCE {
                self.doubted_until = Some(now + LAST_CHOICE);
            }
        } else {
            self.failing_since = None;
        }
    }

    #[must_use]
    pub fn is_good(&self, now: Duration) -> bool {
        self.doubted_until.is_none_or(|until| now >= until)
    }
}
