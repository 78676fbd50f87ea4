//! What the pool knows, behind one lock that is never held across an await.
//!
//! Links remove themselves and put themselves back here. Callers that wait for a link wait here, payments first and
//! otherwise in order of arrival.

use std::collections::{BTreeMap, HashMap};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Fault, NotSent};
use super::links::{Entry, Free, LinkId, Links, Phase, Work};
use super::outage::{Outage, OutageNews};
use super::plan::{ShardView, View};
use super::reach::{Reach, SharedHealth};
use super::shard::Health;
use crate::clock::{RETRY_SHORTLY, whole_us};

/// How many may wait for a link. Reads fail with [`NotSent::QueueFull`] beyond it; payments have a quarter more.
const MAX_WAITING: usize = 1024;

/// How many links may be set aside at once to listen for late replies; beyond it the oldest stops listening.
const MAX_SET_ASIDE: usize = 32;

/// How much slower a shard may answer, in microseconds, before a link of another thread is preferred to one of it: changing
/// threads takes some tens of microseconds twice, and round trips of one shard differ by more.
const WORTH_A_THREAD_US: u64 = 1_000;

/// How often whoever waits for a link may be overtaken by a caller on the thread where one became free.
const MAX_OVERTAKEN: u32 = 16;

/// How many that wait are looked at for a caller on that thread.
const LOOKED_AT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A sale: before everything else.
    Payment,
    /// Everything else.
    Ordinary,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    /// Identifies the shard across instances: the host is a part of it, which may depend on the instance.
    pub(super) key: String,
    /// As this instance found it.
    pub(super) health: Health,
    /// As all instances together found it.
    pub(super) shared_health: SharedHealth,
    pub(super) dialling: usize,
    pub(super) cordoned: bool,
    pub(super) last_fault: Option<Fault>,
}

impl Shard {
    /// Whether nothing speaks against dialling it.
    pub(super) fn is_good(&self) -> bool {
        self.health.is_good() && self.shared_health.health.is_good()
    }

    /// Whether a connection was lost and none was opened since.
    fn is_in_doubt(&self) -> bool {
        self.shared_health.health.is_good() && self.health.is_in_doubt()
    }

    /// Whether a caller should wait for the next attempt.
    fn may_be_back_soon(&self) -> bool {
        self.health.may_be_back_soon() && self.shared_health.health.may_be_back_soon()
    }

    pub(super) fn failures(&self) -> u32 {
        self.health.failures().max(self.shared_health.health.failures())
    }

    fn retry_at(&self) -> Option<Instant> {
        self.health.retry_at().max(self.shared_health.health.retry_at())
    }

    fn probe_at(&self) -> Option<Instant> {
        self.health.probe_at().max(self.shared_health.health.probe_at())
    }
}

/// A link that was given to a caller.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) link: LinkId,
    pub(super) shard: usize,
    /// The thread on which it lives, where it is a single one.
    pub(super) thread: Option<ThreadId>,
    pub(super) jobs: mpsc::Sender<Work>,
}

/// A place in the queue; its order is the order of service.
pub(super) type Ticket = (Priority, u64);

/// A caller that waits for a link.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) sender: oneshot::Sender<Result<Given, NotSent>>,
    /// The shard whose links it does not take.
    pub(super) avoid: Option<usize>,
    /// Where it waits.
    thread: ThreadId,
    /// By how many that came later.
    overtaken: u32,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) links: Links,
    pub(super) shards: Vec<Shard>,
    pub(super) waiting: BTreeMap<Ticket, Waiter>,
    pub(super) draining: bool,
    outage: Outage,
    /// This replica may not act for the instance: no link is given or opened.
    pub(super) fenced: bool,
    /// No link is given, and callers wait: the instance is about to be handed over.
    pub(super) held: bool,
    max_links: usize,
    next_id: u64,
}

