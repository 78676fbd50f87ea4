//! Whether a request is passed on, and how its answer becomes one of the application. Asked by the outermost middleware.
//!
//! An answer of the owner has passed all of the owner's layers, so it passes none here: nothing is compressed or given fields
//! twice. What this replica itself says instead passes the inner layers as a route's answer would.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};
use tokio::time::Instant;

use super::body::{self, Body};
use super::client::Peers;
use super::concern::{Concern, Kind};
use super::entrance::Passed;
use super::pass::{self, Call, Told, Verdict};
use super::state::Forwarding;
use crate::http::auth::request::{self, Arrival};
use crate::http::connections::Connection;
use crate::http::middleware::problem_details::Instead;
use crate::http::middleware::request_id::RequestId;
use crate::http::native;
use crate::http::problem::is_not_begun;
use crate::http::routes::events;
use crate::http::state::AppState;
use crate::http::upgrade;
use crate::telemetry::traces;

/// The reason in a stream's `overloaded` where nobody serves its instance.
const NO_OWNER: &str = "no-owner";

/// As whose the connections of tills count that are passed on. No caller has this name.
const TILLS: &str = "(tills of other replicas)";

/// Whether requests may be passed on.
pub(crate) fn is_on(request: &ServiceRequest) -> bool {
    request.app_data::<Data<AppState>>().is_some_and(|state| state.forwarding.is_some())
}

/// The answer to a request, by the router or by the replica that owns its instance.
pub(crate) async fn answered<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    method: &Method,
) -> Result<(ServiceResponse<BoxBody>, Option<Told>), Error> {
    let found = Concerned::of(&request, method);
    match found {
        None => Ok((next.call(request).await?.map_into_boxed_body(), None)),
        // Boxed, so that other requests do not carry the room for it.
        Some(concerned) => Box::pin(concerned.answered(request, next, method)).await,
    }
}

/// A request that concerns an instance, where there are several replicas.
struct Concerned {
    state: Data<AppState>,
    forwarding: Forwarding,
    peers: Rc<Peers>,
    instance: Arc<str>,
    kind: Kind,
    is_served: bool,
}

impl Concerned {
    fn of(request: &ServiceRequest, method: &Method) -> Option<Self> {
        let state = request.app_data::<Data<AppState>>()?;
        let forwarding = state.forwarding.as_ref()?;
        let peers = request.app_data::<Rc<Peers>>()?;
        if *method == Method::OPTIONS {
            return None;
        }
        let (uri, is_upgrade) = (request.uri(), upgrade::is_asked(request.headers()));
        let target = (uri.path(), uri.query().unwrap_or_default());
        let concern = Concern::of(method, target, is_upgrade, &state.config.native.shards)?;
        let kind = concern.kind();
        let instances = state.bridge.instances();
        let (instance, is_served) = match concern {
            Concern::Instance(name, _) => (Arc::from(name.as_str()), instances.get(&name).is_some()),
            // What it says on the open connection is the router's.
            Concern::Native(slug) if instances.get_by_slug(&slug).is_some() => return None,
            Concern::Native(slug) => (forwarding.directory().by_slug(&slug)?, false),
        };
        let (state, forwarding, peers) = (state.clone(), forwarding.clone(), Rc::clone(peers));
        Some(Self { state, forwarding, peers, instance, kind, is_served })
    }

