//! How many subscriptions may be open: of all instances together, and of one token at one instance.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many subscriptions may be open, of all instances together. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct SubscriberLimit {
    taken: Arc<AtomicUsize>,
    most: usize,
    /// The most that one token may have at one instance.
    pub(super) each: usize,
}

impl SubscriberLimit {
    /// `most` in all, and `each` of one token at one instance.
    #[must_use]
    pub fn new(most: usize, each: usize) -> Self {
        Self { taken: Arc::default(), most, each }
    }

    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Option<SubscriberPermit> {
        let one_more = |taken: usize| (taken < self.most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| SubscriberPermit(Arc::clone(&self.taken)))
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct SubscriberPermit(Arc<AtomicUsize>);

impl Drop for SubscriberPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
