//! The entrance of the cluster's own listener. Nothing passes it without a proof of the secret, which is looked at before
//! anything of a body is read; what passes is answered by the same application as a caller's own request.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::HeaderValue;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpResponse};
use tokio::time::Instant;

use super::proof::{self, FIELD, Refusal, Said, Verified};
use super::state::{Forwarding, GREETING};
use crate::clock::unix_ms;
use crate::http::auth::request::Arrival;
use crate::http::problem::is_not_begun;
use crate::http::state::AppState;

/// A request that another replica passed on.
#[derive(Debug)]
pub(crate) struct Passed(Verified);

impl Passed {
    /// The epoch that it was sent for, and how often it was passed on.
    pub(super) fn came(&self) -> (i64, u8) {
        (self.0.ticket.epoch, self.0.ticket.hops)
    }

    /// The replica that passed it on.
    pub(crate) fn from(&self) -> &str {
        &self.0.ticket.from
    }
}

/// The outermost layer of the cluster's listener.
pub async fn enter<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let state = request.app_data::<Data<AppState>>().cloned();
    let Some((state, forwarding)) = state.and_then(|state| Some((state.clone(), state.forwarding.clone()?))) else {
        return Ok(closed(request, HttpResponse::NotFound().finish()));
    };
    let passed = match opened(&request, &forwarding) {
        Ok(verified) => Passed(verified),
        Err(refusal) => {
            forwarding.metrics().refused.inc();
            tell(&request, &forwarding, refusal);
            return Ok(closed(request, HttpResponse::Forbidden().finish()));
        }
    };
    if request.path() == GREETING {
        let mut answer = HttpResponse::NoContent().finish();
        seal(&mut answer, &forwarding, &passed, None);
        return Ok(request.into_response(answer).map_into_right_body());
    }
    forwarding.metrics().taken.inc();
    let ticket = &passed.0.ticket;
    let spent = state.config.deadline.saturating_sub(Duration::from_millis(ticket.left_ms));
    let now = Instant::now();
    let (arrival, address) = (now.checked_sub(spent).unwrap_or(now), SocketAddr::new(ticket.address, 0));
    let head = request.head_mut();
    head.peer_addr = Some(address);
    head.headers.remove(FIELD);
    request.extensions_mut().insert(Arrival(arrival));
    request.extensions_mut().insert(passed);
    Ok(next.call(request).await?.map_into_left_body())
}

fn opened(request: &ServiceRequest, forwarding: &Forwarding) -> Result<Verified, Refusal> {
    let mut fields = request.headers().get_all(FIELD);
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().ok(),
        _ => None,
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = (request.method().as_str(), target);
    proof::open(forwarding.key(), target, field, (forwarding.advertise(), unix_ms()))
}

/// An answer on a connection that takes nothing more.
fn closed<B>(request: ServiceRequest, mut answer: HttpResponse) -> ServiceResponse<EitherBody<B>> {
    answer.head_mut().set_connection_type(ConnectionType::Close);
    request.into_response(answer).map_into_right_body()
}

fn tell(request: &ServiceRequest, forwarding: &Forwarding, refusal: Refusal) {
    if forwarding.may_warn() {
        let address = request.peer_addr().map(|address| tracing::field::display(address.ip()));
        let clock_difference_ms = if let Refusal::Clock(difference) = refusal { Some(difference) } else { None };
        let reason = refusal.reason();
        tracing::warn!(address, clock_difference_ms, reason, "refused a request on cluster.listen");
    }
}

/// Proves an answer to a request that another replica passed on, and names its caller.
pub(crate) fn prove<B>(answer: &mut ServiceResponse<B>, caller: Option<&str>) {
    let request = answer.request().clone();
    let extensions = request.extensions();
    let state = request.app_data::<Data<AppState>>();
    let forwarding = state.and_then(|state| state.forwarding.as_ref());
    if let (Some(passed), Some(forwarding)) = (extensions.get::<Passed>(), forwarding) {
        seal(answer.response_mut(), forwarding, passed, caller);
    }
}

fn seal<B>(answer: &mut HttpResponse<B>, forwarding: &Forwarding, passed: &Passed, caller: Option<&str>) {
    let said = Said { is_served: !is_not_begun(answer), caller: caller.map(str::to_owned) };
    let text = said.seal(forwarding.key(), &passed.0, answer.status().as_u16());
    if let Ok(text) = HeaderValue::try_from(text) {
        answer.headers_mut().insert(FIELD, text);
    }
}
