//! Why something was not done, or could not be read.

use std::error::Error as _;

use tokio_postgres::error::{Severity, SqlState};

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection could be opened, or it was lost while something was read.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the database did not answer in time")]
    Late,
    /// Another transaction holds a row for longer than is waited.
    #[error("a row of the database is locked by another transaction")]
    Locked,
    /// It refused a statement: its code (SQLSTATE) and what it said.
    #[error("the database refused a statement ({code}): {message}")]
    Refused { code: String, message: String },
    /// What it answered is not what was asked for.
    #[error("the database answered what cannot be read: {0}")]
    Misread(String),
}

impl Error {
    /// Whether the database refused with this code.
    #[must_use]
    pub fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Refused { code: found, .. } if found == code)
    }
}

impl From<&tokio_postgres::Error> for Error {
    fn from(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) if *said.code() == SqlState::LOCK_NOT_AVAILABLE => Self::Locked,
            Some(said) if *said.code() == SqlState::QUERY_CANCELED => Self::Late,
            Some(said) => Self::Refused { code: said.code().code().to_owned(), message: said.message().to_owned() },
            None if error.is_closed() => Self::Unreachable("the connection was closed".into()),
            None => Self::Unreachable(explained(error)),
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::from(&error)
    }
}

/// What an error of the connection says, with its causes.
pub(super) fn explained(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(why) = cause {
        let why_text = why.to_string();
        if !text.contains(&why_text) {
            text = format!("{text}: {why_text}");
        }
        cause = why.source();
    }
    text
}

/// Whether the server refused a statement and goes on with the connection. Then a transaction with it cannot be committed.
pub(super) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|said| said.parsed_severity() == Some(Severity::Error))
}
