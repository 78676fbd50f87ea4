//! The limits of each caller who presented a JWT: in memory for as long as it goes on calling, and bounded, since an issuer may
//! have any number of them.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::http::auth::rate_limit::{CallerLimiter, CallerLimits};

/// Callers at once, of some hundred bytes each. Beyond it those that call least are counted anew.
const CAPACITY: u64 = 16_384;

/// Longer than a request may take, so that what is in flight is not forgotten.
const KEPT: Duration = Duration::from_mins(10);

#[derive(Debug, Clone)]
pub(super) struct Callers {
    limits: CallerLimits,
    known: Cache<String, Arc<CallerLimiter>>,
}

impl Callers {
    pub(super) fn of(limits: CallerLimits) -> Self {
        Self { limits, known: Cache::builder().max_capacity(CAPACITY).time_to_idle(KEPT).build() }
    }

    /// The limiter of the caller of this name.
    pub(super) fn limiter(&self, name: &str) -> Arc<CallerLimiter> {
        self.known.get_with_by_ref(name, || Arc::new(CallerLimiter::new(self.limits)))
    }
}
