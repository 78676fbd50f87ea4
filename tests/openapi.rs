//! The committed document is the one the code makes, and says what the contract promises.
//!
//! After a change that is meant, write both files anew with `UPDATE_OPENAPI=1 cargo test --test openapi`.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground is missing")]

#[path = "openapi/schemas.rs"]
mod schemas;

use std::collections::BTreeSet;
use std::path::Path;

use concertpos_bridge::internals::http::openapi::{asyncapi_json, document, document_3_2, json, json_3_2, yaml};
use concertpos_bridge::internals::http::problem::table;
use concertpos_bridge::internals::journal::RecordState;
use concertpos_bridge::internals::protocol::command;
use schemas::{Place, enums, is_valid, schemas};
use serde_json::{Value, json};

#[track_caller]
fn assert_committed(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi").join(name);
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "openapi/{name} is not what the code makes; if the change is meant, run \
         `UPDATE_OPENAPI=1 cargo test --test openapi` and commit it"
    );
}

#[test]
fn the_committed_json_is_what_the_code_makes() {
    assert_committed("openapi.json", &json());
}

#[test]
fn the_committed_yaml_is_what_the_code_makes() {
    assert_committed("openapi.yaml", &yaml());
}

#[test]
fn the_committed_documents_of_the_stream_are_what_the_code_makes() {
    assert_committed("openapi-3.2.json", &json_3_2());
    assert_committed("asyncapi.json", &asyncapi_json());
}

/// The documents, each by its name.
fn documents() -> [(&'static str, Value); 3] {
    [
        ("OpenAPI 3.1", serde_json::to_value(document()).unwrap()),
        ("OpenAPI 3.2", serde_json::to_value(document_3_2()).unwrap()),
        ("AsyncAPI", serde_json::from_str(&asyncapi_json()).unwrap()),
    ]
}

#[test]
fn openapi_3_2_differs_in_the_stream_alone_and_types_it() {
    let [(_, mut older), (_, mut newer), (_, asyncapi)] = documents();
    let answer = "/paths/~1v1~1instances~1{instance}~1events/get/responses/200/content/text~1event-stream";
    assert_eq!(newer.pointer(answer).unwrap(), &json!({"itemSchema": {"$ref": "#/components/schemas/StreamEvent"}}));
    let data = newer["components"]["schemas"].clone();
    for (name, schema) in asyncapi["components"]["schemas"].as_object().unwrap() {
        assert_eq!(schema, &data[name], "{name}");
    }
    let kept = older["components"]["schemas"].clone();
    newer["components"]["schemas"].as_object_mut().unwrap().retain(|name, _| kept.get(name).is_some());
    *newer.pointer_mut(answer).unwrap() = Value::Null;
    *older.pointer_mut(answer).unwrap() = Value::Null;
    (newer["openapi"], older["openapi"]) = (Value::Null, Value::Null);
    assert_eq!(newer, older);
}

fn operations(document: &Value) -> Vec<(&str, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items
        .flat_map(|(path, item)| item.as_object().unwrap().values().map(move |operation| (path.as_str(), operation)))
        .collect()
}

#[test]
fn every_command_of_the_gateway_is_an_operation_of_its_name_at_the_route_of_its_row() {
    let document = serde_json::to_value(document()).unwrap();
    let ids: Vec<&str> =
        operations(&document).iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    for spec in command::TABLE {
        let path = format!("/v1/instances/{{instance}}{}", spec.route.path);
        let method = spec.route.method.to_ascii_lowercase();
        assert_eq!(document["paths"][&path][&method]["operationId"], spec.operation, "{method} {path}");
        let words = spec.operation.to_ascii_lowercase();
        assert!(words == spec.name || words == format!("get{}", spec.name), "{words}");
    }
}

#[test]
fn every_operation_is_named_by_a_verb_and_what_it_is_done_to() {
    let verbs = ["get", "list", "pay", "verify", "register", "stream", "send", "settle", "open", "cordon"];
    for (path, operation) in operations(&serde_json::to_value(document()).unwrap()) {
        let id = operation["operationId"].as_str().unwrap();
        let verb = id.split(|letter: char| letter.is_ascii_uppercase()).next().unwrap();
        let is_camel = id.bytes().all(|byte| byte.is_ascii_alphabetic()) && verb.len() < id.len();
        assert!(is_camel && verbs.contains(&verb), "{path}: {id}");
    }
}

#[test]
fn every_schema_says_its_type() {
    for ((name, document), least) in documents().into_iter().zip([500, 500, 20]) {
        let found = schemas(&document);
        let untyped: Vec<_> = found.iter().filter(|(_, schema)| !schemas::is_typed(schema)).collect();
        assert!(untyped.is_empty(), "{name}: {untyped:?}");
        assert!(found.len() > least, "{name}: the walk ends early, after {}", found.len());
    }
}

#[test]
fn no_two_members_of_types_have_one_name_where_all_are_side_by_side() {
    let document = serde_json::to_value(document_3_2()).unwrap();
    let types: BTreeSet<String> = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
    let mut taken = types.clone();
    for Place { at, schema } in enums(&document) {
        let values = schema["enum"].as_array().unwrap();
        if schema["type"] == "boolean" {
            continue;
        }
        assert!(at.matches('/').count() == 3, "{at}: a type of its own would have a name");
        let names = schema.get("x-enum-varnames").map_or_else(
            || values.iter().map(|value| value.as_str().unwrap().to_uppercase().replace('-', "_")).collect::<Vec<_>>(),
            |names| names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
        );
        assert_eq!(names.len(), values.len(), "{at}");
        for name in names {
            assert!(taken.insert(name.clone()), "{at}: `{name}` is another's");
        }
    }
    assert!(taken.len() > types.len() + 20, "{taken:?}");
}

#[test]
fn what_the_gateway_may_spell_in_several_ways_or_leave_out_is_valid_in_each() {
    let document = serde_json::to_value(document()).unwrap();
    let product = |more: Value| {
        let mut product =
            json!({"ID": 1, "ProductName": "Beer", "Price": 4.50, "Amount": 0, "Deposit": 1, "CrewBlocked": 0});
        product.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"Products": [product]})
    };
    let valid = [
        ("VerifiedAuth", json!({"success": false})),
        ("VerifiedAuth", json!({"success": false, "password": null})),
        ("VerifiedAuth", json!({"success": true, "password": "secret"})),
        ("PayItem", json!({"Items": 1})),
        ("PayItem", json!({"Items": "1", "new": {}})),
        ("ListProducts", product(json!({}))),
        ("ListProducts", product(json!({"Amount": "0", "Deposit": true, "CrewBlocked": "0"}))),
        ("ListProducts", product(json!({"Amount": null, "Deposit": null, "CrewBlocked": 0.0}))),
        ("PaymentMethod", json!({"ID": 1, "Payment": "Cash", "color": null})),
        (
            "PointOfSale",
            json!({"ID": 1, "PointOfSale": "Bar", "enabled": true, "special": "1", "admin": null, "password": ""}),
        ),
        ("GatewayError", json!({"error": "error_exec"})),
        ("GatewayError", json!({"error": "ratelimit", "code": {"command": "getconfig", "retry_after": 12000}})),
        ("GatewayError", json!({"error": "ratelimit", "code": {"command": "getconfig", "retry_after": "12000"}})),
        ("GatewayError", json!({"error": "missing_parameter_api", "code": 3})),
        ("GatewayError", json!({"error": "x", "code": "E1"})),
    ];
    for (schema, body) in valid {
        assert!(is_valid(&document, schema, &body), "{schema} {body}");
    }
    let invalid = [
        ("VerifiedAuth", json!({"password": "secret"})),
        ("VerifiedAuth", json!({"success": true, "password": 7})),
        ("PayItem", json!({"Items": {}})),
        ("ListProducts", product(json!({"Price": "4.50"}))),
        ("ListProducts", product(json!({"Deposit": {}}))),
    ];
    for (schema, body) in invalid {
        assert!(!is_valid(&document, schema, &body), "{schema} {body}");
    }
}

