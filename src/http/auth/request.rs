//! Authenticates a request: from its headers and address to a caller, with a permit among that caller's requests.
//!
//! [`authenticate`] is for routes, [`examine`] for the fast path, [`authenticate_stream`] for event streams.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload as RawPayload;
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use tokio::time::Instant;

use super::caller::{Caller, Scope};
use super::config::Mode;
use super::local;
use super::rate_limit::{Purpose, RequestPermit};
use super::remembered_caller::RememberedCaller;
use crate::clock::RETRY_SHORTLY;
use crate::http::client;
use crate::http::connections::Connection;
use crate::http::problem::{Problem, table};
use crate::http::request::params;
use crate::http::state::AppState;

/// When the request arrived; its deadline counts from then.
#[derive(Debug, Clone, Copy)]
pub struct Arrival(pub Instant);

/// Until when the refusal of a request is delayed, because there is a flood of them.
#[derive(Debug, Clone, Copy)]
pub struct HeldBack(pub Instant);

/// Who sent a request, where that was asked before it was routed: asking twice would count a wrong credential twice.
pub(crate) struct Known(Result<Caller, Problem>);

/// Authenticates a request before it is routed, if nobody is known yet on its connection, and makes that the caller's. Returns
/// whether more of the connection may be read.
pub(crate) fn authenticate_early(request: &HttpRequest, state: &AppState) -> bool {
    let connection = request.conn_data::<Arc<Connection>>().filter(|connection| !connection.is_authenticated());
    let Some(connection) = connection else { return true };
    let known = state.auth.by_header(request.headers(), address(request, state));
    let is_readable = known.as_ref().is_ok_and(|caller| connection.claim(caller.name()));
    request.extensions_mut().insert(Known(known));
    is_readable
}

/// The caller of a request, in the request's extensions.
#[derive(Debug)]
pub struct Admitted {
    pub caller: Caller,
    /// `None` for a caller without limits, or over them.
    pub permit: Option<RequestPermit>,
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut RawPayload) -> Self::Future {
        ready(authenticate(request))
    }
}

/// The caller of a request. Leaves an [`Admitted`] in the request's extensions, for the log and until the answer has ended.
pub fn authenticate(request: &HttpRequest) -> Result<Caller, Problem> {
    let admitted = examine(request)?;
    let caller = admitted.caller.clone();
    request.extensions_mut().insert(admitted);
    // Not before: an unauthenticated caller gets no other error.
    AppState::of(request)?.query_names.check(request)?;
    Ok(caller)
}

/// The caller of a request and its permit. Leaves an [`Admitted`] in the request's extensions only where the caller is over
/// its limits, for the log.
pub fn examine(request: &HttpRequest) -> Result<Admitted, Problem> {
    let state = AppState::of(request)?;
    if state.auth.mode() == Mode::None {
        local::guard(request.uri(), request.headers(), &state.config.cors_origins)?;
    }
    let known = request.extensions_mut().remove::<Known>().map(|known| known.0);
    let known = known.unwrap_or_else(|| {
        let remembered = request.conn_data::<RememberedCaller>();
        state.auth.by_header_again(request.headers(), address(request, state), remembered)
    });
    let caller = known.inspect_err(|_| hold_back(request, state.auth.throttle().held_back()))?;
    claim_connection(request, &caller)?;
    admit(request, caller)
}

/// Assigns the request's connection to the caller. An error if the caller has as many connections as one may have.
fn claim_connection(request: &HttpRequest, caller: &Caller) -> Result<(), Problem> {
    let connection = request.conn_data::<Arc<Connection>>();
    if connection.is_none_or(|connection| connection.claim(caller.name())) {
        return Ok(());
    }
    let detail = "This token has as many connections as one may have, and none of them is idle.";
    Err(Problem::new(&table::CALLER_LIMITED).detail(detail).retry_after(RETRY_SHORTLY))
}

fn admit(request: &HttpRequest, caller: Caller) -> Result<Admitted, Problem> {
    match caller.admit(purpose(request)) {
        Ok(permit) => Ok(Admitted { caller, permit }),
        Err(limited) => {
            request.extensions_mut().insert(Admitted { caller, permit: None });
            hold_back(request, limited.held_back);
            Err(limited.into())
        }
    }
}

/// By the path alone: the permit is taken before routing.
fn purpose(request: &HttpRequest) -> Purpose {
    let path = request.path();
    let is_payment =
        *request.method() == Method::POST && path.ends_with("/payments") && path.contains("/points-of-sale/");
    if is_payment { Purpose::Payment } else { Purpose::Other }
}

fn hold_back(request: &HttpRequest, wait: Option<Duration>) {
    if let Some(wait) = wait {
        request.extensions_mut().insert(HeldBack(Instant::now() + wait));
    }
}

/// The caller of an event stream, and whether it is within its limits.
pub fn authenticate_stream(request: &HttpRequest) -> Result<(Caller, bool), Problem> {
    let caller = stream_caller(request)?;
    let admitted = claim_connection(request, &caller).and_then(|()| admit(request, caller.clone()));
    let is_admitted = admitted.map(|admitted| drop(request.extensions_mut().insert(admitted))).is_ok();
    AppState::of(request)?.query_names.check(request)?;
    Ok((caller, is_admitted))
}

/// The caller of a stream: by the header, or by a token in the query, since a browser's `EventSource` cannot set the header.
/// A query ends up in logs and histories, so the only scope of such a token must be `events`.
fn stream_caller(request: &HttpRequest) -> Result<Caller, Problem> {
    let state = AppState::of(request)?;
    let address = address(request, state);
    if state.auth.mode() == Mode::None {
        local::guard(request.uri(), request.headers(), &state.config.cors_origins)?;
        return state.auth.by_header(request.headers(), address);
    }
    let delay_refusal = || hold_back(request, state.auth.throttle().held_back());
    let Some(token) = params::query(request, "access_token")? else {
        return state.auth.by_header(request.headers(), address).inspect_err(|_| delay_refusal());
    };
    if request.headers().contains_key(AUTHORIZATION) {
        let detail = "A token is given twice, in the header and in the query.";
        return Err(Problem::new(&table::INVALID_REQUEST).detail(detail));
    }
    let caller = state.auth.by_token(&token, address).inspect_err(|_| delay_refusal())?;
    if !caller.scopes().eq([Scope::Events]) {
        let detail = "In the query only a token is taken whose sole scope is `events`.";
        return Err(Problem::new(&table::FORBIDDEN).detail(detail));
    }
    Ok(caller)
}

/// The client's address.
#[must_use]
pub fn address(request: &HttpRequest, state: &AppState) -> IpAddr {
    // Only a test has no peer.
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let trusted = &state.config.trusted_proxies;
    state.untrusted.check(peer, request.headers(), trusted);
    client::address(peer, request.headers(), trusted)
}
