//! How long points were waited for, and how often in vain. Counted for whoever watches; decides nothing.

use std::time::Duration;

use super::queue::Class;
use crate::telemetry::meter::{Counter, Durations};

/// Waits of one class.
#[derive(Debug, Default)]
pub struct ClassWaits {
    /// From the ask to the grant or the denial.
    pub durations: Durations,
    /// Asks that were denied.
    pub denied: Counter,
}

/// Waits of one instance, by class.
#[derive(Debug, Default)]
pub struct Waits {
    payment: ClassWaits,
    caller: ClassWaits,
    refresh: ClassWaits,
    /// How often the gateway's `ratelimit` closed a window.
    pub closed: Counter,
}

impl Waits {
    pub(super) fn note(&self, class: Class<'_>, took: Duration, denied: bool) {
        let waits = match class {
            Class::Payment => &self.payment,
            Class::Caller(_) => &self.caller,
            Class::Refresh { .. } => &self.refresh,
        };
        waits.durations.note(took);
        if denied {
            waits.denied.count();
        }
    }

    /// The waits of each class.
    pub fn classes(&self) -> [(&'static str, &ClassWaits); 3] {
        [("payment", &self.payment), ("caller", &self.caller), ("refresh", &self.refresh)]
    }
}
