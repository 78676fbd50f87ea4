//! The address a request came from, through the proxies that the operator trusts.
//!
//! Anybody can write `X-Forwarded-For`; it is believed only as far as each of its entries was written by a proxy that
//! is trusted, read from the end.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A network of trusted proxies: one address, or an address and how many of its bits matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse().map_err(|_| ()))?;
        if prefix > bits { Err(()) } else { Ok(Self { address, prefix }) }
    }
}

impl Network {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => u128::from(own.to_bits() ^ other.to_bits()) << 96,
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= self.prefix
    }
}

/// How often a proxy that is not trusted is told of: often enough to be found in a log that is looked at.
const TOLD_EVERY: Duration = Duration::from_mins(10);

/// Tells of proxies that forward addresses and are not trusted, now and then. Anybody can send the header, so the log must
/// not grow with each.
#[derive(Debug)]
pub struct Untrusted(DefaultDirectRateLimiter);

impl Default for Untrusted {
    fn default() -> Self {
        Self(RateLimiter::direct(Quota::with_period(TOLD_EVERY).unwrap_or(Quota::per_hour(NonZeroU32::MIN))))
    }
}

impl Untrusted {
    /// Says so where `peer` forwards an address and is not trusted.
    pub fn look(&self, peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) {
        if headers.contains_key(X_FORWARDED_FOR) && !is_trusted(peer, trusted) && self.0.check().is_ok() {
            tracing::warn!(
                address = %peer.to_canonical(),
                "X-Forwarded-For comes from an address that is not in server.trusted_proxies, and is not believed: a \
                 proxy's callers then count as one address"
            );
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Whom to hold to account for a request that came from `peer` with these headers.
#[must_use]
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let mut address = peer.to_canonical();
    if !is_trusted(address, trusted) {
        return address;
    }
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).filter_map(|line| line.to_str().ok()).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // What cannot be read was not written by a proxy of ours: the last that could be is held to account.
        let Some(forwarded) = parse(entry.trim()) else { break };
        address = forwarded;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    address
}

/// An address, in brackets or with a port as some proxies write it.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(entry);
    let parsed = bare.parse().ok().or_else(|| bare.rsplit_once(':')?.0.parse().ok().filter(IpAddr::is_ipv4));
    parsed.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted = ["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap());
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarding_is_believed_only_from_trusted_proxies_and_from_the_end() {
        assert_eq!(seen("192.0.2.1", &["198.51.100.1"]), "192.0.2.1", "nobody's proxy");
        assert_eq!(seen("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(seen("10.1.1.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(seen("10.1.1.1", &["6.6.6.6, 198.51.100.1, 10.2.2.2"]), "198.51.100.1", "invented before it");
        assert_eq!(seen("10.1.1.1", &["6.6.6.6", "198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(seen("::ffff:10.1.1.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(seen("::1", &["nonsense"]), "::1");
        assert_eq!(seen("10.1.1.1", &["198.51.100.1, nonsense"]), "10.1.1.1");
    }

    #[test]
    fn a_network_is_an_address_or_a_prefix() {
        let network = |text: &str| text.parse::<Network>();
        assert!(network("0.0.0.0/0").unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(!network("0.0.0.0/0").unwrap().contains("::2".parse().unwrap()));
        assert!(network("2001:db8::/32").unwrap().contains("2001:db8:1::1".parse().unwrap()));
        assert!(network("192.0.2.1").unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(!network("192.0.2.0/31").unwrap().contains("192.0.2.2".parse().unwrap()));
        for wrong in ["", "x", "10.0.0.0/33", "10.0.0.0/", "::/129"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
