//! The right to send one command, and the refusal of it.
//!
//! A permit is tied to what really happens to its command by being dropped wherever that ends: in the exchange's task,
//! in a queue that is emptied, in a caller that went away. Only one thing must be said aloud, and it must be said
//! before it happens: that bytes may leave. Until then the points come back at once; from then on they cannot, since
//! the gateway may have counted them.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use super::window::Grant;

/// The points of one command, held.
#[derive(Debug)]
#[must_use = "a permit that is dropped before `written` gives its points back"]
pub struct Permit {
    gate: Arc<Gate>,
    grant: Option<Grant>,
    written: bool,
    answered: bool,
}

impl Permit {
    pub(super) fn new(gate: Arc<Gate>, grant: Grant) -> Self {
        Self { gate, grant: Some(grant), written: false, answered: false }
    }

    /// Any byte of the command may leave from now on: call it before the write. The points are held until one window
    /// and guard after the permit's end.
    pub fn written(&mut self) {
        self.written = true;
    }

    /// It turned out that no byte can have left after all: the points come back.
    pub fn never_written(mut self) {
        self.written = false;
    }

    /// The gateway answered the command, with its reply or with an error. After a `ratelimit` say that first
    /// ([`Ledger::closed_by_gateway`](super::Ledger::closed_by_gateway)).
    pub fn answered(mut self) {
        (self.written, self.answered) = (true, true);
    }

    /// The command was answered, timed out, or lost its link. The same as dropping a permit that was
    /// [`written`](Self::written), and safe where that was forgotten.
    pub fn ended(mut self) {
        self.written = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        if self.written {
            self.gate.ended(grant, self.answered);
        } else {
            self.gate.give_back(grant);
        }
    }
}

/// No points before the deadline. Nothing was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no points within the deadline; the next may be free in {retry_after:?}")]
pub struct Denied {
    /// When the same ask can be granted if nobody else comes; where commands in flight hold the points, the earliest
    /// that can be. Never zero.
    pub retry_after: Duration,
}
