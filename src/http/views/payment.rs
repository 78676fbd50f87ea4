//! Records of payments as they are answered.
//!
//! The names of the schemas are those of the document, and do not change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::gateway_bodies;
use super::spelled::Price;
use crate::http::problem::document::GatewayWords;
use crate::journal::record::{Contradiction, Standing};
use crate::journal::{
    Candidate, Discrepancy, Finding, Listed, Outcome, Record, RecordState, SaleDetails, Search, State, Unreadable,
    why_no_sum,
};
use crate::protocol::{Body, GatewayError};

/// Bytes of the longest reply that a listing shows; the record by itself shows every one.
const MOST_LISTED_REPLY: usize = 4096;

/// The state of a payment, or `unreadable`: its record is damaged, or was written by a later release.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[schema(as = PaymentState, rename_all = "lowercase")]
pub enum ListedState {
    /// The key is taken, in memory only; nothing was sent.
    Reserved,
    /// Recorded, and possibly on its way.
    Dispatching,
    /// The gateway confirmed it.
    Booked,
    /// Proven not to be booked. The key is free again.
    Released,
    /// Written, and nothing tells what became of it.
    Unknown,
    /// A person decided what became of it.
    Settled,
    /// Its record cannot be read. The key stays taken until a person settles it.
    Unreadable,
}

/// Product and amount.
#[derive(Debug, Serialize, ToSchema)]
pub struct SoldLine {
    /// The product's id.
    #[serde(rename = "ID")]
    #[schema(rename = "ID")]
    pub id: i64,
    /// How many.
    #[serde(rename = "Amount")]
    #[schema(rename = "Amount")]
    pub amount: u64,
    /// The product's name, where a cached reply had it when the payment was dispatched; a long one is cut.
    #[serde(rename = "ProductName", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "ProductName", nullable = false, examples("Beer 0.5 l"))]
    pub name: Option<String>,
    /// The price of one, likewise, as the gateway spelled it.
    #[serde(rename = "Price", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "Price", value_type = Option<Price>, nullable = false)]
    pub price: Option<Box<RawValue>>,
}

/// What became of a payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentRecord {
    /// The bridge's id of the payment.
    pub id: String,
    /// What became of it.
    #[schema(value_type = ListedState)]
    pub state: &'static str,
    /// The caller's key.
    pub idempotency_key: String,
    /// The name of the token that asked.
    pub caller: String,
    /// The point of sale.
    #[serde(rename = "POSID")]
    #[schema(rename = "POSID")]
    pub pos_id: i64,
    /// The payment method's id; absent where the record cannot be read.
    #[serde(rename = "PaymentMethod", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "PaymentMethod", nullable = false)]
    pub payment_method: Option<String>,
    /// The name of the point of sale, where a cached reply had it when the payment was dispatched; a long one is cut.
    #[serde(rename = "PointOfSale", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "PointOfSale", nullable = false, examples("Main bar"))]
    pub point_of_sale: Option<String>,
    /// The name of the payment method, likewise.
    #[serde(rename = "Payment", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "Payment", nullable = false, examples("Cash"))]
    pub payment: Option<String>,
    /// The exact sum of price times amount, without deposits, as a decimal. Absent where a price was not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^-?[0-9]+(\\.[0-9]+)?$", examples("9.00"))]
    pub sum: Option<String>,
    /// Why there is no sum, for a person; only of a payment that was dispatched.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sum_missing: Option<String>,
    /// When the oldest cached reply was asked for that names and prices are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub catalogue_as_of: Option<String>,
    /// `true` where such a reply may have been out of date at the dispatch, so that prices may have been others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub catalogue_outdated: bool,
    /// What was sold; absent where the record cannot be read.
    #[serde(rename = "Products", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "Products", nullable = false)]
    pub products: Option<Vec<SoldLine>>,
    /// When the key was taken (RFC 3339).
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was recorded, just before it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub dispatched_at: Option<String>,
    /// When its outcome was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub ended_at: Option<String>,
    /// Until when its connection to the gateway was listened to for a late reply. Absent while it is, where no late reply
    /// can come, and for a refused payment whose bridge was killed within `gateway.late_patience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub listened_until: Option<String>,
    /// The gateway's reply, as it came; see `reply_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<gateway_bodies::PayItem>, nullable = false)]
    pub reply: Option<Box<RawValue>>,
    /// `true` where the reply is too long for a listing: the record by itself has it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub reply_omitted: bool,
    /// How long the reply was, where it was more than 64 KiB: then only those of its members are kept that fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reply_bytes: Option<u64>,
    /// What the gateway said instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GatewayWords>, nullable = false)]
    pub gateway: Option<GatewayError>,
    /// A person's decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub settlement: Option<SettlementView>,
    /// What the gateway said and does not agree with this record. Somebody has to look into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub contradictions: Vec<ContradictionView>,
    /// The newest transaction of the point of sale that was known before the payment was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub newest_transaction_before: Option<i64>,
    /// What the gateway's transactions tell of an outcome that is not known; absent until they were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub evidence: Option<EvidenceView>,
    /// That the record cannot be read, or took the place of one that could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unreadable: Option<UnreadableView>,
    /// Changes with everything that a person decides by; the `ETag`. Another look that finds nothing new does not
    /// change it. 0 where the record cannot be read.
    pub revision: u64,
}

