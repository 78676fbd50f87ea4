//! Frames from the gateway, and the one frame that is sent to it.
//!
//! A frame's body stays raw text: in JSON byte for byte as it came, in JSON5 respelled as JSON with its numbers
//! untouched ([`super::json5`]). Only the envelope is understood.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::body::Body;
use super::command::Command;
use super::fault::GatewayError;
use super::json5;
use super::parameters::Parameters;
use super::text::{self, Member};

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

/// One text message from the gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The reply to a command, or something unasked.
    Event {
        event: String,
        /// What it carries; `{}` where the gateway sent none.
        parameters: Body,
    },
    /// A command failed; nothing says which.
    Error(GatewayError),
    /// Pushed to every connection of the instance.
    Broadcast {
        message: String,
        /// What it carries; `{}` where the gateway sent none.
        parameters: Body,
    },
    /// Documented as unused; tolerated.
    Command,
}

/// Why a message is no frame. Never holds the message itself, which may carry secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Undecodable {
    why: Why,
    /// Whether it may have been a broadcast, such as one that invalidates copies.
    pub may_be_broadcast: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Why {
    /// Neither JSON nor, where agreed, JSON5.
    #[error("not {}: {reason}", format.name())]
    Syntax { format: Format, reason: String },
    /// Well-formed, but not an event, an error or a broadcast.
    #[error("not one of the gateway's frames")]
    Shape,
    /// The gateway speaks in text messages.
    #[error("a binary message")]
    Binary,
}

impl Undecodable {
    /// A message that is no text.
    pub(crate) const BINARY: Self = Self { why: Why::Binary, may_be_broadcast: true };

    fn shape(may_be_broadcast: bool) -> Self {
        Self { why: Why::Shape, may_be_broadcast }
    }

    fn syntax(text: &str, format: Format, reason: &dyn fmt::Display) -> Self {
        let why = Why::Syntax { format, reason: reason.to_string() };
        Self { why, may_be_broadcast: may_begin_broadcast(text) }
    }
}

pub fn decode(text: &str, format: Format) -> Result<Frame, Undecodable> {
    // Some servers put a byte order mark before what they print.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match reply(text) {
        Some(event) => Ok(event),
        None => any_frame(text, format),
    }
}

/// An event as the gateway prints it. Replies are events and may be long, so they are read in one pass.
fn reply(text: &str) -> Option<Frame> {
    let [event, parameters] = text::members_of_tagged(text, ("type", "event"), "result", ["event", "parameters"])?;
    Some(Frame::Event { event: event.text()?.into_owned(), parameters: body(parameters)? })
}

fn any_frame(text: &str, format: Format) -> Result<Frame, Undecodable> {
    match (text::members(text, ENVELOPE), format) {
        (Ok(envelope), _) => frame(envelope),
        (Err(fault), Format::Json) if fault.is_data() => Err(Undecodable::shape(true)),
        (Err(fault), Format::Json) => Err(Undecodable::syntax(text, format, &fault)),
        (Err(_), Format::Json5) => {
            let json = json5::to_json(text).map_err(|fault| Undecodable::syntax(text, format, &fault))?;
            let envelope = text::members(&json, ENVELOPE).map_err(|_| Undecodable::shape(true))?;
            frame(envelope)
        }
    }
}

/// The outer shape, as the gateway documents it. `result` stays raw until its type is known.
const ENVELOPE: [&str; 2] = ["type", "result"];

