//! JSON5 read and printed without ever understanding a number.
//!
//! A gateway asked for `Content-Type=json5` prints what it sends with the `json5` library of npm. The bridge works on
//! JSON text, so it respells: [`to_json`] turns one JSON5 value into JSON on the way in, [`from_json`] turns JSON into
//! what the library's `stringify` would print on the way out. Both are a single walk from spelling to spelling, value
//! for value, and build no tree in between.
//!
//! The `json5` crate would have been less work, and three things rule it out here:
//!
//! - it reads numbers as `f64`, and `2.50` on a receipt must stay `2.50`;
//! - it has no limit on depth, and a hundred thousand brackets overflow the stack;
//! - it loses `\ud800` standing alone, which a JavaScript program may well have sent.
//!
//! So: every number keeps its digits, depth is bounded, and a lone surrogate stays the escape it was. What is accepted
//! is the whole grammar of JSON5 1.0.0 as the library's `parse` reads it, Unicode tables included; where the document
//! and the library differ, the library wins, since it is what speaks at the other end. No text from outside can panic
//! anything here, and time and memory grow in step with the text.
//!
//! It refuses to repair: what the library does not read is an error, which names the place and never quotes the text,
//! since that may hold secrets.

mod cursor;
mod error;
mod identifier;
mod number;
mod print;
mod read;
#[cfg(test)]
mod spellings;
#[cfg(test)]
mod tests;
mod text;

pub use error::Json5Error;
pub use print::from_json;
pub use read::to_json;
