//! Authentication: from what a request presents to a caller with a name, instances, scopes and limits.
//!
//! - A request is authenticated in `request.rs`, a native connection in `native/`; both ask [`Auth`].
//! - Each authentication method is a [`Verifier`]; [`Verifiers::of`] has the list. `token_store.rs` is the one for tokens
//!   and gateway keys, which are kept and compared only as SHA-256. A connection remembers its caller, so that its further
//!   requests need none (`remembered_caller.rs`).
//! - An error never tells whether an instance exists, and while an address is blocked (`auth_throttle.rs`), not whether
//!   its credential is right.
//! - A caller with too many requests is limited (`rate_limit.rs`).

mod accepted_credentials;
pub mod auth_throttle;
pub mod authorization;
mod caller;
mod config;
pub mod jwt;
pub mod local;
mod rate_limit;
pub mod remembered_caller;
pub mod request;
mod token_store;
pub mod verifier;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::time::Instant;

use accepted_credentials::AcceptedCredentials;
use auth_throttle::AuthThrottle;
pub use caller::{ANYONE, Caller, EVERY_INSTANCE, Scope};
pub use config::{AuthConfigError, Config, Mode, Token};
use jwt::JwtVerifier;
use jwt::key_store::KeyStore;
pub use rate_limit::{CallerLimiter, CallerLimits, Purpose, RequestPermit};
use remembered_caller::RememberedCaller;
use token_store::TokenStore;
use verifier::{Credential, Rejection, Verifier};

use super::problem::{Problem, table};
use crate::bridge::status::IssuerKeys;

/// Counts the configurations of this process.
static CONFIGURATIONS: AtomicU64 = AtomicU64::new(0);

/// The authentication methods in force.
#[derive(Debug)]
struct Verifiers {
    /// The number of their configuration, which no other one has. Another one once an issuer's key is gone.
    number: AtomicU64,
    mode: Mode,
    list: Vec<Box<dyn Verifier>>,
    /// The one of JWTs, which is in the list too.
    jwt: Option<Arc<JwtVerifier>>,
}

impl Verifiers {
    /// All methods, each more specific one before those that would recognize its credentials too: the token store, which
    /// recognizes every bearer token, is last. Of `before` the limiters of callers are kept, and an issuer's keys.
    fn of(
        config: &Config,
        gateway_keys: &BTreeMap<String, SecretString>,
        before: Option<&Self>,
    ) -> Result<Self, Vec<AuthConfigError>> {
        let callers = before.map(Self::callers).unwrap_or_default();
        let (tokens, mut errors) = TokenStore::new(config, gateway_keys, &callers);
        if config.mode == Mode::Tokens && tokens.is_empty() && config.jwt.is_none() {
            errors.push(AuthConfigError::NoCaller);
        }
        let jwt = jwt_verifier(config, before.and_then(|before| before.jwt.as_deref())).map_err(|why| errors.push(why));
        if !errors.is_empty() {
            return Err(errors);
        }
        let jwt = jwt.ok().flatten();
        let first = jwt.iter().map(|jwt| Box::new(Arc::clone(jwt)) as Box<dyn Verifier>);
        let list = first.chain([Box::new(tokens) as Box<dyn Verifier>]).collect();
        Ok(Self { jwt, ..Self::new(config.mode, list) })
    }

    fn new(mode: Mode, list: Vec<Box<dyn Verifier>>) -> Self {
        Self { number: next_number().into(), mode, list, jwt: None }
    }

    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    fn recognizing(&self, credential: &Credential<'_>) -> Option<&dyn Verifier> {
        self.list.iter().find(|verifier| verifier.recognizes(credential)).map(AsRef::as_ref)
    }

    fn callers(&self) -> Vec<Caller> {
        self.list.iter().flat_map(|verifier| verifier.callers()).collect()
    }
}

/// The verifier of JWTs, if there is one. It goes on with the keys of the one before, where those are the same.
fn jwt_verifier(config: &Config, before: Option<&JwtVerifier>) -> Result<Option<Arc<JwtVerifier>>, AuthConfigError> {
    let Some(config) = config.jwt.clone().filter(|_| config.mode == Mode::Tokens) else { return Ok(None) };
    let known = before.map(JwtVerifier::keys).filter(|keys| keys.is_of(&config));
    let keys = known.map_or_else(|| Arc::new(KeyStore::new(&config)), Arc::clone);
    keys.read_file().map_err(AuthConfigError::NoKeys)?;
    let verifier = JwtVerifier::new(config, keys);
    Ok(Some(Arc::new(match before {
        Some(before) => verifier.keeping(before),
        None => verifier,
    })))
}

fn next_number() -> u64 {
    CONFIGURATIONS.fetch_add(1, Ordering::Relaxed)
}

/// A configuration that was checked and is not in force yet.
#[derive(Debug)]
pub struct Prepared(Verifiers);

