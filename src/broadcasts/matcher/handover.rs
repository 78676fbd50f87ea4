//! A matcher that goes on at another owner of the instance.
//!
//! The new owner's links were open for a while before, and it matches what they brought in that time once it knows what the old
//! one had counted. For it the links of the old owner are gone: what was held for their sake, or counted as a copy on their
//! word, is held again until the new links say whether they brought the same.
//!
//! What the old owner heard has instants that are known only within an interval here. An occurrence counts with its latest as the time
//! at which it came and with its earliest as the time at which it may have come, so that it is uncertain whether a link missed
//! it rather than wrong.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Held, LATE_SKEWS, Matcher, Occurrence, Occurrences, Progress};
use crate::broadcasts::carried::{Away, Carried, CarriedFrame, CarriedOccurrence, CarriedPayload, CarriedProgress};
use crate::broadcasts::corroboration::Testimony;
use crate::broadcasts::coverage::Coverage;
use crate::broadcasts::payload::Payload;

/// Links of another owner are numbered down from here, where no link of this one is. This one itself brought nothing that
/// counts.
const FOREIGN: u64 = u64::MAX;

impl Matcher {
    /// Until when broadcasts were certainly received and are logged or held as far as is known now. `heard`: when something
    /// last came on links that are open; of others it is known that nothing can come for `patience` at most.
    #[must_use]
    pub fn covered_until(&self, now: Instant, heard: &HashMap<u64, Instant>) -> Instant {
        let longest_ago = now.checked_sub(self.patience);
        self.coverage.certain_until(|link| heard.get(&link).copied().or(longest_ago))
    }

    /// The connections that are open, and since when.
    pub(in crate::broadcasts) fn open_links(&self) -> Vec<(u64, Instant)> {
        self.coverage.open().collect()
    }

    /// As [`Self::covered_until`], and logged: what is held counts as missed, and may have been delivered elsewhere a skew
    /// earlier.
    #[must_use]
    pub fn logged_until(&self, now: Instant, heard: &HashMap<u64, Instant>) -> Instant {
        let held = self.held.iter().filter_map(|held| held.earliest.checked_sub(self.skew));
        let vouched = self.vouched.iter().filter_map(|one| one.corroboration.until().checked_sub(self.skew * 3));
        held.chain(vouched).fold(self.covered_until(now, heard), Instant::min)
    }

    /// Something last came on connections then, be it no broadcast: they were listening until then.
    pub(in crate::broadcasts) fn heard_on(&mut self, heard: &HashMap<u64, Instant>) {
        self.vouched.retain_mut(|vouched| {
            !heard.iter().any(|(link, at)| vouched.corroboration.heard(*link, *at) == Testimony::Confirmed)
        });
    }

    /// What is known at `now`, for [`Self::resume`] at another owner. This one stays as it is.
    #[must_use]
    pub fn carried(&self, now: Instant, heard: &HashMap<u64, Instant>) -> Carried {
        let ago = |at: Instant| u64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or(u64::MAX);
        let (mut payloads, mut places) = (Vec::new(), HashMap::new());
        let holders: BTreeSet<u64> = self.held.iter().map(|held| held.link).collect();
        let foreign: HashMap<u64, u64> = holders.into_iter().zip((0..FOREIGN).rev()).collect();
        for (payload, occurrences) in &self.payloads {
            places.insert(Arc::clone(payload), payloads.len());
            payloads.push(carried_payload(payload, occurrences, (now, self.skew * LATE_SKEWS), &ago, &foreign));
        }
        let mut held: Vec<_> = self
            .held
            .iter()
            .filter_map(|held| {
                Some(CarriedFrame {
                    payload: *places.get(&held.payload)?,
                    link: *foreign.get(&held.link)?,
                    at_us: ago(held.at),
                    earliest_us: ago(held.earliest),
                    frames: held.frames,
                    received_at: held.received_at,
                })
            })
            .collect();
        held.extend(self.vouched.iter().filter_map(|vouched| {
            let until = vouched.corroboration.until();
            Some(CarriedFrame {
                payload: *places.get(&vouched.payload)?,
                // None that brought a frame which may count.
                link: FOREIGN,
                at_us: ago(until.checked_sub(self.skew)?),
                earliest_us: ago(until.checked_sub(self.skew * 2)?),
                frames: 0,
                received_at: vouched.received_at,
            })
        }));
        held.sort_by_key(|frame| std::cmp::Reverse(frame.at_us));
        Carried {
            covered_us: ago(self.covered_until(now, heard)),
            payloads,
            held,
            forgotten_us: self.forgotten.map(ago),
        }
    }

