//! Which frames are copies of one broadcast. Pure: frames, opened and closed connections, and instants in; log entries out.
//!
//! Each connection brings a copy of every broadcast, in order, and shards differ by less than the skew; there is no id,
//! and equal broadcasts are common. So they are counted: among equal broadcasts, the n-th that a connection brings is the
//! n-th that there was, plus as many as it missed before it opened. A frame counted beyond what is known is new, one
//! within it is a copy, and how many a connection missed is known once it has been open for a skew.
//!
//! Until then a frame may be either. It is held for one skew, in which a connection that was open all along brings the same
//! if it is new. If such a connection brought none, the frame was a copy. If there was none, as when all have just opened, the
//! frame was a copy too if every connection that ever brought the same is still open: the one that brought the most has
//! missed none that any of them brought, and each of its frames is an entry. Otherwise the frame is logged and marked. If a
//! witness turns out to have been dead, the frame is logged after all ([`super::corroboration`]). So nothing is lost
//! unnoticed, and a copy is logged unmarked only if shards differ by more than ten skews.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::corroboration::{Corroboration, Testimony};
use super::coverage::{Coverage, CoverageGap};
use super::entry::Broadcast;
use super::payload::Payload;
use crate::protocol::Body;

/// For how many skews a copy may be late and is still recognized as one, if only to be marked.
pub(super) const LATE_SKEWS: u32 = 10;

/// How many different broadcasts are told apart at once. Beyond it the oldest is forgotten, and what may be a copy of
/// a forgotten one is marked.
const MOST_PAYLOADS: usize = 16_384;

/// What they may take together, in bytes.
const MOST_BYTES: usize = 32 << 20;

/// How many frames are held, and how many wait for their witnesses. Beyond it the oldest is logged, marked.
const MOST_DOUBTFUL: usize = 4096;

/// What is to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Broadcast(Broadcast),
    /// Broadcasts may have been missed.
    Gap(CoverageGap),
    /// A message came that may have been a broadcast and cannot be read.
    Unreadable(Timestamp),
}

/// What follows from a connection's event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Whether there may have been a new broadcast, received or missed.
    pub news: bool,
    /// What is to be logged, in order.
    pub decisions: Vec<Decision>,
}

fn decision(payload: &Payload, received_at: Timestamp, maybe_duplicate: bool) -> Decision {
    let Payload::Read { message, parameters } = payload else { return Decision::Unreadable(received_at) };
    let (message, parameters) = (Arc::clone(message), parameters.clone());
    Decision::Broadcast(Broadcast { message, parameters, received_at, maybe_duplicate })
}

/// Equal broadcasts, counted from 1.
#[derive(Debug, Default)]
struct Occurrences {
    /// How many are so old that no connection brings them any more.
    forgiven: u64,
    /// The others.
    recent: VecDeque<Occurrence>,
    progress_by_link: HashMap<u64, Progress>,
    /// Whether a connection that brought some is gone.
    deserted: bool,
    /// How many frames are held.
    held: usize,
}

/// When one of equal broadcasts first came.
#[derive(Debug, Clone, Copy)]
struct Occurrence {
    at: Instant,
    /// When it may have come already: it may be one that was held then, and what is held now may be this one.
    earliest: Instant,
    /// Whether it came on a connection that had just opened, and so may not be the next, but one after it.
    by_newcomer: bool,
}

/// How far a connection has got among equal broadcasts.
#[derive(Debug, Clone, Copy)]
struct Progress {
    since: Instant,
    /// How many it brought.
    frames: u64,
    /// How many it missed before them, at least.
    least_missed: u64,
    most_missed: u64,
}

impl Occurrences {
    fn count(&self) -> u64 {
        self.forgiven + self.recent.len() as u64
    }

    fn first(&self, number: u64) -> Option<Occurrence> {
        let index = number.checked_sub(self.forgiven + 1)?;
        self.recent.get(usize::try_from(index).ok()?).copied()
    }

