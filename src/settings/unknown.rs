//! Keys and sections that are set and that no room reads: misspelled, misplaced, or meant for another program.
//!
//! Ignoring them silently would let the operator believe they are in force. Each is an error that names the nearest
//! known name.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{ConfigError, Origin};
use super::tree::{Node, Table, variable, without_prefix};

/// The names that were asked for while the rooms read.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Keys.
    pub(super) keys: BTreeSet<Vec<String>>,
    /// Sections.
    pub(super) sections: BTreeSet<Vec<String>>,
    /// Sections whose members are named by the operator, each a section of its own (`instances`), with the members' keys.
    pub(super) open: BTreeMap<Vec<String>, &'static [&'static str]>,
}

impl Known {
    /// A error for each node of `tree` that no room asked for; a section that is unknown as a whole is one error.
    pub(super) fn left_over(&self, tree: &Table) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        self.walk(tree, &mut Vec::new(), &mut errors);
        errors
    }

    fn walk(&self, table: &Table, path: &mut Vec<String>, errors: &mut Vec<ConfigError>) {
        for (name, node) in &table.entries {
            path.push(name.clone());
            match node {
                Node::Section(inner) if self.sections.contains(path.as_slice()) => self.walk(inner, path, errors),
                // A key that is a section, or a section that is a value, was an error when it was read.
                _ if self.keys.contains(path.as_slice()) || self.sections.contains(path.as_slice()) => {}
                node => errors.push(self.error(path, node)),
            }
            path.pop();
        }
    }

    fn error(&self, path: &[String], node: &Node) -> ConfigError {
        let is_section = matches!(node, Node::Section(_));
        let parent = path.split_last().map_or(&[][..], |(_, parent)| parent);
        let spelled = |path: &[String]| match node.origin() {
            Origin::Environment(_) => variable(path),
            _ => path.join("."),
        };
        let meant = match node.origin() {
            Origin::Environment(name) => self.meant(&without_prefix(name).replace("__", "_")),
            _ => None,
        };
        let message = if let Some(meant) = meant {
            format!("no such {}; it is spelled {meant}", if is_section { "section" } else { "key" })
        } else if !is_section && self.open.contains_key(parent) {
            format!("is a value and must be a section: [{}]", path.join("."))
        } else {
            let what = if is_section { "no such section" } else { "no such key" };
            match self.nearest(path, is_section) {
                Some(nearest) => format!("{what}; the nearest known is {}", spelled(nearest)),
                None => what.to_owned(),
            }
        };
        ConfigError { origin: node.origin().clone(), key: path.join("."), message }
    }

    /// What an ignored variable was meant for, if it is a setting but for its underscores.
    pub(super) fn hint(&self, name: &str) -> Option<ConfigError> {
        let meant = self.meant(&without_prefix(name))?;
        let message = format!("is ignored, since sections are divided by two underscores: it is spelled {meant}");
        Some(ConfigError { origin: Origin::Environment(name.to_owned()), key: String::new(), message })
    }

    /// The variable of the setting that is written `flat` with single underscores.
    fn meant(&self, flat: &str) -> Option<String> {
        if let Some(key) = self.keys.iter().find(|key| key.join("_") == flat) {
            return Some(variable(key));
        }
        self.open.iter().find_map(|(section, keys)| {
            let rest = flat.strip_prefix(&section.join("_"))?.strip_prefix('_')?;
            let member = |key: &&&str| rest.strip_suffix(**key).and_then(|rest| rest.strip_suffix('_'));
            let key = keys.iter().find(|key| member(key).is_some_and(|name| !name.is_empty()))?;
            let name = member(&key)?.to_owned();
            Some(variable(&[section.as_slice(), &[name, (*key).to_owned()]].concat()))
        })
    }

    fn nearest(&self, path: &[String], is_section: bool) -> Option<&[String]> {
        let known = if is_section { &self.sections } else { &self.keys };
        let (last, parent) = path.split_last()?;
        let whole = path.join(".");
        // The same word in another section was misplaced, not misspelled; otherwise neighbours come first. Likeness is
        // Jaro and Winkler's, which forgives a forgotten ending.
        let likeness = |other: &[String]| {
            let same = other.last() == Some(last);
            let beside = other.split_last().is_some_and(|(_, others)| others == parent);
            let name = other.last().map_or("", String::as_str);
            let (by_name, by_path) = (strsim::jaro_winkler(last, name), strsim::jaro_winkler(&whole, &other.join(".")));
            (same, beside, by_name, by_path)
        };
        let compare = |one: &&Vec<String>, other: &&Vec<String>| {
            let (one, other) = (likeness(one), likeness(other));
            let (by_name, by_path) = (one.2.total_cmp(&other.2), one.3.total_cmp(&other.3));
            (one.0, one.1).cmp(&(other.0, other.1)).then(by_name).then(by_path)
        };
        known.iter().filter(|other| !other.is_empty()).max_by(compare).map(Vec::as_slice)
    }
}
