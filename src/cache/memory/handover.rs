//! Copies that pass from one owner of an instance to the next.
//!
//! After a handover a copy is as fresh as it was: the old owner told until when nothing had ended it, and the new one hears
//! what comes since. After a death nobody listened for a while, so none is fresh. A copy that a password opened is found only
//! with the hash of that password under the instance's key: an owner with another key has it for nobody.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cache, EpochStatus, subject};
use crate::cache::carried::{CarriedCopy, Ended};
use crate::cache::epochs::Epoch;
use crate::cache::key::Key;
use crate::cache::reply::CachedReply;
use crate::protocol::{Body, Spec, command};

impl Cache {
    /// From now on it is noted which copies change, for [`Self::changed`].
    pub fn note_changes(&self) {
        self.changes.want();
    }

    /// Returns once a copy has changed since the last call of [`Self::changed`].
    pub async fn until_changed(&self) {
        self.changes.noted.notified().await;
    }

    /// What changed since the last call: keys, with their copy where there still is one.
    #[must_use]
    pub fn changed(&self) -> Vec<(Key, Option<CachedReply>)> {
        let keys = self.changes.take();
        keys.into_iter().map(|key| (key.clone(), self.copy(&key))).collect()
    }

    /// As [`Self::changed`], of one instance alone.
    #[must_use]
    pub fn changed_of(&self, instance: &str) -> Vec<(Key, Option<CachedReply>)> {
        let (own, others) = self.changed().into_iter().partition(|(key, _)| *key.instance == *instance);
        self.note_again(Vec::into_iter(others).map(|(key, _)| key));
        own
    }

    /// Has [`Self::changed`] give these again, whose copies could not be written.
    pub fn note_again(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.changes.note(&key));
    }

    /// All copies of an instance, as they are now.
    #[must_use]
    pub fn carried(&self, instance: &str) -> Vec<CarriedCopy> {
        let now = Instant::now();
        let own = self.copies.iter().filter(|(key, _)| *key.instance == *instance);
        own.filter_map(|(key, copy)| self.carry((*key).clone(), &copy, now)).collect()
    }

    fn carry(&self, key: Key, copy: &CachedReply, now: Instant) -> Option<CarriedCopy> {
        let spec = command::find(key.command).filter(|spec| self.rule(spec.name).is_some())?;
        let ended = match self.epoch_status(spec, &key, copy) {
            EpochStatus::Current => Ended::No,
            EpochStatus::Ended(None) => Ended::Unknown,
            EpochStatus::Ended(Some(at)) => Ended::Ago(ms_up(now.saturating_duration_since(at))),
        };
        let age_ms = ms_up(now.saturating_duration_since(copy.written));
        Some(CarriedCopy { key, body: copy.body.clone(), age_ms, ended })
    }

    /// Goes on with the copies that the owner before handed over at most `away` ago, in place of any that are here: as fresh
    /// as they were. Nothing that ended their freshness since may have been missed. No command of the instance may be under
    /// way.
    pub fn take_over(&self, instance: &str, mut copies: Vec<CarriedCopy>, away: Duration) {
        let now = Instant::now();
        self.begin_anew(instance, now);
        // An epoch is ended as often as there are instants: those that ended first come first.
        copies.sort_by_key(|copy| match copy.ended {
            Ended::Unknown => (0, 0),
            Ended::Ago(ms) => (1, u64::MAX - ms),
            Ended::No => (2, 0),
        });
        let copies: Vec<_> =
            copies.into_iter().filter_map(|copy| Some((self.spec_of(&copy.key, instance)?, copy))).collect();
        let mut rest = copies.as_slice();
        while let Some((_, first)) = rest.first() {
            let alike = rest.iter().take_while(|(_, copy)| copy.ended == first.ended).count();
            let Some((group, others)) = rest.split_at_checked(alike) else { return };
            for (spec, copy) in group {
                self.insert_carried(spec, copy, away, now);
            }
            if let Ended::Ago(ms) = first.ended {
                let at = now.checked_sub(Duration::from_millis(ms).saturating_add(away)).unwrap_or(now);
                self.end_subjects_of(group, at);
            }
            rest = others;
        }
    }

    /// Begins with copies that an owner left without a word, each this old, in place of any that are here: none is fresh.
    pub fn begin_with_former(&self, instance: &str, copies: impl IntoIterator<Item = (Key, Body, Duration)>) {
        self.begin_anew(instance, Instant::now());
        for (key, body, age) in copies {
            if self.spec_of(&key, instance).is_some() {
                self.begin_with(&key, &body, age);
            }
        }
    }

    fn begin_anew(&self, instance: &str, now: Instant) {
        for (key, _) in self.copies.iter().filter(|(key, _)| *key.instance == *instance) {
            self.copies.invalidate(&*key);
        }
        self.epochs().end_all(instance, now);
        self.has_ended();
    }

    fn spec_of(&self, key: &Key, instance: &str) -> Option<&'static Spec> {
        command::find(key.command).filter(|spec| *key.instance == *instance && self.rule(spec.name).is_some())
    }

    fn insert_carried(&self, spec: &Spec, copy: &CarriedCopy, away: Duration, now: Instant) {
        let epoch = if copy.ended == Ended::Unknown { Epoch::FORMER } else { self.epoch(spec, &copy.key) };
        let age = Duration::from_millis(copy.age_ms).saturating_add(away);
        let Some(written) = now.checked_sub(age) else { return };
        self.copies.insert(copy.key.clone(), CachedReply::new(copy.body.clone(), written, epoch));
    }

    fn end_subjects_of(&self, group: &[(&Spec, CarriedCopy)], at: Instant) {
        let mut ended = Vec::new();
        for subject in group.iter().filter_map(|(spec, copy)| subject(spec, &copy.key)) {
            if !ended.contains(&subject) {
                self.epochs().end(subject.clone(), at);
                ended.push(subject);
            }
        }
        self.has_ended();
    }
}

fn ms_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
