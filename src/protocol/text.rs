//! Text and members of JSON that came from the gateway, read without refusing what JavaScript prints.
//!
//! A JavaScript string may hold half of a surrogate pair, for example where it was cut at a length, and `JSON.stringify`
//! prints it as `\ud83c`. No Rust string can hold it, so where text is needed it is read as U+FFFD, as a browser would
//! write it out; everything else stays raw.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON string. Lone surrogates are read as U+FFFD.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
                Ok(Text(decoded(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(decoded(bytes).into_owned())))
            }
        }

        // As bytes, a string may hold lone surrogates: `serde_json` then encodes them as UTF-8 would if it could.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The text of bytes that are UTF-8 but for surrogates, each of which was encoded in three bytes.
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // A surrogate begins with this byte; the two after it are chunks of their own.
        if chunk.invalid().first() == Some(&0xED) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Cow::Owned(text)
}

/// The text of a JSON string; nothing where it is another value.
pub(super) fn read(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// A member of an object, as far as its name tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Member<'a> {
    /// It is not there.
    Absent,
    Once(&'a RawValue),
    /// There are two of that name, and which of them counts is not known.
    Twice,
}

impl<'a> Member<'a> {
    /// Its text, where it is there once and is a string.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        if let Self::Once(raw) = self { read(raw) } else { None }
    }
}

/// The members of these names; all others are passed over. An error where `json` is not one object.
pub(super) fn members<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Result<[Member<'a>; N], serde_json::Error> {
    read_whole(json, Members(names))
}

/// The members of these names in the object `inside` of an object, in one pass: only where that is tagged before with this name
/// and text, and each of the two is there once. Nothing else is an error here.
pub(super) fn members_of_tagged<'a, const N: usize>(
    json: &'a str,
    tag: (&str, &str),
    inside: &str,
    names: [&str; N],
) -> Option<[Member<'a>; N]> {
    read_whole(json, Tagged { tag, inside, names }).ok().flatten()
}

fn read_whole<'a, S: DeserializeSeed<'a>>(json: &'a str, seed: S) -> Result<S::Value, serde_json::Error> {
    let mut from = serde_json::Deserializer::from_str(json);
    let found = seed.deserialize(&mut from)?;
    from.end()?;
    Ok(found)
}

/// Reads the members of these names.
struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Member<'de>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Member<'de>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [Member::Absent; N];
        while let Some(name) = map.next_key::<Text<'de>>()? {
            let value = map.next_value()?;
            for (member, wanted) in found.iter_mut().zip(self.0) {
                if wanted == name.0 {
                    *member = if matches!(member, Member::Absent) { Member::Once(value) } else { Member::Twice };
                }
            }
        }
        Ok(found)
    }
}

/// See [`members_of_tagged`].
struct Tagged<'n, const N: usize> {
    tag: (&'n str, &'n str),
    inside: &'n str,
    names: [&'n str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Tagged<'_, N> {
    type Value = Option<[Member<'de>; N]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Tagged<'_, N> {
    type Value = Option<[Member<'de>; N]>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut is_tagged, mut found) = (false, None);
        while let Some(name) = map.next_key::<Text<'de>>()? {
            if name.0 == self.tag.0 && !is_tagged {
                is_tagged = map.next_value::<Text<'de>>()?.0 == self.tag.1;
            } else if name.0 == self.inside && is_tagged && found.is_none() {
                found = Some(map.next_value_seed(Members(self.names))?);
            } else if name.0 == self.tag.0 || name.0 == self.inside {
                return Err(de::Error::custom("twice, or in another order"));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str) -> Option<String> {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        read(raw).map(Cow::into_owned)
    }

    #[test]
    fn half_a_pair_is_read_as_one_replacement_and_a_pair_as_its_character() {
        let rows = [
            (r#""Beer is out \ud83c""#, "Beer is out \u{fffd}"),
            (r#""\ud83c\udf7a""#, "🍺"),
            (r#""\udf7a\ud83c""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83c \ud83c\ud83c\udf7a€\udfff""#, "\u{fffd} \u{fffd}🍺€\u{fffd}"),
            (r#""\ud7ff\ue000퟿""#, "\u{d7ff}\u{e000}퟿"),
            (r#""""#, ""),
        ];
        for (json, expected) in rows {
            assert_eq!(text(json).as_deref(), Some(expected), "{json}");
        }
    }

    #[test]
    fn other_values_are_no_text() {
        for json in ["7", "null", "{}", "[104, 105]", "true"] {
            assert_eq!(text(json), None, "{json}");
        }
    }

    proptest! {
        /// What a JavaScript engine makes of a string of UTF-16 units when it writes it out.
        #[test]
        fn any_units_are_read_as_a_browser_would_write_them(
            units in proptest::collection::vec(prop_oneof![0xd7f0..0xe010_u16, any::<u16>()], 0..12),
            plain in any::<bool>(),
        ) {
            let mut json = String::from("\"");
            for unit in &units {
                match char::from_u32(u32::from(*unit)).filter(|letter| plain && letter.is_alphanumeric()) {
                    Some(letter) => json.push(letter),
                    None => json.extend(format!("\\u{unit:04x}").chars()),
                }
            }
            json.push('"');
            prop_assert_eq!(text(&json), Some(String::from_utf16_lossy(&units)));
        }
    }
}
