//! Every schema of a document, wherever it stands, and the little of JSON Schema that the document uses.

use serde_json::{Map, Value};

/// A schema, and where it stands as a JSON Pointer.
pub(crate) type Found<'a> = (String, &'a Value);

/// A schema with its place.
pub(crate) struct Place<'a> {
    pub(crate) at: String,
    pub(crate) schema: &'a Value,
}

/// What holds one schema, by the name of its member.
const ONE: [&str; 7] =
    ["schema", "itemSchema", "contentSchema", "payload", "items", "contains", "additionalProperties"];
const LIST: [&str; 3] = ["oneOf", "anyOf", "allOf"];
const BY_NAME: [&str; 3] = ["properties", "schemas", "$defs"];
/// What is data, in which a schema's words mean nothing.
const DATA: [&str; 6] = ["example", "examples", "default", "enum", "const", "x-enum-varnames"];

/// Every schema of the document.
pub(crate) fn schemas(document: &Value) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    walk(document, "", &mut found);
    found
}

fn walk<'a>(value: &'a Value, at: &str, found: &mut Vec<Found<'a>>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter().filter(|(name, _)| !DATA.contains(&name.as_str())) {
                let at = format!("{at}/{name}");
                collect(name, member, &at, found);
                // A property may be called as a word of the document is.
                if BY_NAME.contains(&name.as_str()) {
                    for (property, member) in member.as_object().into_iter().flatten() {
                        walk(member, &format!("{at}/{property}"), found);
                    }
                } else {
                    walk(member, &at, found);
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(number, item)| walk(item, &format!("{at}/{number}"), found));
        }
        _ => {}
    }
}

fn collect<'a>(name: &str, member: &'a Value, at: &str, found: &mut Vec<Found<'a>>) {
    if ONE.contains(&name) && !(name == "additionalProperties" && member.is_boolean()) {
        found.push((at.to_owned(), member));
    } else if LIST.contains(&name) {
        let items = member.as_array().into_iter().flatten().enumerate();
        found.extend(items.map(|(number, item)| (format!("{at}/{number}"), item)));
    } else if BY_NAME.contains(&name) {
        found.extend(member.as_object().into_iter().flatten().map(|(name, item)| (format!("{at}/{name}"), item)));
    }
}

/// Whether a schema says what a value is: its type, with that of the items of a list; another schema; or several.
pub(crate) fn is_typed(schema: &Value) -> bool {
    let lists_some = |name: &str| schema[name].as_array().is_some_and(|items| !items.is_empty());
    let of_type = match &schema["type"] {
        Value::String(kind) => kind != "array" || schema["items"].is_object(),
        Value::Array(kinds) => !kinds.is_empty(),
        _ => false,
    };
    of_type || schema["$ref"].is_string() || LIST.iter().any(|name| lists_some(name))
}

/// Every schema that lists its values.
pub(crate) fn enums(document: &Value) -> Vec<Place<'_>> {
    let found = schemas(document).into_iter().filter(|(_, schema)| schema["enum"].is_array());
    found.map(|(at, schema)| Place { at, schema }).collect()
}

/// Whether `value` is what the named schema describes, as far as types go.
pub(crate) fn is_valid(document: &Value, name: &str, value: &Value) -> bool {
    document.pointer(&format!("/components/schemas/{name}")).is_some_and(|schema| conforms(document, schema, value))
}

fn conforms(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.strip_prefix("#/components/schemas/")) {
        return is_valid(document, name, value);
    }
    if let Some(one_of) = schema["oneOf"].as_array() {
        return one_of.iter().filter(|one| conforms(document, one, value)).count() == 1;
    }
    let of_type = match &schema["type"] {
        Value::String(kind) => is_a(kind, value),
        Value::Array(kinds) => kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), value)),
        _ => false,
    };
    let members_conform = |members: &Map<String, Value>| {
        let mut required = schema["required"].as_array().into_iter().flatten();
        let mut properties = schema["properties"].as_object().into_iter().flatten();
        required.all(|name| members.contains_key(name.as_str().unwrap()))
            && properties.all(|(name, schema)| members.get(name).is_none_or(|it| conforms(document, schema, it)))
    };
    let items_conform = |items: &Vec<Value>| items.iter().all(|item| conforms(document, &schema["items"], item));
    of_type && value.as_object().is_none_or(members_conform) && value.as_array().is_none_or(items_conform)
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
