//! What is logged and counted of a change once it is durable, whatever the store.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::id::RecordId;
use super::record::{Record, RecordState};

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

/// Whose payment it is and what it sells, for who reads the log.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) id: RecordId,
    pub(super) instance: String,
    pub(super) caller: String,
    pub(super) pos_id: i64,
    /// How many products are sold, each as often as it is.
    products: u64,
    /// Their sum as far as prices were known.
    sum: Option<String>,
}

impl Subject {
    pub(super) fn of(record: &Record) -> Self {
        let amounts = record.sale.products.iter().map(|(_, amount)| *amount);
        Self {
            id: record.id,
            instance: record.key.instance.clone(),
            caller: record.key.caller.clone(),
            pos_id: record.sale.pos_id,
            products: amounts.fold(0, u64::saturating_add),
            sum: record.details.as_ref().and_then(|details| details.sum.clone()),
        }
    }
}

/// What became of a payment.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// It went from one state to another.
    Moved { subject: Subject, from: RecordState, to: RecordState },
    /// The gateway says something that does not agree with its record.
    Contradicted { subject: Subject, state: RecordState },
    /// The gateway's reply was too long to be kept whole.
    Shortened { subject: Subject, bytes: u64 },
    /// Its record cannot be read; whose it is and the state in which it was last written.
    Unreadable { id: RecordId, instance: String, caller: String, pos_id: i64, was: RecordState, reason: String },
}

impl News {
    /// Logs and counts it.
    pub(super) fn report(self, contradictions: &Contradictions) {
        match self {
            Self::Moved { subject: Subject { id, instance, caller, pos_id, products, sum }, from, to } => {
                tracing::info!(instance, caller, pos_id, payment = %id, products, sum, %from, %to, "payment");
            }
            Self::Contradicted { subject: Subject { id, instance, caller, pos_id, products, sum }, state } => {
                contradictions.count(&instance);
                tracing::error!(instance, caller, pos_id, payment = %id, products, sum, %state,
                    "the gateway contradicts the record of a payment");
            }
            Self::Shortened { subject: Subject { id, instance, caller, pos_id, .. }, bytes } => {
                tracing::warn!(instance, caller, pos_id, payment = %id, bytes,
                    "the reply to a payment is too long to be kept whole");
            }
            Self::Unreadable { id, instance, caller, pos_id, was, reason } => {
                tracing::error!(instance, caller, pos_id, payment = %id, %was, reason,
                    "the record of a payment cannot be read: its key stays taken until an operator settles it");
            }
        }
    }
}
