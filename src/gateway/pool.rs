//! The links of one instance: choose, grow, shrink, queue.
//!
//! A command first gets a [`Lease`] on a link and then is written on it. The two steps are separate because what must happen
//! in between (points booked, a payment made durable) must happen as late as possible and before the first byte. A free
//! link is given at once; else the caller queues, payments first, until a link is put back or the deadline passes. If no
//! shard can be reached, the caller fails at once.
//!
//! While this replica may not act for the instance, callers are told so at once, and no link is opened.
//!
//! One task a pool, [`Pool::tend`], opens and closes connections as [`plan`](super::plan) decides, for as long as the
//! program runs.

use std::collections::{BTreeSet, HashMap};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};

use super::attempt::Attempt;
use super::config::Config;
use super::context::PoolContext;
use super::dialer::Dialer;
use super::error::{Failure, NotSent};
use super::events::EventSink;
use super::exchange::Expect;
use super::link;
use super::links::{Job, LinkId, Work};
use super::metrics::Metrics;
use super::plan::plan;
use super::runtimes::Runtimes;
use super::state::{Given, PoolStatus, Priority, State, Ticket};
use crate::protocol::{Body, Command, command, frame};
use crate::telemetry::traces;
use crate::tenure::Tenure;

/// The connections of one instance. Cheap to clone; they are all the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<PoolContext>,
}

