//! The certificates trusted when dialling `wss`: the system's roots and those of an optional file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The certificates of the system's roots, and then those of the file. The error is a sentence that names the file.
///
/// A system without any is no error here: `ws` needs none, and a `wss` dial will say what is missing.
pub fn trusted_certificates(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let system = rustls_native_certs::load_native_certs();
    for fault in &system.errors {
        tracing::warn!(%fault, "a root certificate of the system cannot be used");
    }
    let mut trusted = system.certs;
    if let Some(path) = ca_file {
        trusted.extend(certificates_of(path)?);
    }
    Ok(trusted)
}

/// The certificates in a file, each of them usable.
fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let own: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|fault| format!("{}: {fault}", path.display()))?;
    if own.is_empty() {
        return Err(format!("{}: it holds no certificate", path.display()));
    }
    let mut tried = RootCertStore::empty();
    for certificate in &own {
        tried.add(certificate.clone()).map_err(|fault| format!("{}: {fault}", path.display()))?;
    }
    Ok(own)
}

/// Builds the TLS settings, with the certificates of [`trusted_certificates`].
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted_certificates(ca_file)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|fault| fault.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
