//! Settings of authentication: whether callers must prove who they are, and the tokens that do.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::caller::Scope;
use super::jwt::JwtConfig;
use super::rate_limit::CallerLimits;

/// Whether callers have to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every caller presents a credential.
    #[default]
    Tokens,
    /// No credential is needed; only this machine may call ([`local`](super::local)).
    None,
}

/// One configured token. Its name is its key in [`Config::tokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the tokens with this name; several while one replaces another.
    pub sha256: Vec<[u8; 32]>,
    /// The instances it may reach; [`EVERY_INSTANCE`](super::EVERY_INSTANCE) stands for all.
    pub instances: Vec<String>,
    pub scopes: BTreeSet<Scope>,
    /// Requests at once.
    pub max_in_flight: u32,
    /// Requests a second.
    pub per_second: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub mode: Mode,
    /// By name.
    pub tokens: BTreeMap<String, Token>,
    /// For all who present an instance's gateway key, together.
    pub gateway_key: CallerLimits,
    /// Whose JWTs are accepted.
    pub jwt: Option<JwtConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self { mode: Mode::default(), tokens: BTreeMap::new(), gateway_key: CallerLimits::GATEWAY_KEY, jwt: None }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthConfigError {
    #[error("nobody can call: there is no token, no instance whose gateway key is accepted, and no issuer of JWTs")]
    NoCaller,
    #[error("`{0}` is a name the bridge uses itself")]
    ReservedName(String),
    #[error("`{0}` has a `|`, which only the names of callers with a JWT have")]
    NameOfAnIssuer(String),
    #[error("the keys of the issuer cannot be read: {0}")]
    NoKeys(String),
    /// A token must have one name, since payments belong to the name.
    #[error("tokens `{0}` and `{1}` have the same SHA-256")]
    SharedDigest(String, String),
}
