//! Frames of a native connection: parsing and rendering. Pure.
//!
//! Parsing is as liberal as the gateway's: JSON5 in either format, unknown fields, numbers as strings. Rendering is exact:
//! in JSON a reply's body keeps the gateway's bytes, in JSON5 every digit of its numbers ([`json5`]).

use std::fmt;

use secrecy::SecretString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::ErrorReply;
use crate::protocol::{Body, Format, Parameters, json5};

/// Of a command: several times the longest known.
const LONGEST_NAME: usize = 64;

pub(super) struct Request {
    /// 1 to 64 of `a` to `z`, `0` to `9` and `_`.
    pub(super) command: String,
    /// Without the key.
    pub(super) parameters: Parameters,
    pub(super) api_key: Option<SecretString>,
}

/// Parameters may hold a password.
impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Request").field("command", &self.command).finish_non_exhaustive()
    }
}

impl Request {
    /// Parses one message. `format` is the connection's, and decides only which error is returned.
    pub(super) fn read(text: &str, format: Format) -> Result<Self, ErrorReply> {
        let malformed = || match format {
            Format::Json => ErrorReply::JSON,
            Format::Json5 => ErrorReply::JSON5,
        };
        let frame = object(text).or_else(|| object(&json5::to_json(text).ok()?)).ok_or_else(malformed)?;
        let command: Option<String> = frame.get("command").and_then(|name| serde_json::from_str(name.get()).ok());
        let command = command.filter(|name| is_name(name)).ok_or_else(|| ErrorReply::missing("command"))?;
        let mut parameters = match frame.get("parameters") {
            Some(given) if given.get().starts_with('{') => object(given.get()).ok_or_else(malformed)?,
            // Holds no key, and the error for that says enough.
            _ => Parameters::default(),
        };
        let api_key = parameters.remove("api_key").as_deref().and_then(spelled).filter(|key| !key.is_empty());
        Ok(Self { command, parameters, api_key: api_key.map(SecretString::from) })
    }
}

/// The members of an object; none for JSON of another type. `None` for what is not JSON, or has a name twice: which of the
/// two was meant is not known.
fn object(text: &str) -> Option<Parameters> {
    match Parameters::parse(text.as_bytes()) {
        Ok(members) => Some(members),
        Err(_) if text.trim_start().starts_with('{') => None,
        Err(_) => serde_json::from_str::<&RawValue>(text).ok().map(|_| Parameters::default()),
    }
}

/// The text of a string or number: clients may send a key or password of digits as a number.
pub(super) fn spelled(value: &RawValue) -> Option<String> {
    let raw = value.get();
    match raw.bytes().next()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'-' | b'0'..=b'9' => Some(raw.to_owned()),
        _ => None,
    }
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

pub(super) fn event(name: &str, parameters: &Body, format: Format) -> String {
    print("event", &Named { event: Some(name), message: None, parameters: raw(parameters.as_str()) }, format)
}

/// `parameters` are `{}` where there are none.
pub(super) fn broadcast(message: &str, parameters: Option<&Body>, format: Format) -> String {
    let parameters = raw(parameters.map_or("{}", Body::as_str));
    print("broadcast", &Named { event: None, message: Some(message), parameters }, format)
}

pub(super) fn error(refusal: &ErrorReply, format: Format) -> String {
    print("error", refusal, format)
}

#[derive(Serialize)]
struct Named<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    parameters: &'a RawValue,
}

/// A body is JSON since it was made; `null` only keeps this function from failing.
fn raw(json: &str) -> &RawValue {
    serde_json::from_str(json).unwrap_or(RawValue::NULL)
}

