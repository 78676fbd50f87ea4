//! JSON → JSON5, as the library's `stringify` prints it without indentation.
//!
//! Only strings differ between the two spellings, so the text is checked to be JSON once and then copied: white space
//! is left out, keys that are ASCII identifiers lose their quotes, other strings are quoted the library's way. Numbers
//! are copied as they are: the library would print `2.50` as `2.5`, and prices must not change.
//!
//! The library leaves out the quotes of other identifiers too. Which characters those may hold depends on the version of
//! Unicode that a reader knows, and every reader takes the quoted key for the same one.
//!
//! Two effects of JavaScript objects are not imitated: that members are sorted where their keys are whole numbers, and
//! that of repeated keys only the last remains. A lone surrogate is printed as its escape, which reads back as itself;
//! the library prints the surrogate, which UTF-8 cannot hold.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::cursor::Cursor;
use super::error::Json5Error;
use super::identifier;
use super::number::NO_NUMBERS;

const NULL: &str = "null";

/// Prints one JSON value as JSON5 on one line, as the npm library's `stringify` does: keys bare where they are
/// ASCII identifiers, strings in single quotes unless double quotes need fewer escapes. Numbers and the order of members are
/// kept. The library's `parse`, like [`to_json`](super::to_json), reads the same value back.
///
/// # Errors
///
/// What is not JSON, JSON5 included. Any depth is printed: nothing here recurses.
pub fn from_json(json: &str) -> Result<String, Json5Error> {
    serde_json::from_str::<&RawValue>(json).map_err(|fault| not_json(json, &fault))?;
    let mut from = Cursor::new(json);
    let mut json5 = String::with_capacity(json.len());
    loop {
        json5.push_str(from.take_while(|next| next != '"' && !is_white_space(next)));
        if let Some(number) = no_number(&mut from, &json5) {
            json5.truncate(json5.len() - NULL.len());
            json5.push_str(number);
            continue;
        }
        match from.take() {
            None => return Ok(json5),
            Some('"') => {
                let text = string(&mut from);
                from.take_while(is_white_space);
                match (from.peek() == Some(':')).then(|| bare_key(&text)).flatten() {
                    Some(key) => json5.push_str(&key),
                    None => quote(&text, &mut json5),
                }
            }
            Some(_) => {}
        }
    }
}

