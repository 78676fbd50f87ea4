//! What became of payments: their records, and a person's decision on those of unknown outcome.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};
use actix_web::{HttpResponse, get, put, web};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::InInstance;
use crate::bridge::Error;
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::document::GatewayWords;
use crate::http::problem::{Fault, Problem, table};
use crate::http::request::body::{self, Empty};
use crate::http::request::idempotency_key::IdempotencyKey;
use crate::http::request::integer;
use crate::http::request::preconditions::{self, Tags};
use crate::journal::record::Contradiction;
use crate::journal::{
    Candidate, Discrepancy, Filter, Finding, Listed, Outcome, Record, RecordId, RecordState, Rejection, Search, State,
    Unreadable, Verdict,
};
use crate::protocol::{Body, GatewayError, Parameters, model};

/// Records in a page: as many where nothing is said, and at most.
const USUAL_RECORDS: usize = 100;
const MOST_RECORDS: usize = 1000;

/// The longest reply that a listing shows; the record by itself shows every one.
const MOST_LISTED_REPLY: usize = 4096;

/// The longest reason kept.
const MOST_REASON: usize = 1000;

/// Which records are wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only those under this key, bare or quoted as in the header.
    #[param(nullable = false, example = "4f1c3b2e-6a57-4c0e-9d3e-1f6a2b7c8d90")]
    pub idempotency_key: Option<String>,
    /// Only those in this state.
    #[param(nullable = false, inline = false, value_type = ListedState, required = false, example = "unknown")]
    pub state: Option<String>,
    /// Only those of this point of sale.
    #[param(nullable = false, minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 1)]
    pub pos_id: Option<i64>,
    /// Only those created at this time or later (RFC 3339).
    #[param(nullable = false, format = DateTime, example = "2026-06-08T00:00:00Z")]
    pub from: Option<String>,
    /// Only those created before this time (RFC 3339).
    #[param(nullable = false, format = DateTime, example = "2026-06-09T00:00:00Z")]
    pub to: Option<String>,
    /// Only this caller's, by the name of its token. Another's than one's own needs scope `operate`.
    #[param(nullable = false, example = "shop")]
    pub caller: Option<String>,
    /// At most so many in this page; 100 where nothing is said.
    #[param(nullable = false, minimum = 1, maximum = 1000, example = 100)]
    pub limit: Option<i64>,
    /// The `next` of the page before.
    #[param(nullable = false, example = "01932b1c-7a1c-7c3e-8b6d-2f4a5c6e7d80")]
    pub cursor: Option<String>,
}

impl Wanted {
    /// Reads the query; whose payments are wanted is what the caller may see, or less.
    fn read(call: &Call) -> Result<Filter, Problem> {
        Ok(Filter {
            instance: call.instance().to_owned(),
            caller: Self::caller(call)?,
            idempotency_key: asked(
                call,
                "idempotency_key",
                "1 to 255 visible ASCII characters, bare or quoted",
                |key| Some(IdempotencyKey::parse(key)?.as_str().to_owned()),
            )?,
            state: asked(call, "state", &states(), |name| {
                RecordState::ALL.into_iter().find(|state| state.name() == name)
            })?,
            pos_id: asked(call, "pos_id", "the id of a point of sale", |id| integer::of_digits(id).ok())?,
            from_ms: asked(call, "from", A_TIME, instant)?,
            to_ms: asked(call, "to", A_TIME, instant)?,
            before: asked(call, "cursor", "the `next` of an earlier page", |id| id.parse().ok())?,
            limit: asked(call, "limit", &format!("1 to {MOST_RECORDS}"), |limit| {
                limit.parse().ok().filter(|limit| (1..=MOST_RECORDS).contains(limit))
            })?
            .unwrap_or(USUAL_RECORDS),
        })
    }

    fn caller(call: &Call) -> Result<Option<String>, Problem> {
        let (allowed, wanted) = (whose(call)?, call.query("caller")?);
        match (allowed, wanted) {
            (Some(own), Some(wanted)) if own != wanted => {
                Err(Problem::new(&table::FORBIDDEN).detail("Payments of another caller need the scope `operate`."))
            }
            (Some(own), _) => Ok(Some(own)),
            (None, wanted) => Ok(wanted),
        }
    }
}

const A_TIME: &str = "a time as in RFC 3339";

fn instant(text: &str) -> Option<i64> {
    text.parse().ok().map(Timestamp::as_millisecond)
}

fn states() -> String {
    format!("one of `{}`", RecordState::ALL.map(RecordState::name).join("`, `"))
}

