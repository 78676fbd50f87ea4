//! Numbers, respelled digit by digit.
//!
//! Prices pass through here, so nothing is ever converted: a decimal keeps its digits, trailing zeros included, and
//! only the spellings that JSON forbids are mended. Hexadecimal is the one form that needs arithmetic, and gets it on
//! whole numbers of any size that JavaScript could hold.

use std::fmt::Write as _;

use super::cursor::Cursor;
use super::error::Json5Error;

/// How many significant digits a hexadecimal number may have: the largest `f64`, just below 16 to the 256th, has this
/// many, and the library would read any longer one as `Infinity`. The bound keeps the conversion, whose cost grows
/// with the square of the length, in step with the text.
const MAX_HEX_DIGITS: usize = 256;

/// Ten to the ninth: the largest power of ten whose digits fit a `u32`.
const BILLION: u64 = 1_000_000_000;

/// What JSON5 calls a number and JSON has no word for.
pub(super) struct NoNumber {
    negative: bool,
    word: &'static str,
    /// As JSON: `null`, and a run of white space that no printer writes behind a value. A reader of JSON sees `null`;
    /// [`from_json`](super::from_json) sees what it stood for.
    pub(super) json: &'static str,
    /// As it is printed.
    pub(super) json5: &'static str,
}

/// All of them. None of the marks begins another.
pub(super) const NO_NUMBERS: [NoNumber; 4] = [
    NoNumber { negative: false, word: "Infinity", json: "null\t \r\t\t", json5: "Infinity" },
    NoNumber { negative: true, word: "Infinity", json: "null\t \r\t ", json5: "-Infinity" },
    NoNumber { negative: false, word: "NaN", json: "null\t \r \t", json5: "NaN" },
    NoNumber { negative: true, word: "NaN", json: "null\t \r  ", json5: "-NaN" },
];

/// Takes one number, writing it as JSON has it.
pub(super) fn number(from: &mut Cursor<'_>, json: &mut String) -> Result<(), Json5Error> {
    let negative = from.eat("-");
    if !negative {
        from.eat("+");
    }
    if let Some(marked) = NO_NUMBERS.iter().find(|no_number| no_number.negative == negative && from.eat(no_number.word))
    {
        json.push_str(marked.json);
        return Ok(());
    }
    if negative {
        json.push('-');
    }
    if from.eat("0x") || from.eat("0X") { hexadecimal(from, json) } else { decimal(from, json) }
}

fn decimal(from: &mut Cursor<'_>, json: &mut String) -> Result<(), Json5Error> {
    let leading_zero = from.fault("a number with a leading zero");
    let whole = digits(from);
    if whole.len() > 1 && whole.starts_with('0') {
        return Err(leading_zero);
    }
    let fraction = if from.eat(".") { digits(from) } else { "" };
    if whole.is_empty() && fraction.is_empty() {
        return Err(from.fault("a number without digits"));
    }
    json.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        json.push('.');
        json.push_str(fraction);
    }
    let Some(exponent @ ('e' | 'E')) = from.peek() else { return Ok(()) };
    from.take();
    json.push(exponent);
    if let Some(sign @ ('+' | '-')) = from.peek() {
        from.take();
        json.push(sign);
    }
    match digits(from) {
        "" => Err(from.fault("an exponent without digits")),
        digits => {
            json.push_str(digits);
            Ok(())
        }
    }
}

fn digits<'a>(from: &mut Cursor<'a>) -> &'a str {
    from.take_while(|next| next.is_ascii_digit())
}

