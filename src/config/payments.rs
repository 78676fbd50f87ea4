//! The section `payments`.

use std::time::Duration;

use crate::journal::{Config, Create};
use crate::settings::{Choice, Section};

impl Choice for Create {
    const ALL: &'static [(&'static str, Self)] = &[("if-empty", Self::IfEmpty), ("never", Self::Never)];
}

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>) -> Config {
    let default = Config::default();
    let journal = section.get("journal", default.directory().to_owned());
    let create = section.get("create", default.create());
    let keep: Duration = section.at_least("keep", default.keep(), &Config::LEAST_KEEP);
    match Config::new(journal, keep) {
        Ok(config) => config.with_create(create),
        Err(fault) => {
            section.fault("journal", fault);
            default
        }
    }
}