    /// Goes on with what another owner knew. `begin`: what happens from then on is reported to this one, in order.
    #[must_use]
    pub fn resume((skew, patience): (Duration, Duration), carried: Carried, away: Away, begin: Instant) -> Self {
        let mut matcher = Self::new(skew, patience, begin);
        matcher.coverage = Coverage::new(skew, away.earliest(carried.covered_us));
        matcher.forgotten = carried.forgotten_us.map(|age_us| away.latest(age_us));
        let mut payloads = Vec::new();
        for payload in carried.payloads {
            payloads.push(matcher.resume_payload(payload, away));
        }
        for frame in carried.held {
            let Some(payload) = payloads.get(frame.payload) else { continue };
            let Some(occurrences) = matcher.payloads.get_mut(payload) else { continue };
            occurrences.held += 1;
            matcher.held.push_back(Held {
                payload: Arc::clone(payload),
                link: frame.link,
                at: away.latest(frame.at_us),
                earliest: away.earliest(frame.earliest_us),
                frames: frame.frames,
                received_at: frame.received_at,
            });
        }
        matcher.added.make_contiguous().sort_by_key(|(at, _)| *at);
        let kept: HashSet<_> = matcher.added.iter().map(|(_, payload)| Arc::clone(payload)).collect();
        // One without an occurrence is remembered for what is held of it.
        let held = matcher.held.iter().filter(|held| !kept.contains(&held.payload));
        let held: VecDeque<_> = held.map(|held| (held.at, Arc::clone(&held.payload))).collect();
        matcher.added.extend(held);
        matcher
    }

    /// Goes on after an owner that left nothing but its log: what it logged last may still come again. `logged` has each
    /// with the latest and the earliest instant at which it can have come, oldest first. Nobody heard anything from
    /// `covered` to `now`.
    #[must_use]
    pub(in crate::broadcasts) fn resume_after_loss(
        (skew, patience): (Duration, Duration),
        logged: Vec<(Payload, Instant, Instant)>,
        covered: Instant,
        now: Instant,
    ) -> Self {
        let mut matcher = Self::new(skew, patience, now);
        matcher.coverage = Coverage::new(skew, covered);
        for (payload, at, earliest) in logged {
            let payload = matcher.known(payload);
            let occurrences = matcher.payloads.entry(Arc::clone(&payload)).or_default();
            occurrences.deserted = true;
            occurrences.recent.push_back(Occurrence { at, earliest, by_newcomer: false });
            matcher.added.push_back((at, payload));
        }
        matcher
    }

    /// Connections brought frames at these instants until then, when the owner before had certainly received everything: copies of
    /// what that one logged or held. From that follows what each of them had missed.
    pub(in crate::broadcasts) fn brought_known(
        &mut self,
        until: Instant,
        frames: &HashMap<Payload, HashMap<u64, Vec<Instant>>>,
    ) {
        let is_old = |(_, since): &(u64, Instant)| *since + self.skew <= until;
        let links: Vec<_> = self.coverage.open().filter(is_old).collect();
        for (payload, occurrences) in &mut self.payloads {
            let by_link = frames.get(&**payload);
            for (link, since) in &links {
                let frames = by_link.and_then(|by_link| by_link.get(link)).map(Vec::as_slice).unwrap_or_default();
                let progress = occurrences.progress_of(*since, frames, until, self.skew);
                occurrences.progress_by_link.insert(*link, progress);
            }
        }
    }

