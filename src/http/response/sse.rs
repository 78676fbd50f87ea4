//! Server-Sent Events, written to the letter of the WHATWG text: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! What an administrator typed travels as data, and data can hold anything: each of its lines becomes a `data` line of
//! its own, whichever of the three line breaks ends it, so nothing in a broadcast can begin a field. Only the bridge
//! names events and ids, and only from characters that cannot end a line. A broadcast has no `event` line, so that a
//! browser's `onmessage` hears each.

use std::time::Duration;

use actix_web::web::Bytes;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::broadcasts::{Broadcast, Entry, Event, Form, Gap, Id, Reason};

/// One comment line, which no client takes for an event. No empty line follows it: clients that keep the
/// last id for the block (`httpx-sse` does) would make an event of one.
pub const HEARTBEAT: &[u8] = b":\n";

/// The bridge's own events. A broadcast has none of these names, nor any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Where the stream begins.
    Ready,
    /// How far a filtered stream has got.
    Cursor,
    /// Something may be missing here.
    Gap,
    /// The id that was given is none of this log's.
    Reset,
    /// Come back later.
    Overloaded,
}

impl Name {
    /// As it stands in the stream.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cursor => "cursor",
            Self::Gap => "gap",
            Self::Reset => "reset",
            Self::Overloaded => "overloaded",
        }
    }
}

/// One block of a stream.
#[derive(Debug, Default)]
pub struct Block {
    /// When the client is to come back once the stream has ended.
    pub retry: Option<Duration>,
    /// The event's name; none means `message`.
    pub event: Option<Name>,
    /// What the client is to resume after from here on.
    pub id: Option<Id>,
    /// The event's data.
    pub data: String,
}

impl Block {
    /// Appends the block to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(retry) = self.retry {
            field(out, "retry", &retry.as_millis().to_string());
        }
        if let Some(event) = self.event {
            field(out, "event", event.as_str());
        }
        if let Some(id) = self.id {
            field(out, "id", &id.to_string());
        }
        for line in lines(&self.data) {
            field(out, "data", line);
        }
        out.push(b'\n');
    }

    /// The block alone.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.data.len() + 64);
        self.write(&mut out);
        out.into()
    }
}

/// One field. The space is the one that clients take off, so that a value's own space is kept.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The lines of `text`, which end with a carriage return, a line feed, or both in this order.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some((line, after)) = text.split_once(['\r', '\n']) else { return rest.take() };
        let both = text.as_bytes().get(line.len()) == Some(&b'\r') && after.starts_with('\n');
        rest = Some(if both { after.split_at(1).1 } else { after });
        Some(line)
    })
}

/// An entry of the log as a block, written once for all who listen.
#[must_use]
pub fn entry(entry: &Entry) -> Bytes {
    entry.written(Form::EventStream, |entry| match &entry.event {
        Event::Broadcast(told) => Block { id: Some(entry.id), data: broadcast(told), ..Block::default() }.bytes(),
        Event::Gap(Gap { from, to, reason }) => gap(entry.id, name_of(*reason), &time(*from), &time(*to)),
    })
}

fn name_of(reason: Reason) -> &'static str {
    match reason {
        Reason::NoConnection => "no-connection",
        Reason::Unreadable => "unreadable",
        Reason::NotStored => "not-stored",
    }
}

/// Entries that the log no longer holds.
#[must_use]
pub fn lost(from: Id, to: Id) -> Bytes {
    gap(to, "history", &from.to_string(), &to.to_string())
}

/// A block that says no more than where the stream has got to.
#[must_use]
pub fn mark(event: Name, id: Id) -> Block {
    let data = serde_json::json!({ "id": id.to_string() }).to_string();
    Block { event: Some(event), id: Some(id), data, retry: None }
}

/// The end of a stream that cannot be served now. Without an id, so that what was heard before stays the place to
/// resume at.
#[must_use]
pub fn overloaded(reason: &str, retry: Duration) -> Bytes {
    let data = serde_json::json!({ "reason": reason }).to_string();
    Block { event: Some(Name::Overloaded), retry: Some(retry), data, id: None }.bytes()
}

fn gap(id: Id, reason: &str, from: &str, to: &str) -> Bytes {
    #[derive(Serialize)]
    struct Data<'a> {
        id: String,
        reason: &'a str,
        from: &'a str,
        to: &'a str,
    }
    let data = written(&Data { id: id.to_string(), reason, from, to });
    Block { event: Some(Name::Gap), id: Some(id), data, retry: None }.bytes()
}

/// The parameters are the gateway's own bytes: its numbers are never reprinted.
fn broadcast(broadcast: &Broadcast) -> String {
    #[derive(Serialize)]
    struct Data<'a> {
        message: &'a str,
        parameters: Option<&'a RawValue>,
        received_at: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        maybe_duplicate: bool,
    }
    written(&Data {
        message: &broadcast.message,
        // What the wire took for JSON is JSON.
        parameters: serde_json::from_str(broadcast.parameters.as_str()).ok(),
        received_at: time(broadcast.received_at),
        maybe_duplicate: broadcast.maybe_duplicate,
    })
}

/// Strings and raw JSON cannot fail to serialize.
fn written(data: &impl Serialize) -> String {
    serde_json::to_string(data).unwrap_or_default()
}

