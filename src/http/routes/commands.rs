//! Any command of the gateway by name, for what has no route of its own.
//!
//! What such a command does is not known, so it is sent at most once and its answer is never kept. `payitems` is refused:
//! here it would have no key and no record.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, post, web};
use utoipa::IntoParams;

use super::parameters::InInstance;
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::problem::{Problem, from_error, table};
use crate::http::request::body::Empty;
use crate::http::response::reply;
use crate::http::views::gateway_bodies;
use crate::protocol::{Command, command};

/// The longest name of a command or an event: several times the longest known.
const LONGEST_NAME: usize = 64;

/// The command in the path.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct Name {
    /// The command's name at the gateway.
    #[param(min_length = 1, max_length = 64, pattern = "^[a-z0-9_]+$", example = "getstatus")]
    pub command: String,
}

/// The event that answers it.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Reply {
    /// The name of the reply event, where it differs from the command's.
    #[param(min_length = 1, max_length = 64, pattern = "^[!-~]+$", nullable = false, example = "getstatus")]
    pub reply: Option<String>,
}

/// Send any command
///
/// For commands that have no route of their own. The body is the command's parameters, an `api_key` in it is replaced.
/// The command is sent once and never repeated. `payitems` is refused here, because payments have their own route.
#[utoipa::path(tag = "Operations", operation_id = "sendCommand", params(InInstance, Name, Reply),
    request_body(content = gateway_bodies::RawParameters, description = "The parameters. May be left out."),
    responses((status = 200, description = "The reply's parameters.", body = gateway_bodies::RawReply)))]
#[post("/commands/{command}")]
pub(super) async fn send_command(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Raw)?;
    let name = call.segment("command").to_owned();
    if !is_name(&name) {
        return Err(invalid("`command` in the path must be 1 to 64 of `a` to `z`, `0` to `9` and `_`."));
    }
    if name == command::PAYITEMS.name {
        return Err(invalid(
            "Payments are made with `POST /v1/instances/{instance}/points-of-sale/{pos_id}/payments`, which never \
             books twice.",
        ));
    }
    let reply_event = call.query("reply")?;
    if reply_event.as_deref().is_some_and(|event| !is_event(event)) {
        return Err(invalid("`reply` in the query must be 1 to 64 visible ASCII characters."));
    }
    let mut parameters = call.object(payload, Empty::Allowed).await?;
    parameters.remove("api_key");
    let command = Command::raw(name.clone(), reply_event, parameters);
    let sent = call.served()?.send_once(command, call.caller().name(), call.deadline()).await;
    call.with_budget(&name, sent.map(|reply| reply::done(StatusCode::OK, reply)).map_err(from_error::of_raw_command))
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn is_event(event: &str) -> bool {
    (1..=LONGEST_NAME).contains(&event.len()) && event.bytes().all(|byte| byte.is_ascii_graphic())
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(&table::INVALID_REQUEST).detail(detail)
}