    fn forgive(&mut self, now: Instant, late: Duration) {
        while self.recent.front().is_some_and(|first| first.at + late <= now) {
            self.recent.pop_front();
            self.forgiven += 1;
        }
    }

    /// How many there are up to the last of which that is true.
    fn count_to(&self, last: impl Fn(&Occurrence) -> bool) -> u64 {
        self.forgiven + self.recent.iter().rposition(last).map_or(0, |last| last as u64 + 1)
    }

    /// How many a connection missed that opened then: at least and at most.
    fn missed(&self, since: Instant, skew: Duration) -> (u64, u64) {
        // An occurrence that first came a skew before the connection opened was delivered on its shard before that; one that came a skew
        // after, it was not.
        (self.count_to(|first| first.at + skew <= since), self.count_to(|first| first.earliest < since + skew))
    }

    /// One more frame of `link`: the least and the most that it can be.
    fn one_more(&mut self, link: u64, since: Instant, held_most: u64, now: Instant, skew: Duration) -> (u64, u64) {
        let missed = self.missed(since, skew);
        let progress = self.progress_by_link.entry(link).or_insert_with(|| {
            let (least_missed, most_missed) = missed;
            // What others brought by then and is held may be more that was missed.
            let most_missed = most_missed.max(held_most);
            Progress { since, frames: 0, least_missed, most_missed }
        });
        progress.least_missed = progress.least_missed.max(self.forgiven.saturating_sub(progress.frames));
        progress.most_missed = progress.most_missed.max(progress.least_missed);
        progress.frames += 1;
        let (least, most) = (progress.least_missed + progress.frames, progress.most_missed + progress.frames);
        for (other, progress) in &mut self.progress_by_link {
            // The other's shard may have delivered this one before the other was there.
            if *other != link && now < progress.since + skew {
                progress.most_missed = progress.most_missed.max(most);
            }
        }
        (least, most)
    }

    /// `link` brought one more than were known, where equal frames are held since `earliest`.
    fn add(&mut self, link: u64, earliest: Instant, now: Instant, skew: Duration) {
        let by_newcomer = self.progress_by_link.get(&link).is_some_and(|progress| now < progress.since + skew);
        self.recent.push_back(Occurrence { at: now, earliest, by_newcomer });
    }

    /// The first `frames` of `link` are no more than are known.
    fn anchor(&mut self, link: u64, frames: u64) {
        let count = self.count();
        if let Some(progress) = self.progress_by_link.get_mut(&link) {
            progress.most_missed = progress.most_missed.min(count.saturating_sub(frames));
            progress.least_missed = progress.least_missed.min(progress.most_missed);
        }
    }

    /// Every connection that brought any; none if one of them has closed.
    fn all_who_brought(&self) -> Vec<u64> {
        if self.deserted { Vec::new() } else { self.progress_by_link.keys().copied().collect() }
    }

    /// Whether it is known what `link` missed, so that whatever else it brings is counted for certain.
    fn is_certain(&self, link: u64) -> bool {
        self.progress_by_link.get(&link).is_none_or(|progress| progress.least_missed == progress.most_missed)
    }
}

/// A frame that may be new or a copy.
#[derive(Debug)]
struct Held {
    payload: Arc<Payload>,
    link: u64,
    at: Instant,
    /// When it may have come already: before `at` only where another replica heard it.
    earliest: Instant,
    /// Which of the link's equal frames it is.
    frames: u64,
    received_at: Timestamp,
}

/// A frame that is a copy if its witnesses were listening.
#[derive(Debug)]
struct Vouched {
    payload: Arc<Payload>,
    received_at: Timestamp,
    corroboration: Corroboration,
}

