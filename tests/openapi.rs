//! The committed document is the one the code makes, and says what the contract promises.
//!
//! After a change that is meant, write both files anew with `UPDATE_OPENAPI=1 cargo test --test openapi`.

#![allow(clippy::unwrap_used, reason = "a test ends where its ground is missing")]

use std::collections::BTreeSet;
use std::path::Path;

use concertpos_bridge::internals::http::openapi::{document, json, yaml};
use concertpos_bridge::internals::http::problem::table;
use concertpos_bridge::internals::journal::RecordState;
use concertpos_bridge::internals::protocol::command;
use serde_json::Value;

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
        assert_eq!(document["paths"][&path][&method]["operationId"], spec.name, "{method} {path}");
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
