//! The verifier of tokens and gateway keys, by their SHA-256.
//!
//! There may be one for each of thousands of instances, so a digest is looked up by its hash under a random key, and then compared
//! in constant time. The time that it takes tells at most whether two hashes are equal, and not which digests are near.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::caller::{ANYONE, Caller, Digest, EVERY_INSTANCE, GATEWAY_KEY, Scope};
use super::config::{AuthConfigError, Config};
use super::jwt::SEPARATOR;
use super::rate_limit::{CallerLimiter, CallerLimits};
use super::verifier::{Credential, Rejection, Verifier, digest};

const UNKNOWN: Rejection = Rejection::guess("The request holds no token that is known here.");

/// Callers by the digests of their tokens.
pub(super) struct TokenStore {
    hashes: RandomState,
    /// In order of hash; of equal digests that of a configured token is before that of a gateway key.
    callers: Vec<Entry>,
}

struct Entry {
    hash: u64,
    digest: Digest,
    caller: Caller,
}

/// Digests stay out of logs.
impl fmt::Debug for TokenStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenStore({} tokens)", self.callers.len())
    }
}

impl TokenStore {
    /// The callers of a configuration, and every error in it. A caller that was among `before` with the same limits keeps
    /// its limiter, and so what it has in flight.
    pub(super) fn new(
        config: &Config,
        gateway_keys: &BTreeMap<String, SecretString>,
        before: &[Caller],
    ) -> (Self, Vec<AuthConfigError>) {
        let mut errors = Vec::new();
        let mut owners: BTreeMap<Digest, &str> = BTreeMap::new();
        let mut callers = Vec::new();
        for (name, token) in &config.tokens {
            if [GATEWAY_KEY, ANYONE].contains(&name.as_str()) {
                errors.push(AuthConfigError::ReservedName(name.clone()));
            }
            if name.contains(SEPARATOR) {
                errors.push(AuthConfigError::NameOfAnIssuer(name.clone()));
            }
            let reaches_all = token.instances.iter().any(|instance| instance == EVERY_INSTANCE);
            let instances = (!reaches_all).then(|| token.instances.iter().cloned().collect());
            let limits = CallerLimits { max_in_flight: token.max_in_flight, per_second: token.per_second };
            let known = before.iter().find(|caller| caller.name() == name);
            let limiter = CallerLimiter::kept(limits, known.and_then(Caller::limiter));
            let caller = Caller::new(name, instances, token.scopes.clone(), Some(limiter));
            for digest in &token.sha256 {
                match owners.insert(*digest, name) {
                    Some(other) if other != name => {
                        errors.push(AuthConfigError::SharedDigest(other.to_owned(), name.clone()));
                    }
                    _ => callers.push((*digest, caller.with_credential(*digest))),
                }
            }
        }
        callers.extend(gateway_key_callers(gateway_keys, config.gateway_key, before));
        let hashes = RandomState::new();
        let entry = |(digest, caller)| Entry { hash: hashes.hash_one(digest), digest, caller };
        let mut callers: Vec<_> = callers.into_iter().map(entry).collect();
        callers.sort_by_key(|entry| entry.hash);
        (Self { hashes, callers }, errors)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    fn find(&self, digest: &Digest) -> Option<&Caller> {
        let hash = self.hashes.hash_one(digest);
        let first = self.callers.partition_point(|entry| entry.hash < hash);
        let like = self.callers.iter().skip(first).take_while(|entry| entry.hash == hash);
        // The first one wins, so a token goes before a gateway key.
        like.filter(|entry| entry.digest.ct_eq(digest).into()).map(|entry| &entry.caller).next()
    }
}

impl Verifier for TokenStore {
    fn recognizes(&self, credential: &Credential<'_>) -> bool {
        credential.is_bearer()
    }

    fn verify(&self, credential: &Credential<'_>) -> Result<Caller, Rejection> {
        let found = self.find(credential.digest());
        // An instance without a key must not be opened by an empty token.
        found.filter(|_| !credential.value().is_empty()).cloned().ok_or(UNKNOWN)
    }

    fn recheck(&self, caller: &Caller) -> Option<Caller> {
        self.find(caller.credential()?).cloned()
    }

    fn callers(&self) -> Vec<Caller> {
        self.callers.iter().map(|entry| entry.caller.clone()).collect()
    }
}

fn gateway_key_callers(
    keys: &BTreeMap<String, SecretString>,
    limits: CallerLimits,
    before: &[Caller],
) -> Vec<(Digest, Caller)> {
    let scopes: BTreeSet<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operate).collect();
    let mut instances_by_key: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for (instance, key) in keys {
        instances_by_key.entry(digest(key.expose_secret())).or_default().insert(instance.clone());
    }
    let caller = |(digest, instances): (Digest, BTreeSet<String>)| {
        let known = before.iter().find(|caller| caller.credential() == Some(&digest));
        let limiter = CallerLimiter::kept(limits, known.and_then(Caller::limiter));
        let caller = Caller::new(GATEWAY_KEY, Some(instances), scopes.clone(), Some(limiter));
        (digest, caller.with_credential(digest))
    };
    instances_by_key.into_iter().map(caller).collect()
}
