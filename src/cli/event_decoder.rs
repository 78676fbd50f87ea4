//! Server-Sent Events as bytes come in: pure, and to the letter of the WHATWG text
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::time::Duration;

/// More than any broadcast: the gateway's largest message.
const MOST_BYTES: usize = 64 << 20;

/// The longest wait that a stream may ask for.
const MOST_RETRY: Duration = Duration::from_hours(1);

/// The name of an event that names none.
pub(super) const MESSAGE: &str = "message";

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// An event.
    Event { name: String, id: String, data: String },
    /// When to come back once the stream has ended.
    Retry(Duration),
}

/// The stream holds a line or an event that is larger than any.
#[derive(Debug, thiserror::Error)]
#[error("an event is longer than {MOST_BYTES} bytes")]
pub(super) struct TooLong;

/// What has come of a line and of an event.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, which a line feed may follow.
    after_return: bool,
    /// Whether the first line is over: a byte order mark counts only there.
    begun: bool,
    name: String,
    data: String,
    id: String,
}

impl Decoder {
    /// Takes what came next, and gives what it completes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Item>, TooLong> {
        let mut items = Vec::new();
        for &byte in bytes {
            let ends_two = std::mem::take(&mut self.after_return) && byte == b'\n';
            match byte {
                b'\n' if ends_two => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    items.extend(self.line(&String::from_utf8_lossy(&line)));
                }
                _ => self.line.push(byte),
            }
            if self.line.len().saturating_add(self.data.len()) > MOST_BYTES {
                return Err(TooLong);
            }
        }
        Ok(items)
    }

    fn line(&mut self, line: &str) -> Option<Item> {
        let line = if std::mem::replace(&mut self.begun, true) { line } else { line.trim_start_matches('\u{feff}') };
        if line.is_empty() {
            return self.event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let wait = value.parse().map_or(MOST_RETRY, Duration::from_millis);
                return Some(Item::Retry(wait.min(MOST_RETRY)));
            }
            _ => {}
        }
        None
    }

    fn event(&mut self) -> Option<Item> {
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        data.pop()?;
        let name = if name.is_empty() { MESSAGE.to_owned() } else { name };
        Some(Item::Event { name, id: self.id.clone(), data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, id: &str, data: &str) -> Item {
        Item::Event { name: name.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn a_stream_is_read_as_the_text_says() {
        let stream = "\u{feff}retry: 2713\r\nevent: ready\nid: a-1\rdata:{}\r\n\r\n:\ndata: one\ndata\ndata:  two\n\n\
                      id: a\0b\nretry: 1x\nevent: gap\n\nid: a-2\ndata: x\n\nretry: 99999999999999999999\ndata: cut off";
        assert_eq!(
            Decoder::default().push(stream.as_bytes()).unwrap(),
            [
                Item::Retry(Duration::from_millis(2713)),
                event("ready", "a-1", "{}"),
                event(MESSAGE, "a-1", "one\n\n two"),
                event(MESSAGE, "a-2", "x"),
                Item::Retry(MOST_RETRY),
            ]
        );
    }

    #[test]
    fn what_never_ends_is_given_up() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 1 << 20];
        assert!((0..70).any(|_| decoder.push(&piece).is_err()));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_stream_comes(
            stream in "((event|data|id|retry|x)?: ?[a-z0-9é😀]{0,3}(\r\n|\n|\r){1,3}){0,8}",
            size in 1_usize..7,
        ) {
            let whole = Decoder::default().push(stream.as_bytes()).unwrap();
            let mut decoder = Decoder::default();
            let pieces: Vec<_> =
                stream.as_bytes().chunks(size).flat_map(|piece| decoder.push(piece).unwrap()).collect();
            prop_assert_eq!(pieces, whole);
        }
    }
}
