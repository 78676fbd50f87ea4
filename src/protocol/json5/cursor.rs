//! A place in a text, and what may be skipped there.
//!
//! The readers of this room share one way of moving: forward only, a whole character at a time, so that no place is
//! ever inside one and no text is looked at twice. Nothing here knows what a value is.

use super::error::Json5Error;

/// What is left of a text, and how far into it that is.
pub(super) struct Cursor<'a> {
    rest: &'a str,
    total: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, total: text.len() }
    }

    /// How many bytes lie behind.
    pub(super) fn at(&self) -> usize {
        self.total - self.rest.len()
    }

    /// The next character, left where it is.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The next character, taken.
    pub(super) fn take(&mut self) -> Option<char> {
        let mut rest = self.rest.chars();
        let next = rest.next();
        self.rest = rest.as_str();
        next
    }

    /// Takes `expected` if it comes next, and says whether it did.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let rest = self.rest.strip_prefix(expected);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// The longest run of characters that belong, taken; it may be empty.
    pub(super) fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|next| !belongs(next)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Takes white space and comments, as many as there are. An error where a comment has no end.
    pub(super) fn skip_blank(&mut self) -> Result<(), Json5Error> {
        loop {
            self.take_while(is_white_space);
            let unclosed = self.fault("a comment without an end");
            if self.eat("//") {
                self.take_while(|next| !is_line_end(next));
            } else if self.eat("/*") {
                let (_, rest) = self.rest.split_once("*/").ok_or(unclosed)?;
                self.rest = rest;
            } else {
                return Ok(());
            }
        }
    }

    /// The error that says `what` is wrong here.
    pub(super) fn fault(&self, what: &'static str) -> Json5Error {
        Json5Error { what, at: self.at() }
    }
}

/// What ends a line in ECMAScript, and so ends a `//` comment.
pub(super) fn is_line_end(next: char) -> bool {
    matches!(next, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

/// JSON5's white space: what its grammar names, Unicode's `Space_Separator`, and line ends. Close to Rust's notion and
/// not the same: U+FEFF is in, U+0085 is out.
fn is_white_space(next: char) -> bool {
    let named = matches!(next, '\t' | '\u{b}' | '\u{c}' | ' ' | '\u{a0}' | '\u{feff}');
    let separator = matches!(next, '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}');
    named || separator || is_line_end(next)
}
