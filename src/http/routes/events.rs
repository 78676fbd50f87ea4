//! The stream of an instance's broadcasts.

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, get};
use utoipa::IntoParams;

use super::parameters::InInstance;
use crate::broadcasts::{Refused, Since};
use crate::http::auth::Scope;
use crate::http::auth::authorization::Authorization;
use crate::http::extract::Call;
use crate::http::problem::Problem;
use crate::http::response::event_stream::{EventStream, later};
use crate::http::response::sse;

/// The media type of a stream.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// Where clients say what they heard last.
const LAST_EVENT_ID: &str = "last-event-id";

/// What a stream is asked for.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only broadcasts with exactly this message. The stream's own events pass all the same.
    #[param(nullable = false, example = "updatepos")]
    pub message: Option<String>,
    /// Resume after this id, where `Last-Event-ID` cannot be set; that header, where it is given, comes later and wins.
    #[param(nullable = false, example = "k3f9x0aq-41")]
    pub last_event_id: Option<String>,
    /// A token in the query, since a browser's `EventSource` cannot set `Authorization`. Taken only where the token's
    /// sole scope is `events`.
    #[param(nullable = false)]
    pub access_token: Option<String>,
}

/// What a client heard last.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct LastHeard {
    /// The id of the last event that was heard: the stream goes on after it. `EventSource` sets it by itself.
    #[param(rename = "Last-Event-ID", nullable = false, example = "k3f9x0aq-41")]
    pub last_event_id: Option<String>,
}

/// Listen to broadcasts
///
/// Server-Sent Events. Each broadcast of the gateway comes once, without an `event` line, as
/// `{"message": …, "parameters": …, "received_at": …}` under an `id` to resume after; `"maybe_duplicate": true` says that
/// it may be another copy of an earlier one. The bridge's own events are `ready` (where the stream begins), `cursor` (how
/// far a filtered stream has got), `gap` (broadcasts may be missing: `from`, `to`, `reason`), `reset` (the id that was
/// given is from another run of the bridge) and `overloaded` (come back after `retry`). After `gap` and `reset`, fetch
/// afresh.
#[utoipa::path(tag = "Events", operation_id = "streamEvents", params(InInstance, Wanted, LastHeard),
    responses((status = 200, description = "The stream, until the client leaves.", content_type = "text/event-stream",
        body = String, example = "retry: 2713\nevent: ready\nid: k3f9x0aq-41\ndata: {\"id\":\"k3f9x0aq-41\"}\n\n\
        id: k3f9x0aq-42\ndata: {\"message\":\"updatepos\",\"parameters\":{},\
        \"received_at\":\"2026-06-08T02:47:58.120Z\"}\n\n")))]
#[get("/events")]
pub(super) async fn stream_events(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (call, admitted) = Call::for_stream(&request, MEDIA_TYPE)?;
    call.permit(Scope::Events)?;
    let served = call.served()?;
    let broadcasts = served.broadcasts();
    let (message, asked) = (call.query("message")?, call.query("last_event_id")?);
    // The address stays the same however often a client comes back; what it has heard since is in the header.
    let last_heard = last_heard(request.headers()).or(asked.filter(|id| !id.is_empty()));
    let since = last_heard.as_deref().map_or(Since::Now, Since::After);
    let mut answer = begun();
    // Never an error status for what passes: EventSource does not come back from one.
    if !admitted {
        return Ok(answer.body(sse::overloaded("caller-limited", later())));
    }
    Ok(match broadcasts.subscribe(call.caller().name(), since) {
        Ok(subscription) => {
            let shared = call.state();
            let (auth, instance) = (Arc::clone(&shared.auth), Arc::from(call.instance()));
            let authorization = Authorization::new(auth, call.caller().clone(), instance, Some(Scope::Events));
            let stream = EventStream::new(subscription, authorization, message, shared.config.heartbeat);
            stream.into_answer(answer.finish())
        }
        Err(refused) => answer.body(sse::overloaded(reason(refused), later())),
    })
}

/// The head of a stream.
fn begun() -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((CONTENT_TYPE, MEDIA_TYPE))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        // Compressed, an event would wait in the compressor for the next one.
        .insert_header((CONTENT_ENCODING, "identity"));
    answer
}

/// A stream that ends at once and tells its client to come back later.
pub(crate) fn come_back(reason: &'static str) -> HttpResponse {
    begun().body(sse::overloaded(reason, later()))
}

fn reason(refused: Refused) -> &'static str {
    match refused {
        Refused::Full => "full",
        Refused::Share => "caller-limited",
        Refused::Draining => "draining",
    }
}

fn last_heard(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(LAST_EVENT_ID)?;
    Some(String::from_utf8_lossy(given.as_bytes()).into_owned()).filter(|id| !id.is_empty())
}
