//! What a copy is a copy of: keys that cannot collide, and passwords in them that are worth nothing elsewhere.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use equivalent::Equivalent;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::Sha256;

use crate::protocol::{Spec, command};

/// What the hash of passwords is derived for, so that the same secret used elsewhere gives nothing away here.
const PURPOSE: &[u8] = b"concertpos-bridge: passwords of points of sale";

/// The name of a command of the table. By this alias serde does not take it for something to borrow from its input.
type CommandName = &'static str;

/// What a copy is a copy of. Compared member by member, never as a joined string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The instance's name.
    pub instance: Arc<str>,
    /// The command's name.
    #[serde(deserialize_with = "known_command")]
    pub command: CommandName,
    /// The point of sale, where the command is about one.
    pub pos_id: Option<i64>,
    /// Any further parameter, spelled canonically.
    pub limit: Option<u64>,
    /// The password of the point of sale as a keyed hash.
    pub password: Option<[u8; 32]>,
}

/// A [`Key`] without a limit and without a password, to look one up by without making it.
#[derive(Debug, Clone)]
pub struct PlainKey<'a> {
    /// The instance's name.
    pub instance: &'a Arc<str>,
    /// The command's name.
    pub command: &'static str,
    /// The point of sale, where the command is about one.
    pub pos_id: Option<i64>,
}

impl PlainKey<'_> {
    /// The key that it is equivalent to.
    #[must_use]
    pub fn key(&self) -> Key {
        let Self { instance, command, pos_id } = *self;
        Key { instance: Arc::clone(instance), command, pos_id, limit: None, password: None }
    }
}

/// As the derived hash of the key that it is equivalent to: member by member.
impl Hash for PlainKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.instance, self.command, self.pos_id, None::<u64>, None::<[u8; 32]>).hash(state);
    }
}

impl Equivalent<Key> for PlainKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let Key { instance, command, pos_id, limit, password } = key;
        (instance, *command, *pos_id) == (self.instance, self.command, self.pos_id)
            && limit.is_none()
            && password.is_none()
    }
}

impl Key {
    /// What a read without a limit and without a password is a copy of.
    #[must_use]
    pub fn plain(instance: &Arc<str>, spec: &'static Spec, pos_id: Option<i64>) -> Self {
        PlainKey { instance, command: spec.name, pos_id }.key()
    }
}

fn known_command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandName, D::Error> {
    let name = String::deserialize(deserializer)?;
    command::find(&name).map(|spec| spec.name).ok_or_else(|| D::Error::custom("no such command"))
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
    use std::hash::DefaultHasher;

    use super::*;

    #[test]
    fn a_plain_key_finds_the_key_that_it_is_equivalent_to_and_no_other() {
        let (demo, other): (Arc<str>, Arc<str>) = ("demo".into(), "other".into());
        let plain = PlainKey { instance: &demo, command: "listproducts", pos_id: Some(7) };
        let hash = |value: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            value(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&|hasher| plain.hash(hasher)), hash(&|hasher| plain.key().hash(hasher)));
        assert!(plain.equivalent(&plain.key()));
        for key in [
            Key { instance: other, ..plain.key() },
            Key { command: "listpm", ..plain.key() },
            Key { pos_id: None, ..plain.key() },
            Key { limit: Some(1), ..plain.key() },
            Key { password: Some([0; 32]), ..plain.key() },
        ] {
            assert!(!plain.equivalent(&key), "{key:?}");
        }
    }

    #[test]
    fn a_password_s_hash_depends_on_the_instance_s_key_and_survives_a_restart() {
        let key = |api_key: &str| PasswordKey::derived(&api_key.into());
        assert_eq!(key("a").hash("backstage"), key("a").hash("backstage"));
        assert_ne!(key("a").hash("backstage"), key("b").hash("backstage"));
        assert_ne!(key("a").hash("backstage"), key("a").hash("Backstage"));
        assert_eq!(format!("{:?}", key("a")), "PasswordKey(redacted)");
    }
}
