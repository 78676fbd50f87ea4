//! Reads: from a copy where one will do, else from one fetch that equal reads share.
//!
//! A fetch is carried out by the caller that began it; should that caller go away, it goes on in a task of its own for the others.
//! It takes its epoch when its command is written: a copy is never newer than that, and a request that arrives after a broadcast
//! ended that epoch never joins it. Where no new copy can be had (budget, outage, timeout, a gateway that fails or answers with
//! an unknown word, the bridge's own key refused) the old one is served and labelled, unless the caller forbids it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::quality::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::dispatch::Dispatch;
use super::error::Error;
use super::fair_acquire::{FairAcquire, Requester, Turn};
use super::freshness::{CacheDirectives, Decision, Forward, decide};
use super::patience::Patience;
use crate::cache::{Cache, CachedReply, Epoch, Freshness, Key, PlainKey};
use crate::protocol::{Command, Meaning, Spec};
use crate::tenure::Tenure;

/// How long a refresh may take. No caller waits for it.
const REFRESH_DEADLINE: Duration = Duration::from_secs(15);

/// One read, as a caller asks it.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) spec: &'static Spec,
    pub(super) command: Command,
    /// What its reply is a copy of.
    pub(super) key: Key,
    /// The caller's name, by which callers take turns when points are short.
    pub(super) turn: Arc<str>,
    pub(super) directives: CacheDirectives,
    pub(super) patience: Patience,
}

/// A reply and where it came from.
#[derive(Debug, Clone)]
pub struct Served {
    pub copy: CachedReply,
    /// What the cache did, in the words of RFC 9211.
    pub status: Status,
}

/// What `Cache-Status` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Answered from a copy, without waiting for the gateway.
    pub hit: bool,
    /// Seconds of freshness left; negative when stale.
    pub ttl_s: Option<i64>,
    /// Why the request went forward.
    pub forward: Option<Forward>,
    /// Shared a fetch that another request had begun.
    pub collapsed: bool,
    pub stored: bool,
    /// Why an old copy was served in place of a new one.
    pub detail: Option<&'static str>,
}

/// The reads of one instance.
#[derive(Debug)]
pub(super) struct Reader {
    dispatch: Arc<Dispatch>,
    /// That of the pool.
    tenure: Tenure,
    cache: Arc<Cache>,
    tasks: TaskTracker,
    fetches: Mutex<Fetches>,
}

type Fetches = HashMap<Key, Arc<Fetch>, RandomState>;

/// A fetch under way.
#[derive(Debug)]
struct Fetch {
    /// The epoch in which its command was written, once it was.
    epoch: OnceLock<Epoch>,
    /// The turns in which it waits for points.
    turns: FairAcquire,
    outcome: OnceLock<Result<CachedReply, Error>>,
    ended: Notify,
}

impl Fetch {
    fn new(turn: Turn) -> Arc<Self> {
        let (epoch, outcome, ended) = (OnceLock::new(), OnceLock::new(), Notify::new());
        Arc::new(Self { epoch, turns: FairAcquire::of(turn), outcome, ended })
    }

    fn has_ended(&self) -> bool {
        self.outcome.get().is_some()
    }

    fn end(&self, outcome: Result<CachedReply, Error>) {
        // The first one is kept.
        let _ = self.outcome.set(outcome);
        self.ended.notify_waiters();
    }

    /// What it brings. It ends by its own deadline.
    async fn outcome(&self) -> Result<CachedReply, Error> {
        if let Some(outcome) = self.outcome.get() {
            return outcome.clone();
        }
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            ended.await;
        }
    }
}

/// A fetch's own hold on itself: should it panic or be cut off, nobody waits for it any more.
struct Running(Arc<Fetch>);

impl Drop for Running {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.end(Err(Error::Timeout));
        }
    }
}

