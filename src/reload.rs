//! What can be replaced while the bridge runs: callers' tokens and the listener's certificate.
//!
//! All of it or nothing: a file with a fault leaves everything in force as it was. The instances and their own keys are
//! read at the start only, since links and payments belong to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::SecretString;

use crate::config::Config;
use crate::http::auth::Auth;
use crate::http::tls::Certificates;

/// Replaces what can be replaced.
#[derive(Debug, Clone)]
pub struct Reload {
    pub(crate) auth: Arc<Auth>,
    pub(crate) gateway_keys: BTreeMap<String, SecretString>,
    pub(crate) certificates: Option<Arc<Certificates>>,
}

impl Reload {
    /// Takes tokens and certificate of `config` into force, or says what is wrong and changes nothing. No connection is
    /// dropped. Where TLS was switched on or off since the start, that is left to the next one.
    pub fn apply(&self, config: &Config) -> Result<(), String> {
        let certificate = match (&self.certificates, &config.server.tls) {
            (Some(_), Some(files)) => Some(files.read()?),
            _ => None,
        };
        self.auth
            .reload(&config.auth, &self.gateway_keys)
            .map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        if let (Some(certificates), Some(certificate)) = (&self.certificates, certificate) {
            certificates.replace(certificate);
        }
        Ok(())
    }
}