/// Authenticates callers. Its configuration can be replaced while it is in use.
#[derive(Debug)]
pub struct Auth {
    verifiers: ArcSwap<Verifiers>,
    throttle: AuthThrottle,
    accepted: AcceptedCredentials,
    /// How often the configuration was replaced.
    reloads: watch::Sender<u64>,
}

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthError {
    /// There is none, or none of a kind that is accepted here. Not a guess, so the address is not throttled for it.
    NoCredential,
    /// It proves no caller.
    Rejected(Rejection),
    /// The address is blocked, and this credential was never accepted from it.
    Throttled { retry_after: Duration },
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::NoCredential => {
                unauthenticated("Bearer", "The request needs one `Authorization: Bearer TOKEN` header.")
            }
            AuthError::Rejected(Rejection { detail, .. }) => unauthenticated("Bearer error=\"invalid_token\"", detail),
            AuthError::Throttled { retry_after } => Self::new(&table::CALLER_LIMITED)
                .detail("Too many tokens that are not known here came from this address. This one was not looked at.")
                .retry_after(retry_after),
        }
    }
}

impl Auth {
    /// Callers by their tokens, and by the gateway keys of those instances that accept theirs.
    pub fn new(config: &Config, gateway_keys: &BTreeMap<String, SecretString>) -> Result<Self, Vec<AuthConfigError>> {
        Verifiers::of(config, gateway_keys, None).map(Self::with)
    }

    fn with(verifiers: Verifiers) -> Self {
        Self {
            verifiers: ArcSwap::from_pointee(verifiers),
            throttle: AuthThrottle::default(),
            accepted: AcceptedCredentials::default(),
            reloads: watch::Sender::new(0),
        }
    }

    /// Every error in a configuration.
    #[must_use]
    pub fn check(config: &Config, gateway_keys: &BTreeMap<String, SecretString>) -> Vec<AuthConfigError> {
        Verifiers::of(config, gateway_keys, None).err().unwrap_or_default()
    }

    /// Another configuration, to be [installed](Self::install), or its errors. A caller that keeps its name and limits keeps
    /// what it has in flight.
    pub fn prepare(
        &self,
        config: &Config,
        gateway_keys: &BTreeMap<String, SecretString>,
    ) -> Result<Prepared, Vec<AuthConfigError>> {
        Verifiers::of(config, gateway_keys, Some(&**self.verifiers.load())).map(Prepared)
    }

    /// Takes a configuration into force.
    pub fn install(&self, prepared: Prepared) {
        self.replace(prepared.0);
    }

    #[cfg(test)]
    fn reload(
        &self,
        config: &Config,
        gateway_keys: &BTreeMap<String, SecretString>,
    ) -> Result<(), Vec<AuthConfigError>> {
        self.prepare(config, gateway_keys).map(|prepared| self.install(prepared))
    }

    fn replace(&self, verifiers: Verifiers) {
        self.verifiers.store(Arc::new(verifiers));
        self.reloads.send_modify(|reloads| *reloads += 1);
    }

