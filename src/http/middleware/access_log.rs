//! One log line a request, and its count by route and status. A line never holds a query or a header field: both may hold
//! secrets. Of a path it holds what is known to be no secret: the name of an instance that is served, and ids.
//!
//! Nothing of a line is put together unless it is wanted, since most requests are cached reads, which cost less than a line.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::LOCATION;
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpResponse};
use tracing::{Level, Span};

use super::request_id::RequestId;
use crate::clock::whole_us;
use crate::http::client;
use crate::http::forwarding::entrance::Passed;
use crate::http::problem::Entry;
use crate::http::route_patterns::INSTANCES;
use crate::http::state::AppState;
use crate::telemetry::traces;

/// The longest integer of 64 bits, with its sign.
const LONGEST_ID: usize = 20;

/// The characters of a payment's id.
const PAYMENT_ID: usize = 36;

/// The code of a problem, in the extensions of its answer.
struct Code(&'static str);

/// What a line says besides route and status.
pub(super) struct Line<'a> {
    pub(super) method: &'a Method,
    pub(super) request_id: &'a RequestId,
    pub(super) trace_id: Option<&'a str>,
    pub(super) caller: &'a str,
    /// The replica that answered, where that is another one.
    pub(super) replica: Option<&'a str>,
    pub(super) took: Duration,
    pub(super) span: Option<&'a Span>,
}

/// Leaves the code of a problem with its answer, where lines are wanted.
pub(super) fn note_problem(answer: &mut HttpResponse, problem: &'static Entry) {
    if tracing::enabled!(Level::WARN) {
        answer.extensions_mut().insert(Code(problem.code));
    }
}

/// Counts an answer, ends its span, and logs it.
pub(super) fn record<B: MessageBody>(response: &ServiceResponse<B>, line: &Line<'_>) {
    let Some(state) = response.request().app_data::<Data<AppState>>() else { return };
    let status = response.status();
    let route = state.metrics.answered(response.request().path(), status.as_u16(), line.took);
    if let Some(span) = line.span.filter(|_| traces::are_wanted()) {
        traces::request_ended(span, line.method.as_str(), route, status.as_u16());
    }
    log(&Answer { response, state, line, route });
}

/// An answer, and what can be said of it.
struct Answer<'a, B> {
    response: &'a ServiceResponse<B>,
    state: &'a AppState,
    line: &'a Line<'a>,
    route: &'a str,
}

/// Probes and dashboards ask every second, so their lines are for the level `debug`.
fn log<B: MessageBody>(answer: &Answer<'_, B>) {
    let extensions = answer.response.request().extensions();
    let forwarded_by = extensions.get::<Passed>().map(Passed::from);
    let (route, status) = (answer.route, answer.response.status());
    let is_polled = matches!(route, "/livez" | "/readyz") || (route == "/v1/bridge" && status == StatusCode::OK);
    // The fields are looked for only where the line is wanted.
    macro_rules! answered {
        ($event:ident) => {
            tracing::$event!(
                method = answer.line.method.as_str(),
                route,
                status = status.as_u16(),
                code = answer.code(),
                instance = answer.instance(),
                pos_id = answer.pos_id(),
                payment = answer.payment(),
                caller = answer.line.caller,
                peer = %answer.peer(),
                forwarded_to = answer.line.replica,
                forwarded_by,
                duration_us = whole_us(answer.line.took),
                request_id = answer.line.request_id.as_str(),
                trace_id = answer.line.trace_id,
                "answered"
            )
        };
    }
    if is_polled {
        answered!(debug);
    } else if status.is_server_error() {
        answered!(warn);
    } else {
        answered!(info);
    }
}

impl<B> Answer<'_, B> {
    /// The id that a path has after an instance and the collection of this name.
    fn id_in(&self, collection: &str) -> Option<&str> {
        let below = self.response.request().path().strip_prefix(INSTANCES)?;
        let mut parts = below.split('/').skip(1);
        parts.next().filter(|part| *part == collection).and_then(|_| parts.next())
    }

    /// Known ones only: anything may stand in a path.
    fn instance(&self) -> Option<&str> {
        let below = self.response.request().path().strip_prefix(INSTANCES)?;
        let name = below.split('/').next()?;
        let is_known = self.state.bridge.instances().get(name).is_some() || self.state.is_served_elsewhere(name);
        is_known.then_some(name)
    }

    fn pos_id(&self) -> Option<&str> {
        self.id_in("points-of-sale").filter(|id| is_integer(id))
    }

    /// The payment that was asked about, or the one that was made, whose place the answer tells.
    fn payment(&self) -> Option<&str> {
        let told = || {
            let place = self.response.headers().get(LOCATION)?.to_str().ok()?;
            place.rsplit_once("/payments/").map(|(_, id)| id)
        };
        self.id_in("payments").or_else(told).filter(|id| is_payment_id(id))
    }

    fn code(&self) -> Option<&'static str> {
        self.response.response().extensions().get::<Code>().map(|code| code.0)
    }

    fn peer(&self) -> IpAddr {
        let request = self.response.request();
        let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        client::address(peer, request.headers(), &self.state.config.trusted_proxies)
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.len() <= LONGEST_ID && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_payment_id(text: &str) -> bool {
    text.len() == PAYMENT_ID && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
