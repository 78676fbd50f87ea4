//! The seam between what a request presents and the caller whom it proves.
//!
//! A [`Verifier`] is one authentication method. `Auth` (in `mod.rs`) holds the list of them and asks the first one that
//! recognizes the credential. Throttling of addresses, limits, scopes and long connections are the same for all methods.
//! To add one: a file here with the verifier, its line in `Verifiers::of`, its settings in `config.rs`,
//! and their reading in `src/config/auth.rs`.

use std::fmt;

use actix_web::http::header::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::caller::{Caller, Digest};

pub(super) fn digest(value: &str) -> Digest {
    Sha256::digest(value.as_bytes()).into()
}

const BEARER: &str = "bearer";

/// What a request presents: a scheme (RFC 9110, section 11.4) and a value.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    scheme: &'a str,
    value: &'a str,
    digest: Digest,
}

/// The value is a secret.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl<'a> Credential<'a> {
    fn new(scheme: &'a str, value: &'a str) -> Self {
        Self { scheme, value, digest: digest(value) }
    }

    /// A token that came without a scheme: in a query, or as the `api_key` of a native command.
    #[must_use]
    pub fn bearer(token: &'a str) -> Self {
        Self::new(BEARER, token)
    }

    /// The value of an `Authorization` header.
    pub(super) fn of_header(header: &'a HeaderValue) -> Option<Self> {
        let (scheme, value) = header.to_str().ok()?.split_once(' ')?;
        Some(Self::new(scheme, value.trim()))
    }

    #[must_use]
    pub fn is_bearer(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(BEARER)
    }

    #[must_use]
    pub fn value(&self) -> &'a str {
        self.value
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// A credential proves no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Told to whoever presented it, so it must not help a guesser.
    pub detail: &'static str,
    /// Whether it counts against the address: whoever presents a token that has expired guesses none.
    pub is_guess: bool,
}

impl Rejection {
    /// Of a credential that may be made up.
    #[must_use]
    pub const fn guess(detail: &'static str) -> Self {
        Self { detail, is_guess: true }
    }

    /// Of one that is not made up.
    #[must_use]
    pub const fn proven(detail: &'static str) -> Self {
        Self { detail, is_guess: false }
    }
}

/// One authentication method.
///
/// The name of a caller owns its payments, so a verifier must not return a name that another one returns.
pub trait Verifier: fmt::Debug + Send + Sync {
    /// Whether the credential is of this method's kind. Says nothing about whether it is valid.
    fn recognizes(&self, credential: &Credential<'_>) -> bool;

    /// The caller whom a recognized credential proves; for a minute it may not be asked again about one that comes again on the
    /// same connection (`remembered_caller.rs`). Must take as long for a wrong one as for a right one: it is also
    /// asked while the address is throttled, and its answer is then not told.
    fn verify(&self, credential: &Credential<'_>) -> Result<Caller, Rejection>;

    /// The caller with the rights that its credential gives now; nothing where the credential is no longer valid, or was
    /// verified by another method. Asked for long connections after each reload.
    fn recheck(&self, caller: &Caller) -> Option<Caller>;

    /// The callers that are known beforehand, whose limits are shown in the metrics and survive a reload.
    fn callers(&self) -> Vec<Caller>;
}
