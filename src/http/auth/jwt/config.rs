//! Settings of callers who present a signed JWT.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::http::auth::rate_limit::CallerLimits;

/// Whose JWTs are accepted, and what their claims mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// What `iss` must be.
    pub issuer: String,
    /// One of them must be in `aud`.
    pub audience: BTreeSet<String>,
    pub keys: KeySource,
    /// PEM file of certificates that are trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    pub algorithms: BTreeSet<SignatureAlgorithm>,
    /// The claim that names the caller.
    pub caller: Claim,
    /// The claim that lists the instances.
    pub instances: Claim,
    /// The claim that lists the scopes.
    pub scopes: Claim,
    /// What stands before the names of the bridge's scopes there.
    pub scope_prefix: String,
    /// By how much the clocks of issuer and bridge may differ.
    pub leeway: Duration,
    /// How often the keys are fetched.
    pub refresh: Duration,
    /// Between the end of a fetch and the next one, where a token names a key that is not known.
    pub refresh_floor: Duration,
    /// Of each caller.
    pub limits: CallerLimits,
}

/// Where the issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Url(String),
    File(PathBuf),
}

/// Which claim is meant: its name, or where a `/` begins it, a JSON Pointer (RFC 6901) to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim(pub String);

/// The algorithms that there are. Each kind of key has one, so that a key never verifies what another algorithm signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// RSA keys, with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// Keys of the curve P-256, with SHA-256.
    Es256,
    /// Keys of the curve Ed25519.
    EdDsa,
}

impl SignatureAlgorithm {
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// As `alg` has it (RFC 7518, RFC 8037).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}
