//! Prints values the way the gateway does: `JSON.stringify`, or `stringify` of npm's json5 library.
//!
//! One thing differs on purpose: numbers come out as they are spelled in the store (`4.50` stays `4.50`), where
//! JavaScript would shorten them, because a client that survives the harder spelling survives the easier one.
//!
//! The rules for quotes, escapes and bare keys are those of json5 2.2, `lib/stringify.js`, except that keys in other than
//! Latin letters are quoted: the library knows all of Unicode's letters, and this does not.

use std::fmt::Write as _;

use super::value::Value;

/// The two ways of the gateway to print and to read: chosen by `Content-Type` in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Json5,
}

/// The text of `value`.
pub(super) fn print(value: &Value, format: Format) -> String {
    let mut text = String::with_capacity(256);
    put(&mut text, value, format);
    text
}

/// The text of a message of the gateway: `{"type": kind, "result": {…}}`, with the fields in the documented order.
pub(super) fn message(kind: &str, result: &[(&str, &Value)], format: Format) -> String {
    let mut text = String::with_capacity(256);
    put_key(&mut text, '{', "type", format);
    put_string(&mut text, kind, format);
    put_key(&mut text, ',', "result", format);
    for (index, (key, value)) in result.iter().enumerate() {
        put_key(&mut text, if index == 0 { '{' } else { ',' }, key, format);
        put(&mut text, value, format);
    }
    text.push_str("}}");
    text
}

fn put_key(out: &mut String, before: char, key: &str, format: Format) {
    out.push(before);
    match format {
        Format::Json5 if is_identifier(key) => out.push_str(key),
        _ => put_string(out, key, format),
    }
    out.push(':');
}

fn put(out: &mut String, value: &Value, format: Format) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(text) if format == Format::Json && !is_finite(text) => out.push_str("null"),
        Value::Number(text) => out.push_str(text),
        Value::String(text) => put_string(out, text, format),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                put(out, item, format);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            if fields.is_empty() {
                out.push('{');
            }
            for (index, (key, item)) in fields.iter().enumerate() {
                put_key(out, if index == 0 { '{' } else { ',' }, key, format);
                put(out, item, format);
            }
            out.push('}');
        }
    }
}

fn is_finite(number: &str) -> bool {
    !number.ends_with("Infinity") && !number.ends_with("NaN")
}

fn is_identifier(key: &str) -> bool {
    let mut letters = key.chars();
    letters.next().is_some_and(is_identifier_start)
        && letters.all(|letter| letter.is_ascii_digit() || is_identifier_start(letter))
}

fn is_identifier_start(letter: char) -> bool {
    let is_latin = letter.is_ascii() || ('\u{c0}'..='\u{24f}').contains(&letter);
    matches!(letter, '$' | '_') || (is_latin && letter.is_alphabetic())
}

fn put_string(out: &mut String, text: &str, format: Format) {
    match format {
        Format::Json => put_json_string(out, text),
        Format::Json5 => put_json5_string(out, text),
    }
}

fn put_json_string(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

fn put_json5_string(out: &mut String, text: &str) {
    let count = |quote| text.chars().filter(|letter| *letter == quote).count();
    let quote = if count('\'') <= count('"') { '\'' } else { '"' };
    out.push(quote);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' | '"' if letter == quote => out.extend(['\\', letter]),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            // `\0` before a digit would read as an octal escape.
            '\0' if !letters.peek().is_some_and(char::is_ascii_digit) => out.push_str("\\0"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json5(text: &str) -> String {
        print(&Value::String(text.to_owned().into()), Format::Json5)
    }

    #[test]
    fn json5_strings_take_the_quotes_that_need_fewer_escapes() {
        assert_eq!(json5("plain"), "'plain'");
        assert_eq!(json5("it's"), "\"it's\"");
        assert_eq!(json5("\"x\""), "'\"x\"'");
        assert_eq!(json5("'\""), "'\\'\"'");
        assert_eq!(json5("''\""), "\"''\\\"\"");
    }

    #[test]
    fn json5_escapes_are_those_of_the_library() {
        assert_eq!(json5("a\0b\u{0}1"), "'a\\0b\\x001'");
        assert_eq!(json5("\u{1}\u{b}\u{2028}\u{2029}\n\\"), "'\\x01\\v\\u2028\\u2029\\n\\\\'");
    }

    #[test]
    fn json5_keys_are_bare_only_where_they_are_identifiers() {
        let value = Value::object([
            ("a", 1.into()),
            ("$b_1", 2.into()),
            ("3c", 3.into()),
            ("d-e", 4.into()),
            ("größe", 5.into()),
        ]);
        assert_eq!(print(&value, Format::Json5), "{a:1,$b_1:2,'3c':3,'d-e':4,größe:5}");
        assert_eq!(print(&value, Format::Json), r#"{"a":1,"$b_1":2,"3c":3,"d-e":4,"größe":5}"#);
        assert_eq!(print(&Value::object([("", Value::Null)]), Format::Json5), "{'':null}");
    }

    #[test]
    fn numbers_keep_their_spelling_and_only_json5_knows_infinity() {
        let value = Value::Array(vec![Value::number("4.50"), Value::number("-Infinity"), Value::number("NaN")]);
        assert_eq!(print(&value, Format::Json5), "[4.50,-Infinity,NaN]");
        assert_eq!(print(&value, Format::Json), "[4.50,null,null]");
    }

    #[test]
    fn messages_have_the_documented_shape() {
        let result = [("event", &Value::string("getdeposit")), ("parameters", &Value::object([]))];
        assert_eq!(
            message("event", &result, Format::Json),
            r#"{"type":"event","result":{"event":"getdeposit","parameters":{}}}"#
        );
        assert_eq!(
            message("event", &result, Format::Json5),
            "{type:'event',result:{event:'getdeposit',parameters:{}}}"
        );
    }

    #[test]
    fn json_output_is_json() {
        let text = "a\"\\\u{1}\n\u{2028}é";
        let printed = print(&Value::String(text.to_owned().into()), Format::Json);
        assert_eq!(serde_json::from_str::<String>(&printed).unwrap(), text);
    }

    proptest::proptest! {
        #[test]
        fn an_independent_json5_parser_reads_every_string_back(text in "\\PC{0,40}|[\\x00-\\x1f'\"\\\\0-9\u{2028}]{0,20}") {
            let value = Value::Object(vec![(text.clone().into(), Value::from(text.clone()))]);
            let read: std::collections::BTreeMap<String, String> =
                ::json5::from_str(&print(&value, Format::Json5)).unwrap();
            proptest::prop_assert_eq!(read, [(text.clone(), text)].into());
        }
    }
}
