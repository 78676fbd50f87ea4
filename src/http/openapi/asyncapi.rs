//! The AsyncAPI document of the event stream, of the same types as the OpenAPI document.

use serde_json::{Map, Value, json};

use super::stream::EVENTS;
use crate::http::response::sse::Name;

/// The document, with the schemas of OpenAPI's document, which has the stream typed.
pub(super) fn document(openapi: &Value) -> Value {
    let version = openapi.pointer("/info/version").cloned().unwrap_or_default();
    let license = openapi.pointer("/info/license/name").cloned().unwrap_or_default();
    let operation = openapi.pointer("/paths/~1v1~1instances~1{instance}~1events/get").cloned().unwrap_or_default();
    let text = |member: &str| operation.get(member).cloned().unwrap_or_default();
    let names = || EVENTS.into_iter().map(|(_, name, _)| named(name));
    let place = |name: &str| json!({"$ref": format!("#/components/messages/{name}")});
    let in_channel = |name: &str| json!({"$ref": format!("#/channels/events/messages/{name}")});
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "ConcertPOS bridge: event stream",
            "version": version,
            "description": "The broadcasts of a ConcertPOS instance as Server-Sent Events. A message is the data of one event; \
                its headers are the event's other fields.",
            "license": {"name": license},
        },
        "defaultContentType": "application/json",
        "channels": {"events": {
            "address": "/v1/instances/{instance}/events",
            "title": text("summary"),
            "description": text("description"),
            "parameters": {"instance": {
                "description": "The name of the instance, as `GET /v1/instances` lists it.", "examples": ["demo"],
            }},
            "messages": names().map(|name| (name.to_owned(), place(name))).collect::<Map<_, _>>(),
        }},
        "operations": {"streamEvents": {
            "action": "send",
            "channel": {"$ref": "#/channels/events"},
            "title": text("summary"),
            "messages": names().map(in_channel).collect::<Vec<_>>(),
            "security": [
                {"$ref": "#/components/securitySchemes/bearer"}, {"$ref": "#/components/securitySchemes/accessToken"},
            ],
            "bindings": {"http": {"method": "GET", "query": query(&operation), "bindingVersion": "0.3.0"}},
        }},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token with the scope `events`."},
                "accessToken": {
                    "type": "httpApiKey", "in": "query", "name": "access_token",
                    "description": "The same in the query, where `events` is the token's sole scope: a browser's \
                        `EventSource` cannot set `Authorization`.",
                },
            },
            "messages": EVENTS.into_iter().map(|(_, name, data)| message(openapi, name, data)).collect::<Map<_, _>>(),
            "schemas": schemas(openapi),
        },
    })
}

/// How a message is called; a broadcast has no name of an event.
fn named(name: Option<Name>) -> &'static str {
    name.map_or("broadcast", Name::as_str)
}

fn message(openapi: &Value, name: Option<Name>, data: &str) -> (String, Value) {
    let schema = openapi.pointer(&format!("/components/schemas/{data}"));
    let mut fields = json!({"retry": {"type": "integer", "minimum": 0}});
    let mut required = Vec::new();
    if let Some(fields) = fields.as_object_mut() {
        if name != Some(Name::Overloaded) {
            fields.insert("id".to_owned(), json!({"type": "string", "description": "The id to resume after."}));
            required.push("id");
        }
        if let Some(name) = name {
            fields.insert("event".to_owned(), json!({"type": "string", "const": name.as_str()}));
            required.push("event");
        }
    }
    let examples = schema.and_then(|schema| schema.get("examples")?.as_array()).into_iter().flatten();
    let message = json!({
        "name": named(name),
        "title": schema.and_then(|schema| schema.get("description")).cloned().unwrap_or_default(),
        "contentType": "application/json",
        "headers": {"type": "object", "properties": fields, "required": required},
        "payload": {"$ref": format!("#/components/schemas/{data}")},
        "examples": examples.map(|example| json!({"payload": example})).collect::<Vec<_>>(),
    });
    (named(name).to_owned(), message)
}

/// What can be asked for, as the OpenAPI document has it.
fn query(operation: &Value) -> Value {
    let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let queried = parameters.filter(|parameter| parameter.get("in").is_some_and(|place| place == "query"));
    let properties = queried.filter_map(|parameter| {
        let mut schema = parameter.get("schema")?.clone();
        schema.as_object_mut()?.insert("description".to_owned(), parameter.get("description")?.clone());
        Some((parameter.get("name")?.as_str()?.to_owned(), schema))
    });
    json!({"type": "object", "properties": properties.collect::<Map<_, _>>()})
}

/// The schemas that messages name, and those that these name.
fn schemas(openapi: &Value) -> Map<String, Value> {
    let mut wanted: Vec<String> = EVENTS.into_iter().map(|(.., data)| data.to_owned()).collect();
    let mut found = Map::new();
    while let Some(name) = wanted.pop() {
        let Some(schema) = openapi.pointer(&format!("/components/schemas/{name}")) else { continue };
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let named = properties.filter_map(|(_, schema)| schema.get("$ref")?.as_str()?.rsplit('/').next());
        wanted.extend(named.filter(|name| !found.contains_key(*name)).map(str::to_owned));
        found.insert(name, schema.clone());
    }
    found
}
