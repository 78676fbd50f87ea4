//! Which connections must prove that they were listening before a frame counts as a copy. Pure.
//!
//! A connection that brings nothing may have nothing to bring, or may be dead. What comes on it later, or how it ends,
//! shows until when it was listening. Either any one of some witnesses is enough, since each saw every broadcast, or all are
//! needed, since only together they did.

use tokio::time::Instant;

/// Whether the witnesses were listening, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Testimony {
    /// Not known yet.
    Pending,
    /// They were.
    Confirmed,
    /// They were not.
    Void,
}

/// The witnesses of one frame, about what came until an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Corroboration {
    /// The connections of which it is not known yet whether they were listening.
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

    pub(super) fn has_no_witness(&self) -> bool {
        self.witnesses.is_empty()
    }

    /// Something came on a connection.
    pub(super) fn heard(&mut self, link: u64, now: Instant) -> Testimony {
        if now < self.until || !self.witnesses.contains(&link) {
            return Testimony::Pending;
        }
        self.witnesses.retain(|witness| *witness != link);
        if self.all && !self.witnesses.is_empty() { Testimony::Pending } else { Testimony::Confirmed }
    }

    /// A connection is over; the last frame or pong on it came at `last_heard`.
    pub(super) fn closed(&mut self, link: u64, last_heard: Instant) -> Testimony {
        if last_heard >= self.until || !self.witnesses.contains(&link) {
            return self.heard(link, last_heard);
        }
        self.witnesses.retain(|witness| *witness != link);
        if self.all || self.witnesses.is_empty() { Testimony::Void } else { Testimony::Pending }
    }
}
