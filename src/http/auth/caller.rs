//! A caller: a name with instances, scopes and limits.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::jwt::JwtConfig;
use super::rate_limit::{CallerLimiter, Limited, Purpose, RequestPermit};
use crate::http::problem::{Problem, table};

/// The caller's name where an instance's own gateway key is presented.
pub const GATEWAY_KEY: &str = "gateway-key";
/// The caller's name where no credential is needed.
pub const ANYONE: &str = "anyone";

/// Stands for all instances in a token's configuration.
pub const EVERY_INSTANCE: &str = "*";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Commands that change nothing.
    Read,
    /// Book sales.
    Pay,
    /// Register devices.
    Devices,
    /// Listen to broadcasts.
    Events,
    /// Send any command by name.
    Raw,
    /// See and control the bridge itself, and settle payments.
    Operate,
}

impl Scope {
    pub const ALL: [Self; 6] = [Self::Read, Self::Pay, Self::Devices, Self::Events, Self::Raw, Self::Operate];

    /// As it is written in the configuration.
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

/// SHA-256 of a credential: all that is kept of it.
pub(super) type Digest = [u8; 32];

/// Until when a caller's JWT is valid, and by what.
#[derive(Debug, Clone)]
pub(super) struct Expiry {
    pub(super) at: Instant,
    pub(super) config: Arc<JwtConfig>,
    /// The thumbprint of the key that signed it.
    pub(super) key: [u8; 32],
}

/// An authenticated caller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Rights>);

#[derive(Debug, Clone)]
struct Rights {
    name: String,
    /// `None` where none was asked for.
    credential: Option<Digest>,
    /// `None` is every instance.
    instances: Option<BTreeSet<String>>,
    scopes: BTreeSet<Scope>,
    /// `None` is no limit.
    limiter: Option<Arc<CallerLimiter>>,
    /// `None` where the credential does not expire.
    expiry: Option<Expiry>,
}

impl Caller {
    pub(super) fn new(
        name: &str,
        instances: Option<BTreeSet<String>>,
        scopes: BTreeSet<Scope>,
        limiter: Option<Arc<CallerLimiter>>,
    ) -> Self {
        Self(Arc::new(Rights { name: name.to_owned(), credential: None, instances, scopes, limiter, expiry: None }))
    }

    /// The caller where no credential is needed: any program of this machine. Without limits, since nothing here could
    /// hold such a program back.
    pub(super) fn anyone() -> Self {
        Self::new(ANYONE, None, Scope::ALL.into(), None)
    }

    /// The same caller, proved by the credential of this digest.
    pub(super) fn with_credential(&self, credential: Digest) -> Self {
        Self(Arc::new(Rights { credential: Some(credential), ..(*self.0).clone() }))
    }

    /// The same caller, until then.
    pub(super) fn until(&self, expiry: Expiry) -> Self {
        Self(Arc::new(Rights { expiry: Some(expiry), ..(*self.0).clone() }))
    }

    pub(super) fn expiry(&self) -> Option<&Expiry> {
        self.0.expiry.as_ref()
    }

    /// When the credential expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        self.0.expiry.as_ref().map(|expiry| expiry.at)
    }

    /// Whether the credential has expired.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expires_at().is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn credential(&self) -> Option<&Digest> {
        self.0.credential.as_ref()
    }

    pub(super) fn limiter(&self) -> Option<&Arc<CallerLimiter>> {
        self.0.limiter.as_ref()
    }

    /// A permit for one request, held until its answer has ended. `None` for a caller without limits.
    pub fn admit(&self, purpose: Purpose) -> Result<Option<RequestPermit>, Limited> {
        self.0.limiter.as_ref().map(|limiter| limiter.admit(purpose)).transpose()
    }

    /// Payments belong to this name, and logs show it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.scopes.contains(&scope)
    }

    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.0.scopes.iter().copied()
    }

    #[must_use]
    pub fn may_reach(&self, instance: &str) -> bool {
        self.0.instances.as_ref().is_none_or(|instances| instances.contains(instance))
    }

    /// Whoever may reach all of the bridge's instances may see the status of the whole bridge.
    pub fn may_reach_all<'a>(&self, instances: impl IntoIterator<Item = &'a str>) -> bool {
        instances.into_iter().all(|instance| self.may_reach(instance))
    }

    /// An error unless the caller may reach `instance` and has `scope`. The error does not tell whether the instance
    /// exists.
    pub fn permit(&self, instance: &str, scope: Scope) -> Result<(), Problem> {
        if !self.may_reach(instance) {
            return Err(Problem::new(&table::FORBIDDEN).detail("This token has no right to this instance."));
        }
        self.require(scope)
    }

    /// An error unless the caller has `scope`.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.has(scope) {
            return Ok(());
        }
        Err(Problem::new(&table::FORBIDDEN).detail(format!("This token lacks the scope `{scope}`.")))
    }
}
