//! Whether a database is still the one that it was, or was restored from a backup, so that what it had acknowledged since is
//! gone.
//!
//! Two things tell. A row names the cluster of databases, the database, the timeline, and the transaction that wrote the row
//! itself: whoever restores a dump writes it anew, so that it names a transaction that is not its writer; and elsewhere it
//! names the wrong database. And each process counts in a row of its own, its witness, what it had acknowledged: in files of
//! before, or recovered to a point in time, that row is behind what its process knows.
//!
//! A failover begins a timeline as a recovery to a point in time does. It loses nothing that was acknowledged, so a process that
//! lived through it finds its witness as it was, and notes the new timeline. Where no process did, nobody can tell.

use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Error;
use super::statement::Statement;

/// Which database this is now. The name of the file that is written to begins with the timeline.
macro_rules! found {
    () => {
        "(SELECT c.system_identifier::text || '/' || d.oid AS system, \
         ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline \
         FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()) AS found"
    };
}

macro_rules! me {
    () => {
        "pg_current_xact_id()::text::bigint"
    };
}

macro_rules! write {
    () => {
        concat!(
            "INSERT INTO database_mark (system, timeline, written_by) SELECT found.system, found.timeline, ",
            me!(),
            " FROM ",
            found!()
        )
    };
}

/// Where a schema is made.
pub(super) const WRITE: &str = write!();

/// Where it is confirmed.
pub(super) const CONFIRM: &str = concat!(
    write!(),
    " ON CONFLICT (one) DO UPDATE SET system = excluded.system, timeline = excluded.timeline, \
     written_by = excluded.written_by, restored = NULL, confirmed_at = clock_timestamp()"
);

/// A row shows 32 bits of the transaction that wrote it.
const LOOK: &str = concat!(
    "SELECT m.system = found.system AND m.timeline <= found.timeline \
     AND m.xmin::text::bigint = (m.written_by & 4294967295), \
     m.timeline = found.timeline, m.restored, (extract(epoch FROM m.confirmed_at) * 1000000)::bigint \
     FROM database_mark m, ",
    found!()
);

const FLAG: &str = concat!("UPDATE database_mark SET restored = $1, written_by = ", me!(), " WHERE restored IS NULL");

const VOUCH: &str = concat!(
    "UPDATE database_mark m SET timeline = found.timeline, written_by = ",
    me!(),
    " FROM ",
    found!(),
    " WHERE m.system = found.system AND m.timeline < found.timeline AND m.restored IS NULL \
     AND EXISTS (SELECT FROM database_witness w WHERE w.id = $1 AND w.acknowledged >= $2)"
);

const REGISTER: &str = "INSERT INTO database_witness (id, acknowledged) VALUES ($1, $2) \
    ON CONFLICT (id) DO UPDATE SET acknowledged = excluded.acknowledged";

const BEAR: &str = "UPDATE database_witness SET acknowledged = $3 WHERE id = $1 AND acknowledged >= $2 RETURNING true";

const FORGET: &str = "DELETE FROM database_witness WHERE id = $1";

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// It is where its mark was written, and the mark was not restored from a dump.
    pub is_genuine: bool,
    /// Its timeline is the one on which it was known last.
    pub is_on_its_timeline: bool,
    /// It is known to have been restored, and how that showed.
    pub restored: Option<String>,
    /// When an operator confirmed it last, by its own clock, in microseconds.
    pub confirmed_us: i64,
}

/// How a restore shows.
pub const IS_ANOTHER: &str = "the database was restored from a dump, or copied";
pub const HAS_LOST: &str =
    "the database has lost what it had acknowledged: it was restored, or a standby was promoted that lacked something";
const HAS_NO_MARK: &str = "the database was restored: its mark is missing";
const IS_ELSEWHEN: &str =
    "the database was promoted, or restored to a point in time, and no replica has run before and after to tell which";

impl Mark {
    /// Asks for it.
    #[must_use]
    pub fn look() -> Statement {
        Statement::new(LOOK)
    }

    /// Reads the answer.
    pub fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            is_genuine: row.try_get(0)?,
            is_on_its_timeline: row.try_get(1)?,
            restored: row.try_get(2)?,
            confirmed_us: row.try_get(3)?,
        })
    }

    /// Why who begins on this database may not send anything.
    #[must_use]
    pub fn doubt(mark: Option<&Self>) -> Option<String> {
        match mark {
            None => Some(HAS_NO_MARK.to_owned()),
            Some(Self { restored: Some(how), .. }) => Some(how.clone()),
            Some(Self { is_genuine: false, .. }) => Some(IS_ANOTHER.to_owned()),
            Some(Self { is_on_its_timeline: false, .. }) => Some(IS_ELSEWHEN.to_owned()),
            Some(_) => None,
        }
    }

    /// Notes that it was restored, until an operator confirms.
    #[must_use]
    pub fn flag(how: &str) -> Statement {
        Statement::new(FLAG).text(how)
    }

    /// Notes the timeline of a failover after which all is there that this witness had acknowledged.
    #[must_use]
    pub fn vouch(witness: Uuid, acknowledged: i64) -> Statement {
        Statement::new(VOUCH).uuid(witness).bigint(acknowledged)
    }

    /// Begins to count what is acknowledged to a process.
    #[must_use]
    pub fn register(witness: Uuid, acknowledged: i64) -> Statement {
        Statement::new(REGISTER).uuid(witness).bigint(acknowledged)
    }

    /// Counts on to `next`; no row where what was acknowledged before is not there any more.
    #[must_use]
    pub fn bear(witness: Uuid, acknowledged: i64, next: i64) -> Statement {
        Statement::new(BEAR).uuid(witness).bigint(acknowledged).bigint(next)
    }

    /// Ends the count of a process that ends in order.
    #[must_use]
    pub fn forget(witness: Uuid) -> Statement {
        Statement::new(FORGET).uuid(witness)
    }
}
