//! Which sessions have not been renewed for so long that their lease is over, whatever the clocks of their machines do.
//!
//! A renewal was sent before its beat could be read here. So when a beat stood still for lease and margin since it was first
//! read, the lease that came with it has been over for two margins. Whether it still stands still is for the database to say:
//! an [`Ending`] names the beat, and takes effect only together with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rules::Rules;
use crate::tenure::SessionId;

/// What of the write-ahead log's history the database goes on with. Moves with each failover.
pub type Timeline = u32;

/// Ends a session, if its beat and the timeline are still these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ending {
    pub session: SessionId,
    pub beat: i64,
    pub timeline: Timeline,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Watch {
    timeline: Option<Timeline>,
    seen: BTreeMap<SessionId, Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Seen {
    beat: i64,
    /// When it was first read.
    since: Duration,
}

impl Watch {
    /// The beats of all other sessions that have not ended, as they came at `now`. On another timeline the same beat may be
    /// a later renewal.
    pub fn saw(&mut self, timeline: Timeline, beats: impl IntoIterator<Item = (SessionId, i64)>, now: Duration) {
        if self.timeline != Some(timeline) {
            self.begin_anew();
        }
        self.timeline = Some(timeline);
        let beats: BTreeMap<_, _> = beats.into_iter().collect();
        self.seen.retain(|session, _| beats.contains_key(session));
        for (session, beat) in beats {
            let seen = self.seen.entry(session).or_insert(Seen { beat, since: now });
            if seen.beat != beat {
                *seen = Seen { beat, since: now };
            }
        }
    }

    /// Forgets for how long beats stood still: the database did not answer, so nobody could renew either.
    pub fn begin_anew(&mut self) {
        self.seen.clear();
    }

    /// For how long the beat of a session stands still.
    #[must_use]
    pub fn silent(&self, session: SessionId, now: Duration) -> Duration {
        self.seen.get(&session).map_or(Duration::ZERO, |seen| now.saturating_sub(seen.since))
    }

    /// The sessions that may be ended.
    #[must_use]
    pub fn overdue(&self, rules: &Rules, now: Duration) -> Vec<Ending> {
        let Some(timeline) = self.timeline else { return Vec::new() };
        let silent = |seen: &Seen| now.saturating_sub(seen.since) >= rules.overdue_after();
        let overdue = self.seen.iter().filter(|(_, seen)| silent(seen));
        overdue.map(|(session, seen)| Ending { session: *session, beat: seen.beat, timeline }).collect()
    }

    /// When the next session may be ended, if none is renewed.
    #[must_use]
    pub fn next_overdue(&self, rules: &Rules) -> Option<Duration> {
        self.seen.values().map(|seen| seen.since + rules.overdue_after()).min()
    }
}
