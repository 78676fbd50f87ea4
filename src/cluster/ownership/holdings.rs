//! For which instances this session may act, and in which epoch.
//!
//! An epoch counts from the acknowledgement of its claim until its release is sent, whatever becomes of the release. An epoch
//! that the database names and that is not held, because the answer to a claim or a release was lost, is never acted under:
//! the instance is claimed again, which begins the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::reading::Row;
use crate::tenure::SessionId;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holdings {
    me: SessionId,
    held: BTreeMap<Arc<str>, Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    pub epoch: i64,
    /// When the claim was acknowledged.
    pub since: Duration,
    /// From when on it stays a while where it is.
    pub stays_from: Duration,
}

impl Holdings {
    #[must_use]
    pub fn of(me: SessionId) -> Self {
        Self { me, held: BTreeMap::new() }
    }

    /// The claim was acknowledged at `now`.
    pub fn claimed(&mut self, instance: &Arc<str>, epoch: i64, now: Duration) {
        self.held.insert(Arc::clone(instance), Held { epoch, since: now, stays_from: now });
    }

    /// It was not moved, and stays for as long as if it had been claimed at `now`.
    pub fn stays(&mut self, instance: &str, now: Duration) {
        if let Some(held) = self.held.get_mut(instance) {
            held.stays_from = now;
        }
    }

    /// The release is about to be sent: the epoch that it is for. It does not count any more.
    pub fn release(&mut self, instance: &str) -> Option<i64> {
        self.held.remove(instance).map(|held| held.epoch)
    }

    #[must_use]
    pub fn get(&self, instance: &str) -> Option<Held> {
        self.held.get(instance).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Held)> {
        self.held.iter().map(|(instance, held)| (instance, *held))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What was read of an instance by a query sent at `asked`; no row where the database has none. Whether the instance was
    /// lost by that: it was held, and somebody took it since.
    pub fn saw(&mut self, instance: &str, row: Option<&Row>, asked: Duration) -> bool {
        let Some(held) = self.get(instance) else { return false };
        let is_mine = row.is_some_and(|row| row.session == Some(self.me) && row.epoch == held.epoch);
        // A query that was sent before the claim was acknowledged may not have seen it.
        if is_mine || asked < held.since {
            return false;
        }
        self.held.remove(instance);
        true
    }
}
