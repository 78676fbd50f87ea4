//! Strings and identifiers, respelled as JSON strings.
//!
//! JSON5 takes its escapes from ECMAScript, which counts in UTF-16: `\ud800` alone is a string there, and nothing that
//! UTF-8 can hold. Such an escape is passed on as an escape, so that a pair of them is still a pair and one alone is
//! still itself.

use std::fmt::Write as _;

use super::cursor::{Cursor, is_line_end};
use super::error::Json5Error;
use super::identifier;

/// Takes one quoted string, of whichever quote comes next, writing it as JSON has it.
pub(super) fn string(from: &mut Cursor<'_>, json: &mut String) -> Result<(), Json5Error> {
    let unclosed = from.fault("a string without an end");
    let quote = from.take();
    json.push('"');
    loop {
        json.push_str(from.take_while(|next| Some(next) != quote && !matches!(next, '\\' | '"' | '\0'..='\x1f')));
        let line_break = from.fault("a line break in a string");
        match from.take() {
            end if end == quote => break,
            Some('\\') => escape(from, json)?,
            Some('\n' | '\r') => return Err(line_break),
            Some(other) => push(other, json),
            None => return Err(unclosed),
        }
    }
    json.push('"');
    Ok(())
}

/// Takes one unquoted key, writing it as a JSON string.
pub(super) fn identifier(from: &mut Cursor<'_>, json: &mut String) -> Result<(), Json5Error> {
    json.push('"');
    let mut first = true;
    loop {
        let no_key = from.fault("no key");
        let escaped = from.eat("\\");
        let letter = if escaped { escaped_letter(from)? } else { from.peek() };
        let belongs = if first { identifier::starts } else { identifier::continues };
        match letter.filter(|letter| belongs(*letter)) {
            Some(letter) => json.push(letter),
            None if escaped || first => return Err(no_key),
            None => break,
        }
        if !escaped {
            from.take();
        }
        first = false;
    }
    json.push('"');
    Ok(())
}

/// What `\u0061` in a key stands for; nothing where it is a surrogate, which no key may hold unquoted.
fn escaped_letter(from: &mut Cursor<'_>) -> Result<Option<char>, Json5Error> {
    if from.eat("u") {
        Ok(char::from_u32(u32::from(unit::<4>(from)?)))
    } else {
        Err(from.fault("an escape that no key may hold"))
    }
}

/// Takes what follows a backslash in a string.
fn escape(from: &mut Cursor<'_>, json: &mut String) -> Result<(), Json5Error> {
    let fault = from.fault("an escape that is none");
    let Some(escaped) = from.take() else { return Err(fault) };
    match escaped {
        'b' => json.push_str("\\b"),
        'f' => json.push_str("\\f"),
        'n' => json.push_str("\\n"),
        'r' => json.push_str("\\r"),
        't' => json.push_str("\\t"),
        'v' => push('\u{b}', json),
        'x' => push_unit(unit::<2>(from)?, json),
        'u' => push_unit(unit::<4>(from)?, json),
        // `\0` before a digit would be an octal escape in older ECMAScript, and so would `\1`.
        '0' if !from.peek().is_some_and(|next| next.is_ascii_digit()) => push('\0', json),
        '0'..='9' => return Err(fault),
        '\r' => {
            from.eat("\n");
        }
        continued if is_line_end(continued) => {}
        itself => push(itself, json),
    }
    Ok(())
}

/// A UTF-16 unit of so many hexadecimal digits.
fn unit<const DIGITS: usize>(from: &mut Cursor<'_>) -> Result<u16, Json5Error> {
    let mut unit = 0;
    for _ in 0..DIGITS {
        let digit = from.peek().and_then(|next| next.to_digit(16));
        unit = unit << 4 | digit.ok_or_else(|| from.fault("an escape with too few digits"))?;
        from.take();
    }
    // Four digits are sixteen bits.
    Ok(u16::try_from(unit).unwrap_or_default())
}

fn push_unit(unit: u16, json: &mut String) {
    match char::from_u32(u32::from(unit)) {
        Some(character) => push(character, json),
        None => push_escape(unit.into(), json),
    }
}

/// One character as a JSON string holds it, in the spelling of `JSON.stringify`.
fn push(character: char, json: &mut String) {
    match character {
        '"' => json.push_str("\\\""),
        '\\' => json.push_str("\\\\"),
        '\u{8}' => json.push_str("\\b"),
        '\u{c}' => json.push_str("\\f"),
        '\n' => json.push_str("\\n"),
        '\r' => json.push_str("\\r"),
        '\t' => json.push_str("\\t"),
        '\0'..='\x1f' => push_escape(character.into(), json),
        _ => json.push(character),
    }
}

