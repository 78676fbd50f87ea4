//! Decodes the messages of a native connection. [`Decoder`] is pure.
//!
//! A frame is judged by its header: one that makes its message too long closes the connection before its payload is read,
//! and no more than [`ANONYMOUS_MESSAGE`] is reserved for a length that was only announced. Fragments are joined as they
//! come, so that many small ones hold no more than one large one. The library's own reader does neither.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::web::{Bytes, BytesMut};
use actix_ws::{CloseCode, CloseReason, MessageStream};
use bytes::Buf;
use futures_util::{Stream, StreamExt};

use crate::http::connections::{AHEAD, Connection};

/// The longest message on an anonymous connection: what that may hold, less the largest control frame, which may come between
/// fragments, and a header.
pub(super) const ANONYMOUS_MESSAGE: usize = AHEAD - 256;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Text, or bytes, which the gateway too reads as text.
    Text(String),
    Ping(Bytes),
    Pong,
    Close(Option<CloseReason>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
    TooLarge,
    /// Not UTF-8.
    NotText,
    /// Not a WebSocket frame, or one out of order.
    Protocol,
    /// The connection itself failed.
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
    Close,
}

impl Kind {
    fn is_control(self) -> bool {
        matches!(self, Self::Ping | Self::Pong | Self::Close)
    }
}

/// Of a frame.
#[derive(Debug, Clone, Copy)]
struct Header {
    last: bool,
    /// `None` for a frame that continues a message.
    kind: Option<Kind>,
    /// Of the header itself.
    size: usize,
    length: u64,
    mask: [u8; 4],
}

/// A frame whose payload is incomplete.
#[derive(Debug)]
struct PartialFrame {
    last: bool,
    /// `None` for a part of the message.
    control: Option<Kind>,
    left: usize,
    mask: [u8; 4],
}

/// From bytes to messages.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    unread: BytesMut,
    partial: Option<PartialFrame>,
    /// What has come of the current message.
    message: Vec<u8>,
    kind: Option<Kind>,
    /// The length of the current message, by the headers so far.
    announced: usize,
    /// What has come of the current control frame.
    control: Vec<u8>,
}

impl Decoder {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        // Copied: they may be a small part of a buffer that would be kept for them.
        self.unread.extend_from_slice(bytes);
    }

    /// The next complete message of at most `most` bytes.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<Message>, ReadError> {
        loop {
            if self.partial.is_none() {
                let Some(header) = header(&self.unread)? else { return Ok(None) };
                self.begin(header, most)?;
            }
            let Some(frame) = &mut self.partial else { return Ok(None) };
            let mut part = self.unread.split_to(frame.left.min(self.unread.len()));
            unmask(&mut part, &mut frame.mask);
            frame.left -= part.len();
            let into = if frame.control.is_some() { &mut self.control } else { &mut self.message };
            into.extend_from_slice(&part);
            if frame.left > 0 {
                return Ok(None);
            }
            let (last, control) = (frame.last, frame.control);
            self.partial = None;
            if let Some(kind) = control {
                let payload = std::mem::take(&mut self.control);
                return whole(kind, payload).map(Some);
            }
            if last {
                self.announced = 0;
                let (kind, payload) = (self.kind.take(), std::mem::take(&mut self.message));
                return whole(kind.ok_or(ReadError::Protocol)?, payload).map(Some);
            }
        }
    }

    /// Starts a frame, or refuses it by its header.
    fn begin(&mut self, header: Header, most: usize) -> Result<(), ReadError> {
        let control = header.kind.filter(|kind| kind.is_control());
        if control.is_some() {
            if !header.last || header.length > MAX_CONTROL {
                return Err(ReadError::Protocol);
            }
        } else {
            match (header.kind, self.kind) {
                (None, Some(_)) => {}
                (Some(kind), None) => self.kind = Some(kind),
                // Continues no message, or begins one within another.
                (None, None) | (Some(_), Some(_)) => return Err(ReadError::Protocol),
            }
            let length = usize::try_from(header.length).map_err(|_| ReadError::TooLarge)?;
            self.announced = self.announced.saturating_add(length);
            if self.announced > most {
                return Err(ReadError::TooLarge);
            }
            // Growing in small steps would leave as much again unused behind it.
            let room = if header.kind.is_some() { length } else { most };
            self.message.reserve(room.min(ANONYMOUS_MESSAGE).saturating_sub(self.message.len()));
        }
        let left = usize::try_from(header.length).map_err(|_| ReadError::TooLarge)?;
        self.unread.advance(header.size);
        self.partial = Some(PartialFrame { last: header.last, control, left, mask: header.mask });
        Ok(())
    }
}

