//! The database of several replicas: PostgreSQL, reached over connections that mend themselves.
//!
//! What is written is one transaction, and ends in one of three ways: done, not done, or not known ([`Ended`]). The third is
//! no error to be repeated blindly: a commit that waits for its standby may still happen, also after its connection is gone.
//! What decides on a write reads that from [`Ended::Done`] only.
//!
//! Every transaction brings its own settings along (`SET LOCAL`), and no statement is prepared under a name, so that a
//! pooler in front of the database may give each transaction another of its connections.

mod config;
mod connection;
mod ended;
mod error;
mod listener;
mod mark;
mod migrations;
mod place;
mod statement;
#[cfg(test)]
pub(crate) mod tests;
mod timeline;
mod tls;
mod transaction;

pub use config::{Config, ConfigFault};
pub use connection::Connection;
pub use ended::{Durability, Ended};
pub use error::Error;
pub use listener::listen;
pub use mark::{HAS_LOST, IS_ANOTHER, Mark};
pub use migrations::{FORMAT, Migrated, SchemaError, check_schema, confirm_restore, migrate};
pub use statement::{Rows, Statement};
pub use timeline::Timeline;
pub use tokio_postgres::Row;
pub use tokio_postgres::types::Type;
pub use transaction::Transaction;
