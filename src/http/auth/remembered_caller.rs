//! The caller of a connection's last request: a credential that comes again on it is compared, and not hashed and looked up
//! anew.
//!
//! The credential is kept as it came, no longer than its connection, and compared in constant time. It counts only from the
//! same address, under the same configuration and until it expires, and is verified again after [`KEPT`], which also renews what is known of
//! accepted credentials (`accepted_credentials.rs`).

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use actix_web::http::header::HeaderValue;
use secrecy::{ExposeSecret, SecretSlice};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::caller::Caller;

const KEPT: Duration = Duration::from_mins(1);

/// What one connection remembers. Boxed, since most connections of listeners never remember anything.
#[derive(Debug, Default)]
pub struct RememberedCaller(RefCell<Option<Box<Remembered>>>);

#[derive(Debug)]
struct Remembered {
    /// The whole `Authorization` header.
    credential: SecretSlice<u8>,
    address: IpAddr,
    /// The number of the configuration.
    configuration: u64,
    verified: Instant,
    caller: Caller,
}

impl RememberedCaller {
    pub(super) fn remember(
        &self,
        caller: &Caller,
        credential: &HeaderValue,
        address: IpAddr,
        configuration: u64,
        verified: Instant,
    ) {
        let credential = credential.as_bytes().to_vec().into();
        let remembered = Remembered { credential, address, configuration, verified, caller: caller.clone() };
        self.0.replace(Some(Box::new(remembered)));
    }

    /// The caller, where it is the one of this credential.
    pub(super) fn recall(
        &self,
        credential: &HeaderValue,
        address: IpAddr,
        configuration: u64,
        now: Instant,
    ) -> Option<Caller> {
        let mut remembered = self.0.borrow_mut();
        let known = remembered.take_if(|known| {
            let is_over = known.caller.expires_at().is_some_and(|at| at <= now);
            is_over || known.configuration != configuration || now.saturating_duration_since(known.verified) >= KEPT
        });
        if known.is_some() {
            return None;
        }
        let known = remembered.as_ref().filter(|known| known.address == address)?;
        let is_same = known.credential.expose_secret().ct_eq(credential.as_bytes());
        bool::from(is_same).then(|| known.caller.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const TOKEN: HeaderValue = HeaderValue::from_static("Bearer s3cret");

    fn remembering(now: Instant) -> RememberedCaller {
        let remembered = RememberedCaller::default();
        remembered.remember(&Caller::anyone(), &TOKEN, HOME, 1, now);
        remembered
    }

    #[test]
    fn only_the_same_credential_from_the_same_address_under_the_same_configuration_is_known_again() {
        let now = Instant::now();
        let remembered = remembering(now);
        let knows = |token: &'static str, address, configuration, now| {
            remembered.recall(&HeaderValue::from_static(token), address, configuration, now).is_some()
        };
        assert!(knows("Bearer s3cret", HOME, 1, now));
        for other in ["Bearer s3creT", "bearer s3cret", "Bearer s3cre", "Bearer s3crets", ""] {
            assert!(!knows(other, HOME, 1, now), "{other}");
        }
        assert!(!knows("Bearer s3cret", [10, 0, 0, 1].into(), 1, now));
        assert!(knows("Bearer s3cret", HOME, 1, now), "what does not match changes nothing");
        assert!(!knows("Bearer s3cret", HOME, 2, now));
        assert!(!knows("Bearer s3cret", HOME, 1, now), "forgotten with its configuration");
    }

    #[test]
    fn a_credential_is_verified_again_after_a_while_and_not_shown_in_logs() {
        let now = Instant::now();
        let remembered = remembering(now);
        assert!(!format!("{remembered:?}").contains("s3cret"));
        assert!(remembered.recall(&TOKEN, HOME, 1, now + KEPT / 2).is_some());
        assert!(remembered.recall(&TOKEN, HOME, 1, now + KEPT).is_none());
        assert!(remembered.0.borrow().is_none());
    }
}
