//! How a gateway's body is spelled inside a stored record: as the JSON it is, byte for byte.
//!
//! A replay must be the reply that came, number spellings and all, so a body is embedded as raw JSON and never read
//! into numbers. For serde's `with`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;

use crate::wire::Body;

pub(super) fn serialize<S: Serializer>(body: &Body, serializer: S) -> Result<S::Ok, S::Error> {
    borrowed(body)?.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Body, D::Error> {
    Ok(Body::from(&*Box::<RawValue>::deserialize(deserializer)?))
}

fn borrowed<E: ser::Error>(body: &Body) -> Result<&RawValue, E> {
    serde_json::from_str(body.as_str()).map_err(E::custom)
}

/// The same for a list of bodies.
pub(super) mod list {
    use super::{Body, Deserialize, Deserializer, RawValue, Serializer, borrowed};

    pub(in crate::journal) fn serialize<S: Serializer>(bodies: &[Body], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bodies.iter().map(borrowed::<S::Error>).collect::<Result<Vec<_>, _>>()?)
    }

    pub(in crate::journal) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Body>, D::Error> {
        let raw: Vec<Box<RawValue>> = Vec::deserialize(deserializer)?;
        Ok(raw.iter().map(|piece| Body::from(&**piece)).collect())
    }
}
