//! One value of JSON or JSON5, with every number as it was spelled.
//!
//! The gateway's prices are decimals and have to reach the wire digit for digit, so numbers stay text here; whoever
//! computes with one goes through [`super::decimal`]. Objects are lists, because the order of keys is part of what a
//! reply looks like. Reading is in [`super::reader`], printing in [`super::printer`].

use std::borrow::Cow;

/// Text that is usually a constant of this program and sometimes came over the wire.
pub(super) type Text = Cow<'static, str>;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As spelled; may be `Infinity`, `-Infinity` or `NaN`.
    Number(Text),
    String(Text),
    Array(Vec<Value>),
    Object(Vec<(Text, Value)>),
}

impl Value {
    pub(super) const fn number(spelling: &'static str) -> Self {
        Self::Number(Cow::Borrowed(spelling))
    }

    pub(super) const fn string(text: &'static str) -> Self {
        Self::String(Cow::Borrowed(text))
    }

    pub(super) fn object<const N: usize>(fields: [(&'static str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
    }

    /// The field `key` of an object; where it is written twice the last one counts, as in JavaScript.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Like [`Value::get`], with `null` counting as absent.
    pub(super) fn given(&self, key: &str) -> Option<&Self> {
        self.get(key).filter(|value| **value != Self::Null)
    }

    /// Puts `value` in the place of `key`, or at the end. Does nothing to what is no object.
    pub(super) fn set(&mut self, key: &str, value: Self) {
        let Self::Object(fields) = self else { return };
        match fields.iter_mut().rev().find(|(name, _)| name == key) {
            Some((_, place)) => *place = value,
            None => fields.push((Cow::Owned(key.to_owned()), value)),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a number or of a string: the gateway takes one for the other.
    pub(super) fn spelling(&self) -> Option<&str> {
        match self {
            Self::Number(text) | Self::String(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// A whole number, given as a number or as a string.
    pub(super) fn as_integer(&self) -> Option<i64> {
        self.spelling()?.parse().ok()
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Cow::Owned(number.to_string()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(Cow::Owned(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_equal_keys_counts_and_is_the_one_replaced() {
        let mut value = Value::object([("a", 1.into()), ("b", 2.into()), ("a", 3.into())]);
        assert_eq!(value.get("a"), Some(&3.into()));
        value.set("a", Value::Null);
        assert_eq!((value.get("a"), value.given("a")), (Some(&Value::Null), None));
        value.set("c", 4.into());
        assert_eq!(value.given("c"), Some(&4.into()));
    }

    #[test]
    fn whole_numbers_are_taken_as_strings_too() {
        assert_eq!(Value::string(" 12 ").as_integer(), Some(12));
        assert_eq!(Value::number("-3").as_integer(), Some(-3));
        assert_eq!(Value::string("twelve").as_integer(), None);
        assert_eq!(Value::Bool(true).as_integer(), None);
    }
}
