//! What the pool knows, behind one lock that is never held across an await.
//!
//! Links take themselves out and put themselves back here; whoever waits for one waits here too, payments before
//! everybody else and otherwise in order of arrival.

use std::collections::BTreeMap;
use std::fmt;
use std::thread::{self, ThreadId};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::error::{Failure, NotSent};
use super::exchange::Expect;
use super::plan::{ShardView, View};
use super::shard::Health;
use crate::wire::Body;

/// How many may wait for a link. Reads fail with [`NotSent::QueueFull`] beyond it; payments have a quarter more.
const MAX_WAITING: usize = 1024;

/// How many links may be set aside at once to listen for late replies; beyond it the oldest stops listening.
const MAX_SET_ASIDE: usize = 32;

/// The `Retry-After` of a pool that does not know when it will dial again.
const SHORTLY: Duration = Duration::from_secs(1);

/// Identifies one connection for as long as the program runs: a connection's generation.
pub(super) type LinkId = u64;

/// Who is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A sale: before everything else.
    Payment,
    /// Everything else.
    Ordinary,
}

/// One command on its way to a link.
pub(super) struct Job {
    pub(super) text: String,
    pub(super) expect: Expect,
    pub(super) answer: oneshot::Sender<Result<Body, Failure>>,
}

/// The text holds the key of the instance: `Debug` shows only what is waited for.
impl fmt::Debug for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Job({:?})", self.expect)
    }
}

/// What a link is doing, as far as the pool cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// May carry a command, since then.
    Free(Instant),
    /// Given out, carrying a command, or settling after one.
    Busy,
    /// Listening for a late reply, since then; never carries a command again.
    SetAside(Instant),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shard: usize,
    pub(super) phase: Phase,
    pub(super) opened: Instant,
    /// The thread on which it lives, where it is a single one.
    pub(super) thread: Option<ThreadId>,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) stop: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) health: Health,
    pub(super) dialling: usize,
    pub(super) cordoned: bool,
    pub(super) last_fault: Option<String>,
}

/// A link given to somebody.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) link: LinkId,
    pub(super) shard: usize,
    pub(super) jobs: mpsc::Sender<Job>,
}

/// A place in the queue; its order is the order of service.
pub(super) type Ticket = (Priority, u64);

#[derive(Debug)]
pub(super) struct State {
    pub(super) links: BTreeMap<LinkId, Entry>,
    pub(super) shards: Vec<Shard>,
    pub(super) waiting: BTreeMap<Ticket, oneshot::Sender<Result<Given, NotSent>>>,
    pub(super) draining: bool,
    next_id: u64,
}