impl Pool {
    /// A pool for `instance`, whose name at the gateway is `slug`. It opens nothing until [`tend`](Self::tend) runs.
    /// `events` is called with broadcasts and with opened and closed connections as they happen, before the next frame of
    /// that connection is read.
    #[must_use]
    pub fn new(config: Config, instance: &str, slug: &str, dialer: Dialer, events: EventSink) -> Self {
        let shards = config.shards.iter().map(|shard| (shard.clone(), config.key_of(shard, slug)));
        let (state, metrics) = (Mutex::new(State::new(shards, config.max_links)), Metrics::new(&config.shards));
        let shared = PoolContext {
            config,
            instance: instance.to_owned(),
            events,
            metrics,
            slug: slug.to_owned(),
            dialer,
            state,
            changed: Notify::new(),
            returned: Notify::new(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    #[must_use]
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    /// Its name at the gateway.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.shared.slug
    }

    /// The shards that are taken out by hand.
    #[must_use]
    pub fn cordoned(&self) -> BTreeSet<String> {
        let state = self.shared.state();
        state.shards.iter().filter(|shard| shard.cordoned).map(|shard| shard.name.clone()).collect()
    }

    /// Opens and closes connections as planned until `stop`, then refuses new commands, waits for exchanges under way no
    /// longer than `grace`, and closes every link. The links run on `runtimes`.
    pub async fn tend(self, runtimes: Runtimes, stop: CancellationToken, grace: Duration) {
        runtimes.registered().await;
        let mut reached = self.shared.dialer.reach().changes();
        loop {
            let may_listen = self.heed_tenure();
            let look_again = if may_listen { self.follow_plan(&runtimes) } else { None };
            let pause = async {
                match look_again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.shared.changed.notified() => {}
                _ = reached.changed() => {}
                () = pause => {}
                () = self.shared.tenure().lapsed(), if may_listen => {}
                () = self.shared.tenure().resumed(), if !may_listen => {}
            }
        }
        self.drain(Instant::now() + grace).await;
    }

    /// Whether links may be opened. Where they may not, closes those that nothing is under way on.
    fn heed_tenure(&self) -> bool {
        let may_listen = self.shared.tenure().may_listen();
        let mut state = self.shared.state();
        if may_listen {
            state.fenced = false;
        } else {
            state.fence();
        }
        may_listen
    }

    /// Does what the planner says; returns when to ask it again.
    fn follow_plan(&self, runtimes: &Runtimes) -> Option<Instant> {
        let now = Instant::now();
        let shared = &self.shared;
        let mut state = shared.state();
        state.look_at(shared.dialer.reach());
        state.fail_waiting_without_prospect(now);
        shared.observe_links(&mut state, now);
        let plan = plan(&state.view(shared.config.min_links, shared.config.max_links), now);
        let mut dials = Vec::with_capacity(plan.dial.len());
        for index in plan.dial {
            let Some(wanted) = state.shards.get_mut(index) else { continue };
            let Some(reaching) = shared.dialer.reach().begin(&wanted.key, now) else {
                // Another instance dials it already, or has just found it bad.
                shared.changed.notify_one();
                continue;
            };
            wanted.dialling += 1;
            dials.push((Attempt::begun(shared, index, reaching), wanted.name.clone()));
        }
        for index in plan.give_up {
            if let Some(stop) = state.take_idle(index) {
                stop.cancel();
                // Another may be idle as well.
                shared.changed.notify_one();
            }
        }
        let grown = state.links.len() > shared.config.min_links;
        drop(state);
        // Outside the lock: an attempt on a thread that has just ended is dropped at once, and its drop takes the lock.
        for (attempt, shard) in dials {
            let assignment = runtimes.assign();
            let runtime = assignment.runtime.clone();
            shared.tasks.spawn_on(attempt.go(shard, assignment), &runtime);
        }
        plan.look_again.or_else(|| grown.then(|| now + super::plan::IDLE_PATIENCE))
    }

    async fn drain(&self, deadline: Instant) {
        {
            let mut state = self.shared.state();
            state.draining = true;
            state.fail_waiting(&NotSent::Draining);
        }
        self.shared.closing.cancel();
        let idle = async {
            while self.shared.state().is_busy() {
                self.shared.changed.notified().await;
            }
        };
        if timeout_at(deadline, idle).await.is_err() {
            tracing::warn!(instance = self.shared.instance, "exchanges under way were cut off by the shutdown grace");
        }
        for entry in self.shared.state().links.values() {
            entry.stop.cancel();
        }
        self.shared.tasks.close();
        // Each link closes within a bound of its own.
        self.shared.tasks.wait().await;
    }

    /// A link to write one command on, within `deadline`; rather not on the shard `avoid`: half of the time is kept for
    /// waiting for one of another, where one may be had.
    pub async fn checkout(
        &self,
        priority: Priority,
        deadline: Instant,
        avoid: Option<usize>,
    ) -> Result<Lease, NotSent> {
        if !self.may_act() {
            return Err(NotSent::NotOwner);
        }
        let avoid = avoid.filter(|shard| self.shared.state().has_prospect_without(*shard));
        if avoid.is_some() {
            let now = Instant::now();
            let elsewhere = now + deadline.saturating_duration_since(now) / 2;
            match self.checkout_off(priority, elsewhere, avoid).await {
                Err(NotSent::NoLinkInTime) => {}
                lease_or_why => return lease_or_why,
            }
        }
        self.checkout_off(priority, deadline, None).await
    }

    /// A link on any shard but `avoid`.
    async fn checkout_off(
        &self,
        priority: Priority,
        deadline: Instant,
        avoid: Option<usize>,
    ) -> Result<Lease, NotSent> {
        let mut waiting = {
            let mut state = self.shared.state();
            // The queue goes first, except for callers that cannot take what is free.
            if !state.draining
                && state.is_next(priority)
                && let Some(given) = state.take(priority, avoid, thread::current().id())
            {
                return Ok(self.lease(given));
            }
            let (ticket, receiver) = state.enqueue(priority, Instant::now(), avoid)?;
            let worth_a_plan = state.may_grow(priority);
            drop(state);
            if worth_a_plan {
                self.shared.changed.notify_one();
            }
            Waiting { shared: Arc::clone(&self.shared), ticket, receiver }
        };
        Ok(self.lease(waiting.given(deadline).await?))
    }

    fn lease(&self, given: Given) -> Lease {
        let shared = Arc::clone(&self.shared);
        Lease { limit: shared.config.request_timeout, shared, given: Some(given) }
    }

    /// Gives no link from now on, and returns once nothing is under way and every link has given a sign of life, or after `limit`.
    /// Callers wait until the tenure is over.
    pub async fn hold(&self, limit: Duration) {
        self.shared.state().hold();
        let idle = async {
            loop {
                let mut returned = pin!(self.shared.returned.notified());
                returned.as_mut().enable();
                if !self.shared.state().is_busy() {
                    return;
                }
                returned.await;
            }
        };
        // What is still under way ends here all the same; its outcome is recorded.
        let _ = timeout(limit, idle).await;
    }

    /// When something last came on each link.
    #[must_use]
    pub fn heard(&self) -> HashMap<LinkId, Instant> {
        self.shared.state().heard()
    }

    /// Whether a link is in service, or may soon be.
    #[must_use]
    pub fn has_prospect(&self) -> bool {
        self.shared.state().has_prospect()
    }

    /// Whether this replica may act for the instance now.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.shared.tenure().may_act()
    }

    /// Until when it may.
    #[must_use]
    pub fn tenure(&self) -> &Tenure {
        self.shared.tenure()
    }

    /// Whether a link is in service.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.state().is_linked()
    }

    /// Takes a shard out by hand, or puts it back. False where there is no such shard.
    #[must_use]
    pub fn cordon(&self, shard: &str, cordoned: bool) -> bool {
        let mut state = self.shared.state();
        let found = state.shards.iter_mut().find(|known| known.name == shard).map(|known| known.cordoned = cordoned);
        drop(state);
        self.shared.changed.notify_one();
        found.is_some()
    }

