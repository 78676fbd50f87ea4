//! JSON as it is shown to a person: members in the order in which they came, numbers as they were spelled.
//!
//! Answers are read without a type for each, so that a command shows what a later bridge adds.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use super::terminal::{Table, one_line};
use crate::protocol::Parameters;

/// What is nested deeper is shown as JSON. Bounds the recursion: replies of the gateway are in the records.
const MOST_DEPTH: usize = 6;

/// What stands where nothing is.
pub(super) const NOTHING: &str = "-";

/// A JSON value.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    /// A string without its quotes, a number or a truth value; also what is nested too deep, as JSON.
    Scalar(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads JSON.
    pub(super) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self::of(serde_json::from_str(json)?, 0))
    }

    fn of(raw: &RawValue, depth: usize) -> Self {
        let text = raw.get();
        let as_it_is = || Self::Scalar(text.to_owned());
        if depth > MOST_DEPTH {
            return as_it_is();
        }
        match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b'"') => serde_json::from_str(text).map_or_else(|_| as_it_is(), Self::Scalar),
            Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(text).map_or_else(
                |_| as_it_is(),
                |items| Self::List(items.into_iter().map(|item| Self::of(item, depth + 1)).collect()),
            ),
            Some(b'{') => Parameters::parse(text.as_bytes()).map_or_else(
                |_| as_it_is(),
                |members| {
                    Self::Object(
                        members.iter().map(|(name, raw)| (name.to_owned(), Self::of(raw, depth + 1))).collect(),
                    )
                },
            ),
            _ => as_it_is(),
        }
    }

    /// A member of an object.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    /// The member's text, where it is no list and no object.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Self::as_text)
    }

    /// The member's text, or what stands for nothing.
    pub(super) fn shown(&self, name: &str) -> &str {
        self.text(name).unwrap_or(NOTHING)
    }

    /// The member's items; none where it is no list.
    pub(super) fn items(&self, name: &str) -> &[Self] {
        match self.get(name) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }

    /// The member as a whole number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Whether the member is true.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Scalar(text) = self { Some(text) } else { None }
    }

    /// Its members, each by its name on a line of its own; what is in them, further in.
    pub(super) fn outline(&self) -> String {
        let mut out = String::new();
        if let Self::Object(members) = self {
            outline(members, &mut out, 0);
        }
        out
    }
}

fn outline(members: &[(String, Node)], out: &mut String, depth: usize) {
    let label = |name: &str| one_line(&name.replace('_', " "));
    let width = members.iter().map(|(name, _)| label(name).chars().count()).max().unwrap_or_default();
    let indent = "  ".repeat(depth);
    for (name, node) in members {
        let value = match node {
            Node::Null => NOTHING.to_owned(),
            Node::Scalar(text) if is_time(name) => local_time(text),
            Node::Scalar(text) => text.clone(),
            Node::List(items) => match scalars(items) {
                Some(texts) if texts.is_empty() => NOTHING.to_owned(),
                Some(texts) => texts.join(", "),
                None => String::new(),
            },
            Node::Object(_) => String::new(),
        };
        let line = format!("{indent}{:width$}  {}", label(name), one_line(&value));
        let _ = writeln!(out, "{}", line.trim_end());
        match node {
            Node::Object(inner) => outline(inner, out, depth + 1),
            Node::List(items) if scalars(items).is_none() => list(items, out, depth + 1),
            _ => {}
        }
    }
}

/// A list as a table where every item is flat, else item by item.
fn list(items: &[Node], out: &mut String, depth: usize) {
    let indent = "  ".repeat(depth);
    if let Some(table) = table(items) {
        for line in table.to_string().lines() {
            let _ = writeln!(out, "{indent}{line}");
        }
        return;
    }
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            let _ = writeln!(out);
        }
        match item {
            Node::Object(members) => outline(members, out, depth),
            Node::List(items) => list(items, out, depth),
            other => {
                let _ = writeln!(out, "{indent}{}", one_line(other.as_text().unwrap_or(NOTHING)));
            }
        }
    }
}

/// A column for each name that an item has; nothing where an item is no object, or holds more than plain values and objects
/// of them, whose members then have columns too.
fn table(items: &[Node]) -> Option<Table> {
    let rows = items.iter().map(cells).collect::<Option<Vec<_>>>()?;
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let heads: Vec<String> = names.iter().map(|name| one_line(&name.replace('_', " ")).to_uppercase()).collect();
    let mut table = Table::new(heads.iter().map(|head| (head.as_str(), 0)));
    for row in &rows {
        let cell = |name: &str| row.iter().find(|(known, _)| *known == name).map_or(NOTHING, |(_, text)| *text);
        table.row(names.iter().map(|name| match cell(name) {
            time if is_time(name) => local_time(time),
            text => text.to_owned(),
        }));
    }
    Some(table)
}

/// The plain values of an object, and those of the objects in it.
fn cells(item: &Node) -> Option<Vec<(&str, &str)>> {
    let Node::Object(members) = item else { return None };
    let mut cells = Vec::new();
    for (name, node) in members {
        match node {
            Node::Null => cells.push((name.as_str(), NOTHING)),
            Node::Scalar(text) => cells.push((name, text)),
            Node::Object(inner) => {
                for (name, node) in inner {
                    cells.push((name, node.as_text().or(matches!(node, Node::Null).then_some(NOTHING))?));
                }
            }
            Node::List(_) => return None,
        }
    }
    Some(cells)
}

fn scalars(items: &[Node]) -> Option<Vec<&str>> {
    items.iter().map(Node::as_text).collect()
}

/// Whether the bridge names a time so.
fn is_time(name: &str) -> bool {
    name == "at" || name == "since" || ["_at", "_until", "_as_of"].iter().any(|end| name.ends_with(end))
}

/// A time as the clock on this machine's wall showed it, or the text as it is where it is no time.
pub(super) fn local_time(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at.to_zoned_datetime(TimeZone::system()).strftime("%F %T %:z").to_string(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_numbers_their_spelling() {
        let node = Node::parse(
            r#"{"id": "1", "reply": {"Price": 9.50, "n": null}, "Products": [{"ID": 1, "Amount": 2}, {"ID": 20}],
                "last_words": [1.0, "a\u001bb"], "none": [], "nested": [{"a": {"b": 1}}, {"a": []}], "found": [{"t": {"ID": 1, "P": 9.50}, "n": 0}, {"t": {"ID": 22}, "n": 1}]}"#,
        );
        assert_eq!(
            node.unwrap().outline(),
            "id          1\n\
             reply\n\
             \x20 Price  9.50\n\
             \x20 n      -\n\
             Products\n\
             \x20 ID  AMOUNT\n\
             \x20 1   2\n\
             \x20 20  -\n\
             last words  1.0, a\\u{1b}b\n\
             none        -\n\
             nested\n\
             \x20 a\n\
             \x20   b  1\n\
             \n\
             \x20 a  -\n\
             found\n\
             \x20 ID  P     N\n\
             \x20 1   9.50  0\n\
             \x20 22  -     1\n"
        );
    }

    #[test]
    fn what_is_nested_without_end_is_shown_as_it_is() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(Node::parse(&deep).unwrap().outline().contains("[[[["));
    }

    #[test]
    fn a_time_is_shown_to_the_second_with_its_offset_and_other_text_as_it_is() {
        let shown = local_time("2026-06-08T02:47:58.120Z");
        let again: Timestamp = Timestamp::strptime("%F %T %:z", &shown).unwrap();
        assert_eq!(again.to_string(), "2026-06-08T02:47:58Z");
        assert_eq!(local_time("soon"), "soon");
    }
}
