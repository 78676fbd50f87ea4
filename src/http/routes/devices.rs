//! Tills: the device itself, and the password that opens a point of sale on it.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, post, put, web};
use utoipa::IntoParams;

use super::parameters::{InInstance, InPointOfSale};
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::{FieldError, Problem, table};
use crate::http::request::body::{self, Empty};
use crate::http::request::integer;
use crate::http::response::reply;
use crate::http::views::gateway_bodies;
use crate::protocol::{Command, Parameters, Spec, command};

/// The longest device id: the gateway documents UUIDs (36 characters), and tills may be named otherwise.
const LONGEST_DEVICE_ID: usize = 64;

/// The device in the path.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Device {
    /// The device's own id, usually a UUID it made at its first start. 1 to 64 letters, digits, `-`, `_`, `.` or `:`.
    #[param(
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9._:-]+$",
        example = "13e12ff5-c853-4049-acbc-b1307c00691d"
    )]
    pub uuid: String,
}

/// Register a device, or say that it lives
///
/// Doing so again changes nothing but the time of the last sign of life. `workplace` says at which point of sale the
/// device stands.
#[utoipa::path(tag = "Devices", operation_id = "registerDevice", params(InInstance, Device),
    request_body(content = gateway_bodies::RegisterDevice, description = "May be left out."),
    responses((status = 200, description = "The device is registered.", body = gateway_bodies::RegisteredDevice)))]
#[put("/devices/{uuid}")]
pub(super) async fn registerdevice(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Devices)?;
    let device = device_of(&call)?;
    let body = call.object(payload, Empty::Allowed).await?;
    if let Some(workplace) = body.get("workplace") {
        integer::of_json(workplace.get()).map_err(|why| invalid("/workplace", why.to_string()))?;
    }
    let parameters = body::with_member(body, "UUID", &device.into())?;
    ask(&call, &command::REGISTERDEVICE, parameters).await
}

/// Check the password of a point of sale
///
/// The answer's `success` says whether it is right; its `password` is what later goes into `X-POS-Password`.
#[utoipa::path(tag = "Devices", operation_id = "verifyAuth", params(InInstance, InPointOfSale),
    request_body(content = gateway_bodies::VerifyAuth, description = "The password as it was typed."),
    responses((status = 200, description = "The verdict.", body = gateway_bodies::VerifiedAuth)))]
#[post("/password-check")]
pub(super) async fn verifyauth(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Read)?;
    let workplace = call.pos_id()?;
    let body = call.object(payload, Empty::Refused).await?;
    match body.get("password") {
        Some(password) if password.get().starts_with('"') => {}
        Some(_) => return Err(invalid("/password", "must be a string")),
        None => return Err(invalid("/password", "is missing")),
    }
    let parameters = body::with_member(body, "workplace", &workplace.into())?;
    ask(&call, &command::VERIFYAUTH, parameters).await
}

/// Neither answer may be kept: one changes something, the other holds a password.
async fn ask(call: &Call, spec: &'static Spec, parameters: Parameters) -> Result<HttpResponse, Problem> {
    let command = Command::known(spec, parameters);
    let asked = call.served()?.ask(command, call.caller().name(), call.deadline()).await;
    call.with_budget(spec.name, asked.map(|reply| reply::done(StatusCode::OK, reply)).map_err(Problem::from))
}

fn device_of(call: &Call) -> Result<String, Problem> {
    let device = call.segment("uuid");
    let is_id = (1..=LONGEST_DEVICE_ID).contains(&device.len())
        && device.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    if is_id {
        return Ok(device.to_owned());
    }
    Err(Problem::new(&table::INVALID_REQUEST)
        .detail("`uuid` in the path must be 1 to 64 letters, digits, `-`, `_`, `.` or `:`."))
}

fn invalid(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::new(&table::INVALID_REQUEST)
        .detail("The body has a fault. Nothing was sent.")
        .errors(vec![FieldError::new(pointer, detail)])
}
