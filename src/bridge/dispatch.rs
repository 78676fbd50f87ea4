//! From a command to a link and back, under the budget, with the retry rule of the command's kind.
//!
//! What may be repeated goes to another shard when a link breaks under it or is silent, for as long as its deadline
//! allows, and pays again; each try is given a share of the time that is left, so that there is some for the next. A
//! reply that was not understood is not asked for again: the next would be like it. What may not be repeated is written
//! once: a link that goes away before the write is replaced, and after it nothing is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};
use tracing::field;
use tracing::instrument::Instrumented;

use super::access::Access;
use super::error::Error;
use super::fair_acquire::FairAcquire;
use crate::budget::{Ask, Class, Denied, Ledger, Permit};
use crate::clock::RETRY_SHORTLY;
use crate::gateway::{Cause, Failure, Lease, Lost, NotSent, Pool, Priority, Refusal, Reply};
use crate::protocol::{Body, Command, GatewayError, Meaning};
use crate::shutdown::Shutdown;

/// How often a command may be written whose link broke under it. One more than the gateway has shards: by then it is
/// not a shard that fails.
const TRIES: u32 = 4;

/// What a try must have left for its reply to be worth its points. A gateway that is well answers in less.
const LEAST_TRY: Duration = Duration::from_millis(250);

/// Who spends the points of a fetch that renews an old copy, in the metrics.
const RENEWALS: &str = "refresh";

/// One instance's way to the gateway.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) pool: Pool,
    pub(super) ledger: Ledger,
    /// The key that goes into every command; replaced while commands are under way.
    pub(super) api_key: ArcSwap<SecretString>,
    /// What the gateway does not accept.
    pub(super) access: Access,
    /// How often that key was replaced.
    pub(super) replaced: AtomicU64,
    /// How long a read waits for points.
    pub(super) max_wait: Duration,
    /// Once it refuses, nothing new is begun; what was begun goes on to its end.
    pub(super) shutdown: Shutdown,
}

/// How a command that must not be repeated waits for points and a link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Once<'a> {
    pub(super) class: Class<'a>,
    /// Who spends the points.
    pub(super) caller: &'a str,
    pub(super) priority: Priority,
    /// Nothing is written after it.
    pub(super) write_by: Instant,
}

/// Why a command that must not be repeated did not end with its reply.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// No byte of it left.
    NotWritten(Error),
    /// The gateway refused it.
    Refused(Refusal),
    /// It was written, and its outcome is not known.
    Unknown(Lost),
}

