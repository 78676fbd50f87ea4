//! How much of what the gateway says is kept with a payment. PURE.
//!
//! A reply to a payment is some hundred bytes, and its record keeps it whole, so that a repetition is answered with it to
//! the byte. The connection takes messages of many megabytes all the same, and a record is read whenever its key is used.
//! Of a reply that is too long those members are kept, as they are spelled and in their order, that fit. The first answer
//! is what was kept, too: so it is the same as every later one.

use serde_json::value::RawValue;

use super::record::{Outcome, Release};
use crate::protocol::{Body, GatewayError, Parameters};

/// The longest reply that is kept whole, and the most that is kept of a longer one.
pub(super) const MAX_REPLY: usize = 64 << 10;
/// The longest error word that is kept whole; those known are shorter than 50.
const MAX_WORD: usize = 256;
/// The longest code of an error that is kept.
const MAX_CODE: usize = 4096;

/// The length of a reply, where it is too long to be kept whole.
pub(super) fn excess(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Booked(reply) if reply.as_str().len() > MAX_REPLY => Some(reply.as_str().len() as u64),
        _ => None,
    }
}

/// What is kept of an outcome.
pub(super) fn kept(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Booked(reply) if reply.as_str().len() > MAX_REPLY => Outcome::Booked(beginning(&reply)),
        Outcome::Released(Release::Refused(error)) => Outcome::Released(Release::Refused(short(error))),
        Outcome::Unknown(Some(error)) => Outcome::Unknown(Some(short(error))),
        outcome => outcome,
    }
}

fn beginning(reply: &Body) -> Body {
    let members = Parameters::parse(reply.as_str().as_bytes()).unwrap_or_default();
    let mut left = MAX_REPLY.saturating_sub(2);
    let mut fits = |name: &str, value: &RawValue| {
        // A name is at most six times as long when it is spelled with escapes; quotes, colon and comma.
        let size = 6 * name.len() + value.get().len() + 4;
        let fits = size <= left;
        left -= if fits { size } else { 0 };
        fits
    };
    let kept = members.iter().filter(|(name, value)| fits(name, value));
    let kept = kept.fold(Parameters::default(), |kept, (name, value)| kept.with(name, &value));
    serde_json::value::to_raw_value(&kept).map_or_else(|_| Body::from(RawValue::NULL), |raw| Body::from(&*raw))
}

fn short(error: GatewayError) -> GatewayError {
    let word = error.error.char_indices().take_while(|(at, _)| *at < MAX_WORD).map(|(_, character)| character);
    let GatewayError { code, .. } = GatewayError::word("");
    let code = if error.code.get().len() > MAX_CODE { code } else { error.code };
    GatewayError { error: word.collect(), code }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(json: &str) -> Body {
        Body::from(serde_json::from_str::<&RawValue>(json).unwrap())
    }

    fn kept_of(json: &str) -> Body {
        match kept(Outcome::Booked(body(json))) {
            Outcome::Booked(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reply_that_fits_is_kept_to_the_byte() {
        let long = format!(r#"{{"Items": 1.0, "note":"{}"}}"#, "x".repeat(MAX_REPLY - 25));
        assert_eq!(long.len(), MAX_REPLY);
        assert_eq!(kept_of(&long).as_str(), long);
        assert_eq!(excess(&Outcome::Booked(body(&long))), None);
    }

    #[test]
    fn of_a_longer_one_the_members_that_fit_are_kept_as_they_are_spelled() {
        let long = format!(r#"{{"Items": 1.0,"note":"{}","Sum":2.50}}"#, "x".repeat(MAX_REPLY));
        assert_eq!(kept_of(&long).as_str(), r#"{"Items":1.0,"Sum":2.50}"#);
        assert_eq!(excess(&Outcome::Booked(body(&long))), Some(long.len() as u64));
        assert_eq!(kept_of(&format!("[\"{}\"]", "x".repeat(MAX_REPLY))).as_str(), "{}", "no object");
    }

    #[test]
    fn a_long_error_keeps_its_beginning() {
        let code = RawValue::from_string(format!("\"{}\"", "x".repeat(MAX_CODE))).unwrap();
        let error = GatewayError { error: "ü".repeat(MAX_WORD), code };
        let Outcome::Unknown(Some(kept)) = kept(Outcome::Unknown(Some(error))) else { panic!("unknown stays unknown") };
        assert_eq!((kept.error, kept.code.get()), ("ü".repeat(MAX_WORD / 2), "null"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded(sizes in prop::collection::vec(0..40_000usize, 0..6), odd in any::<bool>()) {
            let name = if odd { "\\u0001" } else { "a" };
            let members: Vec<_> =
                sizes.iter().enumerate().map(|(at, size)| format!("\"{}{at}\":\"{}\"", name.repeat(at), "x".repeat(*size))).collect();
            let reply = kept_of(&format!("{{{}}}", members.join(",")));
            prop_assert!(reply.as_str().len() <= MAX_REPLY);
        }
    }
}
