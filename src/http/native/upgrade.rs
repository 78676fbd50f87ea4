//! The upgrade: who may open a connection, and what for.
//!
//! Almost everybody may, since the protocol shows its key later. What is refused here is what must not even be opened: a
//! web page of another machine where no keys are asked for, one connection too many, a bridge on its way out. All else
//! that is wrong with a URL is said on the open connection, in words that a till understands.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::dev::Payload as RawPayload;
use actix_web::error::PayloadError;
use actix_web::http::header::{HeaderValue, SEC_WEBSOCKET_VERSION};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{FromRequest, HttpRequest, HttpResponse, rt};
use actix_ws::MessageStream;
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

/// The one version there is (RFC 6455).
const VERSION: &str = "13";

/// What a body's bytes come from.
type BodyStream = dyn Stream<Item = Result<Bytes, PayloadError>>;

/// Answers an upgrade.
pub(super) async fn answer(
    request: HttpRequest,
    payload: Payload,
    shared: Data<AppState>,
) -> Result<HttpResponse, Problem> {
    let asks_nobody = shared.auth.mode() == Mode::None;
    if asks_nobody {
        local::guard(request.uri(), request.headers(), &shared.config.cors_origins)?;
    }
    if shared.bridge.shutdown().refuses_new() {
        return Err(Problem::new(&table::SHUTTING_DOWN).retry_after(RETRY_SHORTLY));
    }
    let segment = request.match_info().get("name").unwrap_or_default();
    let target = Target::of(segment, request.query_string(), &shared.config.native.shards);
    let address = request::address(&request, &shared);
    let info = connection_info(&target, &shared, address);
    let place = if asks_nobody || info.listener.is_some() {
        None
    } else {
        let place = shared.native.anonymous_limit.enter(address, Instant::now());
        Some(place.ok_or_else(|| Problem::new(&table::OVERLOADED).retry_after(RETRY_SHORTLY))?)
    };
    let (response, socket, end) = handshake(&request)?;
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.upgrade();
        let owner = info.listener.as_ref().map(Caller::name).or(asks_nobody.then_some(ANYONE));
        if owner.is_some_and(|owner| !connection.is_of(owner)) {
            return Err(Problem::new(&table::CALLER_LIMITED).retry_after(RETRY_SHORTLY));
        }
    }
    let reader = Reader::new(payload.into_inner(), connection.clone(), end);
    rt::spawn(Session::new(shared.into_inner(), socket, reader, connection, info, place).run());
    Ok(response)
}

/// The answer to a handshake, where to write, and what ends when the connection does. Of the library's reader no more is
/// used: it is given nothing to read.
fn handshake(request: &HttpRequest) -> Result<(HttpResponse, actix_ws::Session, MessageStream), Problem> {
    if request.headers().get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version != VERSION) {
        let detail = format!("The bridge speaks version {VERSION} of the WebSocket protocol and no other.");
        let version = HeaderValue::from_static(VERSION);
        return Err(Problem::new(&table::INVALID_REQUEST).detail(detail).header(SEC_WEBSOCKET_VERSION, version));
    }
    let refused = |why: &dyn std::fmt::Display| {
        Problem::new(&table::INVALID_REQUEST).detail(format!("This is no WebSocket handshake: {why}."))
    };
    let mut nothing = RawPayload::from(Box::pin(stream::pending()) as Pin<Box<BodyStream>>);
    let nothing = Payload::from_request(request, &mut nothing).into_inner().map_err(|why| refused(&why))?;
    actix_ws::handle(request, nothing).map_err(|why| refused(&why))
}

/// Where a connection stands from its beginning.
fn connection_info(target: &Target, shared: &AppState, address: IpAddr) -> ConnectionInfo {
    let format = target.format.unwrap_or(Format::Json);
    let slug = shared.config.native.slugs.get(&target.instance);
    let name = slug.unwrap_or(&target.instance);
    let instance: Result<Arc<str>, ErrorReply> = if shared.bridge.instance(name).is_err() {
        Err(ErrorReply::NO_INSTANCE)
    } else if target.format.is_none() {
        Err(ErrorReply::CONTENT_TYPE)
    } else {
        Ok(Arc::from(name.as_str()))
    };
    let token = target.access_token.as_ref().map(ExposeSecret::expose_secret);
    let listener = token.zip(instance.as_ref().ok());
    let listens = listener.map(|(token, instance)| may_listen(&shared.auth, token, address, instance));
    let turned_away = listens.as_ref().is_some_and(Option::is_none);
    ConnectionInfo { instance, format, address, listener: listens.flatten(), turned_away }
}

/// A token in a URL is read by every proxy on its way, so only one that opens nothing else is taken.
fn may_listen(auth: &Auth, token: &str, address: IpAddr, instance: &str) -> Option<Caller> {
    auth.by_token(token, address).ok().filter(|caller| {
        let only_listens = auth.mode() == Mode::None || caller.scopes().eq([Scope::Events]);
        only_listens && caller.may_reach(instance)
    })
}
