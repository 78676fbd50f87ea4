//! One log line a request, and its count by route and status. A line never holds a query or a header field: both may hold
//! secrets.

use std::time::Duration;

use actix_web::dev::ServiceResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use tracing::Span;

use super::request_id::RequestId;
use crate::http::state::AppState;
use crate::telemetry::traces;

/// What a line says besides route and status.
pub(super) struct Line<'a> {
    pub(super) method: &'a Method,
    pub(super) request_id: &'a RequestId,
    pub(super) trace_id: Option<&'a str>,
    pub(super) caller: &'a str,
    pub(super) took: Duration,
    pub(super) span: Option<&'a Span>,
}

/// Counts an answer, ends its span, and logs it.
pub(super) fn record<B>(response: &ServiceResponse<B>, line: &Line<'_>) {
    let Some(state) = response.request().app_data::<Data<AppState>>() else { return };
    let status = response.status();
    let route = state.metrics.answered(response.request().path(), status.as_u16(), line.took);
    if let Some(span) = line.span.filter(|_| traces::are_wanted()) {
        traces::request_ended(span, line.method.as_str(), route, status.as_u16());
    }
    log(line, route, status);
}

/// Probes and dashboards ask every second, so their lines are for the level `debug`.
fn log(line: &Line<'_>, route: &str, status: StatusCode) {
    let Line { trace_id, caller, .. } = line;
    let (method, request_id) = (line.method.as_str(), line.request_id.as_str());
    let duration_us = u64::try_from(line.took.as_micros()).unwrap_or(u64::MAX);
    let is_polled = matches!(route, "/livez" | "/readyz") || (route == "/v1/bridge" && status == StatusCode::OK);
    let (is_fault, status) = (status.is_server_error(), status.as_u16());
    if is_polled {
        tracing::debug!(method, route, status, duration_us, request_id, trace_id, caller, "answered");
    } else if is_fault {
        tracing::warn!(method, route, status, duration_us, request_id, trace_id, caller, "answered");
    } else {
        tracing::info!(method, route, status, duration_us, request_id, trace_id, caller, "answered");
    }
}
