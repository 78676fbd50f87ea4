//! Reads JSON and JSON5 into a [`Value`] without touching the spelling of numbers.
//!
//! One reader serves both formats: it understands JSON5, and strictness in JSON mode is borrowed from `serde_json`,
//! which looks at the text first. It is kinder than npm's library in places (any run of letters is a bare key), because
//! the simulator has to understand clients, not to judge them. It refuses what nests deeper than [`DEEPEST`].

use std::borrow::Cow;

use super::printer::Format;
use super::value::Value;

/// No frame of the protocol nests deeper than five; the bound keeps hostile input from using up the stack.
const DEEPEST: usize = 64;

/// Reads `text` as the gateway would in `format`; nothing where it is malformed.
pub(super) fn read(text: &str, format: Format) -> Option<Value> {
    if format == Format::Json && serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return None;
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(DEEPEST)?;
    reader.skip()?;
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next();
        self.rest = letters.as_str();
        letter
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !fits(letter)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Passes over white space and comments; nothing where a comment does not end.
    fn skip(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\u{feff}');
            if self.take("//") {
                self.take_while(|letter| !matches!(letter, '\n' | '\r' | '\u{2028}' | '\u{2029}'));
            } else if self.take("/*") {
                let (_, rest) = self.rest.split_once("*/")?;
                self.rest = rest;
            } else {
                return Some(());
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.skip()?;
        match self.peek()? {
            '{' => self.object(depth),
            '[' => self.array(depth),
            '"' | '\'' => self.string().map(Value::from),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.next();
        let mut fields = Vec::new();
        loop {
            self.skip()?;
            if self.take("}") {
                return Some(Value::Object(fields));
            }
            let key = match self.peek()? {
                '"' | '\'' => self.string()?,
                _ => Some(self.take_while(is_key_letter)).filter(|key| !key.is_empty())?.to_owned(),
            };
            self.skip()?;
            if !self.take(":") {
                return None;
            }
            fields.push((Cow::Owned(key), self.value(depth)?));
            self.skip()?;
            if !self.take(",") && self.peek()? != '}' {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip()?;
            if self.take("]") {
                return Some(Value::Array(items));
            }
            items.push(self.value(depth)?);
            self.skip()?;
            if !self.take(",") && self.peek()? != ']' {
                return None;
            }
        }
    }

    fn word(&mut self) -> Option<Value> {
        let word = self.take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.'));
        match word {
            "null" => Some(Value::Null),
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            word => number(word).map(|spelled| Value::Number(Cow::Owned(spelled))),
        }
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.next()?;
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|letter| letter != quote && !matches!(letter, '\\' | '\n' | '\r')));
            match self.next()? {
                '\\' => self.escape(&mut text)?,
                end => return (end == quote).then_some(text),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        match self.next()? {
            'b' => text.push('\u{8}'),
            'f' => text.push('\u{c}'),
            'n' => text.push('\n'),
            'r' => text.push('\r'),
            't' => text.push('\t'),
            'v' => text.push('\u{b}'),
            '0' => text.push('\0'),
            'x' => text.push(char::from_u32(self.hex(2)?)?),
            'u' => {
                let unit = self.unicode()?;
                text.push(unit);
            }
            '\r' => drop(self.take("\n")),
            '\n' | '\u{2028}' | '\u{2029}' => {}
            digit if digit.is_ascii_digit() => return None,
            plain => text.push(plain),
        }
        Some(())
    }

    /// The rest of a `\u` escape. Half of a surrogate pair becomes the replacement character: Rust's text cannot hold it.
    fn unicode(&mut self) -> Option<char> {
        let unit = self.hex(4)?;
        if !(0xd800..0xdc00).contains(&unit) {
            return Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.rest;
        if self.take("\\u") {
            let low = self.hex(4)?;
            if (0xdc00..0xe000).contains(&low) {
                return char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        self.rest = before;
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest.get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.rest = self.rest.get(digits..)?;
        u32::from_str_radix(text, 16).ok()
    }
}

fn is_key_letter(letter: char) -> bool {
    matches!(letter, '$' | '_' | '\u{200c}' | '\u{200d}') || letter.is_alphanumeric()
}

/// The number a word spells, if any. What is a number of JSON keeps its spelling; the rest is spelled as JSON would.
fn number(word: &str) -> Option<String> {
    let (sign, unsigned) = match word.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    if matches!(unsigned, "Infinity" | "NaN") {
        return Some(format!("{sign}{unsigned}"));
    }
    if let Some(hex) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
        let digits_only = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return u64::from_str_radix(hex, 16).ok().filter(|_| digits_only).map(|number| format!("{sign}{number}"));
    }
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') || unsigned == "." {
        return None;
    }
    let zero = if unsigned.starts_with('.') { "0" } else { "" };
    let decimal = unsigned.replace(".e", "e").replace(".E", "E");
    let spelled = format!("{sign}{zero}{}", decimal.strip_suffix('.').unwrap_or(&decimal));
    serde_json::from_str::<serde::de::IgnoredAny>(&spelled).is_ok().then_some(spelled)
}

#[cfg(test)]
mod tests {
    use super::super::printer::print;
    use super::*;

    fn json(text: &str) -> Option<String> {
        read(text, Format::Json5).map(|value| print(&value, Format::Json))
    }

    #[test]
    fn json5_is_understood_with_its_numbers_as_spelled() {
        let text =
            "// hi\n{command:'pay\\\nitems', 'a b': [1.50, +2, .5, 0xFF, 1e3,], /* x */ \"d\": {n: null, t: true},}";
        assert_eq!(
            json(text).as_deref(),
            Some(r#"{"command":"payitems","a b":[1.50,2,0.5,255,1e3],"d":{"n":null,"t":true}}"#)
        );
        assert_eq!(json("'\\u0041\\x42\\uD83D\\uDE00\\ud800!'").as_deref(), Some("\"AB😀\u{fffd}!\""));
        assert_eq!(read("-Infinity", Format::Json5), Some(Value::number("-Infinity")));
    }

    #[test]
    fn json_mode_is_strict() {
        assert!(read(r#"{"a":[1.50,"x"]}"#, Format::Json).is_some());
        for text in ["{a:1}", "{'a':1}", "[1,]", "// x\n1", "+1", "NaN", "{\"a\":1}}"] {
            assert_eq!(read(text, Format::Json), None, "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let syntax = ["", "{", "[1", "[1 2]", "{a 1}", "{a:}", "{:1}", "'x", "'x\ny'", "'\\u12'", "/* x", "nope"];
        let numbers = ["1.2.3", "inf", "012", "--1", "0x", "0x+1", ".", "-", "1e"];
        for text in syntax.into_iter().chain(numbers) {
            assert_eq!(read(text, Format::Json5), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(DEEPEST), Format::Json5).is_some());
        assert_eq!(read(&nested(DEEPEST + 1), Format::Json5), None);
        assert_eq!(read(&nested(100_000), Format::Json), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "\\PC{0,60}|[\\[\\]{}:,'\"\\\\ux0-9a-f/* \n.+-]{0,40}") {
            let _ = read(&text, Format::Json5);
            let _ = read(&text, Format::Json);
        }

        #[test]
        fn what_is_printed_is_read_back_in_either_format(key in "\\PC{0,8}", text in "\\PC{0,20}|[\\x00-\\x1f'\"]{0,9}") {
            let value = Value::Object(vec![(key.into(), Value::Array(vec![Value::from(text), Value::number("4.50")]))]);
            for format in [Format::Json, Format::Json5] {
                proptest::prop_assert_eq!(read(&print(&value, format), format), Some(value.clone()));
            }
        }
    }
}