impl State {
    /// Shards by name, each with what names it among all instances.
    pub(super) fn new(shards: impl IntoIterator<Item = (String, String)>, max_links: usize) -> Self {
        let shard = |(name, key)| Shard {
            name,
            key,
            shared_health: SharedHealth::default(),
            health: Health::new(),
            dialling: 0,
            cordoned: false,
            last_fault: None,
        };
        let shards: Vec<_> = shards.into_iter().map(shard).collect();
        Self {
            links: Links::new(shards.len()),
            shards,
            waiting: BTreeMap::new(),
            draining: false,
            outage: Outage::new(Instant::now()),
            fenced: false,
            held: false,
            max_links,
            next_id: 0,
        }
    }

    /// Takes note of whether a link is in service. To be called wherever one may have begun to be, or ceased, and wherever
    /// there may be no prospect of one any more.
    pub(super) fn observe_links(&mut self, now: Instant) -> Option<OutageNews> {
        let (is_linked, has_prospect) = (self.is_linked(), self.has_prospect());
        self.outage.observe(is_linked, has_prospect, now)
    }

    /// Takes note of what all instances know of the shards.
    pub(super) fn look_at(&mut self, reach: &Reach) {
        for shard in &mut self.shards {
            shard.shared_health = reach.of(&shard.key);
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Takes the best free link for a caller on `thread`: one that runs there, unless its shard is slower; then one on the
    /// shard with the fewest busy links, then with the lowest round trip. One with an unanswered ping only if there is no
    /// other, and none on `avoid`. None where the links that are left are reserved for payments.
    pub(super) fn take(&mut self, priority: Priority, avoid: Option<usize>, thread: ThreadId) -> Option<Given> {
        let link = self.best(priority, avoid, thread)?;
        self.give(link, priority)
    }

    fn best(&self, priority: Priority, avoid: Option<usize>, thread: ThreadId) -> Option<LinkId> {
        if self.held || !self.may_be_given(priority) {
            return None;
        }
        let offers = || {
            let offer = |(index, shard): (usize, &Shard)| {
                let free = self.links.first_free(index, thread)?;
                Some((index, shard.health.round_trip().map_or(0, whole_us), free))
            };
            self.shards.iter().enumerate().filter_map(offer)
        };
        let lowest = offers().map(|(_, round_trip, _)| round_trip).min()?;
        let rank = |(index, round_trip, free): (usize, u64, Free)| {
            let shard = self.shards.get(index).filter(|_| Some(index) != avoid)?;
            let is_slower = round_trip.saturating_sub(lowest) > WORTH_A_THREAD_US;
            let doubts = (shard.cordoned, free.is_doubted, shard.health.timeouts());
            let round_trip = (round_trip / 1000, free.is_elsewhere, round_trip);
            Some((doubts, free.is_elsewhere || is_slower, self.links.busy(index), round_trip, free.link))
        };
        offers().filter_map(rank).min().map(|(.., link)| link)
    }

    /// Whether no waiting caller that could be given a link now goes before a new one of this priority.
    pub(super) fn is_next(&self, priority: Priority) -> bool {
        !self.waiting.iter().any(|((before, _), waiter)| *before <= priority && waiter.avoid.is_none())
    }

    /// Slow reads must not keep payments from selling: of several links one is never given to another command.
    fn may_be_given(&self, priority: Priority) -> bool {
        priority == Priority::Payment || self.links.ordinary() < self.max_links.saturating_sub(1).max(1)
    }

    /// Marks `link` busy and hands it over.
    fn give(&mut self, link: LinkId, priority: Priority) -> Option<Given> {
        let entry = self.links.turn(link, Phase::Busy { ordinary: priority == Priority::Ordinary })?;
        Some(Given { link, shard: entry.shard, thread: entry.thread, jobs: entry.jobs.clone() })
    }

    /// An exchange on `link` is over, and its ping took `round_trip`.
    pub(super) fn settled(&mut self, link: LinkId, round_trip: Duration, now: Instant) {
        let shard = self.links.get(link).map(|entry| entry.shard);
        if let Some(shard) = shard.and_then(|shard| self.shards.get_mut(shard)) {
            shard.health.measured(round_trip);
            shard.health.answered();
        }
        self.put_back(link, now);
    }

    /// Puts `link` back: to the first in the queue, or among the free.
    pub(super) fn put_back(&mut self, link: LinkId, now: Instant) {
        if !self.links.get(link).is_some_and(Entry::is_in_service) {
            return;
        }
        let Some(shard) = self.links.put_back(link, now).map(|entry| entry.shard) else { return };
        if (self.fenced || self.is_cordoned(shard) && self.serves_without(shard))
            && let Some(entry) = self.links.remove(link)
        {
            entry.stop.cancel();
        }
        self.serve_waiting(now);
    }

    /// Gives free links to waiting callers.
    pub(super) fn serve_waiting(&mut self, now: Instant) {
        while let Some((first, link)) = self.next_served() {
            let ticket = self.overtaking(first, link).unwrap_or(first);
            let (Some(waiter), Some(given)) = (self.waiting.remove(&ticket), self.give(link, ticket.0)) else { return };
            // The caller went away; the link is still free.
            if waiter.sender.send(Ok(given)).is_err() {
                self.links.turn(link, Phase::Free(now));
            }
        }
    }

    /// The first in the queue for which a link is free, and that link.
    fn next_served(&self) -> Option<(Ticket, LinkId)> {
        // Once there is none for the first that takes any, there is none for whoever comes after it.
        for (ticket, waiter) in &self.waiting {
            match self.best(ticket.0, waiter.avoid, waiter.thread) {
                Some(link) => return Some((*ticket, link)),
                None if waiter.avoid.is_none() => return None,
                None => {}
            }
        }
        None
    }

    /// Who is given `link` in place of the `first` in the queue: the next one of the same priority on the link's own thread,
    /// so that neither has to change threads.
    fn overtaking(&mut self, first: Ticket, link: LinkId) -> Option<Ticket> {
        let entry = self.links.get(link)?;
        let (thread, shard) = (entry.thread?, entry.shard);
        let is_near = |waiter: &Waiter| waiter.thread == thread && waiter.avoid != Some(shard);
        if self.waiting.get(&first).is_none_or(|waiter| is_near(waiter) || waiter.overtaken >= MAX_OVERTAKEN) {
            return None;
        }
        let mut others = self.waiting.range(first..).take_while(|(ticket, _)| ticket.0 == first.0).take(LOOKED_AT);
        let near = *others.find(|(_, waiter)| is_near(waiter))?.0;
        self.waiting.get_mut(&first)?.overtaken += 1;
        Some(near)
    }

    /// Whether another shard than this one has a link in service, or a good one is being dialled.
    pub(super) fn has_prospect_without(&self, shard: usize) -> bool {
        let opening = |(index, other): (usize, &Shard)| {
            index != shard && !other.cordoned && other.dialling > 0 && other.is_good()
        };
        self.serves_without(shard) || self.shards.iter().enumerate().any(opening)
    }

    fn is_cordoned(&self, shard: usize) -> bool {
        self.shards.get(shard).is_some_and(|shard| shard.cordoned)
    }

    /// Whether a link is in service on a shard that is not cordoned, other than this one.
    fn serves_without(&self, shard: usize) -> bool {
        self.links.values().any(|entry| entry.shard != shard && !self.is_cordoned(entry.shard) && entry.is_in_service())
    }

    /// Whether a command is under way, or about to be.
    pub(super) fn is_busy(&self) -> bool {
        self.links.is_busy()
    }

    /// Gives no link from now on, while callers wait. Asks every idle link for a sign of life: until when broadcasts were
    /// received is known by that.
    pub(super) fn hold(&mut self) {
        self.held = true;
        for link in self.links.free().collect::<Vec<_>>() {
            if self.links.get(link).is_some_and(|entry| entry.jobs.try_send(Work::Ping).is_ok()) {
                self.links.turn(link, Phase::Busy { ordinary: false });
            }
        }
    }

    /// When something last came on each link.
    pub(super) fn heard(&self) -> HashMap<LinkId, Instant> {
        self.links.iter().map(|(link, entry)| (link, entry.heard.at())).collect()
    }

    /// Gives no link from now on: callers that wait are told, and idle links are closed. Those with a command under way end
    /// when they would have to write again.
    pub(super) fn fence(&mut self) {
        self.fenced = true;
        self.fail_waiting(&NotSent::NotOwner);
        for idle in self.links.remove_free() {
            idle.stop.cancel();
        }
    }

    /// A place in the queue, or why there is none.
    pub(super) fn enqueue(
        &mut self,
        priority: Priority,
        now: Instant,
        avoid: Option<usize>,
    ) -> Result<(Ticket, oneshot::Receiver<Result<Given, NotSent>>), NotSent> {
        if self.draining {
            return Err(NotSent::Draining);
        }
        if self.fenced {
            return Err(NotSent::NotOwner);
        }
        if !self.has_prospect() {
            return Err(NotSent::Unavailable { retry_after: self.next_attempt_in(now) });
        }
        let bound = match priority {
            Priority::Payment => MAX_WAITING + MAX_WAITING / 4,
            Priority::Ordinary => MAX_WAITING,
        };
        if self.waiting.len() >= bound {
            self.waiting.retain(|_, waiter| !waiter.sender.is_closed());
        }
        if self.waiting.len() >= bound {
            return Err(NotSent::QueueFull);
        }
        let ticket = (priority, self.next_id());
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(ticket, Waiter { sender, avoid, thread: thread::current().id(), overtaken: 0 });
        Ok((ticket, receiver))
    }

    /// Whether the planner could open another connection for a caller that waits with this priority.
    pub(super) fn may_grow(&self, priority: Priority) -> bool {
        let max_links = if priority == Priority::Payment { self.max_links.max(2) } else { self.max_links };
        let open = self.links.values().filter(|entry| entry.is_in_service()).count();
        let dialling: usize = self.shards.iter().map(|shard| shard.dialling).sum();
        open + dialling < max_links
    }

    /// Whether a link is in service.
    pub(super) fn is_linked(&self) -> bool {
        self.links.values().any(Entry::is_in_service)
    }

    /// Whether waiting for a link makes sense: one is in service, or there is a shard that is good, or has been bad for so
    /// short a time that the next attempt may succeed.
    pub(super) fn has_prospect(&self) -> bool {
        self.is_linked() || self.shards.iter().any(|shard| !shard.cordoned && shard.may_be_back_soon())
    }

    /// Where no waiting caller can be served, all of them fail at once.
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
            let _ = waiter.sender.send(Err(why.clone()));
        }
    }

