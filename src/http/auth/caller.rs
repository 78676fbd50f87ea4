//! Who calls, and what they may do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rate_limit::{CallerLimiter, CallerLimits, Limited, Purpose, RequestPermit};
use crate::http::problem::{Problem, table};

/// The caller name of everyone who presents an instance's own gateway key.
pub const GATEWAY_KEY: &str = "gateway-key";
/// The caller name of everyone where no tokens are asked for.
pub const ANYONE: &str = "anyone";

/// What a token's configuration names in place of instances, where it may use all there are.
pub const EVERY_INSTANCE: &str = "*";

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

/// Someone who calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Rights>);

#[derive(Debug, Clone)]
struct Rights {
    name: String,
    /// The SHA-256 of the token; nothing where none was asked for.
    token: Option<[u8; 32]>,
    /// `None` is every instance.
    instances: Option<BTreeSet<String>>,
    scopes: BTreeSet<Scope>,
    /// `None` is no limit.
    account: Option<Account>,
}

/// What the bridge keeps of a caller for as long as it runs, whatever is reloaded.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) limiter: Arc<CallerLimiter>,
}

impl Account {
    /// An account with these limits: `known` where it has the same.
    pub(super) fn new(limits: CallerLimits, known: Option<&Self>) -> Self {
        match known {
            Some(known) if known.limiter.limits() == limits => known.clone(),
            _ => Self { limiter: Arc::new(CallerLimiter::new(limits)) },
        }
    }
}

impl Caller {
    pub(super) fn new(
        name: &str,
        instances: Option<BTreeSet<String>>,
        scopes: BTreeSet<Scope>,
        account: Option<Account>,
    ) -> Self {
        Self(Arc::new(Rights { name: name.to_owned(), token: None, instances, scopes, account }))
    }

    /// Everybody, where no tokens are asked for: programs of this machine, which nothing here could stop anyway.
    pub(super) fn anyone() -> Self {
        Self::new(ANYONE, None, Scope::ALL.into(), None)
    }

    /// The same caller, by the token of this SHA-256.
    pub(super) fn with_token(&self, token: [u8; 32]) -> Self {
        Self(Arc::new(Rights { token: Some(token), ..(*self.0).clone() }))
    }

    /// The SHA-256 of its token.
    pub(super) fn token(&self) -> Option<[u8; 32]> {
        self.0.token
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.0.account.as_ref()
    }

    /// A place for one request, held until its answer has ended; or when to come back, for one who sends too much.
    /// `None` where there is no limit.
    pub fn admit(&self, purpose: Purpose) -> Result<Option<RequestPermit>, Limited> {
        self.0.account.as_ref().map(|account| account.limiter.admit(purpose)).transpose()
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

    /// Whether it may reach all of `instances`, and so may see what is told of the bridge as a whole.
    pub fn may_reach_all<'a>(&self, instances: impl IntoIterator<Item = &'a str>) -> bool {
        instances.into_iter().all(|instance| self.may_reach(instance))
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
