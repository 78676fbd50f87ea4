//! How a gateway's body is spelled inside a stored record: as the JSON it is, byte for byte.
//!
//! A replay must be the reply that came, number spellings and all, so a body is embedded as raw JSON and never read
//! into numbers. For serde's `with`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;

use crate::protocol::Body;

pub(super) fn serialize<S: Serializer>(body: &Body, serializer: S) -> Result<S::Ok, S::Error> {
    borrowed(body)?.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Body, D::Error> {
    Ok(Body::from(&*Box::<RawValue>::deserialize(deserializer)?))
}

fn borrowed<E: ser::Error>(body: &Body) -> Result<&RawValue, E> {
    serde_json::from_str(body.as_str()).map_err(E::custom)
}
