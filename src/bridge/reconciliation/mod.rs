//! Reconciliation of payments of unknown outcome: asks the gateway for its transactions and keeps those that match with the
//! record, for the person who has to settle it.
//!
//! No payment waits for it: everything is asked as a refresh, the lowest class, one command at a time for each instance. It
//! decides nothing: a transaction that matches may be another till's.
//!
//! Entry points: [`Reconciliation::gather`] runs it, [`Reconciliation::lost`] adds a payment. `schedule` says what to ask when,
//! `matching` what matches; what is kept, and how that moves a record's revision, is in `journal/state_machine.rs`.

mod matching;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use self::matching::Others;
use self::schedule::{Schedule, Task};
use super::dispatch::Dispatch;
use super::fair_acquire::{FairAcquire, Requester, Turn};
use crate::journal::{Filter, Journal, JournalError, Page, Record, RecordId, RecordState, State};
use crate::protocol::{Body, Command, Parameters, command};

/// Transactions of one lookup: more than one point of sale books in a few minutes.
const LOOKUP_LIMIT: usize = 100;

/// How long one task may wait for a link and its reply. A drain waits no longer than this for it.
const TASK_DEADLINE: Duration = Duration::from_secs(3);

/// Payments that are read from the journal at a time, to be compared with what was found.
const PAGE: usize = 1000;

/// The most pages read for one lookup: at a hundred payments a minute those of three hours. Where that does not reach
/// back to before the payment, the lookup is not complete.
const MAX_PAGES: usize = 20;

/// Unknown payments of an earlier run that evidence is still gathered for, newest first.
const MAX_RESUMED: usize = 500;

/// The pause after a first attempt to list them in vain; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest reply to a caller in which the newest transaction is looked for: about the 200 latest of a point of sale. The
/// caller waits while it is read.
const MAX_READ: usize = 64 * 1024;

/// The reconciliation of one instance.
#[derive(Debug)]
pub(super) struct Reconciliation {
    dispatch: Arc<Dispatch>,
    journal: Journal,
    instance: Arc<str>,
    schedule: Mutex<Schedule>,
    /// The schedule has changed.
    changed: Notify,
}

impl Reconciliation {
    pub(super) fn new(dispatch: Arc<Dispatch>, journal: Journal, instance: Arc<str>) -> Self {
        Self { dispatch, journal, instance, schedule: Mutex::default(), changed: Notify::new() }
    }

    /// Notes the newest transaction in a reply to `listtransactions`, whoever asked for it.
    pub(super) fn note_reply(&self, pos_id: i64, reply: &Body) {
        if reply.as_str().len() <= MAX_READ
            && let Some(newest) = matching::newest(reply)
        {
            self.schedule().seen(pos_id, newest, Instant::now());
        }
    }

    /// The newest transaction known of a point of sale where something is being sold. Asks for it, without waiting,
    /// where that is not known or long ago: for the next payment, since this one does not wait.
    pub(super) fn newest_before(&self, pos_id: i64) -> Option<i64> {
        let mut schedule = self.schedule();
        let newest = schedule.newest(pos_id);
        let asks = schedule.sells(pos_id, Instant::now());
        drop(schedule);
        if asks {
            self.changed.notify_one();
        }
        newest
    }

    /// The outcome of a payment is not known.
    pub(super) fn lost(&self, id: RecordId, pos_id: i64) {
        self.schedule().lost(id, pos_id, 0, Instant::now());
        self.changed.notify_one();
    }

    /// Asks at once again what the gateway did not answer: its reason may have gone.
    pub(super) fn retry_now(&self) {
        self.schedule().retry_now(Instant::now());
        self.changed.notify_one();
    }

    /// Does the tasks of the schedule for as long as it is polled, among them what an earlier run left unknown.
    ///
    /// Dropped at any await it loses nothing but the task under way, whose command ends in a task of its own.
    pub(super) async fn gather(&self, runtime: &Handle, tasks: &TaskTracker) {
        // Boxed: its room is free again once it has ended.
        tokio::join!(Box::pin(self.resume()), self.work(runtime, tasks));
    }