    fn next_attempt_in(&self, now: Instant) -> Duration {
        self.shards
            .iter()
            .filter(|shard| !shard.cordoned)
            .filter_map(Shard::retry_at)
            .min()
            .map_or(RETRY_SHORTLY, |at| at.saturating_duration_since(now).max(RETRY_SHORTLY))
    }

    /// Sets `link` aside. Where there are too many, one stops listening: the oldest of a refused payment, or else of an
    /// unknown one, whose late reply matters more. Returns which.
    #[must_use]
    pub(super) fn set_aside(&mut self, link: LinkId, is_unknown: bool, now: Instant) -> Option<LinkId> {
        self.links.turn(link, Phase::SetAside { since: now, is_unknown });
        let rank = |(link, entry): (LinkId, &Entry)| match entry.phase() {
            Phase::SetAside { since, is_unknown } => Some((is_unknown, since, link)),
            _ => None,
        };
        let set_aside = || self.links.iter().filter_map(rank);
        if set_aside().count() <= MAX_SET_ASIDE {
            return None;
        }
        let (.., first) = set_aside().min()?;
        self.links.remove(first)?.stop.cancel();
        Some(first)
    }

    /// The longest idle link of a shard, to be given up.
    pub(super) fn take_idle(&mut self, shard: usize) -> Option<CancellationToken> {
        let idle = |(link, entry): (LinkId, &Entry)| match entry.phase() {
            Phase::Free(since) if entry.shard == shard => Some((since, link)),
            _ => None,
        };
        let (_, link) = self.links.iter().filter_map(idle).min()?;
        let entry = self.links.remove(link)?;
        Some(entry.stop)
    }

