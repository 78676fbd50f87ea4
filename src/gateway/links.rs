//! The connections of a pool. Which are free and how many are busy is kept with every change, since each command asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::Failure;
use super::exchange::Expect;
use crate::clock::whole_us;
use crate::protocol::Body;

/// Identifies one connection for as long as the program runs: a connection's generation.
pub(super) type LinkId = u64;

pub(super) struct Job {
    pub(super) text: String,
    pub(super) expect: Expect,
    /// How long its reply may take, from the write.
    pub(super) limit: Duration,
    pub(super) answer: oneshot::Sender<Result<Body, Failure>>,
}

/// The text holds the key of the instance: `Debug` shows only what is waited for.
impl fmt::Debug for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Job({:?})", self.expect)
    }
}

/// What a link is given to do while no command is under way on it.
#[derive(Debug)]
pub(super) enum Work {
    Command(Job),
    /// To ask whether the connection is alive; no command may start before the answer.
    Ping,
}

/// When something last came on a link. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    opened: Instant,
    after_us: Arc<AtomicU64>,
}

impl From<Instant> for Heard {
    fn from(opened: Instant) -> Self {
        Self { opened, after_us: Arc::default() }
    }
}

impl Heard {
    pub(super) fn note(&self, at: Instant) {
        self.after_us.store(whole_us(at.saturating_duration_since(self.opened)), Ordering::Relaxed);
    }

