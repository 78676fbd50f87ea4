//! Addresses that failed to authenticate: how often each may try on, within bounded memory.
//!
//! Tokens of the bridge's own making cannot be guessed, but an instance's key was chosen by somebody else and may be
//! short. So an address that fails again and again is no longer listened to for a while; only a token that was accepted
//! from there before is let in all the same (`accepted_tokens.rs`).
//!
//! A bridge that nobody fails at pays one atomic load a request for this.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::rate_limit::HELD_BACK;
use crate::telemetry::meter::Counter;

/// Failures in a row that an address is forgiven: somebody who mistypes, or a few tills with an old key.
const FORGIVEN: u32 = 20;

/// How long each failure counts.
const COUNTS_FOR: Duration = Duration::from_secs(1);

/// Addresses remembered at most. All beyond it share one account, so that whoever has many addresses gains nothing.
const MAX_ADDRESSES: usize = 10_000;

/// Refusals of strangers a second that are told at once, of all addresses together.
const TOLD_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).expect("it is not zero");

/// Who failed, and until when all of its failures are paid for.
#[derive(Debug)]
pub struct AuthThrottle {
    paid_by: Mutex<HashMap<IpAddr, Instant>>,
    known: AtomicUsize,
    refusals: DefaultDirectRateLimiter,
    /// Attempts that failed.
    pub failures: Counter,
    /// Attempts that were not listened to.
    pub blocked: Counter,
}

impl Default for AuthThrottle {
    fn default() -> Self {
        Self {
            paid_by: Mutex::default(),
            known: AtomicUsize::new(0),
            refusals: RateLimiter::direct(Quota::per_second(TOLD_AT_ONCE)),
            failures: Counter::default(),
            blocked: Counter::default(),
        }
    }
}

impl AuthThrottle {
    /// How long a stranger's refusal is held back; nothing as long as there is no flood of them.
    #[must_use]
    pub fn held_back(&self) -> Option<Duration> {
        self.refusals.check().is_err().then_some(HELD_BACK)
    }

    /// For how long `address` is not listened to; `None` where it is.
    #[must_use]
    pub fn blocked_for(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        if self.known.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let paid_by = self.paid_by.lock().unwrap_or_else(PoisonError::into_inner);
        let account = paid_by.get(&account(address)).or_else(|| paid_by.get(&EVERYBODY_ELSE))?;
        let debt = account.saturating_duration_since(now);
        debt.checked_sub(COUNTS_FOR * FORGIVEN).filter(|wait| !wait.is_zero())
    }

    /// An attempt from `address` failed. Says whether it is the first one after which it is not listened to.
    pub fn failed(&self, address: IpAddr, now: Instant) -> bool {
        self.failures.count();
        let mut paid_by = self.paid_by.lock().unwrap_or_else(PoisonError::into_inner);
        let mut account = account(address);
        if paid_by.len() >= MAX_ADDRESSES && !paid_by.contains_key(&account) {
            paid_by.retain(|_, paid_by| *paid_by > now);
            if paid_by.len() >= MAX_ADDRESSES {
                account = EVERYBODY_ELSE;
            }
        }
        let entry = paid_by.entry(account).or_insert(now);
        let before = entry.saturating_duration_since(now);
        *entry = (*entry).max(now) + COUNTS_FOR;
        let forgiven = COUNTS_FOR * FORGIVEN;
        let crossed = before <= forgiven && before + COUNTS_FOR > forgiven;
        self.known.store(paid_by.len(), Ordering::Relaxed);
        crossed
    }
}

/// The account of all addresses beyond [`MAX_ADDRESSES`]; nobody calls from it.
const EVERYBODY_ELSE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Whoever has one IPv6 address has the whole network of 64 bits.
pub(super) fn account(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_fails_on_is_not_listened_to_until_its_failures_are_paid_for() {
        let (throttle, now) = (AuthThrottle::default(), Instant::now());
        let (bad, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..FORGIVEN {
            assert!(!throttle.failed(bad, now));
            assert_eq!(throttle.blocked_for(bad, now), None);
        }
        assert!(throttle.failed(bad, now), "told once");
        assert!(!throttle.failed(bad, now));
        assert_eq!(throttle.blocked_for(bad, now), Some(COUNTS_FOR * 2));
        assert_eq!(throttle.blocked_for(address("::ffff:192.0.2.1"), now), Some(COUNTS_FOR * 2), "the same, mapped");
        assert_eq!(throttle.blocked_for(other, now), None);
        assert_eq!(throttle.blocked_for(bad, now + COUNTS_FOR * 2), None);
    }

    #[test]
    fn a_network_of_64_bits_is_one_address_and_memory_is_bounded() {
        let (throttle, now) = (AuthThrottle::default(), Instant::now());
        for host in 0..=FORGIVEN {
            throttle.failed(address(&format!("2001:db8::{host:x}")), now);
        }
        assert!(throttle.blocked_for(address("2001:db8::ffff"), now).is_some());
        for net in 0..20_000_u32 {
            throttle.failed(IpAddr::from(net.to_be_bytes()), now);
        }
        assert!(throttle.known.load(Ordering::Relaxed) <= MAX_ADDRESSES + 1);
        assert!(throttle.blocked_for(address("198.51.100.1"), now).is_some(), "everybody else shares one account");
        throttle.failed(bad_later(), now + COUNTS_FOR * 20_000);
        assert!(throttle.known.load(Ordering::Relaxed) <= 2, "what is paid for is forgotten");
    }

    #[test]
    fn in_a_flood_of_refusals_those_beyond_so_many_a_second_are_held_back() {
        let throttle = AuthThrottle::default();
        let held: Vec<_> = (0..TOLD_AT_ONCE.get() * 2).map(|_| throttle.held_back()).collect();
        assert_eq!(held.first(), Some(&None));
        assert!(held.contains(&Some(HELD_BACK)));
    }

    fn bad_later() -> IpAddr {
        address("198.51.100.2")
    }
}
