//! Why a use case did not end with its reply, free of HTTP. One table in `http` maps these outward.

use std::time::Duration;

use crate::journal::Rejection;
use crate::protocol::GatewayError;

/// Why a use case did not end with its reply.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("no such instance is configured")]
    UnknownInstance,
    /// No connection to the gateway; nothing was sent.
    #[error("no connection to the gateway")]
    Unavailable {
        /// When a connection may be there again.
        retry_after: Duration,
    },
    /// The bridge's own queue is full or was waited in for too long; nothing was sent.
    #[error("too many requests wait for the gateway")]
    Overloaded { retry_after: Duration },
    /// The bridge is shutting down; nothing was sent.
    #[error("the bridge is shutting down")]
    ShuttingDown {
        /// When to try again, at the bridge's successor.
        retry_after: Duration,
    },
    /// This replica may not act for the instance now: another may own it. Nothing was sent.
    #[error("another replica may own the instance")]
    NotOwner {
        /// When an owner may be known.
        retry_after: Duration,
    },
    /// The gateway's budget for this command is spent; nothing was sent, or the gateway refused it.
    #[error("the gateway's budget for this command is spent")]
    RateLimited {
        /// When there will be points again.
        retry_after: Duration,
        /// The gateway's words, where it was the one to refuse.
        gateway: Option<GatewayError>,
    },
    /// The gateway answered with an error; the command did nothing, or repeating it does no harm.
    #[error("the gateway answered `{}`", .0.error)]
    Refused(GatewayError),
    /// A read was written and no reply came in time.
    #[error("the gateway did not answer in time")]
    Timeout,
    /// A read was written, and each time the connection was lost before its reply came.
    #[error("the connection to the gateway was lost before it answered")]
    Lost { retry_after: Duration },
    /// Only a copy was wanted, and there is none that may be used.
    #[error("there is no copy, and the gateway was not to be asked")]
    NotCached,
    /// The gateway answered with something that is no answer to this command.
    #[error("the gateway's answer was not understood: {0}")]
    Violation(String),
    /// A command that must not be repeated was written, and what became of it is not known.
    #[error("the command was sent and its outcome is not known")]
    OutcomeUnknown {
        /// The gateway's words, where it said something that proves nothing.
        gateway: Option<GatewayError>,
        /// The payment's id, where it has a record.
        payment: Option<String>,
    },
    #[error("the same payment is under way")]
    PaymentInProgress { retry_after: Duration },
    #[error("the key belongs to another sale")]
    KeyReused,
    #[error("no such payment")]
    UnknownPayment,
    /// A person's decision does not apply to the payment.
    #[error(transparent)]
    Unsettled(Rejection),
    /// Payments cannot be recorded; nothing was sent.
    #[error("payments cannot be recorded")]
    JournalUnavailable { retry_after: Duration },
}
