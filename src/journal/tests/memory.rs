//! A store in memory, held to the same suite as the embedded one. It decides as a store over a network would: with the
//! records that it has loaded, and anew once what was missing is there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::*;
use crate::journal::apply::{Applied, Apply};
use crate::journal::attempts::{self, Changes, Decided, Now, Records, Refused, Stored};
use crate::journal::clock::{Age, horizon_ms};
use crate::journal::in_flight::HeldKey;
use crate::journal::listing::{Listed, Page};
use crate::journal::news::Contradictions;
use crate::journal::record::RecordState;
use crate::journal::state_machine::Event;
use crate::journal::store::{CountsByInstance, Current, Reading, Store};

/// What outlives a journal in memory.
#[derive(Default)]
pub(crate) struct Memory(Arc<Mutex<Held>>);

impl fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Memory")
    }
}

#[derive(Default)]
struct Held {
    kept: Kept,
    /// What is handed in and not committed, while commits are held.
    waiting: VecDeque<Job>,
    holds_commits: bool,
    closed: bool,
}

#[derive(Clone, Default)]
struct Kept {
    records: BTreeMap<RecordId, Record>,
    current: HashMap<Key, RecordId>,
    newest: Option<RecordId>,
    age_ms: u64,
}

type Job = Box<dyn FnOnce(&Mutex<Held>) + Send>;

impl Place for Memory {
    fn open(&self, clock: Arc<dyn Clock>) -> Journal {
        let (newest, age_ms) = {
            let mut held = self.0.lock();
            held.closed = false;
            (held.kept.newest, held.kept.age_ms)
        };
        let age = Age::resume(age_ms, clock.monotonic());
        let contradictions = Arc::default();
        let store = MemoryStore { held: Arc::clone(&self.0), clock: Arc::clone(&clock), age, contradictions };
        let open: Vec<_> = store.held.lock().kept.records.keys().copied().collect();
        for id in open {
            let _ = store.commit(|kept, now| kept.apply(id, &Event::Restart, now));
        }
        Journal::over(Arc::new(store), newest, clock)
    }

    fn after_crash(&self, _: u64) -> Self {
        let kept = self.0.lock().kept.clone();
        Self(Arc::new(Mutex::new(Held { kept, ..Held::default() })))
    }

    fn hold_commits(&self) {
        self.0.lock().holds_commits = true;
    }

    fn release_commits(&self) {
        self.0.lock().holds_commits = false;
        loop {
            let Some(job) = self.0.lock().waiting.pop_front() else { break };
            job(&self.0);
        }
    }

    fn has_held_commit(&self) -> bool {
        !self.0.lock().waiting.is_empty()
    }
}

/// What of the records a decision may read so far.
#[derive(Default)]
struct Loaded {
    records: HashMap<RecordId, Option<Record>>,
    current: HashMap<Key, Option<RecordId>>,
}

/// What has to be loaded before a decision can go on.
enum Missing {
    Record(RecordId),
    Current(Key),
}

impl Records for Loaded {
    type Error = Missing;

    fn get(&self, id: RecordId) -> Result<Stored, Missing> {
        let found = self.records.get(&id).ok_or(Missing::Record(id))?;
        Ok(found.clone().map_or(Stored::Absent, |record| Stored::Readable(Box::new(record))))
    }

    fn current(&self, key: &Key) -> Result<Stored, Missing> {
        match self.current.get(key) {
            None => Err(Missing::Current(key.clone())),
            Some(None) => Ok(Stored::Absent),
            Some(Some(id)) => self.get(*id),
        }
    }

    fn recovered(&self, _: RecordId) -> Result<Option<(RecordState, Record)>, Missing> {
        Ok(None)
    }
}

impl Kept {
    fn decide<T>(&self, decide: impl Fn(&Loaded) -> Result<T, Missing>) -> T {
        let mut loaded = Loaded::default();
        loop {
            match decide(&loaded) {
                Ok(decided) => return decided,
                Err(Missing::Record(id)) => drop(loaded.records.insert(id, self.records.get(&id).cloned())),
                Err(Missing::Current(key)) => {
                    let id = self.current.get(&key).copied();
                    loaded.current.insert(key, id);
                }
            }
        }
    }

    fn write(&mut self, changes: &Changes) {
        for change in &changes.records {
            self.records.insert(change.record.id, change.record.clone());
            self.newest = self.newest.max(Some(change.record.id));
            if changes.current == Some(change.record.id) {
                self.current.insert(change.record.key.clone(), change.record.id);
            }
        }
    }

    fn expire(&mut self, horizon_ms: u64) {
        let due = |record: &Record| record.ended_age_ms.is_some_and(|ended_ms| ended_ms <= horizon_ms);
        let gone: Vec<_> = self.records.values().filter(|record| due(record)).map(|record| record.id).collect();
        for id in gone {
            let Some(record) = self.records.remove(&id) else { continue };
            if self.current.get(&record.key) == Some(&id) {
                self.current.remove(&record.key);
            }
        }
    }

    fn dispatch(&mut self, reserved: &Record, now: Now) -> Result<Changes, Refused> {
        let changes = self.decide(|loaded| attempts::dispatch(loaded, reserved, now))?;
        self.write(&changes);
        Ok(changes)
    }

    fn apply(&mut self, id: RecordId, event: &Event, now: Now) -> Result<Decided, Refused> {
        let decided = self.decide(|loaded| attempts::apply(loaded, id, event, now))?;
        self.write(&decided.changes);
        Ok(decided)
    }
}

