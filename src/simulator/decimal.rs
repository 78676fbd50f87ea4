//! Just enough decimal arithmetic to turn a price and an amount into money.
//!
//! Money never passes through binary floating point here, so that a test may compare what was booked digit for digit.
//! What is no plain decimal (an exponent, `Infinity`, words) or would overflow has no value at all: the simulator then
//! books nothing rather than something wrong.

use std::fmt;

/// A decimal number: `digits` divided by ten to the power of `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: i128,
    scale: u32,
}

/// More places than any currency has; keeps the powers of ten inside an `i128`.
const MOST_PLACES: usize = 12;

impl Decimal {
    /// Reads a plain decimal such as `-1`, `4.50` or `.5`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, places) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let digits = format!("{whole}{places}");
        if places.len() > MOST_PLACES || digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits: i128 = digits.parse().ok()?;
        let scale = u32::try_from(places.len()).ok()?;
        Some(Self { digits: if text.starts_with('-') { -digits } else { digits }, scale })
    }

    pub(super) fn is_positive(self) -> bool {
        self.digits > 0
    }

    /// The product, with the places of both. Nothing where it would overflow.
    pub(super) fn times(self, other: Self) -> Option<Self> {
        Some(Self { digits: self.digits.checked_mul(other.digits)?, scale: self.scale.checked_add(other.scale)? })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::try_from(self.scale).unwrap_or_default();
        let digits = format!("{:0width$}", self.digits.unsigned_abs(), width = scale + 1);
        let (whole, places) = digits.split_at(digits.len() - scale);
        let sign = if self.digits < 0 { "-" } else { "" };
        let point = if scale == 0 { "" } else { "." };
        write!(formatter, "{sign}{whole}{point}{places}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_keep_their_places() {
        let money = |price, amount| Decimal::parse(price)?.times(Decimal::parse(amount)?).map(|sum| sum.to_string());
        assert_eq!(money("4.50", "2").as_deref(), Some("9.00"));
        assert_eq!(money("-1.00", "3").as_deref(), Some("-3.00"));
        assert_eq!(money("0.05", "1").as_deref(), Some("0.05"));
        assert_eq!(money("18", "5").as_deref(), Some("90"));
        assert_eq!(money("4.50", "0.5").as_deref(), Some("2.250"));
    }

    #[test]
    fn what_is_no_plain_decimal_has_no_value() {
        for text in ["", "-", ".", "1e3", "Infinity", "NaN", "0x10", "1.2.3", "--1", "0.1234567890123", "1_000"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        let large = Decimal::parse(&"9".repeat(38)).unwrap();
        assert_eq!(large.times(large), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_read_back(digits in -1_000_000_000_i128..1_000_000_000, scale in 0_u32..12) {
            let number = Decimal { digits, scale };
            proptest::prop_assert_eq!(Decimal::parse(&number.to_string()), Some(number));
        }
    }
}
