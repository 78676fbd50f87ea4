//! What an instance sells and is: reads, each of which is one command of the gateway.

use actix_web::{HttpResponse, get};

use super::parameters::{InInstance, InPointOfSale, PosPassword};
use super::register::Register;
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::Problem;
use crate::http::views::gateway_bodies;
use crate::protocol::{Parameters, Spec, command};

pub(super) fn of_instance(to: &mut impl Register) {
    to.route(getconfig).route(getdeposit).route(getlicense).route(listpos).route(version).route(getstatus);
}

pub(super) fn of_point_of_sale(to: &mut impl Register) {
    to.route(listpm).route(listproducts);
}

async fn read(call: &Call, spec: &'static Spec) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Read)?;
    call.read(spec, Parameters::default()).await
}

async fn read_of_point_of_sale(call: &Call, spec: &'static Spec) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Read)?;
    let parameters = call.for_point_of_sale(Parameters::default())?;
    call.read(spec, parameters).await
}

/// Configuration of the instance
///
/// The key and value configuration that the instance's administrators have set, such as the longest ticket.
#[utoipa::path(tag = "Catalogue", operation_id = "getConfig", params(InInstance),
    responses((status = 200, description = "The configuration.", body = gateway_bodies::GetConfig)))]
#[get("/config")]
pub(super) async fn getconfig(call: Call) -> Result<HttpResponse, Problem> {
    read(&call, &command::GETCONFIG).await
}

/// Price of a deposit
///
/// What is charged for a cup or a bottle, and given back with it.
#[utoipa::path(tag = "Catalogue", operation_id = "getDeposit", params(InInstance),
    responses((status = 200, description = "The deposit.", body = gateway_bodies::GetDeposit)))]
#[get("/deposit")]
pub(super) async fn getdeposit(call: Call) -> Result<HttpResponse, Problem> {
    read(&call, &command::GETDEPOSIT).await
}

/// Licence of the instance
///
/// The ConcertPOS licence and its limits. The gateway limits this command heavily; the bridge asks seldom.
#[utoipa::path(tag = "Catalogue", operation_id = "getLicense", params(InInstance),
    responses((status = 200, description = "The licence.", body = gateway_bodies::GetLicense)))]
#[get("/license")]
pub(super) async fn getlicense(call: Call) -> Result<HttpResponse, Problem> {
    read(&call, &command::GETLICENSE).await
}

/// Points of sale
///
/// Every place of the festival where something is sold.
#[utoipa::path(tag = "Catalogue", operation_id = "listPos", params(InInstance),
    responses((status = 200, description = "The points of sale.", body = gateway_bodies::ListPos)))]
#[get("/points-of-sale")]
pub(super) async fn listpos(call: Call) -> Result<HttpResponse, Problem> {
    read(&call, &command::LISTPOS).await
}

/// Payment methods of a point of sale
///
/// How one can pay there, such as in cash or by card.
#[utoipa::path(tag = "Catalogue", operation_id = "listPm", params(InInstance, InPointOfSale, PosPassword),
    responses((status = 200, description = "The payment methods.", body = gateway_bodies::ListPm)))]
#[get("/payment-methods")]
pub(super) async fn listpm(call: Call) -> Result<HttpResponse, Problem> {
    read_of_point_of_sale(&call, &command::LISTPM).await
}

/// Products of a point of sale
///
/// What is sold there, with prices.
#[utoipa::path(tag = "Catalogue", operation_id = "listProducts", params(InInstance, InPointOfSale, PosPassword),
    responses((status = 200, description = "The products.", body = gateway_bodies::ListProducts)))]
#[get("/products")]
pub(super) async fn listproducts(call: Call) -> Result<HttpResponse, Problem> {
    read_of_point_of_sale(&call, &command::LISTPRODUCTS).await
}

/// Version of the gateway
///
/// The version of ConcertPOS at the other end.
#[utoipa::path(tag = "Catalogue", operation_id = "getVersion", params(InInstance),
    responses((status = 200, description = "The version.", body = gateway_bodies::Version)))]
#[get("/version")]
pub(super) async fn version(call: Call) -> Result<HttpResponse, Problem> {
    read(&call, &command::VERSION).await
}

/// Status of ConcertPOS
///
/// The vendor's status page in one sentence.
#[utoipa::path(tag = "Catalogue", operation_id = "getStatus", params(InInstance),
    responses((status = 200, description = "The status.", body = gateway_bodies::GetStatus)))]
#[get("/status")]
pub(super) async fn getstatus(call: Call) -> Result<HttpResponse, Problem> {
    read(&call, &command::GETSTATUS).await
}