/// RFC 3339 in UTC, to the millisecond.
fn time(at: Timestamp) -> String {
    DateTimePrinter::new().precision(Some(3)).timestamp_to_string(&at)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::broadcasts::{Broadcasts, Epoch, Item, Since, SubscriberLimit};
    use crate::protocol::Body;

    /// The lines of a stream as its grammar says, "Parsing an event stream": each ends with CR LF, LF or CR, the first
    /// taken whole. What comes after the last end is no line. Shares nothing with the encoder, whose faults would
    /// otherwise be the reader's own.
    fn stream_lines(stream: &str) -> Vec<String> {
        let (mut ended, mut line) = (Vec::new(), String::new());
        let mut characters = stream.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\r' => {
                    characters.next_if_eq(&'\n');
                    ended.push(std::mem::take(&mut line));
                }
                '\n' => ended.push(std::mem::take(&mut line)),
                other => line.push(other),
            }
        }
        ended
    }

    /// What a client that follows the text makes of a stream: `(event, data, last id)` each.
    fn client(stream: &str) -> Vec<(String, String, String)> {
        let (mut events, mut id) = (Vec::new(), String::new());
        let (mut event, mut data) = (String::new(), String::new());
        for line in stream_lines(stream).iter().map(String::as_str) {
            if line.is_empty() {
                if !data.is_empty() {
                    data.pop();
                    events.push((std::mem::take(&mut event), std::mem::take(&mut data), id.clone()));
                }
                event.clear();
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => value.clone_into(&mut event),
                "data" => data.extend([value, "\n"]),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        events
    }

    fn id(offset: u64) -> Id {
        Id { epoch: Epoch::new(7), offset }
    }

    fn told(message: &str, parameters: &str) -> Broadcast {
        let parameters = Body::from(&*RawValue::from_string(parameters.to_owned()).unwrap());
        let received_at = "2026-06-08T02:47:58.120987Z".parse().unwrap();
        Broadcast { message: Arc::from(message), parameters, received_at, maybe_duplicate: false }
    }

    fn block(told: Broadcast) -> String {
        use futures_util::FutureExt;
        let broadcasts = Broadcasts::new(Epoch::new(7), 9, SubscriberLimit::new(1, 1));
        let mut listener = broadcasts.subscribe("one", Since::Now).unwrap();
        broadcasts.publish(Event::Broadcast(told));
        let Some(Ok(Item::Entry(one))) = listener.next().now_or_never() else { panic!("an entry") };
        String::from_utf8(entry(&one).to_vec()).unwrap()
    }

    #[test]
    fn the_blocks_are_spelled_as_documented() {
        assert_eq!(
            block(told("updatepos", "{}")),
            "id: 00000007-1\ndata: {\"message\":\"updatepos\",\"parameters\":{},\
             \"received_at\":\"2026-06-08T02:47:58.120Z\"}\n\n"
        );
        let marked = Broadcast { maybe_duplicate: true, ..told("x", "{\"Price\":2.50}") };
        assert!(block(marked).ends_with(
            "\"parameters\":{\"Price\":2.50},\"received_at\":\"2026-06-08T02:47:58.120Z\",\"maybe_duplicate\":true}\n\n"
        ));
        let ready = Block { retry: Some(Duration::from_millis(2713)), ..mark(Name::Ready, id(41)) };
        let text = "retry: 2713\nevent: ready\nid: 00000007-41\ndata: {\"id\":\"00000007-41\"}\n\n";
        assert_eq!(ready.bytes(), text);
        assert_eq!(
            lost(id(3), id(9)),
            "event: gap\nid: 00000007-9\n\
             data: {\"id\":\"00000007-9\",\"reason\":\"history\",\"from\":\"00000007-3\",\"to\":\"00000007-9\"}\n\n"
        );
        assert_eq!(
            overloaded("full", Duration::from_secs(20)),
            "retry: 20000\nevent: overloaded\ndata: {\"reason\":\"full\"}\n\n"
        );
    }

    #[test]
    fn every_line_break_within_data_begins_another_data_line() {
        let data = "a\nb\rc\r\nd\n\r\n\re\n";
        let block = Block { data: data.to_owned(), ..Block::default() }.bytes();
        assert_eq!(block, "data: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: \ndata: e\ndata: \n\n", "{block:?}");
        assert_eq!(Block::default().bytes(), "data: \n\n");
    }

    #[test]
    fn white_space_of_the_gateway_may_hold_line_breaks() {
        let block = block(told("x", "{\r\n \"a\":\n1.10,\r\"b\": [ ]}"));
        let [(event, data, _)] = &client(&block)[..] else { panic!("one event: {block}") };
        assert!(event.is_empty());
        assert!(data.contains("{\n \"a\":\n1.10,\n\"b\": [ ]}"), "{data}");
    }

    proptest! {
        #[test]
        fn nothing_in_a_broadcast_forges_a_field(
            message in "(\\PC|\r|\n|\u{0}|\u{2028}|\u{feff}|event: reset|id: 1|data:|retry: 0|: )*",
            text in "([ -~]|\r|\n|event: |id: |\u{85})*",
        ) {
            let parameters = format!("{{\r\n\"t\":\n\r{}\r}}", serde_json::to_string(&text).unwrap());
            let block = block(told(&message, &parameters));
            let events = client(&block);
            prop_assert_eq!(events.len(), 1, "{}", block);
            let (event, data, last) = &events[0];
            prop_assert_eq!((event.as_str(), last.as_str()), ("", "00000007-1"));
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            prop_assert_eq!(data["message"].as_str(), Some(message.as_str()));
            prop_assert_eq!(data["parameters"]["t"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn any_data_comes_out_as_it_went_in_but_for_the_kind_of_line_break(data in "([a-c :]|\r|\n|\\PC)*") {
            let block = Block { data: data.clone(), event: Some(Name::Gap), ..Block::default() }.bytes();
            let events = client(std::str::from_utf8(&block).unwrap());
            let expected = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(events, vec![("gap".to_owned(), expected, String::new())]);
        }
    }
}
