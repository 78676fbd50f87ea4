//! How many requests one caller may have in flight, and how many a second.
//!
//! The rate is a token bucket of one second's worth. That is enough here; towards the gateway it would let through twice
//! the capacity. A request costs two atomic operations and no lock. Refusals up to the caller's rate are sent at once;
//! those beyond it are a flood and are delayed.
//!
//! Payments have permits and a rate of their own, as many again, so that a service that sends too many reads can still
//! sell.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use crate::clock::RETRY_SHORTLY;
use crate::http::problem::{Problem, table};
use crate::telemetry::recent::Recent;

/// How long a refusal is delayed once there is a flood of them. A refusal costs as much as an answer from the cache, so a
/// caller that ignores refusals could take the whole machine; a connection that waits for one sends nothing. Shorter than
/// the timeout of any usual client.
pub(super) const HELD_BACK: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests at once, and as many payments besides; an answer counts until its body has ended.
    pub max_in_flight: u32,
    /// Requests a second, and as many payments besides.
    pub per_second: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Payment,
    Other,
}

impl CallerLimits {
    /// The default of a token: enough for a busy service.
    pub const TOKEN: Self = Self { max_in_flight: 64, per_second: 200 };
    /// The default of a gateway key, which all tills of a festival present.
    pub const GATEWAY_KEY: Self = Self { max_in_flight: 512, per_second: 2000 };
}

/// Counts the requests of one caller.
pub struct CallerLimiter {
    limits: CallerLimits,
    in_flight: AtomicU32,
    rate: DefaultDirectRateLimiter,
    payments_rate: DefaultDirectRateLimiter,
    refusals: DefaultDirectRateLimiter,
    refused: Counter,
    /// Those of them of the last minute.
    refused_lately: Recent<1>,
}

impl fmt::Debug for CallerLimiter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CallerLimiter({:?}, {} in flight)", self.limits, self.in_flight())
    }
}

/// A request is over the caller's limits; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    pub retry_after: Duration,
    /// How long to delay the refusal; `None` unless there is a flood.
    pub held_back: Option<Duration>,
}

impl From<Limited> for Problem {
    fn from(limited: Limited) -> Self {
        Self::new(&table::CALLER_LIMITED).retry_after(limited.retry_after)
    }
}

impl CallerLimiter {
    #[must_use]
    pub fn new(limits: CallerLimits) -> Self {
        let per_second = NonZeroU32::new(limits.per_second).unwrap_or(NonZeroU32::MIN);
        let [rate, payments_rate, refusals] = [(); 3].map(|()| RateLimiter::direct(Quota::per_second(per_second)));
        Self {
            limits,
            in_flight: AtomicU32::new(0),
            rate,
            payments_rate,
            refusals,
            refused: Counter::default(),
            refused_lately: Recent::default(),
        }
    }

    /// `before` where it has the same limits, so that a reload keeps what is in flight.
    pub(super) fn kept(limits: CallerLimits, before: Option<&Arc<Self>>) -> Arc<Self> {
        before.filter(|before| before.limits == limits).map_or_else(|| Arc::new(Self::new(limits)), Arc::clone)
    }

    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Requests refused within the last minute.
    #[must_use]
    pub fn refused_lately(&self) -> u64 {
        let [refused] = self.refused_lately.last_minute(Instant::now());
        refused
    }

    pub fn admit(self: &Arc<Self>, purpose: Purpose) -> Result<RequestPermit, Limited> {
        let CallerLimits { max_in_flight, .. } = self.limits;
        let (most, rate) = match purpose {
            Purpose::Payment => (max_in_flight.saturating_mul(2), &self.payments_rate),
            Purpose::Other => (max_in_flight, &self.rate),
        };
        // Dropped on each error below, which takes the count back.
        let permit = RequestPermit(Arc::clone(self));
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if before >= most {
            return Err(self.refuse(RETRY_SHORTLY));
        }
        let early = rate.check();
        early.map_err(|early| self.refuse(early.wait_time_from(DefaultClock::default().now())))?;
        Ok(permit)
    }

    fn refuse(&self, retry_after: Duration) -> Limited {
        self.refused.inc();
        self.refused_lately.note(Instant::now(), [true]);
        Limited { retry_after, held_back: self.refusals.check().is_err().then_some(HELD_BACK) }
    }
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
pub struct RequestPermit(Arc<CallerLimiter>);

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(max_in_flight: u32, per_second: u32) -> Arc<CallerLimiter> {
        Arc::new(CallerLimiter::new(CallerLimits { max_in_flight, per_second }))
    }

    #[test]
    fn payments_have_permits_and_a_rate_that_other_requests_cannot_take() {
        let limiter = limiter(2, 3);
        let admit = |purpose| limiter.admit(purpose);
        let reads = [(); 2].map(|()| admit(Purpose::Other).unwrap());
        assert!(admit(Purpose::Other).is_err());
        let payments = [(); 2].map(|()| admit(Purpose::Payment).unwrap());
        assert!(admit(Purpose::Payment).is_err(), "payments are limited too");
        drop(reads);
        assert!(admit(Purpose::Other).is_err(), "payments count among all that is in flight");
        drop(payments);
        assert!(admit(Purpose::Other).is_ok());
        assert!(admit(Purpose::Other).is_err(), "three in a second");
        assert!(admit(Purpose::Payment).is_ok());
    }

    #[test]
    fn requests_in_flight_are_limited_and_an_ended_one_frees_its_permit() {
        let limiter = limiter(2, 1000);
        let (one, two) = (limiter.admit(Purpose::Other), limiter.admit(Purpose::Other));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(limiter.admit(Purpose::Other).unwrap_err().retry_after, RETRY_SHORTLY);
        assert_eq!((limiter.in_flight(), limiter.refused()), (2, 1));
        drop(one);
        assert!(limiter.admit(Purpose::Other).is_ok());
        drop(two);
        assert_eq!(limiter.in_flight(), 0);
    }

    #[test]
    fn requests_a_second_are_limited_and_the_error_says_how_long_to_wait() {
        let limiter = limiter(1000, 3);
        for _ in 0..3 {
            assert!(limiter.admit(Purpose::Other).is_ok());
        }
        let wait = limiter.admit(Purpose::Other).unwrap_err().retry_after;
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(334), "{wait:?}");
        assert_eq!(limiter.in_flight(), 0, "a refused request is not in flight");
    }

    #[test]
    fn refusals_are_delayed_only_once_there_is_a_flood_of_them() {
        let limiter = limiter(1000, 3);
        let held: Vec<_> =
            (0..20).filter_map(|_| limiter.admit(Purpose::Other).err()).map(|limited| limited.held_back).collect();
        assert_eq!(held[..3], [None; 3]);
        assert_eq!(held.last(), Some(&Some(HELD_BACK)));
    }
}
