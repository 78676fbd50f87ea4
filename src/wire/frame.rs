//! Frames from the gateway, and the one frame that is sent to it.
//!
//! A frame's body stays raw text: in JSON byte for byte as it came, in JSON5 respelled as JSON with its numbers
//! untouched ([`super::json5`]). Only the envelope is understood.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Command, GatewayError, json5};

/// How the gateway prints what it sends: chosen by `Content-Type` in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Plain JSON, the gateway's default.
    #[default]
    Json,
    /// JSON5 as the json5 library of npm prints it.
    Json5,
}

impl Format {
    /// The value of `Content-Type` in the gateway's URL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Json5 => "json5",
        }
    }
}

/// One JSON value as text: what a reply or a broadcast carried. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Body(Arc<str>);

impl Body {
    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the gateway answers to a sale of so many products.
    #[must_use]
    pub fn items(count: usize) -> Self {
        Self(Arc::from(format!("{{\"Items\":{count}}}")))
    }

    /// Whether the value is an object, as every documented reply is.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }
}

impl From<&RawValue> for Body {
    fn from(raw: &RawValue) -> Self {
        Self(Arc::from(raw.get()))
    }
}

/// Bodies hold prices and, for `verifyauth`, a password: `Debug` shows only their size.
impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Body({} bytes)", self.0.len())
    }
}

/// One text message from the gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The reply to a command, or something unasked.
    Event {
        /// The event's name.
        event: String,
        /// What it carries; `{}` where the gateway sent none.
        parameters: Body,
    },
    /// A command failed; nothing says which.
    Error(GatewayError),
    /// Pushed to every connection of the instance.
    Broadcast {
        /// The broadcast's name or text.
        message: String,
        /// What it carries; `{}` where the gateway sent none.
        parameters: Body,
    },
    /// Documented as unused; tolerated.
    Command,
}

/// Why a text message is no frame. Never holds the message itself, which may carry secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// Neither JSON nor, where agreed, JSON5.
    #[error("not {}: {reason}", format.name())]
    Syntax {
        /// The format in force.
        format: Format,
        /// The parser's words.
        reason: String,
    },
    /// Well-formed, but not an event, an error or a broadcast.
    #[error("not one of the gateway's frames")]
    Shape,
}

/// Reads one text message.
pub fn decode(text: &str, format: Format) -> Result<Frame, Undecodable> {
    match (envelope(text), format) {
        (Ok(frame), _) => Ok(frame),
        (Err(_), Format::Json5) => {
            let json = json5::to_json(text).map_err(|fault| syntax(format, &fault))?;
            envelope(&json).map_err(|_| Undecodable::Shape)
        }
        (Err(fault), Format::Json) if fault.is_data() => Err(Undecodable::Shape),
        (Err(fault), Format::Json) => Err(syntax(format, &fault)),
    }
}

fn syntax(format: Format, reason: &dyn fmt::Display) -> Undecodable {
    Undecodable::Syntax { format, reason: reason.to_string() }
}

/// The outer shape, as the gateway documents it. `result` stays raw until its type is known.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Event,
    Error,
    Broadcast,
    Command,
}

#[derive(Deserialize)]
struct EventResult<'a> {
    event: String,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BroadcastResult<'a> {
    message: String,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

fn envelope(json: &str) -> Result<Frame, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_str(json)?;
    let result = envelope.result.map_or("null", RawValue::get);
    Ok(match envelope.kind {
        Kind::Event => {
            let result: EventResult<'_> = serde_json::from_str(result)?;
            Frame::Event { event: result.event, parameters: body(result.parameters) }
        }
        Kind::Broadcast => {
            let result: BroadcastResult<'_> = serde_json::from_str(result)?;
            Frame::Broadcast { message: result.message, parameters: body(result.parameters) }
        }
        Kind::Error => Frame::Error(serde_json::from_str(result)?),
        Kind::Command => Frame::Command,
    })
}

fn body(parameters: Option<&RawValue>) -> Body {
    parameters.map_or_else(|| Body(Arc::from("{}")), Body::from)
}

/// Encodes `command` with the key of its instance, as plain JSON: valid in either format.
#[must_use]
pub fn encode(command: &Command, api_key: &str) -> String {
    #[derive(Serialize)]
    struct Outgoing<'a> {
        command: &'a str,
        parameters: &'a super::Parameters,
    }
    let parameters = command.parameters.clone().with("api_key", &api_key);
    // Strings and raw JSON cannot fail to serialize.
    serde_json::to_string(&Outgoing { command: &command.name, parameters: &parameters }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Parameters, command};

    #[test]
    fn a_body_keeps_the_bytes_that_came() {
        let text =
            r#"{"type":"event","result":{"event":"getdeposit","parameters":{"Deposit": {"Price":2.50},"new":1e2}}}"#;
        let Frame::Event { event, parameters } = decode(text, Format::Json).unwrap() else { panic!("an event") };
        assert_eq!(event, "getdeposit");
        assert_eq!(parameters.as_str(), r#"{"Deposit": {"Price":2.50},"new":1e2}"#);
    }

    #[test]
    fn json5_is_respelled_with_its_numbers_untouched() {
        let text = "{type:'event',result:{event:'getdeposit',parameters:{Deposit:{Price:2.50}}}}";
        let Frame::Event { parameters, .. } = decode(text, Format::Json5).unwrap() else { panic!("an event") };
        assert_eq!(parameters.as_str(), r#"{"Deposit":{"Price":2.50}}"#);
        assert!(matches!(decode(text, Format::Json), Err(Undecodable::Syntax { .. })));
    }

    #[test]
    fn errors_take_numbers_and_objects_as_codes() {
        let frame =
            decode(r#"{"type":"error","result":{"error":"api_key_mismatch","code":-1}}"#, Format::Json).unwrap();
        let Frame::Error(error) = frame else { panic!("an error") };
        assert_eq!((error.error.as_str(), error.code.get()), ("api_key_mismatch", "-1"));
        let bare = decode(r#"{"type":"error","result":{"error":"x"}}"#, Format::Json).unwrap();
        assert_eq!(bare, Frame::Error(GatewayError::word("x")));
    }

    #[test]
    fn what_is_no_frame_says_why_and_never_panics() {
        for text in ["", "null", "[]", "{}", r#"{"type":"event"}"#, r#"{"type":"event","result":{}}"#, r#"{"type":7}"#]
        {
            assert!(decode(text, Format::Json).is_err(), "{text}");
            assert!(decode(text, Format::Json5).is_err(), "{text}");
        }
        assert_eq!(decode(r#"{"type":"command","command":"x","result":"y"}"#, Format::Json), Ok(Frame::Command));
    }

    #[test]
    fn a_command_carries_the_bridge_s_key_and_not_the_caller_s() {
        let parameters = Parameters::parse(br#"{"POSID":1,"api_key":"theirs"}"#).unwrap();
        let text = encode(&Command::known(&command::LISTPM, parameters), "ours");
        assert_eq!(text, r#"{"command":"listpm","parameters":{"POSID":1,"api_key":"ours"}}"#);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_the_decoder(text in "\\PC{0,200}|[{}\\[\\]:,'\"a-z0-9\\\\ ]{0,80}") {
            let _ = decode(&text, Format::Json);
            let _ = decode(&text, Format::Json5);
        }
    }
}