    fn resume_payload(&mut self, carried: CarriedPayload, away: Away) -> Arc<Payload> {
        let payload = self.known(carried.payload);
        let recent: VecDeque<_> = carried
            .occurrences
            .iter()
            .map(|occurrence| Occurrence {
                at: away.latest(occurrence.at_us),
                earliest: away.earliest(occurrence.earliest_us),
                by_newcomer: occurrence.by_newcomer,
            })
            .collect();
        self.added.extend(recent.iter().map(|occurrence| (occurrence.at, Arc::clone(&payload))));
        let progress = |link: &CarriedProgress| Progress {
            since: away.latest(link.since_us),
            frames: link.frames,
            least_missed: link.least_missed,
            most_missed: link.most_missed,
        };
        let progress_by_link = carried.links.iter().map(|link| (link.link, progress(link))).collect();
        let occurrences = Occurrences { forgiven: carried.forgiven, recent, progress_by_link, deserted: true, held: 0 };
        self.payloads.insert(Arc::clone(&payload), occurrences);
        payload
    }

    fn known(&mut self, payload: Payload) -> Arc<Payload> {
        if let Some((known, _)) = self.payloads.get_key_value(&payload) {
            return Arc::clone(known);
        }
        self.bytes += payload.size();
        Arc::new(payload)
    }
}

impl Occurrences {
    /// How far a connection got until then that brought nothing but copies of these.
    fn progress_of(&self, since: Instant, frames: &[Instant], until: Instant, skew: Duration) -> Progress {
        let brought = |by: Instant| frames.iter().filter(|at| **at <= by).count() as u64;
        let possible = |by: Instant| self.count_to(|first| first.earliest <= by);
        let certain = |by: Instant| self.count_to(|first| first.at + skew <= by);
        let (least, most) = self.missed(since, skew);
        // Whatever it missed may have come by then. What it has brought since, it has not missed.
        let looked_at = frames.iter().copied().filter(|at| *at > since + skew).chain([since + skew, until]);
        let most_missed = looked_at.map(|by| possible(by).saturating_sub(brought(by))).fold(most, u64::min);
        // What came a skew before and was not brought, it has missed.
        let due = self.recent.iter().map(|first| first.at + skew).filter(|due| *due < until).chain([until]);
        let least_missed = due.map(|by| certain(by).saturating_sub(brought(by))).fold(least, u64::max).min(most_missed);
        // More than are counted are such as the owner before could not tell from copies.
        let frames = brought(until).min(possible(until));
        Progress { since, frames, least_missed, most_missed }
    }
}

fn carried_payload(
    payload: &Payload,
    occurrences: &Occurrences,
    (now, late): (Instant, Duration),
    ago: &dyn Fn(Instant) -> u64,
    foreign: &HashMap<u64, u64>,
) -> CarriedPayload {
    let forgiven = occurrences.recent.iter().take_while(|first| first.at + late <= now).count();
    let recent = occurrences.recent.iter().skip(forgiven).map(|first| CarriedOccurrence {
        at_us: ago(first.at),
        earliest_us: ago(first.earliest),
        by_newcomer: first.by_newcomer,
    });
    let links = occurrences.progress_by_link.iter().filter_map(|(link, progress)| {
        Some(CarriedProgress {
            link: *foreign.get(link)?,
            since_us: ago(progress.since),
            frames: progress.frames,
            least_missed: progress.least_missed,
            most_missed: progress.most_missed,
        })
    });
    CarriedPayload {
        payload: payload.clone(),
        forgiven: occurrences.forgiven + forgiven as u64,
        occurrences: recent.collect(),
        links: links.collect(),
    }
}

#[cfg(test)]
mod tests;
