//! The section `payments`.

use std::time::Duration;

use super::folders;
use crate::gateway;
use crate::journal::{Config, Create};
use crate::settings::{EnumSetting, Section};

impl EnumSetting for Create {
    const ALL: &'static [(&'static str, Self)] = &[("if-empty", Self::IfEmpty), ("never", Self::Never)];
}

pub(super) fn read(section: &mut Section<'_>) -> Config {
    let default = Config::default();
    let journal = section.get("journal", default.directory().to_owned());
    if let Err(why) = folders::check(&journal) {
        section.error("journal", why);
    }
    for file in folders::files(&journal) {
        section.warn_of_readers("journal", &file);
    }
    let create = section.get("create", default.create());
    let keep: Duration = section.at_least("keep", default.keep(), &Config::LEAST_KEEP);
    match Config::new(journal, keep) {
        Ok(config) => config.with_create(create),
        Err(fault) => {
            section.error("journal", fault);
            default
        }
    }
}

/// A shorter grace ends before a healthy gateway's next frame can come.
const LEAST_GRACE: Duration = Duration::from_millis(10);

/// Reads how long nothing may follow an error to a payment, which is the gateway room's to keep.
pub(super) fn read_refusal_grace(section: &mut Section<'_>, gateway: &mut gateway::Config) {
    gateway.refusal_grace = section.at_least("refusal_grace", gateway.refusal_grace, &LEAST_GRACE);
}
