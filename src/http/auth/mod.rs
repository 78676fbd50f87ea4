//! Who calls: from a token to a caller with a name, instances and scopes.
//!
//! Tokens are kept and compared only as SHA-256, in constant time and against all of them, so that neither a dump nor
//! the clock gives one away. An instance's own gateway key may serve as a token (tills know nothing else); it is kept
//! the same way. A refusal never says whether an instance exists. An address that guesses is slowed ([`auth_throttle`]), and a
//! caller that floods is limited ([`rate_limit`]).

mod accepted_tokens;
pub mod auth_throttle;
mod authorization;
mod caller;
pub mod local;
pub mod rate_limit;
pub mod request;
mod token_store;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use arc_swap::ArcSwap;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use accepted_tokens::AcceptedTokens;
use auth_throttle::AuthThrottle;
pub use authorization::Authorization;
pub use caller::{ANYONE, Caller, EVERY_INSTANCE, GATEWAY_KEY, Scope};
pub use rate_limit::{CallerLimiter, CallerLimits, Limited, Purpose, RequestPermit};
use token_store::{TokenStore, digest};

use super::problem::{Problem, table};

/// Whether tokens are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every caller shows a token.
    #[default]
    Tokens,
    /// Nobody is asked; only this machine may call ([`local`]).
    None,
}

/// One configured token. Its name is its key in [`Config::tokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the tokens that go by this name; several while one replaces another.
    pub sha256: Vec<[u8; 32]>,
    /// The instances it may reach; [`EVERY_INSTANCE`] stands for all there are.
    pub instances: Vec<String>,
    /// What it may do there.
    pub scopes: BTreeSet<Scope>,
    /// The most requests at once.
    pub max_in_flight: u32,
    /// The most requests a second.
    pub per_second: u32,
}

/// The room's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether tokens are asked for.
    pub mode: Mode,
    /// The tokens by name.
    pub tokens: BTreeMap<String, Token>,
    /// The limits of those who present an instance's own gateway key, of all together.
    pub gateway_key: CallerLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Mode::default(), tokens: BTreeMap::new(), gateway_key: CallerLimits::GATEWAY_KEY }
    }
}

impl Config {
    /// Every reason why callers could not be told apart with these settings, or nobody could call.
    #[must_use]
    pub fn refusals(&self, gateway_keys: &BTreeMap<String, SecretString>) -> Vec<AuthConfigError> {
        TokenStore::new(self, gateway_keys, None).err().unwrap_or_default()
    }
}

/// Why a configuration of callers is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthConfigError {
    /// A start that could serve nobody is a mistake.
    #[error("nobody can call: there is neither a token nor an instance whose gateway key is accepted")]
    NoCaller,
    /// The bridge uses this name itself.
    #[error("`{0}` is a name the bridge uses itself")]
    ReservedName(String),
    /// It cannot be told which name a caller goes by, and payments belong to the name.
    #[error("tokens `{0}` and `{1}` have the same SHA-256")]
    SharedDigest(String, String),
}

/// Knows the callers. What it knows can be replaced while it is in use.
#[derive(Debug)]
pub struct Auth {
    known: ArcSwap<TokenStore>,
    throttle: AuthThrottle,
    accepted: AcceptedTokens,
    /// How often what is known was replaced.
    reloads: watch::Sender<u64>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// It is not known here.
    Unknown,
    /// Too many from this address were not known, and this one was never accepted from there.
    Throttled {
        /// When the address is listened to again.
        retry_after: Duration,
    },
}

impl From<AuthError> for Problem {
    fn from(stranger: AuthError) -> Self {
        match stranger {
            AuthError::Unknown => {
                unauthenticated("Bearer error=\"invalid_token\"", "The request holds no token that is known here.")
            }
            AuthError::Throttled { retry_after } => Self::new(&table::CALLER_LIMITED)
                .detail("Too many tokens that are not known here came from this address. This one was not looked at.")
                .retry_after(retry_after),
        }
    }
}

