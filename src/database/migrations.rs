//! The schema, brought up to what this release reads and writes.
//!
//! Each file of `migrations/` is one step, and all that are missing run in one transaction. A step only adds: the release
//! before it goes on beside it during a rolling upgrade, and reads what it knows. A column that is added has a default, since that
//! release inserts rows without it.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::config::Config;
use super::connection::Connection;
use super::ended::{Durability, Ended};
use super::error::Error;
use super::mark::{self, Mark};
use super::statement::Statement;
use super::transaction::Transaction;

/// The format of the schema that this release knows: the number of its steps.
pub const FORMAT: i32 = 1;

const STEPS: [&str; 1] = [include_str!("migrations/0001_schema.sql")];

/// How long all steps may take: on tables of any size they only add what is empty.
const LIMIT: Duration = Duration::from_mins(1);

/// One of several replicas that start at once brings the schema up; the others wait.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7238905101)";

/// Why the schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("the database has no schema of the bridge: run `concertpos-bridge migrate`")]
    Missing,
    #[error(
        "the schema of the database has format {found}, this release needs {FORMAT}: run `concertpos-bridge migrate`"
    )]
    Older { found: i32 },
    #[error(
        "the schema of the database has format {found}, this release knows {FORMAT}: it was written by a newer one"
    )]
    Newer { found: i32 },
    #[error("whether it was done is not known, since the commit was not acknowledged: run it again")]
    Ambiguous,
    #[error(transparent)]
    Database(#[from] Error),
}

/// What [`migrate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    pub from: i32,
    pub to: i32,
}

/// Brings the schema up, if it is not.
pub async fn migrate(config: &Config) -> Result<Migrated, SchemaError> {
    let connection = Connection::with_limit(config.clone(), "migrate", LIMIT);
    let mut transaction = connection.begin(Durability::On).await?;
    let from = bring_up(&mut transaction).await?;
    if from > FORMAT {
        return Err(SchemaError::Newer { found: from });
    }
    match transaction.commit().await {
        Ended::Done(()) => Ok(Migrated { from, to: FORMAT }),
        Ended::NotDone(error) => Err(error.into()),
        Ended::Ambiguous => Err(SchemaError::Ambiguous),
    }
}

/// Has replicas sell again on a database that was restored: how that showed; none where there was nothing to confirm.
pub async fn confirm_restore(config: &Config) -> Result<Option<String>, SchemaError> {
    let connection = Connection::new(config.clone(), "migrate");
    let mut transaction = connection.begin(Durability::On).await?;
    let found = transaction.row(&Mark::look()).await?.as_ref().map(Mark::read).transpose()?;
    let doubt = Mark::doubt(found.as_ref());
    if doubt.is_some() {
        transaction.run(&Statement::new(mark::CONFIRM)).await?;
    }
    match transaction.commit().await {
        Ended::Done(()) => Ok(doubt),
        Ended::NotDone(error) => Err(error.into()),
        Ended::Ambiguous => Err(SchemaError::Ambiguous),
    }
}

/// The format that was found.
async fn bring_up(transaction: &mut Transaction<'_>) -> Result<i32, Error> {
    transaction.run(&Statement::new("SET LOCAL statement_timeout = 0")).await?;
    transaction.run(&Statement::new("SET LOCAL lock_timeout = '55s'")).await?;
    transaction.run(&Statement::new(LOCK)).await?;
    let exists = transaction.row(&Statement::new("SELECT to_regclass('bridge_schema') IS NOT NULL")).await?;
    let from =
        if first(exists.as_ref())? { first(transaction.row(&Statement::new(READ_FORMAT)).await?.as_ref())? } else { 0 };
    for step in STEPS.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)) {
        transaction.run_all(step).await?;
    }
    if from == 0 {
        transaction.run(&Statement::new(mark::WRITE)).await?;
    }
    if from < FORMAT {
        transaction.run(&Statement::new(WRITE_FORMAT).bind(FORMAT, Type::INT4)).await?;
    }
    Ok(from)
}

const READ_FORMAT: &str = "SELECT format FROM bridge_schema";
const WRITE_FORMAT: &str = "INSERT INTO bridge_schema (format) VALUES ($1) \
    ON CONFLICT (one) DO UPDATE SET format = excluded.format, migrated_at = now()";

fn first<'r, T: FromSql<'r>>(row: Option<&'r Row>) -> Result<T, Error> {
    let row = row.ok_or_else(|| Error::Misread("a row is missing".into()))?;
    Ok(row.try_get(0)?)
}

/// Whether the schema is what this release needs.
pub async fn check_schema(connection: &Connection) -> Result<(), SchemaError> {
    let found = match connection.read(&[Statement::new(READ_FORMAT)]).await {
        Ok(rows) => rows.into_iter().flatten().next(),
        // No such table.
        Err(error) if error.has_code("42P01") => return Err(SchemaError::Missing),
        Err(error) => return Err(error.into()),
    };
    let found: i32 = match &found {
        Some(row) => row.try_get(0).map_err(Error::from)?,
        None => return Err(SchemaError::Missing),
    };
    match found {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(SchemaError::Newer { found }),
        _ => Err(SchemaError::Older { found }),
    }
}