/// What the query has under `name`, or what it should be.
fn asked<T>(
    call: &Call,
    name: &str,
    expected: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let Some(text) = call.query(name)? else { return Ok(None) };
    let refused = || Problem::new(&table::INVALID_REQUEST).detail(format!("`{name}` in the query must be {expected}."));
    read(&text).map(Some).ok_or_else(refused)
}

/// The payment in the path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InPayment {
    /// The bridge's id of the payment.
    #[param(example = "01932b1c-7a1c-7c3e-8b6d-2f4a5c6e7d80")]
    pub payment_id: String,
}

/// The revision that a person saw.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Seen {
    /// The `ETag` of the record as it was seen: a decision applies only to that.
    #[param(rename = "If-Match", pattern = r#"^(\*|(W/)?"[0-9]+"(, *(W/)?"[0-9]+")*)$"#, example = "\"2\"")]
    pub if_match: String,
}

/// The state of a payment, or `unreadable`: its record is damaged, or was written by a later release.
#[derive(Debug, ToSchema)]
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
    id: i64,
    /// How many.
    #[serde(rename = "Amount")]
    #[schema(rename = "Amount")]
    amount: u64,
}

/// What became of a payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentRecord {
    /// The bridge's id of the payment.
    id: String,
    /// What became of it.
    #[schema(value_type = ListedState)]
    state: &'static str,
    /// The caller's key.
    idempotency_key: String,
    /// The name of the token that asked.
    caller: String,
    /// The point of sale.
    #[serde(rename = "POSID")]
    #[schema(rename = "POSID")]
    pos_id: i64,
    /// The payment method's id; absent where the record cannot be read.
    #[serde(rename = "PaymentMethod", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "PaymentMethod", nullable = false)]
    payment_method: Option<String>,
    /// What was sold; absent where the record cannot be read.
    #[serde(rename = "Products", skip_serializing_if = "Option::is_none")]
    #[schema(rename = "Products", nullable = false)]
    products: Option<Vec<SoldLine>>,
    /// When the key was taken (RFC 3339).
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was recorded, just before it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    dispatched_at: Option<String>,
    /// When its outcome was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    ended_at: Option<String>,
    /// Until when its connection to the gateway was listened to for a late reply. Absent while it is, where no late reply
    /// can come, and for a refused payment whose bridge was killed within `gateway.late_patience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    listened_until: Option<String>,
    /// The gateway's reply, as it came; see `reply_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<model::PayItem>, nullable = false)]
    reply: Option<Box<RawValue>>,
    /// `true` where the reply is too long for a listing: the record by itself has it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    reply_omitted: bool,
    /// How long the reply was, where it was more than 64 KiB: then only those of its members are kept that fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reply_bytes: Option<u64>,
    /// What the gateway said instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GatewayWords>, nullable = false)]
    gateway: Option<GatewayError>,
    /// A person's decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    settlement: Option<SettlementView>,
    /// What the gateway said and does not agree with this record. Somebody has to look into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    contradictions: Vec<ContradictionView>,
    /// The newest transaction of the point of sale that was known before the payment was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    newest_transaction_before: Option<i64>,
    /// What the gateway's transactions tell of an outcome that is not known; absent until they were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    evidence: Option<EvidenceView>,
    /// That the record cannot be read, or took the place of one that could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unreadable: Option<UnreadableView>,
    /// Changes with everything that a person decides by; the `ETag`. Another look that finds nothing new does not
    /// change it. 0 where the record cannot be read.
    revision: u64,
}

/// What is known of a record that cannot be read, beside the payment itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnreadableView {
    /// Why it cannot be read.
    reason: String,
    /// The state in which it was last written, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ListedState>, nullable = false)]
    last_state: Option<&'static str>,
    /// The beginning of what is stored, as text; not in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stored: Option<String>,
}

/// Something that the gateway said and that does not agree with the record.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContradictionView {
    /// When it came (RFC 3339).
    #[schema(format = DateTime)]
    at: String,
    /// What it says: `booked` or `not-booked`.
    says: PaymentFinding,
    /// Why it does not agree, for a person.
    detail: String,
    /// The other payment under the same key that it is about, where it is about another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payment: Option<String>,
}

/// What the gateway's transactions tell. It decides nothing: another till may have sold the same.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceView {
    /// How often the bridge looked.
    looks: u32,
    /// When it last did (RFC 3339).
    #[schema(format = DateTime)]
    last_look_at: String,
    /// Whether that look reached back to before the payment was sent, in the gateway's transactions and in the bridge's
    /// payments. If not, more may match than is shown, and more payments may explain it than are counted.
    complete: bool,
    /// Transactions that agree with a line of the sale in point of sale, payment method, product and amount, and are
    /// newer than `newest_transaction_before`; where that is absent, also older ones.
    transactions: Vec<ClueView>,
}