impl Auth {
    /// Callers by their tokens, and by the gateway keys of those instances that accept theirs.
    pub fn new(config: &Config, gateway_keys: &BTreeMap<String, SecretString>) -> Result<Self, Vec<AuthConfigError>> {
        let known = ArcSwap::from_pointee(TokenStore::new(config, gateway_keys, None)?);
        let (throttle, accepted, reloads) = (AuthThrottle::default(), AcceptedTokens::default(), watch::Sender::new(0));
        Ok(Self { known, throttle, accepted, reloads })
    }

    /// Takes a new configuration into force, or says what is wrong with it and stays as it is. Whoever keeps its name
    /// keeps what it has in flight.
    pub fn reload(
        &self,
        config: &Config,
        gateway_keys: &BTreeMap<String, SecretString>,
    ) -> Result<(), Vec<AuthConfigError>> {
        let known = TokenStore::new(config, gateway_keys, Some(&self.known.load()))?;
        self.known.store(Arc::new(known));
        self.reloads.send_modify(|reloads| *reloads += 1);
        Ok(())
    }

    /// Tells when what is known was replaced.
    #[must_use]
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Whether a caller's token still opens `instance`, with `scope` if one is named.
    #[must_use]
    pub fn still_permits(&self, caller: &Caller, instance: &str, scope: Option<Scope>) -> bool {
        let known = self.known.load();
        let may = |caller: &Caller| caller.may_reach(instance) && scope.is_none_or(|scope| caller.has(scope));
        known.mode == Mode::None || caller.token().is_some_and(|token| known.find(&token).is_some_and(may))
    }

    /// Whether tokens are asked for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.known.load().mode
    }

    /// The caller who presents `token`, whichever way it came, from `address`.
    pub fn by_token(&self, token: &str, address: IpAddr) -> Result<Caller, AuthError> {
        let known = self.known.load();
        if known.mode == Mode::None {
            return Ok(Caller::anyone());
        }
        let (now, digest) = (Instant::now(), digest(token));
        let caller = known.find(&digest).filter(|_| !token.is_empty());
        if let Some(retry_after) = self.throttle.blocked_for(address, now) {
            // Looked up for every token, so that how long a refusal takes tells nothing either.
            let was_accepted = self.accepted.has(digest, address);
            return caller.filter(|_| was_accepted).cloned().ok_or_else(|| {
                self.throttle.blocked.count();
                AuthError::Throttled { retry_after }
            });
        }
        let Some(caller) = caller else {
            if self.throttle.failed(address, now) {
                tracing::warn!(%address, "too many unknown tokens: this address is not listened to for a while");
            }
            return Err(AuthError::Unknown);
        };
        self.accepted.note(digest, address, now);
        Ok(caller.clone())
    }

    /// Those who failed to authenticate.
    #[must_use]
    pub fn throttle(&self) -> &AuthThrottle {
        &self.throttle
    }

    /// Each caller that is known, once by its name, with what it may have and has. Callers without limits are left out.
    #[must_use]
    pub fn limiters(&self) -> BTreeMap<String, Vec<Arc<CallerLimiter>>> {
        let mut limiters: BTreeMap<String, Vec<Arc<CallerLimiter>>> = BTreeMap::new();
        for caller in self.known.load().callers() {
            let Some(account) = caller.account() else { continue };
            let known = limiters.entry(caller.name().to_owned()).or_default();
            if !known.iter().any(|one| Arc::ptr_eq(one, &account.limiter)) {
                known.push(Arc::clone(&account.limiter));
            }
        }
        limiters
    }

    /// The caller of a request by its `Authorization` header, from `address`.
    pub fn by_header(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, Problem> {
        if self.mode() == Mode::None {
            return Ok(Caller::anyone());
        }
        let mut given = headers.get_all(AUTHORIZATION);
        // What is no such header holds no token that could be right or wrong, so it is not held against its address.
        let (Some(token), None) = (given.next().and_then(bearer), given.next()) else {
            return Err(unauthenticated("Bearer", "The request needs one `Authorization: Bearer TOKEN` header."));
        };
        Ok(self.by_token(token, address)?)
    }
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated(challenge: &'static str, detail: &'static str) -> Problem {
    Problem::new(&table::UNAUTHENTICATED).detail(detail).header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

#[cfg(test)]
mod tests;
