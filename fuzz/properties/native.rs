//! What tills send, in either format: read, and answered in frames that another reader finds to say the same.
//!
//! The first byte chooses the format, the rest is the message.

use concertpos_bridge::internals::http::native::rehearse;
use concertpos_bridge::internals::protocol::frame::{Format, Frame, decode};
use serde_json::value::RawValue;

pub(crate) fn check(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(message);
    let format = if choice.is_multiple_of(2) { Format::Json } else { Format::Json5 };
    let (read, answer) = rehearse(&text, format);
    let frame = decode(&answer, format).unwrap_or_else(|fault| panic!("no frame, {fault}: {answer:?}"));
    match (read, frame) {
        (Some((command, parameters)), Frame::Event { event, parameters: answered }) => {
            assert_eq!(event, command);
            assert!(serde_json::from_str::<&RawValue>(&parameters).is_ok(), "no JSON: {parameters:?}");
            assert!(!names(&parameters).contains(&"api_key".to_owned()), "the key is among the parameters");
            // In JSON5 escapes are spelled otherwise, and names and numbers are what they were.
            assert_eq!(names(&parameters), names(answered.as_str()), "{text:?}");
            assert!(format == Format::Json5 || parameters == answered.as_str(), "{text:?}");
        }
        (None, Frame::Error(error)) => assert!(
            ["invalid_json", "invalid_json5", "missing_parameter_command"].contains(&error.error.as_str()),
            "{}",
            error.error
        ),
        (read, frame) => panic!("{read:?} is answered with {frame:?}"),
    }
}

/// The names of an object's members, in their order.
fn names(object: &str) -> Vec<String> {
    let members = concertpos_bridge::internals::protocol::Parameters::parse(object.as_bytes());
    members.map(|members| members.iter().map(|(name, _)| name.to_owned()).collect()).unwrap_or_default()
}
