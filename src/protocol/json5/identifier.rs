//! Which characters an unquoted key may hold when it is read.
//!
//! The npm library compiled in the categories of Unicode 10, the `unicode-ident` crate those of its own, newer Unicode.
//! Everything that the library reads must be read here; a few characters more do no harm, since only keys that are ASCII
//! identifiers are printed bare. A test against the library holds every code point to this.

use unicode_ident::{is_xid_continue, is_xid_start};

/// Whether an identifier may start with `letter`.
pub(super) fn starts(letter: char) -> bool {
    matches!(letter, '$' | '_') || is_xid_start(letter) || is_letter_without_nfkc(letter)
}

/// Whether an identifier may go on with `letter`.
pub(super) fn continues(letter: char) -> bool {
    letter == '$' || is_xid_continue(letter) || is_letter_without_nfkc(letter)
}

/// Whether an identifier may be printed without quotes: every version of Unicode reads it.
pub(super) fn is_ascii(name: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'$' | b'_');
    name.bytes().next().is_some_and(is_first) && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}

/// Letters that Unicode takes out of its identifiers because normalization to NFKC would turn them into something else
/// (Annex 31, section 5.1). ECMAScript keeps them.
fn is_letter_without_nfkc(letter: char) -> bool {
    matches!(
        letter,
        '\u{37a}'
            | '\u{e33}'
            | '\u{eb3}'
            | '\u{2e2f}'
            | '\u{fc5e}'..='\u{fc63}'
            | '\u{fdfa}'..='\u{fdfb}'
            | '\u{fe70}'
            | '\u{fe72}'
            | '\u{fe74}'
            | '\u{fe76}'
            | '\u{fe78}'
            | '\u{fe7a}'
            | '\u{fe7c}'
            | '\u{fe7e}'
            | '\u{ff9e}'..='\u{ff9f}'
    )
}
