//! The record of one attempt at a payment: what is kept, and what it answers to a repeated request. PURE.
//!
//! What may follow what is in [`super::state_machine`]. A record answers for its key alone: whether a repeat is replayed, told
//! to wait, refused or let through is read off the record and nothing else, so that a restart changes no answer.
//!
//! Times are integer milliseconds of the wall clock since the Unix epoch. They are for people to read: no rule
//! compares them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::RecordId;
use super::raw;
use super::sale::{Fingerprint, Key, Sale};
use super::sale_details::{self, SaleDetails};
use crate::protocol::{Body, GatewayError};

/// Where a payment stands, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The key is taken, in memory only; nothing was sent.
    Reserved,
    /// Recorded, and possibly on its way: from here on it must never be sent again.
    Dispatching,
    /// The gateway confirmed it.
    Booked,
    /// Proven not to be booked. The key is free again.
    Released,
    /// Written, and nothing tells what became of it.
    Unknown,
    /// A person decided what became of an unknown one.
    Settled,
}

impl State {
    pub const ALL: [Self; 6] =
        [Self::Reserved, Self::Dispatching, Self::Booked, Self::Released, Self::Unknown, Self::Settled];

    /// The state's name in lower case, as in JSON and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Dispatching => "dispatching",
            Self::Booked => "booked",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Settled => "settled",
        }
    }

    /// Whether the outcome is decided: such a record expires, any other never does.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Booked | Self::Released | Self::Settled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Where a record is listed and counted: under the state of its payment, or as one that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordState {
    Payment(State),
    /// The record is damaged, or was written by a later release.
    Unreadable,
}

impl From<State> for RecordState {
    fn from(state: State) -> Self {
        Self::Payment(state)
    }
}

impl RecordState {
    pub const ALL: [Self; 7] = [
        Self::Payment(State::Reserved),
        Self::Payment(State::Dispatching),
        Self::Payment(State::Booked),
        Self::Payment(State::Released),
        Self::Payment(State::Unknown),
        Self::Payment(State::Settled),
        Self::Unreadable,
    ];

    /// The state's name in lower case, as in JSON and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Payment(state) => state.name(),
            Self::Unreadable => "unreadable",
        }
    }

    /// The number that stands for it on disk; never changed and never used again.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Payment(State::Reserved) => 0,
            Self::Payment(State::Dispatching) => 1,
            Self::Payment(State::Booked) => 2,
            Self::Payment(State::Released) => 3,
            Self::Payment(State::Unknown) => 4,
            Self::Payment(State::Settled) => 5,
            Self::Unreadable => 6,
        }
    }

    pub(super) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

impl fmt::Display for RecordState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a payment was certainly not booked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// The gateway refused it with a word that proves it.
    Refused(GatewayError),
    /// No byte of it left.
    NeverWritten,
}

/// What became of a dispatched payment, as far as the one who dispatched it can tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The gateway's reply.
    Booked(#[serde(with = "raw")] Body),
    /// Not booked, for certain. A refusal whose word proves nothing is taken as unknown.
    Released(Release),
    /// Written, and no reply; or the gateway said something that proves nothing.
    Unknown(Option<GatewayError>),
}

/// What a person found an unknown payment to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It was booked.
    Booked,
    /// It was not; the key is free again.
    NotBooked,
}

/// A person's decision on an unknown payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Finding,
    /// Why, in the person's words.
    pub reason: String,
    /// Who decided: the name of the token.
    pub by: String,
}

/// A verdict as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub outcome: Finding,
    /// Why, in the person's words.
    pub reason: String,
    pub by: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// Something that the gateway said and that does not agree with the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contradiction {
    /// When it came, in milliseconds since the epoch.
    pub at_ms: i64,
    pub says: Outcome,
    #[serde(default)]
    pub why: Discrepancy,
}

/// Why a word of the gateway does not agree with the record of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discrepancy {
    /// It came after the outcome was decided, and says otherwise.
    #[default]
    DecidedOtherwise,
    /// It came after the key had been used again: the gateway may have booked the sale twice.
    KeyUsedAgain {
        /// The payment that the word is about, where that is another one under the same key.
        of: Option<RecordId>,
    },
    /// It came after a till had been told that the sale was refused, and a till cannot repeat a sale.
    TillWasRefused,
    /// The reply says that fewer products were booked than were sold.
    FewerItems {
        /// The products that it says were booked.
        booked: u64,
        /// The products with an amount in the sale.
        sold: u64,
    },
}

/// Where a payment stands, with what belongs to each state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Reserved,
    Dispatching,
    /// See [`State::Booked`]: the gateway's reply.
    Booked(#[serde(with = "raw")] Body),
    /// See [`State::Released`].
    Released(Release),
    /// See [`State::Unknown`]: the gateway's words, where it said something.
    Unknown(Option<GatewayError>),
    /// See [`State::Settled`].
    Settled(Settlement),
}

/// When a payment changed, in milliseconds since the epoch, by a wall clock that may have stepped in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The key was reserved.
    pub created_ms: i64,
    /// The payment was recorded as on its way.
    pub dispatched_ms: Option<i64>,
    /// Its outcome was given up as unknown.
    pub unknown_ms: Option<i64>,
    /// It was booked, released or settled.
    pub ended_ms: Option<i64>,
    /// Its connection was given up, so that a late reply is not heard any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listened_until_ms: Option<i64>,
}

/// That a record took the place of one that could not be read, when its payment was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Why it could not be read.
    pub reason: String,
    /// Whether the sale is known: if not, only its point of sale is.
    pub sale_known: bool,
}