    /// The picture for the planner.
    pub(super) fn view(&self, min_links: usize, max_links: usize) -> View {
        let mut shards: Vec<ShardView> = self
            .shards
            .iter()
            .map(|shard| ShardView {
                dialling: shard.dialling,
                on_trial: shard.shared_health.on_trial,
                failures: shard.failures(),
                timeouts: shard.health.timeouts(),
                retry_at: shard.retry_at(),
                probe_at: shard.probe_at(),
                cordoned: shard.cordoned,
                ..ShardView::default()
            })
            .collect();
        let mut busy = 0;
        for entry in self.links.values() {
            let Some(view) = shards.get_mut(entry.shard) else { continue };
            match entry.phase() {
                Phase::SetAside { .. } => continue,
                Phase::Busy { .. } => busy += 1,
                Phase::Free(since) => {
                    view.idle_since = Some(view.idle_since.map_or(since, |known: Instant| known.min(since)));
                }
            }
            view.links += 1;
        }
        let payments = self.waiting.keys().take_while(|(priority, _)| *priority == Priority::Payment).count();
        View { shards, busy, waiting: self.waiting.len(), payments, min_links, max_links }
    }

    /// The pool as an operator sees it.
    pub(super) fn status(&self, now: Instant) -> PoolStatus {
        let shards = self.shards.iter().enumerate().map(|(index, shard)| ShardStatus {
            shard: shard.name.clone(),
            good: shard.is_good(),
            in_doubt: shard.is_in_doubt(),
            cordoned: shard.cordoned,
            failures: shard.failures(),
            round_trip_us: shard.health.round_trip().map(whole_us),
            last_fault: shard.shared_health.fault.clone().or_else(|| shard.last_fault.clone()),
            links: self
                .links
                .iter()
                .filter(|(_, entry)| entry.shard == index)
                .map(|(link, entry)| status(link, entry, now))
                .collect(),
        });
        PoolStatus { waiting: self.waiting.len(), unlinked_since: self.outage.since(), shards: shards.collect() }
    }
}

