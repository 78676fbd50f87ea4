//! The callers that are known at one time: by the digests of their tokens, compared in constant time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::caller::{ANYONE, Account, Caller, EVERY_INSTANCE, GATEWAY_KEY, Scope};
use super::rate_limit::CallerLimits;
use super::{AuthConfigError, Config, Mode};

/// Who is known, and whether anybody is asked.
pub(super) struct TokenStore {
    pub(super) mode: Mode,
    callers: Vec<([u8; 32], Caller)>,
}

/// A digest is no secret that opens anything, yet it has no business in a log either.
impl fmt::Debug for TokenStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenStore({:?}, {} tokens)", self.mode, self.callers.len())
    }
}

impl TokenStore {
    /// The callers of a configuration. Whoever was known before keeps what it has in flight.
    pub(super) fn new(
        config: &Config,
        gateway_keys: &BTreeMap<String, SecretString>,
        before: Option<&Self>,
    ) -> Result<Self, Vec<AuthConfigError>> {
        let mut refusals = Vec::new();
        let mut owners: BTreeMap<[u8; 32], &str> = BTreeMap::new();
        let mut callers = Vec::new();
        for (name, token) in &config.tokens {
            if [GATEWAY_KEY, ANYONE].contains(&name.as_str()) {
                refusals.push(AuthConfigError::ReservedName(name.clone()));
            }
            let reaches_all = token.instances.iter().any(|instance| instance == EVERY_INSTANCE);
            let instances = (!reaches_all).then(|| token.instances.iter().cloned().collect());
            let limits = CallerLimits { max_in_flight: token.max_in_flight, per_second: token.per_second };
            let known = before.and_then(|before| before.callers().find(|caller| caller.name() == name));
            let account = Account::new(limits, known.and_then(Caller::account));
            let caller = Caller::new(name, instances, token.scopes.clone(), Some(account));
            for digest in &token.sha256 {
                match owners.insert(*digest, name) {
                    Some(other) if other != name => {
                        refusals.push(AuthConfigError::SharedDigest(other.to_owned(), name.clone()));
                    }
                    _ => callers.push((*digest, caller.with_token(*digest))),
                }
            }
        }
        callers.extend(gateway_key_callers(gateway_keys, config.gateway_key, before));
        if config.mode == Mode::Tokens && callers.is_empty() {
            refusals.push(AuthConfigError::NoCaller);
        }
        if refusals.is_empty() { Ok(Self { mode: config.mode, callers }) } else { Err(refusals) }
    }

    /// Each caller, once for each of its tokens.
    pub(super) fn callers(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter().map(|(_, caller)| caller)
    }

    pub(super) fn find(&self, digest: &[u8; 32]) -> Option<&Caller> {
        // No early exit: how long it takes says nothing about which digests are near. Tokens stand before gateway
        // keys, and the first wins.
        self.callers.iter().fold(
            None,
            |found, (known, caller)| {
                if bool::from(known.ct_eq(digest)) { found.or(Some(caller)) } else { found }
            },
        )
    }
}

fn gateway_key_callers(
    keys: &BTreeMap<String, SecretString>,
    limits: CallerLimits,
    before: Option<&TokenStore>,
) -> Vec<([u8; 32], Caller)> {
    let scopes: BTreeSet<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operate).collect();
    let mut instances_by_key: BTreeMap<[u8; 32], BTreeSet<String>> = BTreeMap::new();
    for (instance, key) in keys {
        instances_by_key.entry(digest(key.expose_secret())).or_default().insert(instance.clone());
    }
    let caller = |(digest, instances): ([u8; 32], BTreeSet<String>)| {
        let known = before.and_then(|before| before.callers.iter().find(|(known, _)| *known == digest));
        let account = Account::new(limits, known.and_then(|(_, caller)| caller.account()));
        let caller = Caller::new(GATEWAY_KEY, Some(instances), scopes.clone(), Some(account));
        (digest, caller.with_token(digest))
    };
    instances_by_key.into_iter().map(caller).collect()
}

/// What is kept of a token.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
