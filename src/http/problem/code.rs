//! The codes as a type of the document, so that a generated client can tell its compiler which it handles.

use std::borrow::Cow;

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::table;

/// Every code of the table.
#[derive(Debug)]
pub struct ProblemCode;

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let codes = table::TABLE.iter().map(|entry| entry.code);
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "A problem's stable name, for programs to go by. A code is never renamed and never reused; a later \
                 version of the bridge may have more.",
            ))
            .enum_values(Some(codes))
            .examples([Value::from("rate-limited")])
            .into()
    }
}

impl ToSchema for ProblemCode {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ProblemCode")
    }
}