    /// Dials the shards at once that refused this instance: what they refused may have been mended. The pauses that all
    /// instances keep for a shard that cannot be reached stay.
    pub fn retry_now(&self) {
        for shard in &mut self.shared.state().shards {
            shard.health.retry_now();
        }
        self.shared.changed.notify_one();
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The pool as an operator sees it.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.shared.state().status(Instant::now())
    }
}

/// A assignment in the queue. Dropped, it gives up the assignment, and puts back a link given in that very moment.
struct Waiting {
    shared: Arc<PoolContext>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Result<Given, NotSent>>,
}

impl Waiting {
    async fn given(&mut self, deadline: Instant) -> Result<Given, NotSent> {
        if let Ok(answer) = timeout_at(deadline, &mut self.receiver).await {
            return answer.unwrap_or(Err(NotSent::Draining));
        }
        // Links are given under the lock, so once the assignment is gone either one was given or none will be.
        self.shared.state().waiting.remove(&self.ticket);
        self.receiver.try_recv().unwrap_or(Err(NotSent::NoLinkInTime))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.state().waiting.remove(&self.ticket);
        if let Ok(Ok(given)) = self.receiver.try_recv() {
            self.shared.put_back(given.link);
        }
    }
}

/// The right to write one command on one link. Dropped unused, the link goes back.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<PoolContext>,
    given: Option<Given>,
    /// How long the reply may take, from the write.
    limit: Duration,
}

impl Lease {
    /// The same, but the reply may take no longer than `limit`, and never longer than the request timeout.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = self.limit.min(limit);
        self
    }

    /// The shard it is on, for [`Pool::checkout`]'s `avoid`.
    #[must_use]
    pub fn shard(&self) -> Option<usize> {
        self.given.as_ref().map(|given| given.shard)
    }

    /// Whether its link lives on this very thread: then no timer here can come before the link's own.
    #[must_use]
    pub fn is_of_this_thread(&self) -> bool {
        self.given.as_ref().and_then(|given| given.thread) == Some(thread::current().id())
    }

    /// Hands `command` to the link, which writes it, and waits for what ends it.
    ///
    /// The exchange runs in the link's own task: dropping the future cancels nothing. It ends
    /// within twice the request timeout, once for a write that makes no headway and once for the reply; for a payment that
    /// drew an error, within the connect timeout and the refusal grace more.
    pub fn exchange(mut self, command: &Command, api_key: &str) -> Instrumented<Reply> {
        let (answer, outcome) = oneshot::channel();
        let job =
            Job { text: frame::encode(command, api_key), expect: Expect::from(command), limit: self.limit, answer };
        let span = self.span(command);
        // A link takes a job only when it has none, so a full queue cannot be; a closed one is a link that went away.
        let handed_over = self.given.take().is_some_and(|given| given.jobs.try_send(Work::Command(job)).is_ok());
        Reply { outcome: handed_over.then_some(outcome) }.instrument(span)
    }

    /// The exchange as a span in its caller's trace.
    fn span(&self, command: &Command) -> Span {
        if !traces::are_wanted() {
            return Span::none();
        }
        // A name that a caller invented has no business in a trace.
        let command = command::find(&command.name).map_or("other", |spec| spec.name);
        let shard = self.shard().and_then(|index| self.shared.config.shards.get(index)).map(String::as_str);
        tracing::info_span!("exchange", otel.kind = "client", instance = self.shared.instance, command, shard)
    }
}

/// What ends an exchange, once it has. Dropped, it cancels nothing.
#[derive(Debug)]
pub struct Reply {
    /// None where the link had gone, so that nothing was handed to it.
    outcome: Option<oneshot::Receiver<Result<Body, Failure>>>,
}

impl Future for Reply {
    type Output = Result<Body, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(outcome) = &mut self.outcome else { return Poll::Ready(Err(NotSent::LinkGone.into())) };
        // A link always answers. Were its task to panic, the command may have left.
        Poll::Ready(ready!(Pin::new(outcome).poll(context)).unwrap_or_else(|_| Err(link::lost())))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(given) = self.given.take() {
            self.shared.put_back(given.link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway;

    #[tokio::test]
    async fn an_attempt_that_is_cut_off_has_failed_so_that_the_next_waits_its_time() {
        let events = EventSink(Arc::new(|_| {}));
        let dialer = Dialer::tcp(gateway::client_config(None).unwrap());
        let pool = Pool::new(Config::default(), "demo", "demo", dialer, events);
        pool.shared.state().shards[0].dialling += 1;
        let reaching = pool.shared.dialer.reach().begin("exon", Instant::now()).unwrap();
        drop(Attempt::begun(&pool.shared, 0, reaching));
        let state = pool.shared.state();
        let shard = &state.shards[0];
        assert_eq!((shard.dialling, shard.health.failures()), (0, 1));
        assert!(!shard.health.may_dial(Instant::now(), 0), "where each is cut off at once there would be no end");
    }
}
