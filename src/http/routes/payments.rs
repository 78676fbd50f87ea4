//! Sales: the one route where money moves.
//!
//! Nothing goes to the gateway before the caller, the key and every line of the sale are known to be good. What then
//! goes is the body as it was spelled, with the point of sale of the path; it is written once and never again.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use actix_web::{HttpResponse, post, web};
use utoipa::IntoParams;

use super::parameters::{InInstance, InPointOfSale, PosPassword};
use crate::bridge::{Error, Paid};
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::{FieldError, Problem, table};
use crate::http::request::body::Empty;
use crate::http::request::idempotency_key::IdempotencyKey;
use crate::http::request::sale;
use crate::http::response::{preference_applied, reply};
use crate::http::views::gateway_bodies;
use crate::journal;
use crate::protocol::{Body, Command, command};

/// The key of a payment.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Key {
    /// Says which sale this is: the same key never books twice. 1 to 255 visible ASCII characters, bare or as a quoted
    /// string; both spell the same key. Make one for each sale and keep it until its outcome is known.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        pattern = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#,
        example = "4f1c3b2e-6a57-4c0e-9d3e-1f6a2b7c8d90"
    )]
    pub idempotency_key: String,
}

/// Book a sale
///
/// Sells the products with an `Amount` above 0; the others are ignored, so a till may send its whole list. Fields that
/// are not listed here are forwarded as they are spelled. When no answer comes, repeat with the same `Idempotency-Key`:
/// it never books twice.
#[utoipa::path(tag = "Payments", operation_id = "payItems",
    params(InInstance, InPointOfSale, Key, PosPassword),
    request_body(content = gateway_bodies::PayItems, description = "What is sold, and how it is paid."),
    responses((status = 201, description = "The sale is booked.", body = gateway_bodies::PayItem, headers(
        ("Location" = String, description = "The record of the payment."),
        ("Idempotent-Replayed" = bool, description = "`true` where this repeats an earlier answer.")))))]
#[post("/payments")]
pub(super) async fn payitems(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Pay)?;
    // The key is checked first, so that a client that forgets it learns so at its first try.
    let key = IdempotencyKey::of(call.request().headers())?;
    let body = call.object(payload, Empty::Refused).await?;
    let sale = sale::read(call.pos_id()?, &body).map_err(faulty)?;
    let key = journal::Key {
        instance: call.instance().to_owned(),
        caller: call.caller().name().to_owned(),
        idempotency_key: key.as_str().to_owned(),
    };
    let command = Command::known(&command::PAYITEMS, call.for_point_of_sale(body)?);
    let wait = call.wait();
    let wait_until = wait.map(|wait| call.end_of(wait));
    let (paid, waited) = call.served()?.pay_or_wait(key, sale, command, call.deadline(), wait_until).await;
    let touched = !waited && !matches!(paid, Ok(Paid { replayed: true, .. }));
    let answer = paid.map(|paid| answered(&call, &paid)).map_err(|error| problem_of(&call, error));
    let answer = if touched { call.with_budget(command::PAYITEMS.name, answer) } else { answer };
    match wait {
        Some(wait) if waited => preference_applied::add_wait_to(answer, wait),
        _ => answer,
    }
}

/// The answer to a booked sale.
fn answered(call: &Call, Paid { record, replayed }: &Paid) -> HttpResponse {
    let mut response = reply::done(StatusCode::CREATED, reply(record));
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::from_str(&place(call, &record.id.to_string())) {
        headers.insert(LOCATION, place);
    }
    if *replayed {
        headers.insert(HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
    }
    response
}

/// The gateway's reply. A payment that a person settled as booked has none: its answer says what was sold.
fn reply(record: &journal::Record) -> Body {
    record.reply().cloned().unwrap_or_else(|| Body::items(record.sale.products.len()))
}

/// Where the record of a payment is.
fn place(call: &Call, payment: &str) -> String {
    let base = call.state().config.public_url.as_deref().unwrap_or_default();
    format!("{base}/v1/instances/{}/payments/{payment}", call.instance())
}

/// An unknown outcome names the record, so that its caller can follow what becomes of it.
fn problem_of(call: &Call, error: Error) -> Problem {
    let Error::OutcomeUnknown { payment: Some(payment), .. } = &error else { return error.into() };
    let place = place(call, payment);
    let header = HeaderValue::from_str(&place).ok();
    let detail = format!(
        "The payment was sent and no answer says whether it was booked. Repeat it with the same key, never with a new \
         one; what is known of it is at {place}."
    );
    let problem = Problem::from(error).detail(detail);
    match header {
        Some(header) => problem.header(LOCATION, header),
        None => problem,
    }
}

fn faulty(faults: Vec<FieldError>) -> Problem {
    let detail = match faults.len() {
        1 => "The sale has a fault. Nothing was sent.".to_owned(),
        count => format!("The sale has {count} faults. Nothing was sent."),
    };
    Problem::new(&table::INVALID_REQUEST).detail(detail).errors(faults)
}
