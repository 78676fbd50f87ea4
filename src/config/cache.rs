//! The section `cache` and its one section a read.

use std::path::PathBuf;
use std::time::Duration;

use super::folders;
use crate::cache::{Config, Rule};
use crate::settings::{Section, Size};

/// Enough for the catalogues of a large festival many times over.
const MAX_SIZE: Size = Size::mib(64);

/// A browser's reload within it spends nothing.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Beside the journal.
const STORE: &str = "data/cache";

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Freshness and staleness, chosen from what the data is.
const RULES: [(&str, Duration, Duration); 9] = [
    // Changes only with `updatepos`, which ends it at once; the five minutes bound what a missed broadcast costs.
    ("getconfig", Duration::from_mins(5), DAY),
    ("getdeposit", Duration::from_mins(5), DAY),
    ("listpos", Duration::from_mins(5), DAY),
    ("listpm", Duration::from_mins(5), DAY),
    ("listproducts", Duration::from_mins(5), DAY),
    // Changes in months, and is documented as heavily limited.
    ("getlicense", HOUR, Duration::from_hours(24 * 7)),
    // Changes in seconds, and is worth nothing when old.
    ("getstatus", Duration::from_secs(30), Duration::from_mins(5)),
    // Changes with a restart of the gateway, and costs half of the budget.
    ("version", HOUR, DAY),
    // Money: always asked for.
    ("listtransactions", Duration::ZERO, Duration::ZERO),
];

/// Reads the section.
pub(super) fn read(section: &mut Section<'_>) -> Config {
    let max_size = section.get("max_size", MAX_SIZE).in_bytes();
    let min_age = section.get("min_age", MIN_AGE);
    let store = section.get("store", PathBuf::from(STORE));
    let store = Some(store).filter(|folder| !folder.as_os_str().is_empty());
    if let Some(Err(why)) = store.as_deref().map(folders::check) {
        section.fault("store", why);
    }
    let rule = |(command, fresh, stale): (&str, Duration, Duration)| {
        let mut one = section.section(command);
        (command.to_owned(), Rule { fresh: one.get("fresh", fresh), stale: one.get("stale", stale) })
    };
    Config { max_size, min_age, rules: RULES.into_iter().map(rule).collect(), store }
}
