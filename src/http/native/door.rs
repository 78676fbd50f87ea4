//! The upgrade: who may open a connection, and what for.
//!
//! Almost everybody may, since the protocol shows its key later. What is refused here is what must not even be opened: a
//! web page of another machine where no keys are asked for, one connection too many, a bridge on its way out. All else
//! that is wrong with a URL is said on the open connection, in words that a till understands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse, rt};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::refusal::Refusal;
use super::session::{Session, Standing};
use super::target::Target;
use crate::http::auth::{Auth, Mode, Scope, local};
use crate::http::call;
use crate::http::problem::{Problem, table};
use crate::http::server::Shared;
use crate::wire::Format;

/// When one that was turned away may try again.
const SHORTLY: Duration = Duration::from_secs(1);

/// Answers an upgrade.
pub(super) async fn enter(
    request: HttpRequest,
    payload: Payload,
    shared: Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let asks_nobody = shared.auth.mode() == Mode::None;
    if asks_nobody {
        local::guard(request.uri(), request.headers(), &shared.config.cors_origins)?;
    }
    if shared.bridge.drain().refuses_new() {
        return Err(Problem::new(&table::SHUTTING_DOWN).retry_after(SHORTLY));
    }
    let segment = request.match_info().get("name").unwrap_or_default();
    let target = Target::of(segment, request.query_string(), &shared.config.native.shards);
    let address = call::address(&request, &shared);
    let standing = standing(&target, &shared, address);
    let place = if asks_nobody || standing.listens {
        None
    } else {
        let place = shared.native.threshold.enter(Instant::now());
        Some(place.ok_or_else(|| Problem::new(&table::OVERLOADED).retry_after(SHORTLY))?)
    };
    let (response, socket, messages) = actix_ws::handle(&request, payload).map_err(|why| {
        Problem::new(&table::INVALID_REQUEST).detail(format!("This is no WebSocket handshake: {why}."))
    })?;
    let max = shared.config.max_body;
    let messages = messages.max_frame_size(max).aggregate_continuations().max_continuation_size(max);
    rt::spawn(Session::new(shared.into_inner(), socket, messages, standing, place).run());
    Ok(response)
}

/// Where a connection stands from its beginning.
fn standing(target: &Target, shared: &Shared, address: IpAddr) -> Standing {
    let format = target.format.unwrap_or(Format::Json);
    let slug = shared.config.native.slugs.get(&target.instance);
    let name = slug.unwrap_or(&target.instance);
    let instance: Result<Arc<str>, Refusal> = if !shared.bridge.instances().contains(name) {
        Err(Refusal::NO_INSTANCE)
    } else if target.format.is_none() {
        Err(Refusal::CONTENT_TYPE)
    } else {
        Ok(Arc::from(name.as_str()))
    };
    let token = target.access_token.as_ref().map(ExposeSecret::expose_secret);
    let listener = token.zip(instance.as_ref().ok());
    let listens = listener.map(|(token, instance)| may_listen(&shared.auth, token, address, instance));
    Standing { instance, format, address, listens: listens == Some(true), turned_away: listens == Some(false) }
}

/// A token in a URL is read by every proxy on its way, so only one that opens nothing else is taken.
fn may_listen(auth: &Auth, token: &str, address: IpAddr, instance: &str) -> bool {
    auth.by_token(token, address).is_ok_and(|caller| {
        let only_listens = auth.mode() == Mode::None || caller.scopes().eq([Scope::Events]);
        only_listens && caller.may_reach(instance)
    })
}