/// The header at the beginning of `bytes`, if it is complete.
fn header(bytes: &[u8]) -> Result<Option<Header>, ReadError> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let kind = match first & 0x0f {
        0 => None,
        1 => Some(Kind::Text),
        2 => Some(Kind::Binary),
        8 => Some(Kind::Close),
        9 => Some(Kind::Ping),
        10 => Some(Kind::Pong),
        _ => return Err(ReadError::Protocol),
    };
    // Reserved bits are for extensions, and none was agreed on. A client masks its frames.
    if first & 0x70 != 0 || second & 0x80 == 0 {
        return Err(ReadError::Protocol);
    }
    let (length, rest) = match second & 0x7f {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
    Ok(Some(Header { last: first & 0x80 != 0, kind, size: bytes.len() - rest.len(), length, mask: *mask }))
}

/// Unmasks the next part of a payload, and rotates the mask for the one after it.
fn unmask(part: &mut [u8], mask: &mut [u8; 4]) {
    for (byte, mask) in part.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    mask.rotate_left(part.len() % 4);
}

fn whole(kind: Kind, payload: Vec<u8>) -> Result<Message, ReadError> {
    Ok(match kind {
        Kind::Text => Message::Text(String::from_utf8(payload).map_err(|_| ReadError::NotText)?),
        Kind::Binary => Message::Text(String::from_utf8_lossy(&payload).into_owned()),
        Kind::Ping => Message::Ping(payload.into()),
        Kind::Pong => Message::Pong,
        Kind::Close => Message::Close(reason(&payload)?),
    })
}

/// The payload of a close frame (RFC 6455, sections 5.5.1 and 7.4).
fn reason(payload: &[u8]) -> Result<Option<CloseReason>, ReadError> {
    let Some((code, description)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(ReadError::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ReadError::Protocol);
    }
    let description = std::str::from_utf8(description).map_err(|_| ReadError::NotText)?;
    let description = Some(description.to_owned()).filter(|text| !text.is_empty());
    Ok(Some(CloseReason { code: CloseCode::from(code), description }))
}

/// The messages of one connection.
pub(super) struct Reader {
    payload: Payload,
    decoder: Decoder,
    connection: Option<Arc<Connection>>,
    /// Ends with the connection. The payload does not always.
    end: MessageStream,
}

impl Reader {
    pub(super) fn new(payload: Payload, connection: Option<Arc<Connection>>, end: MessageStream) -> Self {
        Self { payload, decoder: Decoder::default(), connection, end }
    }

