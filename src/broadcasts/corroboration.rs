//! A connection's word that a frame is a copy, which is worth nothing where the connection turns out to have been deaf.
//! Pure.
//!
//! Nobody can tell at once whether a connection that brings nothing has nothing to bring. What comes on it later, or how
//! it ends, shows until when it has listened. Either any one of some connections is enough, since each saw all that there
//! was, or all are needed, since together they did.

use tokio::time::Instant;

/// What a word is worth so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Testimony {
    /// It has yet to be seen.
    Pending,
    /// Who gave it was listening.
    Confirmed,
    /// Who gave it was not.
    Void,
}

/// A word of some connections, about what came until an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Corroboration {
    /// Of whom it has yet to be seen whether they listened.
    witnesses: Vec<u64>,
    all: bool,
    until: Instant,
}

impl Corroboration {
    /// Testimony something if one of them listened until then.
    pub(super) fn of_any(witnesses: Vec<u64>, until: Instant) -> Self {
        Self { witnesses, all: false, until }
    }

    /// Testimony something if all of them listened until then.
    pub(super) fn of_all(witnesses: Vec<u64>, until: Instant) -> Self {
        Self { witnesses, all: true, until }
    }

    /// Until when they have to have listened.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether nobody gives it.
    pub(super) fn has_no_witness(&self) -> bool {
        self.witnesses.is_empty()
    }

    /// A connection was heard.
    pub(super) fn heard(&mut self, link: u64, now: Instant) -> Testimony {
        if now < self.until || !self.witnesses.contains(&link) {
            return Testimony::Pending;
        }
        self.witnesses.retain(|witness| *witness != link);
        if self.all && !self.witnesses.is_empty() { Testimony::Pending } else { Testimony::Confirmed }
    }

    /// A connection is over, and was last heard at `last_heard`.
    pub(super) fn closed(&mut self, link: u64, last_heard: Instant) -> Testimony {
        if last_heard >= self.until || !self.witnesses.contains(&link) {
            return self.heard(link, last_heard);
        }
        self.witnesses.retain(|witness| *witness != link);
        if self.all || self.witnesses.is_empty() { Testimony::Void } else { Testimony::Pending }
    }
}
