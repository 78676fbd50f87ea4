//! Records of payments, and settling by hand those of unknown outcome.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, LINK, VARY,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, get, put, web};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa::{IntoParams, ToSchema};

use super::parameters::InInstance;
use crate::bridge::Error;
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::{FieldError, Problem, table};
use crate::http::request::body::{self, Empty};
use crate::http::request::idempotency_key::IdempotencyKey;
use crate::http::request::integer;
use crate::http::request::preconditions::{self, Tags};
use crate::http::request::{accept, params};
use crate::http::response::csv;
use crate::http::views::payment::{ListedState, PaymentFinding, PaymentRecord, PaymentRecords};
use crate::http::views::payment_csv;
use crate::journal::{Filter, Listed, RecordId, RecordState, Rejection, Verdict};
use crate::protocol::Parameters;

/// Records in a page: as many where nothing is said, and at most.
const USUAL_RECORDS: usize = 100;
const MOST_RECORDS: usize = 1000;

/// The longest reason kept.
const MOST_REASON: usize = 1000;

/// Which records are wanted.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
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
        let (allowed, wanted) = (visible_caller(call)?, call.query("caller")?);
        match (allowed, wanted) {
            (Some(own), Some(wanted)) if own != wanted => {
                Err(Problem::new(&table::FORBIDDEN).detail("Payments of another caller need the scope `operate`."))
            }
            (Some(own), _) => Ok(Some(own)),
            (None, wanted) => Ok(wanted),
        }
    }
}

const A_TIME: &str = "a time as in RFC 3339, such as `2026-06-08T00:00:00Z` (in a query `+` is written `%2B`)";

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
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InPayment {
    /// The bridge's id of the payment.
    #[param(example = "01932b1c-7a1c-7c3e-8b6d-2f4a5c6e7d80")]
    pub payment_id: String,
}

/// The revision that a person saw.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Seen {
    /// The `ETag` of the record as it was seen: a decision applies only to that.
    #[param(rename = "If-Match", pattern = r#"^(\*|(W/)?"[0-9]+"(, *(W/)?"[0-9]+")*)$"#, example = "\"2\"")]
    pub if_match: String,
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
    fn read(body: &Parameters) -> Result<Self, Vec<FieldError>> {
        let expected = format!("a text of 1 to {MOST_REASON} bytes");
        let outcome = body::member(body, "outcome", "`booked` or `not-booked`");
        let reason = body::member(body, "reason", &expected).and_then(|reason: String| {
            let is_reason = !reason.trim().is_empty() && reason.len() <= MOST_REASON;
            if is_reason { Ok(reason) } else { Err(FieldError::new("/reason", format!("must be {expected}"))) }
        });
        match (outcome, reason) {
            (Ok(outcome), Ok(reason)) => Ok(Self { outcome, reason }),
            (outcome, reason) => Err(outcome.err().into_iter().chain(reason.err()).collect()),
        }
    }
}

fn answer(record: &PaymentRecord) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((ETAG, format!("\"{}\"", record.revision)))
        // `If-Match` wants the very same tag back, and compressed it would be another.
        .insert_header((CONTENT_ENCODING, "identity"))
        .json(record)
}

/// The name whose records this caller may see: its own, or `None`, all, with `operate`.
fn visible_caller(call: &Call) -> Result<Option<String>, Problem> {
    if call.caller().has(Scope::Operate) {
        call.permit(Scope::Operate)?;
        return Ok(None);
    }
    call.permit(Scope::Pay)?;
    Ok(Some(call.caller().name().to_owned()))
}

/// An error where no replica serves the instance, unless the caller may see everybody's records and there are some.
async fn exists_for(call: &Call, visible: Option<&str>) -> Result<(), Problem> {
    let Err(unknown) = call.served() else { return Ok(()) };
    if call.state().is_served_elsewhere(call.instance()) {
        return Ok(());
    }
    if visible.is_none() && call.state().bridge.has_records(call.instance()).await? { Ok(()) } else { Err(unknown) }
}

async fn seen_by(call: &Call) -> Result<Listed, Problem> {
    let caller = visible_caller(call)?;
    let unknown = || Problem::new(&table::UNKNOWN_PAYMENT);
    let id: RecordId = call.segment("payment_id").parse().map_err(|_| unknown())?;
    exists_for(call, caller.as_deref()).await?;
    let record = call.state().bridge.payment(call.instance(), id).await?;
    // For this caller, payments of others do not exist.
    if caller.is_some_and(|name| name != record.key().caller) { Err(unknown()) } else { Ok(record) }
}

/// Records of payments
///
/// The caller's own payments, newest first; everybody's with scope `operate`, also of an instance that is no longer served. A
/// page has at most `limit` of them; `next`, where it is not null, is the `cursor` of the page after it, and `Link` its
/// address. `Accept: text/csv` gives the page as a table, which begins with the names of the columns. It is not among the
/// responses below, since clients generated from this document would then have two types for every page.
#[utoipa::path(tag = "Payments", operation_id = "listPayments", params(InInstance, Wanted),
    responses((status = 200, description = "The records.", body = PaymentRecords,
        headers(("Link" = String, description = "Where more may follow: the next page, as `rel=\"next\"`.")))))]
#[get("/payments")]
pub(super) async fn list_payments(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let call = Call::in_any_of(&request, &["application/json", "text/csv"])?;
    let filter = Wanted::read(&call)?;
    exists_for(&call, visible_caller(&call)?.as_deref()).await?;
    let page = call.state().bridge.payments(filter).await?;
    let payments: Vec<_> = page.records.iter().map(PaymentRecord::in_list).collect();
    let next = page.next.map(|id| id.to_string());
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store")).insert_header((VARY, "Accept"));
    if let Some(next) = &next {
        link_to(&mut answer, &call, next)?;
    }
    Ok(if accept::prefers_csv(request.headers()) {
        answer.insert_header((CONTENT_TYPE, csv::MEDIA_TYPE)).body(payment_csv::table(&payments))
    } else {
        answer.json(PaymentRecords { payments, next })
    })
}

/// Names the page after this one: the same query, from `cursor` on.
fn link_to(answer: &mut HttpResponseBuilder, call: &Call, cursor: &str) -> Result<(), Problem> {
    let base = call.state().config.public_url.as_deref().unwrap_or_default();
    let mut query = String::new();
    for (name, value) in params::pairs(call.request())?.iter().filter(|(name, _)| name != "cursor") {
        query.extend([name, "=", &utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(), "&"]);
    }
    let place = format!("{base}/v1/instances/{}/payments?{query}cursor={cursor}", call.instance());
    answer.insert_header((LINK, format!("<{place}>; rel=\"next\"")));
    Ok(())
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
    if !is_as_seen {
        // That it is decided says more than that it changed.
        if let Listed::Record(record) = &record {
            record.may_be_settled(record.revision).map_err(Error::Unsettled)?;
        }
        return Err(Error::Unsettled(Rejection::Stale(record.revision())).into());
    }
    let verdict =
        Verdict { outcome: decision.outcome.into(), reason: decision.reason, by: call.caller().name().to_owned() };
    let record = call.state().bridge.settle(call.instance(), record.id(), record.revision(), verdict).await?;
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