    /// Renews an issuer's keys, for as long as it is polled. Where one is gone, those who were let in by it are judged anew, and
    /// `on_loss` has them notice.
    pub async fn tend_keys(&self, on_loss: impl Fn()) {
        let mut reloads = self.reloads();
        loop {
            reloads.mark_unchanged();
            let keys = self.keys().map(|(_, keys)| keys);
            let on_loss = || {
                self.verifiers.load().number.store(next_number(), Ordering::Relaxed);
                self.reloads.send_modify(|reloads| *reloads += 1);
                on_loss();
            };
            let tending = async {
                match &keys {
                    Some(keys) => keys.tend(on_loss).await,
                    None => std::future::pending().await,
                }
            };
            let replaced = async {
                // Keys that are gone change it too.
                while self.keys().map(|(_, keys)| Arc::as_ptr(&keys)) == keys.as_ref().map(Arc::as_ptr) {
                    if reloads.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            tokio::select! {
                () = tending => {}
                () = replaced => {}
            }
        }
    }

    /// The issuer of JWTs and its keys, where there is one.
    #[must_use]
    pub fn keys(&self) -> Option<(String, Arc<KeyStore>)> {
        let verifiers = self.verifiers.load();
        verifiers.jwt.as_ref().map(|jwt| (jwt.config().issuer.clone(), Arc::clone(jwt.keys())))
    }

    /// How an issuer's keys are doing.
    #[must_use]
    pub fn key_status(&self) -> Option<IssuerKeys> {
        self.keys().map(|(issuer, keys)| keys.status(&issuer))
    }

    /// The keys to be renewed before a request with these header fields is authenticated, since its token names one that is
    /// not known.
    #[must_use]
    pub fn keys_wanted(&self, headers: &HeaderMap) -> Option<Arc<KeyStore>> {
        let verifiers = self.verifiers.load();
        let jwt = verifiers.jwt.as_ref()?;
        // Not as a `Credential`, whose digest this request is to pay for once.
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        let is_wanted = scheme.eq_ignore_ascii_case("bearer") && jwt.lacks_key_of(token.trim());
        is_wanted.then(|| Arc::clone(jwt.keys()))
    }

    /// Changes with each reload, and when an issuer's key is gone.
    #[must_use]
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Whether the caller's credential still gives it `instance`, and `scope` if there is one.
    #[must_use]
    pub fn still_permits(&self, caller: &Caller, instance: &str, scope: Option<Scope>) -> bool {
        let verifiers = self.verifiers.load();
        let may = |caller: Caller| caller.may_reach(instance) && scope.is_none_or(|scope| caller.has(scope));
        verifiers.mode == Mode::None
            || verifiers.list.iter().find_map(|verifier| verifier.recheck(caller)).is_some_and(may)
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        self.verifiers.load().mode
    }

    /// The caller whom `credential`, presented from `address`, proves.
    pub fn authenticate(&self, credential: &Credential<'_>, address: IpAddr) -> Result<Caller, AuthError> {
        let verifiers = self.verifiers.load();
        if verifiers.mode == Mode::None {
            return Ok(Caller::anyone());
        }
        self.verify(&verifiers, credential, address, Instant::now())
    }

    fn verify(
        &self,
        verifiers: &Verifiers,
        credential: &Credential<'_>,
        address: IpAddr,
        now: Instant,
    ) -> Result<Caller, AuthError> {
        let verifier = verifiers.recognizing(credential).ok_or(AuthError::NoCredential)?;
        let outcome = verifier.verify(credential);
        if let Some(retry_after) = self.throttle.blocked_for(address, now) {
            // Looked up for a wrong credential too, so that the time it takes tells nothing.
            let was_accepted = self.accepted.contains(*credential.digest(), address);
            return outcome.ok().filter(|_| was_accepted).ok_or_else(|| {
                self.throttle.blocked.inc();
                self.throttle.blocked_lately.note(Instant::now(), [true]);
                AuthError::Throttled { retry_after }
            });
        }
        let caller = outcome.map_err(|rejection| {
            if rejection.is_guess && self.throttle.failed(address, now) {
                tracing::warn!(%address, "too many authentication failures: this address is blocked for a while");
            }
            AuthError::Rejected(rejection)
        })?;
        self.accepted.insert(*credential.digest(), address, now);
        Ok(caller)
    }

    /// [`Auth::authenticate`] by a bearer token, wherever in the request it came from.
    pub fn by_token(&self, token: &str, address: IpAddr) -> Result<Caller, AuthError> {
        self.authenticate(&Credential::bearer(token), address)
    }

    /// [`Auth::authenticate`] by the `Authorization` header.
    pub fn by_header(&self, headers: &HeaderMap, address: IpAddr) -> Result<Caller, Problem> {
        self.by_header_again(headers, address, None)
    }

    /// The same for a request on a connection that remembers the caller of the one before.
    pub fn by_header_again(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        remembered: Option<&RememberedCaller>,
    ) -> Result<Caller, Problem> {
        let verifiers = self.verifiers.load();
        if verifiers.mode == Mode::None {
            return Ok(Caller::anyone());
        }
        let mut given = headers.get_all(AUTHORIZATION);
        let (Some(header), None) = (given.next(), given.next()) else { return Err(AuthError::NoCredential.into()) };
        // Before the credential is verified: a key that is gone meanwhile is not to be remembered.
        let (now, number) = (Instant::now(), verifiers.number());
        let again = remembered.and_then(|remembered| remembered.recall(header, address, number, now));
        if let Some(caller) = again {
            return Ok(caller);
        }
        let credential = Credential::of_header(header).ok_or(AuthError::NoCredential)?;
        let caller = self.verify(&verifiers, &credential, address, now)?;
        if let Some(remembered) = remembered {
            remembered.remember(&caller, header, address, number, now);
        }
        Ok(caller)
    }

    #[must_use]
    pub fn throttle(&self) -> &AuthThrottle {
        &self.throttle
    }

    /// The limiters of each caller that is known beforehand, by its name. Callers without limits are left out.
    #[must_use]
    pub fn limiters(&self) -> BTreeMap<String, Vec<Arc<CallerLimiter>>> {
        let mut limiters: BTreeMap<String, Vec<Arc<CallerLimiter>>> = BTreeMap::new();
        // All credentials of a token share one.
        let mut listed = HashSet::new();
        for caller in self.verifiers.load().callers() {
            let Some(limiter) = caller.limiter() else { continue };
            if listed.insert(Arc::as_ptr(limiter)) {
                limiters.entry(caller.name().to_owned()).or_default().push(Arc::clone(limiter));
            }
        }
        limiters
    }
}

fn unauthenticated(challenge: &'static str, detail: &'static str) -> Problem {
    Problem::new(&table::UNAUTHENTICATED).detail(detail).header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

#[cfg(test)]
mod tests;
