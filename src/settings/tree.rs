//! The tree of what was set: the file's tables, and the environment laid over them.
//!
//! Every node keeps its origin. Where both sources set a key, the environment wins; it must not turn a section into a
//! value or a value into a section, since either would silently drop settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::value::Value;

/// A variable is ours if it begins with this and contains [`SEPARATOR`] after it. Kubernetes sets `BRIDGE_PORT` and
/// similar for a Service named bridge: those are not.
const PREFIX: &str = "BRIDGE_";
const SEPARATOR: &str = "__";

/// A section, or a value within one.
#[derive(Debug)]
pub(super) enum Node {
    Section(Table),
    Leaf(Leaf),
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A section: where it first occurs, and what is in it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) origin: Origin,
    pub(super) entries: BTreeMap<String, Node>,
}

impl Node {
    pub(super) fn origin(&self) -> &Origin {
        match self {
            Self::Section(table) => &table.origin,
            Self::Leaf(leaf) => &leaf.origin,
        }
    }
}

impl Table {
    pub(super) fn empty(origin: Origin) -> Self {
        Self { origin, entries: BTreeMap::new() }
    }

    /// The node at `path`, if it is set.
    pub(super) fn find(&self, path: &[String]) -> Option<&Node> {
        let (last, sections) = path.split_last()?;
        let mut table = self;
        for name in sections {
            let Some(Node::Section(next)) = table.entries.get(name) else { return None };
            table = next;
        }
        table.entries.get(last)
    }

    /// The origin of `path` or, where it is not set, of the innermost section around it that is.
    pub(super) fn nearest_origin(&self, path: &[String]) -> Origin {
        let mut table = self;
        for name in path {
            match table.entries.get(name) {
                Some(Node::Section(next)) => table = next,
                Some(Node::Leaf(leaf)) => return leaf.origin.clone(),
                None => break,
            }
        }
        table.origin.clone()
    }
}

/// Reads the text of a file. Reports every syntax error, not only the first.
pub(super) fn parse(path: &Path, text: &str) -> Result<Table, ConfigErrors> {
    // Found once: counted anew for each key, they would take most of the start where there are thousands of instances.
    let line_ends: Vec<usize> = text.match_indices('\n').map(|(offset, _)| offset).collect();
    let line_at = |offset: usize| 1 + line_ends.partition_point(|end| *end < offset);
    let place = |offset: usize| Origin::File(path.to_owned(), line_at(offset));
    let (document, errors) = DeTable::parse_recoverable(text);
    let described = |error: &toml::de::Error| ConfigError {
        origin: error.span().map_or(Origin::File(path.to_owned(), 0), |span| place(span.start)),
        key: String::new(),
        message: format!("this is not TOML: {}", error.message()),
    };
    match ConfigErrors::collect(errors.iter().map(described).collect()) {
        Some(errors) => Err(errors),
        None => Ok(table(document.get_ref(), Origin::Default, &place)),
    }
}

fn table(source: &DeTable<'_>, origin: Origin, place: &dyn Fn(usize) -> Origin) -> Table {
    let mut target = Table::empty(origin);
    for (key, value) in source {
        let origin = place(key.span().start);
        let node = match value.get_ref() {
            DeValue::Table(inner) => Node::Section(table(inner, origin, place)),
            other => Node::Leaf(Leaf { value: self::value(other), origin }),
        };
        target.entries.insert(key.get_ref().clone().into_owned(), node);
    }
    target
}

fn value(source: &DeValue<'_>) -> Value {
    match source {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Foreign("a number beyond all bounds"), Value::Whole),
        DeValue::Float(_) => Value::Foreign("a number with a fraction"),
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Datetime(_) => Value::Foreign("a date or time"),
        DeValue::Array(items) => Value::List(items.iter().map(|item| value(item.get_ref())).collect()),
        DeValue::Table(_) => Value::Foreign("a table"),
    }
}

/// Lays the environment over the file. Other programs' variables are ignored; a variable of ours that cannot be used is
/// an error.
pub(super) fn overlay(
    root: &mut Table,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    errors: &mut Vec<ConfigError>,
) {
    let mut ours: Vec<_> = environment.into_iter().filter_map(|(name, text)| Some((spelled(&name)?, text))).collect();
    // Environments have no order; errors must not depend on one.
    ours.sort();
    for (name, text) in ours {
        let path = path_of(&name);
        let mut refuse = |message: &str| {
            errors.push(ConfigError {
                origin: Origin::Environment(name.clone()),
                key: path.join("."),
                message: message.to_owned(),
            });
        };
        if path.iter().any(String::is_empty) {
            refuse("a part of this name is empty; a setting is named BRIDGE_SECTION__KEY");
            continue;
        }
        let Ok(text) = text.into_string() else {
            refuse("is not valid UTF-8");
            continue;
        };
        if let Err(message) = set(root, &path, &name, text) {
            refuse(message);
        }
    }
}

/// Variables with our prefix that are ignored, since they lack [`SEPARATOR`].
pub(super) fn ignored<'a>(names: impl IntoIterator<Item = &'a OsString>) -> Vec<String> {
    let ours = |name: &&str| name.strip_prefix(PREFIX).is_some_and(|rest| !rest.contains(SEPARATOR));
    names.into_iter().filter_map(|name| name.to_str()).filter(ours).map(str::to_owned).collect()
}

fn spelled(name: &OsString) -> Option<String> {
    let name = name.to_str()?;
    name.strip_prefix(PREFIX)?.contains(SEPARATOR).then(|| name.to_owned())
}

/// What follows the prefix of an ignored variable, as settings are spelled.
pub(super) fn without_prefix(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase()
}

fn path_of(name: &str) -> Vec<String> {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest.split(SEPARATOR).map(str::to_lowercase).collect()
}

/// The variable that sets `path`.
pub(super) fn variable(path: &[String]) -> String {
    format!("{PREFIX}{}", path.join(SEPARATOR).to_uppercase())
}

fn set(root: &mut Table, path: &[String], name: &str, text: String) -> Result<(), &'static str> {
    let origin = Origin::Environment(name.to_owned());
    let Some((last, sections)) = path.split_last() else { return Ok(()) };
    let mut table = root;
    for section in sections {
        let fresh = || Node::Section(Table::empty(origin.clone()));
        table = match table.entries.entry(section.clone()).or_insert_with(fresh) {
            Node::Section(next) => next,
            Node::Leaf(_) => return Err("a part of this name is set as a value elsewhere, and is not a section"),
        };
    }
    match table.entries.get(last) {
        Some(Node::Section(_)) => return Err("is set as a section elsewhere, and cannot be a value as well"),
        Some(Node::Leaf(Leaf { origin: Origin::Environment(_), .. })) => {
            return Err("is set twice, by two variables whose names differ in case only");
        }
        _ => {}
    }
    table.entries.insert(last.clone(), Node::Leaf(Leaf { value: Value::Untyped(text), origin }));
    Ok(())
}
