//! Handing an event to a store without waiting for it.

use std::fmt;

use futures_util::future::BoxFuture;

use super::error::JournalError;
use super::id::RecordId;
use super::in_flight::HeldKey;
use super::record::Record;
use super::state_machine::{Effect, Event};

/// What an event made of a record, durably.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) effect: Effect,
    pub(super) record: Record,
}

/// Takes events. The part of a store that a guard needs when it is dropped.
pub(super) trait Apply: fmt::Debug + Send + Sync {
    /// Hands in an event for a record before this returns; the future ends when its effect is durable. Dropping the future
    /// takes nothing back. `held` is freed once the effect is durable, and before the future ends.
    ///
    /// An outcome, told in time or late, that cannot be made durable now is kept with its key and made durable as soon as
    /// the store can be written. If the process ends before, the payment is unknown at the next start.
    fn apply(
        &self,
        id: RecordId,
        event: Event,
        held: Option<HeldKey>,
    ) -> BoxFuture<'static, Result<Applied, JournalError>>;
}
