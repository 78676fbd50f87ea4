//! Metrics for Prometheus. They name instances and callers, so they want the scope `operate` at every instance, or a
//! listener that only the operator reaches.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, get};

use crate::http::auth::{Caller, Scope};
use crate::http::metrics;
use crate::http::problem::{Problem, table};
use crate::http::state::AppState;
use crate::telemetry::exposition::MEDIA_TYPE;

/// Adds the metrics for callers with a token.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(guarded)
}

#[get("/metrics")]
async fn guarded(caller: Caller, shared: Data<AppState>) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Operate)?;
    // They tell of every instance and every caller.
    if !caller.may_reach_all(shared.bridge.names().iter().map(String::as_str)) {
        return Err(Problem::new(&table::FORBIDDEN).detail("Metrics want a token that may use every instance."));
    }
    Ok(answer(&shared).await)
}

/// The metrics for whoever reaches the operator's own listener.
#[get("/metrics")]
pub(crate) async fn open(shared: Data<AppState>) -> HttpResponse {
    answer(&shared).await
}

async fn answer(shared: &AppState) -> HttpResponse {
    let text = metrics::text(shared).await;
    HttpResponse::Ok().content_type(MEDIA_TYPE).insert_header((CACHE_CONTROL, "no-store")).body(text)
}
