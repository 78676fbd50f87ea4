//! What can be replaced while the bridge runs: callers' tokens, the listener's certificate, and the instances' own keys.
//!
//! All of it or nothing: a file with a fault leaves everything in force as it was. Which instances there are is read at
//! the start only, since links and payments belong to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::SecretString;

use crate::bridge::Bridge;
use crate::config::Config;
use crate::http::auth::Auth;
use crate::http::listener::tls::Certificates;

/// Whether [`Reload`] takes the setting of this name. All others wait for the next start.
#[must_use]
pub fn is_reread(key: &str) -> bool {
    let of_instance = key.starts_with("instances.") && key.rsplit('.').next() != Some("slug");
    of_instance || key.starts_with("auth.") || key.starts_with("server.tls.")
}

/// Replaces what can be replaced.
#[derive(Debug, Clone)]
pub struct Reload {
    pub(crate) bridge: Bridge,
    pub(crate) auth: Arc<Auth>,
    pub(crate) certificates: Option<Arc<Certificates>>,
}

impl Reload {
    /// Takes tokens, certificate and keys of `config` into force, or says what is wrong and changes nothing. No
    /// connection is dropped. Where TLS was switched on or off since the start, or an instance came or went, that is left
    /// to the next one.
    pub fn apply(&self, config: &Config) -> Result<(), String> {
        let certificate = match (&self.certificates, &config.server.tls) {
            (Some(_), Some(files)) => Some(files.read()?),
            (None, None) => None,
            _ => {
                tracing::warn!("TLS is switched on or off at the next start");
                None
            }
        };
        // An instance that is not served yet opens nothing with its key.
        let served = self.bridge.instances();
        let mut accepted: BTreeMap<String, SecretString> = config.accepted_gateway_keys();
        accepted.retain(|instance, _| served.get(instance).is_some());
        self.auth
            .reload(&config.auth, &accepted)
            .map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        // Those whose tokens were taken away are to hear no more.
        self.bridge.wake_listeners();
        if let (Some(certificates), Some(certificate)) = (&self.certificates, certificate) {
            certificates.replace(certificate);
        }
        for (name, instance) in &config.instances {
            if let Some(served) = served.get(name) {
                served.replace_key(&instance.api_key);
            } else {
                tracing::warn!(instance = name, "a new instance is served after the next start");
            }
        }
        Ok(())
    }
}
