//! The instances whose state is written: what they are made of, and what of it is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::broadcasts::Broadcasts;
use crate::broadcasts::relay::Relay;
use crate::budget::Ledger;
use crate::tenure::Tenure;

/// An instance while this replica owns it.
#[derive(Clone)]
pub struct Serving {
    pub name: Arc<str>,
    /// What the cache calls it: its name at the gateway.
    pub slug: Arc<str>,
    pub tenure: Tenure,
    pub ledger: Ledger,
    pub broadcasts: Broadcasts,
    pub relay: Arc<Relay>,
    /// The shards that are taken out by hand.
    pub cordoned: Arc<dyn Fn() -> BTreeSet<String> + Send + Sync>,
    /// When something last came on each of its links, as far as that is known.
    pub heard: Arc<dyn Fn() -> HashMap<u64, Instant> + Send + Sync>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Serving")
            .field("name", &self.name)
            .field("tenure", &self.tenure)
            .finish_non_exhaustive()
    }
}

/// Until when broadcasts were received at an instance, and are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Covered {
    /// As at all instances of the replica.
    #[default]
    General,
    Until(Timestamp),
}

impl Covered {
    pub(super) fn ago_ms(self) -> Option<i64> {
        match self {
            Self::General => None,
            Self::Until(until) => Some(ago_ms(until)),
        }
    }
}

/// How long ago an instant of this machine's clock was.
pub(super) fn ago_ms(at: Timestamp) -> i64 {
    i64::try_from(Timestamp::now().duration_since(at).as_millis()).unwrap_or(i64::MAX)
}

/// One of them, with what is written of it.
#[derive(Debug)]
pub struct Served {
    pub(super) serving: Serving,
    pub(super) written: Mutex<Written>,
}

#[derive(Debug, Default)]
pub(super) struct Written {
    /// The database knows that its state is of this claim.
    pub(super) has_begun: bool,
    /// The timeline on which its whole log is written; none while it is not.
    pub(super) timeline: Option<Arc<str>>,
    /// The spending and the cordons as written last; empty where there is nothing.
    pub(super) running: String,
    pub(super) covered: Covered,
    /// The database says that another owns it.
    pub(super) is_lost: bool,
}

impl Served {
    pub(super) fn new(serving: Serving, timeline: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { serving, written: Mutex::new(Written { timeline, ..Written::default() }) })
    }

    /// The epoch under which its state may be written now.
    pub(super) fn epoch(&self) -> Option<i64> {
        let may_write = self.serving.tenure.may_act() && !self.written.lock().is_lost;
        self.serving.tenure.token().filter(|_| may_write).map(|(_, epoch)| epoch)
    }

    /// Whether its log is written whole, on this timeline and for this claim.
    pub(super) fn is_whole_on(&self, timeline: &Arc<str>) -> bool {
        let written = self.written.lock();
        written.has_begun && written.timeline.as_ref() == Some(timeline)
    }

    /// Where broadcasts were received until `general` at all other instances; none where it is not known.
    pub(super) fn covered(&self, general: Timestamp) -> Option<Covered> {
        let until = self.serving.relay.logged_until(&(self.serving.heard)())?;
        Some(if until < general { Covered::Until(until) } else { Covered::General })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_name: RwLock<BTreeMap<Arc<str>, Arc<Served>>>,
    /// Of which something is to be logged.
    to_log: Mutex<BTreeSet<Arc<str>>>,
}

impl Table {
    pub(super) fn insert(&self, served: Arc<Served>) {
        self.by_name.write().insert(Arc::clone(&served.serving.name), served);
    }

    /// Removes an instance, unless another claim of it has begun since.
    pub(super) fn remove(&self, name: &str, tenure: &Tenure) {
        let mut by_name = self.by_name.write();
        if by_name.get(name).is_some_and(|served| served.serving.tenure.is(tenure)) {
            by_name.remove(name);
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Served>> {
        self.by_name.read().get(name).cloned()
    }

    /// In order of their names, as their rows are locked.
    pub(super) fn all(&self) -> Vec<Arc<Served>> {
        self.by_name.read().values().cloned().collect()
    }

    pub(super) fn by_slug(&self) -> HashMap<Arc<str>, Arc<Served>> {
        self.all().into_iter().map(|served| (Arc::clone(&served.serving.slug), served)).collect()
    }

    pub(super) fn note_to_log(&self, name: &Arc<str>) {
        self.to_log.lock().insert(Arc::clone(name));
    }

    pub(super) fn take_to_log(&self) -> Vec<Arc<Served>> {
        let names = std::mem::take(&mut *self.to_log.lock());
        names.iter().filter_map(|name| self.get(name)).collect()
    }
}
