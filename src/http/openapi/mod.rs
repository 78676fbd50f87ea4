//! The OpenAPI document, made of the routes themselves.
//!
//! Routes describe what they take and what they answer when all is well; what else can happen follows from their shape
//! and is added by [`answers`], so that no route can forget it. The document is committed under `openapi/`, and a test
//! keeps it true. The program carries it as it is committed, and nothing of what makes it.

pub mod answers;
mod asyncapi;
mod copies;
mod header;
pub mod listed;
mod scopes;
pub mod served;
mod stream;
mod wait;

use serde_json::{Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{AdditionalProperties, Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, RefOr};
use utoipa_actix_web::AppExt;

use scopes::BEARER;

use super::problem::Document;
use super::routes::{self, register::Routes as _};
use super::views::spelled::{ConfigValue, RatelimitCode};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "ConcertPOS bridge",
        description = "HTTP for ConcertPOS, a festival point-of-sale system whose only interface is a WebSocket \
            gateway. Replies are the gateway's own, byte for byte: field names and number spellings are as its \
            documentation has them, and fields that are not listed here may appear. What the gateway may spell in \
            several ways has a type of that name, such as `SpelledCount`. A `Price` is an exact decimal, whose \
            description says how to keep it exact in each language. Every error is a problem document (RFC 9457); \
            the page that its `type` names says what to do.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This bridge")),
    components(schemas(Document, ConfigValue, RatelimitCode)),
    tags(
        (name = "Catalogue", description = "What an instance sells and is."),
        (name = "Payments", description = "Sales, and what became of them."),
        (name = "Devices", description = "Tills and the passwords of points of sale."),
        (name = "Events", description = "What the gateway broadcasts."),
        (name = "Operations", description = "The bridge itself."),
    ),
)]
struct Frame;

/// The document of every route.
#[must_use]
pub fn document() -> OpenApi {
    let app = actix_web::App::new().into_utoipa_app().openapi(Frame::openapi());
    let (_, mut document) = app.configure(|config| routes::All.register(config)).split_for_parts();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "A token issued by the bridge's operator or, where the operator allows it, the instance's own gateway key or a JWT \
         of the operator's issuer. \
         Operations name the scope that the token must have, or several of which one is enough.",
    ));
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert(BEARER.to_owned(), SecurityScheme::Http(scheme.build()).into());
    document.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    open_objects(components);
    ask_for_something_sold(components);
    name_members_apart(components);
    answers::complete(&mut document);
    scopes::describe(&mut document);
    document
}

/// The document for OpenAPI 3.2, in which the event stream has a type.
#[must_use]
pub fn document_3_2() -> OpenApi {
    let mut document = document();
    stream::type_the_stream(&mut document);
    let components = document.components.get_or_insert_default();
    open_objects(components);
    name_members_apart(components);
    document
}

/// The AsyncAPI document of the event stream.
#[must_use]
pub fn asyncapi() -> Value {
    asyncapi::document(&serde_json::to_value(document_3_2()).unwrap_or_default())
}

/// The document as it is committed and printed.
#[must_use]
pub fn json() -> String {
    // A document of strings and numbers cannot fail to serialize, here and below.
    document().to_pretty_json().unwrap_or_default() + "\n"
}

/// The document for OpenAPI 3.2 likewise.
#[must_use]
pub fn json_3_2() -> String {
    document_3_2().to_pretty_json().unwrap_or_default() + "\n"
}

/// The AsyncAPI document likewise.
#[must_use]
pub fn asyncapi_json() -> String {
    serde_json::to_string_pretty(&asyncapi()).unwrap_or_default() + "\n"
}

/// The document for OpenAPI 3.1 in YAML.
#[must_use]
pub fn yaml() -> String {
    document().to_yaml().unwrap_or_default()
}

/// Says of every object that it may hold more than is listed: the gateway's replies grow without notice, and so may
/// problems (RFC 9457, section 3.2).
fn open_objects(components: &mut Components) {
    for schema in components.schemas.values_mut() {
        let is_object = |object: &Object| object.schema_type == SchemaType::from(Type::Object);
        if let RefOr::T(Schema::Object(object)) = schema
            && is_object(object)
        {
            object.additional_properties.get_or_insert_with(|| Box::new(AdditionalProperties::FreeForm(true)));
        }
    }
}

/// Generators for Go, C and the like put the members of all types side by side, each named by its value alone. These have a
/// value that another type has too, and so get names of their own.
const NAMED_APART: [(&str, &[&str]); 3] = [
    ("PaymentFinding", &["FoundBooked", "FoundNotBooked"]),
    ("GapReason", &["GapNoConnection", "GapUnreadable", "GapNotStored", "GapHistory"]),
    ("OverloadReason", &["OverloadFull", "OverloadCallerLimited", "OverloadDraining", "OverloadNoOwner"]),
];

fn name_members_apart(components: &mut Components) {
    for (schema, members) in NAMED_APART {
        let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(schema) else { continue };
        object.extensions = Some(Extensions::from_iter([("x-enum-varnames", json!(members))]));
    }
}

/// Says of a sale that something in it has an amount. The macro does not support `contains`, and the builder takes what it
/// does not know as an extension, whose name it writes as it is given.
fn ask_for_something_sold(components: &mut Components) {
    let Some(RefOr::T(Schema::Object(sale))) = components.schemas.get_mut("PayItems") else { return };
    let Some(RefOr::T(Schema::Array(products))) = sale.properties.get_mut("Products") else { return };
    let sold = json!({
        "type": "object", "required": ["Amount"], "properties": {"Amount": {"type": "integer", "minimum": 1}}
    });
    products.extensions = Some(Extensions::from_iter([("contains", sold)]));
}
