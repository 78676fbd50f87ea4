//! The section `payments`.

use std::time::Duration;

use crate::journal::Config;
use crate::settings::Section;

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>) -> Config {
    let default = Config::default();
    let journal = section.get("journal", default.directory().to_owned());
    let keep: Duration = section.at_least("keep", default.keep(), &Config::LEAST_KEEP);
    Config::new(journal, keep).unwrap_or_else(|fault| {
        section.fault("journal", fault);
        default
    })
}
