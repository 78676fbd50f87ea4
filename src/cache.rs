//! Copies of replies: keys that cannot collide, freshness by age and by epoch, bounded in bytes.
//!
//! The forces: every command costs points, so a copy is worth keeping long after it was fresh; prices change only with
//! the broadcast `updatepos`, which ends the freshness of everything it concerns at once, so each copy carries the
//! epoch in which its command was written; and a point of sale may be guarded by a password, so the password is part of
//! the key, as a keyed hash that is worth nothing to whoever reads the disk.
//!
//! This room keeps and judges copies. When to fetch, and who waits for whom, is decided above it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache as Moka;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::wire::command::LISTTRANSACTIONS;
use crate::wire::{Body, GatewayError, Spec};

/// How long a refusal is remembered for exactly its key: long enough that a client repeating it spends nothing, short
/// enough that what was mended at the gateway works soon.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(30);

/// Refusals remembered at most; beyond it the oldest are forgotten and may cost points again.
const MAX_REFUSALS: u64 = 10_000;

/// What a copy costs beside its body: key, entry and the cache's own bookkeeping.
const OVERHEAD: usize = 512;

/// The settings of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How long a copy is fresh, unless a broadcast ends it.
    pub fresh: Duration,
    /// How long past that it may still be served, labelled stale.
    pub stale: Duration,
}

/// The settings of the cache.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most that all copies together may take, in bytes.
    pub max_size: u64,
    /// A copy younger than this answers even a request that asks for a new one.
    pub min_age: Duration,
    /// By command; a command without a rule is not cached.
    pub rules: BTreeMap<String, Rule>,
}

/// What a copy is a copy of. Compared member by member, never as a joined string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The instance's name.
    pub instance: Arc<str>,
    /// The command's name.
    pub command: Arc<str>,
    /// The point of sale, where the command is about one.
    pub pos_id: Option<i64>,
    /// Any further parameter, spelled canonically.
    pub limit: Option<u64>,
    /// The password of the point of sale as a keyed hash.
    pub password: Option<[u8; 32]>,
}

/// A reply as it was when its command was written.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The reply's `parameters`.
    pub body: Body,
    /// A strong entity tag, quoted.
    pub etag: Arc<str>,
    /// When its command was written: the copy is no newer than that.
    pub written: Instant,
    /// The epoch of its key when its command was written.
    pub epoch: Epoch,
}

/// How often the freshness of a key's copies was ended. [`Epoch::FORMER`] belongs to no run of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of copies from an earlier run: never current.
    pub const FORMER: Self = Self(0);
}

/// How a copy may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As good as asking.
    Fresh {
        /// Until it ages out, if no broadcast ends it before.
        left: Duration,
    },
    /// Older than its rule: may be served, labelled, while a new one is fetched.
    Aged {
        /// For how long it has been stale.
        by: Duration,
    },
    /// Ended by a broadcast, a payment, a hole in what could be heard, or a restart: to be replaced before it is
    /// used, and served only where no new one can be had.
    Ended {
        /// For how long it has been older than its rule; zero where it was ended before.
        by: Duration,
    },
    /// Too old for anything.
    Useless,
}

/// All instances' copies. Cheap to share.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    copies: Moka<Key, Copy>,
    refusals: Moka<Key, GatewayError>,
    password_key: [u8; 32],
    epochs: Mutex<Epochs>,
}

#[derive(Debug, Default)]
struct Epochs {
    /// Moved by `updatepos` and by every hole in what could be heard.
    catalogue: HashMap<Arc<str>, u64>,
    /// Moved by a payment at this point of sale.
    sales: HashMap<(Arc<str>, i64), u64>,
}

impl Cache {
    /// An empty cache. `password_key` must outlive a restart where copies do.
    #[must_use]
    pub fn new(config: Config, password_key: [u8; 32]) -> Self {
        let weigh = |_: &Key, copy: &Copy| u32::try_from(copy.body.as_str().len() + OVERHEAD).unwrap_or(u32::MAX);
        let copies = Moka::builder().weigher(weigh).max_capacity(config.max_size).build();
        let refusals = Moka::builder().max_capacity(MAX_REFUSALS).time_to_live(REFUSAL_REMEMBERED).build();
        Self { config, copies, refusals, password_key, epochs: Mutex::default() }
    }

