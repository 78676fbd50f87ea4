//! Where a setting came from, and what is wrong with it.
//!
//! Whoever repairs a configuration wants every fault in one go and the line to look at. So faults are collected, sorted
//! by place, and printed one a line. They name keys and places and never quote a value that was found: a value in the
//! wrong place may be a secret.

use std::fmt;
use std::path::PathBuf;

/// Where a setting in force came from. The order is the one in which faults are printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line, counted from 1, of the configuration file. Line 0 is the file as a whole.
    File(PathBuf, usize),
    /// A variable of the environment, under the name it has there.
    Environment(String),
    /// Nobody set it.
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
pub struct Fault {
    /// Where to look. [`Origin::Default`] where something is missing and no place can be named.
    pub origin: Origin,
    /// The dotted name of the key or section, empty where the file as a whole is meant.
    pub key: String,
    /// What is wrong and what would be right, as a clause that follows the key.
    pub message: String,
}

impl fmt::Display for Fault {
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

/// Everything wrong with a configuration: at least one fault, sorted by place. Displays as one line a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The given faults in order of place, each once; `None` if there are none.
    #[must_use]
    pub fn collect(mut faults: Vec<Fault>) -> Option<Self> {
        faults.sort();
        faults.dedup();
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The faults in order of place.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(origin: Origin, key: &str) -> Fault {
        Fault { origin, key: key.into(), message: "is wrong".into() }
    }

    #[test]
    fn faults_are_printed_one_a_line_in_order_of_place_and_once_each() {
        let file = |line| Origin::File("bridge.toml".into(), line);
        let faults = Faults::collect(vec![
            fault(Origin::Default, "instances"),
            fault(Origin::Environment("BRIDGE_A__B".into()), "a.b"),
            fault(file(12), "d"),
            fault(file(2), "c"),
            fault(file(12), "d"),
        ]);
        assert_eq!(
            faults.unwrap().to_string(),
            "bridge.toml:2: c: is wrong\n\
             bridge.toml:12: d: is wrong\n\
             environment BRIDGE_A__B: a.b: is wrong\n\
             instances: is wrong"
        );
    }

    #[test]
    fn no_fault_makes_no_faults() {
        assert_eq!(Faults::collect(Vec::new()), None);
    }
}
