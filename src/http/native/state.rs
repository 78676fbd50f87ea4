//! What all native connections share.

use std::sync::Arc;

use super::anonymous_limit::AnonymousLimit;
use super::config::NativeConfig;
use crate::broadcasts::Native;

#[derive(Debug)]
pub struct NativeState {
    pub(super) anonymous_limit: Arc<AnonymousLimit>,
    /// Held by each connection, and once here.
    open: Arc<()>,
}

impl NativeState {
    #[must_use]
    pub fn new(config: &NativeConfig) -> Self {
        let limits = &config.limits;
        let patience = match config.hearing {
            Native::AfterKey => Some(limits.anonymous_grace),
            Native::Open => None,
        };
        Self { anonymous_limit: Arc::new(AnonymousLimit::new(limits.anonymous, patience)), open: Arc::new(()) }
    }

    /// Counts a connection until it is dropped.
    pub(super) fn count_one(&self) -> Arc<()> {
        Arc::clone(&self.open)
    }

    /// How many connections are open: those that have not authenticated, and the others.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let (all, anonymous) = (Arc::strong_count(&self.open) - 1, self.anonymous_limit.count());
        // The two counts are of different moments.
        (anonymous, all.saturating_sub(anonymous))
    }
}