impl Dispatch {
    /// Which key goes into a command that is written now, counted from the first.
    pub(super) fn api_key_number(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// Puts `api_key` into every command from now on. What was refused to the former one is asked anew.
    pub(super) fn replace_key(&self, api_key: &SecretString) {
        if self.api_key.load().expose_secret() != api_key.expose_secret() {
            self.api_key.store(Arc::new(api_key.clone()));
            self.replaced.fetch_add(1, Ordering::AcqRel);
            self.access.key_replaced();
        }
    }

    /// Whether something new may be begun: the bridge goes on, and this replica may act. A stopping bridge would never come to
    /// rest otherwise: links stay until all that was begun has ended, and callers keep coming.
    pub(super) fn begin(&self) -> Result<(), Error> {
        if self.shutdown.refuses_new() {
            return Err(Error::ShuttingDown { retry_after: RETRY_SHORTLY });
        }
        if self.pool.may_act() { Ok(()) } else { Err(NotSent::NotOwner.into()) }
    }

    /// A command that may be repeated, each try under points had in one of its turns. `on_write` is called just before each write.
    pub(super) async fn repeatable(
        &self,
        command: &Command,
        turns: &FairAcquire,
        deadline: Instant,
        mut on_write: impl FnMut(),
    ) -> Result<Body, Error> {
        self.begin()?;
        let (mut avoid, mut written, mut failed) = (None, 0, None);
        loop {
            let way = self.way(command, turns, deadline, avoid).await;
            // Where it cannot be asked again, what matters is why it has to be.
            let (permit, lease) = way.map_err(|why| failed.clone().unwrap_or(why))?;
            avoid = lease.shard();
            on_write();
            self.ledger.count_spent(turns.first_caller().as_deref().unwrap_or(RENEWALS), &command.name);
            let limit = share(deadline.saturating_duration_since(Instant::now()), written + 1 == TRIES);
            match self.write(command, lease.within(limit), permit, deadline).await {
                Ok(body) if body.is_object() => return Ok(body),
                Ok(_) => return Err(Error::Violation("a reply whose parameters are not an object".to_owned())),
                Err(Failure::Refused(refusal)) => return Err(self.refused(command, refusal.error)),
                Err(Failure::NotSent(NotSent::LinkGone)) => {}
                Err(Failure::NotSent(why)) => return Err(failed.unwrap_or_else(|| why.into())),
                Err(Failure::Unknown(lost)) => {
                    written += 1;
                    let may_help = lost.cause != Cause::NotUnderstood && written < TRIES;
                    let error = unanswered(&lost.cause);
                    if !may_help || deadline.saturating_duration_since(Instant::now()) < LEAST_TRY {
                        return Err(error);
                    }
                    failed = Some(error);
                }
            }
        }
    }

    /// Points and a link, in that order.
    async fn way(
        &self,
        command: &Command,
        turns: &FairAcquire,
        deadline: Instant,
        avoid: Option<usize>,
    ) -> Result<(Permit, Lease), Error> {
        let permit = turns.acquire(&self.ledger, &command.name, deadline).await?;
        let lease = self.pool.checkout(Priority::Ordinary, deadline, avoid).await?;
        Ok((permit, lease))
    }

    /// Points and a link for a command that must not be repeated, in that order.
    pub(super) async fn way_once(&self, command: &Command, once: Once<'_>) -> Result<(Permit, Lease), Error> {
        let ask = Ask { command: &command.name, class: once.class, deadline: once.write_by };
        let permit = self.ledger.acquire(ask).await?;
        let lease = self.pool.checkout(once.priority, once.write_by, None).await?;
        Ok((permit, lease))
    }

    /// Writes a command that must not be repeated, at most once, and waits for its end. A link that goes away before the
    /// write is replaced; after the write nothing is tried again. `too_late` is the error where the time is over before the
    /// first write.
    pub(super) async fn write_once(
        &self,
        command: &Command,
        mut way: (Permit, Lease),
        once: Once<'_>,
        mut too_late: Error,
    ) -> Result<Body, Unfinished> {
        loop {
            if Instant::now() > once.write_by {
                // Permit and lease go back unused.
                let instance = self.pool.instance();
                tracing::warn!(instance, command = %command.name, %too_late, "a command was not written in time");
                return Err(Unfinished::NotWritten(too_late));
            }
            let (mut permit, lease) = way;
            permit.written();
            self.ledger.count_spent(once.caller, &command.name);
            let outcome = self.exchange(lease, command).await;
            self.account(command, permit, &outcome);
            match outcome {
                Ok(reply) => return Ok(reply),
                Err(Failure::Refused(refusal)) => return Err(Unfinished::Refused(refusal)),
                Err(Failure::Unknown(lost)) => return Err(Unfinished::Unknown(lost)),
                Err(Failure::NotSent(why @ NotSent::LinkGone)) => too_late = why.into(),
                Err(Failure::NotSent(why)) => return Err(Unfinished::NotWritten(why.into())),
            }
            way = self.way_once(command, once).await.map_err(Unfinished::NotWritten)?;
        }
    }

    /// Writes once. At the deadline the caller is let go, but the points are held until the exchange has ended: the
    /// gateway may count the command until then. A link of this thread ends it by then; one of another thread may be held up.
    async fn write(
        &self,
        command: &Command,
        lease: Lease,
        mut permit: Permit,
        deadline: Instant,
    ) -> Result<Body, Failure> {
        permit.written();
        let is_near = lease.is_of_this_thread();
        let mut exchange = self.exchange(lease, command);
        let ended = if is_near { Ok((&mut exchange).await) } else { timeout_at(deadline, &mut exchange).await };
        if let Ok(outcome) = ended {
            self.account(command, permit, &outcome);
            return outcome;
        }
        tokio::spawn(async move {
            // Its outcome is no longer needed.
            let _ = exchange.await;
            permit.ended();
        });
        Err(Failure::Unknown(Lost { cause: Cause::Timeout, late: None }))
    }

    /// Writes `command` with the key in force and waits for what ends it; see [`Lease::exchange`].
    pub(super) fn exchange(&self, lease: Lease, command: &Command) -> Instrumented<Reply> {
        // The key goes into the command at once, and what was borrowed of it is given back before anything is awaited.
        lease.exchange(command, self.api_key.load().expose_secret())
    }

    /// Settles the points of one try, and heeds the gateway's own count.
    pub(super) fn account(&self, command: &Command, permit: Permit, outcome: &Result<Body, Failure>) {
        match outcome {
            Err(Failure::NotSent(_)) => permit.never_written(),
            Err(Failure::Refused(Refusal { error, .. }) | Failure::Unknown(Lost { cause: Cause::Word(error), .. })) => {
                self.heed(command, error);
                permit.answered();
            }
            Ok(reply) => {
                self.access.replied(&command.name, reply, Instant::now);
                permit.answered();
            }
            Err(Failure::Unknown(_)) => permit.ended(),
        }
    }

    fn heed(&self, command: &Command, error: &GatewayError) {
        self.access.refused(&command.name, error, Instant::now());
        let instance = self.pool.instance();
        match error.meaning() {
            Meaning::RateLimit { retry_after, .. } => {
                self.ledger.closed_by_gateway(&command.name, retry_after);
                let (retry_after, closed_for) = (retry_after.map(field::debug), self.ledger.closed_for(&command.name));
                tracing::warn!(instance, command = %command.name, retry_after, ?closed_for,
                    "the gateway's limit was reached");
            }
            // Not for a caller to mend: for the operator, who reads the log.
            Meaning::Credentials | Meaning::License => {
                tracing::warn!(instance, command = %command.name, gateway = error.error,
                    "the gateway refuses the key or the licence of the instance");
            }
            _ => {}
        }
    }

    /// What the gateway's refusal, which was accounted for, means for the caller. How long to wait is what the ledger
    /// holds, so that a caller that comes back then is let in.
    pub(super) fn refused(&self, command: &Command, error: GatewayError) -> Error {
        match error.meaning() {
            Meaning::RateLimit { .. } => {
                let retry_after = self.ledger.closed_for(&command.name);
                Error::RateLimited { retry_after, gateway: Some(error) }
            }
            _ => Error::Refused(error),
        }
    }
}

/// How long one try may take, of the time that is left: two thirds, so that what a slow gateway answers in time is not
/// given up too early and a silent one leaves time for another. All of it for the last try, and where the rest would be
/// too short for one.
fn share(left: Duration, last: bool) -> Duration {
    let rest = left / 3;
    if last || rest < LEAST_TRY { left } else { left.saturating_sub(rest) }
}

/// Why a command that was written was not answered.
fn unanswered(cause: &Cause) -> Error {
    match cause {
        Cause::Timeout => Error::Timeout,
        Cause::NotUnderstood | Cause::Word(_) => Error::Violation(cause.to_string()),
        Cause::Disconnected => Error::Lost { retry_after: RETRY_SHORTLY },
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::RateLimited { retry_after: denied.retry_after, gateway: None }
    }
}

impl From<NotSent> for Error {
    fn from(why: NotSent) -> Self {
        match why {
            NotSent::Unavailable { retry_after } => Self::Unavailable { retry_after },
            NotSent::QueueFull | NotSent::NoLinkInTime | NotSent::LinkGone => {
                Self::Overloaded { retry_after: RETRY_SHORTLY }
            }
            NotSent::Draining => Self::ShuttingDown { retry_after: RETRY_SHORTLY },
            NotSent::NotOwner => Self::NotOwner { retry_after: RETRY_SHORTLY },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The tries of one read never take more than there is, each has enough for a reply, and until the last each
        /// leaves enough for another.
        #[test]
        fn shares_leave_time_for_another_try_and_add_up_to_no_more_than_there_is(left_ms in 0..60_000_u64) {
            let mut left = Duration::from_millis(left_ms);
            let first = share(left, false);
            prop_assert!(first * 3 >= left * 2, "a slow gateway is given most of the time");
            prop_assert_eq!(first < left, left >= LEAST_TRY * 3, "and another try the rest, where that is enough");
            for tried in 1..=TRIES {
                let one = share(left, tried == TRIES);
                prop_assert!(one <= left);
                left -= one;
                if tried == TRIES || left.is_zero() {
                    prop_assert_eq!(left, Duration::ZERO, "no time is left unused");
                    break;
                }
                prop_assert!(left >= LEAST_TRY);
            }
        }
    }
}