    /// The rule of a command, if its replies are kept.
    #[must_use]
    pub fn rule(&self, command: &str) -> Option<Rule> {
        self.config.rules.get(command).copied().filter(|rule| !(rule.fresh + rule.stale).is_zero())
    }

    /// A copy younger than this answers even a request that asks for a new one.
    #[must_use]
    pub fn min_age(&self) -> Duration {
        self.config.min_age
    }

    /// What stands in a key for the password of a point of sale.
    #[must_use]
    pub fn password(&self, password: &str) -> [u8; 32] {
        // A key of any length is a key to HMAC.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.password_key) else { return [0; 32] };
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// The epoch that a command of this key has if it is written now.
    #[must_use]
    pub fn epoch(&self, spec: &Spec, key: &Key) -> Epoch {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let catalogue = || epochs.catalogue.get(&key.instance).copied().unwrap_or_default();
        let sales = |pos_id| epochs.sales.get(&(Arc::clone(&key.instance), pos_id)).copied().unwrap_or_default();
        Epoch(match key.pos_id {
            _ if spec.ended_by_updatepos => 1 + catalogue(),
            Some(pos_id) if spec == &LISTTRANSACTIONS => 1 + sales(pos_id),
            _ => 1,
        })
    }

    /// Ends the freshness of everything that `updatepos` concerns, from now on and for every fetch under way.
    pub fn catalogue_changed(&self, instance: &Arc<str>) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        *epochs.catalogue.entry(Arc::clone(instance)).or_default() += 1;
    }

    /// Ends the freshness of the transactions of one point of sale. Only for points of sale that the gateway knows,
    /// so that invented ones take no memory.
    pub fn sold(&self, instance: &Arc<str>, pos_id: i64) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        *epochs.sales.entry((Arc::clone(instance), pos_id)).or_default() += 1;
    }

    /// The copy of `key`, whatever its standing.
    #[must_use]
    pub fn copy(&self, key: &Key) -> Option<Copy> {
        self.copies.get(key)
    }

    /// How a copy may be used at `now`.
    #[must_use]
    pub fn standing(&self, spec: &Spec, key: &Key, copy: &Copy, now: Instant) -> Standing {
        let Some(rule) = self.rule(spec.name) else { return Standing::Useless };
        let age = now.saturating_duration_since(copy.written);
        let by = age.saturating_sub(rule.fresh);
        if by > rule.stale {
            Standing::Useless
        } else if copy.epoch != self.epoch(spec, key) {
            Standing::Ended { by }
        } else {
            match rule.fresh.checked_sub(age) {
                Some(left) if !left.is_zero() => Standing::Fresh { left },
                _ => Standing::Aged { by },
            }
        }
    }

    /// Keeps a reply. A copy whose command was written later is never replaced by an earlier one.
    pub fn keep(&self, key: Key, copy: Copy) {
        self.refusals.invalidate(&key);
        self.copies.entry(key).and_upsert_with(|known| match known {
            Some(known) if known.value().written > copy.written => known.into_value(),
            _ => copy,
        });
    }

    /// Deletes a copy, such as one that its password no longer opens.
    pub fn delete(&self, key: &Key) {
        self.copies.invalidate(key);
    }

    /// Remembers for a short while that the gateway refused exactly this.
    pub fn refuse(&self, key: Key, error: GatewayError) {
        self.refusals.insert(key, error);
    }

    /// The refusal remembered for exactly this key.
    #[must_use]
    pub fn refusal(&self, key: &Key) -> Option<GatewayError> {
        self.refusals.get(key)
    }

    /// All copies, for whoever writes them to disk.
    pub fn copies(&self) -> impl Iterator<Item = (Arc<Key>, Copy)> + '_ {
        self.copies.iter()
    }

    /// How many copies there are and how many bytes they take, roughly.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.copies.entry_count(), self.copies.weighted_size())
    }
}

impl Copy {
    /// A copy of `body`, with its entity tag.
    #[must_use]
    pub fn new(body: Body, written: Instant, epoch: Epoch) -> Self {
        let digest = Sha256::digest(body.as_str().as_bytes());
        // 128 bits of a digest are more than enough to tell two bodies of one resource apart.
        let tag = digest.iter().take(16).fold(0_u128, |tag, byte| tag << 8 | u128::from(*byte));
        Self { body, etag: Arc::from(format!("\"{tag:032x}\"")), written, epoch }
    }
}
