//! How a transaction begins and how it ends.

use super::error::Error;

macro_rules! begin {
    ($durability:literal) => {
        concat!(
            "BEGIN; SET LOCAL synchronous_commit = ",
            $durability,
            "; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '2s'; \
             SET LOCAL idle_in_transaction_session_timeout = '2s'"
        )
    };
}

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk of the primary and of its synchronous standby, where one is configured.
    On,
    /// Once it is on the disk of the primary.
    Local,
}

impl Durability {
    /// Everything is set for this transaction alone, in the same round trip: a pooler may give the next one another session.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::On => begin!("on"),
            Self::Local => begin!("local"),
        }
    }
}

/// How a transaction ended.
#[derive(Debug)]
#[must_use = "a write that was not acknowledged must not be built upon"]
pub enum Ended<T> {
    /// It is committed, and acknowledged as its durability asks.
    Done(T),
    /// It is not committed and never will be.
    NotDone(Error),
    /// It may be committed, now or later, and may be lost again: the connection was lost, no answer came in time, or the
    /// server stopped waiting for its standby.
    Ambiguous,
}

impl<T> Ended<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Ended<U> {
        match self {
            Self::Done(value) => Ended::Done(change(value)),
            Self::NotDone(error) => Ended::NotDone(error),
            Self::Ambiguous => Ended::Ambiguous,
        }
    }

    /// What was done, if it was for certain.
    pub fn done(self) -> Option<T> {
        if let Self::Done(value) = self { Some(value) } else { None }
    }
}
