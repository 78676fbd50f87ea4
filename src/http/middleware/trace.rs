//! The span of a request, and the trace it belongs to.

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::HeaderName;
use tracing::Span;

use super::request_id::RequestId;
use crate::telemetry::traces;

/// The header that names the trace which a request belongs to.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The span of a request, and the id of the trace that it belongs to, if it does.
pub(super) fn span_of(request: &ServiceRequest, id: &RequestId, method: &Method) -> (Span, Option<String>) {
    let header = request.headers().get(TRACE_PARENT).and_then(|header| header.to_str().ok());
    let parent = header.and_then(traces::parent_of);
    if traces::are_wanted() {
        let span = traces::request(id.as_str(), method.as_str(), parent);
        let trace = traces::id_of(&span);
        return (span, trace);
    }
    let trace = parent.map(|parent| parent.trace_id().to_string());
    (tracing::info_span!("request", request_id = id.as_str()), trace)
}