fn print(kind: &str, result: &impl Serialize, format: Format) -> String {
    #[derive(Serialize)]
    struct Frame<'a, T> {
        r#type: &'a str,
        result: &'a T,
    }
    // Strings, numbers and raw JSON always serialize.
    let json = serde_json::to_string(&Frame { r#type: kind, result }).unwrap_or_default();
    match format {
        Format::Json => json,
        // Any JSON can be rendered; if not, JSON is JSON5 too.
        Format::Json5 => json5::from_json(&json).unwrap_or(json),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn read(text: &str) -> Result<(String, String, Option<String>), String> {
        Request::read(text, Format::Json)
            .map(|request| {
                let parameters = serde_json::to_string(&request.parameters).unwrap();
                (request.command, parameters, request.api_key.map(|key| key.expose_secret().to_owned()))
            })
            .map_err(|refusal| refusal.error.into_owned())
    }

    fn body(json: &str) -> Body {
        Body::from(&*RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn a_command_is_read_in_json_and_json5_and_its_numbers_keep_their_spelling() {
        let expected = Ok(("listpm".to_owned(), r#"{"POSID":"1","x":1.50}"#.to_owned(), Some("k".to_owned())));
        for text in [
            r#"{"command":"listpm","parameters":{"POSID":"1","api_key":"k","x":1.50}}"#,
            "{command:'listpm',parameters:{POSID:'1',x:1.50,api_key:'k',},more:0} // said a till",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_text_or_a_number_and_anything_else_is_none() {
        let key = |key: &str| read(&format!(r#"{{"command":"a","parameters":{{"api_key":{key}}}}}"#)).unwrap().2;
        assert_eq!(key("12").as_deref(), Some("12"));
        for none in ["null", r#""""#, "{}", "[\"k\"]", "true"] {
            assert_eq!(key(none), None, "{none}");
        }
        for text in
            [r#"{"command":"a"}"#, r#"{"command":"a","parameters":null}"#, r#"{"command":"a","parameters":[1]}"#]
        {
            assert_eq!(read(text).unwrap().2, None, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_apart_from_what_lacks_its_command() {
        for text in ["", "{", "hello", "{\"command\":\"a\",\"command\":\"b\"}", "\u{0}", "{command:}"] {
            assert_eq!(read(text), Err("invalid_json".to_owned()), "{text}");
            assert_eq!(Request::read(text, Format::Json5).unwrap_err(), ErrorReply::JSON5, "{text}");
        }
        let twice = r#"{"command":"payitems","parameters":{"POSID":1,"POSID":2}}"#;
        assert_eq!(read(twice), Err("invalid_json".to_owned()));
        let long = format!(r#"{{"command":"{}"}}"#, "a".repeat(65));
        for text in ["[]", "null", "7", "'text'", "{}", r#"{"command":7}"#, r#"{"command":"Näh"}"#, &long] {
            assert_eq!(read(text), Err("missing_parameter_command".to_owned()), "{text}");
        }
    }

    #[test]
    fn frames_have_the_gateway_s_shapes_in_either_format() {
        let parameters = body(r#"{"Deposit": {"Price":2.50},"it's":"a \"quote\""}"#);
        assert_eq!(
            event("getdeposit", &parameters, Format::Json),
            r#"{"type":"event","result":{"event":"getdeposit","parameters":{"Deposit": {"Price":2.50},"it's":"a \"quote\""}}}"#
        );
        assert_eq!(
            event("getdeposit", &parameters, Format::Json5),
            r#"{type:'event',result:{event:'getdeposit',parameters:{Deposit:{Price:2.50},"it's":'a "quote"'}}}"#
        );
        assert_eq!(
            broadcast("Beer's out", None, Format::Json5),
            r#"{type:'broadcast',result:{message:"Beer's out",parameters:{}}}"#
        );
        assert_eq!(
            broadcast("updatepos", Some(&body(r#"{"n":1.0}"#)), Format::Json),
            r#"{"type":"broadcast","result":{"message":"updatepos","parameters":{"n":1.0}}}"#
        );
        assert_eq!(
            error(&ErrorReply::NO_KEY, Format::Json),
            r#"{"type":"error","result":{"error":"missing_parameter_api","code":3}}"#
        );
    }

    #[test]
    fn an_order_shows_no_parameters() {
        let request = Request::read("{command:'verifyauth',parameters:{password:'hush',api_key:'hush'}}", Format::Json);
        assert!(!format!("{request:?}").contains("hush"));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_reader(text in "\\PC{0,120}|[{}\\[\\]:,'\"a-z0-9\\\\ ]{0,80}") {
            let _ = Request::read(&text, Format::Json);
            let _ = Request::read(&text, Format::Json5);
        }
    }
}
