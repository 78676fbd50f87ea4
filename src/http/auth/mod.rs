//! Who calls: from a token to a caller with a name, instances and scopes.
//!
//! Tokens are kept and compared only as SHA-256, in constant time and against all of them, so that neither a dump nor
//! the clock gives one away. An instance's own gateway key may serve as a token (tills know nothing else); it is kept
//! the same way. A refusal never says whether an instance exists.

pub mod local;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Problem, table};

/// The caller name of everyone who presents an instance's own gateway key.
pub const GATEWAY_KEY: &str = "gateway-key";
/// The caller name of everyone where no tokens are asked for.
pub const ANYONE: &str = "anyone";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask for anything that changes nothing.
    Read,
    /// Book sales.
    Pay,
    /// Register devices.
    Devices,
    /// Listen to broadcasts.
    Events,
    /// Send any command by name.
    Raw,
    /// See and steer the bridge itself, and settle payments.
    Operate,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [Self::Read, Self::Pay, Self::Devices, Self::Events, Self::Raw, Self::Operate];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Pay => "pay",
            Self::Devices => "devices",
            Self::Events => "events",
            Self::Raw => "raw",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

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
    /// The instances it may reach.
    pub instances: Vec<String>,
    /// What it may do there.
    pub scopes: BTreeSet<Scope>,
    /// The most requests at once.
    pub max_in_flight: u32,
    /// The most requests a second.
    pub per_second: u32,
}

/// The room's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Whether tokens are asked for.
    pub mode: Mode,
    /// The tokens by name.
    pub tokens: BTreeMap<String, Token>,
}

/// Why a configuration of callers is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A start that could serve nobody is a mistake.
    #[error("nobody can call: there is neither a token nor an instance whose gateway key is accepted")]
    Nobody,
    /// The bridge uses this name itself.
    #[error("`{0}` is a name the bridge uses itself")]
    Reserved(String),
    /// It cannot be told which name a caller goes by, and payments belong to the name.
    #[error("tokens `{0}` and `{1}` have the same SHA-256")]
    Shared(String, String),
}

/// Someone who calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Rights>);

#[derive(Debug)]
struct Rights {
    name: String,
    /// `None` is every instance.
    instances: Option<BTreeSet<String>>,
    scopes: BTreeSet<Scope>,
}

impl Caller {
    fn new(name: &str, instances: Option<BTreeSet<String>>, scopes: BTreeSet<Scope>) -> Self {
        Self(Arc::new(Rights { name: name.to_owned(), instances, scopes }))
    }

    fn anyone() -> Self {
        Self::new(ANYONE, None, Scope::ALL.into())
    }

    /// The token's name: payments belong to it, and logs show it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it has `scope` at all.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.scopes.contains(&scope)
    }

    /// The scopes it has.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.0.scopes.iter().copied()
    }

    /// Whether it may reach `instance`.
    #[must_use]
    pub fn may_reach(&self, instance: &str) -> bool {
        self.0.instances.as_ref().is_none_or(|instances| instances.contains(instance))
    }

    /// Refuses what it may not do. Whether the instance exists is not told to those who may not reach it.
    pub fn permit(&self, instance: &str, scope: Scope) -> Result<(), Problem> {
        if !self.may_reach(instance) {
            return Err(Problem::new(&table::FORBIDDEN).detail("This token has no right to this instance."));
        }
        self.require(scope)
    }

    /// Refuses a caller without `scope`.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.has(scope) {
            return Ok(());
        }
        Err(Problem::new(&table::FORBIDDEN).detail(format!("This token lacks the scope `{scope}`.")))
    }
}

/// Knows the callers. What it knows can be replaced while it is in use.
#[derive(Debug)]
pub struct Auth(ArcSwap<Known>);

struct Known {
    mode: Mode,
    callers: Vec<([u8; 32], Caller)>,
}

/// A digest is no secret that opens anything, yet it has no business in a log either.
impl fmt::Debug for Known {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Known({:?}, {} tokens)", self.mode, self.callers.len())
    }
}

