//! Links over shards: choose, grow, shrink, queue.
//!
//! A command first gets a [`Lease`] on a link and then is written on it, in two steps, because what must happen in
//! between (points booked, a payment made durable) must happen as late as possible and before the first byte. A free
//! link is had without waiting; else the caller queues, payments first, until a link is put back, the deadline
//! passes, or it is clear that no shard can be reached, which is said at once.
//!
//! One task a pool, [`Pool::tend`], opens and gives up connections as [`plan`](super::plan) decides, for as long as
//! the program runs.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::config::Config;
use super::error::{DialError, Failure, NotSent};
use super::exchange::Expect;
use super::link::{self, Ended, Heard, Job, Link, Upward};
use super::plan::plan;
use super::socket::Socket;
use super::state::{Entry, Given, LinkId, Phase, PoolStatus, State, Ticket};
use super::tally::Tally;
use crate::telemetry::traces;
use crate::wire::{Body, Command, command, frame};

/// Who is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A sale: before everything else.
    Payment,
    /// Everything else.
    Ordinary,
}

/// The connections of one instance. Cheap to clone; they are all the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) instance: String,
    pub(super) heard: Heard,
    pub(super) tally: Tally,
    slug: String,
    tls: Arc<rustls::ClientConfig>,
    state: Mutex<State>,
    changed: Notify,
    tasks: TaskTracker,
}

