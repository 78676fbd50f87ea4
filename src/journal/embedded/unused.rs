//! A journal that lies beside one in a database, which is used in its place.

use std::path::Path;

use redb::{ReadableDatabase, ReadableTableMetadata};

use super::directory::Directory;
use super::opening;
use super::tables::RECORDS;
use crate::journal::config::Create;
use crate::journal::error::OpenError;

/// How many records the embedded journal in `directory` holds; none where there is no journal, or it was carried over into a
/// database. It must be closed; nothing is written to it, and none is made.
pub fn records_in(directory: &Path) -> Result<u64, OpenError> {
    let medium = match Directory::claim(directory, Create::Never) {
        Ok(medium) => medium,
        Err(OpenError::Absent { .. } | OpenError::Imported { .. }) => return Ok(0),
        Err(fault) => return Err(fault),
    };
    opening::rehearse(&medium, false, |database| Ok(database.begin_read()?.open_table(RECORDS)?.len()?))
}
