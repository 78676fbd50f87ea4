//! The edge: what every request and every answer passes, whatever happens inside.
//!
//! [`observe`] is outermost: it names the request, logs it once, and makes sure that no error leaves in any form but
//! [`Problem`]. [`complete`] is innermost and writes problems out where the request's id is known, so that CORS and
//! compression see the answer as it will be. A log line never holds a query or a header: both may hold secrets.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody, None as NoBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};
use uuid::Builder;

use super::auth::RequestPermit;
use super::call::{Admitted, Arrival, HeldBack};
use super::connections::{Connection, Request as UnderWay};
use super::express;
use super::problem::{Entry, MEDIA_TYPE, Problem, table};
use super::representation;
use super::server::Shared;
use super::stream::EventStream;
use crate::clock;
use crate::telemetry::trace_context::TraceParent;
use crate::telemetry::traces;

/// The header that names a request, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header that names the trace which a request belongs to.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest request id taken from a caller: anything longer is no id.
const LONGEST_ID: usize = 128;

/// How much of an answer is given to the server at once: enough that larger pieces are no quicker.
const PIECE: usize = 64 * 1024;

/// The same for callers without a token, who may be many and take nothing.
const STRANGERS_PIECE: usize = 8 * 1024;

/// A request's name in the log and in problems.
#[derive(Debug, Clone)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's own, if it is a sane one, else a fresh UUID, which sorts by time.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        Self(given.filter(|id| is_sane(id)).map_or_else(fresh_id, str::to_owned))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A UUID of version 7. It only has to be unlike others, so its random part costs no system call.
fn fresh_id() -> String {
    let millis = clock::whole_ms(clock::since_1970());
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

/// Only what can break no log line and no header.
fn is_sane(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte))
}

/// The outermost layer. `HEAD` is answered as `GET` is; the server leaves the body out.
pub async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<Held>, Error> {
    let arrival = Instant::now();
    let connection = request.conn_data::<Arc<Connection>>();
    let under_way = connection.map(Connection::request);
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    // Before anything that only the long way needs.
    if let Some(outcome) = express::at_hand(&request) {
        let (answer, admitted) = match outcome {
            Ok((answer, admitted)) => (answer, Some(admitted)),
            Err(problem) => (problem.render(base(request.request()), Some(id.as_str())), noted(&request)),
        };
        hold_back(request.request()).await;
        let response = represented(&method, request.into_response(answer));
        return Ok(told(&method, response, (&id, None), (None, admitted, under_way), arrival));
    }
    request.extensions_mut().insert(Arrival(arrival));
    request.extensions_mut().insert(id.clone());
    if method == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    let (span, trace) = traced(&request, &id, &method);
    let response = next.call(request).instrument(span.clone()).await?;
    let response = represented(&method, completed(response.map_into_boxed_body()));
    let admitted = noted(response.request());
    hold_back(response.request()).await;
    Ok(told(&method, response, (&id, trace.as_deref()), (Some(&span), admitted, under_way), arrival))
}

/// The answer in the form that the request accepts and under its preconditions.
fn represented(method: &Method, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let (response, refusal) = representation::completed(method, response);
    let Some(problem) = refusal else { return response };
    let (request, old) = response.into_parts();
    let mut new = rendered(&problem, &request);
    // What other layers say of every answer.
    let is_said_of_all = |name: &HeaderName| *name == VARY || name.as_str().starts_with("access-control-");
    for (name, value) in old.headers().iter().filter(|(name, _)| is_said_of_all(name)) {
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

/// The caller that was noted on the way, and its place.
fn noted(request: &impl HttpMessage) -> Option<Admitted> {
    request.extensions_mut().remove()
}

/// Names, counts and logs an answer.
fn told(
    method: &Method,
    mut response: ServiceResponse<BoxBody>,
    (id, trace): (&RequestId, Option<&str>),
    (span, admitted, under_way): (Option<&Span>, Option<Admitted>, Option<UnderWay>),
    arrival: Instant,
) -> ServiceResponse<Held> {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let took = arrival.elapsed();
    if let Some(shared) = response.request().app_data::<Data<Shared>>() {
        let route = shared.tally.answered(response.request().path(), response.status().as_u16(), took);
        if let Some(span) = span.filter(|_| traces::are_wanted()) {
            traces::request_ended(span, method.as_str(), route, response.status().as_u16());
        }
        let caller = admitted.as_ref().map_or("-", |admitted| admitted.caller.name());
        log(method, route, response.status(), (id, trace, caller), took);
    }
    let is_known = admitted.is_some();
    let permit = admitted.and_then(|admitted| admitted.permit).filter(|_| !is_stream(response.headers()));
    let stream = EventStream::of(response.response_mut());
    let is_endless = stream.is_some() || matches!(response.response().body().size(), BodySize::Stream);
    if is_endless && response.request().version() < Version::HTTP_11 {
        // It knows no chunks: its answer ends with its connection.
        let head = response.response_mut().head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    if *method == Method::HEAD && is_endless {
        // A stream has no length to tell, and one without an end must not be run for nobody.
        return response.map_body(|_, _| Held {
            body: NoBody::new().boxed(),
            rest: None,
            is_known,
            _permit: None,
            _under_way: under_way,
        });
    }
    response.map_body(|_, body| Held {
        body: stream.map_or(body, MessageBody::boxed),
        rest: None,
        is_known,
        _permit: permit,
        _under_way: under_way,
    })
}

/// An event stream may last for days, and so gives its place of the caller's allowance back at once: the streams have a
/// bound of their own.
fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|given| given.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer's body, and what lasts until it has ended: its place, and its connection's having something to do. It is given
/// out in pieces: the server below copies whole what it is given, and keeps it until the caller has taken it.
#[derive(Debug)]
pub struct Held {
    body: BoxBody,
    /// What of it is still to be given out; in a place of its own, since most answers are one piece.
    rest: Option<Box<Bytes>>,
    /// Whether much is given out at once.
    is_known: bool,
    _permit: Option<RequestPermit>,
    _under_way: Option<UnderWay>,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = if self.is_known { PIECE } else { STRANGERS_PIECE };
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(chunk)) if chunk.len() > piece => Box::new(chunk),
                other => return Poll::Ready(other),
            },
        };
        let first = rest.split_to(piece.min(rest.len()));
        self.rest = Some(rest).filter(|rest| !rest.is_empty());
        Poll::Ready(Some(Ok(first)))
    }
}

