//! The outermost layer: names a request, answers it by the fast path or by the router, completes its answer, and counts
//! and logs it once.

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

use super::request_id::{REQUEST_ID, RequestId};
use super::tracked_body::TrackedBody;
use super::{access_log, problem_details, representation, trace};
use crate::http::auth::request::{Admitted, Arrival, HeldBack};
use crate::http::connections::{Connection, RequestInProgress};
use crate::http::fast_path::{self, FastPath};
use crate::http::forwarding::{self, Told};
use crate::http::problem::Problem;
use crate::http::response::event_stream::EventStream;
use crate::http::state::AppState;

/// For the keys of an issuer: longer than a fetch may take.
const KEYS_PATIENCE: Duration = Duration::from_secs(6);

/// What is known of a request when it is answered.
struct Context<'a> {
    arrival: Instant,
    method: &'a Method,
    id: &'a RequestId,
    span: Option<&'a Span>,
    trace_id: Option<&'a str>,
    admitted: Option<Admitted>,
    in_progress: Option<RequestInProgress>,
    /// Where another replica answered.
    told: Option<Told>,
}

/// Handles a request. `HEAD` is routed as `GET`; the server leaves the body out.
///
/// A connection has room for this future for as long as it is open, also while it is idle or a stream of events. So what is
/// large is boxed, where a cached reply does not pass.
pub async fn handle(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<TrackedBody>, Error> {
    let arrival = Instant::now();
    let in_progress = request.conn_data::<Arc<Connection>>().map(Connection::request);
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    keys_renewed(&request, arrival).await;
    // First, since it needs nothing of what follows.
    let counted_from = request.extensions().get::<Arrival>().map_or(arrival, |arrival| arrival.0);
    if let Some((outcome, admitted)) = by_fast_path(&request, counted_from, &id).await {
        let answer = outcome.unwrap_or_else(|problem| {
            let mut answer = problem.render(problem_details::base(request.request()), Some(id.as_str()));
            access_log::note_problem(&mut answer, problem.entry());
            answer
        });
        hold_back(request.request()).await;
        let response = negotiated(&method, request.into_response(answer));
        let (span, trace_id, told) = (None, None, None);
        let context = Context { arrival, method: &method, id: &id, span, trace_id, admitted, in_progress, told };
        return Ok(finished(response, context));
    }
    request.extensions_mut().insert(Arrival(counted_from));
    request.extensions_mut().insert(id.clone());
    if method == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    let (span, trace_id) = trace::span_of(&request, &id, &method);
    let (response, told) = forwarding::layer::answered(request, next, &method).instrument(span.clone()).await?;
    // What another replica answered has passed all that.
    let response = if told.is_some() { response } else { negotiated(&method, problem_details::converted(response)) };
    let admitted = take_admitted(response.request());
    hold_back(response.request()).await;
    let (span, trace_id) = (Some(&span), trace_id.as_deref());
    Ok(finished(response, Context { arrival, method: &method, id: &id, span, trace_id, admitted, in_progress, told }))
}

/// Waits for the keys of an issuer, where the request's token names one that is not known: after a rotation the first token by a
/// new key is not to be refused.
async fn keys_renewed(request: &ServiceRequest, arrival: Instant) {
    let state = request.app_data::<Data<AppState>>();
    if let Some(keys) = state.and_then(|state| state.auth.keys_wanted(request.headers())) {
        Box::pin(keys.renewed(arrival + KEYS_PATIENCE)).await;
    }
}

async fn by_fast_path(request: &ServiceRequest, arrival: Instant, id: &RequestId) -> Option<fast_path::Outcome> {
    let fast_path = FastPath::of(request)?;
    if let Some(outcome) = fast_path.answer_fresh() {
        return Some(outcome);
    }
    let (span, _) = trace::span_of(request, id, request.method());
    let outcome = Box::pin(fast_path.answer(arrival)).instrument(span).await?;
    // Another replica may serve the instance by now.
    let is_elsewhere = |problem: &Problem| problem.entry().is_not_begun() && forwarding::layer::is_on(request);
    if outcome.0.as_ref().is_err_and(is_elsewhere) { None } else { Some(outcome) }
}

/// The answer in the form that the request accepts and under its preconditions.
fn negotiated(method: &Method, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let (response, refusal) = representation::completed(method, response);
    let Some(problem) = refusal else { return response };
    let (request, old) = response.into_parts();
    let mut new = problem_details::rendered(&problem, &request);
    // Fields that other layers add to every answer.
    let is_of_all = |name: &HeaderName| *name == VARY || name.as_str().starts_with("access-control-");
    for (name, value) in old.headers().iter().filter(|(name, _)| is_of_all(name)) {
        new.headers_mut().append(name.clone(), value.clone());
    }
    ServiceResponse::new(request, new)
}

/// Waits for as long as a refusal is to be held back.
async fn hold_back(request: &HttpRequest) {
    let held = request.extensions_mut().remove::<HeldBack>();
    if let Some(HeldBack(until)) = held {
        sleep_until(until).await;
    }
}

/// The caller that was stored with the request, and its permit.
fn take_admitted(request: &impl HttpMessage) -> Option<Admitted> {
    request.extensions_mut().remove()
}

/// Names, counts and logs an answer, and makes its body.
fn finished(mut response: ServiceResponse<BoxBody>, context: Context<'_>) -> ServiceResponse<TrackedBody> {
    if let Ok(id) = HeaderValue::from_str(context.id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    access_log::record(&response, &context.line());
    forwarding::entrance::prove(&mut response, context.admitted.as_ref().map(|admitted| admitted.caller.name()));
    let is_known = context.caller().is_some();
    if let (Some(Told { caller: Some(caller), .. }), Some(in_progress)) = (&context.told, &context.in_progress) {
        // One that may have no more connections keeps this one as it is.
        let _ = in_progress.connection().claim(caller);
    }
    let permit = context.admitted.and_then(|admitted| admitted.permit).filter(|_| !is_stream(response.headers()));
    let stream = EventStream::of(response.response_mut());
    let has_no_length = stream.is_some() || matches!(response.response().body().size(), BodySize::Stream);
    if has_no_length && response.request().version() < Version::HTTP_11 {
        // HTTP/1.0 has no chunks: the answer ends with its connection.
        let head = response.response_mut().head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    // Its client would send the next request on it while it is closed, and not know what became of that.
    if is_stopping(response.request()) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    if *context.method == Method::HEAD && has_no_length {
        // There is no length to tell, and a stream without an end must not run for a `HEAD`.
        return response.map_body(|_, _| TrackedBody::empty(context.in_progress));
    }
    response.map_body(|_, body| {
        TrackedBody::new(stream.map_or(body, MessageBody::boxed), is_known, permit, context.in_progress)
    })
}

fn is_stopping(request: &HttpRequest) -> bool {
    request.app_data::<Data<AppState>>().is_some_and(|state| state.bridge.is_draining())
}

impl Context<'_> {
    fn line(&self) -> access_log::Line<'_> {
        access_log::Line {
            method: self.method,
            request_id: self.id,
            trace_id: self.trace_id,
            caller: self.caller().unwrap_or("-"),
            replica: self.told.as_ref().map(|told| &*told.replica),
            took: self.arrival.elapsed(),
            span: self.span,
        }
    }

    fn caller(&self) -> Option<&str> {
        let told = || self.told.as_ref().and_then(|told| told.caller.as_deref());
        self.admitted.as_ref().map(|admitted| admitted.caller.name()).or_else(told)
    }
}

/// An event stream may last for days, so it gives its permit back at once: streams have a limit of their own.
fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|given| given.as_bytes().starts_with(b"text/event-stream"))
}
