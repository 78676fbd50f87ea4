//! The one task that writes: it takes up to [`BATCH`] jobs from the queue into one transaction, so that payments under way
//! at the same time share its round trip and its commit.
//!
//! No job is answered before its commit is acknowledged. Whether a row is written is a condition of its own (the owner's
//! token, the record as it was when that was decided): where it does not hold, the job is decided anew. When a commit is not
//! acknowledged, every job in it is refused, and so is everything else until what is owed has been written again, on a
//! new connection, and acknowledged. If the process ends before, the records say *on its way*, and the next owner takes
//! that for unknown, which is all that any caller was ever told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::batch::{Owed, Plan, Planned, Rules, Task};
use super::columns::{Columns, Write, as_uuid};
use super::config::PostgresConfig;
use super::loaded::{Loaded, Missing};
use super::lookups::current_of;
use super::queue::{Job, Queue};
use super::rows::Row;
use super::statements;
use super::witness::{Step, Witness};
use crate::database::{Connection, Durability, Ended, Error, Mark, Rows, Statement, Type};
use crate::journal::apply::Apply;
use crate::journal::attempts::Now;
use crate::journal::clock::{Age, Clock, horizon_ms};
use crate::journal::condition::Watched;
use crate::journal::error::JournalError;
use crate::journal::id::RecordId;
use crate::journal::in_flight::MAX_LIVE;
use crate::journal::news::Contradictions;
use crate::journal::payment::Dispatched;
use crate::journal::record::{Record, RecordState, State};
use crate::journal::sale::Key;
use crate::journal::state_machine::Event;

/// Jobs a commit.
const BATCH: usize = 64;
/// How often a job is decided anew whose record changed meanwhile.
const TRIES: usize = 4;
/// Expired records that one look forgets; while there are more, the next look comes at once.
const EXPIRED_AT_ONCE: i64 = 256;
/// Pauses between attempts to recover: the first is made at once, then from here doubling to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Late outcomes kept over a fault, beside those of payments under way. One beyond leaves its payment unknown.
const MAX_OWED: usize = MAX_LIVE + 1024;
/// Decided payments that need no further acknowledgement: those that this process recorded last.
const MAX_ACKNOWLEDGED: usize = 8192;
/// Between two looks whether the database was restored: so long after a failover a process that begins may wait for one that
/// lived through it. Sooner where nothing may be begun.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const NEXT_LOOK: Duration = Duration::from_secs(1);
/// Steps of one look: to register, to note a failover, and to see that all is well.
const STEPS: usize = 3;
const UNTIL_CONFIRMED: &str =
    "no payment is sent until an operator confirms with `concertpos-bridge migrate --confirm-restore`";
/// A unique index refuses: another record has the key.
const TAKEN: &str = "23505";

/// What the writer and those who read share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) queue: Arc<Queue>,
    pub(crate) watched: Watched,
    pub(crate) contradictions: Contradictions,
    pub(crate) is_down: AtomicBool,
    /// The database was restored from a backup, and nobody has confirmed that.
    pub(crate) is_restored: AtomicBool,
    pub(crate) has_ended: AtomicBool,
    pub(crate) commits: AtomicU64,
    /// The session under which this process owned an instance last.
    pub(crate) session: Mutex<Option<Uuid>>,
    acknowledged: Mutex<Acknowledged>,
}

#[derive(Debug, Default)]
struct Acknowledged {
    known: HashSet<RecordId>,
    order: VecDeque<RecordId>,
}

impl Shared {
    pub(crate) fn is_acknowledged(&self, id: RecordId) -> bool {
        self.acknowledged.lock().known.contains(&id)
    }

    pub(crate) fn acknowledge(&self, id: RecordId) {
        let mut acknowledged = self.acknowledged.lock();
        if acknowledged.known.insert(id) {
            acknowledged.order.push_back(id);
        }
        if acknowledged.order.len() > MAX_ACKNOWLEDGED
            && let Some(oldest) = acknowledged.order.pop_front()
        {
            acknowledged.known.remove(&oldest);
        }
    }
}