/// The span of a request, and the id of the trace that it belongs to, if it does.
fn traced(request: &ServiceRequest, id: &RequestId, method: &Method) -> (Span, Option<String>) {
    let header = request.headers().get(TRACE_PARENT).and_then(|header| header.to_str().ok());
    let parent = header.and_then(TraceParent::parse);
    if traces::are_wanted() {
        let span = traces::request(id.as_str(), method.as_str(), parent);
        let trace = traces::id_of(&span);
        return (span, trace);
    }
    let trace = parent.map(|parent| parent.trace_id.to_owned());
    (tracing::info_span!("request", request_id = id.as_str()), trace)
}

/// The innermost layer: writes problems out, before anything else looks at the answer.
pub async fn complete(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    Ok(completed(next.call(request).await?.map_into_boxed_body()))
}

/// Turns every error answer into a problem document, with the request's id and the public address in it.
fn completed(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let named = response.headers().get(CONTENT_TYPE).is_some_and(|given| given == MEDIA_TYPE);
    let carried = response.response().error().and_then(|error| error.as_error::<Problem>()).cloned();
    let problem = match carried {
        Some(problem) => problem,
        None if named || !(status.is_client_error() || status.is_server_error()) => return response,
        None => Problem::new(entry_of(status)),
    };
    let (request, old) = response.into_parts();
    let mut new = rendered(&problem, &request);
    for (name, value) in old.headers() {
        let describes_old_body = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING].contains(name);
        if !describes_old_body && !new.headers().contains_key(name) {
            new.headers_mut().append(name.clone(), value.clone());
        }
    }
    ServiceResponse::new(request, new)
}

fn rendered(problem: &Problem, request: &HttpRequest) -> HttpResponse {
    let extensions = request.extensions();
    problem.render(base(request), extensions.get::<RequestId>().map(RequestId::as_str))
}

fn base(request: &HttpRequest) -> &str {
    let shared = request.app_data::<Data<Shared>>();
    shared.and_then(|shared| shared.config.public_url.as_deref()).unwrap_or_default()
}

/// The row for an error that something other than a route of ours made.
fn entry_of(status: StatusCode) -> &'static Entry {
    match status.as_u16() {
        401 => &table::UNAUTHENTICATED,
        403 => &table::FORBIDDEN,
        404 => &table::NOT_FOUND,
        405 => &table::METHOD_NOT_ALLOWED,
        406 => &table::NOT_ACCEPTABLE,
        413 => &table::TOO_LARGE,
        415 => &table::UNSUPPORTED_MEDIA_TYPE,
        400..=499 => &table::INVALID_REQUEST,
        _ => &table::INTERNAL_ERROR,
    }
}

/// One line a request. Probes and those who watch come every second and say nothing new, so they are for those who look
/// closely.
fn log(
    method: &Method,
    route: &str,
    status: StatusCode,
    (id, trace_id, caller): (&RequestId, Option<&str>, &str),
    took: Duration,
) {
    let is_fault = status.is_server_error();
    let (method, status, request_id) = (method.as_str(), status.as_u16(), id.as_str());
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let watches = matches!(route, "/livez" | "/readyz") || (route == "/v1/bridge" && status == 200);
    if watches {
        tracing::debug!(method, route, status, duration_us, request_id, trace_id, caller, "answered");
    } else if is_fault {
        tracing::warn!(method, route, status, duration_us, request_id, trace_id, caller, "answered");
    } else {
        tracing::info!(method, route, status, duration_us, request_id, trace_id, caller, "answered");
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id_for(given: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(given).unwrap());
        RequestId::of(&headers).0
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_is_replaced() {
        for id in ["a", "req-1_2.3:4/5", "0190b5f2-7a1c-7c3e-8000-000000000000", &"x".repeat(128)] {
            assert_eq!(id_for(id), id);
        }
        for id in ["", "a b", "a\"b", "a\tb", "{}", "<script>", &"x".repeat(129)] {
            let made = id_for(id);
            assert_eq!(Uuid::parse_str(&made).unwrap().get_version_num(), 7, "{id}");
        }
    }
}
