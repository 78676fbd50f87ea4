//! The address that a request counts as, through the proxies that the operator trusts.
//!
//! Any client can write `X-Forwarded-For`. Its entries are read from the end, each one only if the next was written by a
//! trusted proxy.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;

/// Reads an address, or a network in CIDR notation.
#[must_use]
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// What an address counts as where addresses are limited. Whoever has one IPv6 address has its network of 64 bits.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// How often the log may say that a proxy is not trusted.
const LOGGED_EVERY: Duration = Duration::from_mins(10);

/// Logs that a proxy is not trusted. Rarely, since any client can send the header.
#[derive(Debug)]
pub struct Untrusted(DefaultDirectRateLimiter);

impl Default for Untrusted {
    fn default() -> Self {
        Self(RateLimiter::direct(Quota::with_period(LOGGED_EVERY).unwrap_or(Quota::per_hour(NonZeroU32::MIN))))
    }
}

impl Untrusted {
    /// Logs if `peer` forwards an address and is not trusted.
    pub fn check(&self, peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) {
        if headers.contains_key(X_FORWARDED_FOR) && !is_trusted(peer, trusted) && self.0.check().is_ok() {
            tracing::warn!(
                address = %peer.to_canonical(),
                "X-Forwarded-For comes from an address that is not in server.trusted_proxies, and is ignored: all callers \
                 behind this proxy count as one address"
            );
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address.to_canonical()))
}

/// The address of the client of a request that came from `peer` with these headers.
#[must_use]
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer.to_canonical();
    if !is_trusted(address, trusted) {
        return address;
    }
    let lines: Vec<&str> = headers.get_all(X_FORWARDED_FOR).filter_map(|line| line.to_str().ok()).collect();
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // Not written by a trusted proxy, so what stands before it is not trusted either.
        let Some(forwarded) = parse(entry.trim()) else { break };
        address = forwarded;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    address
}

/// An address; some proxies write brackets or a port.
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
        let trusted = ["10.0.0.0/8", "::1"].map(|text| parse_network(text).unwrap());
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_addresses_are_taken_only_from_trusted_proxies_and_from_the_end() {
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
        let network = parse_network;
        assert!(network("0.0.0.0/0").unwrap().contains(&"192.0.2.1".parse::<IpAddr>().unwrap()));
        assert!(!network("0.0.0.0/0").unwrap().contains(&"::2".parse::<IpAddr>().unwrap()));
        assert!(network("2001:db8::/32").unwrap().contains(&"2001:db8:1::1".parse::<IpAddr>().unwrap()));
        assert!(network("10.1.1.1/8").unwrap().contains(&"10.9.9.9".parse::<IpAddr>().unwrap()));
        assert!(network("192.0.2.1").unwrap().contains(&"192.0.2.1".parse::<IpAddr>().unwrap()));
        assert!(!network("192.0.2.0/31").unwrap().contains(&"192.0.2.2".parse::<IpAddr>().unwrap()));
        for wrong in ["", "x", "10.0.0.0/33", "10.0.0.0/", "::/129"] {
            assert!(network(wrong).is_none(), "{wrong}");
        }
    }
}
