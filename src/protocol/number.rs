//! Numbers as the gateway spells them: whole ones for ids, and decimals for money. PURE.
//!
//! A price is a decimal with as many places as it is spelled with. Sums are exact or there is none; nothing here passes
//! through binary floating point.

use std::fmt;

use serde_json::value::RawValue;

/// The longest spelling of a price that is read; real ones have ten characters.
const LONGEST: usize = 40;

/// The most places after the point, and zeros that an exponent may add.
const MOST_PLACES: u32 = 30;

/// The whole number that a JSON number or a string of digits spells.
#[must_use]
pub fn whole(raw: &RawValue) -> Option<i64> {
    let text = unquoted(raw.get());
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim()
}

/// An exact decimal: so many units of the last of its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    units: i128,
    places: u32,
}

impl Decimal {
    /// 0, without places.
    pub const ZERO: Self = Self { units: 0, places: 0 };

    /// What a JSON number spells, or a JSON string of one. None for what is no decimal, or is too long to be a price.
    #[must_use]
    pub fn of_json(text: &str) -> Option<Self> {
        let text = Some(unquoted(text)).filter(|text| text.len() <= LONGEST)?;
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |digits| (true, digits));
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
            None => (digits(mantissa)?, ""),
        };
        let units: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        let shifted = units.checked_mul(power(places.checked_neg()?.max(0).unsigned_abs())?)?;
        let places = u32::try_from(places.max(0)).ok().filter(|places| *places <= MOST_PLACES)?;
        Some(Self { units: if negative { -shifted } else { shifted }, places })
    }

    /// So many times this; none where that is too large.
    #[must_use]
    pub fn times(self, count: u64) -> Option<Self> {
        Some(Self { units: self.units.checked_mul(count.into())?, ..self })
    }

    /// The sum, with the places of the one that has more; none where it is too large.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let places = self.places.max(other.places);
        let units = self.with_places(places)?.checked_add(other.with_places(places)?)?;
        Some(Self { units, places })
    }

    /// Its units, where it has so many places, which are not fewer than it has.
    fn with_places(self, places: u32) -> Option<i128> {
        self.units.checked_mul(power(places.checked_sub(self.places)?)?)
    }
}

fn digits(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn power(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let places = usize::try_from(self.places).unwrap_or_default();
        let digits = format!("{:0>least$}", self.units.unsigned_abs(), least = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        if fraction.is_empty() {
            write!(formatter, "{sign}{whole}")
        } else {
            write!(formatter, "{sign}{whole}.{fraction}")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<String> {
        Decimal::of_json(text).map(|decimal| decimal.to_string())
    }

    /// A spelling of so many units at so many places, by moving the point in the text alone.
    fn spelled(units: i64, places: usize) -> String {
        let digits = format!("{:0>width$}", units.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let point = if places == 0 { "" } else { "." };
        format!("{}{whole}{point}{fraction}", if units < 0 { "-" } else { "" })
    }

    #[test]
    fn a_price_keeps_its_places_in_whatever_spelling() {
        for (text, expected) in [
            ("4.50", "4.50"),
            ("\"4.50\"", "4.50"),
            ("-2.00", "-2.00"),
            ("0.05", "0.05"),
            ("18", "18"),
            ("1.5e1", "15"),
            ("15E-1", "1.5"),
            ("2e2", "200"),
            ("-0.0", "0.0"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_decimal_has_no_value() {
        let long = "1".repeat(LONGEST + 1);
        let words = ["null", "true", "\"\"", "\"4,50\"", "\"1 000\"", "\"free\"", "{}", "[1]", ".5", "5.", "+1", "--1"];
        for text in
            words.into_iter().chain(["1e39", "1e-31", "1e999999999999", "1e-2147483648", &long, "0x10", "\"٣\""])
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_too_large_has_no_sum() {
        let large = Decimal::of_json(&"9".repeat(38)).unwrap();
        assert_eq!(large.times(u64::MAX), None);
        assert_eq!(large.plus(large).and_then(|sum| sum.plus(large)), None);
        assert_eq!(Decimal::of_json("0.01").and_then(|small| small.plus(large)), None);
    }

    proptest! {
        #[test]
        fn a_sum_is_exact_and_its_places_are_those_of_its_finest_price(
            lines in prop::collection::vec((-10_i64.pow(12)..10_i64.pow(12), 0..7_usize, 0..1_000_000_u64), 0..20),
        ) {
            let mut sum = Decimal::ZERO;
            for (units, places, amount) in &lines {
                sum = sum.plus(Decimal::of_json(&spelled(*units, *places)).unwrap().times(*amount).unwrap()).unwrap();
            }
            let places = lines.iter().map(|(_, places, _)| *places).max().unwrap_or(0);
            let units: i128 = lines.iter()
                .map(|(units, own, amount)| {
                    i128::from(*units) * i128::from(*amount) * 10_i128.pow(u32::try_from(places - own).unwrap())
                })
                .sum();
            let text = sum.to_string();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            prop_assert_eq!(fraction.len(), places);
            prop_assert_eq!(format!("{whole}{fraction}").parse::<i128>().unwrap(), units);
            prop_assert_eq!(whole.starts_with('-'), units < 0);
        }

        #[test]
        fn whatever_is_read_is_printed_as_a_decimal_of_the_same_value(text in "-?[0-9]{1,5}(\\.[0-9]{1,4})?(e-?[0-9]{1,2})?") {
            if let Some(once) = read(&text) {
                prop_assert_eq!(read(&once), Some(once));
            }
        }

        #[test]
        fn nothing_panics(text in any::<String>(), digits in "[-+.0-9eE\"]{0,45}") {
            let _ = (read(&text), read(&digits));
        }
    }
}
