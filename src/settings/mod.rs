//! Typed reading of the configuration: a TOML file, and the environment over it.
//!
//! Crates that usually do this (`config`, `figment`, and serde itself) stop at the first error and forget the line or
//! variable that a value came from. Here every value keeps its place. Each section is read key by key, which never fails;
//! [`Settings::finish`] then reports every error with its place, or the effective configuration with the origin of every
//! value.
//!
//! Nothing is ignored: a key that nobody reads is an error, as are a number in quotes in the file and a variable that
//! could be ours (`BRIDGE_SECTION__KEY`) but is no setting. This room knows no key by itself.
//!
//! Entry points: [`Settings::load`], [`Settings::root`], [`Section`].

mod effective;
mod error;
mod reading;
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

pub use effective::EffectiveConfig;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use section::Section;
pub use size::Size;
pub use value::EnumSetting;

use reading::Reading;
use tree::Table;

/// What was set, what of it has been read, and the errors found so far. Its `Debug` shows no values.
#[derive(Debug)]
pub struct Settings(Reading);

impl Settings {
    /// Reads `file`, if one is given, and lays `environment` over it.
    ///
    /// Fails where the file cannot be read or is not TOML: what it would have said is then unknown, and any further error
    /// would be noise.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let mut tree = file.map_or_else(|| Ok(Table::empty(Origin::Default)), read)?;
        let environment: Vec<_> = environment.into_iter().collect();
        let mut ignored = tree::ignored(environment.iter().map(|(name, _)| name));
        ignored.sort();
        let mut errors = Vec::new();
        tree::overlay(&mut tree, environment, &mut errors);
        Ok(Self(Reading::new(tree, ignored, errors)))
    }

    /// The root, under which the sections stand.
    pub fn root(&mut self) -> Section<'_> {
        Section::new(&mut self.0, Vec::new())
    }

    /// Ends the reading: every error, among them each key that nobody read, or else the effective configuration.
    pub fn finish(self) -> Result<EffectiveConfig, ConfigErrors> {
        let Reading { tree, ignored, known, entries, mut errors, mut warnings, .. } = self.0;
        errors.extend(known.left_over(&tree));
        let hints = ignored.iter().filter_map(|name| known.hint(name));
        if errors.is_empty() {
            warnings.extend(hints);
        } else {
            errors.extend(hints);
        }
        match ConfigErrors::collect(errors) {
            Some(errors) => Err(errors),
            None => Ok(EffectiveConfig { entries, warnings }),
        }
    }
}

fn read(path: &Path) -> Result<Table, ConfigErrors> {
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        ConfigErrors::from(ConfigError { origin: Origin::File(path.to_owned(), 0), key: String::new(), message })
    })?;
    tree::parse(path, &text)
}
