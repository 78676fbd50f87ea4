//! Text on a terminal: what others wrote cannot steer it, and columns are aligned.
//!
//! Names, reasons and broadcasts come from administrators and callers, and a terminal obeys control characters wherever they
//! come from.

use std::fmt::{self, Write};

/// Space between two columns.
const GAP: &str = "  ";

/// Whether a terminal might obey `character`, or show text in another order because of it.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` on one line, with every character that could steer a terminal spelled out.
#[must_use]
pub(super) fn one_line(text: &str) -> String {
    escaped(text, |_| false, |character| character.escape_default().to_string())
}

/// JSON text in which what could steer a terminal is escaped, which leaves its meaning: such characters stand only in
/// strings, and the others of them are white space.
#[must_use]
pub(super) fn json(text: &str) -> String {
    escaped(
        text,
        |character| matches!(character, '\n' | '\r' | '\t'),
        |character| {
            let mut units = [0; 2];
            character.encode_utf16(&mut units).iter().fold(String::new(), |mut out, unit| {
                let _ = write!(out, "\\u{unit:04x}");
                out
            })
        },
    )
}

/// Lines of text with every other character that could steer a terminal spelled out.
#[must_use]
pub(super) fn lines(text: &str) -> String {
    escaped(
        &text.replace("\r\n", "\n"),
        |character| character == '\n',
        |character| character.escape_default().to_string(),
    )
}

fn escaped(text: &str, kept: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        if steers(character) && !kept(character) {
            out.push_str(&escape(character));
        } else {
            out.push(character);
        }
        out
    })
}

/// Rows under a heading, each column as wide as its longest cell. The last one is not padded: long text goes there.
#[derive(Debug, Default)]
pub(super) struct Table {
    head: Vec<String>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns, each at least so wide.
    pub(super) fn new<'a>(columns: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let (head, widths) = columns.into_iter().map(|(name, width)| (name.to_owned(), width)).unzip();
        Self { head, widths, rows: Vec::new() }
    }

    /// A row; its cells are shown by [`one_line`].
    pub(super) fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(cell.as_ref())).collect());
    }

    /// The same without the heading.
    pub(super) fn without_head(mut self) -> Self {
        self.head.clear();
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = (!self.head.is_empty()).then_some(&self.head);
        let rows = || head.into_iter().chain(&self.rows);
        let mut widths = self.widths.clone();
        for row in rows() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in rows() {
            let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width));
            let line = padded.collect::<Vec<_>>().join(GAP);
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_spelled_out() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\u{9b}1m\u{202e}d é 😀"), r"a\u{1b}[2Jb\nc\u{9b}1m\u{202e}d é 😀");
        assert_eq!(json("{\n\"a\": \"\u{9b}\u{7f}\u{2066}é\"}"), "{\n\"a\": \"\\u009b\\u007f\\u2066é\"}");
        assert_eq!(lines("a\r\nb\r\u{1b}\n"), "a\nb\\r\\u{1b}\n");
    }

    #[test]
    fn columns_are_aligned_and_the_last_one_is_not_padded() {
        let mut table = Table::new([("ID", 0), ("WHY", 0)]);
        table.row(["1", "short"]);
        table.row(["12345", "long enough"]);
        assert_eq!(table.to_string(), "ID     WHY\n1      short\n12345  long enough\n");
        assert_eq!(table.without_head().to_string(), "1      short\n12345  long enough\n");
    }

    proptest! {
        #[test]
        fn no_cell_breaks_a_line(cells in prop::collection::vec("\\PC{0,9}|[\\x00-\\x1f\\x7f-\\x9f]{0,5}", 2)) {
            let mut table = Table::new([("A", 0), ("B", 0)]).without_head();
            table.row(&cells);
            let shown = table.to_string();
            prop_assert_eq!(shown.lines().count(), 1);
            prop_assert!(!shown.trim_end_matches('\n').chars().any(steers), "{:?}", shown);
        }

        #[test]
        fn escaped_json_means_the_same(text in "(\\PC|[\\x00-\\x1f\\x7f-\\x9f\u{2066}]){0,20}") {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json(&written)).unwrap(), text);
        }
    }
}
