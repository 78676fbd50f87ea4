//! What a cached reply answers: keys that cannot collide, with passwords as keyed hashes.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use equivalent::Equivalent;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::Sha256;

use crate::protocol::Parameters;
use crate::protocol::command::{self, ParameterKind, Spec};

/// Separates this use of the instance's key from any other.
const PURPOSE: &[u8] = b"concertpos-bridge: passwords of points of sale";

/// A name in the command table. By this alias serde does not take it for something to borrow from its input.
type Name = &'static str;

/// What a cached reply answers. Compared member by member, never as a joined string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "StoredKey", into = "StoredKey")]
pub struct Key {
    /// The instance's name at the gateway, whose replies these are whatever the bridge calls it.
    pub instance: Arc<str>,
    pub command: Name,
    /// The point of sale, where the command is about one.
    pub pos_id: Option<i64>,
    /// The further parameters in the order of the command's table row: REST name and JSON text, spelled canonically.
    pub further: Vec<(Name, Box<str>)>,
    /// The password of the point of sale as a keyed hash.
    pub password: Option<[u8; 32]>,
}

/// A [`Key`] of a command about at most a point of sale, and without a password, to look one up by without making it.
#[derive(Debug, Clone)]
pub struct PlainKey<'a> {
    pub instance: &'a Arc<str>,
    pub command: &'static str,
    /// The point of sale, where the command is about one.
    pub pos_id: Option<i64>,
}

impl PlainKey<'_> {
    /// The key that it is equivalent to.
    #[must_use]
    pub fn key(&self) -> Key {
        let Self { instance, command, pos_id } = *self;
        Key { instance: Arc::clone(instance), command, pos_id, further: Vec::new(), password: None }
    }
}

/// As the derived hash of the key that it is equivalent to: member by member.
impl Hash for PlainKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let further: &[(&str, Box<str>)] = &[];
        (self.instance, self.command, self.pos_id, further, None::<[u8; 32]>).hash(state);
    }
}

impl Equivalent<Key> for PlainKey<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        let Key { instance, command, pos_id, further, password } = key;
        (instance, *command, *pos_id) == (self.instance, self.command, self.pos_id)
            && further.is_empty()
            && password.is_none()
    }
}

impl Key {
    /// The key of a command with these parameters, each spelled canonically. All that the command's row lists enter it.
    #[must_use]
    pub fn new(instance: &Arc<str>, spec: &'static Spec, parameters: &Parameters, passwords: &PasswordKey) -> Self {
        let mut key = PlainKey { instance, command: spec.name, pos_id: None }.key();
        for parameter in spec.parameters {
            let Some(value) = parameters.get(parameter.name).map(RawValue::get) else { continue };
            match parameter.kind {
                ParameterKind::Secret => {
                    let password: Option<String> = serde_json::from_str(value).ok();
                    key.password = password.map(|password| passwords.hash(&password));
                }
                _ if parameter == &command::POSID => key.pos_id = value.parse().ok(),
                ParameterKind::Id | ParameterKind::Count | ParameterKind::Any => {
                    key.further.push((parameter.rest_name, value.into()));
                }
            }
        }
        key
    }
}

/// A key as the file of its reply spells it.
#[derive(Serialize, Deserialize)]
struct StoredKey {
    instance: Arc<str>,
    command: String,
    pos_id: Option<i64>,
    /// By REST name; null is absent.
    #[serde(flatten)]
    further: BTreeMap<String, Value>,
    password: Option<[u8; 32]>,
}

impl From<Key> for StoredKey {
    fn from(key: Key) -> Self {
        let Key { instance, command, pos_id, further, password } = key;
        let value = |text: &str| serde_json::from_str(text).unwrap_or_default();
        let further = further.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        Self { instance, command: command.to_owned(), pos_id, further, password }
    }
}

impl TryFrom<StoredKey> for Key {
    type Error = String;

    fn try_from(stored: StoredKey) -> Result<Self, String> {
        let StoredKey { instance, command, pos_id, mut further, password } = stored;
        let spec = command::find(&command).ok_or("no such command")?;
        further.retain(|_, value| !value.is_null());
        let mut key = Self { password, ..PlainKey { instance: &instance, command: spec.name, pos_id }.key() };
        for name in spec.parameters.iter().map(|parameter| parameter.rest_name) {
            key.further.extend(further.remove(name).map(|value| (name, value.to_string().into())));
        }
        match further.pop_first() {
            Some((unknown, _)) => Err(format!("no such parameter: {unknown}")),
            None => Ok(key),
        }
    }
}

/// Hashes passwords of points of sale for keys. Its own key is derived from the instance's at the gateway: it is the
/// same after a restart without being written anywhere, so passwords cannot be tried against the copies on disk.
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
            Key { further: vec![("limit", "1".into())], ..plain.key() },
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

    #[test]
    fn every_parameter_of_the_row_enters_the_key_and_a_stored_key_is_read_back() {
        let (demo, passwords) = (Arc::from("demo"), PasswordKey::derived(&"k".into()));
        let key = |spec, json: &str| Key::new(&demo, spec, &Parameters::parse(json.as_bytes()).unwrap(), &passwords);
        let full = r#"{"POSID":7,"posPassword":"p","Limit":5,"api_key":"x","note":1}"#;
        let transactions = key(&command::LISTTRANSACTIONS, full);
        assert_eq!((transactions.pos_id, transactions.further.as_slice()), (Some(7), &[("limit", "5".into())][..]));
        assert_eq!(transactions.password, Some(passwords.hash("p")));
        assert_eq!(key(&command::GETCONFIG, full), key(&command::GETCONFIG, "{}"), "what is no parameter is left out");
        for key in [transactions, key(&command::LISTPM, r#"{"POSID":7}"#), key(&command::GETCONFIG, "{}")] {
            let stored = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<Key>(&stored).unwrap(), key, "{stored}");
        }
    }

    #[test]
    fn a_key_as_earlier_releases_stored_it_is_read_and_an_unknown_parameter_is_an_error() {
        let stored = |command: &str, limit: &str, more: &str| {
            format!(r#"{{"instance":"demo","command":"{command}","pos_id":7,"limit":{limit},"password":null{more}}}"#)
        };
        let read = |text: String| serde_json::from_str::<Key>(&text).ok();
        assert_eq!(read(stored("listpm", "null", "")).unwrap().further, []);
        assert_eq!(read(stored("listtransactions", "50", "")).unwrap().further, [("limit", "50".into())]);
        assert!(read(stored("listpm", "50", "")).is_none());
        assert!(read(stored("listpm", "null", r#","x":1"#)).is_none());
        assert!(read(stored("newthing", "null", "")).is_none());
    }
}
