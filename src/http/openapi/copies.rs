//! What a read says of copies, and every command of its budget: header fields that follow from what an operation is.

use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{RefOr, Response};

use super::header::{header, request_field};
use crate::protocol::{Kind, command};

/// Whether an operation is a read that may be answered from a copy: those that have no body.
pub(super) fn is_read(operation: &Operation) -> bool {
    let spec = operation.operation_id.as_deref().and_then(command::of_operation);
    spec.is_some_and(|spec| spec.kind == Kind::Read) && operation.request_body.is_none()
}

/// Describes the header fields about copies, of requests and of answers.
pub(super) fn describe_copies(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    parameters.push(request_field(
        "Cache-Control",
        "What of copies is welcome: `no-cache` or `max-age=N` asks the gateway if the copy is older, as far as the \
         budget allows; `max-stale=N` forbids copies that are stale for longer, `max-stale=0` all that are stale; \
         `only-if-cached` sends nothing.",
    ));
    parameters.push(request_field(
        "If-None-Match",
        "The `ETag` of what the caller has, quotes included: answered 304 if that is current.",
    ));
    let tag = || header(Type::String, "Names this reply; to be given as `If-None-Match`.");
    let not_modified = ResponseBuilder::new().description("What the caller has is current.").header("ETag", tag());
    let responses = &mut operation.responses.responses;
    responses.insert("304".to_owned(), RefOr::T(not_modified.build()));
    if let Some(RefOr::T(response)) = responses.get_mut("200") {
        let headers = [
            ("ETag", tag()),
            ("Age", header(Type::Integer, "Seconds since the gateway was asked.")),
            (
                "Cache-Status",
                header(
                    Type::String,
                    "Where the reply came from (RFC 9211). A negative `ttl` says for how many seconds it has been \
                     stale, `detail` why no new one could be had.",
                ),
            ),
        ];
        response.headers.extend(headers.map(|(name, header)| (name.to_owned(), RefOr::T(header))));
    }
}

/// Describes what an answer that touched the gateway's budget says of it.
pub(super) fn describe_budget(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let (RefOr::T(response), true) = (response, matches!(status.as_str(), "200" | "201" | "429")) else { continue };
        add_budget(response);
    }
}

fn add_budget(response: &mut Response) {
    let policy = "Where the command was asked for: how many such requests (`q`) the gateway takes in how many seconds \
                  (`w`), such as `\"getconfig\";q=4;w=31`.";
    let limit = "Where the command was asked for: how many more could be granted now (`r`), and in how many seconds one \
                 more (`t`), such as `\"getconfig\";r=1;t=12`.";
    for (name, description) in [("RateLimit-Policy", policy), ("RateLimit", limit)] {
        response.headers.insert(name.to_owned(), RefOr::T(header(Type::String, description)));
    }
}