#[derive(Debug, Clone)]
struct MemoryStore {
    held: Arc<Mutex<Held>>,
    clock: Arc<dyn Clock>,
    age: Age,
    contradictions: Arc<Contradictions>,
}

impl fmt::Debug for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Held")
    }
}

impl MemoryStore {
    fn commit<T>(&self, work: impl FnOnce(&mut Kept, Now) -> T) -> T {
        let now = Now { wall_ms: self.clock.wall_ms(), age_ms: self.age.at_ms(self.clock.monotonic()) };
        let mut held = self.held.lock();
        held.kept.age_ms = now.age_ms;
        if let Some(horizon_ms) = horizon_ms(now.age_ms, KEEP) {
            held.kept.expire(horizon_ms);
        }
        work(&mut held.kept, now)
    }

    /// Has work done now, or once commits are let go.
    fn hand_in<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, JournalError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, JournalError>> {
        let (reply, heard) = oneshot::channel();
        let store = self.clone();
        let job = move |_: &Mutex<Held>| drop(reply.send(work(&store)));
        let mut held = self.held.lock();
        if held.closed {
            return Box::pin(future::ready(Err(JournalError::Unavailable)));
        }
        if held.holds_commits {
            held.waiting.push_back(Box::new(job));
        } else {
            drop(held);
            job(&self.held);
        }
        Box::pin(async { heard.await.unwrap_or(Err(JournalError::Unavailable)) })
    }

    fn read<T: Send + 'static>(&self, look: impl FnOnce(&Kept) -> T) -> Reading<'static, T> {
        let held = self.held.lock();
        let found = if held.closed { Err(JournalError::Unavailable) } else { Ok(look(&held.kept)) };
        Box::pin(future::ready(found))
    }
}

impl Apply for MemoryStore {
    fn apply(
        &self,
        id: RecordId,
        event: Event,
        held: Option<HeldKey>,
    ) -> BoxFuture<'static, Result<Applied, JournalError>> {
        self.hand_in(move |store| {
            let decided = store.commit(|kept, now| kept.apply(id, &event, now));
            drop(held);
            let Decided { effect, record, changes } = decided.map_err(|refused| refused.error)?;
            changes.news.into_iter().for_each(|news| news.report(&store.contradictions));
            Ok(Applied { effect, record })
        })
    }
}

impl Store for MemoryStore {
    fn current(&self, key: Key) -> Reading<'_, Option<Current>> {
        self.read(|kept| {
            let record = kept.current.get(&key).and_then(|id| kept.records.get(id));
            record.map(|record| Current::Record(Box::new(record.clone())))
        })
    }

    fn dispatch(&self, reservation: Reservation) -> BoxFuture<'static, Result<Dispatched, JournalError>> {
        let (reserved, held) = reservation.into_parts();
        self.hand_in(move |store| {
            store.commit(|kept, now| kept.dispatch(&reserved, now)).map_err(|refused| refused.error)?;
            Ok(Dispatched::new(reserved.id, held, Arc::new(store.clone())))
        })
    }

    fn get(&self, id: RecordId) -> Reading<'_, Option<Record>> {
        self.read(|kept| kept.records.get(&id).cloned())
    }

    fn find(&self, instance: &str, id: RecordId) -> Reading<'_, Option<Listed>> {
        self.read(|kept| {
            let record = kept.records.get(&id).filter(|record| record.key.instance == instance);
            record.map(|record| Listed::Record(Box::new(record.clone())))
        })
    }

    fn list(&self, filter: Filter) -> Reading<'_, Page> {
        self.read(|kept| {
            let is_wanted = |record: &&Record| {
                filter.before.is_none_or(|before| record.id < before) && listing::is_wanted(&filter, record)
            };
            let mut wanted = kept.records.values().rev().filter(is_wanted).cloned().peekable();
            let records: Vec<_> = wanted.by_ref().take(filter.limit).collect();
            let next = records.last().map(|record| record.id).filter(|_| wanted.peek().is_some());
            Page { records: records.into_iter().map(|record| Listed::Record(Box::new(record))).collect(), next }
        })
    }

    fn counts(&self) -> Reading<'_, BTreeMap<RecordState, u64>> {
        self.read(|kept| {
            let count = |state: RecordState| kept.records.values().filter(|one| state == one.state().into()).count();
            RecordState::ALL.into_iter().map(|state| (state, count(state) as u64)).collect()
        })
    }

    fn counts_by_instance(&self) -> Reading<'_, CountsByInstance> {
        self.read(|kept| {
            let mut counts = CountsByInstance::new();
            for record in kept.records.values() {
                *counts.entry((record.key.instance.clone(), record.state().into())).or_default() += 1;
            }
            counts
        })
    }

    fn sent_since(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError> {
        let held = self.held.lock();
        let sent = held.kept.records.values().filter_map(|record| Some((record, record.sent_until_ms()?)));
        let sent = sent.filter(|(_, ended_ms)| *ended_ms >= since_ms);
        Ok(sent.map(|(record, ended_ms)| (record.key.instance.clone(), ended_ms)).collect())
    }

    fn contradictions(&self, instance: &str) -> u64 {
        self.contradictions.of(instance)
    }

    fn commits(&self) -> u64 {
        0
    }

    fn is_available(&self) -> bool {
        !self.held.lock().closed
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.held.lock().closed = true;
        Box::pin(future::ready(()))
    }
}