impl Pool {
    /// A pool for `instance`, whose name at the gateway is `slug`. It opens nothing until [`tend`](Self::tend) runs.
    /// `heard` is told of broadcasts and of the comings and goings of connections at the very moment, before anything
    /// else that comes over that connection.
    #[must_use]
    pub fn new(config: Config, instance: &str, slug: &str, tls: Arc<rustls::ClientConfig>, heard: Heard) -> Self {
        let (state, tally) = (Mutex::new(State::new(&config.shards)), Tally::new(&config.shards));
        let shared = Shared {
            config,
            instance: instance.to_owned(),
            heard,
            tally,
            slug: slug.to_owned(),
            tls,
            state,
            changed: Notify::new(),
            tasks: TaskTracker::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps the pool as it should be until `stop`, then refuses newcomers, waits for exchanges under way no longer
    /// than `grace`, and closes every link.
    pub async fn tend(self, stop: CancellationToken, grace: Duration) {
        loop {
            let look_again = self.shared.follow_plan();
            let pause = async {
                match look_again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.shared.changed.notified() => {}
                () = pause => {}
            }
        }
        self.drain(Instant::now() + grace).await;
    }

    async fn drain(&self, deadline: Instant) {
        {
            let mut state = self.shared.state();
            state.draining = true;
            state.fail_waiting(&NotSent::Draining);
        }
        let idle = async {
            while self.shared.state().links.values().any(|entry| entry.phase == Phase::Busy) {
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
        // Each link says goodbye within a bound of its own.
        self.shared.tasks.wait().await;
    }

    /// A link to write one command on, within `deadline`; rather not on the shard `avoid`.
    pub async fn checkout(
        &self,
        priority: Priority,
        deadline: Instant,
        avoid: Option<usize>,
    ) -> Result<Lease, NotSent> {
        let mut waiting = {
            let mut state = self.shared.state();
            // Whoever is in the queue goes first.
            if !state.draining
                && state.waiting.is_empty()
                && let Some(given) = state.take(avoid)
            {
                return Ok(Lease { shared: Arc::clone(&self.shared), given: Some(given) });
            }
            let (ticket, receiver) = state.enqueue(priority, Instant::now())?;
            Waiting { shared: Arc::clone(&self.shared), ticket, receiver }
        };
        self.shared.changed.notify_one();
        let given = waiting.given(deadline).await?;
        Ok(Lease { shared: Arc::clone(&self.shared), given: Some(given) })
    }

    /// Whether a link is in service.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.state().links.values().any(|entry| !matches!(entry.phase, Phase::SetAside(_)))
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

    /// What the pool has counted.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// The pool as an operator sees it.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        self.shared.state().status(Instant::now())
    }
}

/// A place in the queue. Dropped, it gives up the place, and puts back a link given in that very moment.
struct Waiting {
    shared: Arc<Shared>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Result<Given, NotSent>>,
}

impl Waiting {
    async fn given(&mut self, deadline: Instant) -> Result<Given, NotSent> {
        if let Ok(answer) = timeout_at(deadline, &mut self.receiver).await {
            return answer.unwrap_or(Err(NotSent::Draining));
        }
        // Links are given under the lock, so once the place is gone either one was given or none will be.
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
    shared: Arc<Shared>,
    given: Option<Given>,
}

impl Lease {
    /// The shard it is on, for [`Pool::checkout`]'s `avoid`.
    #[must_use]
    pub fn shard(&self) -> Option<usize> {
        self.given.as_ref().map(|given| given.shard)
    }

    /// Writes `command` and waits for what ends it.
    ///
    /// The exchange runs in the link's own task: dropping this future cancels nothing that was written. It ends
    /// within twice the request timeout: once for a write that makes no headway, once for the reply.
    pub fn exchange(
        mut self,
        command: &Command,
        api_key: &str,
    ) -> impl Future<Output = Result<Body, Failure>> + Send + use<> {
        let (answer, outcome) = oneshot::channel();
        let job = Job { text: frame::encode(command, api_key), expect: Expect::from(command), answer };
        let span = self.span(command);
        let exchange = async move {
            let given = self.given.take().ok_or(NotSent::LinkGone)?;
            Self::hand_over(&given, job)?;
            // A link always answers. Were its task to panic, the command may have left.
            outcome.await.unwrap_or_else(|_| Err(link::lost()))
        };
        exchange.instrument(span)
    }

    /// The exchange as a part of the trace of whoever asks for it.
    fn span(&self, command: &Command) -> Span {
        if !traces::are_wanted() {
            return Span::none();
        }
        // A name that a caller invented has no business in a trace.
        let command = command::find(&command.name).map_or("other", |spec| spec.name);
        let shard = self.shard().and_then(|index| self.shared.config.shards.get(index)).map(String::as_str);
        tracing::info_span!("exchange", otel.kind = "client", instance = self.shared.instance, command, shard)
    }

    fn hand_over(given: &Given, job: Job) -> Result<(), NotSent> {
        // A link takes a job only when it has none, so a full queue cannot be; a closed one is a link that went away.
        given.jobs.try_send(job).map_err(|_| NotSent::LinkGone)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(given) = self.given.take() {
            self.shared.put_back(given.link);
        }
    }
}

/// What links and dials report, and what the planner's decisions become.
impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is a few assignments; one that panicked half-way leaves nothing worse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link may carry a command again.
    pub(super) fn put_back(&self, link: LinkId) {
        let mut state = self.state();
        state.put_back(link, Instant::now());
        let draining = state.draining;
        drop(state);
        if draining {
            self.changed.notify_one();
        }
    }

    /// A link listens for a late reply from now on.
    pub(super) fn set_aside(&self, link: LinkId) {
        self.state().set_aside(link, Instant::now());
        tracing::info!(instance = self.instance, link, "link set aside for a late reply");
        self.changed.notify_one();
    }

    /// A ping on `shard` was answered.
    pub(super) fn measured(&self, shard: usize, sample: Duration) {
        if let Some(shard) = self.state().shards.get_mut(shard) {
            shard.health.measured(sample);
            shard.health.answered();
        }
    }

    /// A command on `shard` was not answered in time.
    pub(super) fn timed_out(&self, shard: usize) {
        if let Some(shard) = self.state().shards.get_mut(shard) {
            shard.health.timed_out();
        }
    }

    /// Asks the planner anew.
    pub(super) fn replan(&self) {
        self.changed.notify_one();
    }

    /// A link is over.
    fn link_ended(&self, link: LinkId, index: usize, proved: bool, ended: &Ended) {
        let now = Instant::now();
        let mut state = self.state();
        state.links.remove(&link);
        if let (Some(shard), Ended::Lost(why) | Ended::Untrusted(why)) = (state.shards.get_mut(index), ended) {
            tracing::warn!(instance = self.instance, shard = shard.name, link, why, "link lost");
            if let Some(connections) = self.tally.connections(index) {
                connections.lost.count();
            }
            shard.health.lost(now, proved, fastrand::f64());
            shard.last_fault = Some(why.clone());
        }
        state.fail_waiting_without_prospect(now);
        drop(state);
        self.changed.notify_one();
    }

    /// Does what the planner says; returns when to ask it again.
    fn follow_plan(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state();
        let plan = plan(&state.view(self.config.min_links, self.config.max_links), now);
        for index in plan.dial {
            if let Some(shard) = state.shards.get_mut(index) {
                shard.dialling += 1;
                self.tasks.spawn(Arc::clone(self).dial(index, shard.name.clone()));
            }
        }
        for index in plan.give_up {
            if let Some(stop) = state.take_idle(index) {
                stop.cancel();
                // Another may be idle as well.
                self.changed.notify_one();
            }
        }
        let grown = state.links.len() > self.config.min_links;
        plan.look_again.or_else(|| grown.then(|| now + super::plan::IDLE_PATIENCE))
    }

    /// Opens one connection and serves it until it ends.
    async fn dial(self: Arc<Self>, index: usize, shard: String) {
        let url = self.config.url_of(&shard, &self.slug);
        let dialled = link::open(&url, Arc::clone(&self.tls), &self.config).await;
        let Some(socket) = self.dialled(index, &shard, dialled) else { return self.changed.notify_one() };
        let (jobs, inbox) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let Some(id) = self.admit(index, jobs, stop.clone()) else {
            return socket.close(self.config.connect_timeout).await;
        };
        let opened = Instant::now();
        tracing::info!(instance = self.instance, shard, link = id, "link open");
        if let Some(connections) = self.tally.connections(index) {
            connections.opened.count();
        }
        let link = Link::new(id, index, shard.clone(), socket, Arc::clone(&self));
        let served = AssertUnwindSafe(link.serve(inbox, stop)).catch_unwind().await;
        let (ended, proved) = served.unwrap_or_else(|_| {
            // Its end must be known all the same: a link that nobody ends would count as busy for ever.
            (self.heard.0)(&Upward::Closed { link: id, last_heard: opened });
            (Ended::Lost("its task panicked".to_owned()), false)
        });
        match &ended {
            Ended::Asked => tracing::info!(instance = self.instance, shard, link = id, "link closed"),
            Ended::Spent => tracing::info!(instance = self.instance, shard, link = id, "link closed after a timeout"),
            // Told where the shard's health is noted.
            Ended::Lost(_) | Ended::Untrusted(_) => {}
        }
        self.link_ended(id, index, proved, &ended);
    }

    /// Notes how an attempt to connect went.
    fn dialled(&self, index: usize, name: &str, dialled: Result<(Socket, Duration), DialError>) -> Option<Socket> {
        let now = Instant::now();
        let mut state = self.state();
        let shard = state.shards.get_mut(index)?;
        match dialled {
            Ok((socket, round_trip)) => {
                if !shard.health.is_good() {
                    tracing::info!(instance = self.instance, shard = name, "shard can be reached again");
                }
                shard.health.dial_succeeded();
                shard.health.measured(round_trip);
                Some(socket)
            }
            Err(why) => {
                shard.dialling -= 1;
                if let Some(connections) = self.tally.connections(index) {
                    connections.failed.count();
                }
                // The change is told once, each further attempt only to those who look closely.
                if shard.health.is_good() {
                    tracing::warn!(instance = self.instance, shard = name, %why, "shard cannot be reached");
                } else {
                    let failures = shard.health.failures();
                    tracing::debug!(instance = self.instance, shard = name, %why, failures, "shard still out of reach");
                }
                shard.health.dial_failed(now, fastrand::f64());
                shard.last_fault = Some(why.to_string());
                state.fail_waiting_without_prospect(now);
                None
            }
        }
    }

    /// Enters a new connection, busy until its task puts it in service. `None` while draining.
    fn admit(&self, index: usize, jobs: mpsc::Sender<Job>, stop: CancellationToken) -> Option<LinkId> {
        let mut state = self.state();
        let id = state.next_id();
        state.shards.get_mut(index)?.dialling -= 1;
        if state.draining {
            return None;
        }
        state.links.insert(id, Entry { shard: index, phase: Phase::Busy, opened: Instant::now(), jobs, stop });
        Some(id)
    }
}

/// Connects to one shard once and says how long that took, the first ping answered included.
pub async fn dial_once(
    config: &Config,
    tls: Arc<rustls::ClientConfig>,
    shard: &str,
    slug: &str,
) -> Result<Duration, DialError> {
    let begun = Instant::now();
    let (socket, _) = link::open(&config.url_of(shard, slug), tls, config).await?;
    let took = begun.elapsed();
    socket.close(config.connect_timeout).await;
    Ok(took)
}
