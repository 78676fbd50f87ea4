//! What speaks for an unknown payment having been booked, as it is kept in its record. PURE.
//!
//! It is for a person who has to decide, and it decides nothing: another till may have sold the same. A transaction is
//! kept as the gateway spelled it, once, however often it is found.
//!
//! What a person decides by moves the revision: a transaction that is new to the record, one more payment that could
//! explain it, and whether the search was complete. So nobody settles a payment who has not seen what speaks for or
//! against it. How many payments could explain a transaction never falls: a later look may have forgotten some of them,
//! and none of them becomes impossible. That somebody looked, and when, is brought up to date without moving the
//! revision: a decision does not become void because the bridge looked again and found nothing. The bridge looks a few
//! times in the first minutes, so a revision moves that often at most, and whoever is told that the record has changed
//! finds there what changed and can decide at once.

use serde::{Deserialize, Serialize};

use super::raw;
use super::record::Record;
use super::rules::Effect;
use crate::protocol::Body;

/// Transactions kept for one record: far more than can match one sale in the few minutes in which it is looked for.
pub(super) const MAX_CLUES: usize = 256;

/// The longest transaction that is kept, some twenty times what the gateway sends. A longer one cannot be shown, so the
/// look is not complete.
const MAX_CLUE_BYTES: usize = 16 << 10;

/// A transaction that might be the payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clue {
    /// Its id at the gateway.
    pub transaction_id: i64,
    /// The transaction as the gateway spelled it.
    #[serde(with = "raw")]
    pub transaction: Body,
    /// How many other payments of this bridge could explain it.
    pub other_payments: u32,
}

/// What one look at the gateway's transactions brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// The transactions that match the sale and may have been booked since it was sent.
    pub clues: Vec<Clue>,
    /// Whether what was looked at, the gateway's transactions and the bridge's payments, reached back to before the
    /// sale was sent.
    pub complete: bool,
}

/// How the evidence was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// How often the gateway answered.
    pub looks: u32,
    /// When it last did, in milliseconds since the epoch.
    pub last_ms: i64,
    /// Whether that look reached back to before the sale was sent. If not, more may match than was found, and more
    /// payments may explain it than were counted.
    pub complete: bool,
}

impl Record {
    /// Adds what a look brought, each transaction once.
    pub(super) fn attach(&mut self, look: &Look, now_ms: i64) -> Effect {
        let mut news = false;
        let mut complete = look.complete;
        for clue in &look.clues {
            if let Some(kept) = self.evidence.iter_mut().find(|kept| kept.transaction_id == clue.transaction_id) {
                news |= clue.other_payments > kept.other_payments;
                kept.other_payments = kept.other_payments.max(clue.other_payments);
            } else if self.evidence.len() < MAX_CLUES && clue.transaction.as_str().len() <= MAX_CLUE_BYTES {
                news = true;
                self.evidence.push(clue.clone());
            } else {
                complete = false;
            }
        }
        let before = self.search;
        news |= before.is_some_and(|before| before.complete != complete);
        let looks = before.map_or(0, |search| search.looks).saturating_add(1);
        self.search = Some(Search { looks, last_ms: now_ms, complete });
        if !news {
            return Effect::Noted;
        }
        self.revision += 1;
        Effect::Changed
    }
}