/// Everything the task owns.
pub(crate) struct Writer {
    connection: Connection,
    config: PostgresConfig,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    age: Age,
    /// Payments that this process recorded as on their way: what a decision on their outcome would load.
    on_their_way: HashMap<RecordId, Row>,
    owed: Vec<Owed>,
    owed_pause: Duration,
    next_attempt: Option<Instant>,
    /// When it last looked for what has expired; none where more is known to have.
    looked: Option<Instant>,
    witness: Witness,
    /// When it looks next whether the database was restored.
    next_look: Instant,
}

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        config: PostgresConfig,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        age_ms: u64,
    ) -> Self {
        let age = Age::resume(age_ms, clock.monotonic());
        Self {
            connection,
            config,
            shared,
            clock,
            age,
            on_their_way: HashMap::new(),
            owed: Vec::new(),
            owed_pause: FIRST_PAUSE,
            next_attempt: None,
            looked: None,
            witness: Witness::new(Uuid::now_v7()),
            next_look: Instant::now(),
        }
    }

    /// Runs until the queue is closed and empty.
    pub(crate) async fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        loop {
            let taken = self.shared.queue.take(BATCH, self.patience()).await;
            self.shared.watched.clocks(self.clock.wall_ms(), self.clock.monotonic(), Instant::now());
            if self.next_attempt.is_some_and(|at| taken.closed || Instant::now() >= at) {
                self.recover().await;
            }
            if self.is_down() {
                self.refuse_all(taken.jobs.into_iter().map(Task::Asked).collect(), Attempted::No);
            } else {
                self.watch().await;
                self.look_after().await;
                self.serve(taken.jobs.into_iter().map(Task::Asked).collect()).await;
            }
            self.shared.queue.answered();
            if taken.closed {
                break;
            }
        }
        if !self.owed.is_empty() {
            tracing::error!(payments = self.owed.len(), "outcomes could not be recorded and will be unknown");
        }
        // One that is left behind is never asked for again.
        let _ = self.connection.batch(Durability::Local, &[self.witness.forget()]).await.done();
    }

    fn is_down(&self) -> bool {
        self.shared.is_down.load(Ordering::Acquire)
    }

    fn now(&self) -> Now {
        Now { wall_ms: self.clock.wall_ms(), age_ms: self.age.at_ms(self.clock.monotonic()) }
    }

    fn patience(&self) -> Duration {
        match self.next_attempt {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => self.config.pace.min(self.next_look.saturating_duration_since(Instant::now())).max(FIRST_PAUSE),
        }
    }

    /// Looks now and then whether the database was restored from a backup, and begins nothing from then on.
    pub(crate) async fn watch(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + NEXT_LOOK;
        for _ in 0..STEPS {
            let (statements, count) = self.witness.look();
            let Ended::Done(rows) = self.connection.batch(Durability::On, &statements).await else { return };
            let step = match self.witness.judge(&rows, count) {
                Ok(step) => step,
                Err(error) => return tracing::warn!(%error, "whether the database was restored cannot be told"),
            };
            self.tell_of_a_restore();
            let noted = match step {
                Step::Trust => {
                    self.next_look = Instant::now() + self.config.pace.clamp(NEXT_LOOK, LOOK_EVERY);
                    return;
                }
                Step::Wait => return,
                Step::Register => self.witness.register(),
                Step::Vouch => self.witness.vouch(),
                Step::Flag(how) => Mark::flag(how),
            };
            let is_noted = self.connection.batch(Durability::On, &[noted]).await.done().is_some();
            if is_noted && step == Step::Register {
                self.witness.registered();
            }
        }
    }

    fn tell_of_a_restore(&self) {
        let doubt = self.witness.doubt();
        let was_restored = self.shared.is_restored.swap(doubt.is_some(), Ordering::AcqRel);
        if let Some(how) = doubt {
            if !was_restored {
                tracing::error!("{how}: {UNTIL_CONFIRMED}");
            }
            self.shared.watched.failed(format!("{how}: {UNTIL_CONFIRMED}"), Instant::now());
        } else if was_restored {
            tracing::warn!("the database is as a replica knew it, or confirmed: payments are sent again");
            self.shared.watched.recovered();
        }
    }

    /// Lets the journal age and forgets what has expired, now and then.
    async fn look_after(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < self.config.pace) {
            return;
        }
        let age_ms = self.now().age_ms;
        let horizon_ms = horizon_ms(age_ms, self.config.keep).map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX));
        let expire = Statement::new(statements::EXPIRE)
            .bigint(horizon_ms)
            .bind(*self.shared.session.lock(), Type::UUID)
            .bigint(i64::try_from(age_ms).unwrap_or(i64::MAX));
        self.looked = Some(Instant::now());
        let rows = match self.connection.batch(Durability::Local, &[expire]).await {
            Ended::Done(rows) => rows,
            // Another replica expires the same, or the next look does; who writes finds out whether the database is away.
            Ended::NotDone(_) | Ended::Ambiguous => return,
        };
        let Some(row) = rows.iter().flatten().next() else { return };
        let (known_ms, expired): (i64, i64) = (row.get(0), row.get(1));
        // Another replica has seen it run for longer.
        let known_ms = u64::try_from(known_ms).unwrap_or_default();
        if known_ms > self.now().age_ms {
            self.age = Age::resume(known_ms, self.clock.monotonic());
        }
        if expired == EXPIRED_AT_ONCE {
            self.looked = None;
        }
    }

    /// Does the tasks, those anew whose records changed meanwhile.
    async fn serve(&mut self, mut tasks: Vec<Task>) {
        // What is known by now of payments under a key is known before the next one under it is let go.
        tasks.sort_by_key(|task| matches!(task, Task::Asked(Job::Dispatch { .. })));
        let mut tries = 0;
        while !tasks.is_empty() && tries < TRIES + BATCH {
            let before = tasks.len();
            tasks = self.attempt(tasks).await;
            tasks.iter_mut().for_each(Task::look_again);
            // Those that waited for others under their key are done one after another.
            tries += if tasks.len() < before { 1 } else { BATCH / TRIES };
        }
        self.refuse_all(tasks, Attempted::No);
    }

    /// Decides all and writes them in one transaction. Returns those to be decided anew.
    async fn attempt(&mut self, tasks: Vec<Task>) -> Vec<Task> {
        let mut planned = match self.plan(tasks).await {
            Ok(planned) => planned,
            Err((error, tasks)) => {
                self.fail(&error.to_string(), tasks, Attempted::No);
                return Vec::new();
            }
        };
        let (mut again, mut touched) = (Vec::new(), HashSet::<Key>::new());
        let (mut alone, mut together, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for one in planned.drain(..) {
            let before = together.iter().chain(&alone).map(|one: &Planned| &one.plan);
            if one.is_overtaken_by(&before.collect::<Vec<_>>()) {
                again.push(one.task);
                continue;
            }
            if one.plan.keys().iter().any(|key| touched.contains(*key)) {
                again.push(one.task);
                continue;
            }
            touched.extend(one.plan.keys().into_iter().cloned());
            match one.plan {
                Plan::Nothing => known.push(one),
                Plan::Several(_) => alone.push(one),
                _ => together.push(one),
            }
        }
        if !together.is_empty() {
            again.extend(self.write_together(together).await);
        }
        for one in alone {
            again.extend(self.write_alone(one).await);
        }
        // Who is answered finds everything written that was handed in before, or is refused as that was.
        if self.next_attempt.is_some() {
            self.refuse_all(known.into_iter().map(|one| one.task).collect(), Attempted::No);
        } else {
            for one in known {
                self.answer(one);
            }
        }
        again
    }

    async fn plan(&mut self, tasks: Vec<Task>) -> Result<Vec<Planned>, (Error, Vec<Task>)> {
        let mut loaded = match self.load(&tasks).await {
            Ok(loaded) => loaded,
            Err(error) => return Err((error, tasks)),
        };
        let mut planned: Vec<Planned> = Vec::with_capacity(tasks.len());
        let mut tasks = VecDeque::from(tasks);
        while let Some(task) = tasks.pop_front() {
            let decided = loop {
                let (tenures, unsettled) = (&self.config.tenures, self.config.unsettled);
                let is_restored = self.witness.doubt().is_some();
                match (Rules { tenures, unsettled, is_restored, now: self.now() }).decide(&task, &loaded) {
                    Ok(decided) => break decided,
                    Err(missing) => {
                        if let Err(error) = self.load_more(&mut loaded, missing).await {
                            let before = planned.into_iter().map(|planned| planned.task);
                            return Err((error, before.chain([task]).chain(tasks).collect()));
                        }
                    }
                }
            };
            let (plan, answer, news) = decided;
            planned.push(Planned { task, plan, answer, news });
        }
        Ok(planned)
    }

    /// Reads what the tasks are about, in one round trip, if it is not known.
    async fn load(&self, tasks: &[Task]) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
        for task in tasks {
            match task {
                // If something has come under it meanwhile, the insert finds its key taken.
                Task::Asked(Job::Dispatch { record, is_first: true, .. }) => loaded.nothing_under(record.key.clone()),
                Task::Asked(Job::Dispatch { record, .. }) => drop(keys.insert(record.key.clone())),
                Task::Asked(Job::Apply { id, event: Event::Outcome(_), .. }) => match self.on_their_way.get(id) {
                    Some(row) => loaded.add(row.clone()),
                    None => drop(ids.insert(*id)),
                },
                Task::Asked(Job::Apply { id, .. } | Job::TakeOver { id, .. })
                | Task::Owed(Owed { id, unsent: None, .. }) => drop(ids.insert(*id)),
                Task::Owed(_) | Task::Asked(Job::Confirm { .. }) => {}
            }
        }
        self.look_up(&mut loaded, ids, keys).await?;
        Ok(loaded)
    }

    async fn load_more(&self, loaded: &mut Loaded, missing: Missing) -> Result<(), Error> {
        let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
        match missing {
            Missing::Record(id) => drop(ids.insert(id)),
            Missing::Current(key) => drop(keys.insert(key)),
        }
        self.look_up(loaded, ids, keys).await
    }

    async fn look_up(&self, loaded: &mut Loaded, ids: HashSet<RecordId>, keys: HashSet<Key>) -> Result<(), Error> {
        if ids.is_empty() && keys.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = ids.iter().copied().map(as_uuid).collect();
        let part = |part: fn(&Key) -> &String| keys.iter().map(|key| part(key).clone()).collect::<Vec<_>>();
        let by_id = Statement::new(statements::BY_ID).bind(wanted, Type::UUID_ARRAY);
        let by_key = current_of(part(|key| &key.instance), part(|key| &key.caller), part(|key| &key.idempotency_key));
        let rows = self.connection.read(&[by_id, by_key]).await?;
        let mut rows = rows.into_iter().map(|rows| rows.iter().map(Row::of).collect::<Result<Vec<_>, _>>());
        let mut next = || rows.next().unwrap_or(Ok(Vec::new()));
        let (found, current) = (next()?, next()?);
        loaded.looked(&ids, &keys, found, current);
        Ok(())
    }

    async fn write_together(&mut self, mut planned: Vec<Planned>) -> Vec<Task> {
        let Ok(mut statements) = statements_of(&planned, &self.witness) else {
            self.refuse_all(planned.into_iter().map(|one| one.task).collect(), Attempted::No);
            return Vec::new();
        };
        let (bearing, count) = self.witness.bear().unzip();
        statements.extend(bearing);
        self.shared.watched.commit_begun(Instant::now());
        let ended = self.connection.batch(Durability::On, &statements).await;
        self.shared.watched.commit_ended(Instant::now());
        match ended {
            Ended::Done(rows) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                self.bore_witness(count, &rows);
                let written = ids(&rows);
                planned.into_iter().filter_map(|one| self.written(one, &written)).collect()
            }
            Ended::NotDone(error @ (Error::Unreachable(_) | Error::Late | Error::Misread(_))) => {
                self.fail(&error.to_string(), planned.into_iter().map(|one| one.task).collect(), Attempted::No);
                Vec::new()
            }
            // Each by itself: what refuses one must not refuse the others.
            Ended::NotDone(_) if planned.len() > 1 => {
                let mut again = Vec::new();
                for one in planned {
                    again.extend(Box::pin(self.write_together(vec![one])).await);
                }
                again
            }
            Ended::NotDone(error) => {
                let task = planned.pop().map(|one| one.task);
                if error.has_code(TAKEN) {
                    return task.into_iter().collect();
                }
                self.put_off(task, &error);
                Vec::new()
            }
            Ended::Ambiguous => {
                let why = "a commit was not acknowledged";
                self.fail(why, planned.into_iter().map(|one| one.task).collect(), Attempted::Yes);
                Vec::new()
            }
        }
    }

    /// Where the witness is not as it was acknowledged, the next look says why.
    fn bore_witness(&mut self, count: Option<i64>, rows: &[Rows]) {
        match (count, rows.last()) {
            (Some(count), Some(last)) if !last.is_empty() => self.witness.acknowledged(count),
            _ => self.next_look = Instant::now(),
        }
    }

    /// Writes records that change together, one after the other, and all of them or none.
    async fn write_alone(&mut self, planned: Planned) -> Vec<Task> {
        let Plan::Several(writes) = &planned.plan else { return vec![planned.task] };
        let ended = write_all(&self.connection, writes).await;
        match ended {
            Ended::Done(true) => {
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                self.answer(planned);
                Vec::new()
            }
            Ended::Done(false) => vec![planned.task],
            Ended::NotDone(error) if error.has_code(TAKEN) => vec![planned.task],
            Ended::NotDone(error @ (Error::Unreachable(_) | Error::Late | Error::Misread(_))) => {
                self.fail(&error.to_string(), vec![planned.task], Attempted::No);
                Vec::new()
            }
            Ended::NotDone(error) => {
                self.put_off(Some(planned.task), &error);
                Vec::new()
            }
            Ended::Ambiguous => {
                self.fail("a commit was not acknowledged", vec![planned.task], Attempted::Yes);
                Vec::new()
            }
        }
    }

    /// What the database refuses of one job alone.
    fn put_off(&mut self, task: Option<Task>, error: &Error) {
        tracing::warn!(%error, "a record of a payment cannot be written now");
        self.refuse_all(task.into_iter().collect(), Attempted::No);
        if !self.owed.is_empty() && self.next_attempt.is_none() {
            self.next_attempt = Some(Instant::now() + self.owed_pause);
        }
    }

    /// Answers a job of an acknowledged commit, or returns it where its row was not as it was decided on.
    fn written(&mut self, mut planned: Planned, written: &HashSet<RecordId>) -> Option<Task> {
        let id = match &planned.plan {
            Plan::Dispatch(write) | Plan::Heard(write) | Plan::Settle(write) | Plan::Release(write) => write.record.id,
            Plan::Confirm { id, .. } => *id,
            Plan::Nothing | Plan::Several(_) => return None,
        };
        if written.contains(&id) {
            self.answer(planned);
            return None;
        }
        self.on_their_way.remove(&id);
        match &mut planned.task {
            Task::Owed(owed) => owed.unsent = None,
            Task::Asked(_) => {}
        }
        if let Task::Asked(Job::Confirm { reply, .. }) = planned.task {
            let _ = reply.send(Ok(false));
            return None;
        }
        Some(planned.task)
    }

    fn answer(&mut self, planned: Planned) {
        let Planned { task, plan, answer, news } = planned;
        if answer.is_ok() {
            for one in news {
                one.report(&self.shared.contradictions);
            }
        }
        self.note(&plan);
        match task {
            Task::Asked(Job::Dispatch { record, held, reply, .. }) => {
                let queue: Arc<dyn Apply> = Arc::<Queue>::clone(&self.shared.queue);
                let dispatched = answer.map(|_| Dispatched::new(record.id, held, queue));
                // If its caller has gone, it is dropped, which hands in that it was never written.
                drop(reply.send(dispatched));
            }
            Task::Asked(Job::Apply { id, event, held, reply }) => {
                // Freed before the answer: a request that is repeated on hearing it must find the record.
                drop(held);
                let answer = answer.and_then(|applied| applied.ok_or(JournalError::NoSuchRecord));
                if let Err(Err(error)) = reply.send(answer)
                    && matches!(event, Event::Outcome(_))
                {
                    tracing::error!(%id, %error, "the outcome of a payment could not be recorded");
                }
            }
            Task::Asked(Job::TakeOver { reply, .. }) => {
                drop(reply.send(answer.and_then(|applied| applied.ok_or(JournalError::NoSuchRecord))));
            }
            Task::Asked(Job::Confirm { reply, .. }) => drop(reply.send(answer.map(|_| true))),
            Task::Owed(owed) => {
                if answer.err() == Some(JournalError::NoSuchRecord) && !owed.was_never_sent() {
                    tracing::error!(id = %owed.id, "the database lost the record of a payment that was sent");
                }
            }
        }
    }

    /// Notes what is acknowledged from now on.
    fn note(&mut self, plan: &Plan) {
        match plan {
            Plan::Dispatch(write) => {
                *self.shared.session.lock() = write.token.map(|(session, _)| session.as_uuid());
                self.on_their_way.insert(write.record.id, row_of(write));
            }
            Plan::Heard(write) | Plan::Settle(write) => self.acknowledged(&write.record),
            Plan::Several(writes) => writes.iter().for_each(|write| self.acknowledged(&write.record)),
            Plan::Release(write) => drop(self.on_their_way.remove(&write.record.id)),
            Plan::Confirm { id, .. } => {
                self.on_their_way.remove(id);
                self.shared.acknowledge(*id);
            }
            Plan::Nothing => {}
        }
    }

    fn acknowledged(&mut self, record: &Record) {
        self.on_their_way.remove(&record.id);
        if record.state().has_ended() && !record.frees_its_key() {
            self.shared.acknowledge(record.id);
        }
    }

    /// Refuses the jobs of a commit that failed, and everything from now on until the database takes writes again.
    fn fail(&mut self, why: &str, tasks: Vec<Task>, attempted: Attempted) {
        if !self.shared.is_down.swap(true, Ordering::AcqRel) {
            tracing::error!(why, "the payment journal cannot be written: no payment is sent");
        }
        self.shared.watched.failed(why.to_owned(), Instant::now());
        self.refuse_all(tasks, attempted);
        self.next_attempt = Some(Instant::now() + self.owed_pause);
    }

    /// Answers that nothing was done, and keeps the outcomes.
    fn refuse_all(&mut self, tasks: Vec<Task>, attempted: Attempted) {
        let now = self.now();
        for task in tasks {
            match task {
                Task::Asked(Job::Dispatch { record, held, reply, .. }) => {
                    if attempted == Attempted::Yes {
                        // It may yet be recorded, and nothing was sent.
                        self.owed.push(Owed::unsent(record, held, now));
                    }
                    drop(reply.send(Err(JournalError::Unavailable)));
                }
                Task::Asked(Job::Apply { id, event, held, reply }) => {
                    if matches!(event, Event::Outcome(_) | Event::Late { .. }) {
                        self.keep(Owed { id, event, held, unsent: None });
                    }
                    drop(reply.send(Err(JournalError::Unavailable)));
                }
                Task::Asked(Job::TakeOver { reply, .. }) => drop(reply.send(Err(JournalError::Unavailable))),
                Task::Asked(Job::Confirm { reply, .. }) => drop(reply.send(Err(JournalError::Unavailable))),
                Task::Owed(owed) => self.owed.push(owed),
            }
        }
    }

    fn keep(&mut self, owed: Owed) {
        if owed.held.is_some() || self.owed.len() < MAX_OWED {
            self.owed.push(owed);
        } else {
            tracing::error!(id = %owed.id, "a late outcome is lost: the payment stays unknown");
        }
    }

    /// Writes what is owed, and proves that the database takes writes.
    async fn recover(&mut self) {
        self.next_attempt = None;
        self.owed_pause = (self.owed_pause * 2).min(LONGEST_PAUSE);
        let mut owed = VecDeque::from(std::mem::take(&mut self.owed));
        while !owed.is_empty() && self.next_attempt.is_none() {
            let some = owed.drain(..owed.len().min(BATCH)).map(Task::Owed).collect();
            self.serve(some).await;
        }
        self.owed.extend(owed);
        if self.next_attempt.is_some() || !self.prove().await {
            let pause = self.owed_pause;
            self.next_attempt.get_or_insert_with(|| Instant::now() + pause);
            return;
        }
        if !self.owed.is_empty() {
            self.next_attempt = Some(Instant::now() + self.owed_pause);
            return;
        }
        self.owed_pause = FIRST_PAUSE;
        self.shared.watched.recovered();
        // It may be another server, or have been restored meanwhile.
        self.next_look = Instant::now();
        if self.shared.is_down.swap(false, Ordering::AcqRel) {
            tracing::info!("the payment journal can be written again");
        }
    }

    async fn prove(&mut self) -> bool {
        if !self.is_down() {
            return true;
        }
        let age_ms = i64::try_from(self.now().age_ms).unwrap_or(i64::MAX);
        let proof = Statement::new(statements::PROVE).bigint(age_ms);
        let ended = self.connection.batch(Durability::On, &[proof]).await;
        if let Ended::NotDone(error) = &ended {
            self.shared.watched.failed(error.to_string(), Instant::now());
        }
        ended.done().is_some()
    }
}

