//! Probes: whether the process answers, and whether it should be sent requests. They name no instance.
//!
//! A gateway that is down does not make the bridge unready: old copies and the answers to repeated payments can still
//! be had, and taking every replica out at once would end even those.
//!
//! Of several replicas each is ready once it knows where to pass requests on, whatever it owns itself, and stays so while the
//! database is away.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING};
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};

use crate::http::problem::{Problem, table};
use crate::http::request::params;
use crate::http::state::AppState;

/// `Retry-After` of a probe: as often as probes usually ask.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Adds the probes.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(livez).service(readyz)
}

#[get("/livez")]
async fn livez() -> HttpResponse {
    well("alive")
}

#[get("/readyz")]
async fn readyz(request: HttpRequest, shared: Data<AppState>) -> Result<HttpResponse, Problem> {
    let gateway_required = match params::query(&request, "require")?.as_deref() {
        None => false,
        Some("gateway") => true,
        Some(_) => return Err(Problem::new(&table::INVALID_REQUEST).detail("`require` can only be `gateway`.")),
    };
    if shared.bridge.is_draining() {
        return Err(Problem::new(&table::SHUTTING_DOWN).retry_after(PROBE_AGAIN));
    }
    let forwarding = shared.forwarding.as_ref();
    if forwarding.is_some_and(|forwarding| !forwarding.directory().is_read()) {
        let unready = Problem::new(&table::SHUTTING_DOWN).retry_after(PROBE_AGAIN);
        return Err(unready.detail("Which replica owns which instance was not read yet."));
    }
    if gateway_required {
        let unready = || Problem::new(&table::GATEWAY_UNAVAILABLE).retry_after(PROBE_AGAIN);
        let owns_nothing = forwarding.is_some() && shared.bridge.instances().is_empty();
        if !owns_nothing && !shared.bridge.has_gateway() {
            return Err(unready());
        }
        if shared.bridge.is_denied() {
            return Err(unready().detail("The gateway refuses the key or the licence of an instance."));
        }
    }
    Ok(well("ready"))
}

fn well(status: &'static str) -> HttpResponse {
    // Not worth compressing.
    let plain = (CONTENT_ENCODING, "identity");
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(plain)
        .json(serde_json::json!({ "status": status }))
}