    async fn answered<B: MessageBody + 'static>(
        self,
        mut request: ServiceRequest,
        next: Next<B>,
        method: &Method,
    ) -> Result<(ServiceResponse<BoxBody>, Option<Told>), Error> {
        let arrival = request.extensions().get::<Arrival>().map_or_else(Instant::now, |arrival| arrival.0);
        let deadline = arrival + self.state.config.deadline;
        let upgraded = if self.kind == Kind::Native { Some(request.take_payload()) } else { None };
        // A connection is not read before its caller is known: neither is a body, nor the end of a caller that goes away.
        let is_early = !self.is_served || body::is_short(&request);
        let is_readable = is_early && request::authenticate_early(request.request(), &self.state);
        let mut body = Some(Body::of(&mut request, is_readable, deadline).await);
        if self.is_served {
            request.set_payload(to_payload(&mut body));
            let answer = next.call(request).await?.map_into_boxed_body();
            if body.is_none() || !is_not_begun(answer.response()) {
                return Ok((answer, None));
            }
            let verdict = self.call(answer.request(), method, (deadline, None), true).pass_on(&mut body).await;
            return Ok(match verdict {
                Verdict::Answered(passed, told) => (told_of(answer, passed), Some(told)),
                _ => (answer, None),
            });
        }
        let (verdict, upgraded) = {
            let call = self.call(request.request(), method, (deadline, upgraded), false);
            (call.pass_on(&mut body).await, call.upgraded.take())
        };
        let instead = match verdict {
            Verdict::Answered(answer, told) => {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    upgraded_here(request.request());
                }
                return Ok((request.into_response(answer), Some(told)));
            }
            Verdict::Route => None,
            Verdict::Refused(problem) => Some(HttpResponse::from_error(problem)),
            Verdict::Unowned => Some(self.unowned(&request, upgraded.is_some())),
        };
        match instead {
            Some(answer) => {
                request.extensions_mut().insert(Instead(answer));
            }
            None => request.set_payload(upgraded.unwrap_or_else(|| to_payload(&mut body))),
        }
        Ok((next.call(request).await?.map_into_boxed_body(), None))
    }

    fn call<'a>(
        &'a self,
        request: &'a HttpRequest,
        method: &'a Method,
        (deadline, upgraded): (Instant, Option<actix_web::dev::Payload>),
        is_given_up: bool,
    ) -> Call<'a> {
        Call {
            forwarding: &self.forwarding,
            peers: Rc::clone(&self.peers),
            request,
            method,
            instance: &self.instance,
            kind: self.kind,
            address: request::address(request, &self.state),
            request_id: request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            trace: traces::header_of_current(),
            deadline,
            came: request.extensions().get::<Passed>().map(Passed::came),
            is_given_up,
            is_read_here: false,
            upgraded: Cell::new(upgraded),
            is_served_here: Box::new(|| self.state.bridge.instances().get(&self.instance).is_some()),
            may_act_here: Box::new(|| {
                let bridge = &self.state.bridge;
                let served = bridge.instances().get(&self.instance).cloned();
                !bridge.is_draining() && served.is_some_and(|served| served.tenure().may_act())
            }),
        }
    }

    /// What is said where nobody serves the instance.
    fn unowned(&self, request: &ServiceRequest, is_upgrade: bool) -> HttpResponse {
        if request.extensions().get::<Passed>().is_some() {
            // Whoever passed it on says it.
            return HttpResponse::from_error(pass::unowned());
        }
        match self.kind {
            Kind::Events => events::come_back(NO_OWNER),
            Kind::Native if is_upgrade => native::come_back(request.request()).unwrap_or_else(HttpResponse::from_error),
            _ => HttpResponse::from_error(pass::unowned()),
        }
    }
}

/// The connection speaks the gateway's protocol from here on. Who it is, and how many such connections there may be, is for the
/// owner to say; here they are read like those of a known caller.
fn upgraded_here(request: &HttpRequest) {
    if let Some(connection) = request.conn_data::<Arc<Connection>>() {
        connection.upgrade();
        // Where there may be no more of them, it is evicted before others.
        let _ = connection.claim(TILLS);
    }
}

/// The body as the router reads it, and the same again in its place, where there can be one.
fn to_payload(body: &mut Option<Body>) -> actix_web::dev::Payload {
    let copy = body.as_ref().and_then(Body::copy);
    std::mem::replace(body, copy).map_or(actix_web::dev::Payload::None, Body::into_payload)
}

fn told_of(old: ServiceResponse<BoxBody>, answer: HttpResponse) -> ServiceResponse<BoxBody> {
    let (request, _) = old.into_parts();
    ServiceResponse::new(request, answer)
}