/// Whether a commit was tried with the jobs in it, and its end is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempted {
    Yes,
    No,
}

/// Ends every wait, however the task ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
        self.0.queue.close();
        while !self.0.queue.take_now(BATCH).closed {}
    }
}

fn statements_of(planned: &[Planned], witness: &Witness) -> Result<Vec<Statement>, JournalError> {
    let (mut dispatch, mut heard, mut settle, mut release) =
        (Columns::default(), Columns::default(), Columns::default(), Columns::default());
    let (mut confirmed, mut written) = (Vec::new(), Vec::new());
    for one in planned {
        match &one.plan {
            Plan::Dispatch(write) => dispatch.push(write)?,
            Plan::Heard(write) => heard.push(write)?,
            Plan::Settle(write) => settle.push(write)?,
            Plan::Release(write) => release.push(write)?,
            Plan::Confirm { id, written: seen } => {
                confirmed.push(as_uuid(*id));
                written.push(*seen);
            }
            Plan::Nothing | Plan::Several(_) => {}
        }
    }
    let mut statements = Vec::new();
    if !confirmed.is_empty() {
        let confirm = Statement::new(statements::CONFIRM);
        statements.push(confirm.bind(confirmed, Type::UUID_ARRAY).bind(written, Type::INT8_ARRAY));
    }
    let texts = [(release, statements::RELEASE), (heard, statements::HEARD), (settle, statements::SETTLE)];
    statements.extend(
        texts
            .into_iter()
            .filter(|(columns, _)| !columns.is_empty())
            .map(|(columns, text)| columns.into_statement(text)),
    );
    if !dispatch.is_empty() {
        let (witness, acknowledged) = witness.condition();
        statements.push(dispatch.into_statement(statements::DISPATCH).uuid(witness).bigint(acknowledged));
    }
    Ok(statements)
}