fn frame([kind, result]: [Member<'_>; 2]) -> Result<Frame, Undecodable> {
    let kind = kind.text().ok_or(Undecodable::shape(true))?;
    let is_broadcast = kind == "broadcast";
    let shape = || Undecodable::shape(is_broadcast);
    let inside = |names| match result {
        Member::Once(raw) => text::members(raw.get(), names).map_err(|_| shape()),
        Member::Absent | Member::Twice => Err(shape()),
    };
    let text = |member: Member<'_>| member.text().map(Cow::into_owned).ok_or_else(shape);
    match &*kind {
        "event" => {
            let [event, parameters] = inside(["event", "parameters"])?;
            Ok(Frame::Event { event: text(event)?, parameters: body(parameters).ok_or_else(shape)? })
        }
        "broadcast" => {
            let [message, parameters] = inside(["message", "parameters"])?;
            Ok(Frame::Broadcast { message: text(message)?, parameters: body(parameters).ok_or_else(shape)? })
        }
        "error" => {
            let [error, code] = inside(["error", "code"])?;
            let code = match code {
                Member::Once(raw) => raw,
                Member::Absent => RawValue::NULL,
                Member::Twice => return Err(shape()),
            };
            Ok(Frame::Error(GatewayError { error: text(error)?, code: code.to_owned() }))
        }
        "command" => Ok(Frame::Command),
        _ => Err(shape()),
    }
}

/// What a frame carries; nothing where that is not known.
fn body(parameters: Member<'_>) -> Option<Body> {
    match parameters {
        Member::Once(raw) if raw.get() != "null" => Some(Body::from(raw)),
        Member::Once(_) | Member::Absent => Some(Body::empty_object()),
        Member::Twice => None,
    }
}

/// Whether a message that cannot be read to its end may have been a broadcast. The gateway prints the type first, so one
/// that begins with another type was none.
fn may_begin_broadcast(text: &str) -> bool {
    let kind = || {
        let inside = text.trim_start().strip_prefix('{')?.trim_start();
        let after = ["\"type\"", "'type'", "type"].iter().find_map(|name| inside.strip_prefix(name))?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        Some(value.get(1..)?.split_once(quote)?.0)
    };
    kind().is_none_or(|kind| kind == "broadcast" || kind.contains('\\'))
}

/// Parameters with the key of the instance in place of any that a caller gave.
struct WithKey<'a> {
    parameters: &'a Parameters,
    api_key: &'a str,
}

impl Serialize for WithKey<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const API_KEY: &str = "api_key";
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.parameters.iter().filter(|(name, _)| *name != API_KEY) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(API_KEY, self.api_key)?;
        map.end()
    }
}

