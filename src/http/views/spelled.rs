//! What the gateway, or a till, may spell in more than one way: each as one type of the document by its name.
//!
//! Bodies pass the bridge as they came, so a type lists every spelling that is known or to be feared, and no more
//! than a reader can tell apart. Generators make one type of each, or the same union wherever it is used.

use std::borrow::Cow;

use serde_json::json;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{KnownFormat, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// The largest whole number that the gateway, a JavaScript program, can tell from its neighbours.
const LARGEST_ID: i64 = 9_007_199_254_740_991;

/// How clients keep prices exact. Up to 15 digits survive in a double, and what is shortest to print is what was read.
const EXACT: &str = "An exact decimal, which the bridge never passes through binary floating point. A client that reads it \
    as a double keeps it, since the shortest text of that double is the price again; sums must be made of decimals that \
    are made of this text: Python `Decimal(str(price))`; Java `BigDecimal.valueOf(price)`, or the generator's \
    `--type-mappings double=java.math.BigDecimal`; C# `(decimal)price`; Go `strconv.FormatFloat(price, 'f', -1, 64)` and \
    Rust `price.to_string()`, for a decimal type; JavaScript and TypeScript `String(price)`, or whole cents, \
    `Math.round(price * 100)`.";

/// Makes a schema a type of the document.
macro_rules! named {
    ($type:ident, $(#[doc = $description:literal])+ $schema:expr) => {
        $(#[doc = $description])+
        #[derive(Debug)]
        pub struct $type;

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let description = [$($description.trim()),+].join(" ");
                let schema: RefOr<Schema> = $schema(description).into();
                schema
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    };
}

fn of(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn whole_number() -> ObjectBuilder {
    of(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
}

fn number() -> ObjectBuilder {
    of(Type::Number).format(Some(SchemaFormat::KnownFormat(KnownFormat::Double)))
}

/// Null is a spelling of its own: generators for Java read no null where only the field that has such a type may be null.
fn or_null() -> OneOfBuilder {
    OneOfBuilder::new().item(of(Type::Null))
}

named!(
    SpelledId,
    /// An id: a whole number, or a string of its digits, as tills send it.
    |description| {
        // One digit less than the largest number has, so that no string passes it.
        let digits = of(Type::String).pattern(Some("^(0|[1-9][0-9]{0,14})$"));
        let number = whole_number().minimum(Some(0)).maximum(Some(LARGEST_ID));
        OneOfBuilder::new().item(number).item(digits).description(Some(description)).examples([1])
    }
);

named!(
    SpelledCount,
    /// How many: a whole number, or a string of one.
    |description| {
        let spellings = or_null().item(whole_number()).item(of(Type::String));
        spellings.description(Some(description)).examples([1])
    }
);

named!(
    SpelledFlag,
    /// Yes or no, as the gateway spells it: a boolean, a number (0 is no), or a string (an empty one and `0` are no).
    |description| {
        let spellings = or_null().item(of(Type::Boolean)).item(number()).item(of(Type::String));
        spellings.description(Some(description)).examples([1])
    }
);

named!(
    SpelledTime,
    /// A time as the gateway spells it: text, or a number of seconds or milliseconds.
    |description| {
        let spellings = or_null().item(of(Type::String)).item(number());
        spellings.description(Some(description)).examples(["2026-06-08 02:47:58"])
    }
);

named!(
    ConfigValue,
    /// A setting as an administrator made it: text, a number, or yes or no.
    |description| {
        let spellings = or_null().item(of(Type::String)).item(number()).item(of(Type::Boolean));
        spellings.description(Some(description)).examples(["5000"])
    }
);

named!(
    BroadcastParameters,
    /// What a broadcast carries: usually an object, but any JSON is passed on.
    |description| {
        let kinds = [Type::Object, Type::Array, Type::String, Type::Number, Type::Boolean, Type::Null];
        ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds)).description(Some(description)).examples([json!({})])
    }
);

named!(
    Price,
    /// A price, or another amount of money.
    |description| number().description(Some(format!("{description} {EXACT}"))).examples([json!(4.50)])
);

named!(
    ErrorCode,
    /// What the gateway says beside an error's word: usually a number, an object for `ratelimit`.
    |description| {
        let spellings = or_null()
            .item(number())
            .item(of(Type::String))
            .item(of(Type::Boolean))
            .item(Ref::from_schema_name("RatelimitCode"));
        spellings.description(Some(description)).examples([0])
    }
);

/// What the gateway says beside `ratelimit`, and whatever other object it may say.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[schema(examples(json!({"command": "getconfig", "retry_after": 12000})))]
pub struct RatelimitCode {
    /// The command that came too often.
    #[schema(nullable = false)]
    pub command: Option<String>,
    /// Milliseconds until it may come again.
    #[schema(nullable = false)]
    pub retry_after: Option<SpelledCount>,
}
