//! CSV by RFC 4180: lines end with CR LF, and a cell with a comma, a quote or a line break is quoted.
//!
//! A spreadsheet takes a cell for a formula that begins with `=`, `+`, `-`, `@`, a tab or a line break, whether it is quoted or
//! not, and what callers, administrators and the gateway typed may begin with anything. Such a text gets an apostrophe
//! before it, which spreadsheets take to mean text.

/// The media type, with what RFC 7111 and RFC 4180 say of it.
pub const MEDIA_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// With what a formula begins; spreadsheets of some languages also take the wide forms.
const BEGIN_FORMULAS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// What somebody typed.
    Text(String),
    /// What the bridge spells itself: an id, a number, a time. A negative number is no formula.
    Own(String),
}

impl Cell {
    /// What the bridge spells itself; empty where there is nothing.
    #[must_use]
    pub fn own(value: Option<impl ToString>) -> Self {
        Self::Own(value.map(|value| value.to_string()).unwrap_or_default())
    }

    /// What somebody typed; empty where there is nothing.
    #[must_use]
    pub fn text(value: Option<&str>) -> Self {
        Self::Text(value.unwrap_or_default().to_owned())
    }
}

/// Adds one line.
pub fn line(document: &mut String, cells: impl IntoIterator<Item = Cell>) {
    for (at, cell) in cells.into_iter().enumerate() {
        if at > 0 {
            document.push(',');
        }
        add(document, &cell);
    }
    document.push_str("\r\n");
}

fn add(document: &mut String, cell: &Cell) {
    let (text, defused) = match cell {
        Cell::Text(text) => (text, text.starts_with(BEGIN_FORMULAS)),
        Cell::Own(text) => (text, false),
    };
    let apostrophe = if defused { "'" } else { "" };
    if text.contains([',', '"', '\r', '\n', ';', '\t']) {
        let quoted = text.replace('"', "\"\"");
        document.extend(["\"", apostrophe, &quoted, "\""]);
    } else {
        document.extend([apostrophe, text]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads by the grammar of RFC 4180; none where it is not kept to.
    fn read(document: &str) -> Option<Vec<Vec<String>>> {
        let (mut lines, mut rest) = (Vec::new(), document);
        while !rest.is_empty() {
            let mut cells = Vec::new();
            loop {
                let (cell, after) = read_cell(rest)?;
                cells.push(cell);
                if let Some(after) = after.strip_prefix(',') {
                    rest = after;
                } else {
                    rest = after.strip_prefix("\r\n")?;
                    break;
                }
            }
            lines.push(cells);
        }
        Some(lines)
    }

    fn read_cell(rest: &str) -> Option<(String, &str)> {
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let (cell, after) = rest.split_at(rest.find([',', '\r', '\n', '"'])?);
            return Some((cell.to_owned(), after));
        };
        let mut cell = String::new();
        loop {
            let (part, after) = quoted.split_once('"')?;
            cell.push_str(part);
            match after.strip_prefix('"') {
                Some(after) => {
                    cell.push('"');
                    quoted = after;
                }
                None => return Some((cell, after)),
            }
        }
    }

    fn cells() -> impl Strategy<Value = Vec<Cell>> {
        let text = || prop_oneof!["[=+@,;\"'\r\n\t\\-a＝]{0,4}", any::<String>()];
        prop::collection::vec(prop_oneof![text().prop_map(Cell::Text), "-?[0-9.]{1,6}".prop_map(Cell::Own)], 1..5)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_no_text_begins_a_formula(lines in prop::collection::vec(cells(), 0..4)) {
            let mut document = String::new();
            for cells in &lines {
                line(&mut document, cells.clone());
            }
            let read = read(&document).expect("the grammar of RFC 4180");
            prop_assert_eq!(read.len(), lines.len());
            for (cell, given) in read.into_iter().flatten().zip(lines.into_iter().flatten()) {
                match given {
                    Cell::Own(text) => prop_assert_eq!(cell, text),
                    Cell::Text(text) => {
                        prop_assert!(!cell.starts_with(BEGIN_FORMULAS), "{:?}", cell);
                        prop_assert!(cell == text || cell.strip_prefix('\'') == Some(text.as_str()), "{:?}", cell);
                    }
                }
            }
        }
    }

    #[test]
    fn cells_are_quoted_where_needed_and_formulas_defused() {
        let mut document = String::new();
        let typed = ["=1+1", "a \"b\"", "a,b", "two\r\nlines", "plain", ""].map(|text| Cell::Text(text.to_owned()));
        line(&mut document, typed.into_iter().chain([Cell::own(Some(-5)), Cell::own(None::<i64>)]));
        assert_eq!(document, "'=1+1,\"a \"\"b\"\"\",\"a,b\",\"two\r\nlines\",plain,,-5,\r\n");
    }
}