fn status(link: LinkId, entry: &Entry, now: Instant) -> LinkStatus {
    LinkStatus {
        link,
        state: match entry.phase() {
            Phase::Free(_) => LinkState::Free,
            Phase::Busy { .. } => LinkState::Busy,
            Phase::SetAside { .. } => LinkState::SetAside,
        },
        open_seconds: now.saturating_duration_since(entry.opened()).as_secs(),
    }
}

/// One instance's pool.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// Commands waiting for a link.
    pub waiting: usize,
    /// Since when no link is in service.
    pub unlinked_since: Option<Instant>,
    /// Each shard with its links.
    pub shards: Vec<ShardStatus>,
}

/// One shard as one instance's pool sees it.
#[derive(Debug, Clone)]
pub struct ShardStatus {
    pub shard: String,
    /// Whether the last attempt to connect succeeded.
    pub good: bool,
    /// Whether a connection was lost and none has been opened since, so that it is not known whether it can be reached.
    pub in_doubt: bool,
    pub cordoned: bool,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Smoothed round trip in microseconds.
    pub round_trip_us: Option<u64>,
    /// Why the last connection failed or ended; none once another was opened.
    pub last_fault: Option<Fault>,
    pub links: Vec<LinkStatus>,
}

/// What a link is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Waits for a command.
    Free,
    /// Carries a command, or is about to.
    Busy,
    /// Carries no more commands: a late reply is awaited, or it is about to be closed.
    SetAside,
}

impl LinkState {
    pub const ALL: [Self; 3] = [Self::Free, Self::Busy, Self::SetAside];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Busy => "busy",
            Self::SetAside => "set-aside",
        }
    }
}

#[derive(Debug, Clone)]
pub struct LinkStatus {
    pub link: LinkId,
    pub state: LinkState,
    /// How long it has been open.
    pub open_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state with one link on each of these shards, all of them busy.
    fn busy(shards: &[usize]) -> (State, Vec<mpsc::Receiver<Work>>) {
        opened(shards.iter().map(|shard| (*shard, None)))
    }