impl State {
    pub(super) fn new(shards: &[String]) -> Self {
        let shard = |name: &String| Shard {
            name: name.clone(),
            health: Health::new(),
            dialling: 0,
            cordoned: false,
            last_fault: None,
        };
        Self {
            links: BTreeMap::new(),
            shards: shards.iter().map(shard).collect(),
            waiting: BTreeMap::new(),
            draining: false,
            next_id: 0,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes the best free link: on the shard with the fewest busy links, then with the lowest round trip, and of those
    /// alike one that lives on this thread; on `avoid` only if there is no other.
    pub(super) fn take(&mut self, avoid: Option<usize>) -> Option<Given> {
        let mut busy = vec![0_usize; self.shards.len()];
        for entry in self.links.values().filter(|entry| entry.phase == Phase::Busy) {
            if let Some(count) = busy.get_mut(entry.shard) {
                *count += 1;
            }
        }
        let here = Some(thread::current().id());
        let rank = |entry: &Entry| {
            let shard = self.shards.get(entry.shard);
            let round_trip = shard.and_then(|shard| shard.health.round_trip()).unwrap_or_default();
            let last_resort = shard.is_some_and(|shard| shard.cordoned) || Some(entry.shard) == avoid;
            let timeouts = shard.map_or(0, |shard| shard.health.timeouts());
            let (alike, elsewhere) = (round_trip.as_millis(), entry.thread != here);
            (last_resort, timeouts, busy.get(entry.shard).copied(), alike, elsewhere, round_trip)
        };
        let (&link, _) = self
            .links
            .iter()
            .filter(|(_, entry)| matches!(entry.phase, Phase::Free(_)))
            .min_by_key(|(_, entry)| rank(entry))?;
        self.give(link)
    }

    /// Marks `link` busy and hands it over.
    fn give(&mut self, link: LinkId) -> Option<Given> {
        let entry = self.links.get_mut(&link)?;
        entry.phase = Phase::Busy;
        Some(Given { link, shard: entry.shard, jobs: entry.jobs.clone() })
    }

    /// Puts `link` back: to the first in the queue, or among the free.
    pub(super) fn put_back(&mut self, link: LinkId, now: Instant) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if matches!(entry.phase, Phase::SetAside(_)) {
            return;
        }
        entry.phase = Phase::Free(now);
        let shard = entry.shard;
        if self.is_cordoned(shard) && self.serves_without(shard) {
            if let Some(entry) = self.links.remove(&link) {
                entry.stop.cancel();
            }
            return;
        }
        while let Some((_, waiter)) = self.waiting.pop_first() {
            let Some(given) = self.give(link) else { return };
            if waiter.send(Ok(given)).is_ok() {
                return;
            }
            // Whoever waited there went away; the link is still ours to give.
            if let Some(entry) = self.links.get_mut(&link) {
                entry.phase = Phase::Free(now);
            }
        }
    }

    fn is_cordoned(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(|shard| shard.cordoned)
    }

    /// Whether a link is in service on a shard that is not cordoned, other than this one.
    fn serves_without(&self, shard: usize) -> bool {
        self.links.values().any(|entry| {
            entry.shard != shard && !self.is_cordoned(entry.shard) && !matches!(entry.phase, Phase::SetAside(_))
        })
    }

    /// A place in the queue, or why there is none.
    pub(super) fn enqueue(
        &mut self,
        priority: Priority,
        now: Instant,
    ) -> Result<(Ticket, oneshot::Receiver<Result<Given, NotSent>>), NotSent> {
        if self.draining {
            return Err(NotSent::Draining);
        }
        if !self.has_prospect() {
            return Err(NotSent::Unavailable { retry_after: self.next_attempt_in(now) });
        }
        let bound = match priority {
            Priority::Payment => MAX_WAITING + MAX_WAITING / 4,
            Priority::Ordinary => MAX_WAITING,
        };
        if self.waiting.len() >= bound {
            self.waiting.retain(|_, waiter| !waiter.is_closed());
        }
        if self.waiting.len() >= bound {
            return Err(NotSent::QueueFull);
        }
        let ticket = (priority, self.next_id());
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(ticket, sender);
        Ok((ticket, receiver))
    }

    /// Whether the planner could open another connection for those who wait.
    pub(super) fn may_grow(&self, max_links: usize) -> bool {
        let open = self.links.values().filter(|entry| !matches!(entry.phase, Phase::SetAside(_))).count();
        let dialling: usize = self.shards.iter().map(|shard| shard.dialling).sum();
        open + dialling < max_links
    }

    /// Whether waiting for a link makes sense: one is in service, or a shard not known to be bad is being dialled.
    pub(super) fn has_prospect(&self) -> bool {
        self.links.values().any(|entry| !matches!(entry.phase, Phase::SetAside(_)))
            || self.shards.iter().any(|shard| !shard.cordoned && shard.health.is_good())
    }

    /// When nobody can be served, everybody is told at once.
    pub(super) fn fail_waiting_without_prospect(&mut self, now: Instant) {
        if self.has_prospect() {
            return;
        }
        let retry_after = self.next_attempt_in(now);
        self.fail_waiting(&NotSent::Unavailable { retry_after });
    }

    pub(super) fn fail_waiting(&mut self, why: &NotSent) {
        for (_, waiter) in std::mem::take(&mut self.waiting) {
            // A waiter that is gone needs no answer.
            let _ = waiter.send(Err(why.clone()));
        }
    }

    fn next_attempt_in(&self, now: Instant) -> Duration {
        self.shards
            .iter()
            .filter(|shard| !shard.cordoned)
            .filter_map(|shard| shard.health.retry_at())
            .min()
            .map_or(SHORTLY, |at| at.saturating_duration_since(now).max(SHORTLY))
    }

    /// Sets `link` aside; the oldest set aside stops listening where there are too many.
    pub(super) fn set_aside(&mut self, link: LinkId, now: Instant) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.phase = Phase::SetAside(now);
        }
        let set_aside = |entry: &Entry| match entry.phase {
            Phase::SetAside(since) => Some(since),
            _ => None,
        };
        if self.links.values().filter_map(set_aside).count() > MAX_SET_ASIDE {
            let oldest = self.links.values().filter(|entry| set_aside(entry).is_some());
            if let Some(entry) = oldest.min_by_key(|entry| set_aside(entry)) {
                entry.stop.cancel();
            }
        }
    }

    /// The longest idle link of a shard, to be given up.
    pub(super) fn take_idle(&mut self, shard: usize) -> Option<CancellationToken> {
        let since = |entry: &Entry| match entry.phase {
            Phase::Free(since) if entry.shard == shard => Some(since),
            _ => None,
        };
        let (&link, _) = self.links.iter().filter(|(_, e)| since(e).is_some()).min_by_key(|(_, e)| since(e))?;
        let entry = self.links.remove(&link)?;
        Some(entry.stop)
    }

    /// The picture for the planner.
    pub(super) fn view(&self, min_links: usize, max_links: usize) -> View {
        let mut shards: Vec<ShardView> = self
            .shards
            .iter()
            .map(|shard| ShardView {
                dialling: shard.dialling,
                failures: shard.health.failures(),
                timeouts: shard.health.timeouts(),
                retry_at: shard.health.retry_at(),
                probe_at: shard.health.probe_at(),
                cordoned: shard.cordoned,
                ..ShardView::default()
            })
            .collect();
        let mut busy = 0;
        for entry in self.links.values() {
            let Some(view) = shards.get_mut(entry.shard) else { continue };
            match entry.phase {
                Phase::SetAside(_) => continue,
                Phase::Busy => busy += 1,
                Phase::Free(since) => {
                    view.idle_since = Some(view.idle_since.map_or(since, |known: Instant| known.min(since)));
                }
            }
            view.links += 1;
        }
        View { shards, busy, waiting: self.waiting.len(), min_links, max_links }
    }

    /// The pool as an operator sees it.
    pub(super) fn status(&self, now: Instant) -> PoolStatus {
        let shards = self.shards.iter().enumerate().map(|(index, shard)| ShardStatus {
            shard: shard.name.clone(),
            good: shard.health.is_good(),
            in_doubt: shard.health.is_in_doubt(),
            cordoned: shard.cordoned,
            failures: shard.health.failures(),
            round_trip_us: shard.health.round_trip().map(|trip| u64::try_from(trip.as_micros()).unwrap_or(u64::MAX)),
            last_fault: shard.last_fault.clone(),
            links: self
                .links
                .iter()
                .filter(|(_, entry)| entry.shard == index)
                .map(|(id, e)| status(*id, e, now))
                .collect(),
        });
        PoolStatus { waiting: self.waiting.len(), shards: shards.collect() }
    }
}

