//! Which credential was accepted from which network, within bounded memory.
//!
//! The tills of a festival share an address, and one of them with an old key must not block the others. So while an
//! address is blocked, a credential that was accepted from it before is still let in. Only that very credential: if
//! another one of the same caller were let in, or the same one from elsewhere, a guesser could tell a right guess from a
//! wrong one. The hash is keyed at random in each process, so an attacker cannot choose addresses that collide.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::caller::Digest;
use crate::http::client::network;

/// Entries, of some 200 bytes each.
const CAPACITY: u64 = 32_768;

/// How long an entry is kept: longer than the breaks within a festival.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// An entry older than this is renewed when the credential is accepted again. Younger ones are only read.
const RENEWED_AFTER: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(super) struct AcceptedCredentials(Cache<(Digest, IpAddr), Instant>);

impl Default for AcceptedCredentials {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_live(KEPT).build())
    }
}

impl AcceptedCredentials {
    /// Remembers that the credential was accepted from `address`.
    pub(super) fn insert(&self, credential: Digest, address: IpAddr, now: Instant) {
        let key = (credential, network(address));
        let inserted = self.0.get(&key);
        if inserted.is_none_or(|inserted| now.saturating_duration_since(inserted) >= RENEWED_AFTER) {
            self.0.insert(key, now);
        }
    }

    pub(super) fn contains(&self, credential: Digest, address: IpAddr) -> bool {
        self.0.contains_key(&(credential, network(address)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn no_other_network_and_no_other_token_is_taken_for_one_that_was_accepted() {
        let (accepted, now) = (AcceptedCredentials::default(), Instant::now());
        let (token, other) = ([1; 32], [2; 32]);
        let home: IpAddr = "10.0.0.7".parse().unwrap();
        accepted.insert(token, home, now);
        assert!(accepted.contains(token, home) && accepted.contains(token, "::ffff:10.0.0.7".parse().unwrap()));
        assert!(!accepted.contains(other, home));
        let networks = (0..=u16::MAX).map(|net| IpAddr::from(Ipv4Addr::from_bits(0xc0a8_0000 | u32::from(net))));
        assert_eq!(networks.filter(|address| accepted.contains(token, *address)).count(), 0);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        accepted.insert(token, v6("2001:db8::1"), now);
        assert!(accepted.contains(token, v6("2001:db8::ffff")), "one network of 64 bits");
        assert!(!accepted.contains(token, v6("2001:db8:0:1::1")));
    }

    #[test]
    fn however_many_addresses_there_are_memory_is_bounded() {
        let (accepted, now) = (AcceptedCredentials::default(), Instant::now());
        for address in 0..u32::try_from(CAPACITY).unwrap() * 2 {
            accepted.insert([1; 32], IpAddr::from(address.to_be_bytes()), now);
        }
        accepted.0.run_pending_tasks();
        assert!(accepted.0.entry_count() <= CAPACITY, "{}", accepted.0.entry_count());
    }
}