fn hexadecimal(from: &mut Cursor<'_>, json: &mut String) -> Result<(), Json5Error> {
    let too_long = from.fault("a hexadecimal number that is too long");
    let digits = from.take_while(|next| next.is_ascii_hexdigit());
    if digits.is_empty() {
        return Err(from.fault("a hexadecimal number without digits"));
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > MAX_HEX_DIGITS {
        return Err(too_long);
    }
    let mut limbs = in_billions(digits).into_iter().rev();
    // Writing to a string cannot fail.
    let _ = write!(json, "{}", limbs.next().unwrap_or(0));
    for limb in limbs {
        let _ = write!(json, "{limb:09}");
    }
    Ok(())
}

/// The number in base one billion, least significant limb first; no limbs for zero.
fn in_billions(hex_digits: &str) -> Vec<u64> {
    let mut limbs: Vec<u64> = Vec::new();
    for digit in hex_digits.chars().filter_map(|digit| digit.to_digit(16)) {
        let mut carry = u64::from(digit);
        for limb in &mut limbs {
            let product = *limb * 16 + carry;
            *limb = product % BILLION;
            carry = product / BILLION;
        }
        if carry > 0 {
            limbs.push(carry);
        }
    }
    limbs
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::{agree, refuse};
    use super::super::{from_json, to_json};

    #[test]
    fn a_number_that_json_allows_keeps_its_spelling() {
        for number in
            ["0", "-0", "7", "2.50", "-0.00", "1e2", "1E+02", "0e0", "-1.0e-0", "1e999", "12345678901234567890.10"]
        {
            assert_eq!(to_json(number).as_deref(), Ok(number));
        }
    }

    #[test]
    fn signs_and_points_are_mended_where_json_forbids_them() {
        agree(&[
            ("+1", "1"),
            ("+0", "0"),
            (".5", "0.5"),
            (".50", "0.50"),
            ("+.5", "0.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("-0.", "-0"),
            ("5.e3", "5e3"),
            (".5E-3", "0.5E-3"),
        ]);
    }

    #[test]
    fn infinity_and_nan_are_null_in_json_and_themselves_again_in_json5() {
        for number in ["Infinity", "+Infinity", "-Infinity", "NaN", "+NaN", "-NaN"] {
            let json = to_json(&format!("{{a:{number},b:[{number}, null],c:'NaN'}}")).unwrap();
            let value: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(value, json!({"a": null, "b": [null, null], "c": "NaN"}), "{json}");
            let itself = number.trim_start_matches('+');
            assert_eq!(from_json(&json), Ok(format!("{{a:{itself},b:[{itself},null],c:'NaN'}}")));
        }
        assert_eq!(from_json("[null\t, null \r\n]").as_deref(), Ok("[null,null]"), "other white space means nothing");
        refuse(&["Inf", "infinity", "Nan", "- Infinity", "InfinityNaN", "--Infinity"]);
    }

    #[test]
    fn hexadecimal_becomes_decimal_to_the_last_digit() {
        agree(&[
            ("0x0", "0"),
            ("-0X0", "-0"),
            ("0xdecAF", "912559"),
            ("+0x1f", "31"),
            ("-0xFF", "-255"),
            ("0x3b9aca00", "1000000000"),
            ("0x0000000000000000000000000001", "1"),
            ("0x20000000000001", "9007199254740993"),
            ("0xffffffffffffffffffffffffffffffff", "340282366920938463463374607431768211455"),
        ]);
    }

    #[test]
    fn hexadecimal_is_bounded_by_what_a_javascript_number_can_hold() {
        let largest = to_json(&format!("0x{}", "f".repeat(256))).unwrap();
        assert_eq!(largest.len(), 309);
        assert!(largest.starts_with("179769313486231590772930519078902473361797697894230657273430081157732675"));
        assert!(largest.ends_with("245938479716304835356329624224137215"), "{largest}");
        assert_eq!(to_json(&format!("0x{}1", "0".repeat(10_000))).as_deref(), Ok("1"));
        refuse(&[&format!("0x{}", "f".repeat(257)), &format!("0x{}", "1".repeat(1_000_000))]);
    }

    #[test]
    fn what_only_looks_like_a_number_is_an_error() {
        refuse(&[
            "01", "-01", "00", "00.5", "0x", "0xg", "0b1", "0o7", "1e", "1e+", "1.e", ".", "-", "+", "+-1", "-.e1",
        ]);
        refuse(&["- 1", "+/**/1", "1_000", "1n", "1a", "1..", "1.2.3", "0x1.8", "0x1p2", "٣", ".e5", "1e1.5"]);
    }

    proptest::proptest! {
        #[test]
        fn hexadecimal_of_128_bits_is_what_rust_reads(number: u128) {
            proptest::prop_assert_eq!(to_json(&format!("{number:#x}")), Ok(number.to_string()));
        }
    }
}
