//! Handing over with the next owner prepared: what this session offers to others, and what it prepares for that others offer.
//!
//! An offer decides nothing. Whoever is offered an instance opens its connections and says so; then the owner gives it up, and it is
//! claimed like any other. Each side writes again what it does not read of itself, so a write that was lost costs a moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::reading::Row;
use crate::tenure::SessionId;

/// After which time something is written again that is not read yet.
const AGAIN: Duration = Duration::from_secs(2);

/// For how many instances this session prepares at once.
pub(super) const PREPARED_AT_ONCE: usize = 1024;

/// How long a preparation is kept whose instance does not become this session's.
const KEPT: Duration = Duration::from_secs(30);

/// An instance that a session offers to another, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub instance: Arc<str>,
    pub epoch: i64,
    pub to: Option<SessionId>,
}

/// An instance and the epoch in which another session owns it.
pub type Preparation = (Arc<str>, i64);

#[derive(Debug, Clone, Copy)]
struct Made {
    epoch: i64,
    to: SessionId,
    since: Duration,
    /// When it was written last.
    told: Duration,
    /// Given up without a preparation, where that takes too long.
    is_urgent: bool,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// The other is prepared, or it is urgent: to be given up now.
    Ripe(SessionId),
    /// Not prepared in time, and it can stay.
    Late,
}

#[derive(Debug, Default)]
pub(super) struct Offers(BTreeMap<Arc<str>, Made>);

impl Offers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, instance: &str) -> bool {
        self.0.contains_key(instance)
    }

    pub(super) fn remove(&mut self, instance: &str) {
        self.0.remove(instance);
    }

    pub(super) fn make(
        &mut self,
        (instance, epoch): Preparation,
        to: SessionId,
        now: Duration,
        is_urgent: bool,
    ) -> Offer {
        self.0.insert(Arc::clone(&instance), Made { epoch, to, since: now, told: now, is_urgent });
        Offer { instance, epoch, to: Some(to) }
    }

    /// All of them are urgent from now on.
    pub(super) fn hurry(&mut self) {
        self.0.values_mut().for_each(|made| made.is_urgent = true);
    }

    /// Forgets offers to sessions that are gone, and of what is not held in that epoch.
    pub(super) fn keep(&mut self, is_held: impl Fn(&str, i64) -> bool, takes: impl Fn(&str, SessionId) -> bool) {
        self.0.retain(|instance, made| is_held(instance, made.epoch) && takes(instance, made.to));
    }

    /// What became of them, and which are to be written again.
    pub(super) fn look(
        &mut self,
        rows: &HashMap<Arc<str>, Row>,
        patience: Duration,
        now: Duration,
    ) -> (Vec<(Arc<str>, Offered)>, Vec<Offer>) {
        let (mut ended, mut again) = (Vec::new(), Vec::new());
        for (instance, made) in &mut self.0 {
            let row = rows.get(instance);
            let is_late = now.saturating_sub(made.since) >= patience;
            if row.is_some_and(|row| row.offered == Some(made.to) && row.prepared == Some(made.to))
                || (is_late && made.is_urgent)
            {
                ended.push((Arc::clone(instance), Offered::Ripe(made.to)));
            } else if is_late {
                ended.push((Arc::clone(instance), Offered::Late));
                again.push(Offer { instance: Arc::clone(instance), epoch: made.epoch, to: None });
            } else if row.is_none_or(|row| row.offered != Some(made.to)) && now.saturating_sub(made.told) >= AGAIN {
                made.told = now;
                again.push(Offer { instance: Arc::clone(instance), epoch: made.epoch, to: Some(made.to) });
            }
        }
        for (instance, _) in &ended {
            self.0.remove(instance);
        }
        (ended, again)
    }
}

#[derive(Debug, Clone, Copy)]
struct Prepared {
    epoch: i64,
    since: Duration,
    /// When it was last said that its connections have been open for long enough; none while they were not.
    told: Option<Duration>,
    listens: bool,
}

/// What this session prepares for.
#[derive(Debug, Default)]
pub(super) struct Preparations(BTreeMap<Arc<str>, Prepared>);

impl Preparations {
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < PREPARED_AT_ONCE
    }

    pub(super) fn contains(&self, instance: &str) -> bool {
        self.0.contains_key(instance)
    }

    pub(super) fn begin(&mut self, (instance, epoch): Preparation, now: Duration) {
        self.0.insert(instance, Prepared { epoch, since: now, told: None, listens: false });
    }

    pub(super) fn claimed(&mut self, instance: &str) {
        self.0.remove(instance);
    }

    /// Its connections have been open for long enough.
    pub(super) fn listens(&mut self, instance: &str, epoch: i64) {
        if let Some(prepared) = self.0.get_mut(instance).filter(|prepared| prepared.epoch == epoch) {
            prepared.listens = true;
        }
    }

    /// Drops those that may not become this session's any more; which.
    pub(super) fn drop_useless(&mut self, now: Duration, may_come: impl Fn(&str, i64) -> bool) -> Vec<Arc<str>> {
        let useless = self.0.extract_if(.., |instance, prepared| {
            now.saturating_sub(prepared.since) >= KEPT || !may_come(instance, prepared.epoch)
        });
        useless.map(|(instance, _)| instance).collect()
    }

    /// Which the owner is to be told of now, as far as it was not read that it was.
    pub(super) fn tell(&mut self, rows: &HashMap<Arc<str>, Row>, me: SessionId, now: Duration) -> Vec<Preparation> {
        let mut told_now = Vec::new();
        for (instance, prepared) in self.0.iter_mut().filter(|(_, prepared)| prepared.listens) {
            let is_read = rows.get(instance).is_some_and(|row| row.prepared == Some(me));
            let is_told = prepared.told.is_some_and(|told| now.saturating_sub(told) < AGAIN);
            if !is_read && !is_told {
                prepared.told = Some(now);
                told_now.push((Arc::clone(instance), prepared.epoch));
            }
        }
        told_now
    }
}
