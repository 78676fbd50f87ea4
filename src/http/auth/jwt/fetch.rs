//! Gets the issuer's keys from where they are: by HTTP or out of a file. Blocks: not for an async thread.
//!
//! What is asked for comes from the configuration alone. No redirect is followed and no proxy is used, and both time and size
//! are bounded.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::config::KeySource;
use super::key_set::MAX_BYTES;
use crate::gateway;

/// For the whole of a fetch. A key server in good health answers in much less, and callers wait for it after a rotation.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The text of a key set, or why there is none.
pub(super) fn key_set(source: &KeySource, ca_file: Option<&Path>) -> Result<Vec<u8>, String> {
    match source {
        KeySource::Url(url) => by_http(url, ca_file),
        KeySource::File(path) => {
            let file = File::open(path).map_err(|fault| format!("{}: {fault}", path.display()))?;
            read(file).map_err(|fault| format!("{}: {fault}", path.display()))
        }
    }
}

fn by_http(url: &str, ca_file: Option<&Path>) -> Result<Vec<u8>, String> {
    let trusted = gateway::trusted_certificates(ca_file)?;
    let roots: Vec<_> = trusted.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .max_redirects_will_error(true)
        .proxy(None)
        .build();
    let response = Agent::new_with_config(config)
        .get(url)
        .header("Accept", "application/jwk-set+json, application/json")
        .call()
        .map_err(|fault| fault.to_string())?;
    read(response.into_body().into_reader()).map_err(|fault| fault.to_string())
}

/// One byte more than is taken, so that a set that is too large is told as that.
fn read(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}
