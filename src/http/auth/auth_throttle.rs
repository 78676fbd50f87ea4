//! Slows addresses that fail to authenticate again and again, within bounded memory.
//!
//! The bridge's own tokens cannot be guessed, but an instance's gateway key was chosen by its owner and may be short. An
//! address with more than [`FORGIVEN`] failures is blocked until they have expired, one a second. While it is blocked,
//! only a credential that was accepted from it before is let in (`accepted_credentials.rs`).
//!
//! As long as no address has failed, a request costs one atomic load.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::rate_limit::HELD_BACK;
use crate::http::client::network;
use crate::telemetry::recent::Recent;

/// Failures that an address may have at a time: a user's typing errors, or a few tills with an old key.
const FORGIVEN: u32 = 20;

/// After this long a failure expires. They expire one after the other.
const EXPIRES_AFTER: Duration = Duration::from_secs(1);

/// Addresses that are remembered. All beyond them share one entry, so that many addresses give a guesser no more tries.
const MAX_ADDRESSES: usize = 10_000;

/// Refusals a second, of all addresses together, that are sent without delay.
const UNDELAYED: NonZeroU32 = NonZeroU32::new(200).expect("it is not zero");

/// The entry of all addresses beyond [`MAX_ADDRESSES`]. No request comes from it.
const ALL_OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Failures by network.
#[derive(Debug)]
pub struct AuthThrottle {
    /// When the last of a network's failures expires.
    expiry: Mutex<HashMap<IpAddr, Instant>>,
    /// Entries of `expiry`.
    count: AtomicUsize,
    refusals: DefaultDirectRateLimiter,
    pub failures: Counter,
    /// Attempts from a blocked address.
    pub blocked: Counter,
    /// Those of them of the last minute.
    pub blocked_lately: Recent<1>,
}

impl Default for AuthThrottle {
    fn default() -> Self {
        Self {
            expiry: Mutex::default(),
            count: AtomicUsize::new(0),
            refusals: RateLimiter::direct(Quota::per_second(UNDELAYED)),
            failures: Counter::default(),
            blocked: Counter::default(),
            blocked_lately: Recent::default(),
        }
    }
}

impl AuthThrottle {
    /// How long to delay the refusal of an unauthenticated request; `None` unless there is a flood of them.
    #[must_use]
    pub fn held_back(&self) -> Option<Duration> {
        self.refusals.check().is_err().then_some(HELD_BACK)
    }

    /// For how long `address` is still blocked; `None` where it is not.
    #[must_use]
    pub fn blocked_for(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let expiry = self.expiry.lock();
        let last = expiry.get(&network(address)).or_else(|| expiry.get(&ALL_OTHERS))?;
        let left = last.saturating_duration_since(now);
        left.checked_sub(EXPIRES_AFTER * FORGIVEN).filter(|wait| !wait.is_zero())
    }

    /// Counts a failed attempt. Returns whether it is the one that blocks the address.
    pub fn failed(&self, address: IpAddr, now: Instant) -> bool {
        self.failures.inc();
        let mut expiry = self.expiry.lock();
        let mut network = network(address);
        if expiry.len() >= MAX_ADDRESSES && !expiry.contains_key(&network) {
            expiry.retain(|_, last| *last > now);
            if expiry.len() >= MAX_ADDRESSES {
                network = ALL_OTHERS;
            }
        }
        let last = expiry.entry(network).or_insert(now);
        let before = last.saturating_duration_since(now);
        *last = (*last).max(now) + EXPIRES_AFTER;
        let forgiven = EXPIRES_AFTER * FORGIVEN;
        let blocks = before <= forgiven && before + EXPIRES_AFTER > forgiven;
        self.count.store(expiry.len(), Ordering::Relaxed);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_with_too_many_failures_is_blocked_until_they_expire() {
        let (throttle, now) = (AuthThrottle::default(), Instant::now());
        let (bad, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..FORGIVEN {
            assert!(!throttle.failed(bad, now));
            assert_eq!(throttle.blocked_for(bad, now), None);
        }
        assert!(throttle.failed(bad, now), "returned once");
        assert!(!throttle.failed(bad, now));
        assert_eq!(throttle.blocked_for(bad, now), Some(EXPIRES_AFTER * 2));
        assert_eq!(throttle.blocked_for(address("::ffff:192.0.2.1"), now), Some(EXPIRES_AFTER * 2), "the same, mapped");
        assert_eq!(throttle.blocked_for(other, now), None);
        assert_eq!(throttle.blocked_for(bad, now + EXPIRES_AFTER * 2), None);
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
        assert!(throttle.count.load(Ordering::Relaxed) <= MAX_ADDRESSES + 1);
        assert!(throttle.blocked_for(address("198.51.100.1"), now).is_some(), "all others share one entry");
        throttle.failed(address("198.51.100.2"), now + EXPIRES_AFTER * 20_000);
        assert!(throttle.count.load(Ordering::Relaxed) <= 2, "expired entries are removed");
    }

    #[test]
    fn in_a_flood_of_refusals_those_beyond_so_many_a_second_are_held_back() {
        let throttle = AuthThrottle::default();
        let held: Vec<_> = (0..UNDELAYED.get() * 2).map(|_| throttle.held_back()).collect();
        assert_eq!(held.first(), Some(&None));
        assert!(held.contains(&Some(HELD_BACK)));
    }
}