    /// A state with one link on each of these shards and threads, all of them busy.
    fn opened(links: impl Iterator<Item = (usize, Option<ThreadId>)>) -> (State, Vec<mpsc::Receiver<Work>>) {
        let mut state = State::new(["exon", "cyton", "zeus"].map(|name| (name.to_owned(), name.to_owned())), 8);
        let mut inboxes = Vec::new();
        for (shard, thread) in links {
            let (jobs, inbox) = mpsc::channel(1);
            inboxes.push(inbox);
            let (link, heard) = (state.next_id(), Instant::now().into());
            state.links.insert(link, Entry::new(shard, thread, heard, jobs, CancellationToken::new()));
        }
        (state, inboxes)
    }

    fn take(state: &mut State, priority: Priority, avoid: Option<usize>) -> Option<Given> {
        state.take(priority, avoid, thread::current().id())
    }

    fn wait(state: &mut State, avoid: Option<usize>) -> oneshot::Receiver<Result<Given, NotSent>> {
        state.enqueue(Priority::Ordinary, Instant::now(), avoid).unwrap().1
    }

    fn given(receiver: &mut oneshot::Receiver<Result<Given, NotSent>>) -> Option<usize> {
        receiver.try_recv().ok().map(|given| given.unwrap().shard)
    }

    #[tokio::test]
    async fn where_too_many_are_set_aside_the_oldest_refused_goes_first_and_then_the_oldest_unknown() {
        let (mut state, _inboxes) = busy(&[0; MAX_SET_ASIDE + 3]);
        let set_aside = |state: &mut State, link: usize, is_unknown| {
            state.set_aside(link as LinkId, is_unknown, Instant::now() + Duration::from_millis(link as u64))
        };
        for link in 1..=MAX_SET_ASIDE {
            assert_eq!(set_aside(&mut state, link, link != 3), None);
        }
        assert_eq!(set_aside(&mut state, MAX_SET_ASIDE + 1, true), Some(3));
        assert_eq!(set_aside(&mut state, MAX_SET_ASIDE + 2, true), Some(1));
    }

    #[test]
    fn whoever_avoids_a_shard_lets_others_take_its_links_and_gets_the_first_of_another() {
        let (mut state, _inboxes) = busy(&[0, 1]);
        let (mut retry, mut other) = (wait(&mut state, Some(0)), wait(&mut state, None));
        state.put_back(1, Instant::now());
        assert_eq!((given(&mut retry), given(&mut other)), (None, Some(0)));
        state.put_back(1, Instant::now());
        assert_eq!(given(&mut retry), None, "free, and not wanted");
        assert!(take(&mut state, Priority::Ordinary, Some(0)).is_none());
        state.put_back(2, Instant::now());
        assert_eq!(given(&mut retry), Some(1));
        assert!(take(&mut state, Priority::Ordinary, None).is_some());
    }

    #[test]
    fn a_link_with_an_unanswered_ping_is_given_out_last_and_trusted_again_once_it_is_put_back() {
        let (mut state, _inboxes) = busy(&[0, 1]);
        for link in [1, 2] {
            state.put_back(link, Instant::now());
        }
        state.links.doubt(1, true);
        assert_eq!(take(&mut state, Priority::Ordinary, None).map(|given| given.link), Some(2));
        assert_eq!(take(&mut state, Priority::Ordinary, None).map(|given| given.link), Some(1), "there is no other");
        state.put_back(1, Instant::now());
        assert!(!state.links.first_free(0, thread::current().id()).unwrap().is_doubted);
    }

    #[test]
    fn of_several_links_one_is_never_given_to_a_read_and_of_one_it_is() {
        let (mut state, _inboxes) = busy(&[0, 1]);
        state.max_links = 2;
        for link in [1, 2] {
            state.put_back(link, Instant::now());
        }
        let read = take(&mut state, Priority::Ordinary, None).unwrap().link;
        let mut waits = wait(&mut state, None);
        assert!(take(&mut state, Priority::Ordinary, None).is_none() && given(&mut waits).is_none());
        assert!(state.is_next(Priority::Payment), "a payment passes reads that wait for what is kept from them");
        let sale = take(&mut state, Priority::Payment, None).unwrap().link;
        state.put_back(sale, Instant::now());
        assert_eq!(given(&mut waits), None);
        state.put_back(read, Instant::now());
        assert!(given(&mut waits).is_some());

        let (mut state, _inboxes) = busy(&[0]);
        state.max_links = 1;
        state.put_back(1, Instant::now());
        assert!(take(&mut state, Priority::Ordinary, None).is_some());
    }

