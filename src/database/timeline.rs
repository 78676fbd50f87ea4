//! Which database this is, and which of its histories.

use super::connection::Connection;
use super::error::Error;
use super::statement::Statement;

/// After a failover the timeline is another; after a restore from a dump the system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The identifier that `initdb` gave the cluster of databases.
    pub system: String,
    /// Grows with each promotion of a standby and each recovery to a point in time.
    pub timeline: i32,
}

impl Timeline {
    /// Reads it: an ordinary role may.
    pub async fn read(connection: &Connection) -> Result<Self, Error> {
        let rows = connection.read(&[Statement::new(Self::QUERY)]).await?;
        let row = rows.first().and_then(|rows| rows.first());
        let row = row.ok_or_else(|| Error::Misread("it tells no timeline".into()))?;
        Ok(Self { system: row.try_get(0)?, timeline: row.try_get(1)? })
    }

    /// The name of the file that is written to begins with the timeline; the control file is behind until a checkpoint.
    pub const QUERY: &str = "SELECT system_identifier::text, \
        ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int FROM pg_control_system()";
}
