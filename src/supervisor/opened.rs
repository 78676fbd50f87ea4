//! An instance whose connections were opened before the claim.

use std::sync::Arc;

use tokio::time::Instant;

use crate::bridge::Instance;

#[derive(Debug)]
pub(super) struct Opened {
    pub(super) instance: Arc<Instance>,
    /// When its connections had been open for long enough for a handover.
    pub(super) ready: Option<Instant>,
}
