//! A connection's word that a frame is a copy, which is worth nothing where the connection turns out to have been deaf.
//! Pure.
//!
//! Nobody can tell at once whether a connection that brings nothing has nothing to bring. What comes on it later, or how
//! it ends, shows until when it has listened. Either any one of some connections is enough, since each saw all that there
//! was, or all are needed, since together they did.

use tokio::time::Instant;

/// What a word is worth so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It has yet to be seen.
    Open,
    /// Who gave it was listening.
    Proved,
    /// Who gave it was not.
    Void,
}

/// A word of some connections, about what came until an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// Of whom it has yet to be seen whether they listened.
    witnesses: Vec<u64>,
    all: bool,
    until: Instant,
}

impl Word {
    /// Worth something if one of them listened until then.
    pub(super) fn of_any(witnesses: Vec<u64>, until: Instant) -> Self {
        Self { witnesses, all: false, until }
    }

    /// Worth something if all of them listened until then.
    pub(super) fn of_all(witnesses: Vec<u64>, until: Instant) -> Self {
        Self { witnesses, all: true, until }
    }

    /// Until when they have to have listened.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether nobody gives it.
    pub(super) fn is_nobodys(&self) -> bool {
        self.witnesses.is_empty()
    }

    /// A connection was heard.
    pub(super) fn heard(&mut self, link: u64, now: Instant) -> Worth {
        if now < self.until || !self.witnesses.contains(&link) {
            return Worth::Open;
        }
        self.witnesses.retain(|witness| *witness != link);
        if self.all && !self.witnesses.is_empty() { Worth::Open } else { Worth::Proved }
    }

    /// A connection is over, and was last heard at `last_heard`.
    pub(super) fn closed(&mut self, link: u64, last_heard: Instant) -> Worth {
        if last_heard >= self.until || !self.witnesses.contains(&link) {
            return self.heard(link, last_heard);
        }
        self.witnesses.retain(|witness| *witness != link);
        if self.all || self.witnesses.is_empty() { Worth::Void } else { Worth::Open }
    }
}
