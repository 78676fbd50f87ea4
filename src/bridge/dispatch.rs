//! From a command to a link and back, under the budget, with the retry rule of the command's kind.
//!
//! What may be repeated goes to another shard when a link breaks under it, for as long as its deadline allows, and pays
//! again. What may not is written once: before the write every failure is tried again elsewhere, after it none is.

use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::turns::Turns;
use crate::budget::{Ask, Class, Denied, Ledger, Permit};
use crate::drain::Drain;
use crate::gateway::{Cause, Failure, Lease, Lost, NotSent, Pool, Priority};
use crate::wire::{Body, Command, GatewayError, Meaning};

/// How often a command may be written whose link broke under it. One more than the gateway has shards: by then it is
/// not a shard that fails.
const TRIES: u32 = 4;

/// The `Retry-After` where the bridge's own queue is the obstacle.
const SHORTLY: Duration = Duration::from_secs(1);

/// One instance's way to the gateway.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) pool: Pool,
    pub(super) ledger: Ledger,
    /// The key that goes into every command; replaced while commands are under way.
    pub(super) api_key: ArcSwap<SecretString>,
    pub(super) request_timeout: Duration,
    /// How long a read waits for points.
    pub(super) max_wait: Duration,
    /// Once it refuses, nothing new is begun; what was begun goes on to its end.
    pub(super) drain: Drain,
}

/// Why a command that must not be repeated did not end with its reply.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// It did nothing: never written, or refused.
    Nothing(Error),
    /// It was written, and its outcome is not known.
    Unknown(Lost),
}

impl Dispatch {
    /// Whether something new may be begun. A stopping bridge would never come to rest otherwise: links stay until all that
    /// was begun has ended, and callers keep coming.
    pub(super) fn begin(&self) -> Result<(), Error> {
        if self.drain.refuses_new() { Err(Error::ShuttingDown { retry_after: SHORTLY }) } else { Ok(()) }
    }

    /// A command that may be repeated, each try under points had in one of its turns. `on_write` is called just before each write.
    pub(super) async fn repeatable(
        &self,
        command: &Command,
        turns: &Turns,
        deadline: Instant,
        mut on_write: impl FnMut(),
    ) -> Result<Body, Error> {
        self.begin()?;
        let mut avoid = None;
        let mut written = 0;
        loop {
            let permit = turns.acquire(&self.ledger, &command.name, self.max_wait, deadline).await?;
            let lease = self.pool.checkout(Priority::Ordinary, deadline, avoid).await?;
            avoid = lease.shard();
            on_write();
            match self.write(command, lease, permit, deadline).await {
                Ok(body) if body.is_object() => return Ok(body),
                Ok(_) => return Err(Error::Violation("a reply whose parameters are not an object".to_owned())),
                Err(Failure::Refused(error)) => return Err(refused(error)),
                Err(Failure::NotSent(NotSent::LinkGone)) => {}
                Err(Failure::NotSent(why)) => return Err(why.into()),
                Err(Failure::Unknown(lost)) => {
                    written += 1;
                    let time_left = deadline.saturating_duration_since(Instant::now());
                    let worth_it = match lost.cause {
                        Cause::Timeout => time_left >= self.request_timeout,
                        Cause::Disconnected | Cause::Word(_) => true,
                    };
                    if written >= TRIES || !worth_it {
                        return Err(Error::Timeout);
                    }
                }
            }
        }
    }

    /// A raw command, which must not be repeated: waits until `deadline` for a link, is written once, and runs to its end.
    pub(super) async fn once(&self, command: &Command, turn: &str, deadline: Instant) -> Result<Body, Unfinished> {
        self.begin().map_err(Unfinished::Nothing)?;
        loop {
            let ask = Ask { command: &command.name, class: Class::Caller(turn), deadline };
            let mut permit = self.ledger.acquire(ask).await.map_err(|denied| Unfinished::Nothing(denied.into()))?;
            let lease = self.pool.checkout(Priority::Ordinary, deadline, None).await;
            let lease = lease.map_err(|why| Unfinished::Nothing(why.into()))?;
            permit.written();
            let outcome = self.exchange(lease, command).await;
            self.account(command, permit, &outcome);
            match outcome {
                Ok(body) => return Ok(body),
                Err(Failure::NotSent(NotSent::LinkGone)) => {}
                Err(Failure::NotSent(why)) => return Err(Unfinished::Nothing(why.into())),
                Err(Failure::Refused(error)) => return Err(Unfinished::Nothing(refused(error))),
                Err(Failure::Unknown(lost)) => return Err(Unfinished::Unknown(lost)),
            }
        }
    }

    /// Writes once. At the deadline the caller is let go, but the points are held until the exchange has ended: the
    /// gateway may count the command until then.
    async fn write(
        &self,
        command: &Command,
        lease: Lease,
        mut permit: Permit,
        deadline: Instant,
    ) -> Result<Body, Failure> {
        permit.written();
        let mut exchange = Box::pin(self.exchange(lease, command));
        if let Ok(outcome) = timeout_at(deadline, &mut exchange).await {
            self.account(command, permit, &outcome);
            return outcome;
        }
        tokio::spawn(async move {
            // What comes of it concerns nobody any more.
            let _ = exchange.await;
            permit.ended();
        });
        Err(Failure::Unknown(Lost { cause: Cause::Timeout, late: None }))
    }

    /// Writes `command` with the key in force and waits for what ends it; see [`Lease::exchange`].
    pub(super) fn exchange(
        &self,
        lease: Lease,
        command: &Command,
    ) -> impl Future<Output = Result<Body, Failure>> + Send + use<> {
        // The key goes into the command at once, and what was borrowed of it is given back before anything is awaited.
        lease.exchange(command, self.api_key.load().expose_secret())
    }

    /// Settles the points of one try, and heeds the gateway's own count.
    pub(super) fn account(&self, command: &Command, permit: Permit, outcome: &Result<Body, Failure>) {
        match outcome {
            Err(Failure::NotSent(_)) => permit.never_written(),
            Err(Failure::Refused(error)) => {
                let instance = self.pool.instance();
                match error.meaning() {
                    Meaning::RateLimit { retry_after, .. } => {
                        tracing::warn!(instance, command = %command.name, ?retry_after, "the gateway's limit was reached");
                        self.ledger.closed_by_gateway(&command.name, retry_after);
                    }
                    // No caller can mend that, and whoever can reads the log.
                    Meaning::Credentials | Meaning::License => {
                        tracing::warn!(instance, command = %command.name, gateway = error.error,
                            "the gateway refuses the key or the licence of the instance");
                    }
                    _ => {}
                }
                permit.ended();
            }
            Ok(_) | Err(Failure::Unknown(_)) => permit.ended(),
        }
    }
}

/// What the gateway's refusal means for the caller.
pub(super) fn refused(error: GatewayError) -> Error {
    match error.meaning() {
        Meaning::RateLimit { retry_after, .. } => {
            Error::RateLimited { retry_after: retry_after.unwrap_or(SHORTLY), gateway: Some(error) }
        }
        _ => Error::Refused(error),
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
            NotSent::QueueFull | NotSent::NoLinkInTime | NotSent::LinkGone => Self::Overloaded { retry_after: SHORTLY },
            NotSent::Draining => Self::ShuttingDown { retry_after: SHORTLY },
        }
    }
}