fn push_escape(unit: u32, json: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(json, "\\u{unit:04x}");
}

#[cfg(test)]
mod tests {
    use super::super::tests::{agree, refuse};

    #[test]
    fn either_quote_holds_the_other() {
        agree(&[
            ("''", r#""""#),
            (r#""""#, r#""""#),
            ("'it\"s'", r#""it\"s""#),
            (r#""it's""#, r#""it's""#),
            (r"'it\'s'", r#""it's""#),
            (r#"'\"'"#, r#""\"""#),
            ("'€ 😀 \u{7f}\u{80}\u{2028}\u{2029}'", "\"€ 😀 \u{7f}\u{80}\u{2028}\u{2029}\""),
        ]);
        refuse(&["'", "\"", "'\"", "\"'", "'a", "'\\'", "`a`", "''a"]);
    }

    #[test]
    fn every_escape_becomes_what_it_stands_for() {
        agree(&[
            (r"'\b\f\n\r\t\v\0'", r#""\b\f\n\r\t\u000b\u0000""#),
            (r"'\\\/\a\ü\😀'", r#""\\/aü😀""#),
            (r"'\x41\x22\x5c\x0A\xfF'", r#""A\"\\\nÿ""#),
            (r"'\u0041\u20AC\u0022\u0000'", r#""A€\"\u0000""#),
            (r"'\0a\0\0'", r#""\u0000a\u0000\u0000""#),
            (r"'\u00411'", r#""A1""#),
        ]);
        refuse(&[
            r"'\1'",
            r"'\9'",
            r"'\00'",
            r"'\01'",
            r"'\x4'",
            r"'\x4g'",
            r"'\u004'",
            r"'\u{41}'",
            r"'\u+041'",
            r"'\",
        ]);
    }

    #[test]
    fn control_characters_may_stand_bare_and_line_breaks_may_not() {
        agree(&[("'\t\0\u{1f}\u{b}'", r#""\t\u0000\u001f\u000b""#)]);
        refuse(&["'\n'", "'\r'", "'a\r\nb'"]);
    }

    #[test]
    fn a_line_may_be_continued_with_any_line_end() {
        agree(&[("'a\\\nb\\\rc\\\r\nd\\\u{2028}e\\\u{2029}f'", r#""abcdef""#)]);
        refuse(&["'a\\\n\rb'"]);
    }

    #[test]
    fn surrogates_stay_escapes_alone_and_in_pairs() {
        agree(&[
            (r"'\uD800'", r#""\ud800""#),
            (r"'\udead x \ud83d'", r#""\udead x \ud83d""#),
            (r"'\ud83d\ude00'", r#""\ud83d\ude00""#),
            ("'\\ud83d\\\n\\ude00'", r#""\ud83d\ude00""#),
            (r"{'\ud800':1}", r#"{"\ud800":1}"#),
        ]);
    }

    #[test]
    fn keys_may_be_any_ecmascript_identifier() {
        agree(&[
            ("{a:1}", r#"{"a":1}"#),
            ("{$_1:1}", r#"{"$_1":1}"#),
            ("{null:1,true:2,Infinity:3}", r#"{"null":1,"true":2,"Infinity":3}"#),
            ("{größe:1,名前:2,ªⅫ:3}", r#"{"größe":1,"名前":2,"ªⅫ":3}"#),
            ("{𐊧𐊧:1}", r#"{"𐊧𐊧":1}"#),
            ("{a\u{200c}\u{200d}\u{300}٣‿:1}", "{\"a\u{200c}\u{200d}\u{300}٣‿\":1}"),
            (r"{\u0061\u0062\u0031\u0024:1}", r#"{"ab1$":1}"#),
            (r"{a\u200c:1}", "{\"a\u{200c}\":1}"),
        ]);
    }

    #[test]
    fn what_is_no_identifier_must_be_quoted() {
        refuse(&["{1a:1}", "{a-b:1}", "{a b:1}", "{\u{200c}:1}", "{\u{300}:1}", "{€:1}", "{😀:1}", "{a😀:1}", "{@:1}"]);
        refuse(&[
            r"{\u0031:1}",
            r"{a\u002d:1}",
            r"{\ud83d\ude00:1}",
            r"{\x61:1}",
            r"{\u{61}:1}",
            r"{\u006:1}",
            r"{\:1}",
        ]);
        refuse(&[r"{a\u0020:1}", r"{a\ud800:1}", r"{a\n:1}", r"{a\"]);
    }
}
