//! Problem documents: no error leaves in any other form.
//!
//! [`innermost`] writes problems out before the other layers see the answer, so that CORS and compression see it as it
//! will be; [`outermost`](super::outermost) does the same for errors of the layers themselves.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};

use super::access_log;
use super::request_id::RequestId;
use crate::http::problem::{Entry, MEDIA_TYPE, Problem, table};
use crate::http::state::AppState;

/// An answer that an outer layer gives in place of the router's, in the extensions of a request.
#[derive(Debug)]
pub(crate) struct Instead(pub(crate) HttpResponse);

/// The innermost layer: writes problems out, before anything else looks at the answer.
pub async fn innermost(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let instead = request.extensions_mut().remove();
    if let Some(Instead(answer)) = instead {
        // `ServiceRequest::into_response` would lose the problem.
        let (request, _) = request.into_parts();
        return Ok(converted(ServiceResponse::new(request, answer)));
    }
    Ok(converted(next.call(request).await?.map_into_boxed_body()))
}

/// Turns every error answer into a problem document, with the request's id and the public address in it.
pub(super) fn converted(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    let named = response.headers().get(CONTENT_TYPE).is_some_and(|given| given == MEDIA_TYPE);
    let carried = response.response().error().and_then(|error| error.as_error::<Problem>()).cloned();
    let problem = match carried {
        Some(problem) => problem,
        None if named || !(status.is_client_error() || status.is_server_error()) => return response,
        None => Problem::new(entry_of(status)),
    };
    let (request, old) = response.into_parts();
    let mut new = rendered(&problem, &request);
    for (name, value) in old.headers() {
        let describes_old_body = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING].contains(name);
        if !describes_old_body && !new.headers().contains_key(name) {
            new.headers_mut().append(name.clone(), value.clone());
        }
    }
    ServiceResponse::new(request, new)
}

pub(super) fn rendered(problem: &Problem, request: &HttpRequest) -> HttpResponse {
    let extensions = request.extensions();
    let mut answer = problem.render(base(request), extensions.get::<RequestId>().map(RequestId::as_str));
    access_log::note_problem(&mut answer, problem.entry());
    answer
}

pub(super) fn base(request: &HttpRequest) -> &str {
    let state = request.app_data::<Data<AppState>>();
    state.and_then(|state| state.config.public_url.as_deref()).unwrap_or_default()
}

/// The row for an error that something other than a route of ours made.
fn entry_of(status: StatusCode) -> &'static Entry {
    match status.as_u16() {
        401 => &table::UNAUTHENTICATED,
        403 => &table::FORBIDDEN,
        404 => &table::NOT_FOUND,
        405 => &table::METHOD_NOT_ALLOWED,
        406 => &table::NOT_ACCEPTABLE,
        413 => &table::TOO_LARGE,
        415 => &table::UNSUPPORTED_MEDIA_TYPE,
        400..=499 => &table::INVALID_REQUEST,
        _ => &table::INTERNAL_ERROR,
    }
}