    async fn work(&self, runtime: &Handle, tasks: &TaskTracker) {
        loop {
            let task = self.schedule().next(Instant::now());
            match task {
                Task::Lookup { pos_id, ids } => self.look_up(pos_id, ids, (runtime, tasks)).await,
                Task::Newest { pos_id } if self.is_idle() => {
                    if let Some(reply) = self.ask(pos_id, 1, (runtime, tasks)).await {
                        self.note_reply(pos_id, &reply);
                    }
                }
                Task::Newest { .. } => {}
                Task::Wait(until) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(until) => {}
                },
                Task::Idle => self.changed.notified().await,
            }
        }
    }

    /// Adds what an earlier run left unknown. The journal refuses to list it while too many ask at once, as more than a few dozen
    /// instances that start together do, so it is asked until it answers.
    async fn resume(&self) {
        let (mut pause, mut was_told) = (FIRST_PAUSE, false);
        loop {
            match self.records(Some(State::Unknown), None, MAX_RESUMED).await {
                Ok(unknown) => {
                    let mut schedule = self.schedule();
                    for record in unknown.readable() {
                        let looks = record.search.map_or(0, |search| search.looks);
                        schedule.lost(record.id, record.sale.pos_id, looks, Instant::now());
                    }
                    drop(schedule);
                    return self.changed.notify_one();
                }
                Err(JournalError::Overloaded) => {}
                Err(error) if !was_told => {
                    was_told = true;
                    tracing::warn!(instance = %self.instance, %error, "unknown payments cannot be listed");
                }
                Err(_) => {}
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether at least half of the budget is there to be spent.
    fn is_idle(&self) -> bool {
        let quota = self.dispatch.ledger.budget(command::LISTTRANSACTIONS.name);
        2 * quota.remaining >= quota.requests
    }

    /// The latest transactions of a point of sale, or nothing.
    async fn ask(&self, pos_id: i64, limit: usize, (runtime, tasks): (&Handle, &TaskTracker)) -> Option<Body> {
        let parameters = Parameters::default().with("POSID", &pos_id).with("Limit", &limit);
        let command = Command::known(&command::LISTTRANSACTIONS, parameters);
        let dispatch = Arc::clone(&self.dispatch);
        let turns = FairAcquire::of(Turn::new(Requester::Refresh { stale: Duration::ZERO }, Duration::ZERO));
        let work = async move {
            // From the task's first step on: one that waits to be run is not late.
            let deadline = Instant::now() + TASK_DEADLINE;
            dispatch.repeatable(&command, &turns, deadline, || ()).await
        };
        // In a task, so that a drain does not give the command's points back too early.
        let asked = tasks.spawn_on(work, runtime).await;
        match asked {
            Ok(Ok(reply)) => Some(reply),
            Ok(Err(why)) => {
                tracing::debug!(instance = %self.instance, pos_id, %why, "no transactions from the gateway");
                None
            }
            Err(_) => None,
        }
    }

    async fn look_up(&self, pos_id: i64, ids: Vec<RecordId>, place: (&Handle, &TaskTracker)) {
        let mut open = Vec::with_capacity(ids.len());
        for id in ids {
            match self.journal.get(id).await {
                Ok(Some(record)) if record.state() == State::Unknown => open.push(record),
                // Its outcome is about to be recorded, or the journal is out of order.
                Ok(Some(record)) if record.state() == State::Dispatching => self.schedule().missed(id, Instant::now()),
                Ok(_) => self.schedule().done(id),
                Err(_) => self.schedule().missed(id, Instant::now()),
            }
        }
        if open.is_empty() {
            return;
        }
        let reply = self.ask(pos_id, LOOKUP_LIMIT, place).await;
        let others = self.others(pos_id, &open).await;
        for record in open {
            let id = record.id;
            let attached = match (&reply, &others) {
                (Some(reply), Ok(others)) => self.attach(record, reply, others).await,
                _ => false,
            };
            let mut schedule = self.schedule();
            if attached { schedule.looked(id, Instant::now()) } else { schedule.missed(id, Instant::now()) }
        }
        if let Some(reply) = reply {
            self.note_reply(pos_id, &reply);
        }
    }

    /// Whether the record now holds what the reply tells.
    async fn attach(&self, record: Record, reply: &Body, others: &Others) -> bool {
        let Some(lookup) = matching::look(&record, reply, LOOKUP_LIMIT, others) else { return false };
        let (found, complete) = (lookup.candidates.len(), lookup.complete);
        match self.journal.attach_evidence(record.id, lookup).await {
            Ok(_) => {
                tracing::info!(instance = %self.instance, payment = %record.id, found, complete,
                    "looked for a payment of unknown outcome among the gateway's transactions");
                true
            }
            Err(error) => {
                tracing::warn!(instance = %self.instance, payment = %record.id, %error, "evidence about a payment cannot be recorded");
                false
            }
        }
    }

    /// The payments at a point of sale that may explain what is found for those that are `open`.
    async fn others(&self, pos_id: i64, open: &[Record]) -> Result<Others, JournalError> {
        let (mut others, mut before) = (Others::default(), None);
        for _ in 0..MAX_PAGES {
            let page = self.records(None, before, PAGE).await?;
            before = page.next;
            if page.has_unreadable(pos_id) {
                others.not_all_read();
            }
            others.page(page.readable(), pos_id);
            if before.is_none() {
                others.ended();
            }
            if open.iter().all(|record| others.reach_back_to(record)) {
                break;
            }
        }
        others.open(self.records(Some(State::Unknown), None, PAGE).await?.readable(), pos_id);
        Ok(others)
    }

    async fn records(
        &self,
        state: Option<State>,
        before: Option<RecordId>,
        limit: usize,
    ) -> Result<Page, JournalError> {
        let (instance, state) = (self.instance.to_string(), state.map(RecordState::from));
        self.journal.list(Filter { instance, state, before, limit, ..Filter::default() }).await
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock()
    }
}
