//! The problems that an operation can answer with, found from its shape.
//!
//! A route in an instance can meet an unknown one, a route with a body can be sent too much, a route that is a command
//! can meet everything the gateway does. Each such answer is a problem; its row of the table says which operations list it.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required};

use super::header::header;
use super::{copies, wait};
use crate::http::problem::MEDIA_TYPE;
use crate::http::problem::table::{self, Entry, Operations};
use crate::protocol::command;

/// Operations whose body means `{}` when it is left out. The macro that describes bodies would say so only by letting
/// them be `null`, which they may not.
const BODY_MAY_BE_ABSENT: [&str; 2] = ["registerDevice", "sendCommand"];

/// Adds to every operation what it can answer besides its success.
pub fn complete(document: &mut OpenApi) {
    let mut examples = BTreeMap::new();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        let entries = possible(operation);
        examples.extend(entries.iter().map(|entry| (entry.code.to_owned(), example_of(entry).into())));
        for (status, entries) in by_status(&entries) {
            operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(response(&entries)));
        }
        if copies::is_read(operation) {
            copies::describe_copies(operation);
        }
        if is_command(operation) {
            copies::describe_budget(operation);
        }
        wait::describe(operation);
        name_every_request(operation);
        let may_be_absent = operation.operation_id.as_deref().is_some_and(|id| BODY_MAY_BE_ABSENT.contains(&id));
        if let (true, Some(RefOr::T(body))) = (may_be_absent, &mut operation.request_body) {
            body.required = Some(Required::False);
        }
    }
    document.components.get_or_insert_default().examples = examples;
}

pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// The rows an operation can meet.
fn possible(operation: &Operation) -> Vec<&'static Entry> {
    let mut entries: Vec<_> =
        table::TABLE.iter().copied().filter(|entry| is_among(operation, entry.operations)).collect();
    entries.sort_by_key(|entry| rank(entry.operations));
    entries
}

fn is_among(operation: &Operation, operations: Operations) -> bool {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    match operations {
        Operations::None => false,
        Operations::Every => true,
        Operations::WithPathParameter(name) => has_parameter(operation, name),
        Operations::WithBody => operation.request_body.is_some(),
        Operations::Commands => is_command(operation),
        Operations::CommandsExcept(other) => is_command(operation) && id != other,
        Operations::Named(ids) => ids.contains(&id),
        Operations::ReadsFromCopies => copies::is_read(operation),
    }
}

/// From the general to the special.
fn rank(operations: Operations) -> u8 {
    match operations {
        Operations::None => 0,
        Operations::Every => 1,
        Operations::WithPathParameter(_) => 2,
        Operations::WithBody => 3,
        Operations::Commands => 4,
        Operations::CommandsExcept(_) => 5,
        Operations::Named(_) => 6,
        Operations::ReadsFromCopies => 7,
    }
}

/// Whether an operation sends a command.
fn is_command(operation: &Operation) -> bool {
    let name = operation.operation_id.as_deref().unwrap_or_default();
    name == "sendCommand" || command::of_operation(name).is_some()
}

fn has_parameter(operation: &Operation, name: &str) -> bool {
    operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.name == name && parameter.parameter_in == ParameterIn::Path,
        RefOr::Ref(_) => false,
    })
}

fn by_status(entries: &[&'static Entry]) -> BTreeMap<u16, Vec<&'static Entry>> {
    let mut by_status: BTreeMap<u16, Vec<_>> = BTreeMap::new();
    for entry in entries {
        by_status.entry(entry.status).or_default().push(*entry);
    }
    by_status
}

fn response(entries: &[&'static Entry]) -> Response {
    let lines: Vec<String> = entries.iter().map(|entry| format!("`{}`: {}.", entry.code, entry.title)).collect();
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    for entry in entries {
        let example = RefOr::Ref(Ref::new(format!("#/components/examples/{}", entry.code)));
        content = content.examples_from_iter([(entry.code, example)]);
    }
    let mut response = ResponseBuilder::new().description(lines.join("\n\n")).content(MEDIA_TYPE, content.build());
    if entries.iter().any(|entry| entry.has_retry_after) {
        response = response.header("Retry-After", header(Type::Integer, "Whole seconds to wait before repeating."));
    }
    if entries.contains(&&table::UNAUTHENTICATED) {
        response = response.header("WWW-Authenticate", header(Type::String, "How to authenticate: `Bearer`."));
    }
    let told = "Who refused (RFC 9209): the bridge where there is an `error`, which says why; else the gateway, whose word is in \
                `details`.";
    response.header("Proxy-Status", header(Type::String, told)).build()
}

fn example_of(entry: &Entry) -> Example {
    let mut value = json!({
        "type": format!("/problems/{}", entry.code),
        "title": entry.title,
        "status": entry.status,
        "detail": entry.explanation,
        "code": entry.code,
        "request_id": "0190b5f2-7a1c-7c3e-8b6d-2f4a5c6e7d80",
        "retryable": entry.retryable,
    });
    if let (true, Some(members)) = (entry.has_retry_after, value.as_object_mut()) {
        members.insert("retry_after".to_owned(), json!(3));
    }
    ExampleBuilder::new().summary(entry.title).value(Some(value)).build()
}

/// Every answer carries the request's id.
fn name_every_request(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let header = header(Type::String, "Identifies the request in the bridge's log.");
            response.headers.insert("X-Request-Id".to_owned(), RefOr::T(header));
        }
    }
}
