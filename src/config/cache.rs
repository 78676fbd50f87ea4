//! The section `cache`, with one section for each read whose replies may be kept.

use std::path::PathBuf;
use std::time::Duration;

use super::folders;
use crate::cache::Config;
use crate::protocol::{Retention, Spec, command};
use crate::settings::{Section, Size};

/// Enough for the catalogues of a large festival many times over.
const MAX_SIZE: Size = Size::mib(64);

/// A browser's reload within it spends nothing.
const MIN_AGE: Duration = Duration::from_secs(5);

/// Beside the journal.
const STORE: &str = "data/cache";

pub(super) fn read(section: &mut Section<'_>) -> Config {
    let max_size = section.get("max_size", MAX_SIZE).in_bytes();
    let min_age = section.get("min_age", MIN_AGE);
    let store = section.get("store", PathBuf::from(STORE));
    let store = Some(store).filter(|folder| !folder.as_os_str().is_empty());
    if let Some(Err(why)) = store.as_deref().map(folders::check) {
        section.error("store", why);
    }
    let rule = |spec: &&Spec| {
        let Retention { fresh, stale } = spec.retention?;
        let mut one = section.section(spec.name);
        Some((spec.name.to_owned(), Retention { fresh: one.get("fresh", fresh), stale: one.get("stale", stale) }))
    };
    Config { max_size, min_age, rules: command::TABLE.iter().filter_map(rule).collect(), store }
}
