//! TLS between replicas: each shows a certificate of the cluster's authority, and believes no other.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::cluster;
use crate::http::listener::tls::Files;

/// The one protocol that is spoken.
const PROTOCOL: &[u8] = b"http/1.1";

/// Both ends of a connection between replicas.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
}

impl Tls {
    /// From these files. The error is a sentence that names the file.
    pub(super) fn read(files: &cluster::config::Tls) -> Result<Self, String> {
        let own = Files { certificate: files.certificate.clone(), key: files.key.clone() }.read()?;
        let own = Arc::new(SingleCertAndKey::from(own));
        let (roots, provider) = (Arc::new(roots(&files.ca)?), Arc::new(ring::default_provider()));
        let of_ca = |fault: &dyn std::fmt::Display| format!("{}: {fault}", files.ca.display());
        Ok(Self {
            client: Arc::new(client(Arc::clone(&roots), Arc::clone(&provider), &own).map_err(|fault| of_ca(&fault))?),
            server: Arc::new(server(roots, provider, &own).map_err(|fault| of_ca(&fault))?),
        })
    }
}

fn roots(ca: &Path) -> Result<RootCertStore, String> {
    let of_ca = |fault: &dyn std::fmt::Display| format!("{}: {fault}", ca.display());
    let certificates = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut roots = RootCertStore::empty();
    for certificate in certificates.map_err(|fault| of_ca(&fault))? {
        roots.add(certificate).map_err(|fault| of_ca(&fault))?;
    }
    if roots.is_empty() { Err(of_ca(&"it holds no certificate")) } else { Ok(roots) }
}

fn client(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    own: &Arc<SingleCertAndKey>,
) -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(verifier)
        .with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(own));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

fn server(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    own: &Arc<SingleCertAndKey>,
) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::<SingleCertAndKey>::clone(own));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}