/// A transaction that might be this payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClueView {
    /// The transaction as the gateway spelled it.
    #[schema(value_type = model::Transaction)]
    transaction: Box<RawValue>,
    /// How many other payments of this bridge could explain it. Never falls.
    other_payments: u32,
}

/// A person's decision as recorded.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettlementView {
    /// `booked` or `not-booked`.
    outcome: PaymentFinding,
    /// Why, in the person's words.
    reason: String,
    /// The name of the token that decided.
    by: String,
    /// When (RFC 3339).
    #[schema(format = DateTime)]
    at: String,
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

/// Records of payments.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentRecords {
    /// Newest first. A page may have fewer than were asked for, or none, even where more follow.
    payments: Vec<PaymentRecord>,
    /// Where more may follow: the `cursor` of the next page.
    next: Option<String>,
}

/// A person's decision.
#[derive(Debug, ToSchema)]
pub struct Decision {
    /// What the payment was found to be.
    outcome: PaymentFinding,
    /// Why, for whoever asks later.
    #[schema(min_length = 1, max_length = 1000, example = "found in the till's own list")]
    reason: String,
}

impl Decision {
    /// Reads it out of a body, or says everything that is wrong with it.
    fn read(body: &Parameters) -> Result<Self, Vec<Fault>> {
        let expected = format!("a text of 1 to {MOST_REASON} bytes");
        let outcome = body::member(body, "outcome", "`booked` or `not-booked`");
        let reason = body::member(body, "reason", &expected).and_then(|reason: String| {
            let is_reason = !reason.trim().is_empty() && reason.len() <= MOST_REASON;
            if is_reason { Ok(reason) } else { Err(Fault::new("/reason", format!("must be {expected}"))) }
        });
        match (outcome, reason) {
            (Ok(outcome), Ok(reason)) => Ok(Self { outcome, reason }),
            (outcome, reason) => Err(outcome.err().into_iter().chain(reason.err()).collect()),
        }
    }
}

impl From<&Record> for PaymentRecord {
    fn from(record: &Record) -> Self {
        let settlement = match &record.standing {
            crate::journal::record::Standing::Settled(settlement) => Some(SettlementView {
                outcome: match settlement.outcome {
                    Finding::Booked => PaymentFinding::Booked,
                    Finding::NotBooked => PaymentFinding::NotBooked,
                },
                reason: settlement.reason.clone(),
                by: settlement.by.clone(),
                at: time(settlement.at_ms),
            }),
            _ => None,
        };
        let sale_known = record.recovered.as_ref().is_none_or(|recovered| recovered.sale_known);
        let products = record.sale.products.iter().map(|&(id, amount)| SoldLine { id, amount }).collect();
        Self {
            id: record.id.to_string(),
            state: record.state().name(),
            idempotency_key: record.key.idempotency_key.clone(),
            caller: record.key.caller.clone(),
            pos_id: record.sale.pos_id,
            payment_method: sale_known.then(|| record.sale.payment_method.clone()),
            products: sale_known.then_some(products),
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
    fn in_list(listed: &Listed) -> Self {
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

/// A clock that is off by millennia is told as the last instant that can be written.
fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX).to_string()
}

fn answer(record: &PaymentRecord) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((ETAG, format!("\"{}\"", record.revision)))
        // `If-Match` wants the very same tag back, and compressed it would be another.
        .insert_header((CONTENT_ENCODING, "identity"))
        .json(record)
}

/// The name whose records this caller may see: its own, or everybody's with `operate`.
fn whose(call: &Call) -> Result<Option<String>, Problem> {
    if call.caller().has(Scope::Operate) {
        call.permit(Scope::Operate)?;
        return Ok(None);
    }
    call.permit(Scope::Pay)?;
    Ok(Some(call.caller().name().to_owned()))
}

async fn seen_by(call: &Call) -> Result<Listed, Problem> {
    let whose = whose(call)?;
    let unknown = || Problem::new(&table::UNKNOWN_PAYMENT);
    let id: RecordId = call.segment("payment_id").parse().map_err(|_| unknown())?;
    let record = call.served()?.payment(id).await?;
    // Somebody else's payment does not exist for this caller.
    if whose.is_some_and(|name| name != record.key().caller) { Err(unknown()) } else { Ok(record) }
}

/// Records of payments
///
/// The caller's own payments, newest first; everybody's with scope `operate`. A page has at most `limit` of them; `next`,
/// where it is not null, is the `cursor` of the page after it.
#[utoipa::path(tag = "Payments", operation_id = "listPayments", params(InInstance, Wanted),
    responses((status = 200, description = "The records.", body = PaymentRecords)))]
