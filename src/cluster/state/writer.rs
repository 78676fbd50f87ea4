//! Writes the state of the instances that this replica owns.
//!
//! Two tasks: one writes entries of logs as they come, for all instances that have any in one statement; the other writes each
//! second what else changed, and at once where a shard was taken out by hand. What could not be written, or may not have been,
//! is written again: every statement says the whole of what it is about.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::carried::Carried;
use super::load;
use super::rows::{self, CopyFreshness, Coverage, Entry, Handover, Row, Running};
use super::served::{Covered, Served, Serving, Table, ago_ms};
use crate::broadcasts::{Broadcasts, CarriedLog, OnUnwritten};
use crate::cache::{Cache, CachedReply};
use crate::database::{self, Connection, Durability, Error, Rows, Statement, Timeline};
use crate::tenure::{SessionId, Tenure};

/// How often what changed is written.
const EVERY: Duration = Duration::from_secs(1);

/// How soon entries are tried again that could not be written.
const AGAIN: Duration = Duration::from_millis(200);

/// How many entries of one instance, and of all together, are written at once.
const MOST_ENTRIES_EACH: usize = 256;
const MOST_ENTRIES: usize = 1024;

/// How many instances begin at once.
const MOST_BEGIN: usize = 256;

/// How many bytes of copies are written at once, but for one that is larger.
const MOST_COPY_BYTES: usize = 4 << 20;

/// How many entries come to a log before those are removed that it no longer holds.
const FORGET_EVERY: u64 = 64;

/// The most that is carried of what a matcher knows, in bytes; beyond it the next owner begins with a gap.
const MOST_CARRIED: usize = 8 << 20;

/// A coverage that differs by less is the same: it is computed anew from instants each second.
const SAME: Duration = Duration::from_secs(1);

/// What this replica writes. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct States {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    session: SessionId,
    /// For what changed. Entries have one of their own: they must not wait for a batch of copies.
    connection: Connection,
    entries: Connection,
    cache: Arc<Cache>,
    /// How many entries a log holds.
    history: usize,
    table: Table,
    to_log: Notify,
    to_begin: Notify,
    changed: Arc<Notify>,
    timeline: Mutex<Option<Arc<str>>>,
    /// Instances that are to be read; one reads them for all who ask.
    asked: Mutex<Vec<Asked>>,
    loading: tokio::sync::Mutex<()>,
}

type Asked = (Arc<str>, i64, oneshot::Sender<Result<Carried, Error>>);

impl States {
    /// For a session that has just begun. Nothing is written before [`Self::run`]. `changed`: notified where what changed is to be
    /// written at once.
    #[must_use]
    pub fn new(
        session: SessionId,
        database: &database::Config,
        cache: Arc<Cache>,
        history: usize,
        changed: Arc<Notify>,
    ) -> Self {
        cache.note_changes();
        let shared = Shared {
            session,
            connection: Connection::new(database.clone(), "state"),
            entries: Connection::new(database.clone(), "events"),
            cache,
            history,
            table: Table::default(),
            to_log: Notify::new(),
            to_begin: Notify::new(),
            changed,
            timeline: Mutex::default(),
            asked: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What earlier owners left of an instance that is claimed in this epoch. Instances that are asked for at the same time are
    /// read at once.
    pub async fn load(&self, instance: &Arc<str>, epoch: i64) -> Result<Carried, Error> {
        let (asked, answer) = oneshot::channel();
        self.shared.asked.lock().push((Arc::clone(instance), epoch, asked));
        let turn = self.shared.loading.lock().await;
        let all = std::mem::take(&mut *self.shared.asked.lock());
        if !all.is_empty() {
            self.shared.load(all).await?;
        }
        drop(turn);
        // Whoever read it has failed, or is gone.
        answer.await.unwrap_or(Err(Error::Late))
    }

    /// From now on broadcasts of an instance are logged once they are written, which they are after [`serve`](Self::serve). To be
    /// said before one may come.
    pub fn write_first(&self, name: &Arc<str>, broadcasts: &Broadcasts) {
        let (shared, name) = (Arc::downgrade(&self.shared), Arc::clone(name));
        broadcasts.write_first(OnUnwritten(Arc::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.table.note_to_log(&name);
                shared.to_log.notify_one();
            }
        })));
    }

    /// Writes the state of an instance from now on. `goes_on`: with the log of an earlier owner, which is written.
    pub fn serve(&self, serving: Serving, goes_on: bool) {
        let name = Arc::clone(&serving.name);
        let timeline = self.shared.timeline.lock().clone().filter(|_| goes_on);
        self.shared.table.insert(Served::new(serving, timeline));
        // Some may wait since before.
        self.shared.table.note_to_log(&name);
        self.shared.to_log.notify_one();
        self.shared.to_begin.notify_one();
    }

    /// Writes nothing more of an instance.
    pub fn end(&self, name: &str, tenure: &Tenure) {
        self.shared.table.remove(name, tenure);
    }

    /// The statements that hand an instance over, to be run in the transaction that gives it up, before the statement that does; to
    /// be committed with [`Durability::On`]. `None` where it cannot be handed over: it is not served here, or is no longer
    /// owned. Nothing may be written to its gateway any more, and its broadcasts are kept from now on.
    #[must_use]
    pub fn hand_over(&self, name: &str) -> Option<Vec<Statement>> {
        let served = self.shared.table.get(name)?;
        let epoch = served.epoch()?;
        self.shared.handover(&served, epoch).ok()
    }

    /// Writes until it is dropped.
    pub async fn run(&self) {
        tokio::join!(self.shared.log(), self.shared.write_changes());
    }
}

