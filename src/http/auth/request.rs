//! Who sent a request: from its header fields and its address to a caller with a place among that caller's requests.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload as RawPayload;
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use tokio::time::Instant;

use super::{Caller, Mode, Purpose, RequestPermit, Scope, local};
use crate::clock::RETRY_SHORTLY;
use crate::http::client;
use crate::http::connections::Connection;
use crate::http::problem::{Problem, table};
use crate::http::request::params;
use crate::http::state::AppState;

/// When the request arrived; set at the edge, and what its deadline counts from.
#[derive(Debug, Clone, Copy)]
pub struct Arrival(pub Instant);

/// Until when the refusal of a request is held back, since it is one of a flood.
#[derive(Debug, Clone, Copy)]
pub struct HeldBack(pub Instant);

/// Who sent a request, and the place that it takes.
#[derive(Debug)]
pub struct Admitted {
    /// Who sent it.
    pub caller: Caller,
    /// What it takes of the caller's allowance; none for a caller without limits, or one that has used its up.
    pub permit: Option<RequestPermit>,
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut RawPayload) -> Self::Future {
        ready(authenticate(request))
    }
}

/// The caller of a request, noted for the log, with a place for it that is held until its answer has ended.
pub fn authenticate(request: &HttpRequest) -> Result<Caller, Problem> {
    let admitted = examine(request)?;
    let caller = admitted.caller.clone();
    request.extensions_mut().insert(admitted);
    // After the caller is known: strangers are told of nothing else.
    AppState::of(request)?.query_names.check(request)?;
    Ok(caller)
}

/// The caller of a request and its place, noted only where it is refused one: the log names also whom it refuses.
pub fn examine(request: &HttpRequest) -> Result<Admitted, Problem> {
    let state = AppState::of(request)?;
    if state.auth.mode() == Mode::None {
        local::guard(request.uri(), request.headers(), &state.config.cors_origins)?;
    }
    let address = address(request, state);
    let caller = state.auth.by_header(request.headers(), address).inspect_err(|_| {
        hold_back(request, state.auth.throttle().held_back());
    })?;
    note_connection(request, &caller)?;
    admit(request, caller)
}

/// Notes whose the connection of a request is, or refuses a caller that has as many as one may have.
fn note_connection(request: &HttpRequest, caller: &Caller) -> Result<(), Problem> {
    let connection = request.conn_data::<Arc<Connection>>();
    if connection.is_none_or(|connection| connection.is_of(caller.name())) {
        return Ok(());
    }
    let detail = "This token has as many connections as one may have, and none of them is idle.";
    Err(Problem::new(&table::CALLER_LIMITED).detail(detail).retry_after(RETRY_SHORTLY))
}

/// Takes a place for a caller's request.
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

/// What a request wants a place for, before it is known whether it may.
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
    let admitted = note_connection(request, &caller).and_then(|()| admit(request, caller.clone()));
    let is_admitted = admitted.map(|admitted| drop(request.extensions_mut().insert(admitted))).is_ok();
    AppState::of(request)?.query_names.check(request)?;
    Ok((caller, is_admitted))
}

/// The caller of a stream: by the header, or by a token in the query, since a browser's `EventSource` sets none.
/// Queries end up in logs and histories, so only a token that can do nothing but listen is taken from one.
fn stream_caller(request: &HttpRequest) -> Result<Caller, Problem> {
    let state = AppState::of(request)?;
    let address = address(request, state);
    if state.auth.mode() == Mode::None {
        local::guard(request.uri(), request.headers(), &state.config.cors_origins)?;
        return state.auth.by_header(request.headers(), address);
    }
    let stranger = || hold_back(request, state.auth.throttle().held_back());
    let Some(token) = params::query(request, "access_token")? else {
        return state.auth.by_header(request.headers(), address).inspect_err(|_| stranger());
    };
    if request.headers().contains_key(AUTHORIZATION) {
        let detail = "A token is given twice, in the header and in the query.";
        return Err(Problem::new(&table::INVALID_REQUEST).detail(detail));
    }
    let caller = state.auth.by_token(&token, address).inspect_err(|_| stranger())?;
    if !caller.scopes().eq([Scope::Events]) {
        let detail = "In the query only a token is taken whose sole scope is `events`.";
        return Err(Problem::new(&table::FORBIDDEN).detail(detail));
    }
    Ok(caller)
}

/// Whom to hold to account for a request.
#[must_use]
pub fn address(request: &HttpRequest, state: &AppState) -> IpAddr {
    // Only a test has no peer.
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let trusted = &state.config.trusted_proxies;
    state.untrusted.look(peer, request.headers(), trusted);
    client::address(peer, request.headers(), trusted)
}
