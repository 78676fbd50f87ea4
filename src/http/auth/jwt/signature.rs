//! Signatures, verified by ring, which TLS uses too: the only file that names it.
//!
//! `jsonwebtoken` takes its cryptography from a provider of the process. This one knows three algorithms and signs nothing.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::config::SignatureAlgorithm;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    // Of no use to whoever only verifies.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Has `jsonwebtoken` use ring in this process.
pub(super) fn use_ring() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // It fails only where one is installed.
        let _ = PROVIDER.install_default();
    });
}

pub(super) fn algorithm(algorithm: SignatureAlgorithm) -> Algorithm {
    match algorithm {
        SignatureAlgorithm::Rs256 => Algorithm::RS256,
        SignatureAlgorithm::Es256 => Algorithm::ES256,
        SignatureAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as the provider wants it")]
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn jsonwebtoken::crypto::JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

/// A key that verifies by the one algorithm of its kind.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as the provider wants it")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let key = match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => Key::Rsa { n: n.clone(), e: e.clone() },
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => Key::P256(point.clone()),
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => Key::Ed25519(point.clone()),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let verified = match &self.key {
            Key::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Key::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Key::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
