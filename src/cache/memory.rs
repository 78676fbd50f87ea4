//! The cached replies of all instances, in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::sync::Cache as Moka;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::changes::Changes;
use super::config::Config;
use super::epochs::{Epoch, EpochStatus, Epochs, Subject};
use super::key::{Key, PlainKey};
use super::reply::{CachedReply, Freshness};
use crate::clock::whole_ms;
use crate::protocol::command::{InvalidatedBy, Retention};
use crate::protocol::{Body, GatewayError, Spec};

/// How long a refusal is remembered for exactly its key: long enough that a client repeating it spends nothing, short
/// enough that what was mended at the gateway works soon.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(30);

/// Refusals remembered at most; beyond it the oldest are forgotten and cost points again.
const MAX_REFUSALS: u64 = 10_000;

/// What a copy costs beside its body: key, entry and the cache's own bookkeeping.
const OVERHEAD: usize = 512;

/// All instances' copies. Cheap to share.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    /// Of the commands whose replies are kept.
    rules: HashMap<String, Retention, RandomState>,
    copies: Moka<Key, CachedReply, RandomState>,
    /// What was refused, and under the how manieth key of the instance.
    refusals: Moka<Key, (u64, GatewayError), RandomState>,
    /// Until when one of them may be remembered, in milliseconds since the cache was made: most of the time there is none.
    refused_until_ms: AtomicU64,
    made: Instant,
    epochs: Mutex<Epochs>,
    /// How many epochs have ended, of whatever: while it stands, so does every judgement of a copy.
    ended: AtomicU64,
    /// What the store has not written yet.
    pub(super) changes: Arc<Changes>,
}

impl Cache {
    #[must_use]
    pub fn new(config: Config) -> Self {
        let changes = Arc::new(Changes::new(config.store.is_some()));
        let weigh =
            |_: &Key, copy: &CachedReply| u32::try_from(copy.body.as_str().len() + OVERHEAD).unwrap_or(u32::MAX);
        let gone = Arc::clone(&changes);
        let copies = Moka::builder()
            .weigher(weigh)
            .max_capacity(config.max_size)
            .eviction_listener(move |key: Arc<Key>, _, cause| {
                if cause != RemovalCause::Replaced {
                    gone.note(&key);
                }
            })
            .build_with_hasher(RandomState::default());
        let refusals = Moka::builder().max_capacity(MAX_REFUSALS).time_to_live(REFUSAL_REMEMBERED);
        let refusals = refusals.build_with_hasher(RandomState::default());
        let kept = config.rules.iter().filter(|(_, rule)| !(rule.fresh + rule.stale).is_zero());
        let rules = kept.map(|(command, rule)| (command.clone(), *rule)).collect();
        Self {
            config,
            rules,
            copies,
            refusals,
            refused_until_ms: AtomicU64::new(0),
            made: Instant::now(),
            epochs: Mutex::default(),
            ended: AtomicU64::new(0),
            changes,
        }
    }

    /// The rule of a command, if its replies are kept.
    #[must_use]
    pub fn rule(&self, command: &str) -> Option<Retention> {
        self.rules.get(command).copied()
    }

    /// A copy younger than this answers even a request that asks for a new one.
    #[must_use]
    pub fn min_age(&self) -> Duration {
        self.config.min_age
    }

    /// The epoch that a command of this key has if it is written now.
    #[must_use]
    pub fn epoch(&self, spec: &Spec, key: &Key) -> Epoch {
        subject(spec, key).map_or(Epoch::FIRST, |subject| self.epochs().epoch(&subject))
    }

    /// Ends the freshness of everything that `updatepos` concerns, from now on and for every fetch under way.
    pub fn catalogue_changed(&self, instance: &Arc<str>) {
        self.end(Subject::Catalogue(Arc::clone(instance)));
    }

    /// Ends the freshness of the transactions of one point of sale. Only for points of sale that the gateway knows,
    /// so that invented ones take no memory.
    pub fn sold(&self, instance: &Arc<str>, pos_id: i64) {
        self.end(Subject::Sales(Arc::clone(instance), pos_id));
    }

    fn end(&self, subject: Subject) {
        self.epochs().end(subject, Instant::now());
        self.has_ended();
    }

