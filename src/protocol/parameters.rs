//! A command's parameters: a JSON object whose values are kept exactly as they were spelled.
//!
//! The bridge forwards fields it does not know and numbers it must not reprint, so a value is raw text here and only
//! the names are understood. A name given twice is an error: which of the two the gateway would take is not known.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An ordered JSON object of raw values.
#[derive(Debug, Clone, Default)]
pub struct Parameters(Vec<(String, Box<RawValue>)>);

impl Parameters {
    /// Reads a JSON object. The error is a sentence for the caller that sent it.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Sets `name`, replacing a value it may have.
    #[must_use]
    pub fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        // Numbers, strings and raw values are all that is ever set, and none of them can fail to serialize.
        if let Ok(raw) = serde_json::value::to_raw_value(value) {
            self.remove(name);
            self.0.push((name.to_owned(), raw));
        }
        self
    }

    /// Takes `name` out; returns what it held.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// The raw JSON text of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The members in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_ref()))
    }
}

impl Serialize for Parameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Parameters;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                let mut names = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if !names.insert(key.clone()) {
                        return Err(de::Error::custom(format_args!("the name `{key}` is given twice")));
                    }
                    members.push((key, map.next_value()?));
                }
                Ok(Parameters(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_spelling_and_order() {
        let given = r#"{"b":1.10,"a":12345678901234567890123,"c":{"x": [1.0]}}"#;
        let parameters = Parameters::parse(given.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&parameters).unwrap(), given);
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        let error = Parameters::parse(br#"{"POSID":1,"POSID":2}"#).unwrap_err();
        assert!(error.to_string().contains("`POSID` is given twice"), "{error}");
    }

    #[test]
    fn setting_replaces_what_was_given() {
        let parameters = Parameters::parse(br#"{"api_key":"theirs","x":1}"#).unwrap().with("api_key", &"ours");
        assert_eq!(serde_json::to_string(&parameters).unwrap(), r#"{"x":1,"api_key":"ours"}"#);
    }
}