/// What the `null` that was printed last stood for in JSON5, if it did.
fn no_number(from: &mut Cursor<'_>, json5: &str) -> Option<&'static str> {
    if !json5.ends_with(NULL) {
        return None;
    }
    let mark = |json: &'static str| json.strip_prefix(NULL).unwrap_or_default();
    NO_NUMBERS.iter().find(|number| from.eat(mark(number.json))).map(|number| number.json5)
}

fn not_json(json: &str, fault: &serde_json::Error) -> Json5Error {
    let lines_before = json.split_inclusive('\n').take(fault.line().saturating_sub(1));
    Json5Error { what: "no JSON", at: lines_before.map(str::len).sum::<usize>() + fault.column().saturating_sub(1) }
}

fn is_white_space(next: char) -> bool {
    matches!(next, ' ' | '\t' | '\n' | '\r')
}

/// The rest of a JSON string after its opening quote, in UTF-16 since that may hold what UTF-8 may not. The text has
/// been checked: what is no JSON does not come here, and is passed over.
fn string(from: &mut Cursor<'_>) -> Vec<u16> {
    let mut units = Vec::new();
    loop {
        units.extend(from.take_while(|next| !matches!(next, '"' | '\\')).encode_utf16());
        let Some('\\') = from.take() else { return units };
        units.push(match from.take() {
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('n') => 0x0a,
            Some('r') => 0x0d,
            Some('t') => 0x09,
            Some('u') => {
                let digits = (0..4).filter_map(|_| from.take()).filter_map(|digit| digit.to_digit(16));
                digits.fold(0, |unit, digit| unit << 4 | u16::try_from(digit).unwrap_or_default())
            }
            itself => itself.and_then(|itself| u16::try_from(itself).ok()).unwrap_or_default(),
        });
    }
}

/// `text` as a key without quotes, if it may stand without.
fn bare_key(text: &[u16]) -> Option<String> {
    String::from_utf16(text).ok().filter(|key| identifier::is_ascii(key))
}

/// Prints `text` in single quotes, or in double quotes where it holds more single ones.
fn quote(text: &[u16], json5: &mut String) {
    let count = |quote: char| text.iter().filter(|unit| u32::from(**unit) == u32::from(quote)).count();
    let quote = if count('\'') > count('"') { '"' } else { '\'' };
    json5.push(quote);
    let mut characters = char::decode_utf16(text.iter().copied()).peekable();
    while let Some(character) = characters.next() {
        // Writing to a string cannot fail. Formatting is for what is rare, since it costs more than pushing.
        match character {
            Ok('\0') if matches!(characters.peek(), Some(Ok('0'..='9'))) => json5.push_str("\\x00"),
            Ok('\0') => json5.push_str("\\0"),
            Ok('\u{8}') => json5.push_str("\\b"),
            Ok('\t') => json5.push_str("\\t"),
            Ok('\n') => json5.push_str("\\n"),
            Ok('\u{b}') => json5.push_str("\\v"),
            Ok('\u{c}') => json5.push_str("\\f"),
            Ok('\r') => json5.push_str("\\r"),
            Ok(control @ '\0'..='\x1f') => _ = write!(json5, "\\x{:02x}", u32::from(control)),
            Ok(line_end @ ('\u{2028}' | '\u{2029}')) => _ = write!(json5, "\\u{:04x}", u32::from(line_end)),
            Ok(special) if special == '\\' || special == quote => json5.extend(['\\', special]),
            Ok(other) => json5.push(other),
            Err(alone) => _ = write!(json5, "\\u{:04x}", alone.unpaired_surrogate()),
        }
    }
    json5.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(cases: &[(&str, &str)]) {
        for (json, json5) in cases {
            assert_eq!(from_json(json).as_deref(), Ok(*json5), "{json}");
        }
    }

    #[test]
    fn a_frame_is_printed_as_the_gateway_prints_it() {
        let json =
            r#" { "type" : "event", "result": {"event":"getdeposit","parameters":{"Deposit":{"Price":2.50}}} } "#;
        prints(&[(json, "{type:'event',result:{event:'getdeposit',parameters:{Deposit:{Price:2.50}}}}")]);
    }

    #[test]
    fn numbers_and_words_are_copied() {
        prints(&[
            ("[-0.00,1E+2,12345678901234567890]", "[-0.00,1E+2,12345678901234567890]"),
            ("[ null,\ttrue,\r\nfalse ]", "[null,true,false]"),
        ]);
    }

    #[test]
    fn only_keys_that_are_ascii_identifiers_are_bare() {
        prints(&[
            (r#"{"a":"a","$_9":1,"größe":2,"null":3}"#, "{a:'a',$_9:1,'größe':2,null:3}"),
            (r#"{"":1,"9":2,"a-b":3,"a b":4,"\n":5}"#, r"{'':1,'9':2,'a-b':3,'a b':4,'\n':5}"),
            (r#"{"\u0061" :1}"#, "{a:1}"),
            (r#"{"𐊧":1,"𐊧a":2,"a𐊧":3,"\ud800\udea7":4}"#, "{'𐊧':1,'𐊧a':2,'a𐊧':3,'𐊧':4}"),
            (r#"{"it's":1,"\ud800":2}"#, r#"{"it's":1,'\ud800':2}"#),
        ]);
    }

    #[test]
    fn the_quote_that_needs_fewer_escapes_is_chosen_and_single_on_a_tie() {
        prints(&[
            (r#""""#, "''"),
            (r#""'""#, r#""'""#),
            (r#""\"""#, r#"'"'"#),
            (r#""'\"""#, r#"'\'"'"#),
            (r#""''\"""#, r#""''\"""#),
            (r#""'\"\"""#, r#"'\'""'"#),
        ]);
    }

    #[test]
    fn escapes_are_the_library_s() {
        prints(&[
            (r#""\b\f\n\r\t\u000b\u0000\\\/""#, r"'\b\f\n\r\t\v\0\\/'"),
            (r#""\u00001\u0000a\u0000""#, r"'\x001\0a\0'"),
            (r#""\u0001\u001f\u007f\u0085\ufeff""#, "'\\x01\\x1f\u{7f}\u{85}\u{feff}'"),
            ("\"\u{2028}\\u2029\"", r"'\u2028\u2029'"),
            (r#""\ud83d\ude00\ud83d \ude00""#, r"'😀\ud83d \ude00'"),
        ]);
    }

    #[test]
    fn what_is_not_json_is_an_error_that_says_where() {
        for text in ["", "{a:1}", "'a'", "[1,]", "1 1", "+1", "NaN", "\"\t\"", "// 1"] {
            assert!(from_json(text).is_err(), "{text}");
        }
        assert_eq!(from_json("[1,\n  é]").unwrap_err(), Json5Error { what: "no JSON", at: 6 });
    }

    #[test]
    fn any_depth_is_printed() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(from_json(&deep), Ok(deep));
    }
}
