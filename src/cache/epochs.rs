//! When copies were invalidated: epochs, and the instants at which they ended.
//!
//! Free of clocks and locks. An epoch is a count, so two broadcasts at one instant are two; the instants are kept to
//! say for how long a copy has been out of date.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;
use tokio::time::Instant;

/// Ends remembered with their instants. Of a copy that was ended longer ago only that is known.
const MAX_ENDS: usize = 64;

/// How often the freshness of a key's copies was ended. [`Epoch::FORMER`] belongs to no run of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of copies from an earlier run: never current.
    pub const FORMER: Self = Self(0);
    /// The epoch of copies whose freshness nothing ends but age.
    pub(super) const FIRST: Self = Self(1);
}

/// How a copy's epoch stands to the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EpochStatus {
    /// It is the one in force.
    Current,
    /// It ended then, or at an instant that is not known.
    Ended(Option<Instant>),
}

/// The epochs of one thing that can change.
#[derive(Debug, Default)]
struct Era {
    ends: u64,
    /// The instants of the last of them.
    recent: VecDeque<Instant>,
}

impl Era {
    fn epoch(&self) -> Epoch {
        Epoch(self.ends.saturating_add(1))
    }

    fn end(&mut self, now: Instant) {
        self.ends = self.ends.saturating_add(1);
        self.recent.push_back(now);
        if self.recent.len() > MAX_ENDS {
            self.recent.pop_front();
        }
    }

    fn epoch_status(&self, epoch: Epoch) -> EpochStatus {
        let behind = self.epoch().0.saturating_sub(epoch.0);
        if behind == 0 {
            return EpochStatus::Current;
        }
        if epoch == Epoch::FORMER {
            return EpochStatus::Ended(None);
        }
        let from_last = usize::try_from(behind).ok().and_then(|behind| self.recent.len().checked_sub(behind));
        EpochStatus::Ended(from_last.and_then(|at| self.recent.get(at)).copied())
    }
}

/// What ends the freshness of a key's copies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    /// What `updatepos` concerns; ended too when one may have been missed.
    Catalogue(Arc<str>),
    /// The sales of a point of sale.
    Sales(Arc<str>, i64),
}

impl Subject {
    fn instance(&self) -> &str {
        match self {
            Self::Catalogue(of) | Self::Sales(of, _) => of,
        }
    }
}

/// The epochs of everything that changed at least once.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    eras: HashMap<Subject, Era, RandomState>,
}

impl Epochs {
    /// The epoch in force.
    pub(super) fn epoch(&self, subject: &Subject) -> Epoch {
        self.eras.get(subject).map_or(Epoch::FIRST, Era::epoch)
    }

    /// How `epoch` stands to the one in force.
    pub(super) fn epoch_status(&self, subject: &Subject, epoch: Epoch) -> EpochStatus {
        match self.eras.get(subject) {
            Some(era) => era.epoch_status(epoch),
            None if epoch == Epoch::FIRST => EpochStatus::Current,
            None => EpochStatus::Ended(None),
        }
    }

    /// Forgets whatever is about this instance.
    pub(super) fn forget(&mut self, instance: &str) {
        self.eras.retain(|subject, _| subject.instance() != instance);
    }

    /// Ends every epoch of this instance that is known.
    pub(super) fn end_all(&mut self, instance: &str, now: Instant) {
        for (_, era) in self.eras.iter_mut().filter(|(subject, _)| subject.instance() == instance) {
            era.end(now);
        }
    }

    /// Ends the epoch in force.
    pub(super) fn end(&mut self, subject: Subject, now: Instant) {
        self.eras.entry(subject).or_default().end(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_copy_s_epoch_ended_at_the_first_end_after_it() {
        let (mut epochs, start) = (Epochs::default(), Instant::now());
        let subject = Subject::Catalogue("demo".into());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(epochs.epoch_status(&subject, Epoch::FORMER), EpochStatus::Ended(None));
        let first = epochs.epoch(&subject);
        assert_eq!(epochs.epoch_status(&subject, first), EpochStatus::Current);
        epochs.end(subject.clone(), after(1));
        let second = epochs.epoch(&subject);
        epochs.end(subject.clone(), after(2));
        assert_eq!(epochs.epoch_status(&subject, first), EpochStatus::Ended(Some(after(1))));
        assert_eq!(epochs.epoch_status(&subject, second), EpochStatus::Ended(Some(after(2))));
        assert_eq!(epochs.epoch_status(&subject, epochs.epoch(&subject)), EpochStatus::Current);
        assert_eq!(
            epochs.epoch_status(&subject, Epoch::FORMER),
            EpochStatus::Ended(None),
            "an earlier run's, whatever came since"
        );
        assert_eq!(
            epochs.epoch_status(&Subject::Sales("demo".into(), 1), first),
            EpochStatus::Current,
            "another subject"
        );
    }

    #[test]
    fn what_ended_longer_ago_than_is_remembered_has_no_instant() {
        let (mut epochs, start) = (Epochs::default(), Instant::now());
        let subject = Subject::Catalogue("demo".into());
        let first = epochs.epoch(&subject);
        for _ in 0..MAX_ENDS {
            epochs.end(subject.clone(), start);
        }
        assert_eq!(epochs.epoch_status(&subject, first), EpochStatus::Ended(Some(start)));
        epochs.end(subject.clone(), start);
        assert_eq!(epochs.epoch_status(&subject, first), EpochStatus::Ended(None));
    }
}
