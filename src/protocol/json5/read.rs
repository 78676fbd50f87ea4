//! JSON5 → JSON: the grammar of values, arrays and objects.
//!
//! A walk down the grammar that writes JSON as it goes. It recurses, which is how grammars read best, and may do so
//! because the depth is bounded first: a text of nothing but brackets ends in an error and never in an overflow.

use super::cursor::Cursor;
use super::error::Json5Error;
use super::{number, text};

/// How many arrays and objects may stand inside one another. `serde_json` counts down from 128 and refuses at zero, so
/// this is the deepest value it reads: what is accepted here will not be refused for its depth later.
const MAX_DEPTH: usize = 127;

/// Respells one JSON5 value as JSON on one line.
///
/// Comments, white space and trailing commas go. Members keep their order, and repeated keys are all kept. Strings
/// keep every UTF-16 unit: what Unicode cannot spell, a surrogate alone, becomes its escape `\ud800`, which JSON
/// allows and a [`RawValue`](serde_json::value::RawValue) carries, but a Rust `String` does not. Numbers keep every
/// digit, and change only where JSON forbids their spelling: `+1` → `1`, `.5` → `0.5`, `5.` → `5`, `0x1F` → `31`.
/// `Infinity` and `NaN`, of either sign, become `null`, as in `JSON.stringify`, since JSON has no word for them; white space
/// behind it lets [`from_json`](super::from_json) print them again.
///
/// # Errors
///
/// What is not one JSON5 value with nothing but blanks around it; more than 127 arrays and objects inside one another;
/// a hexadecimal number of more than 256 significant digits, which is beyond what a JavaScript number can hold.
pub fn to_json(text: &str) -> Result<String, Json5Error> {
    let mut reader = Reader { from: Cursor::new(text), json: String::with_capacity(text.len()) };
    reader.value(MAX_DEPTH)?;
    reader.from.skip_blank()?;
    match reader.from.peek() {
        None => Ok(reader.json),
        Some(_) => Err(reader.from.fault("something after the value")),
    }
}

struct Reader<'a> {
    from: Cursor<'a>,
    json: String,
}

