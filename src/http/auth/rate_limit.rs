//! What one caller may have at once and in a second.
//!
//! The rate is a token bucket of one second's worth: enough for callers, and never used towards the gateway, where it
//! would let through twice the capacity. Counting costs two atomic operations a request and no lock. As many refusals a
//! second as there may be requests are told at once; those beyond are a flood, and are held back.
//!
//! Payments have as many places and as many a second again, which nothing else can take: a service that asks too much
//! still sells.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::clock::RETRY_SHORTLY;
use crate::http::problem::{Problem, table};
use crate::telemetry::meter::Counter;

/// How long a flood's refusals are held back. Refusing costs as much as answering from a copy, so a caller who takes no
/// notice would have the machine for itself; a connection that waits for its refusal asks nothing. Well within any
/// caller's patience.
pub(super) const HELD_BACK: Duration = Duration::from_secs(5);

/// The most that a caller may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests at once, and as many payments besides; an answer counts until its body has ended.
    pub max_in_flight: u32,
    /// Requests a second, and as many payments besides.
    pub per_second: u32,
}

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A payment.
    Payment,
    /// Anything else.
    Other,
}

impl CallerLimits {
    /// Of a token that says nothing else: a busy service, not a flood.
    pub const TOKEN: Self = Self { max_in_flight: 64, per_second: 200 };
    /// Of those who present an instance's own key, all of them together: every till of a festival.
    pub const GATEWAY_KEY: Self = Self { max_in_flight: 512, per_second: 2000 };
}

/// What one caller has in flight, and whether it may have more.
pub struct CallerLimiter {
    limits: CallerLimits,
    in_flight: AtomicU32,
    rate: DefaultDirectRateLimiter,
    payments_rate: DefaultDirectRateLimiter,
    refusals: DefaultDirectRateLimiter,
    refused: Counter,
}

impl fmt::Debug for CallerLimiter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CallerLimiter({:?}, {} in flight)", self.limits, self.in_flight())
    }
}

/// A caller sends too much; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// When it may ask again.
    pub retry_after: Duration,
    /// How long the refusal itself is held back; nothing for one who does not flood.
    pub held_back: Option<Duration>,
}

impl From<Limited> for Problem {
    fn from(limited: Limited) -> Self {
        Self::new(&table::CALLER_LIMITED).retry_after(limited.retry_after)
    }
}

impl CallerLimiter {
    /// All of `limits` to be had.
    #[must_use]
    pub fn new(limits: CallerLimits) -> Self {
        let per_second = NonZeroU32::new(limits.per_second).unwrap_or(NonZeroU32::MIN);
        let [rate, payments_rate, refusals] = [(); 3].map(|()| RateLimiter::direct(Quota::per_second(per_second)));
        Self { limits, in_flight: AtomicU32::new(0), rate, payments_rate, refusals, refused: Counter::default() }
    }

    /// What it was made of.
    #[must_use]
    pub fn limits(&self) -> CallerLimits {
        self.limits
    }

    /// How many requests are in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How many requests were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// A place for one request, or when to come back for one.
    pub fn admit(self: &Arc<Self>, purpose: Purpose) -> Result<RequestPermit, Limited> {
        let CallerLimits { max_in_flight, .. } = self.limits;
        let (places, rate) = match purpose {
            Purpose::Payment => (max_in_flight.saturating_mul(2), &self.payments_rate),
            Purpose::Other => (max_in_flight, &self.rate),
        };
        let place = RequestPermit(Arc::clone(self));
        // The place exists from here on, and its end takes the number back.
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if before >= places {
            return Err(self.refuse(RETRY_SHORTLY));
        }
        let early = rate.check();
        early.map_err(|early| self.refuse(early.wait_time_from(DefaultClock::default().now())))?;
        Ok(place)
    }

    fn refuse(&self, retry_after: Duration) -> Limited {
        self.refused.count();
        Limited { retry_after, held_back: self.refusals.check().is_err().then_some(HELD_BACK) }
    }
}

/// One request in flight, until it is dropped.
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
    fn nothing_else_takes_the_places_of_payments_or_their_turns() {
        let limiter = limiter(2, 3);
        let admit = |purpose| limiter.admit(purpose);
        let reads = [(); 2].map(|()| admit(Purpose::Other).unwrap());
        assert!(admit(Purpose::Other).is_err());
        let payments = [(); 2].map(|()| admit(Purpose::Payment).unwrap());
        assert!(admit(Purpose::Payment).is_err(), "there is an end of them too");
        drop(reads);
        assert!(admit(Purpose::Other).is_err(), "payments count among all that is in flight");
        drop(payments);
        assert!(admit(Purpose::Other).is_ok());
        assert!(admit(Purpose::Other).is_err(), "three in a second");
        assert!(admit(Purpose::Payment).is_ok());
    }

    #[test]
    fn no_more_are_in_flight_than_may_be_and_a_place_left_is_a_place_free() {
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
    fn no_more_come_in_a_second_than_may_and_the_wait_is_told() {
        let limiter = limiter(1000, 3);
        for _ in 0..3 {
            assert!(limiter.admit(Purpose::Other).is_ok());
        }
        let wait = limiter.admit(Purpose::Other).unwrap_err().retry_after;
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(334), "{wait:?}");
        assert_eq!(limiter.in_flight(), 0, "a refusal holds no place");
    }

    #[test]
    fn refusals_are_told_at_once_until_they_are_a_flood() {
        let limiter = limiter(1000, 3);
        let held: Vec<_> =
            (0..20).filter_map(|_| limiter.admit(Purpose::Other).err()).map(|limited| limited.held_back).collect();
        assert_eq!(held[..3], [None; 3]);
        assert_eq!(held.last(), Some(&Some(HELD_BACK)));
    }
}