impl Shared {
    async fn load(&self, asked: Vec<Asked>) -> Result<(), Error> {
        let timeline = self.note_timeline(&Timeline::read(&self.connection).await?);
        let claims: Vec<_> = asked.iter().map(|(instance, epoch, _)| (Arc::clone(instance), *epoch)).collect();
        let mut carried = load::load(&self.connection, &claims, &timeline, self.history).await?;
        for (instance, _, asked) in asked {
            // Whoever asked may be gone.
            let _ = asked.send(Ok(carried.remove(&instance).unwrap_or_default()));
        }
        Ok(())
    }

    fn note_timeline(&self, found: &Timeline) -> Arc<str> {
        let found: Arc<str> = format!("{}/{}", found.system, found.timeline).into();
        let mut known = self.timeline.lock();
        match &*known {
            Some(same) if *same == found => Arc::clone(same),
            other => {
                if let Some(before) = other {
                    tracing::warn!(%before, %found, "the database failed over: event logs are written anew");
                }
                *known = Some(Arc::clone(&found));
                found
            }
        }
    }

    /// Writes entries as they come.
    async fn log(&self) {
        loop {
            self.to_log.notified().await;
            while !self.log_once().await {
                sleep(AGAIN).await;
            }
        }
    }

    /// Writes what waits, of each instance that has anything. False where some of it could not be written.
    async fn log_once(&self) -> bool {
        let Some(timeline) = self.timeline.lock().clone() else { return false };
        let mut batch = Vec::new();
        let (mut rows, mut forgotten) = (Vec::new(), Vec::new());
        let mut waits = false;
        for served in self.table.take_to_log() {
            // The log is first written whole. Then, or once its lease is renewed, it is its turn.
            let epoch = served.epoch().filter(|_| served.is_whole_on(&timeline) && rows.len() < MOST_ENTRIES);
            let Some(epoch) = epoch else {
                let is_lost = served.written.lock().is_lost || served.serving.tenure.is_over();
                if !is_lost {
                    waits = true;
                    self.table.note_to_log(&served.serving.name);
                }
                continue;
            };
            let next = served.serving.broadcasts.to_write(MOST_ENTRIES_EACH);
            if next.entries.is_empty() {
                continue;
            }
            rows.extend(entry_rows(&served, epoch, &next));
            forgotten.extend(self.forgotten(&served, epoch, &next));
            batch.push(served);
        }
        if batch.is_empty() {
            return !waits;
        }
        let mut statements = vec![rows::entries(self.session, &rows)];
        if !forgotten.is_empty() {
            statements.push(rows::forget_entries(self.session, &forgotten));
        }
        let ended = self.entries.batch(Durability::Local, &statements).await;
        let owned = ended.done().and_then(|rows| instances(rows.first()).ok());
        for served in batch {
            let name = &served.serving.name;
            match &owned {
                Some(owned) if !owned.contains(&**name) => served.written.lock().is_lost = true,
                // Nobody hears an entry from an owner that may not act, though it is written.
                Some(_) if served.epoch().is_some() => {
                    if served.serving.broadcasts.written() {
                        self.table.note_to_log(name);
                        self.to_log.notify_one();
                    }
                }
                _ => {
                    waits = true;
                    self.table.note_to_log(name);
                }
            }
        }
        !waits
    }

