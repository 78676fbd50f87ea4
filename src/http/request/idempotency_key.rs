//! The key under which a caller repeats a sale without booking it twice.
//!
//! The header's draft standard wants a quoted string, most clients send a bare one; both spell the same key.

use actix_web::http::header::HeaderMap;

use crate::http::problem::{Problem, table};

/// The header's name.
pub const HEADER: &str = "Idempotency-Key";

/// The longest key, in characters.
const LONGEST: usize = 255;

/// 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of a request. Two header fields are refused: which was meant is not known.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let refused = |detail: &'static str| Problem::new(&table::IDEMPOTENCY_KEY_MISSING).detail(detail);
        let mut given = headers.get_all(HEADER);
        let header = match (given.next(), given.next()) {
            (Some(header), None) => header,
            (None, _) => return Err(Problem::new(&table::IDEMPOTENCY_KEY_MISSING)),
            (Some(_), Some(_)) => {
                return Err(refused("The request has more than one `Idempotency-Key` header. Nothing was sent."));
            }
        };
        header.to_str().ok().and_then(Self::parse).ok_or_else(|| {
            refused(
                "The `Idempotency-Key` header must hold 1 to 255 visible ASCII characters, bare or quoted. Nothing was sent.",
            )
        })
    }

    /// Reads either spelling. A text that begins with a quote must be a whole quoted string.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t']);
        let key = match text.strip_prefix('"') {
            Some(rest) => unquote(rest)?,
            None => text.to_owned(),
        };
        let is_key = (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        is_key.then_some(Self(key))
    }

    /// The key, unquoted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rest of an RFC 9651 string after its opening quote: only `\"` and `\\` are escapes, and nothing follows it.
fn unquote(rest: &str) -> Option<String> {
    let mut key = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            character => key.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(256);
        for text in ["", " ", "\"\"", "\"open", "\"a\"b", "\"a\";p=1", "a b", "\"a b\"", "\"\\n\"", "ü", &long] {
            assert_eq!(IdempotencyKey::parse(text), None, "{text}");
        }
        assert!(IdempotencyKey::parse(&long[1..]).is_some());
    }

    proptest! {
        #[test]
        fn quoted_and_bare_are_the_same_key(key in "[!#-~][!-~]{0,254}") {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let bare = IdempotencyKey::parse(&key).unwrap();
            prop_assert_eq!(bare.as_str(), key.as_str());
            prop_assert_eq!(IdempotencyKey::parse(&quoted), Some(bare));
        }
    }
}
