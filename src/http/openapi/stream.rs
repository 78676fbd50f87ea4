//! OpenAPI 3.2: the same document, in which the event stream has a type. OpenAPI 3.1 has none for the items of a stream.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Components, OpenApi, OpenApiVersion, Ref, RefOr};

use crate::http::response::sse::Name;
use crate::http::routes::events::MEDIA_TYPE;
use crate::http::views::spelled::BroadcastParameters;
use crate::http::views::stream_events::{Broadcast, Gap, GapReason, Overload, OverloadReason, StreamPosition};

/// The operation that streams.
const OPERATION: &str = "streamEvents";

/// An event: the name of its schema, its own name, and the schema of its data.
pub(super) type Sent = (&'static str, Option<Name>, &'static str);

pub(super) const EVENTS: [Sent; 6] = [
    ("BroadcastEvent", None, "Broadcast"),
    ("ReadyEvent", Some(Name::Ready), "StreamPosition"),
    ("CursorEvent", Some(Name::Cursor), "StreamPosition"),
    ("GapEvent", Some(Name::Gap), "Gap"),
    ("ResetEvent", Some(Name::Reset), "StreamPosition"),
    ("OverloadedEvent", Some(Name::Overloaded), "Overload"),
];

/// Makes OpenAPI 3.2 of the document for OpenAPI 3.1.
pub(super) fn type_the_stream(document: &mut OpenApi) {
    document.openapi = OpenApiVersion::Version32;
    let components = document.components.get_or_insert_default();
    add_data(components);
    for (schema, name, data) in EVENTS {
        components.schemas.insert(schema.to_owned(), RefOr::T(event(name, data)));
    }
    let any = EVENTS.iter().fold(OneOfBuilder::new(), |any, (schema, ..)| any.item(Ref::from_schema_name(*schema)));
    let any = any.description(Some("One event of the stream.")).build();
    components.schemas.insert("StreamEvent".to_owned(), RefOr::T(Schema::OneOf(any)));
    let operations = document.paths.paths.values_mut().filter_map(|item| item.get.as_mut());
    for operation in operations.filter(|operation| operation.operation_id.as_deref() == Some(OPERATION)) {
        let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200") else { continue };
        let Some(RefOr::T(content)) = response.content.get_mut(MEDIA_TYPE) else { continue };
        // The stream as one text says less than its items.
        (content.schema, content.example) = (None, None);
        content.item_schema = Some(RefOr::Ref(Ref::from_schema_name("StreamEvent")));
    }
}

/// What events carry.
fn add_data(components: &mut Components) {
    fn add<T: ToSchema>(components: &mut Components) {
        components.schemas.insert(T::name().into_owned(), T::schema());
    }
    add::<BroadcastParameters>(components);
    add::<Broadcast>(components);
    add::<StreamPosition>(components);
    add::<Gap>(components);
    add::<GapReason>(components);
    add::<Overload>(components);
    add::<OverloadReason>(components);
}

/// An event as its fields, of which `data` is JSON.
fn event(name: Option<Name>, data: &str) -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let told = json!({"$ref": format!("#/components/schemas/{data}")});
    let data = text().content_media_type("application/json").extensions(Some(word("contentSchema", told)));
    let retry = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let retry = retry.description(Some("Milliseconds after which to come back once the stream has ended."));
    let fields = ObjectBuilder::new().schema_type(Type::Object).property("data", data).required("data");
    let fields = fields.property("retry", retry);
    let fields = match name {
        Some(Name::Overloaded) => fields,
        _ => fields.property("id", text().description(Some("The id to resume after."))).required("id"),
    };
    let fields = match name {
        Some(name) => {
            let only = text().extensions(Some(word("const", json!(name.as_str()))));
            fields.property("event", only).required("event")
        }
        // Only the bridge's own events have a name.
        None => fields.extensions(Some(word(
            "not",
            json!({"type": "object", "required": ["event"], "properties": {"event": {"type": "string"}}}),
        ))),
    };
    Schema::Object(fields.build())
}

/// A word of JSON Schema that the builder does not know: it writes an extension's name as it is given.
fn word(name: &str, value: Value) -> Extensions {
    Extensions::from_iter([(name, value)])
}
