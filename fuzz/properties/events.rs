//! Server-Sent Events: what the encoder writes is what a reader finds who knows nothing but the WHATWG text.
//!
//! The message is cut at each zero byte into the data of one event after another; the length of each chooses its name,
//! id and wait, and where the reader is given the next bytes.

use std::time::Duration;

use concertpos_bridge::internals::broadcasts::{Epoch, Id};
use concertpos_bridge::internals::http::response::sse::{Block, HEARTBEAT, Name};

/// What a reader makes of one event.
#[derive(Debug, PartialEq, Eq)]
struct Dispatched {
    kind: String,
    data: String,
    last_event_id: String,
}

pub(crate) fn check(data: &[u8]) {
    let (mut stream, mut expected, mut last_id, mut last_retry) = (Vec::new(), Vec::new(), String::new(), None);
    for part in data.split(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(part);
        let block = block(&text);
        if let Some(id) = block.id {
            last_id = id.to_string();
        }
        last_retry = block.retry.map_or(last_retry, |retry| Some(retry.as_millis()));
        let kind = block.event.map_or("message", Name::as_str).to_owned();
        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
        // Also where it is empty: one empty line is data.
        expected.push(Dispatched { kind, data: lines, last_event_id: last_id.clone() });
        stream.extend_from_slice(&block.bytes());
        if part.len().is_multiple_of(5) {
            stream.extend_from_slice(HEARTBEAT);
        }
    }
    let mut reader = Reader::default();
    for piece in stream.chunks(1 + data.len() % 7) {
        reader.take(piece);
    }
    assert_eq!(reader.dispatched, expected, "{:?}", String::from_utf8_lossy(&stream));
    assert_eq!((reader.last_event_id, reader.retry), (last_id, last_retry));
}

fn block(data: &str) -> Block {
    let length = data.len();
    let names = [None, Some(Name::Ready), Some(Name::Cursor), Some(Name::Gap), Some(Name::Reset)];
    let offset = u64::try_from(length).unwrap_or_default();
    Block {
        retry: length.is_multiple_of(3).then(|| Duration::from_millis(offset)),
        event: names.get(length % names.len()).copied().flatten(),
        id: (!length.is_multiple_of(4)).then(|| Id { epoch: Epoch::new(7), offset }),
        data: data.to_owned(),
    }
}

/// "Interpreting an event stream", word for word: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
#[derive(Default)]
struct Reader {
    /// Bytes that are no whole line yet.
    pending: Vec<u8>,
    /// Whether a line feed that comes next belongs to a carriage return that ended a line.
    after_return: bool,
    data: String,
    kind: String,
    last_event_id: String,
    retry: Option<u128>,
    dispatched: Vec<Dispatched>,
}

impl Reader {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if std::mem::take(&mut self.after_return) && *byte == b'\n' {
                continue;
            }
            match byte {
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.pending);
                    self.line(&String::from_utf8_lossy(&line));
                }
                other => self.pending.push(*other),
            }
        }
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            return self.dispatch();
        }
        match line.split_once(':') {
            Some(("", _)) => {}
            Some((field, value)) => self.field(field, value.strip_prefix(' ').unwrap_or(value)),
            None => self.field(line, ""),
        }
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let kind = std::mem::take(&mut self.kind);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        data.pop();
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        self.dispatched.push(Dispatched { kind, data, last_event_id: self.last_event_id.clone() });
    }
}