/// The work of a fetch, done where this is awaited. Dropped before its end, it goes on in a task on the same thread.
struct Work(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Future for Work {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Taken out meanwhile: after a panic it does not go on.
        let Some(mut work) = self.0.take() else { return Poll::Ready(()) };
        let progress = work.as_mut().poll(context);
        if progress.is_pending() {
            self.0 = Some(work);
        }
        progress
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Without a runtime the program is ending, and all tasks with it.
        if let Some(work) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

/// What a caller gets that asks for a fetch.
enum Joined {
    Begun(Arc<Fetch>, Work),
    UnderWay(Arc<Fetch>),
}

impl Joined {
    /// What the fetch brings, by `deadline`, and whether another had begun it. A caller that waits for points for so long is
    /// denied them then, though the fetch goes on for those that wait for longer.
    async fn outcome(self, deadline: Instant, for_points: Duration) -> (Result<CachedReply, Error>, bool) {
        match self {
            Self::Begun(fetch, mut work) => {
                // It has this caller's deadline, which needs no second timer. Whatever denies a turn does so while it is polled.
                let denied = poll_fn(|context| match Pin::new(&mut work).poll(context) {
                    Poll::Ready(()) => Poll::Ready(None),
                    Poll::Pending => {
                        fetch.turns.denial(for_points).map_or(Poll::Pending, |denied| Poll::Ready(Some(denied)))
                    }
                });
                match denied.await {
                    Some(denied) => (Err(denied.into()), false),
                    None => (fetch.outcome().await, false),
                }
            }
            Self::UnderWay(fetch) => {
                let outcome = async {
                    tokio::select! {
                        biased;
                        outcome = fetch.outcome() => outcome,
                        denied = fetch.turns.denied(for_points) => Err(denied.into()),
                    }
                };
                (timeout_at(deadline, outcome).await.unwrap_or(Err(Error::Timeout)), true)
            }
        }
    }
}

impl Reader {
    pub(super) fn new(dispatch: Arc<Dispatch>, cache: Arc<Cache>, tasks: TaskTracker) -> Self {
        let tenure = dispatch.pool.tenure().clone();
        Self { dispatch, tenure, cache, tasks, fetches: Mutex::default() }
    }

    /// How a copy may be used at `now`. None is fresh while this replica may not act: what ended its freshness may have been
    /// told to another.
    fn freshness(&self, ask: &Ask, copy: &CachedReply, now: Instant) -> Freshness {
        let freshness = self.cache.freshness(ask.spec, &ask.key, copy, now);
        match (freshness, self.tenure.lapsed_for()) {
            (Freshness::Fresh { .. }, Some(by)) => Freshness::Stale { by },
            (freshness, _) => freshness,
        }
    }

    pub(super) async fn read(self: &Arc<Self>, ask: Ask) -> Result<Served, Error> {
        let ask = Arc::new(ask);
        let now = Instant::now();
        let refusal = self.cache.refusal(&ask.key, self.dispatch.api_key_number(), now);
        let known = self.cache.copy(&ask.key).map(|copy| {
            let freshness = self.freshness(&ask, &copy, now);
            (copy, freshness)
        });
        let age = |copy: &CachedReply| now.saturating_duration_since(copy.written);
        let seen = known.as_ref().map(|(copy, freshness)| (*freshness, age(copy)));
        match (decide(seen, &ask.directives, self.cache.min_age()), known) {
            (Decision::Serve, Some((copy, freshness))) => Ok(hit(copy, freshness)),
            (Decision::ServeAndRefresh, Some((copy, freshness))) => {
                if refusal.is_none() {
                    self.refresh(&ask, freshness);
                }
                Ok(hit(copy, freshness))
            }
            (Decision::Fetch { forward, fallback }, _) => {
                let (result, collapsed) = match refusal {
                    Some(refusal) => (Err(Error::Refused(refusal)), false),
                    None => self.fetch(&ask, fallback.then(|| staleness(seen))).await,
                };
                self.after_fetch(&ask, result, forward, collapsed, fallback)
            }
            (Decision::Absent | Decision::Serve | Decision::ServeAndRefresh, _) => Err(Error::NotCached),
        }
    }

    /// The answer to a read without cache directives, where a fresh copy has it.
    pub(super) fn lookup_fresh(&self, spec: &'static Spec, key: &PlainKey<'_>) -> Option<Served> {
        if !self.tenure.may_act() {
            return None;
        }
        // Without cache directives a fresh copy is always served (`freshness`).
        self.cache.fresh(spec, key, Instant::now()).map(|(copy, left)| hit(copy, Freshness::Fresh { left }))
    }

    /// Fetches, or shares a fetch; says which. `stale` is for how long the copy has been stale that can stand in, if there
    /// is one.
    async fn fetch(self: &Arc<Self>, ask: &Arc<Ask>, stale: Option<Duration>) -> (Result<CachedReply, Error>, bool) {
        let requester =
            stale.map_or_else(|| Requester::Caller(Arc::clone(&ask.turn)), |stale| Requester::Renewal { stale });
        let Patience { deadline, for_points } = ask.patience;
        let (begun, max_wait) = (Instant::now(), for_points.unwrap_or(self.dispatch.max_wait));
        let turn = Turn::new(requester.clone(), max_wait);
        let (result, collapsed) = self.join(ask, turn, deadline).outcome(deadline, max_wait).await;
        // The caller that began it may have had an earlier deadline: then one try of its own.
        let impatient =
            matches!(result, Err(Error::RateLimited { gateway: None, .. } | Error::Overloaded { .. } | Error::Timeout));
        if !(collapsed && impatient && stale.is_none() && Instant::now() < deadline) {
            return (result, collapsed);
        }
        // A caller that said how long it waits does not begin anew.
        let max_wait = for_points.map_or(max_wait, |most| most.saturating_sub(begun.elapsed()));
        self.join(ask, Turn::new(requester, max_wait), deadline).outcome(deadline, max_wait).await
    }

    /// The answer after a fetch. An old copy is judged anew before it stands in: much may have happened meanwhile.
    fn after_fetch(
        &self,
        ask: &Ask,
        result: Result<CachedReply, Error>,
        forward: Forward,
        collapsed: bool,
        fallback: bool,
    ) -> Result<Served, Error> {
        let status = Status { forward: Some(forward), collapsed, ..Status::default() };
        let error = match result {
            Ok(copy) => {
                let stored = self.cache.rule(ask.spec.name).is_some();
                return Ok(Served { copy, status: Status { stored, ..status } });
            }
            Err(error) => error,
        };
        if !(fallback && leaves_copy_true(&error)) {
            return Err(error);
        }
        let now = Instant::now();
        let Some(copy) = self.cache.copy(&ask.key) else { return Err(error) };
        let freshness = self.freshness(ask, &copy, now);
        let seen = Some((freshness, now.saturating_duration_since(copy.written)));
        let only_copies = CacheDirectives { only_if_cached: true, ..ask.directives };
        if decide(seen, &only_copies, self.cache.min_age()) != Decision::Serve {
            return Err(error);
        }
        Ok(Served { copy, status: Status { ttl_s: Some(ttl_s(freshness)), detail: Some(detail(&error)), ..status } })
    }

    /// Fetches while the caller is answered with the copy, if the budget has points to spare.
    fn refresh(self: &Arc<Self>, ask: &Arc<Ask>, freshness: Freshness) {
        let stale = staleness(Some((freshness, Duration::ZERO)));
        // Begun, it goes on in a task at once.
        drop(self.join(
            ask,
            Turn::new(Requester::Refresh { stale }, Duration::ZERO),
            Instant::now() + REFRESH_DEADLINE,
        ));
    }

    /// The fetch that answers `ask`: the one under way if its command is not written yet or was written in the epoch
    /// in force, else a new one. One that is under way then asks for points on behalf of this caller too.
    fn join(self: &Arc<Self>, ask: &Arc<Ask>, turn: Turn, deadline: Instant) -> Joined {
        let mut fetches = self.fetches();
        let current = self.cache.epoch(ask.spec, &ask.key);
        let under_way = |fetch: &Fetch| !fetch.has_ended() && fetch.epoch.get().is_none_or(|epoch| *epoch == current);
        let entry = match fetches.entry(ask.key.clone()) {
            Entry::Occupied(known) if under_way(known.get()) => {
                known.get().turns.join(turn);
                return Joined::UnderWay(Arc::clone(known.get()));
            }
            entry => entry,
        };
        let fetch = Fetch::new(turn);
        entry.insert_entry(Arc::clone(&fetch));
        drop(fetches);
        let work = Arc::clone(self).run_fetch(Running(Arc::clone(&fetch)), Arc::clone(ask), deadline);
        let work = self.tasks.track_future(work.in_current_span());
        Joined::Begun(fetch, Work(Some(Box::pin(work))))
    }

    /// One fetch, from its command to its copy.
    async fn run_fetch(self: Arc<Self>, running: Running, ask: Arc<Ask>, deadline: Instant) {
        let fetch = &running.0;
        let mut written = (Instant::now(), Epoch::FORMER);
        let mut api_key = self.dispatch.api_key_number();
        let note_write = || {
            // A command written again on another shard is as new as its last writing; callers that joined after its first
            // writing joined in the same epoch, or not at all.
            written = (Instant::now(), self.cache.epoch(ask.spec, &ask.key));
            let _ = fetch.epoch.set(written.1);
            // Before the key itself is taken: a refusal is never remembered of a later key than it was said of.
            api_key = self.dispatch.api_key_number();
        };
        let result = self.dispatch.repeatable(&ask.command, &fetch.turns, deadline, note_write).await;
        let result = result.map(|body| CachedReply::new(body, written.0, written.1));
        match &result {
            // What another replica may have changed is not kept.
            Ok(copy) if self.cache.rule(ask.spec.name).is_some() && self.tenure.may_act() => {
                self.cache.keep(&ask.key, copy.clone());
            }
            // What failed may work the next time, and so may what was answered with an unknown word.
            Err(Error::Refused(error)) if !matches!(error.meaning(), Meaning::Failed | Meaning::Other) => {
                if error.meaning() == Meaning::PosPassword {
                    self.cache.delete(&ask.key);
                }
                self.cache.refuse(ask.key.clone(), error.clone(), api_key);
            }
            Ok(_) | Err(_) => {}
        }
        let mut fetches = self.fetches();
        if fetches.get(&ask.key).is_some_and(|current| Arc::ptr_eq(current, fetch)) {
            fetches.remove(&ask.key);
        }
        drop(fetches);
        fetch.end(result);
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock()
    }
}

/// For how long a copy has been stale.
fn staleness(seen: Option<(Freshness, Duration)>) -> Duration {
    match seen {
        Some((Freshness::Stale { by } | Freshness::Invalidated { by }, _)) => by,
        _ => Duration::ZERO,
    }
}

fn hit(copy: CachedReply, freshness: Freshness) -> Served {
    Served { copy, status: Status { hit: true, ttl_s: Some(ttl_s(freshness)), ..Status::default() } }
}

fn ttl_s(freshness: Freshness) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match freshness {
        Freshness::Fresh { left } => seconds(left),
        // Ended this very moment is stale all the same.
        Freshness::Stale { by } | Freshness::Invalidated { by } => -seconds(by).max(1),
        Freshness::Expired => i64::MIN,
    }
}

/// Whether a failure says nothing against an old copy.
fn leaves_copy_true(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. }
        | Error::Overloaded { .. }
        | Error::ShuttingDown { .. }
        | Error::NotOwner { .. }
        | Error::RateLimited { .. }
        | Error::Timeout
        | Error::Lost { .. }
        | Error::Violation(_) => true,
        Error::Refused(error) => matches!(error.meaning(), Meaning::Failed | Meaning::Credentials | Meaning::Other),
        _ => false,
    }
}

/// The reason in `Cache-Status`.
fn detail(error: &Error) -> &'static str {
    match error {
        Error::RateLimited { .. } => "rate-limited",
        Error::Timeout => "gateway-timeout",
        Error::Refused(_) => "gateway-error",
        Error::Violation(_) => "gateway-protocol-violation",
        _ => "gateway-unavailable",
    }
}

#[cfg(test)]
mod tests;
