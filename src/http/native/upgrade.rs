//! The WebSocket upgrade of a native connection.
//!
//! The protocol presents its key only with a command, so almost every upgrade is accepted. Refused are pages of other
//! origins where no authentication is needed, connections over a limit, and all while the bridge shuts down. Other errors
//! in a URL are sent on the open connection, in words that a till understands.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::dev::Payload as RawPayload;
use actix_web::error::PayloadError;
use actix_web::http::header::{HeaderValue, SEC_WEBSOCKET_VERSION};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{FromRequest, HttpRequest, HttpResponse, rt};
use actix_ws::{CloseCode, CloseReason, MessageStream};
use futures_util::{Stream, stream};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::error::ErrorReply;
use super::reader::Reader;
use super::session::{ConnectionInfo, Session};
use super::target::Target;
use crate::clock::RETRY_SHORTLY;
use crate::http::auth::request;
use crate::http::auth::{ANYONE, Auth, Caller, Mode, Scope, local};
use crate::http::connections::Connection;
use crate::http::problem::{Problem, table};
use crate::http::state::AppState;
use crate::protocol::Format;

/// Of the WebSocket protocol (RFC 6455).
const VERSION: &str = "13";

type BodyStream = dyn Stream<Item = Result<Bytes, PayloadError>>;

pub(super) async fn answer(
    request: HttpRequest,
    payload: Payload,
    state: Data<AppState>,
) -> Result<HttpResponse, Problem> {
    let is_open = state.auth.mode() == Mode::None;
    if is_open {
        local::guard(request.uri(), request.headers(), &state.config.cors_origins)?;
    }
    if state.bridge.shutdown().refuses_new() {
        return Err(Problem::new(&table::SHUTTING_DOWN).retry_after(RETRY_SHORTLY));
    }
    let segment = request.match_info().get("name").unwrap_or_default();
    let target = Target::of(segment, request.query_string(), &state.config.native.shards);
    let address = request::address(&request, &state);
    let info = connection_info(&target, &state, address);
    let slot = if is_open || info.listener.is_some() {
        None
    } else {
        let slot = state.native.anonymous_limit.enter(address, Instant::now());
        Some(slot.ok_or_else(|| Problem::new(&table::OVERLOADED).retry_after(RETRY_SHORTLY))?)
    };
    let (response, socket, end) = handshake(&request)?;
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        let owner = info.listener.as_ref().map(Caller::name).or(is_open.then_some(ANYONE));
        if owner.is_some_and(|owner| !connection.claim(owner)) {
            return Err(Problem::new(&table::CALLER_LIMITED).retry_after(RETRY_SHORTLY));
        }
        connection.upgrade();
    }
    let reader = Reader::new(payload.into_inner(), connection.clone(), end);
    rt::spawn(Session::new(state.into_inner(), socket, reader, connection, info, slot).run());
    Ok(response)
}

/// The answer to a handshake, the writer, and a stream that ends with the connection. The library's reader is not used
/// (`reader.rs`), so it gets a payload without bytes.
fn handshake(request: &HttpRequest) -> Result<(HttpResponse, actix_ws::Session, MessageStream), Problem> {
    if request.headers().get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version != VERSION) {
        let detail = format!("The bridge speaks only version {VERSION} of the WebSocket protocol.");
        let version = HeaderValue::from_static(VERSION);
        return Err(Problem::new(&table::INVALID_REQUEST).detail(detail).header(SEC_WEBSOCKET_VERSION, version));
    }
    let refused = |why: &dyn std::fmt::Display| {
        Problem::new(&table::INVALID_REQUEST).detail(format!("This is not a WebSocket handshake: {why}."))
    };
    let mut nothing = RawPayload::from(Box::pin(stream::pending()) as Pin<Box<BodyStream>>);
    let nothing = Payload::from_request(request, &mut nothing).into_inner().map_err(|why| refused(&why))?;
    actix_ws::handle(request, nothing).map_err(|why| refused(&why))
}

/// Accepts an upgrade and closes the connection at once, so that its program comes back later: most show a program nothing of an
/// upgrade that is refused.
pub(crate) fn come_back(request: &HttpRequest) -> Result<HttpResponse, Problem> {
    let (response, socket, _) = handshake(request)?;
    let reason =
        CloseReason { code: CloseCode::Again, description: Some("no replica serves this instance".to_owned()) };
    // It waits for the response that is returned here.
    rt::spawn(async move { socket.close(Some(reason)).await });
    Ok(response)
}

fn connection_info(target: &Target, state: &AppState, address: IpAddr) -> ConnectionInfo {
    let format = target.format.unwrap_or(Format::Json);
    let served = state.bridge.instances().get_by_slug(&target.instance).cloned();
    let instance: Result<Arc<str>, ErrorReply> = match &served {
        None => Err(ErrorReply::NO_INSTANCE),
        Some(_) if target.format.is_none() => Err(ErrorReply::CONTENT_TYPE),
        Some(served) => Ok(Arc::clone(served.name())),
    };
    let shutdown = served.as_ref().map_or_else(|| state.bridge.shutdown(), |served| served.shutdown()).clone();
    let missing = served.is_none().then(|| target.instance.as_str().into());
    let token = target.access_token.as_ref().map(ExposeSecret::expose_secret);
    let listener = token.zip(instance.as_ref().ok());
    let listens = listener.map(|(token, instance)| may_listen(&state.auth, token, address, instance));
    let bad_token = listens.as_ref().is_some_and(Option::is_none);
    ConnectionInfo { instance, missing, shutdown, format, address, listener: listens.flatten(), bad_token }
}

/// The caller of a token in a URL. Every proxy on the way may log it, so only a token with the sole scope `events` is
/// accepted.
fn may_listen(auth: &Auth, token: &str, address: IpAddr, instance: &str) -> Option<Caller> {
    auth.by_token(token, address).ok().filter(|caller| {
        let only_listens = auth.mode() == Mode::None || caller.scopes().eq([Scope::Events]);
        only_listens && caller.may_reach(instance)
    })
}