/// A transaction that might be the payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
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
pub struct Lookup {
    /// The transactions that match the sale and may have been booked since it was sent.
    pub candidates: Vec<Candidate>,
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

/// One attempt at a payment: a snapshot, true when it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: RecordId,
    /// Whose it is and under which key.
    pub key: Key,
    pub sale: Sale,
    /// Names and prices of what is sold, where any were known at the dispatch. None in records of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "sale_details::lenient")]
    pub details: Option<Box<SaleDetails>>,
    pub fingerprint: Fingerprint,
    pub standing: Standing,
    pub times: Times,
    /// Counts the changes that a person decides by: what `If-Match` compares. See `attach` in [`super::state_machine`].
    pub revision: u64,
    /// The attempt under the same key before this one, which freed the key.
    pub previous: Option<RecordId>,
    /// The newest transaction of the point of sale known before the dispatch, where one was asked for.
    pub newest_transaction_before: Option<i64>,
    /// Transactions that may be this payment while its outcome is not known; each once.
    pub evidence: Vec<Candidate>,
    /// How they were looked for; none before the first lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// What the gateway said and does not agree with this record.
    pub contradictions: Vec<Contradiction>,
    /// The journal's age at its end, by which it expires. None in records of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_age_ms: Option<u64>,
    /// How long the gateway's reply was, where it was too long to be kept whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_bytes: Option<u64>,
    /// Where this took the place of a record that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
}

/// What a request gets that repeats the key of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The key is free: the record proves that nothing was booked.
    Free,
    /// The key belongs to another sale.
    Reused,
    /// The same sale is on its way.
    InProgress,
    /// The same sale was booked: answer with its record.
    Replay,
    /// The same sale was written, and its outcome is not known.
    Unknown,
}

impl Record {
    /// A payment whose key was just taken.
    #[must_use]
    pub fn reserved(id: RecordId, key: Key, sale: Sale, now_ms: i64) -> Self {
        Self {
            id,
            key,
            fingerprint: sale.fingerprint(),
            sale,
            details: None,
            standing: Standing::Reserved,
            times: Times {
                created_ms: now_ms,
                dispatched_ms: None,
                unknown_ms: None,
                ended_ms: None,
                listened_until_ms: None,
            },
            revision: 0,
            previous: None,
            newest_transaction_before: None,
            evidence: Vec::new(),
            search: None,
            contradictions: Vec::new(),
            ended_age_ms: None,
            reply_bytes: None,
            recovered: None,
        }
    }

    /// The beginning of a record in the place of one that could not be read.
    pub(super) fn recovered(id: RecordId, key: Key, pos_id: i64, created_ms: i64, recovered: Recovered) -> Self {
        let sale = Sale { pos_id, payment_method: String::new(), products: Vec::new() };
        let record = Self::reserved(id, key, sale, created_ms);
        Self { fingerprint: Fingerprint::UNKNOWN, recovered: Some(recovered), ..record }
    }

    /// Where the payment stands, by name.
    #[must_use]
    pub fn state(&self) -> State {
        match self.standing {
            Standing::Reserved => State::Reserved,
            Standing::Dispatching => State::Dispatching,
            Standing::Booked(_) => State::Booked,
            Standing::Released(_) => State::Released,
            Standing::Unknown(_) => State::Unknown,
            Standing::Settled(_) => State::Settled,
        }
    }

    /// The gateway's reply. A payment that a person settled as booked has none.
    #[must_use]
    pub fn reply(&self) -> Option<&Body> {
        match &self.standing {
            Standing::Booked(reply) => Some(reply),
            _ => None,
        }
    }

    /// What the gateway said instead of a reply.
    #[must_use]
    pub fn gateway_error(&self) -> Option<&GatewayError> {
        match &self.standing {
            Standing::Released(Release::Refused(error)) => Some(error),
            Standing::Unknown(error) => error.as_ref(),
            _ => None,
        }
    }

    /// When the exchange ended in which the gateway may have counted the payment, by the wall clock; none where no byte
    /// of it left, or where it has not ended.
    #[must_use]
    pub fn sent_until_ms(&self) -> Option<i64> {
        match &self.standing {
            Standing::Reserved | Standing::Dispatching | Standing::Released(Release::NeverWritten) => None,
            // A late reply or a person changed it after that.
            _ => self.times.unknown_ms.or(self.times.ended_ms),
        }
    }

    /// Whether the record proves that nothing was booked under its key.
    #[must_use]
    pub fn frees_its_key(&self) -> bool {
        match &self.standing {
            Standing::Released(_) => true,
            Standing::Settled(settlement) => settlement.outcome == Finding::NotBooked,
            _ => false,
        }
    }

    /// What a request with this record's key and the given sale gets.
    #[must_use]
    pub fn answer(&self, fingerprint: &Fingerprint) -> Answer {
        match &self.standing {
            _ if self.frees_its_key() => Answer::Free,
            // A sale that can no longer be read cannot be told from another.
            _ if self.fingerprint != *fingerprint && self.fingerprint != Fingerprint::UNKNOWN => Answer::Reused,
            Standing::Reserved | Standing::Dispatching => Answer::InProgress,
            Standing::Unknown(_) => Answer::Unknown,
            Standing::Booked(_) | Standing::Released(_) | Standing::Settled(_) => Answer::Replay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_pinned_because_they_are_on_disk() {
        let codes = RecordState::ALL.map(RecordState::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6]);
        assert!(RecordState::ALL.into_iter().all(|state| RecordState::of_code(state.code()) == Some(state)));
        assert_eq!(RecordState::of_code(7), None);
    }
}
