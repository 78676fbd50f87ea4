//! A payment's name in the bridge.
//!
//! It is the bridge's own and says nothing about the caller or the sale, since it stands in URLs and logs. The clock in
//! a version 7 UUID makes listing by id listing by age, roughly: no promise rests on that order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A payment's name in the bridge: a version 7 UUID, so ids are roughly in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(Uuid);

impl RecordId {
    /// An id nobody else has.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a number that sorts as its text does.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl From<u128> for RecordId {
    fn from(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.to_string()
    }
}

impl FromStr for RecordId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for RecordId {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_number() {
        let id = RecordId::fresh();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(RecordId::from(id.as_u128()), id);
    }

    #[test]
    fn ids_of_one_process_sort_in_the_order_they_were_made() {
        let ids: Vec<_> = (0..100).map(|_| RecordId::fresh()).collect();
        assert!(ids.is_sorted_by(|one, other| one < other && one.as_u128() < other.as_u128()));
    }
}
