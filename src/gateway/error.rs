//! What can go wrong between a command and its reply, sorted by the one question that matters: can the gateway have
//! seen it?
//!
//! Every failure of this room is one of *not sent*, *refused* or *unknown*. A command that was not sent may go to
//! another shard whatever it is; one that was refused did nothing; of one that is unknown only a read or an upsert may
//! be asked again, and a payment never.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::protocol::{Body, GatewayError};

/// Why a command was not answered by its reply.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing of the command can have left.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The gateway answered with an error word that proves a refusal.
    #[error("refused: {}", .0.error.error)]
    Refused(Refusal),
    /// The command may have left, and what became of it is not known.
    #[error("outcome unknown: {}", .0.cause)]
    Unknown(Lost),
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// No connection is open, and none is being opened on a shard not known to be bad.
    #[error("no shard of the gateway can be reached")]
    Unavailable {
        /// Until the next attempt to connect has been made.
        retry_after: Duration,
    },
    /// Too many wait for a link already.
    #[error("too many commands wait for a link")]
    QueueFull,
    /// No link became free before the deadline.
    #[error("no link became free in time")]
    NoLinkInTime,
    /// The link that had been given went away before the command was written.
    #[error("the link went away before the command was written")]
    LinkGone,
    /// The pool is shutting down.
    #[error("shutting down")]
    Draining,
    /// This replica may not act for the instance now: another may own it.
    #[error("another replica may own the instance")]
    NotOwner,
}

/// A command that was refused.
#[derive(Debug)]
pub struct Refusal {
    pub error: GatewayError,
    /// Where the reply may come all the same: set-aside links of payments only.
    pub late: Option<LateFrames>,
}

/// A command whose outcome is not known.
#[derive(Debug)]
pub struct Lost {
    /// What ended the exchange.
    pub cause: Cause,
    /// Where the reply may still arrive: set-aside links of payments only.
    pub late: Option<LateFrames>,
}

/// The frames that come for a payment on the link that was set aside for it. Dropping it closes that link.
#[derive(Debug)]
pub struct LateFrames {
    pub(super) frames: mpsc::Receiver<Ending>,
}

impl LateFrames {
    /// The next frame for the payment; an error only once silence followed it. `None` once the link is over. Cancel safe.
    pub async fn next(&mut self) -> Option<Ending> {
        self.frames.recv().await
    }
}

/// What ended an exchange without telling its outcome.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Cause {
    /// No reply within the request timeout, counted from the write.
    #[error("no reply in time")]
    Timeout,
    /// The connection was lost after the write had begun.
    #[error("the connection was lost")]
    Disconnected,
    /// What came in place of the reply could not be read.
    #[error("the reply was not understood")]
    NotUnderstood,
    /// The gateway sent an error word that does not prove that nothing was booked.
    #[error("the gateway said `{}`", .0.error)]
    Word(GatewayError),
}

/// The frame that ended an exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The reply's `parameters`.
    Reply(Body),
    Error(GatewayError),
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DialError {
    /// The URL that the template gives is none.
    #[error("bad URL: {0}")]
    Url(String),
    /// Its host has no address that the system could find.
    #[error("{0}")]
    Name(String),
    /// The certificate that it shows is not accepted.
    #[error("{0}")]
    Certificate(String),
    /// TCP, TLS or the WebSocket upgrade failed.
    #[error("{0}")]
    Connect(String),
    /// The gateway, or what stands before it, answered the upgrade with a status that concerns the request.
    #[error("the upgrade was answered with status {0}")]
    Status(u16),
    /// It was opened, and closed before it served.
    #[error("{0}")]
    Closed(String),
    /// Not open within `connect_timeout`.
    #[error("not open within the connect timeout")]
    Timeout,
    /// Open, but the gateway refused the connection with an error word, such as `invalid_instance`.
    #[error("the gateway refused the connection: {}", .0.error)]
    Refused(GatewayError),
    /// Given up, since this replica may not act for the instance now. It says nothing of the shard.
    #[error("another replica may own the instance")]
    NotOwner,
}

impl DialError {
    /// Whether it concerns every instance that would connect to the shard.
    pub(super) fn is_of_shard(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Certificate(_) | Self::Connect(_) | Self::Timeout)
    }

    pub(super) fn kind(&self) -> FaultKind {
        match self {
            Self::Name(_) => FaultKind::Name,
            Self::Certificate(_) => FaultKind::Certificate,
            _ => FaultKind::Other,
        }
    }
}

/// What kind of fault keeps a shard from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The name of its host.
    Name,
    /// Its certificate.
    Certificate,
    Other,
}

/// Why the last connection to a shard failed or ended. It is over once one is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub words: String,
    pub kind: FaultKind,
    pub at: Instant,
}

/// Why a link is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The pool asked for it.
    Asked,
    /// Its command timed out, or its late reply came or was no longer awaited: it may never carry another.
    Spent,
    /// A frame came that belongs to no command.
    Untrusted(String),
    /// Something came that breaks the protocol below the gateway's frames.
    Garbled(String),
    /// The connection broke or fell silent.
    Lost(String),
    /// This replica may not act for the instance now, and what had to be written was not.
    Fenced,
}
