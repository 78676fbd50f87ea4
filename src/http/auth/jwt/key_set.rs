//! An issuer's keys, read from a JWK Set (RFC 7517). PURE.
//!
//! A key that cannot be used here is left out, whatever the reason: an issuer may have keys for other purposes, and of kinds
//! that are yet to come. What each key verifies is decided here, by its kind, and never by what a token says.

use std::collections::{BTreeMap, BTreeSet};

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::config::SignatureAlgorithm;

/// The largest set that is read. A key of 4096 bits has about 1 KiB, with a chain of certificates some more.
pub const MAX_BYTES: usize = 256 << 10;

/// More keys than any issuer needs: each is one that can sign for every caller.
pub const MAX_KEYS: usize = 64;

/// Bits of an RSA modulus that ring verifies by.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Bytes of a coordinate of P-256, and of a key of Ed25519.
const COORDINATE_BYTES: usize = 32;

/// Keys that verify, by their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KeySet {
    by_id: BTreeMap<String, Key>,
    /// Those without an id.
    unnamed: Vec<Key>,
    /// How many there were besides that cannot be used here.
    pub(super) unusable: usize,
}

/// One key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) verifying: DecodingKey,
    pub(super) thumbprint: Thumbprint,
}

/// What tells a key from every other one.
pub(super) type Thumbprint = [u8; 32];

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a set, or says what is wrong with it. Without a key that can be used it is none.
    pub(super) fn read(json: &[u8], allowed: &BTreeSet<SignatureAlgorithm>) -> Result<Self, String> {
        if json.len() > MAX_BYTES {
            return Err(format!("the key set has more than {} KiB", MAX_BYTES >> 10));
        }
        let document: Document<'_> =
            serde_json::from_slice(json).map_err(|_| "it is not a JWK Set: a JSON object with `keys`".to_owned())?;
        if document.keys.len() > MAX_KEYS {
            return Err(format!("the key set has more than {MAX_KEYS} keys"));
        }
        let mut set = Self::default();
        for json in document.keys {
            let jwk = serde_json::from_str::<Jwk>(json.get()).ok();
            let usable = jwk.as_ref().and_then(|jwk| Some((jwk.common.key_id.clone(), Key::of(jwk, allowed)?)));
            match usable {
                // Of two with one id, no token can say which is meant.
                Some((Some(id), _)) if set.by_id.contains_key(&id) => set.unusable += 1,
                Some((Some(id), key)) => drop(set.by_id.insert(id, key)),
                Some((None, key)) => set.unnamed.push(key),
                None => set.unusable += 1,
            }
        }
        if set.count() == 0 {
            let names: Vec<_> = allowed.iter().map(|algorithm| algorithm.name()).collect();
            return Err(format!("the key set has no key for {}", names.join(", ")));
        }
        Ok(set)
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len() + self.unnamed.len()
    }

    /// The key that a token names; for one that names none, the only key there is.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.by_id.get(id),
            None if self.count() == 1 => self.by_id.values().chain(&self.unnamed).next(),
            None => None,
        }
    }

    pub(super) fn has(&self, thumbprint: &Thumbprint) -> bool {
        self.by_id.values().chain(&self.unnamed).any(|key| key.thumbprint == *thumbprint)
    }

    /// Whether some key of `other` is not in this set.
    pub(super) fn lacks_one_of(&self, other: &Self) -> bool {
        other.by_id.values().chain(&other.unnamed).any(|key| !self.has(&key.thumbprint))
    }
}

impl Key {
    /// None where the key is not one to verify by, here.
    fn of(jwk: &Jwk, allowed: &BTreeSet<SignatureAlgorithm>) -> Option<Self> {
        let common = &jwk.common;
        let is_to_sign = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => {
                let (n, e) = (decoded(&key.n)?, decoded(&key.e)?);
                // A leading zero is no part of a number.
                let length = n.iter().skip_while(|byte| **byte == 0).count();
                (RSA_BYTES.contains(&length) && !e.is_empty()).then_some(SignatureAlgorithm::Rs256)?
            }
            AlgorithmParameters::EllipticCurve(key) => {
                let is_whole = [&key.x, &key.y].iter().all(|one| is_coordinate(one));
                (key.curve == EllipticCurve::P256 && is_whole).then_some(SignatureAlgorithm::Es256)?
            }
            AlgorithmParameters::OctetKeyPair(key) => {
                (key.curve == EllipticCurve::Ed25519 && is_coordinate(&key.x)).then_some(SignatureAlgorithm::EdDsa)?
            }
            _ => return None,
        };
        let is_its_own = common.key_algorithm.as_ref().is_none_or(|named| named.to_string() == algorithm.name());
        if !(is_to_sign && verifies && is_its_own && allowed.contains(&algorithm)) {
            return None;
        }
        Some(Self { algorithm, verifying: verifying(jwk)?, thumbprint: thumbprint(jwk) })
    }
}

fn verifying(jwk: &Jwk) -> Option<DecodingKey> {
    match &jwk.algorithm {
        // ring takes no leading zeros.
        AlgorithmParameters::RSA(key) => {
            let bare = |text| Some(decoded(text)?.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>());
            Some(DecodingKey::from_rsa_raw_components(&bare(&key.n)?, &bare(&key.e)?))
        }
        _ => DecodingKey::from_jwk(jwk).ok(),
    }
}

fn thumbprint(jwk: &Jwk) -> Thumbprint {
    let parts: [&str; 3] = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => ["RSA", &key.n, &key.e],
        AlgorithmParameters::EllipticCurve(key) => ["EC", &key.x, &key.y],
        AlgorithmParameters::OctetKeyPair(key) => ["OKP", &key.x, ""],
        _ => ["", "", ""],
    };
    // Base64 has no comma.
    Sha256::digest(parts.join(",")).into()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

fn is_coordinate(text: &str) -> bool {
    decoded(text).is_some_and(|bytes| bytes.len() == COORDINATE_BYTES)
}
