//! The verifier of JWTs (RFC 7519) that an issuer signed.
//!
//! - `claims.rs` (pure) judges what a token says once its signature is good, `key_set.rs` (pure) reads the issuer's keys.
//! - `key_store.rs` has the keys in force and renews them; `fetch.rs` gets them. While they cannot be fetched, those that are
//!   known stay in force.
//! - `signature.rs` verifies. The algorithm is the one of the key, whatever the token says, so neither `none` nor a public key
//!   taken for a secret passes.
//!
//! A token's name is `ISSUER|NAME`. A caller is remembered no longer than its token is valid, and its long connections end then.

mod callers;
mod claims;
mod config;
mod fetch;
mod key_set;
pub mod key_store;
mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::time::Instant;

pub use claims::SEPARATOR;
pub use config::{Claim, JwtConfig, KeySource, SignatureAlgorithm};

use super::caller::{Caller, Expiry};
use super::verifier::{Credential, Rejection, Verifier};
use crate::clock::since_1970;
use callers::Callers;
use key_set::Key;
#[cfg(test)]
use key_set::KeySet;
use key_store::KeyStore;

const MALFORMED: Rejection = Rejection::guess("The token is no JWT that could be read.");
const BAD_SIGNATURE: Rejection = Rejection::guess("The signature of the token is not valid.");
const UNKNOWN_KEY: Rejection = Rejection::guess("The token is signed by a key that the issuer does not list.");
/// Whoever has a good token is no guesser.
const NO_KEYS: Rejection = Rejection::proven("The keys of the issuer are not known yet.");
const WRONG_ALGORITHM: Rejection = Rejection::guess("The token names another algorithm than that of its key.");

/// The longest that a caller is known for; a token that is valid for longer is verified again then, on a new connection.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// Verifies the JWTs of one issuer.
pub(super) struct JwtVerifier {
    config: Arc<JwtConfig>,
    keys: Arc<KeyStore>,
    callers: Callers,
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JwtVerifier({})", self.config.issuer)
    }
}

/// The header of a token.
struct Named {
    key: Option<String>,
    algorithm: jsonwebtoken::Algorithm,
}

impl JwtVerifier {
    pub(super) fn new(config: JwtConfig, keys: Arc<KeyStore>) -> Self {
        signature::use_ring();
        let callers = Callers::of(config.limits);
        Self { config: Arc::new(config), keys, callers }
    }

    /// The same over what an earlier one knew of its callers.
    pub(super) fn keeping(self, before: &Self) -> Self {
        if before.config.limits == self.config.limits { Self { callers: before.callers.clone(), ..self } } else { self }
    }

    pub(super) fn keys(&self) -> &Arc<KeyStore> {
        &self.keys
    }

    pub(super) fn config(&self) -> &Arc<JwtConfig> {
        &self.config
    }

    /// Whether a token names a key that is not known, so that the issuer may have new ones.
    pub(super) fn lacks_key_of(&self, token: &str) -> bool {
        is_like_a_jwt(token)
            && header_of(token).is_some_and(|named| self.keys.current().find(named.key.as_deref()).is_none())
    }

    fn claims(&self, token: &str) -> Result<(Map<String, Value>, Key), Rejection> {
        let named = header_of(token).ok_or(MALFORMED)?;
        let keys = self.keys.current();
        if keys.count() == 0 {
            return Err(NO_KEYS);
        }
        let Some(key) = keys.find(named.key.as_deref()) else {
            // Known the next time, if the issuer has it. Who can wait for that has done so (`Auth::keys_wanted`).
            drop(self.keys.want());
            return Err(UNKNOWN_KEY);
        };
        let algorithm = signature::algorithm(key.algorithm);
        if named.algorithm != algorithm {
            return Err(WRONG_ALGORITHM);
        }
        let mut validation = Validation::new(algorithm);
        // `claims::judge` does that, with the leeway and the clock of the bridge.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let decoded = decode::<Map<String, Value>>(token, &key.verifying, &validation).map_err(|_| BAD_SIGNATURE)?;
        Ok((decoded.claims, key.clone()))
    }
}

/// The header of a token, where it names an algorithm that there is: `none` is no algorithm.
fn header_of(token: &str) -> Option<Named> {
    let header = decode_header(token).ok()?;
    Some(Named { key: header.kid, algorithm: header.alg })
}

/// Whether a credential has the form of a signed JWT: three parts in Base64, of which the first is a JSON object. A gateway key
/// can be any text, but none has that form by accident.
fn is_like_a_jwt(token: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    token.starts_with("eyJ") && token.bytes().filter(|byte| *byte == b'.').count() == 2 && token.bytes().all(is_base64)
}

impl Verifier for Arc<JwtVerifier> {
    fn recognizes(&self, credential: &Credential<'_>) -> bool {
        credential.is_bearer() && is_like_a_jwt(credential.value())
    }

    fn verify(&self, credential: &Credential<'_>) -> Result<Caller, Rejection> {
        let (claims, key) = self.claims(credential.value())?;
        let proven = claims::judge(&claims, &self.config, since_1970()).map_err(Rejection::proven)?;
        let limiter = self.callers.limiter(&proven.name);
        let caller = Caller::new(&proven.name, proven.instances, proven.scopes, Some(limiter));
        let expiry = Expiry {
            at: Instant::now() + proven.valid_for.min(LONGEST),
            config: Arc::clone(&self.config),
            key: key.thumbprint,
        };
        Ok(caller.until(expiry))
    }

    fn recheck(&self, caller: &Caller) -> Option<Caller> {
        let expiry = caller.expiry()?;
        let is_in_force = *expiry.config == *self.config && self.keys.current().has(&expiry.key);
        (is_in_force && expiry.at > Instant::now()).then(|| caller.clone())
    }

    /// None is known beforehand.
    fn callers(&self) -> Vec<Caller> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