#[get("/payments")]
pub(super) async fn list_payments(call: Call) -> Result<HttpResponse, Problem> {
    let filter = Wanted::read(&call)?;
    let page = call.served()?.payments(filter).await?;
    let payments = page.records.iter().map(PaymentRecord::in_list).collect();
    let next = page.next.map(|id| id.to_string());
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(PaymentRecords { payments, next }))
}

/// Record of a payment
///
/// What became of one payment: state, times, and the gateway's reply.
#[utoipa::path(tag = "Payments", operation_id = "getPayment", params(InInstance, InPayment),
    responses((status = 200, description = "The record.", body = PaymentRecord,
        headers(("ETag" = String, description = "The record's revision.")))))]
#[get("/payments/{payment_id}")]
pub(super) async fn get_payment(call: Call) -> Result<HttpResponse, Problem> {
    Ok(answer(&PaymentRecord::from(&seen_by(&call).await?)))
}

/// Settle a payment of unknown outcome
///
/// A person decides whether it was booked. Applies only to a payment that is unknown or unreadable, as it was seen
/// (`If-Match`). After `booked` its key is answered with 201; after `not-booked` the key is free again.
#[utoipa::path(tag = "Operations", operation_id = "settlePayment", params(InInstance, InPayment, Seen),
    request_body(content = Decision, description = "The decision and its reason."),
    responses((status = 200, description = "The record as settled.", body = PaymentRecord,
        headers(("ETag" = String, description = "The record's revision.")))))]
#[put("/payments/{payment_id}/outcome")]
pub(super) async fn settle_payment(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Operate)?;
    let record = seen_by(&call).await?;
    let is_as_seen = is_as_seen(call.request().headers(), record.revision())?;
    let body = call.object(payload, Empty::Refused).await?;
    let decision = Decision::read(&body).map_err(|faults| {
        Problem::new(&table::INVALID_REQUEST).detail("The body is no decision. Nothing was changed.").errors(faults)
    })?;
    let outcome = match decision.outcome {
        PaymentFinding::Booked => Finding::Booked,
        PaymentFinding::NotBooked => Finding::NotBooked,
    };
    if !is_as_seen {
        // That it is decided says more than that it changed.
        if let Listed::Record(record) = &record {
            record.may_be_settled(record.revision).map_err(Error::Unsettled)?;
        }
        return Err(Error::Unsettled(Rejection::Stale(record.revision())).into());
    }
    let verdict = Verdict { outcome, reason: decision.reason, by: call.caller().name().to_owned() };
    let record = call.served()?.settle(record.id(), record.revision(), verdict).await?;
    Ok(answer(&PaymentRecord::from(&record)))
}

/// Whether a person saw the record as it is. No header, or one without tags, is a mistake in the program and not news.
///
/// A weak tag counts: a revision says what a person decides by and not which bytes were sent, and proxies that compress
/// make the tags of answers weak.
fn is_as_seen(headers: &HeaderMap, revision: u64) -> Result<bool, Problem> {
    let text = revision.to_string();
    let has = |tags: Tags<'_>| tags.have_text(text.as_bytes());
    let wanted = preconditions::tags(headers, &IF_MATCH).filter(|tags| *tags != Ok(Tags::These(Vec::new())));
    let mistake = || Problem::new(&table::INVALID_REQUEST).detail("`If-Match` must hold the record's `ETag`.");
    let is_wanted = wanted.and_then(Result::ok).map(has).ok_or_else(mistake)?;
    let is_unwanted = preconditions::tags(headers, &IF_NONE_MATCH).is_some_and(|tags| tags.is_ok_and(has));
    Ok(is_wanted && !is_unwanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_decision_is_all_pointed_at() {
        let faults = |body: &str| {
            let faults = Decision::read(&Parameters::parse(body.as_bytes()).unwrap()).err().unwrap_or_default();
            faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect::<Vec<_>>()
        };
        let outcome = ("/outcome".to_owned(), "must be `booked` or `not-booked`".to_owned());
        let reason = ("/reason".to_owned(), "must be a text of 1 to 1000 bytes".to_owned());
        assert_eq!(faults(r#"{"outcome":"bookd","reason":7}"#), [outcome, reason.clone()]);
        assert_eq!(faults(r#"{"outcome":"booked","reason":" "}"#), [reason]);
        assert_eq!(faults(r#"{"outcome":"booked"}"#), [("/reason".to_owned(), "is missing".to_owned())]);
        assert_eq!(faults(r#"{"outcome":"not-booked","reason":"seen"}"#), []);
    }
}
