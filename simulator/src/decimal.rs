//! What a price and an amount are as numbers. Money never passes through binary floating point here, so that a test may
//! compare what was booked digit for digit.

use rust_decimal::Decimal;

/// A plain decimal such as `-1`, `4.50` or `.5`. Nothing for what is none (an exponent, `Infinity`, words), so that the
/// simulator books nothing rather than something wrong.
pub(super) fn parse(text: &str) -> Option<Decimal> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
    Decimal::from_str_exact(text).ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_keep_their_places() {
        let money = |price, amount| parse(price)?.checked_mul(parse(amount)?).map(|sum| sum.to_string());
        assert_eq!(money("4.50", "2").as_deref(), Some("9.00"));
        assert_eq!(money("-1.00", "3").as_deref(), Some("-3.00"));
        assert_eq!(money("0.05", "1").as_deref(), Some("0.05"));
        assert_eq!(money("18", "5").as_deref(), Some("90"));
        assert_eq!(money("4.50", "0.5").as_deref(), Some("2.250"));
    }

    #[test]
    fn what_is_no_plain_decimal_has_no_value() {
        for text in ["", "-", ".", "1e3", "Infinity", "NaN", "0x10", "1.2.3", "--1", "1_000"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"9".repeat(38)), None);
        let large = parse(&"9".repeat(28)).unwrap();
        assert_eq!(large.checked_mul(large), None);
    }
}