fn status(link: LinkId, entry: &Entry, now: Instant) -> LinkStatus {
    LinkStatus {
        link,
        state: match entry.phase {
            Phase::Free(_) => "free",
            Phase::Busy => "busy",
            Phase::SetAside(_) => "set-aside",
        },
        open_seconds: now.saturating_duration_since(entry.opened).as_secs(),
    }
}

/// One instance's pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolStatus {
    /// Commands waiting for a link.
    pub waiting: usize,
    /// Each shard with its links.
    pub shards: Vec<ShardStatus>,
}

/// One shard as one instance's pool sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ShardStatus {
    /// Its name.
    pub shard: String,
    /// Whether the last attempt to connect succeeded.
    pub good: bool,
    /// Whether a connection was lost and none has been opened since: without links, nobody knows whether it is there.
    pub in_doubt: bool,
    /// Taken out by hand.
    pub cordoned: bool,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Smoothed round trip in microseconds.
    pub round_trip_us: Option<u64>,
    /// Why the last connection failed or ended.
    pub last_fault: Option<String>,
    /// Its connections.
    pub links: Vec<LinkStatus>,
}

/// One connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LinkStatus {
    /// Its generation.
    #[schema(value_type = u64)]
    pub link: LinkId,
    /// `free`, `busy` or `set-aside`.
    pub state: &'static str,
    /// How long it has been open.
    pub open_seconds: u64,
}