/// Writes them one after the other; false where one of them was not as it was when that was decided, and nothing was done.
async fn write_all(connection: &Connection, writes: &[Write]) -> Ended<bool> {
    let mut transaction = match connection.begin(Durability::On).await {
        Ok(transaction) => transaction,
        Err(error) => return Ended::NotDone(error),
    };
    let replaced: Vec<_> =
        writes.iter().filter(|write| write.replaces_unreadable).map(|write| as_uuid(write.record.id)).collect();
    if !replaced.is_empty() {
        let keep = Statement::new(statements::KEEP_BYTES).bind(replaced, Type::UUID_ARRAY);
        if let Err(error) = transaction.run(&keep).await {
            transaction.roll_back().await;
            return Ended::NotDone(error);
        }
    }
    for write in writes {
        let mut columns = Columns::default();
        if columns.push(write).is_err() {
            transaction.roll_back().await;
            return Ended::NotDone(Error::Misread("a record cannot be spelled".into()));
        }
        let text = if write.token.is_some() { statements::SETTLE } else { statements::HEARD };
        match transaction.run(&columns.into_statement(text)).await {
            Ok(rows) if rows.len() == 1 => {}
            Ok(_) => {
                transaction.roll_back().await;
                return Ended::Done(false);
            }
            Err(error) => {
                transaction.roll_back().await;
                return Ended::NotDone(error);
            }
        }
    }
    transaction.commit().await.map(|()| true)
}

fn ids(rows: &[Rows]) -> HashSet<RecordId> {
    let id = |row: &crate::database::Row| row.try_get::<_, Uuid>(0).ok().map(|id| RecordId::from(id.as_u128()));
    rows.iter().flatten().filter_map(id).collect()
}

/// A row as it was just inserted.
fn row_of(write: &Write) -> Row {
    let record = write.record.clone();
    Row {
        id: record.id,
        key: record.key.clone(),
        pos_id: record.sale.pos_id,
        created_ms: record.times.created_ms,
        state: RecordState::from(State::Dispatching),
        written: 1,
        frees_key: false,
        taken_over_age_ms: None,
        fingerprint: Some(record.fingerprint),
        record: Ok(record),
        stored: String::new(),
    }
}
