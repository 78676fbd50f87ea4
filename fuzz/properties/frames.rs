//! Frames of the gateway, in either format: read, printed, and read again.
//!
//! The first byte chooses the format, the rest is the message.

use concertpos_bridge::internals::protocol::Body;
use concertpos_bridge::internals::protocol::frame::{Format, Frame, decode};
use concertpos_bridge::internals::protocol::json5::{from_json, to_json};
use serde_json::value::RawValue;

pub(crate) fn check(data: &[u8]) {
    let Some((choice, message)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(message);
    let format = if choice.is_multiple_of(2) { Format::Json } else { Format::Json5 };
    if let Ok(frame) = decode(&text, format) {
        if let Frame::Event { parameters, .. } | Frame::Broadcast { parameters, .. } = &frame {
            is_json(parameters.as_str());
            is_printed_and_read_again(parameters);
        }
        // Whatever is JSON is the same frame where JSON5 was agreed.
        assert!(format == Format::Json5 || decode(&text, Format::Json5).as_ref() == Ok(&frame));
    }
    if let Ok(json) = to_json(&text) {
        is_json(&json);
        comes_back(&json);
    }
}

fn is_json(text: &str) {
    assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "no JSON: {text:?}");
}

/// Printed as the gateway prints and read again, it is the same value, digit for digit, and then nothing changes any more.
fn comes_back(json: &str) {
    let Ok(printed) = from_json(json) else { panic!("cannot be printed: {json:?}") };
    let read = to_json(&printed).unwrap_or_else(|fault| panic!("{printed:?} cannot be read again: {fault}"));
    is_json(&read);
    assert_eq!(from_json(&read).ok().as_ref(), Some(&printed), "of {json:?}");
    assert_eq!(digits(json), digits(&read), "of {json:?}");
    assert!(!printed.contains(['\n', '\r']), "one line: {printed:?}");
}

/// A frame with this body is read as it was printed.
fn is_printed_and_read_again(body: &Body) {
    let json = format!("{{\"type\":\"event\",\"result\":{{\"event\":\"e\",\"parameters\":{}}}}}", body.as_str());
    let Ok(Frame::Event { parameters, .. }) = decode(&json, Format::Json) else { panic!("no event: {json:?}") };
    assert_eq!(parameters.as_str(), body.as_str(), "byte for byte");
    // What is too deep for the printer is refused by the reader as well.
    let Ok(printed) = from_json(&json) else { return };
    assert!(matches!(decode(&printed, Format::Json5), Ok(Frame::Event { .. })), "no event: {printed:?}");
}

/// Every number of a JSON text as it is spelled, in order.
fn digits(json: &str) -> Vec<String> {
    let (mut numbers, mut number) = (Vec::new(), String::new());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars().chain([' ']) {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        in_string = character == '"';
        let of_a_number = character.is_ascii_digit() || matches!(character, '+' | '-' | '.' | 'E');
        // The letter of `true` and of `1e5` is one only after a digit.
        if of_a_number || character == 'e' && number.ends_with(|last: char| last.is_ascii_digit()) {
            number.push(character);
        } else if !number.is_empty() {
            numbers.push(std::mem::take(&mut number));
        }
    }
    numbers
}