/// Decides what was broadcast, from what connections bring.
#[derive(Debug)]
pub struct Matcher {
    skew: Duration,
    patience: Duration,
    now: Instant,
    coverage: Coverage,
    payloads: HashMap<Arc<Payload>, Occurrences>,
    /// What the payloads take, in bytes.
    bytes: usize,
    /// When payloads were added to, oldest first.
    added: VecDeque<(Instant, Arc<Payload>)>,
    held: VecDeque<Held>,
    vouched: VecDeque<Vouched>,
    /// When a payload was last forgotten too early.
    forgotten: Option<Instant>,
}

impl Matcher {
    /// Shards differ by less than `skew` in delivering a broadcast, and a connection on which nothing comes any more is
    /// closed within `patience`.
    #[must_use]
    pub fn new(skew: Duration, patience: Duration, now: Instant) -> Self {
        Self {
            skew,
            patience,
            now,
            coverage: Coverage::new(skew, now),
            payloads: HashMap::new(),
            bytes: 0,
            added: VecDeque::new(),
            held: VecDeque::new(),
            vouched: VecDeque::new(),
            forgotten: None,
        }
    }

    /// When [`Matcher::tick`] is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.held.front().map(|held| held.at + self.skew)
    }

    pub fn opened(&mut self, link: u64, at: Instant) -> Matched {
        let mut outcome = self.tick(at);
        let gaps = self.coverage.opened(link, at);
        outcome.missed(gaps);
        outcome
    }

    /// A connection is over; the last frame or pong on it came at `last_heard`.
    pub fn closed(&mut self, link: u64, last_heard: Instant) -> Matched {
        let mut outcome = Matched::default();
        for mut vouched in std::mem::take(&mut self.vouched) {
            match vouched.corroboration.closed(link, last_heard) {
                Testimony::Confirmed => {}
                Testimony::Void => outcome.decisions.push(decision(&vouched.payload, vouched.received_at, true)),
                Testimony::Pending => self.vouched.push_back(vouched),
            }
        }
        let gaps = self.coverage.closed(link, last_heard);
        outcome.missed(gaps);
        // Without an open connection something may be missed from now on, although the gap is reported only when it ends.
        outcome.news |= !self.coverage.has_open_link();
        let open = |other: &u64| self.coverage.since(*other).is_some();
        for occurrences in self.payloads.values_mut() {
            occurrences.deserted |= occurrences.progress_by_link.contains_key(&link);
            occurrences.progress_by_link.retain(|other, _| occurrences.held > 0 || open(other));
        }
        outcome
    }

    pub fn heard(
        &mut self,
        link: u64,
        at: Instant,
        message: &str,
        parameters: &Body,
        received_at: Timestamp,
    ) -> Matched {
        self.brought(
            link,
            at,
            Payload::Read { message: Arc::from(message), parameters: parameters.clone() },
            received_at,
        )
    }

    /// A connection brought a message that may have been a broadcast and cannot be read. Its copies are told from others
    /// by their digest, as those of broadcasts are by what they say.
    pub fn heard_unreadable(&mut self, link: u64, at: Instant, digest: u64, received_at: Timestamp) -> Matched {
        self.brought(link, at, Payload::Unreadable(digest), received_at)
    }

    fn brought(&mut self, link: u64, at: Instant, payload: Payload, received_at: Timestamp) -> Matched {
        let mut outcome = self.tick(at);
        let (now, skew) = (self.now, self.skew);
        // A witness on which something comes after the fact was listening until then.
        self.vouched.retain_mut(|vouched| vouched.corroboration.heard(link, now) != Testimony::Confirmed);
        let since = self.coverage.since(link).unwrap_or(now);
        let payload = Arc::new(payload);
        let known = self.payloads.get_key_value(&payload).map(|(known, _)| Arc::clone(known));
        if known.is_none() && self.forgotten.is_some_and(|forgotten| now < forgotten + skew * LATE_SKEWS) {
            outcome.news = true;
            outcome.decisions.push(decision(&payload, received_at, true));
            return outcome;
        }
        if known.is_none() {
            self.bytes += payload.size();
        }
        let payload = known.unwrap_or(payload);
        let occurrences = self.payloads.entry(Arc::clone(&payload)).or_default();
        occurrences.forgive(now, skew * LATE_SKEWS);
        let equals = self.held.iter().filter(|held| held.payload == payload && held.earliest < since + skew);
        let held_most = equals
            .filter_map(|held| Some(occurrences.progress_by_link.get(&held.link)?.most_missed + held.frames))
            .max();
        let (least, most) = occurrences.one_more(link, since, held_most.unwrap_or_default(), now, skew);
        let frames = occurrences.progress_by_link.get(&link).map_or(0, |progress| progress.frames);
        let is_new = least > occurrences.count();
        if is_new {
            let earliest = self.held.iter().find(|held| held.payload == payload).map_or(now, |held| held.earliest);
            occurrences.add(link, earliest, now, skew);
            outcome.news = true;
            outcome.decisions.push(decision(&payload, received_at, false));
            self.added.push_back((now, Arc::clone(&payload)));
        }
        if most <= occurrences.count() {
            match occurrences.first(most).filter(|first| now < first.at + skew) {
                None => {
                    outcome.news = true;
                    outcome.decisions.push(decision(&payload, received_at, true));
                }
                Some(first) if first.by_newcomer && !is_new => {
                    let copy =
                        Held { payload: Arc::clone(&payload), link, at: now, earliest: now, frames, received_at };
                    self.doubt(&mut outcome, copy, first);
                }
                Some(_) => {}
            }
        } else {
            // Where one is new for certain and another is held, equal as they are, it is two of which one may be a copy.
            occurrences.held += 1;
            outcome.news = true;
            let held = Held { payload: Arc::clone(&payload), link, at: now, earliest: now, frames, received_at };
            self.held.push_back(held);
        }
        if is_new {
            self.settle_held(&mut outcome, &payload);
            self.forget_excess();
        }
        if self.held.len() > MOST_DOUBTFUL {
            self.release(&mut outcome, false);
        }
        outcome
    }

    /// Time has passed: decides what was held for long enough.
    pub fn tick(&mut self, now: Instant) -> Matched {
        // Links take their instants before they report, so reports may come a little out of order.
        self.now = self.now.max(now);
        let mut outcome = Matched::default();
        while self.due().is_some_and(|due| due <= self.now) {
            self.release(&mut outcome, true);
        }
        let (now, patience, late) = (self.now, self.patience, self.skew * LATE_SKEWS);
        while self.vouched.front().is_some_and(|oldest| oldest.corroboration.until() + patience <= now) {
            self.vouched.pop_front();
        }
        while self.added.front().is_some_and(|(added, _)| *added + late <= now) {
            let Some((_, payload)) = self.added.pop_front() else { break };
            let Some(occurrences) = self.payloads.get_mut(&payload) else { continue };
            occurrences.forgive(now, late);
            if occurrences.held > 0 {
                self.added.push_back((now, payload));
            } else if occurrences.recent.is_empty() {
                self.forget(&payload);
            }
        }
        outcome
    }

    /// Something equal to what is held was logged: held frames that are now known to be copies are dropped.
    fn settle_held(&mut self, outcome: &mut Matched, payload: &Arc<Payload>) {
        let Some(occurrences) = self.payloads.get_mut(payload).filter(|occurrences| occurrences.held > 0) else {
            return;
        };
        let Some(newest) = occurrences.recent.back().copied() else { return };
        let count = occurrences.count();
        let is_copy = |held: &Held| {
            let progress = occurrences.progress_by_link.get(&held.link).filter(|_| held.payload == *payload);
            progress.is_some_and(|progress| progress.most_missed + held.frames <= count)
        };
        let (copies, held): (VecDeque<_>, _) = std::mem::take(&mut self.held).into_iter().partition(is_copy);
        self.held = held;
        occurrences.held -= copies.len();
        if newest.by_newcomer {
            for copy in copies {
                self.doubt(outcome, copy, newest);
            }
        }
    }

    /// A frame counts as a copy of what a new connection brought first; but it may be one that the new connection missed,
    /// and then that one's is still to come on every other connection. Those are the witnesses.
    fn doubt(&mut self, outcome: &mut Matched, copy: Held, newest: Occurrence) {
        let Held { payload, link, received_at, .. } = copy;
        let Some(occurrences) = self.payloads.get(&payload) else { return };
        let hears = |(other, since): &(u64, Instant)| {
            let was_there = *other == link || *since + self.skew + self.skew <= newest.at;
            was_there && occurrences.is_certain(*other)
        };
        let witnesses: Vec<u64> = self.coverage.open().filter(hears).map(|open| open.0).collect();
        let corroboration = if witnesses.is_empty() {
            Corroboration::of_all(occurrences.all_who_brought(), self.now + self.skew)
        } else {
            Corroboration::of_any(witnesses, newest.at + self.skew)
        };
        self.vouch(outcome, Vouched { payload, received_at, corroboration });
    }

    /// Decides on the oldest frame that is held. `in_time`: whether it was held for as long as it should.
    fn release(&mut self, outcome: &mut Matched, in_time: bool) {
        let Some(held) = self.held.pop_front() else { return };
        let until = held.at + self.skew;
        let Some(occurrences) = self.payloads.get_mut(&held.payload) else { return };
        occurrences.held -= 1;
        // Connected before this can have been delivered anywhere, and all that it brought is known.
        let saw_all = |(link, since): &(u64, Instant)| {
            *link != held.link && *since + self.skew <= held.earliest && occurrences.is_certain(*link)
        };
        let witnesses: Vec<u64> =
            self.coverage.open().filter(|open| in_time && saw_all(open)).map(|open| open.0).collect();
        let corroboration = if witnesses.is_empty() && in_time {
            Corroboration::of_all(occurrences.all_who_brought(), until)
        } else {
            Corroboration::of_any(witnesses, until)
        };
        // Whatever equals it was brought by others within the skew, so it is none of those that come later.
        occurrences.anchor(held.link, held.frames);
        let Held { payload, received_at, .. } = held;
        self.vouch(outcome, Vouched { payload, received_at, corroboration });
    }

    /// Drops a frame if there are witnesses, or logs it if there are none.
    fn vouch(&mut self, outcome: &mut Matched, vouched: Vouched) {
        if vouched.corroboration.has_no_witness() {
            outcome.decisions.push(decision(&vouched.payload, vouched.received_at, true));
            return;
        }
        self.vouched.push_back(vouched);
        if self.vouched.len() > MOST_DOUBTFUL
            && let Some(oldest) = self.vouched.pop_front()
        {
            outcome.decisions.push(decision(&oldest.payload, oldest.received_at, true));
        }
    }

    /// Keeps what is remembered bounded.
    fn forget_excess(&mut self) {
        while self.payloads.len() > MOST_PAYLOADS || (self.bytes > MOST_BYTES && self.payloads.len() > 1) {
            let Some((added, payload)) = self.added.pop_front() else { return };
            match self.payloads.get(&payload) {
                // Fewer are held than are remembered.
                Some(occurrences) if occurrences.held > 0 => self.added.push_back((added, payload)),
                Some(_) => {
                    self.forget(&payload);
                    self.forgotten = Some(self.now);
                }
                None => {}
            }
        }
    }

    fn forget(&mut self, payload: &Payload) {
        if self.payloads.remove(payload).is_some() {
            self.bytes -= payload.size();
        }
    }
}

impl Matched {
    fn missed(&mut self, gaps: Vec<CoverageGap>) {
        self.news |= !gaps.is_empty();
        self.decisions.extend(gaps.into_iter().map(Decision::Gap));
    }
}

mod handover;
#[cfg(test)]
mod tests;