/// What is known of a record that cannot be read, beside the payment itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnreadableView {
    /// Why it cannot be read.
    pub reason: String,
    /// The state in which it was last written, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ListedState>, nullable = false)]
    pub last_state: Option<&'static str>,
    /// The beginning of what is stored, as text; not in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stored: Option<String>,
}

/// Something that the gateway said and that does not agree with the record.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContradictionView {
    /// When it came (RFC 3339).
    #[schema(format = DateTime)]
    pub at: String,
    /// What it says: `booked` or `not-booked`.
    pub says: PaymentFinding,
    /// Why it does not agree, for a person.
    pub detail: String,
    /// The other payment under the same key that it is about, where it is about another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub payment: Option<String>,
}

/// What the gateway's transactions tell. It decides nothing: another till may have sold the same.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceView {
    /// How often the bridge looked.
    pub looks: u32,
    /// When it last did (RFC 3339).
    #[schema(format = DateTime)]
    pub last_look_at: String,
    /// Whether that look reached back to before the payment was sent, in the gateway's transactions and in the bridge's
    /// payments. If not, more may match than is shown, and more payments may explain it than are counted.
    pub complete: bool,
    /// Transactions that agree with a line of the sale in point of sale, payment method, product and amount, and are
    /// newer than `newest_transaction_before`; where that is absent, also older ones.
    pub transactions: Vec<ClueView>,
}

/// A transaction that might be this payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClueView {
    /// The transaction as the gateway spelled it.
    #[schema(value_type = gateway_bodies::Transaction)]
    pub transaction: Box<RawValue>,
    /// How many other payments of this bridge could explain it. Never falls.
    pub other_payments: u32,
}

/// A person's decision as recorded.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettlementView {
    /// `booked` or `not-booked`.
    pub outcome: PaymentFinding,
    /// Why, in the person's words.
    pub reason: String,
    /// The name of the token that decided.
    pub by: String,
    /// When (RFC 3339).
    #[schema(format = DateTime)]
    pub at: String,
}

/// What a person found a payment of unknown outcome to be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentFinding {
    /// It was booked.
    Booked,
    /// It was not: the key is free again.
    NotBooked,
}

impl PaymentFinding {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Booked => "booked",
            Self::NotBooked => "not-booked",
        }
    }
}

/// Records of payments.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentRecords {
    /// Newest first. A page may have fewer than were asked for, or none, even where more follow.
    pub payments: Vec<PaymentRecord>,
    /// Where more may follow: the `cursor` of the next page.
    pub next: Option<String>,
}

impl SoldLine {
    fn of((id, amount): (i64, u64), details: Option<&SaleDetails>) -> Self {
        let known = details.and_then(|details| details.product(id));
        let price = known.and_then(|known| RawValue::from_string(known.price.clone()?).ok());
        Self { id, amount, name: known.and_then(|known| known.name.clone()), price }
    }
}

impl From<Finding> for PaymentFinding {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Booked => Self::Booked,
            Finding::NotBooked => Self::NotBooked,
        }
    }
}

impl From<PaymentFinding> for Finding {
    fn from(finding: PaymentFinding) -> Self {
        match finding {
            PaymentFinding::Booked => Self::Booked,
            PaymentFinding::NotBooked => Self::NotBooked,
        }
    }
}