impl Reader<'_> {
    /// One value, with room for `depth` arrays and objects inside one another.
    fn value(&mut self, depth: usize) -> Result<(), Json5Error> {
        self.from.skip_blank()?;
        match self.from.peek() {
            Some('[') => self.items(['[', ']'], depth, Self::value),
            Some('{') => self.items(['{', '}'], depth, Self::member),
            Some('"' | '\'') => text::string(&mut self.from, &mut self.json),
            Some('+' | '-' | '.' | '0'..='9' | 'I' | 'N') => number::number(&mut self.from, &mut self.json),
            Some(_) => self.word(),
            None => Err(self.from.fault("the end where a value belongs")),
        }
    }

    /// The items of an array or object between its brackets. Commas are written before items and not after them, so
    /// that a trailing one is gone by itself.
    fn items(
        &mut self,
        [open, close]: [char; 2],
        depth: usize,
        item: fn(&mut Self, usize) -> Result<(), Json5Error>,
    ) -> Result<(), Json5Error> {
        let inside =
            depth.checked_sub(1).ok_or_else(|| self.from.fault("too many arrays and objects in one another"))?;
        self.from.take();
        self.json.push(open);
        let mut empty = true;
        loop {
            self.from.skip_blank()?;
            if self.from.peek() == Some(close) {
                break;
            }
            if !empty {
                self.json.push(',');
            }
            empty = false;
            item(self, inside)?;
            self.from.skip_blank()?;
            if !self.from.eat(",") && self.from.peek() != Some(close) {
                return Err(self.from.fault("neither a comma nor the closing bracket"));
            }
        }
        self.from.take();
        self.json.push(close);
        Ok(())
    }

    /// One member of an object.
    fn member(&mut self, depth: usize) -> Result<(), Json5Error> {
        match self.from.peek() {
            Some('"' | '\'') => text::string(&mut self.from, &mut self.json)?,
            _ => text::identifier(&mut self.from, &mut self.json)?,
        }
        self.from.skip_blank()?;
        if !self.from.eat(":") {
            return Err(self.from.fault("a key without its colon"));
        }
        self.json.push(':');
        self.value(depth)
    }

    /// One of the words that JSON and JSON5 share.
    fn word(&mut self) -> Result<(), Json5Error> {
        for word in ["null", "true", "false"] {
            if self.from.eat(word) {
                self.json.push_str(word);
                return Ok(());
            }
        }
        Err(self.from.fault("no value"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{agree, refuse};
    use super::*;

    #[test]
    fn json_stays_as_it_is_but_for_its_white_space() {
        agree(&[
            ("null", "null"),
            ("true", "true"),
            ("false", "false"),
            ("[]", "[]"),
            ("{}", "{}"),
            (" [ 1 , { \"a\" : [ ] } ] \n", r#"[1,{"a":[]}]"#),
            (r#"{"a":1,"a":2,"":{}}"#, r#"{"a":1,"a":2,"":{}}"#),
        ]);
    }

    #[test]
    fn trailing_commas_go_and_lone_or_doubled_ones_are_errors() {
        agree(&[("[1,]", "[1]"), ("{a:1,}", r#"{"a":1}"#), ("[[],{},]", "[[],{}]")]);
        refuse(&["[,]", "{,}", "[1,,2]", "[,1]", "{a:1,,}", "1,"]);
    }

    #[test]
    fn comments_and_every_white_space_may_stand_between_any_two_tokens() {
        let blank = "\t\u{b}\u{c} \u{a0}\u{feff}\n\r\u{2028}\u{2029}\u{1680}\u{2000}\u{200a}\u{202f}\u{205f}\u{3000}";
        let text = ["", "{", "a", ":", "[", "1", ",", "2", "]", ",", "}", ""];
        assert_eq!(to_json(&text.join(blank)).unwrap(), r#"{"a":[1,2]}"#);
        assert_eq!(to_json(&text.join("/* , */")).unwrap(), r#"{"a":[1,2]}"#);
        assert_eq!(to_json(&text.join("/***/// ] \u{2028}//\r")).unwrap(), r#"{"a":[1,2]}"#);
        agree(&[("1//", "1"), ("1// no line end", "1"), ("/**/1", "1"), ("/* // */1", "1"), ("// /*\n1", "1")]);
        refuse(&["/*", "1/*", "/*/1", "/ /1", "1/", "//1", "\u{85}1", "\u{200b}1", "\u{180e}1"]);
    }

    #[test]
    fn what_is_not_one_value_is_an_error() {
        refuse(&[
            "",
            " ",
            "1 2",
            "[1 2]",
            "[1",
            "[",
            "{",
            "}",
            "]",
            "[}",
            "{]",
            "{a}",
            "{a:}",
            "{a:1",
            "{a 1}",
            "{a:1 b:2}",
        ]);
        refuse(&["nul", "nulll", "True", "undefined", "tru e", "{1:2}", "{[]:1}", "{:1}", "a", "(1)", "1;"]);
    }

    #[test]
    fn errors_say_where() {
        let fault = |text| to_json(text).unwrap_err().to_string();
        assert_eq!(fault("[1, é]"), "no value at byte 4");
        assert_eq!(fault("[1 'é'"), "neither a comma nor the closing bracket at byte 3");
        assert_eq!(fault("['é' /*"), "a comment without an end at byte 6");
        assert_eq!(fault("1 1"), "something after the value at byte 2");
    }

    #[test]
    fn the_deepest_value_that_passes_is_the_deepest_that_serde_json_reads() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = to_json(&nested(MAX_DEPTH)).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&deepest).is_ok());
        assert!(serde_json::from_str::<serde_json::Value>(&nested(MAX_DEPTH + 1)).is_err());
        assert_eq!(to_json(&nested(MAX_DEPTH + 1)).unwrap_err().at, MAX_DEPTH);
    }

    #[test]
    fn a_million_brackets_are_an_error_and_no_overflow() {
        for opening in ["[", "{a:", "[{a:", "[/**/"] {
            assert!(to_json(&opening.repeat(1_000_000)).is_err());
        }
    }
}
