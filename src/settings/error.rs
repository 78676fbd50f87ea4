//! Where a setting came from, and what is wrong with it.
//!
//! Errors are collected, sorted by place, and printed one a line. They name keys and places and never quote a value: it
//! may be a secret in the wrong place.

use std::fmt;
use std::path::PathBuf;

/// Where a setting came from. Errors are printed in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line, counted from 1, of the configuration file. Line 0 is the file as a whole.
    File(PathBuf, usize),
    /// A variable of the environment, under the name it has there.
    Environment(String),
    /// It is not set.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(formatter, "{}", path.display()),
            Self::File(path, line) => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => write!(formatter, "environment {name}"),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigError {
    /// Where to look. [`Origin::Default`] where something is missing and no place can be named.
    pub origin: Origin,
    /// The dotted name of the key or section, empty where the file as a whole is meant.
    pub key: String,
    /// What is wrong and what would be right, as a clause that follows the key.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(formatter, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// Everything wrong with a configuration: at least one error, sorted by place. Displays as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The given errors in order of place, each once; `None` if there are none.
    #[must_use]
    pub fn collect(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort();
        errors.dedup();
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The errors in order of place.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(origin: Origin, key: &str) -> ConfigError {
        ConfigError { origin, key: key.into(), message: "is wrong".into() }
    }

    #[test]
    fn errors_are_printed_one_a_line_in_order_of_place_and_once_each() {
        let file = |line| Origin::File("bridge.toml".into(), line);
        let errors = ConfigErrors::collect(vec![
            error(Origin::Default, "instances"),
            error(Origin::Environment("BRIDGE_A__B".into()), "a.b"),
            error(file(12), "d"),
            error(file(2), "c"),
            error(file(12), "d"),
        ]);
        assert_eq!(
            errors.unwrap().to_string(),
            "bridge.toml:2: c: is wrong\n\
             bridge.toml:12: d: is wrong\n\
             environment BRIDGE_A__B: a.b: is wrong\n\
             instances: is wrong"
        );
    }

    #[test]
    fn no_error_makes_no_errors() {
        assert_eq!(ConfigErrors::collect(Vec::new()), None);
    }
}