impl From<&Record> for PaymentRecord {
    fn from(record: &Record) -> Self {
        let settlement = match &record.standing {
            Standing::Settled(settlement) => Some(SettlementView {
                outcome: settlement.outcome.into(),
                reason: settlement.reason.clone(),
                by: settlement.by.clone(),
                at: time(settlement.at_ms),
            }),
            _ => None,
        };
        let sale_known = record.recovered.as_ref().is_none_or(|recovered| recovered.sale_known);
        let details = record.details.as_deref();
        let dispatched = record.times.dispatched_ms.filter(|_| sale_known);
        let products = record.sale.products.iter().map(|&line| SoldLine::of(line, details)).collect();
        Self {
            id: record.id.to_string(),
            state: record.state().name(),
            idempotency_key: record.key.idempotency_key.clone(),
            caller: record.key.caller.clone(),
            pos_id: record.sale.pos_id,
            payment_method: sale_known.then(|| record.sale.payment_method.clone()),
            products: sale_known.then_some(products),
            point_of_sale: details.and_then(|details| details.point_of_sale.clone()),
            payment: details.and_then(|details| details.payment_method.clone()),
            sum: details.and_then(|details| details.sum.clone()),
            sum_missing: dispatched.and_then(|_| why_no_sum(&record.sale, details)),
            catalogue_as_of: details.map(|details| time(details.as_of_ms)),
            catalogue_outdated: details.is_some_and(|details| details.outdated),
            created_at: time(record.times.created_ms),
            dispatched_at: record.times.dispatched_ms.map(time),
            ended_at: record.times.ended_ms.map(time),
            listened_until: record.times.listened_until_ms.map(time),
            reply: record.reply().and_then(raw),
            reply_omitted: false,
            reply_bytes: record.reply_bytes,
            gateway: record.gateway_error().cloned(),
            settlement,
            contradictions: record.contradictions.iter().map(ContradictionView::from).collect(),
            newest_transaction_before: record.newest_transaction_before,
            evidence: record.search.map(|search| EvidenceView::of(record, search)),
            unreadable: record.recovered.as_ref().map(|recovered| UnreadableView {
                reason: recovered.reason.clone(),
                last_state: None,
                stored: None,
            }),
            revision: record.revision,
        }
    }
}

impl From<&Unreadable> for PaymentRecord {
    fn from(unreadable: &Unreadable) -> Self {
        Self {
            id: unreadable.id.to_string(),
            state: RecordState::Unreadable.name(),
            idempotency_key: unreadable.key.idempotency_key.clone(),
            caller: unreadable.key.caller.clone(),
            pos_id: unreadable.pos_id,
            payment_method: None,
            products: None,
            point_of_sale: None,
            payment: None,
            sum: None,
            sum_missing: None,
            catalogue_as_of: None,
            catalogue_outdated: false,
            created_at: time(unreadable.created_ms),
            dispatched_at: None,
            ended_at: None,
            listened_until: None,
            reply: None,
            reply_omitted: false,
            reply_bytes: None,
            gateway: None,
            settlement: None,
            contradictions: Vec::new(),
            newest_transaction_before: None,
            evidence: None,
            unreadable: Some(UnreadableView {
                reason: unreadable.reason.clone(),
                last_state: unreadable.was.map(State::name),
                stored: unreadable.stored.clone(),
            }),
            revision: Unreadable::REVISION,
        }
    }
}

impl From<&Listed> for PaymentRecord {
    fn from(listed: &Listed) -> Self {
        match listed {
            Listed::Record(record) => Self::from(&**record),
            Listed::Unreadable(unreadable) => Self::from(&**unreadable),
        }
    }
}

impl PaymentRecord {
    /// The record as one of many: without a reply that is long.
    #[must_use]
    pub fn in_list(listed: &Listed) -> Self {
        let mut record = Self::from(listed);
        record.reply_omitted = record.reply.as_ref().is_some_and(|reply| reply.get().len() > MOST_LISTED_REPLY);
        record.reply = record.reply.filter(|_| !record.reply_omitted);
        record
    }
}

impl From<&Contradiction> for ContradictionView {
    fn from(contradiction: &Contradiction) -> Self {
        let says = match contradiction.says {
            Outcome::Booked(_) => PaymentFinding::Booked,
            Outcome::Released(_) | Outcome::Unknown(_) => PaymentFinding::NotBooked,
        };
        let (detail, payment) = match contradiction.why {
            Discrepancy::DecidedOtherwise => ("It came after the outcome was decided otherwise.".to_owned(), None),
            Discrepancy::KeyUsedAgain { of } => (
                "It came after the key had been used again: the sale may be booked twice.".to_owned(),
                of.map(|id| id.to_string()),
            ),
            Discrepancy::TillWasRefused => {
                ("It came after the till had been told that the sale was refused.".to_owned(), None)
            }
            Discrepancy::FewerItems { booked, sold } => {
                (format!("The reply says that {booked} of {sold} products were booked."), None)
            }
        };
        Self { at: time(contradiction.at_ms), says, detail, payment }
    }
}

impl EvidenceView {
    fn of(record: &Record, search: Search) -> Self {
        let clue = |clue: &Candidate| {
            Some(ClueView { transaction: raw(&clue.transaction)?, other_payments: clue.other_payments })
        };
        Self {
            looks: search.looks,
            last_look_at: time(search.last_ms),
            complete: search.complete,
            transactions: record.evidence.iter().filter_map(clue).collect(),
        }
    }
}

fn raw(body: &Body) -> Option<Box<RawValue>> {
    RawValue::from_string(body.as_str().to_owned()).ok()
}

/// A time that cannot be written is shown as the last one that can.
pub(super) fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX).to_string()
}
