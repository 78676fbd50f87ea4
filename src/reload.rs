//! What can be replaced while the bridge runs: the instances with their keys, callers' tokens, and the listener's certificate.
//!
//! All of it or nothing: a fault anywhere leaves everything in force as it was. One reload at a time; the next waits.

use std::sync::Arc;

use crate::bridge::Bridge;
use crate::config::Config;
use crate::http::auth::{Auth, Mode};
use crate::http::listener::tls::Certificates;
use crate::supervisor::Supervisor;

pub use crate::supervisor::Difference;

/// Whether [`Reload`] takes the setting of this name. All others wait for the next start.
#[must_use]
pub fn is_reread(key: &str) -> bool {
    ["instances.", "auth.", "server.tls."].iter().any(|section| key.starts_with(section))
}

/// Replaces what can be replaced.
#[derive(Debug, Clone)]
pub struct Reload {
    pub(crate) bridge: Bridge,
    pub(crate) supervisor: Arc<Supervisor>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// Whether it listens on a loopback address.
    pub(crate) is_local: bool,
}

impl Reload {
    /// Takes instances, tokens and certificate of `config` into force and returns what that changed in the instances, or says
    /// what is wrong and changes nothing. No connection is dropped but those of instances and tokens that are gone. Where TLS
    /// was switched on or off since the start, that is left to the next one.
    ///
    /// Cancel safe: all that is awaited comes before the first change.
    pub async fn apply(&self, config: &Config) -> Result<Difference, String> {
        let mut in_force = self.supervisor.in_force().await;
        let certificate = match (&self.certificates, config.server.tls.clone()) {
            (Some(_), Some(files)) => {
                let read = tokio::task::spawn_blocking(move || files.read()).await;
                Some(read.map_err(|panicked| panicked.to_string())??)
            }
            (None, None) => None,
            _ => {
                tracing::warn!("TLS is switched on or off at the next start");
                None
            }
        };
        self.judge(config)?;
        let auth = self
            .auth
            .prepare(&config.auth, &config.accepted_gateway_keys())
            .map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let prepared = self.supervisor.prepare(&config.instances);
        let prepared = prepared.map_err(|fault| format!("an instance cannot be started: {fault}"))?;
        // Nothing fails from here on. What was retired is told first, so that its callers learn of that and not of tokens
        // that went with it.
        let difference = Difference::between(&in_force.instances, &config.instances);
        self.supervisor.commit(&mut in_force, config.instances.clone(), prepared);
        self.auth.install(auth);
        if let (Some(certificates), Some(certificate)) = (&self.certificates, certificate) {
            certificates.replace(certificate);
        }
        // Those whose tokens were taken away are to hear no more.
        self.bridge.wake_listeners();
        Ok(difference)
    }

    /// What cannot be taken into force though a start would take it.
    fn judge(&self, config: &Config) -> Result<(), String> {
        if self.bridge.is_draining() {
            return Err("the bridge is shutting down".to_owned());
        }
        if config.auth.mode == Mode::None && !self.is_local {
            return Err("auth.mode may be \"none\" only on a loopback address, and server.listen waits for a restart"
                .to_owned());
        }
        match config.instances.keys().find(|name| self.supervisor.shards().contains(name)) {
            Some(name) => Err(format!("instances.{name} is named like a shard until a restart changes gateway.shards")),
            None => Ok(()),
        }
    }
}
