//! When broadcasts were certainly received. Pure: opened and closed connections in, gaps out.
//!
//! A connection receives what is broadcast after it opened, and has certainly received only what came before its last
//! frame or pong, which may be long before its end is noticed. Shards differ by up to the skew in delivering, so the last skew
//! of a connection does not count: what another shard delivered in it may still have been on its way here.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How many ended connections are remembered whose time is covered only by one that is still open. Beyond it the oldest
/// is forgotten, which can only make a gap look larger.
const MOST_ENDED: usize = 64;

/// A time in which a broadcast may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoverageGap {
    pub from: Instant,
    pub to: Instant,
}

#[derive(Debug)]
pub(super) struct Coverage {
    skew: Duration,
    /// Everything before it was certainly received, or was reported as a gap.
    settled: Instant,
    open: HashMap<u64, Instant>,
    /// From when to when closed connections received, where that lies beyond what is settled.
    ended: VecDeque<(Instant, Instant)>,
}

impl Coverage {
    /// Everything before the first connection is a gap.
    pub(super) fn new(skew: Duration, now: Instant) -> Self {
        Self { skew, settled: now, open: HashMap::new(), ended: VecDeque::new() }
    }

    /// Since when a connection is open.
    pub(super) fn since(&self, link: u64) -> Option<Instant> {
        self.open.get(&link).copied()
    }

    /// The connections that are open, as far as is known, and since when.
    pub(super) fn open(&self) -> impl Iterator<Item = (u64, Instant)> {
        self.open.iter().map(|(link, since)| (*link, *since))
    }

    pub(super) fn has_open_link(&self) -> bool {
        !self.open.is_empty()
    }

    pub(super) fn opened(&mut self, link: u64, at: Instant) -> Vec<CoverageGap> {
        self.open.insert(link, at);
        self.settle()
    }

    pub(super) fn closed(&mut self, link: u64, last_heard: Instant) -> Vec<CoverageGap> {
        let Some(since) = self.open.remove(&link) else { return Vec::new() };
        if let Some(until) = last_heard.checked_sub(self.skew).filter(|until| *until > since) {
            self.ended.push_back((since, until));
        }
        while self.ended.len() > MOST_ENDED {
            self.ended.pop_front();
        }
        self.settle()
    }

    /// Until when broadcasts were certainly received without a gap, where something last came on the open connections at
    /// what `heard` tells, or at no known time.
    pub(super) fn certain_until(&self, heard: impl Fn(u64) -> Option<Instant>) -> Instant {
        let until = |(link, since): (&u64, &Instant)| {
            let until = heard(*link).and_then(|heard| heard.checked_sub(self.skew)).filter(|until| until > since)?;
            Some((*since, until))
        };
        let received: Vec<_> = self.ended.iter().copied().chain(self.open.iter().filter_map(until)).collect();
        let mut certain = self.settled;
        while let Some(until) = received.iter().filter(|one| one.0 <= certain && one.1 > certain).map(|one| one.1).max()
        {
            certain = until;
        }
        certain
    }

    /// Settles as much as can be, and returns the gaps. A gap without an end yet is returned once it has one.
    fn settle(&mut self) -> Vec<CoverageGap> {
        let mut gaps = Vec::new();
        loop {
            while let Some(until) = self.ended.iter().filter(|(since, _)| *since <= self.settled).map(|one| one.1).max()
            {
                self.settled = self.settled.max(until);
                self.ended.retain(|(_, until)| *until > self.settled);
            }
            if self.open.values().any(|since| *since <= self.settled) {
                return gaps;
            }
            let begun = self.open.values().chain(self.ended.iter().map(|(since, _)| since));
            let Some(next) = begun.min().copied() else { return gaps };
            gaps.push(CoverageGap { from: self.settled, to: next });
            self.settled = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(2);

    struct Times(Instant, Coverage);

    impl Times {
        fn new() -> Self {
            let start = Instant::now();
            Self(start, Coverage::new(SKEW, start))
        }

        fn seconds(&self, gaps: &[CoverageGap]) -> Vec<(u64, u64)> {
            let seconds = |at: Instant| (at - self.0).as_secs();
            gaps.iter().map(|gap| (seconds(gap.from), seconds(gap.to))).collect()
        }

        fn open(&mut self, link: u64, at_s: u64) -> Vec<(u64, u64)> {
            let gaps = self.1.opened(link, self.0 + Duration::from_secs(at_s));
            self.seconds(&gaps)
        }

        fn close(&mut self, link: u64, last_heard_s: u64) -> Vec<(u64, u64)> {
            let gaps = self.1.closed(link, self.0 + Duration::from_secs(last_heard_s));
            self.seconds(&gaps)
        }
    }

    #[test]
    fn what_came_before_the_first_connection_is_a_hole_and_one_that_stays_covers_the_others_going() {
        let mut times = Times::new();
        assert_eq!(times.open(1, 5), [(0, 5)]);
        assert_eq!(times.open(2, 10), []);
        assert_eq!(times.close(1, 50), []);
        assert_eq!(times.open(3, 60), []);
        assert_eq!(times.close(2, 90), []);
    }

    #[test]
    fn with_nobody_left_the_hole_lasts_from_a_skew_before_the_last_word_until_somebody_comes() {
        let mut times = Times::new();
        times.open(1, 0);
        times.open(2, 0);
        assert_eq!(times.close(1, 20), []);
        assert_eq!(times.close(2, 30), []);
        assert!(!times.1.has_open_link());
        assert_eq!(times.open(3, 40), [(28, 40)]);
    }

    #[test]
    fn a_replacement_covers_nothing_from_before_it_opened_and_too_short_an_overlap_is_a_hole() {
        let mut times = Times::new();
        times.open(1, 0);
        assert_eq!(times.open(2, 25), []);
        assert_eq!(times.close(1, 20), [(18, 25)], "it was silent since 20, whenever that was noticed");
        assert_eq!(times.open(3, 40), []);
        assert_eq!(times.close(2, 41), [(39, 40)], "a slower shard may have had something from before 40 to deliver");
        assert_eq!(times.open(4, 50), []);
        assert_eq!(times.close(3, 52), []);
    }

    #[test]
    fn one_that_ended_in_the_meantime_vouches_for_its_own_time() {
        let mut times = Times::new();
        times.open(1, 0);
        times.open(2, 10);
        times.open(3, 30);
        assert_eq!(times.close(2, 40), [], "the first is still open");
        assert_eq!(
            times.close(1, 20),
            [],
            "it was deaf since 20, but the second heard until 40, and the third from 30"
        );
        assert_eq!(times.close(3, 50), []);
        assert_eq!(times.open(4, 60), [(48, 60)]);
    }

    #[test]
    fn two_holes_are_two() {
        let mut times = Times::new();
        times.open(1, 0);
        times.open(2, 10);
        times.close(2, 22);
        times.open(3, 30);
        assert_eq!(times.close(1, 5), [(3, 10), (20, 30)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut times = Times::new();
        times.open(0, 0);
        for link in 1..=1000 {
            times.open(link, 10 * link);
            times.close(link, 10 * link + 3);
        }
        assert_eq!(times.1.ended.len(), MOST_ENDED);
        assert_eq!(times.close(0, 10_002), []);
        assert_eq!(times.1.ended.len(), 0);
    }
}
