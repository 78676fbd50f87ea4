//! What is logged and counted of a change once it is durable, whatever the store.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::id::RecordId;
use super::record::RecordState;

/// By instance, how often the gateway contradicted the record of a payment, since the start.
#[derive(Debug, Default)]
pub(super) struct Contradictions(Mutex<BTreeMap<String, u64>>);

impl Contradictions {
    pub(super) fn of(&self, instance: &str) -> u64 {
        self.0.lock().get(instance).copied().unwrap_or_default()
    }

    fn count(&self, instance: &str) {
        *self.0.lock().entry(instance.to_owned()).or_default() += 1;
    }
}

/// What became of a payment.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// It went from one state to another.
    Moved { id: RecordId, from: RecordState, to: RecordState },
    /// The gateway says something that does not agree with its record.
    Contradicted { id: RecordId, instance: String, state: RecordState },
    /// The gateway's reply was too long to be kept whole.
    Shortened { id: RecordId, bytes: u64 },
    /// Its record cannot be read; the state in which it was last written.
    Unreadable { id: RecordId, was: RecordState, reason: String },
}

impl News {
    /// Logs and counts it.
    pub(super) fn report(self, contradictions: &Contradictions) {
        match self {
            Self::Moved { id, from, to } => tracing::info!(payment = %id, %from, %to, "payment"),
            Self::Contradicted { id, instance, state } => {
                contradictions.count(&instance);
                tracing::error!(instance, payment = %id, %state, "the gateway contradicts the record of a payment");
            }
            Self::Shortened { id, bytes } => {
                tracing::warn!(payment = %id, bytes, "the reply to a payment is too long to be kept whole");
            }
            Self::Unreadable { id, was, reason } => {
                tracing::error!(payment = %id, %was, reason,
                    "the record of a payment cannot be read: its key stays taken until an operator settles it");
            }
        }
    }
}
