//! The certificates trusted when dialling `wss`: the system's roots and those of an optional file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Builds the TLS settings. The error is a sentence that names the file.
///
/// A system without any root certificate is no error here: `ws` needs none, and a `wss` dial will say what is missing.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for fault in &system.errors {
        tracing::warn!(%fault, "a root certificate of the system cannot be used");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let own: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|fault| format!("{}: {fault}", path.display()))?;
        if own.is_empty() {
            return Err(format!("{}: it holds no certificate", path.display()));
        }
        for certificate in own {
            roots.add(certificate).map_err(|fault| format!("{}: {fault}", path.display()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|fault| fault.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