    /// The next message of at most `most` bytes; `None` at the end of the connection. Cancel safe.
    pub(super) async fn next(&mut self, most: usize) -> Option<Result<Message, ReadError>> {
        std::future::poll_fn(|context| self.poll_next(context, most)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>, most: usize) -> Poll<Option<Result<Message, ReadError>>> {
        loop {
            match self.decoder.next(most) {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if let Poll::Ready(more) = self.payload.poll_next_unpin(context) {
                match more {
                    Some(Ok(bytes)) => self.decoder.feed(&bytes),
                    Some(Err(_)) => return Poll::Ready(Some(Err(ReadError::Connection))),
                    None => return Poll::Ready(None),
                }
                continue;
            }
            if let Some(connection) = &self.connection {
                connection.allow_read();
            }
            ready!(Pin::new(&mut self.end).poll_next(context));
            return Poll::Ready(None);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.discard();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

    use super::*;

    const MOST: usize = 4096;

    /// A frame as a client writes it.
    fn frame(last: bool, code: OpCode, payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            is_final: last,
            rsv1: false,
            rsv2: false,
            rsv3: false,
            opcode: code,
            mask: Some([0x12, 0x34, 0x56, 0x78]),
        };
        let mut bytes = Vec::new();
        Frame::from_payload(header, Bytes::copy_from_slice(payload)).format(&mut bytes).unwrap();
        bytes
    }

    fn text(payload: &str) -> Vec<u8> {
        frame(true, OpCode::Data(Data::Text), payload.as_bytes())
    }

    /// Everything that `bytes` are read as, in pieces of `piece` bytes.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Message>, ReadError> {
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(piece) {
            decoder.feed(part);
            while let Some(message) = decoder.next(MOST)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn a_frame_is_refused_by_what_its_header_announces_and_nothing_is_reserved_for_it() {
        let large = text(&"x".repeat(MOST + 1));
        assert_eq!(read(&text(&"x".repeat(MOST)), 99).map(|messages| messages.len()), Ok(1));
        assert_eq!(read(&large[..8], 1), Err(ReadError::TooLarge), "eight bytes of it are enough");
        let mut huge = vec![0x81, 0xff];
        huge.extend((1_u64 << 30).to_be_bytes());
        huge.extend([0; 4]);
        let mut decoder = Decoder::default();
        decoder.feed(&huge);
        assert_eq!(decoder.next(MOST), Err(ReadError::TooLarge));
        assert!(decoder.message.capacity() == 0 && decoder.unread.capacity() < 64);
        let longest = u64::MAX.to_be_bytes();
        assert_eq!(read(&[&[0x81, 0xff][..], &longest, &[0; 4]].concat(), 99), Err(ReadError::TooLarge));
    }

    #[test]
    fn fragments_are_judged_together_and_many_small_ones_hold_no_more_than_one() {
        let part = |code, last| frame(last, OpCode::Data(code), &[b'x'; 1000]);
        let begun = [part(Data::Text, false), part(Data::Continue, false), part(Data::Continue, false)].concat();
        assert_eq!(read(&begun, 100), Ok(vec![]));
        let fourth = part(Data::Continue, false);
        assert_eq!(read(&[begun.clone(), fourth[..8].to_vec()].concat(), 100), Ok(vec![]));
        let fifth = part(Data::Continue, true);
        assert_eq!(read(&[begun, fourth, fifth[..8].to_vec()].concat(), 100), Err(ReadError::TooLarge));
        let mut decoder = Decoder::default();
        decoder.feed(&frame(false, OpCode::Data(Data::Text), b"x"));
        for _ in 1..MOST {
            decoder.feed(&frame(false, OpCode::Data(Data::Continue), b"x"));
            assert_eq!(decoder.next(MOST), Ok(None));
        }
        assert!(decoder.message.capacity() <= 2 * MOST && decoder.unread.capacity() <= MOST);
        decoder.feed(&frame(true, OpCode::Data(Data::Continue), b"x"));
        assert_eq!(decoder.next(MOST), Err(ReadError::TooLarge));
    }

    #[test]
    fn what_is_no_frame_of_a_client_is_a_fault_of_the_protocol() {
        let whole = text("x");
        for (at, bits) in [(0, 0x40), (0, 0x20), (0, 0x10), (0, 0x02), (1, 0x80)] {
            let mut wrong = whole.clone();
            wrong[at] ^= bits;
            assert_eq!(read(&wrong, 99), Err(ReadError::Protocol), "{wrong:02x?}");
        }
        let data = |code, last| frame(last, OpCode::Data(code), b"x");
        for wrong in [
            data(Data::Continue, true),
            [data(Data::Text, false), data(Data::Text, true)].concat(),
            frame(false, OpCode::Control(Control::Ping), b""),
            frame(true, OpCode::Control(Control::Ping), &[0; 126]),
            frame(true, OpCode::Control(Control::Close), &[3]),
            frame(true, OpCode::Control(Control::Close), &1005_u16.to_be_bytes()),
        ] {
            assert_eq!(read(&wrong, 99), Err(ReadError::Protocol), "{wrong:02x?}");
        }
        assert_eq!(read(&frame(true, OpCode::Data(Data::Text), &[0xff]), 99), Err(ReadError::NotText));
        let reason = frame(true, OpCode::Control(Control::Close), &[3, 0xe8, 0xff]);
        assert_eq!(read(&reason, 99), Err(ReadError::NotText));
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let bytes = [
            frame(false, OpCode::Data(Data::Binary), "nä".as_bytes()),
            frame(true, OpCode::Control(Control::Ping), b"p"),
            frame(true, OpCode::Control(Control::Pong), b""),
            frame(true, OpCode::Data(Data::Continue), b"h"),
            frame(true, OpCode::Control(Control::Close), &[3, 0xe8, b'b']),
        ]
        .concat();
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let mut messages = Vec::new();
        while let Ok(Some(message)) = decoder.next(MOST) {
            messages.push(message);
        }
        let close = CloseReason { code: CloseCode::Normal, description: Some("b".to_owned()) };
        let expected = [
            Message::Ping(Bytes::from_static(b"p")),
            Message::Pong,
            Message::Text("näh".to_owned()),
            Message::Close(Some(close)),
        ];
        assert_eq!(messages, expected);
    }

    proptest! {
        #[test]
        fn however_a_text_is_cut_it_is_read_as_it_was_written(
            texts in prop::collection::vec(prop::collection::vec("\\PC{0,40}", 1..5), 1..5),
            piece in 1_usize..80,
        ) {
            let mut bytes = Vec::new();
            for parts in &texts {
                for (number, part) in parts.iter().enumerate() {
                    let code = if number == 0 { Data::Text } else { Data::Continue };
                    bytes.extend(frame(number + 1 == parts.len(), OpCode::Data(code), part.as_bytes()));
                }
            }
            let expected = texts.iter().map(|parts| Message::Text(parts.concat())).collect();
            prop_assert_eq!(read(&bytes, piece), Ok(expected));
        }

        #[test]
        fn no_bytes_panic_it_and_what_it_holds_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next(64) {}
            prop_assert!(decoder.message.len() <= 64 && decoder.control.len() <= 125);
        }
    }
}