impl Auth {
    /// Callers by their tokens, and by the gateway keys of those instances that accept theirs.
    pub fn new(config: &Config, gateway_keys: &BTreeMap<String, SecretString>) -> Result<Self, Vec<Refusal>> {
        Ok(Self(ArcSwap::from_pointee(Known::new(config, gateway_keys)?)))
    }

    /// Takes a new configuration into force, or says what is wrong with it and stays as it is.
    pub fn reload(&self, config: &Config, gateway_keys: &BTreeMap<String, SecretString>) -> Result<(), Vec<Refusal>> {
        self.0.store(Arc::new(Known::new(config, gateway_keys)?));
        Ok(())
    }

    /// Whether tokens are asked for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.load().mode
    }

    /// The caller who presents `token`, whichever way it came.
    #[must_use]
    pub fn by_token(&self, token: &str) -> Option<Caller> {
        let known = self.0.load();
        match known.mode {
            Mode::None => Some(Caller::anyone()),
            Mode::Tokens => known.find(token).cloned(),
        }
    }

    /// The caller of a request by its `Authorization` header.
    pub fn by_header(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.mode() == Mode::None {
            return Ok(Caller::anyone());
        }
        let mut given = headers.get_all(AUTHORIZATION);
        let (Some(header), None) = (given.next(), given.next()) else {
            return Err(unauthenticated("Bearer", "The request needs one `Authorization: Bearer TOKEN` header."));
        };
        bearer(header).and_then(|token| self.by_token(token)).ok_or_else(|| {
            unauthenticated("Bearer error=\"invalid_token\"", "The `Authorization` header holds no token known here.")
        })
    }
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthenticated(challenge: &'static str, detail: &'static str) -> Problem {
    Problem::new(&table::UNAUTHENTICATED).detail(detail).header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

impl Known {
    fn new(config: &Config, gateway_keys: &BTreeMap<String, SecretString>) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut owners: BTreeMap<[u8; 32], &str> = BTreeMap::new();
        let mut callers = Vec::new();
        for (name, token) in &config.tokens {
            if [GATEWAY_KEY, ANYONE].contains(&name.as_str()) {
                refusals.push(Refusal::Reserved(name.clone()));
            }
            let instances = token.instances.iter().cloned().collect();
            let caller = Caller::new(name, Some(instances), token.scopes.clone());
            for digest in &token.sha256 {
                match owners.insert(*digest, name) {
                    Some(other) if other != name => refusals.push(Refusal::Shared(other.to_owned(), name.clone())),
                    _ => callers.push((*digest, caller.clone())),
                }
            }
        }
        callers.extend(gateway_key_callers(gateway_keys));
        if config.mode == Mode::Tokens && callers.is_empty() {
            refusals.push(Refusal::Nobody);
        }
        if refusals.is_empty() { Ok(Self { mode: config.mode, callers }) } else { Err(refusals) }
    }

    fn find(&self, token: &str) -> Option<&Caller> {
        let digest = digest(token);
        // No early exit: how long it takes says nothing about which digests are near. Tokens stand before gateway
        // keys, and the first wins.
        self.callers.iter().fold(None, |found, (known, caller)| {
            let matches = bool::from(known.ct_eq(&digest));
            if matches && !token.is_empty() { found.or(Some(caller)) } else { found }
        })
    }
}

fn gateway_key_callers(keys: &BTreeMap<String, SecretString>) -> Vec<([u8; 32], Caller)> {
    let scopes: BTreeSet<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operate).collect();
    let mut instances_by_key: BTreeMap<[u8; 32], BTreeSet<String>> = BTreeMap::new();
    for (instance, key) in keys {
        instances_by_key.entry(digest(key.expose_secret())).or_default().insert(instance.clone());
    }
    instances_by_key
        .into_iter()
        .map(|(digest, instances)| (digest, Caller::new(GATEWAY_KEY, Some(instances), scopes.clone())))
        .collect()
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests;
