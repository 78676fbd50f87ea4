//! The server's certificate, which is replaced without closing a connection.
//!
//! Each handshake uses the certificate in force. A new one takes effect only if it can be read and fits its key.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Protocols offered by ALPN. Not HTTP/2: h2 0.3 does not limit what a connection makes it hold.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Where certificate and key are, both as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and after it those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Files {
    /// Reads both. The error is a sentence that names the file.
    pub fn read(&self) -> Result<CertifiedKey, String> {
        let certificate = self.certificate.display();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|fault| format!("{certificate}: {fault}"))?;
        if chain.is_empty() {
            return Err(format!("{certificate}: it holds no certificate"));
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|fault| format!("{}: {fault}", self.key.display()))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|fault| format!("{certificate} with {}: {fault}", self.key.display()))
    }
}

/// The certificate in force.
pub struct Certificates(ArcSwap<CertifiedKey>);

/// Shows nothing of the key.
impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Certificates")
    }
}

impl Certificates {
    /// The certificate in these files.
    pub fn read(files: &Files) -> Result<Self, String> {
        Ok(Self(ArcSwap::from_pointee(files.read()?)))
    }

    /// New handshakes use `certificate`; open connections stay.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.0.store(Arc::new(certificate));
    }

    /// The settings of a listener.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