#[test]
fn every_operation_is_described_and_every_error_is_a_problem() {
    let document = serde_json::to_value(document()).unwrap();
    for (path, operation) in operations(&document) {
        for member in ["summary", "description"] {
            assert!(operation[member].as_str().is_some_and(|text| !text.is_empty()), "{path} {member}");
        }
        assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{path}");
        let responses = operation["responses"].as_object().unwrap();
        for status in ["400", "401", "403", "406", "429", "500"] {
            assert!(responses.contains_key(status), "{path} {status}");
        }
        let has_body = operation.get("requestBody").is_some();
        for status in ["413", "415"] {
            assert_eq!(responses.contains_key(status), has_body, "{path} {status}");
        }
        for (status, response) in responses {
            let problem = &response["content"]["application/problem+json"];
            assert_eq!(problem.is_object(), status.starts_with(['4', '5']), "{path} {status}");
            if ["429", "503"].contains(&status.as_str()) {
                assert!(response["headers"]["Retry-After"].is_object(), "{path} {status}");
            }
        }
    }
}

#[test]
fn every_object_of_the_gateway_may_hold_more_than_is_listed() {
    let document = serde_json::to_value(document()).unwrap();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let is_object = schema["type"] == "object";
        assert_eq!(schema["additionalProperties"] == true, is_object, "{name}");
    }
}

#[test]
fn what_programs_go_by_is_listed_in_full() {
    let document = serde_json::to_value(document()).unwrap();
    let listed = |name: &str| document["components"]["schemas"][name]["enum"].clone();
    let codes: Vec<&str> = table::TABLE.iter().map(|entry| entry.code).collect();
    assert_eq!(listed("ProblemCode"), serde_json::json!(codes));
    let states: Vec<&str> = RecordState::ALL.into_iter().map(RecordState::name).collect();
    assert_eq!(listed("PaymentState"), serde_json::json!(states));
}

#[test]
fn a_sale_of_nothing_is_none_by_its_schema_either() {
    let document = serde_json::to_value(document()).unwrap();
    let sold = &document["components"]["schemas"]["PayItems"]["properties"]["Products"]["contains"];
    assert_eq!(sold["properties"]["Amount"]["minimum"], 1);
}
