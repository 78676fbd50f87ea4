//! Which instances a caller may use.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, get};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::auth::Caller;
use crate::http::problem::{Problem, table};
use crate::http::request::accept;
use crate::http::state::AppState;

/// The instances a token may use. In the document it is not named like its only member: generators for Python trip on that.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceList, description = "The instances a token may use.")]
pub struct Instances {
    /// Their names, in order.
    #[schema(example = json!(["demo"]))]
    pub instances: Vec<String>,
}

/// Instances this token may use
///
/// The names that stand for `{instance}` in the other paths.
#[utoipa::path(tag = "Operations", operation_id = "listInstances",
    responses((status = 200, description = "The instances.", body = Instances)))]
#[get("/v1/instances")]
pub(super) async fn list_instances(
    caller: Caller,
    request: HttpRequest,
    shared: Data<AppState>,
) -> Result<HttpResponse, Problem> {
    if !accept::accepts(request.headers(), "application/json") {
        return Err(Problem::new(&table::NOT_ACCEPTABLE));
    }
    let instances = shared.instance_names().into_iter().filter(|instance| caller.may_reach(instance)).collect();
    Ok(HttpResponse::Ok()
        .insert_header(("Cache-Control", "private, no-cache"))
        .insert_header(("Vary", "Authorization"))
        .json(Instances { instances }))
}
