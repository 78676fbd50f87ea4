//! Sales: the one route where money moves.
//!
//! Nothing goes to the gateway before the caller, the key and every line of the sale are known to be good. What then
//! goes is the body as it was spelled, with the point of sale of the path; it is written once and never again.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, post, web};
use utoipa::IntoParams;

use super::{InInstance, InPointOfSale, PosPassword};
use crate::http::answer;
use crate::http::auth::Scope;
use crate::http::body::Empty;
use crate::http::call::Call;
use crate::http::idempotency_key::IdempotencyKey;
use crate::http::problem::{Fault, Problem, table};
use crate::http::sale::Sale;
use crate::wire::{Command, command, model};

/// The key of a payment.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Key {
    /// Says which sale this is: the same key never books twice. 1 to 255 visible ASCII characters, bare or as a quoted
    /// string; both spell the same key. Make one for each sale and keep it until its outcome is known.
    #[param(rename = "Idempotency-Key", min_length = 1, example = "4f1c3b2e-6a57-4c0e-9d3e-1f6a2b7c8d90")]
    pub idempotency_key: String,
}

/// Book a sale
///
/// Sells the products with an `Amount` above 0; the others are ignored, so a till may send its whole list. Fields that
/// are not listed here are forwarded as they are spelled. When no answer comes, repeat with the same `Idempotency-Key`:
/// it never books twice.
#[utoipa::path(tag = "Payments", operation_id = "payitems",
    params(InInstance, InPointOfSale, Key, PosPassword),
    request_body(content = model::PayItems, description = "What is sold, and how it is paid."),
    responses((status = 201, description = "The sale is booked.", body = model::PayItem)))]
#[post("/payments")]
pub(super) async fn payitems(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Pay)?;
    // The key is asked for first: a program that forgets it is told so at its very first try.
    IdempotencyKey::of(call.request().headers())?;
    let body = call.object(payload, Empty::Refused).await?;
    Sale::read(&body).map_err(faulty)?;
    let command = Command::known(&command::PAYITEMS, call.for_point_of_sale(body)?);
    let reply = call.shared().bridge.send_once(call.instance(), command, call.caller().name(), call.deadline()).await?;
    Ok(answer::done(StatusCode::CREATED, reply))
}

fn faulty(faults: Vec<Fault>) -> Problem {
    let detail = match faults.len() {
        1 => "The sale has a fault. Nothing was sent.".to_owned(),
        count => format!("The sale has {count} faults. Nothing was sent."),
    };
    Problem::new(&table::INVALID_REQUEST).detail(detail).errors(faults)
}
