//! What was sold: the gateway's own list, newest first.

use actix_web::{HttpResponse, get};
use utoipa::IntoParams;

use super::parameters::{InInstance, InPointOfSale, PosPassword};
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::{Problem, table};
use crate::http::request::integer;
use crate::http::views::gateway_bodies;
use crate::protocol::{Parameters, command};

/// How much of the list is wanted.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Limit {
    /// At most this many, newest first. Absent: all of them.
    #[param(nullable = false, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 50)]
    pub limit: Option<i64>,
}

fn limit(call: &Call) -> Result<Option<i64>, Problem> {
    let Some(text) = call.query("limit")? else { return Ok(None) };
    match integer::of_digits(&text) {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(Problem::new(&table::INVALID_REQUEST).detail("`limit` in the query must be a whole number above 0.")),
    }
}

/// Transactions of a point of sale
///
/// Every product booked there, newest first. A returned deposit has a negative amount of money.
#[utoipa::path(tag = "Payments", operation_id = "listTransactions",
    params(InInstance, InPointOfSale, Limit, PosPassword),
    responses((status = 200, description = "The transactions.", body = gateway_bodies::ListTransactions)))]
#[get("/transactions")]
pub(super) async fn listtransactions(call: Call) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Read)?;
    let mut parameters = call.for_point_of_sale(Parameters::default())?;
    if let Some(limit) = limit(&call)? {
        parameters = parameters.with("Limit", &limit);
    }
    call.read(&command::LISTTRANSACTIONS, parameters).await
}