    /// A state with links on these shards and threads, all free, with shards that answer after these milliseconds.
    fn free(links: &[(usize, ThreadId)], round_trips_ms: [u64; 3]) -> (State, Vec<mpsc::Receiver<Work>>) {
        let (mut state, inboxes) = opened(links.iter().map(|(shard, thread)| (*shard, Some(*thread))));
        for (shard, millis) in state.shards.iter_mut().zip(round_trips_ms) {
            shard.health.measured(Duration::from_millis(millis));
        }
        for (link, _) in (1..).zip(links) {
            state.put_back(link, Instant::now());
        }
        (state, inboxes)
    }

    fn other_thread() -> ThreadId {
        thread::spawn(|| thread::current().id()).join().unwrap()
    }

    #[test]
    fn a_free_link_of_the_asking_thread_is_taken_first_unless_its_shard_is_slower() {
        let (here, there) = (thread::current().id(), other_thread());
        // On the other thread the shard has fewer busy links, and here one is busy already.
        let (mut state, _inboxes) = free(&[(0, here), (0, here), (1, there)], [20, 20, 20]);
        let taken = [(); 3].map(|()| take(&mut state, Priority::Ordinary, None).unwrap().link);
        assert_eq!(taken, [1, 2, 3]);
        let (mut state, _inboxes) = free(&[(0, here), (1, there)], [40, 20, 20]);
        assert_eq!(take(&mut state, Priority::Ordinary, None).unwrap().link, 2, "20 ms are worth a change of threads");
        let (mut state, _inboxes) = free(&[(0, here), (1, there)], [20, 20, 20]);
        state.links.doubt(1, true);
        assert_eq!(take(&mut state, Priority::Ordinary, None).unwrap().link, 2);
    }

    #[test]
    fn whoever_waits_on_the_thread_of_a_link_goes_first_but_overtakes_nobody_for_long() {
        let (here, there) = (thread::current().id(), other_thread());
        let (mut state, _inboxes) = free(&[(0, there)], [20, 20, 20]);
        let link = take(&mut state, Priority::Ordinary, None).unwrap().link;
        let mut far = wait(&mut state, None);
        let mut near: Vec<_> = (0..=MAX_OVERTAKEN).map(|_| wait(&mut state, None)).collect();
        for waiter in state.waiting.values_mut().skip(1) {
            waiter.thread = there;
        }
        assert!(state.waiting.values().next().is_some_and(|waiter| waiter.thread == here));
        for waiter in near.iter_mut().take(MAX_OVERTAKEN as usize) {
            state.put_back(link, Instant::now());
            assert!(given(waiter).is_some() && given(&mut far).is_none());
        }
        state.put_back(link, Instant::now());
        assert!(given(&mut far).is_some(), "it was overtaken often enough");
        // A payment is overtaken by none but payments.
        let (_, mut sale) = state.enqueue(Priority::Payment, Instant::now(), None).unwrap();
        state.put_back(link, Instant::now());
        assert!(given(&mut sale).is_some());
    }

    #[test]
    fn a_link_of_another_shard_may_be_had_where_one_serves_or_is_being_opened() {
        let (mut state, _inboxes) = busy(&[0, 1]);
        assert!(state.has_prospect_without(0));
        state.shards[1].cordoned = true;
        assert!(!state.has_prospect_without(0), "none is to be used of a shard that was taken out");
        state.shards[2].dialling = 1;
        assert!(state.has_prospect_without(0));
        assert!(state.has_prospect_without(2));
        let now = Instant::now();
        state.shards[2].health.dial_failed(now, now, 0.5, false);
        assert!(!state.has_prospect_without(0));
    }
}
