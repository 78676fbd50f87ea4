//! Whole numbers as callers spell them.
//!
//! The gateway is a JavaScript program: beyond 2^53 it would round an id to another id. A number that it could not hold
//! is therefore refused here rather than sold as something else. The spelling itself is forwarded untouched; what is
//! read here is only for judging it.

/// The largest whole number the gateway can tell from its neighbours: JavaScript's `Number.MAX_SAFE_INTEGER`.
pub const LARGEST: i64 = 9_007_199_254_740_991;

/// Why a text is no whole number from 0 to [`LARGEST`]. Written to be read after the name of what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotWhole {
    /// Another JSON type, or a string that is no number.
    #[error("must be a whole number")]
    NotANumber,
    /// Digits that begin with a zero: another spelling of the same would be another copy, another key, another path.
    #[error("must be written without leading zeros")]
    LeadingZero,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// With a fraction.
    #[error("must not have a fraction")]
    Fraction,
    /// With an exponent, whose value is easily misread.
    #[error("must be written without an exponent")]
    Exponent,
    /// Beyond [`LARGEST`].
    #[error("must not be larger than 9007199254740991")]
    TooLarge,
}

/// Reads a JSON number, or a JSON string of nothing but digits, as tills send them. `2.0` is 2; `"2.0"` is refused,
/// for what the gateway makes of such a string is not known.
pub fn of_json(raw: &str) -> Result<i64, NotWhole> {
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw).map_err(|_| NotWhole::NotANumber)?;
        return of_digits(&text);
    }
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if !is_number {
        return Err(NotWhole::NotANumber);
    }
    if raw.starts_with('-') {
        return Err(NotWhole::Negative);
    }
    if raw.contains(['e', 'E']) {
        return Err(NotWhole::Exponent);
    }
    match raw.split_once('.') {
        Some((_, fraction)) if fraction.bytes().any(|digit| digit != b'0') => Err(NotWhole::Fraction),
        Some((whole, _)) => of_digits(whole),
        None => of_digits(raw),
    }
}

/// Reads digits, without sign or leading zeros, as in a path.
pub fn of_digits(text: &str) -> Result<i64, NotWhole> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotWhole::NotANumber);
    }
    if negative {
        return Err(NotWhole::Negative);
    }
    if text != "0" && text.starts_with('0') {
        return Err(NotWhole::LeadingZero);
    }
    match text.parse::<i64>() {
        Ok(number) if number <= LARGEST => Ok(number),
        _ => Err(NotWhole::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_whole_number_says_why() {
        let rows = [
            ("true", NotWhole::NotANumber),
            ("null", NotWhole::NotANumber),
            ("[1]", NotWhole::NotANumber),
            (r#""""#, NotWhole::NotANumber),
            (r#""01""#, NotWhole::LeadingZero),
            (r#""-1""#, NotWhole::Negative),
            (r#""2.0""#, NotWhole::NotANumber),
            (r#"" 1""#, NotWhole::NotANumber),
            (r#""１""#, NotWhole::NotANumber),
            ("-1", NotWhole::Negative),
            ("-0", NotWhole::Negative),
            ("1.5", NotWhole::Fraction),
            ("1e2", NotWhole::Exponent),
            ("9007199254740992", NotWhole::TooLarge),
            ("99999999999999999999999", NotWhole::TooLarge),
        ];
        for (raw, why) in rows {
            assert_eq!(of_json(raw), Err(why), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_number_is_that_number(number in 0..=LARGEST) {
            for spelling in [format!("{number}"), format!("{number}.0"), format!("\"{number}\"")] {
                prop_assert_eq!(of_json(&spelling), Ok(number));
            }
        }

        #[test]
        fn no_text_is_read_as_a_number_it_does_not_spell(text in "[-0-9.eE+\" ]{0,24}") {
            if let Ok(number) = of_digits(&text) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }
}