    /// Which entries the log holds no more with these.
    fn forgotten(&self, served: &Served, epoch: i64, next: &CarriedLog) -> Option<Row<(String, i64)>> {
        let first = next.newest.saturating_sub(next.entries.len() as u64);
        let floor = next.newest.checked_sub(self.history as u64).filter(|floor| *floor > 0)?;
        (first / FORGET_EVERY != next.newest / FORGET_EVERY)
            .then(|| row(served, epoch, (next.epoch.to_string(), i64::try_from(floor).unwrap_or(i64::MAX))))
    }

    /// Writes each second what changed, and at once what begins or must not wait.
    async fn write_changes(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(std::mem::take(&mut is_first)).await,
                () = self.changed.notified() => self.tick(false).await,
                () = self.to_begin.notified() => {}
            }
            self.begin().await;
        }
    }

    /// Writes the logs that are not written whole on the present timeline.
    async fn begin(&self) {
        let Some(timeline) = self.timeline.lock().clone() else { return };
        let yet = self.table.all().into_iter().filter(|served| !served.is_whole_on(&timeline));
        let mut yet = yet.filter_map(|served| Some((served.epoch()?, served))).peekable();
        while yet.peek().is_some() {
            let mut beginning = Beginning::default();
            while let Some((epoch, served)) = yet.next_if(|_| beginning.has_room()) {
                beginning.add(served, epoch, &timeline, self.general_coverage());
            }
            if !self.begin_some(beginning, &timeline).await {
                return;
            }
        }
    }

    async fn begin_some(&self, beginning: Beginning, timeline: &Arc<str>) -> bool {
        let Beginning { served, coverage, entries, forgotten } = beginning;
        let statements = [
            rows::coverage(self.session, &coverage),
            rows::forget_handed_over(self.session, &coverage),
            rows::forget_entries(self.session, &forgotten),
            rows::entries(self.session, &entries),
            // Without it a kill before the first second is over would leave no begin of what nobody heard.
            rows::session_coverage(self.session, ago_ms(self.general_coverage())),
        ];
        let ended = self.connection.batch(Durability::Local, &statements).await;
        let Some(owned) = ended.done().and_then(|rows| instances(rows.first()).ok()) else { return false };
        for served in served {
            let mut written = served.written.lock();
            if owned.contains(&*served.serving.name) {
                (written.has_begun, written.timeline) = (true, Some(Arc::clone(timeline)));
            } else {
                written.is_lost = true;
            }
        }
        self.to_log.notify_one();
        true
    }

    /// Until when everything was received at every instance that has a link all along.
    fn general_coverage(&self) -> Timestamp {
        let silences = self.table.all().into_iter().map(|served| served.serving.relay.longest_silence());
        Timestamp::now().checked_sub(silences.max().unwrap_or_default() + EVERY).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    async fn tick(&self, is_first: bool) {
        let general = self.general_coverage();
        let Some(timeline) = self.timeline.lock().clone() else { return self.first_look().await };
        let (mut spending, mut coverage, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for served in self.table.all() {
            let Some(epoch) = served.epoch().filter(|_| served.is_whole_on(&timeline)) else { continue };
            let state = spelled_running(&served);
            let covered = served.covered(general);
            let written = served.written.lock();
            let spends = Some(&state).filter(|state| **state != written.running);
            let covers = covered.filter(|covered| !is_same(*covered, written.covered));
            drop(written);
            spending.extend(spends.map(|state| row(&served, epoch, state.clone())));
            coverage.extend(covers.map(|covered| row(&served, epoch, coverage_of(&served, &timeline, covered))));
            if spends.is_some() || covers.is_some() {
                changed.push((Arc::clone(&served), spends.cloned(), covers));
            }
        }
        let mut statements = Vec::new();
        if !changed.is_empty() {
            // In order, as each of the others does, but for all of them.
            let all: Vec<_> =
                changed.iter().filter_map(|(served, ..)| Some(row(served, served.epoch()?, ()))).collect();
            statements.push(rows::lock(self.session, &all));
            statements.push(rows::spending(self.session, &spending));
            statements.push(rows::coverage(self.session, &coverage));
        }
        if is_first {
            statements.push(rows::forget_sessions(self.session));
        }
        statements.push(rows::session_coverage(self.session, ago_ms(general)));
        statements.push(Statement::new(Timeline::QUERY));
        let Some(rows) = self.connection.batch(Durability::Local, &statements).await.done() else { return };
        for (served, spends, covers) in changed {
            let mut written = served.written.lock();
            written.running = spends.unwrap_or_else(|| std::mem::take(&mut written.running));
            written.covered = covers.unwrap_or(written.covered);
        }
        if let Some(found) = rows.last().and_then(|rows| rows.first()).and_then(timeline_in) {
            self.note_timeline(&found);
        }
        self.write_copies().await;
    }

    async fn first_look(&self) {
        if let Ok(found) = Timeline::read(&self.connection).await {
            self.note_timeline(&found);
        }
    }

    async fn write_copies(&self) {
        let by_slug = self.table.by_slug();
        let mut changed = self.cache.changed().into_iter().filter_map(|(key, copy)| {
            let served = by_slug.get(&key.instance)?;
            Some((served, served.epoch()?, key, copy))
        });
        loop {
            let (mut kept, mut gone, mut keys, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for (served, epoch, key, copy) in changed.by_ref() {
                let Ok(spelled) = serde_json::to_vec(&key) else { continue };
                keys.push(key);
                match copy {
                    Some(copy) => {
                        bytes += copy.body.as_str().len();
                        kept.push(row(served, epoch, written_copy(spelled, &copy)));
                    }
                    None => gone.push(row(served, epoch, spelled)),
                }
                if bytes >= MOST_COPY_BYTES || keys.len() >= MOST_ENTRIES {
                    break;
                }
            }
            if keys.is_empty() {
                return;
            }
            let all: Vec<_> = kept.iter().map(unvalued).chain(gone.iter().map(unvalued)).collect();
            let statements = [
                rows::lock(self.session, &all),
                rows::copies(self.session, &kept),
                rows::forget_copies(self.session, &gone),
            ];
            if self.connection.batch(Durability::Local, &statements).await.done().is_none() {
                let rest = changed.map(|(_, _, key, _)| key);
                return self.cache.note_again(keys.into_iter().chain(rest));
            }
        }
    }

    fn handover(&self, served: &Arc<Served>, epoch: i64) -> serde_json::Result<Vec<Statement>> {
        let Serving { slug, ledger, broadcasts, relay, cordoned, heard, .. } = &served.serving;
        let heard = heard();
        let Some(timeline) = self.timeline.lock().clone() else {
            return Err(serde::ser::Error::custom("nothing was read of the database"));
        };
        let covered = served.covered(Timestamp::MAX).unwrap_or_default();
        let known = Some(relay.hand_over(&heard));
        let known = known.filter(|known| serde_json::to_string(known).is_ok_and(|text| text.len() <= MOST_CARRIED));
        let copies = self.cache.carried(slug).into_iter().map(|copy| CopyFreshness {
            key: copy.key,
            age_ms: copy.age_ms,
            ended: copy.ended,
        });
        let (spending, cordoned) = (ledger.carried(), cordoned());
        let state = Handover { spending, cordoned, broadcasts: known, copies: copies.collect() };
        let state = serde_json::to_string(&state)?;
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for (key, copy) in self.cache.changed_of(slug) {
            let spelled = serde_json::to_vec(&key)?;
            match copy {
                Some(copy) => kept.push(row(served, epoch, written_copy(spelled, &copy))),
                None => gone.push(row(served, epoch, spelled)),
            }
        }
        Ok(vec![
            rows::coverage(self.session, &[row(served, epoch, coverage_of(served, &timeline, covered))]),
            rows::entries(self.session, &entry_rows(served, epoch, &broadcasts.unwritten())),
            rows::copies(self.session, &kept),
            rows::forget_copies(self.session, &gone),
            rows::handed_over(self.session, &[row(served, epoch, state)]),
        ])
    }
}

/// Instances whose logs are written whole in one transaction.
#[derive(Default)]
struct Beginning {
    served: Vec<Arc<Served>>,
    coverage: Vec<Row<Coverage>>,
    entries: Vec<Row<Entry>>,
    forgotten: Vec<Row<(String, i64)>>,
}

impl Beginning {
    fn has_room(&self) -> bool {
        self.served.len() < MOST_BEGIN && self.entries.len() < MOST_ENTRIES
    }

    fn add(&mut self, served: Arc<Served>, epoch: i64, timeline: &Arc<str>, general: Timestamp) {
        let log = served.serving.broadcasts.carried();
        let mut written = served.written.lock();
        // Written on this timeline by an earlier owner.
        if written.timeline.as_ref() != Some(timeline) {
            self.entries.extend(entry_rows(&served, epoch, &log));
        }
        written.covered = served.covered(general).unwrap_or(written.covered);
        let covered = written.covered;
        drop(written);
        self.coverage.push(row(&served, epoch, coverage_of(&served, timeline, covered)));
        self.forgotten.push(row(&served, epoch, (log.epoch.to_string(), 0)));
        self.served.push(served);
    }
}

fn coverage_of(served: &Served, timeline: &Arc<str>, covered: Covered) -> Coverage {
    Coverage {
        log_epoch: served.serving.broadcasts.epoch().to_string(),
        timeline: timeline.to_string(),
        covered_ago_ms: covered.ago_ms(),
    }
}

fn is_same(one: Covered, other: Covered) -> bool {
    match (one, other) {
        (Covered::Until(one), Covered::Until(other)) => {
            one.duration_since(other).abs() < jiff::SignedDuration::try_from(SAME).unwrap_or_default()
        }
        (one, other) => one == other,
    }
}

/// Empty where nothing is spent and no shard is taken out.
fn spelled_running(served: &Served) -> String {
    let spending = Some(served.serving.ledger.carried()).filter(|spending| !spending.windows.is_empty());
    let cordoned = (served.serving.cordoned)();
    if spending.is_none() && cordoned.is_empty() {
        return String::new();
    }
    serde_json::to_string(&Running { spending, cordoned }).unwrap_or_default()
}

fn written_copy(key: Vec<u8>, copy: &CachedReply) -> rows::Copy {
    let age = Instant::now().saturating_duration_since(copy.written);
    rows::Copy { key, age_ms: i64::try_from(age.as_millis()).unwrap_or(i64::MAX), body: copy.body.as_str().to_owned() }
}

fn unvalued<T>(of: &Row<T>) -> Row<()> {
    Row { instance: of.instance.clone(), epoch: of.epoch, value: () }
}

fn timeline_in(row: &database::Row) -> Option<Timeline> {
    Some(Timeline { system: row.try_get(0).ok()?, timeline: row.try_get(1).ok()? })
}

fn row<T>(served: &Served, epoch: i64, value: T) -> Row<T> {
    Row { instance: served.serving.name.to_string(), epoch, value }
}

fn entry_rows(served: &Served, epoch: i64, log: &CarriedLog) -> Vec<Row<Entry>> {
    let log_epoch = log.epoch.to_string();
    let spelled = log.entries.iter().filter_map(|(offset, event)| {
        let entry = Entry {
            log_epoch: log_epoch.clone(),
            position: i64::try_from(*offset).ok()?,
            text: rows::spell(event).ok()?,
        };
        Some(row(served, epoch, entry))
    });
    spelled.collect()
}

/// The instances that a statement returned.
fn instances(rows: Option<&Rows>) -> Result<HashSet<String>, Error> {
    rows.into_iter().flatten().map(|row| Ok(row.try_get(0)?)).collect()
}
