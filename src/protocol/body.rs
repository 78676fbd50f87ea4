//! What a reply or a broadcast carried, as the text that came.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as text: what a reply or a broadcast carried. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Body(Arc<str>);

impl Body {
    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the gateway answers to a sale of so many products.
    #[must_use]
    pub fn items(count: usize) -> Self {
        Self(Arc::from(format!("{{\"Items\":{count}}}")))
    }

    /// `{}`.
    pub(super) fn empty_object() -> Self {
        Self(Arc::from("{}"))
    }

    /// Whether the value is an object, as every documented reply is.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
}

impl From<&RawValue> for Body {
    fn from(raw: &RawValue) -> Self {
        Self(Arc::from(raw.get()))
    }
}

/// As the text that came, not a character changed. With `serde_json` alone.
impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer).map_err(D::Error::custom)?;
        Ok(Self::from(&*raw))
    }
}

/// Bodies hold prices and, for `verifyauth`, a password: `Debug` shows only their size.
impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Body({} bytes)", self.0.len())
    }
}
