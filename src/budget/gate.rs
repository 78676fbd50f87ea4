//! An admission with a lock and a clock, and the permits it grants.
//!
//! The lock is a blocking one, held for a pass through a short queue and never across an await. The clock is read under it, so
//! that instants never go back. A waiter is a future that checks whenever it is notified or its alarm is due, and leaves the
//! queue when it is dropped.
//!
//! A permit is dropped wherever its command ends: in the exchange's task, in a queue that is emptied, in a caller that went
//! away. Before bytes may leave, [`Permit::written`] must be called. Until then the points come back at once; from then on
//! they cannot, since the gateway may have counted them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::admission::{Admission, Check, Entered, PointsRequest, Resolution};
use super::queue::{Class, Rank};
use super::window::{Grant, Price, Tick, Window};

/// Turns instants into ticks: whole microseconds since the ledger began. What rounding takes is less than any guard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn starting_now() -> Self {
        Self { origin: Instant::now() }
    }

    fn now(self) -> Tick {
        self.tick(Instant::now())
    }

    fn tick(self, instant: Instant) -> Tick {
        Tick(micros(instant.saturating_duration_since(self.origin)))
    }

    /// `None` where the instant lies beyond what the machine can count.
    fn instant(self, tick: Tick) -> Option<Instant> {
        self.origin.checked_add(Duration::from_micros(tick.0))
    }
}

/// Whole microseconds of a duration, at most all there are.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(super) struct Gate {
    clock: Clock,
    admission: Mutex<Admission>,
}

impl Gate {
    pub(super) fn new(clock: Clock, hold: Duration) -> Self {
        Self { clock, admission: Mutex::new(Admission::new(Window::new(micros(hold)))) }
    }

    /// Reads or changes the admission, now.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Admission, Tick) -> T) -> T {
        let mut admission = self.admission.lock();
        act(&mut admission, self.clock.now())
    }

    /// Points that are there at once and that no other ask goes before.
    pub(super) fn grant_now(self: &Arc<Self>, class: Class<'_>, price: Price) -> Option<Permit> {
        let grant = self.with(|admission, now| admission.grant_now(now, class, price))?;
        Some(Permit::new(Arc::clone(self), grant))
    }

    /// Waits for points, at most until `deadline`. Dropping the future gives up the place, and the points if they were
    /// already granted.
    pub(super) async fn acquire(
        self: Arc<Self>,
        class: Class<'_>,
        price: Price,
        deadline: Instant,
    ) -> Result<Permit, Denied> {
        let request = PointsRequest { class, price, deadline: self.clock.tick(deadline) };
        let entered = self.with(|admission, now| admission.enter(now, request));
        let verdict = match entered {
            Entered::Decided(verdict) => verdict,
            Entered::Waits(rank, call) => Waiting { gate: &self, rank, deadline }.verdict(&call).await,
        };
        match verdict {
            Resolution::Granted(grant) => Ok(Permit::new(self, grant)),
            Resolution::Denied { wait } => Err(Denied { retry_after: Duration::from_micros(wait) }),
        }
    }

    pub(super) fn ended(&self, grant: Grant, answered: bool) {
        self.with(|admission, now| admission.ended(now, grant, answered));
    }

    pub(super) fn give_back(&self, grant: Grant) {
        self.with(|admission, now| admission.give_back(now, grant));
    }

    /// The gateway closed the window for `pause`.
    pub(super) fn close_for(&self, pause: Duration) {
        self.with(|admission, now| admission.close_until(now, now.after(micros(pause))));
    }

    /// Counts `points` as spent, to be held for `pause` from now.
    pub(super) fn count(&self, points: u64, pause: Duration) {
        self.with(|admission, now| admission.count(now, points, now.after(micros(pause))));
    }
}

/// A place in the queue, left when dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    rank: Rank,
    deadline: Instant,
}

impl Waiting<'_> {
    /// Comes at the waiter's deadline at the latest.
    async fn verdict(self, call: &Notify) -> Resolution {
        loop {
            let alarm = match self.gate.with(|admission, now| admission.check(now, self.rank)) {
                Check::Decided(verdict) => return verdict,
                Check::AgainAt(tick) => self.gate.clock.instant(tick).unwrap_or(self.deadline),
            };
            tokio::select! {
                () = call.notified() => {}
                () = sleep_until(alarm) => {}
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.with(|admission, now| admission.leave(now, self.rank));
    }
}

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

    /// No byte can have left: the points come back.
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
    /// When the same ask can be granted if no other comes first; where commands in flight hold the points, the earliest
    /// that can be. Never zero.
    pub retry_after: Duration,
}
