//! What comes up from the gateway without being asked for, and what it ends.
//!
//! `updatepos` ends the freshness of the catalogue at the very moment it is heard. Each connection brings a copy of it,
//! so a frame ends something only where it is not surely a copy of one that already has; and while no connection is
//! open it may be missed altogether, so the loss of the last one ends as much.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::gateway::{Heard, Upward};

/// How many broadcasts and comings and goings may wait; beyond it links stop reading until the relay has caught up.
pub const UPWARD_QUEUE: usize = 1024;

/// The most by which shards are taken to differ in delivering a broadcast.
const SKEW: Duration = Duration::from_secs(2);

/// The broadcast that puts the catalogue out of date.
const UPDATEPOS: &str = "updatepos";

/// Takes what connections report until all of them are gone.
pub async fn relay(instance: String, mut upward: mpsc::Receiver<Upward>) {
    while let Some(report) = upward.recv().await {
        if let Upward::Broadcast { link, message, .. } = report {
            tracing::debug!(instance, link, message, "broadcast");
        }
    }
}

/// What a pool tells at the very moment: ends freshness in `cache`.
#[must_use]
pub fn ends_freshness(instance: Arc<str>, cache: Arc<Cache>) -> Heard {
    let updates = Mutex::new(Updates::default());
    Heard(Arc::new(move |report| {
        let mut updates = updates.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = match report {
            Upward::Opened { link, at } => updates.opened(*link, *at),
            Upward::Broadcast { link, at, message, .. } => message == UPDATEPOS && updates.heard(*link, *at),
            Upward::Closed { link, last_heard } => updates.closed(*link, *last_heard),
        };
        if ended {
            cache.catalogue_changed(&instance);
        }
    }))
}

/// Which `updatepos` were heard on which connections. Pure: connections and instants in, whether the catalogue may
/// have changed out.
#[derive(Debug, Default)]
struct Updates {
    open: HashMap<u64, Instant>,
    recent: VecDeque<Occurrence>,
}

#[derive(Debug)]
struct Occurrence {
    first_heard: Instant,
    heard_on: Vec<u64>,
}

impl Updates {
    fn opened(&mut self, link: u64, at: Instant) -> bool {
        self.open.insert(link, at);
        false
    }

    /// What came after a connection was last heard may be missed, unless another was open by then.
    fn closed(&mut self, link: u64, last_heard: Instant) -> bool {
        self.open.remove(&link).is_some() && !self.open.values().any(|since| *since <= last_heard)
    }

    /// A frame is a copy of the earliest occurrence that its connection has not brought yet and that is young enough,
    /// if the connection was open when that was first heard. Otherwise it may be new, and counts as new.
    fn heard(&mut self, link: u64, at: Instant) -> bool {
        while self.recent.front().is_some_and(|oldest| at.saturating_duration_since(oldest.first_heard) > SKEW) {
            self.recent.pop_front();
        }
        let since = self.open.get(&link).copied();
        let copied = self
            .recent
            .iter_mut()
            .find(|one| !one.heard_on.contains(&link) && since.is_some_and(|since| since <= one.first_heard));
        if let Some(occurrence) = copied {
            occurrence.heard_on.push(link);
            return false;
        }
        self.recent.push_back(Occurrence { first_heard: at, heard_on: vec![link] });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn copies_on_other_connections_end_nothing_and_a_second_on_the_same_one_does() {
        let start = Instant::now();
        let mut updates = Updates::default();
        for link in 1..=3 {
            updates.opened(link, start);
        }
        assert!(updates.heard(1, after(start, 10)));
        assert!(!updates.heard(2, after(start, 20)));
        assert!(updates.heard(1, after(start, 30)), "the same connection twice means two broadcasts");
        assert!(!updates.heard(3, after(start, 40)));
        assert!(!updates.heard(3, after(start, 50)));
        assert!(updates.heard(3, after(start, 60)));
    }

    #[test]
    fn what_may_be_new_counts_as_new() {
        let start = Instant::now();
        let mut updates = Updates::default();
        updates.opened(1, start);
        assert!(updates.heard(1, after(start, 10)));
        updates.opened(2, after(start, 20));
        assert!(updates.heard(2, after(start, 30)), "its connection was not open when the first was heard");
        updates.opened(3, start);
        assert!(updates.heard(3, after(start, 5_000)), "too late for a copy");
    }

    #[test]
    fn the_loss_of_the_last_connection_ends_freshness() {
        let start = Instant::now();
        let mut updates = Updates::default();
        updates.opened(1, start);
        updates.opened(2, start);
        assert!(!updates.closed(1, after(start, 10)));
        assert!(updates.closed(2, after(start, 20)));
    }

    #[test]
    fn a_replacement_that_opened_after_the_silence_began_covers_nothing() {
        let start = Instant::now();
        let mut updates = Updates::default();
        updates.opened(1, start);
        updates.opened(2, after(start, 900));
        assert!(updates.closed(1, after(start, 300)));
    }
}