/// Encodes `command` with the key of its instance, as plain JSON: valid in either format.
#[must_use]
pub fn encode(command: &Command, api_key: &str) -> String {
    #[derive(Serialize)]
    struct Outgoing<'a> {
        command: &'a str,
        parameters: WithKey<'a>,
    }
    let parameters = WithKey { parameters: &command.parameters, api_key };
    // Strings and raw JSON cannot fail to serialize.
    serde_json::to_string(&Outgoing { command: &command.name, parameters }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Parameters, command};

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
        assert!(decode(text, Format::Json).unwrap_err().to_string().starts_with("not json: "));
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

    fn read(text: &str, format: Format) -> Result<(String, String), bool> {
        match decode(text, format) {
            Ok(Frame::Broadcast { message, parameters }) => Ok((message, parameters.as_str().to_owned())),
            Ok(other) => panic!("no broadcast: {other:?}"),
            Err(why) => Err(why.may_be_broadcast),
        }
    }

    #[test]
    fn a_broadcast_with_half_an_emoji_is_read_and_what_it_carries_stays_as_it_came() {
        let json =
            r#"{"type":"broadcast","result":{"message":"Beer is out \ud83c","parameters":{"a\ud83c":"\udf7a"}}}"#;
        let json5 = r"{type:'broadcast',result:{message:'Beer is out \ud83c',parameters:{'a\ud83c':'\udf7a'}}}";
        let expected = ("Beer is out \u{fffd}".to_owned(), r#"{"a\ud83c":"\udf7a"}"#.to_owned());
        assert_eq!(read(json, Format::Json), Ok(expected.clone()));
        assert_eq!(read(json, Format::Json5), Ok(expected.clone()));
        assert_eq!(read(json5, Format::Json5), Ok(expected));
        let unknown_members = r#"{"type":"broadcast","x\ud83c":1,"result":{"message":"m","\ud83c":2}}"#;
        assert_eq!(read(unknown_members, Format::Json), Ok(("m".to_owned(), "{}".to_owned())));
    }

    #[test]
    fn half_an_emoji_in_an_event_or_an_error_is_no_obstacle() {
        let event = r#"{"type":"event","result":{"event":"x\ud83c","parameters":{"Note":"\ud83c"}}}"#;
        let Frame::Event { event, parameters } = decode(event, Format::Json).unwrap() else { panic!("an event") };
        assert_eq!((event.as_str(), parameters.as_str()), ("x\u{fffd}", r#"{"Note":"\ud83c"}"#));
        let error = r#"{"type":"error","result":{"error":"x\ud83c","code":"\ud83c"}}"#;
        let Frame::Error(error) = decode(error, Format::Json).unwrap() else { panic!("an error") };
        assert_eq!((error.error.as_str(), error.code.get()), ("x\u{fffd}", r#""\ud83c""#));
    }

    #[test]
    fn a_byte_order_mark_before_a_frame_is_passed_over() {
        let json = "\u{feff}{\"type\":\"broadcast\",\"result\":{\"message\":\"m\"}}";
        for format in [Format::Json, Format::Json5] {
            assert_eq!(read(json, format), Ok(("m".to_owned(), "{}".to_owned())), "{format:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_may_be_a_broadcast_unless_it_says_that_it_is_something_else() {
        let broadcasts = [
            r#"{"type":"broadcast","result":{"message":7}}"#,
            r#"{"type":"broadcast","result":{"message":null}}"#,
            r#"{"type":"broadcast","result":{"message":{}}}"#,
            r#"{"type":"broadcast","result":{"parameters":{}}}"#,
            r#"{"type":"broadcast","result":{"message":"a","message":"b"}}"#,
            r#"{"type":"broadcast","result":{"message":"a","parameters":{},"parameters":{}}}"#,
            r#"{"type":"broadcast","result":"updatepos"}"#,
            r#"{"type":"broadcast"}"#,
            r#"{"type":"broadcast","result":{"message":"a"},"result":{"message":"b"}}"#,
            r#"{"type":"event","type":"broadcast","result":{"message":"a"}}"#,
            r#"{"type":"broadcast","result":{"message":"upda"#,
            r#"{"type":"broad"#,
            r#"{ "type" : "broadcast" , "result" : }"#,
            r#"{"type":"\u0062roadcast","result":"#,
            r#"{"result":{"message":"updatepos"#,
            "{type:'broadcast',result:{message:'upda",
            "{'type':'broadcast','result':{'message'",
            "updatepos",
            "}garbage",
            "",
        ];
        let others = [
            r#"{"type":"event","result":{"event":"listpm","parameters":{"Paym"#,
            r#"{"type":"error","result":{"error":7}}"#,
            r#"{"type":"event","result":{"event":"a","event":"b"}}"#,
            r#"{"type":"something_new","result":{}}"#,
            "{type:'event',result:{event:'listpm',par",
            "{type:\"error\",result",
        ];
        for format in [Format::Json, Format::Json5] {
            for text in broadcasts {
                assert_eq!(read(text, format), Err(true), "{format:?} {text}");
            }
            for text in others {
                assert_eq!(read(text, format), Err(false), "{format:?} {text}");
            }
        }
    }

    #[test]
    fn a_command_carries_the_bridge_s_key_and_not_the_caller_s() {
        let parameters = Parameters::parse(br#"{"POSID":1,"api_key":"theirs"}"#).unwrap();
        let text = encode(&Command::known(&command::LISTPM, parameters), "ours");
        assert_eq!(text, r#"{"command":"listpm","parameters":{"POSID":1,"api_key":"ours"}}"#);
    }

    proptest::proptest! {
        /// Members in any order and number, of any type.
        #[test]
        fn what_is_read_in_one_pass_is_read_no_differently_than_in_two(
            outer in proptest::collection::vec((0..4_usize, 0..6_usize), 0..5),
            inner in proptest::collection::vec((0..4_usize, 0..6_usize), 0..4),
            usual in proptest::prelude::any::<bool>(),
        ) {
            let values = ["\"event\"", "\"broadcast\"", "null", "{\"a\":[1e400,\"\\ud83c\"]}", "[", "7"];
            let members = |begin: &str, names: [&str; 4], of: &[(usize, usize)], nested: &str| {
                let member = |(name, value): &(usize, usize)| {
                    let value = if names[*name] == "result" && *value > 0 { nested } else { values[*value] };
                    format!("\"{}\": {value}", names[*name])
                };
                let begin = Some(begin.to_owned()).filter(|begin| !begin.is_empty());
                format!("{{{}}}", begin.into_iter().chain(of.iter().map(member)).collect::<Vec<_>>().join(", "))
            };
            let reply = if usual { r#""event":"a","parameters":{}"# } else { "" };
            let inside = members(reply, ["event", "parameters", "message", "x"], &inner, "");
            let envelope = if usual { format!(r#""type":"event","result":{inside}"#) } else { String::new() };
            let text = members(&envelope, ["type", "result", "event", "x"], &outer, &inside);
            proptest::prop_assert_eq!(decode(&text, Format::Json), any_frame(&text, Format::Json), "{}", text);
        }

        #[test]
        fn no_text_panics_the_decoder(text in "\\PC{0,200}|[{}\\[\\]:,'\"a-z0-9\\\\ ]{0,80}") {
            let _ = decode(&text, Format::Json);
            let _ = decode(&text, Format::Json5);
        }
    }
}
