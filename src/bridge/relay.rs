//! What comes up from the gateway without being asked for.

use tokio::sync::mpsc;

use crate::gateway::Upward;

/// How many broadcasts and comings and goings may wait; beyond it links stop reading until the relay has caught up.
pub const UPWARD_QUEUE: usize = 1024;

/// Takes what connections report until all of them are gone.
pub async fn relay(instance: String, mut upward: mpsc::Receiver<Upward>) {
    while let Some(report) = upward.recv().await {
        if let Upward::Broadcast { link, message, .. } = report {
            tracing::debug!(instance, link, message, "broadcast");
        }
    }
}