    pub(super) fn at(&self) -> Instant {
        self.opened + Duration::from_micros(self.after_us.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// May carry a command, since then.
    Free(Instant),
    /// Given out, carrying a command, or settling after one; `ordinary` where it was given to another command than a payment.
    Busy { ordinary: bool },
    /// Listening for a late reply, since then; never carries a command again. Of a payment whose outcome is unknown, or else
    /// of one that was refused.
    SetAside { since: Instant, is_unknown: bool },
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shard: usize,
    /// The thread on which it lives, where it is a single one.
    pub(super) thread: Option<ThreadId>,
    pub(super) heard: Heard,
    pub(super) jobs: mpsc::Sender<Work>,
    pub(super) stop: CancellationToken,
    phase: Phase,
    /// A ping on it has not been answered yet.
    doubted: bool,
}

impl Entry {
    /// A connection just opened: busy until it is put in service.
    pub(super) fn new(
        shard: usize,
        thread: Option<ThreadId>,
        heard: Heard,
        jobs: mpsc::Sender<Work>,
        stop: CancellationToken,
    ) -> Self {
        Self { shard, thread, heard, jobs, stop, phase: Phase::Busy { ordinary: false }, doubted: false }
    }

    pub(super) fn opened(&self) -> Instant {
        self.heard.opened
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether it may carry another command, now or later.
    pub(super) fn is_in_service(&self) -> bool {
        !matches!(self.phase, Phase::SetAside { .. })
    }
}

/// A free link that a caller may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) link: LinkId,
    pub(super) is_doubted: bool,
    /// Whether it runs on another thread than the caller.
    pub(super) is_elsewhere: bool,
}

/// The links of one shard.
#[derive(Debug, Default)]
struct Tally {
    busy: usize,
    /// Of those that are busy.
    ordinary: usize,
    /// In the order in which they are given: whether doubted, and which.
    free: Vec<((bool, LinkId), Option<ThreadId>)>,
}

impl Tally {
    fn add(&mut self, link: LinkId, entry: &Entry) {
        match entry.phase {
            Phase::Free(_) => {
                let place = (entry.doubted, link);
                let index = self.free.partition_point(|(other, _)| *other < place);
                self.free.insert(index, (place, entry.thread));
            }
            Phase::Busy { ordinary } => {
                self.busy += 1;
                self.ordinary += usize::from(ordinary);
            }
            Phase::SetAside { .. } => {}
        }
    }

    fn subtract(&mut self, link: LinkId, entry: &Entry) {
        match entry.phase {
            Phase::Free(_) => {
                let place = (entry.doubted, link);
                if let Ok(index) = self.free.binary_search_by(|(other, _)| other.cmp(&place)) {
                    self.free.remove(index);
                }
            }
            Phase::Busy { ordinary } => {
                self.busy -= 1;
                self.ordinary -= usize::from(ordinary);
            }
            Phase::SetAside { .. } => {}
        }
    }

    /// The first free one on `thread`, or else on another; a doubted one only where there is no other.
    fn first_free(&self, thread: ThreadId) -> Option<Free> {
        let ((is_doubted, first), on) = self.free.first()?;
        let free =
            |link, on: Option<ThreadId>| Free { link, is_doubted: *is_doubted, is_elsewhere: on != Some(thread) };
        let mut alike = self.free.iter().take_while(|((other, _), _)| other == is_doubted);
        let near = alike.find(|(_, on)| *on == Some(thread));
        Some(near.map_or_else(|| free(*first, *on), |((_, link), on)| free(*link, *on)))
    }
}

#[derive(Debug)]
pub(super) struct Links {
    entries: BTreeMap<LinkId, Entry>,
    shards: Vec<Tally>,
}

impl Links {
    pub(super) fn new(shards: usize) -> Self {
        Self { entries: BTreeMap::new(), shards: std::iter::repeat_with(Tally::default).take(shards).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Entry> {
        self.entries.get(&link)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Entry)> {
        self.entries.iter().map(|(link, entry)| (*link, entry))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many of a shard are busy.
    pub(super) fn busy(&self, shard: usize) -> usize {
        self.shards.get(shard).map_or(0, |tally| tally.busy)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.shards.iter().any(|tally| tally.busy > 0)
    }

    /// How many are busy with another command than a payment.
    pub(super) fn ordinary(&self) -> usize {
        self.shards.iter().map(|tally| tally.ordinary).sum()
    }

    /// The free link of a shard that suits a caller on `thread` best.
    pub(super) fn first_free(&self, shard: usize, thread: ThreadId) -> Option<Free> {
        self.shards.get(shard)?.first_free(thread)
    }

    pub(super) fn insert(&mut self, link: LinkId, entry: Entry) {
        if let Some(tally) = self.shards.get_mut(entry.shard) {
            tally.add(link, &entry);
            self.entries.insert(link, entry);
        }
    }

    pub(super) fn remove(&mut self, link: LinkId) -> Option<Entry> {
        let entry = self.entries.remove(&link)?;
        self.shards.get_mut(entry.shard)?.subtract(link, &entry);
        Some(entry)
    }

    /// Removes all free ones.
    pub(super) fn remove_free(&mut self) -> Vec<Entry> {
        let free: Vec<_> = self.free().collect();
        free.into_iter().filter_map(|link| self.remove(link)).collect()
    }

    pub(super) fn free(&self) -> impl Iterator<Item = LinkId> {
        self.shards.iter().flat_map(|tally| tally.free.iter().map(|((_, link), _)| *link))
    }

    pub(super) fn turn(&mut self, link: LinkId, phase: Phase) -> Option<&Entry> {
        self.change(link, |entry| entry.phase = phase)
    }

    /// Free, and no longer doubted.
    pub(super) fn put_back(&mut self, link: LinkId, now: Instant) -> Option<&Entry> {
        self.change(link, |entry| (entry.phase, entry.doubted) = (Phase::Free(now), false))
    }

    /// Takes note of whether a ping on it waits for its answer.
    pub(super) fn doubt(&mut self, link: LinkId, doubted: bool) {
        self.change(link, |entry| entry.doubted = doubted);
    }

    fn change(&mut self, link: LinkId, change: impl FnOnce(&mut Entry)) -> Option<&Entry> {
        let entry = self.entries.get_mut(&link)?;
        let tally = self.shards.get_mut(entry.shard)?;
        tally.subtract(link, entry);
        change(entry);
        tally.add(link, entry);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn threads() -> [ThreadId; 2] {
        [thread::current().id(), thread::spawn(|| thread::current().id()).join().unwrap()]
    }

    fn entry(shard: usize, thread: Option<ThreadId>) -> Entry {
        Entry::new(shard, thread, Instant::now().into(), mpsc::channel(1).0, CancellationToken::new())
    }

    /// By looking at every link.
    fn first_free(links: &Links, shard: usize, thread: ThreadId) -> Option<Free> {
        let free = links.iter().filter(|(_, entry)| entry.shard == shard && matches!(entry.phase, Phase::Free(_)));
        let offers = free.map(|(link, entry)| Free {
            link,
            is_doubted: entry.doubted,
            is_elsewhere: entry.thread != Some(thread),
        });
        offers.min_by_key(|free| (free.is_doubted, free.is_elsewhere, free.link))
    }

    fn assert_kept(links: &Links, threads: [ThreadId; 2]) {
        let count = |shard, is: fn(Phase) -> bool| {
            links.values().filter(|entry| entry.shard == shard && is(entry.phase)).count()
        };
        for shard in 0..3 {
            assert_eq!(links.busy(shard), count(shard, |phase| matches!(phase, Phase::Busy { .. })));
            for thread in threads {
                assert_eq!(links.first_free(shard, thread), first_free(links, shard, thread));
            }
        }
        let ordinary = (0..3).map(|shard| count(shard, |phase| phase == Phase::Busy { ordinary: true })).sum::<usize>();
        assert_eq!((links.ordinary(), links.is_busy()), (ordinary, (0..3).any(|shard| links.busy(shard) > 0)));
        let free = links.values().filter(|entry| matches!(entry.phase, Phase::Free(_))).count();
        assert_eq!(links.free().count(), free);
    }

    proptest! {
        #[test]
        fn what_is_kept_of_the_links_is_what_looking_at_each_of_them_finds(
            steps in prop::collection::vec((0_u64..12, 0_usize..3, 0_usize..3, 0_u8..8), 0..120),
        ) {
            let threads = threads();
            let mut links = Links::new(3);
            for (link, shard, on, step) in steps {
                let now = Instant::now();
                match step {
                    0 | 1 if links.get(link).is_none() => links.insert(link, entry(shard, threads.get(on).copied())),
                    0 => drop(links.remove(link)),
                    1 | 2 => drop(links.put_back(link, now).map(Entry::phase)),
                    3 => drop(links.turn(link, Phase::Busy { ordinary: shard == 0 }).map(Entry::phase)),
                    4 => drop(links.turn(link, Phase::SetAside { since: now, is_unknown: false }).map(Entry::phase)),
                    5 => drop(links.turn(link, Phase::Free(now)).map(Entry::phase)),
                    _ => links.doubt(link, step == 6),
                }
                assert_kept(&links, threads);
            }
            assert!(links.remove_free().iter().all(|entry| matches!(entry.phase, Phase::Free(_))));
            assert_kept(&links, threads);
        }
    }
}
