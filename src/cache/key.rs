//! What a copy is a copy of: keys that cannot collide, and passwords in them that are worth nothing elsewhere.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What the hash of passwords is derived for, so that the same secret used elsewhere gives nothing away here.
const PURPOSE: &[u8] = b"concertpos-bridge: passwords of points of sale";

/// What a copy is a copy of. Compared member by member, never as a joined string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The instance's name.
    pub instance: Arc<str>,
    /// The command's name.
    pub command: Arc<str>,
    /// The point of sale, where the command is about one.
    pub pos_id: Option<i64>,
    /// Any further parameter, spelled canonically.
    pub limit: Option<u64>,
    /// The password of the point of sale as a keyed hash.
    pub password: Option<[u8; 32]>,
}

/// Hashes passwords of points of sale for keys. Its own key is derived from the instance's at the gateway: it is the
/// same after a restart without being written anywhere, so whoever reads the copies on disk can try no passwords.
#[derive(Clone)]
pub struct PasswordKey([u8; 32]);

impl fmt::Debug for PasswordKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordKey(redacted)")
    }
}

impl PasswordKey {
    /// Derived from the instance's key at the gateway.
    #[must_use]
    pub fn derived(api_key: &SecretString) -> Self {
        Self(keyed_hash(api_key.expose_secret().as_bytes(), PURPOSE))
    }

    /// What stands in a key for `password`.
    #[must_use]
    pub fn hash(&self, password: &str) -> [u8; 32] {
        keyed_hash(&self.0, password.as_bytes())
    }
}

fn keyed_hash(key: &[u8], text: &[u8]) -> [u8; 32] {
    // A key of any length is a key to HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_s_hash_depends_on_the_instance_s_key_and_survives_a_restart() {
        let key = |api_key: &str| PasswordKey::derived(&api_key.into());
        assert_eq!(key("a").hash("backstage"), key("a").hash("backstage"));
        assert_ne!(key("a").hash("backstage"), key("b").hash("backstage"));
        assert_ne!(key("a").hash("backstage"), key("a").hash("Backstage"));
        assert_eq!(format!("{:?}", key("a")), "PasswordKey(redacted)");
    }
}
