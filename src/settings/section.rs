//! One section of the configuration, as the rooms read it.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

use super::effective::Entry;
use super::error::{ConfigError, Origin};
use super::reading::Reading;
use super::tree::Node;
use super::url;
use super::value::{Setting, Value};

/// What `--print` shows in place of a secret.
const REDACTED: &str = "(redacted)";

/// The bit of a file's mode that lets everybody read it.
const READ_BY_OTHERS: u32 = 0o004;

/// A section of the configuration, whether anything is set in it or not. Reading never fails: an error is recorded, and
/// the default stands in until [`Settings::finish`](super::Settings::finish) refuses the whole.
#[derive(Debug)]
pub struct Section<'a> {
    reading: &'a mut Reading,
    path: Vec<String>,
}

impl<'a> Section<'a> {
    pub(super) fn new(reading: &'a mut Reading, path: Vec<String>) -> Self {
        if reading.known.sections.insert(path.clone())
            && let Some(Node::Leaf(leaf)) = reading.tree.find(&path)
        {
            let origin = leaf.origin.clone();
            let message = "is a section, and not a value".to_owned();
            reading.errors.push(ConfigError { origin, key: path.join("."), message });
        }
        Self { reading, path }
    }
}

impl Section<'_> {
    /// The section `name` under this one.
    pub fn section(&mut self, name: &str) -> Section<'_> {
        let path = self.path_to(name);
        Section::new(self.reading, path)
    }

    /// The names of the sections under this one, in order. For sections whose members the operator names; each has `keys`.
    pub fn names(&mut self, keys: &'static [&'static str]) -> Vec<String> {
        self.reading.known.open.insert(self.path.clone(), keys);
        let entries = match self.reading.tree.find(&self.path) {
            Some(Node::Section(table)) => &table.entries,
            _ => return Vec::new(),
        };
        let sections = entries.iter().filter(|(_, node)| matches!(node, Node::Section(_)));
        sections.map(|(name, _)| name.clone()).collect()
    }

    /// Whether anything of it is set, be it only its head.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.reading.tree.find(&self.path).is_some()
    }

    /// Variables that begin as ours do and set nothing, since they have no `__`.
    #[must_use]
    pub fn ignored_variables(&self) -> &[String] {
        &self.reading.ignored
    }

    /// The value of `key`, or `default` where it is not set or is wrong.
    pub fn get<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        let Some((value, origin)) = self.look(key) else {
            self.note(key, Some(default.show()), Origin::Default);
            return default;
        };
        let read = self.read(key, &value).unwrap_or(default);
        self.note(key, Some(read.show()), origin);
        read
    }

    /// As [`Section::get`], for a value that must not be below `least`.
    pub fn at_least<T: Setting + PartialOrd + Copy>(&mut self, key: &'static str, default: T, least: &T) -> T {
        let value = self.get(key, default);
        if value < *least {
            self.error(key, format_args!("must be at least {}", least.show().trim_matches('"')));
        }
        value
    }

    /// The value of `key`, or `None` where it is not set, is wrong, or is taken back by an empty variable.
    pub fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let found = self.look(key).filter(|(value, _)| !value.is_blank());
        let Some((value, origin)) = found else {
            self.note(key, None, Origin::Default);
            return None;
        };
        let read = self.read::<T>(key, &value);
        self.note(key, read.as_ref().map(Setting::show), origin);
        read
    }

    /// Refuses a key of earlier versions, with the reason.
    pub fn gone(&mut self, key: &'static str, why: &str) {
        if self.look(key).is_some() {
            self.error(key, why);
        }
    }

    /// The secret `key`, without white space around it. Shown redacted, and never part of an error.
    pub fn secret(&mut self, key: &'static str) -> Option<SecretString> {
        let found = self.look(key).filter(|(value, _)| !value.is_blank());
        let Some((value, origin)) = found else {
            self.note(key, None, Origin::Default);
            return None;
        };
        if let Origin::File(file, _) = &origin {
            self.warn_of_readers(key, &file.clone());
        }
        self.note(key, Some(REDACTED.to_owned()), origin);
        match value.text().map(str::trim) {
            Some("") => self.error(key, "is empty"),
            Some(text) => return Some(text.into()),
            None => self.error(key, "must be text in quotes"),
        }
        None
    }

    /// Records an error: `message` is a clause that follows the key. An empty `key` means the section itself. The place
    /// is the key's, or that of the innermost section around it that is set.
    pub fn error(&mut self, key: &str, message: impl Display) {
        let path = if key.is_empty() { self.path.clone() } else { self.path_to(key) };
        let origin = self.reading.tree.nearest_origin(&path);
        self.reading.errors.push(ConfigError { origin, key: path.join("."), message: message.to_string() });
    }

    /// As [`Section::error`], for what does not stop the start.
    pub fn warn(&mut self, key: &str, message: impl Display) {
        let path = self.path_to(key);
        let origin = self.reading.tree.nearest_origin(&path);
        self.reading.warnings.push(ConfigError { origin, key: path.join("."), message: message.to_string() });
    }

    /// Warns where `file`, which holds a secret, may be read by every user of the machine.
    pub fn warn_of_readers(&mut self, key: &str, file: &Path) {
        let mode = file.metadata().map_or(0, |found| found.permissions().mode());
        if mode & READ_BY_OTHERS != 0 {
            self.warn(
                key,
                format_args!("{} may be read by every user of this machine; take that right away", file.display()),
            );
        }
    }

    /// How many errors have been recorded so far, in this and all other sections.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.reading.errors.len()
    }

    fn path_to(&self, name: &str) -> Vec<String> {
        self.path.iter().cloned().chain([name.to_owned()]).collect()
    }

    fn look(&mut self, key: &str) -> Option<(Value, Origin)> {
        let path = self.path_to(key);
        let found = match self.reading.tree.find(&path) {
            Some(Node::Leaf(leaf)) => Some((leaf.value.clone(), leaf.origin.clone())),
            Some(Node::Section(_)) => {
                self.error(key, "is a value, and not a section");
                None
            }
            None => None,
        };
        self.reading.known.keys.insert(path);
        found
    }

    fn read<T: Setting>(&mut self, key: &str, value: &Value) -> Option<T> {
        T::read(value).map_err(|message| self.error(key, message)).ok()
    }

    fn note(&mut self, key: &str, shown: Option<String>, origin: Origin) {
        let key = self.path_to(key).join(".");
        if self.reading.read_keys.insert(key.clone()) {
            let shown = shown.map(|shown| url::redacted(&shown));
            self.reading.entries.push(Entry { key, shown, origin });
        }
    }
}
