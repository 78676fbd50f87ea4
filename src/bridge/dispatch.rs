//! From a command to a link and back, with the retry rule of the command's kind.
//!
//! What may be repeated goes to another shard when a link breaks under it, for as long as its deadline allows. What may
//! not is written once: before the write every failure is tried again elsewhere, after it none is.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use crate::gateway::{Cause, Failure, Lost, NotSent, Pool, Priority};
use crate::wire::{Body, Command, GatewayError, Kind, Meaning};

/// How often a command may be written whose link broke under it. One more than the gateway has shards: by then it is
/// not a shard that fails.
const TRIES: u32 = 4;

/// The `Retry-After` where the bridge's own queue is the obstacle.
const SHORTLY: Duration = Duration::from_secs(1);

/// One instance's way to the gateway.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) pool: Pool,
    pub(super) api_key: SecretString,
    pub(super) request_timeout: Duration,
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
    /// A command that may be repeated.
    pub(super) async fn repeatable(&self, command: &Command, deadline: Instant) -> Result<Body, Error> {
        let mut avoid = None;
        let mut written = 0;
        loop {
            let lease = self.pool.checkout(Priority::Ordinary, deadline, avoid).await?;
            avoid = lease.shard();
            let exchange = lease.exchange(command, self.api_key.expose_secret());
            match timeout_at(deadline, exchange).await {
                Ok(Ok(body)) if body.is_object() => return Ok(body),
                Ok(Ok(_)) => return Err(Error::Violation("a reply whose parameters are not an object".to_owned())),
                Ok(Err(Failure::Refused(error))) => return Err(refused(error)),
                Ok(Err(Failure::NotSent(NotSent::LinkGone))) => {}
                Ok(Err(Failure::NotSent(why))) => return Err(why.into()),
                Ok(Err(Failure::Unknown(lost))) => {
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
                Err(_) => return Err(Error::Timeout),
            }
        }
    }

    /// A command that must not be repeated: waits until `deadline` for a link, is written once, and runs to its end.
    pub(super) async fn once(&self, command: &Command, deadline: Instant) -> Result<Body, Unfinished> {
        let priority = match command.kind {
            Kind::Payment => Priority::Payment,
            Kind::Read | Kind::Upsert | Kind::Raw => Priority::Ordinary,
        };
        loop {
            let lease = self.pool.checkout(priority, deadline, None).await;
            let lease = lease.map_err(|why| Unfinished::Nothing(why.into()))?;
            match lease.exchange(command, self.api_key.expose_secret()).await {
                Ok(body) => return Ok(body),
                Err(Failure::NotSent(NotSent::LinkGone)) => {}
                Err(Failure::NotSent(why)) => return Err(Unfinished::Nothing(why.into())),
                Err(Failure::Refused(error)) => return Err(Unfinished::Nothing(refused(error))),
                Err(Failure::Unknown(lost)) => return Err(Unfinished::Unknown(lost)),
            }
        }
    }
}

/// What the gateway's refusal means for the caller.
fn refused(error: GatewayError) -> Error {
    match error.meaning() {
        Meaning::RateLimit { retry_after, .. } => {
            Error::RateLimited { retry_after: retry_after.unwrap_or(SHORTLY), gateway: Some(error) }
        }
        _ => Error::Refused(error),
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
