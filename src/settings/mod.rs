//! Typed reading of the configuration, from a TOML file and the environment over it.
//!
//! An operator who starts the bridge at the gates of a festival has no time for one fault at a time. The crates that
//! usually do this (`config`, `figment`) stop at the first, and forget which line or variable a value came from. So the
//! tree is our own: every value keeps its place, each room reads its section and says what is wrong with it, and only
//! at the end is the whole refused, with every fault and its place, or accepted, with the origin of every value.
//!
//! It refuses to guess: a key that nobody reads is a fault, a number in quotes in the file is a fault, and a variable
//! that could be ours (`BRIDGE_SECTION__KEY`) but is no setting is a fault too. It knows no key by itself; that is the
//! rooms' business.

mod fault;
mod printed;
mod section;
mod size;
#[cfg(test)]
mod tests;
mod tree;
mod unknown;
pub mod url;
mod value;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

pub use fault::{Fault, Faults, Origin};
pub use printed::{Entry, Printed};
pub use section::Section;
pub use size::Size;
pub use value::{Choice, Setting, Value};

use tree::Table;
use unknown::Known;

/// What was set, what of it has been read, and what was found wrong so far. Its `Debug` shows no values.
#[derive(Debug)]
pub struct Settings {
    tree: Table,
    known: Known,
    printed: Vec<Entry>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Settings {
    /// Reads `file`, if one is given, and lays `environment` over it.
    ///
    /// Fails where the file cannot be read or is not TOML: what it would have said is then unknown, and anything found
    /// wrong after that would be noise.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Faults> {
        let mut tree = file.map_or_else(|| Ok(Table::empty(Origin::Default)), read)?;
        let mut faults = Vec::new();
        tree::overlay(&mut tree, environment, &mut faults);
        Ok(Self { tree, known: Known::default(), printed: Vec::new(), faults, warnings: Vec::new() })
    }

    /// The root, under which the sections stand.
    pub fn root(&mut self) -> Section<'_> {
        Section::new(self, Vec::new())
    }

    /// Ends the reading: every fault there is, among them each key that nobody read, or else what is in force.
    pub fn finish(mut self) -> Result<Printed, Faults> {
        self.faults.extend(self.known.left_over(&self.tree));
        match Faults::collect(self.faults) {
            Some(faults) => Err(faults),
            None => Ok(Printed { entries: self.printed, warnings: self.warnings }),
        }
    }
}

fn read(path: &Path) -> Result<Table, Faults> {
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        Faults::from(Fault { origin: Origin::File(path.to_owned(), 0), key: String::new(), message })
    })?;
    tree::parse(path, &text)
}