    /// To be said after an epoch has ended: a reader that sees the old number with the new epoch only checks once more.
    fn has_ended(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// The copy of a plain key, where it is fresh at `now`.
    #[must_use]
    pub fn fresh(&self, spec: &Spec, key: &PlainKey<'_>, now: Instant) -> Option<(CachedReply, Duration)> {
        let copy = self.copies.get(key)?;
        let left = self.rule(spec.name)?.fresh.checked_sub(now.saturating_duration_since(copy.written))?;
        let current =
            self.is_still_current(&copy) || self.epoch_status(spec, &key.key(), &copy) == EpochStatus::Current;
        (current && !left.is_zero()).then_some((copy, left))
    }

    /// Whether nothing has ended since the copy's epoch was last seen to be in force.
    fn is_still_current(&self, copy: &CachedReply) -> bool {
        copy.current_at.load(Ordering::Relaxed) == self.ended.load(Ordering::Acquire)
    }

    /// The copy of `key`, whatever its freshness. There is none of a command whose replies are not kept.
    #[must_use]
    pub fn copy(&self, key: &Key) -> Option<CachedReply> {
        self.rule(key.command)?;
        self.copies.get(key)
    }

    /// How a copy may be used at `now`.
    #[must_use]
    pub fn freshness(&self, spec: &Spec, key: &Key, copy: &CachedReply, now: Instant) -> Freshness {
        let Some(rule) = self.rule(spec.name) else { return Freshness::Expired };
        let age = now.saturating_duration_since(copy.written);
        let aged = age.saturating_sub(rule.fresh);
        let freshness = match self.epoch_status(spec, key, copy) {
            EpochStatus::Ended(at) => {
                let ended = at.map_or(age, |at| now.saturating_duration_since(at));
                Freshness::Invalidated { by: aged.max(ended) }
            }
            EpochStatus::Current => match rule.fresh.checked_sub(age) {
                Some(left) if !left.is_zero() => Freshness::Fresh { left },
                _ => Freshness::Stale { by: aged },
            },
        };
        match freshness {
            Freshness::Invalidated { by } | Freshness::Stale { by } if by > rule.stale => Freshness::Expired,
            freshness => freshness,
        }
    }

    fn epoch_status(&self, spec: &Spec, key: &Key, copy: &CachedReply) -> EpochStatus {
        // Read before the look: an end that comes in between makes the judgement one that is not remembered.
        let ended = self.ended.load(Ordering::Acquire);
        let turn = match subject(spec, key) {
            Some(subject) => self.epochs().epoch_status(&subject, copy.epoch),
            None if copy.epoch == Epoch::FORMER => EpochStatus::Ended(None),
            None => EpochStatus::Current,
        };
        if turn == EpochStatus::Current {
            copy.current_at.store(ended, Ordering::Relaxed);
        }
        turn
    }

    fn epochs(&self) -> MutexGuard<'_, Epochs> {
        self.epochs.lock()
    }

    /// Keeps a reply. A copy whose command was written later is never replaced by an earlier one.
    pub fn keep(&self, key: &Key, copy: CachedReply) {
        self.refusals.invalidate(key);
        self.copies.entry_by_ref(key).and_upsert_with(|known| match known {
            Some(known) if known.value().written > copy.written => known.into_value(),
            _ => copy,
        });
        self.changes.note(key);
    }

    /// Deletes a copy, such as one that its password no longer opens.
    pub fn delete(&self, key: &Key) {
        self.copies.invalidate(key);
    }

    /// Forgets all of an instance that is no longer served: copies, in memory and on disk, refusals and epochs. No command of it
    /// may be under way.
    pub fn forget(&self, instance: &str) {
        for (key, _) in self.copies.iter().filter(|(key, _)| *key.instance == *instance) {
            self.copies.invalidate(&*key);
        }
        for (key, _) in self.refusals.iter().filter(|(key, _)| *key.instance == *instance) {
            self.refusals.invalidate(&*key);
        }
        self.epochs().forget(instance);
        // The store is told of removals at the cache's own upkeep.
        self.copies.run_pending_tasks();
    }

    /// Remembers for a short while that the gateway refused exactly this, asked with the instance's key of this number.
    pub fn refuse(&self, key: Key, error: GatewayError, api_key: u64) {
        self.refusals.insert(key, (api_key, error));
        // After it, so that whoever looks for it finds it.
        let until = self.millis(Instant::now() + REFUSAL_REMEMBERED).saturating_add(1);
        self.refused_until_ms.fetch_max(until, Ordering::AcqRel);
    }

    /// The refusal remembered for exactly this key. What was refused to an earlier key of the instance may be granted to
    /// this one.
    #[must_use]
    pub fn refusal(&self, key: &Key, api_key: u64, now: Instant) -> Option<GatewayError> {
        if self.millis(now) > self.refused_until_ms.load(Ordering::Acquire) {
            return None;
        }
        self.refusals.get(key).filter(|(asked_with, _)| *asked_with == api_key).map(|(_, error)| error)
    }

    fn millis(&self, instant: Instant) -> u64 {
        whole_ms(instant.saturating_duration_since(self.made))
    }

    /// Since when copies cannot be written to disk, and why.
    #[must_use]
    pub fn store_fault(&self) -> Option<(Instant, String)> {
        self.changes.failing()
    }

    /// How many copies there are and how many bytes they take, roughly.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        // What was kept or deleted a moment ago is counted only after this.
        self.copies.run_pending_tasks();
        (self.copies.entry_count(), self.copies.weighted_size())
    }

    /// Begins with a copy of an earlier run: stale, whatever its age. False where it is too old for anything.
    pub(super) fn begin_with(&self, key: &Key, body: &Body, age: Duration) -> bool {
        let useful = self.rule(key.command).is_some_and(|rule| age <= rule.stale);
        let written = Instant::now().checked_sub(age).filter(|_| useful);
        if let Some(written) = written {
            self.copies.insert(key.clone(), CachedReply::new(body.clone(), written, Epoch::FORMER));
        }
        written.is_some()
    }
}

mod handover;

/// What ends the freshness of a key's copies; nothing, for what only ages.
fn subject(spec: &Spec, key: &Key) -> Option<Subject> {
    match (spec.invalidated_by, key.pos_id) {
        (InvalidatedBy::Updatepos, _) => Some(Subject::Catalogue(Arc::clone(&key.instance))),
        (InvalidatedBy::Payment, Some(pos_id)) => Some(Subject::Sales(Arc::clone(&key.instance), pos_id)),
        (InvalidatedBy::Nothing | InvalidatedBy::Payment, _) => None,
    }
}
