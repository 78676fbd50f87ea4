//! From where each token was accepted, exactly and within bounds.
//!
//! A festival's tills share an address, and one of them with an old key must not lock the others out: while an address is
//! slowed, a token that was accepted from there before is still let in. Only that very token: another one of the same
//! name, or the same one from another address, would let a guesser tell a right guess from a wrong one. The hash is keyed
//! at random in each process, so nobody outside can choose addresses that fall together.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::auth_throttle::account;

/// Pairs of token and address at most, at some 200 bytes each.
const MOST: u64 = 32_768;

/// How long a pair is kept after the token was last accepted: longer than the pauses of a festival.
const KEPT: Duration = Duration::from_hours(7 * 24);

/// How old a pair may become before an accepted request renews it, so that most requests only read.
const RENEWED_AFTER: Duration = Duration::from_hours(1);

/// What is kept of a token.
pub(super) type Digest = [u8; 32];

/// Pairs of token and address.
#[derive(Debug)]
pub(super) struct AcceptedTokens(Cache<(Digest, IpAddr), Instant>);

impl Default for AcceptedTokens {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(KEPT).build())
    }
}

impl AcceptedTokens {
    /// The token was accepted from there.
    pub(super) fn note(&self, token: Digest, address: IpAddr, now: Instant) {
        let pair = (token, account(address));
        let noted = self.0.get(&pair);
        if noted.is_none_or(|noted| now.saturating_duration_since(noted) >= RENEWED_AFTER) {
            self.0.insert(pair, now);
        }
    }

    /// Whether it was accepted from there before.
    pub(super) fn has(&self, token: Digest, address: IpAddr) -> bool {
        self.0.contains_key(&(token, account(address)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn no_other_network_and_no_other_token_is_taken_for_one_that_was_accepted() {
        let (accepted, now) = (AcceptedTokens::default(), Instant::now());
        let (token, other) = ([1; 32], [2; 32]);
        let home: IpAddr = "10.0.0.7".parse().unwrap();
        accepted.note(token, home, now);
        assert!(accepted.has(token, home) && accepted.has(token, "::ffff:10.0.0.7".parse().unwrap()));
        assert!(!accepted.has(other, home));
        let networks = (0..=u16::MAX).map(|net| IpAddr::from(Ipv4Addr::from_bits(0xc0a8_0000 | u32::from(net))));
        assert_eq!(networks.filter(|address| accepted.has(token, *address)).count(), 0);
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        accepted.note(token, v6("2001:db8::1"), now);
        assert!(accepted.has(token, v6("2001:db8::ffff")), "one network of 64 bits");
        assert!(!accepted.has(token, v6("2001:db8:0:1::1")));
    }

    #[test]
    fn however_many_addresses_there_are_memory_is_bounded() {
        let (accepted, now) = (AcceptedTokens::default(), Instant::now());
        for address in 0..u32::try_from(MOST).unwrap() * 2 {
            accepted.note([1; 32], IpAddr::from(address.to_be_bytes()), now);
        }
        accepted.0.run_pending_tasks();
        assert!(accepted.0.entry_count() <= MOST, "{}", accepted.0.entry_count());
    }
}
