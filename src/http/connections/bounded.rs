//! A stream of which no more is read ahead than a caller without a token may make the bridge hold.
//!
//! The server below reads as much as there is, up to 128 KiB, before it looks at any of it, and keeps up to 16 requests
//! that it has understood for later. So what comes before a token was accepted is counted here: at most [`AHEAD`] bytes
//! that the server has not dealt with, and nothing more while a request is under way. Once a token was accepted, the
//! stream is passed through as it is.
//!
//! The server also answers all requests that it has read before any other connection has its turn. So it gets one head at
//! a time: a thousand connections that each send thousands of requests at once delay others by a thousand requests, not by
//! millions. A connection that speaks another protocol is read a small piece at a time, each when the last one has been
//! dealt with.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Connection;

/// Bytes that a connection may have unserved before a token was accepted on it: twice the longest head that other servers
/// take.
pub const AHEAD: usize = 16 * 1024;

/// How much is read at once: a whole head, if it is not unusually long. What was read and is not passed on yet is held.
const PIECE: usize = 4 * 1024;

/// How much is read at once of a connection that speaks another protocol: dozens of small messages, and no more.
const UPGRADED_PIECE: usize = 1024;

/// How much of what nobody will look at is read at most, so that a peer that is still sending gets to read what it was
/// answered: more than a caller with a wrong token sends.
const DROPPED: u32 = 256 * 1024;

/// What is said to one whose very first head does not end.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Whether a stranger may be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It may.
    Reading,
    /// The server has got a whole head, and is to look at it first.
    Head,
    /// It has had the opportunity.
    Over,
}

/// A stream and its connection.
#[derive(Debug)]
pub struct Bounded<T> {
    stream: T,
    connection: Arc<Connection>,
    /// Read, and not passed on yet.
    read: BytesMut,
    /// How much of that was looked at for the end of a head.
    looked_at: usize,
    /// Where the last line of that begins.
    line: usize,
    /// How much of it is to be passed on now: a whole head.
    head: usize,
    turn: Turn,
    /// Something that begins no request was passed on, which the server refuses.
    garbled: bool,
    /// It was too much: what still comes is dropped, so much of it yet.
    dropping: Option<u32>,
}

impl<T> Bounded<T> {
    /// What is read from `stream`, which belongs to `connection`.
    #[must_use]
    pub fn new(stream: T, connection: Arc<Connection>) -> Self {
        let (read, turn) = (BytesMut::new(), Turn::Reading);
        Self { stream, connection, read, looked_at: 0, line: 0, head: 0, turn, garbled: false, dropping: None }
    }

    /// Its connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Looks for the empty line with which a head ends. A body without a token is nobody's, so that nothing depends on its
    /// not being taken for lines.
    fn look_for_head(&mut self) {
        while let Some(length) = memchr(b'\n', self.read.get(self.looked_at..).unwrap_or_default()) {
            let end = self.looked_at + length;
            let line = self.read.get(self.line..end).unwrap_or_default();
            if line.iter().all(|byte| *byte == b'\r') {
                return self.is_to_be_passed_on(end + 1);
            }
            (self.looked_at, self.line) = (end + 1, end + 1);
        }
        self.looked_at = self.read.len();
        if !self.garbled && !may_begin_request(&self.read) {
            // Nobody has to wait for the end of it to be told. Only once, so that the server never holds more.
            self.garbled = true;
            self.is_to_be_passed_on(self.read.len());
        }
    }

    fn is_to_be_passed_on(&mut self, length: usize) {
        (self.looked_at, self.line, self.head) = (0, 0, length);
    }

    /// Passes on at most `most` of what was read before.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>, most: usize) -> usize {
        let length = self.read.len().min(most).min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(length));
        if self.read.is_empty() {
            // Its memory is given back.
            self.read = BytesMut::new();
        }
        length
    }

    fn pass_on_head(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.head -= self.pass_on(buffer, self.head);
        if self.head == 0 {
            self.turn = Turn::Head;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Bounded<T> {
    /// Reads until there is a whole head, and passes that on: what comes slowly or without end takes no room in the server.
    fn read_head(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.look_for_head();
        while self.head == 0 {
            let room = AHEAD.saturating_sub(self.read.len());
            if room == 0 {
                return self.refuse(context);
            }
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(piece.get_mut(..room.min(PIECE)).unwrap_or_default());
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
            if piece.filled().is_empty() {
                if self.read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // The server knows what to make of the beginning of a head.
                self.is_to_be_passed_on(self.read.len());
            } else {
                self.read.extend_from_slice(piece.filled());
                self.look_for_head();
            }
        }
        self.pass_on_head(buffer)
    }

    /// Reads for another protocol than HTTP, when it has dealt with what it was given before.
    fn read_upgraded(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_unread() {
            self.dropping = Some(DROPPED);
            return self.drop_the_rest(context, DROPPED);
        }
        if !self.connection.is_to_be_read(context.waker()) {
            return Poll::Pending;
        }
        if self.read.is_empty() {
            let mut piece = [0; UPGRADED_PIECE];
            let length = piece.len().min(buffer.remaining());
            let mut piece = ReadBuf::new(piece.get_mut(..length).unwrap_or_default());
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
            buffer.put_slice(piece.filled());
        } else {
            self.pass_on(buffer, UPGRADED_PIECE);
        }
        self.connection.was_read();
        Poll::Ready(Ok(()))
    }

    /// There was too much: what still comes is read and dropped, a little at a time, and then the stream is at its end. The
    /// register ends it if that takes long.
    fn drop_the_rest(&mut self, context: &mut Context<'_>, left: u32) -> Poll<io::Result<()>> {
        let mut piece = [0; AHEAD];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        let dropped = u32::try_from(piece.filled().len()).unwrap_or(u32::MAX);
        if dropped == 0 || dropped >= left {
            return Poll::Ready(Ok(()));
        }
        self.dropping = Some(left - dropped);
        // Others have their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// As much as may be was read without a request. One that never had an answer gets one, if it can be written at once.
    fn refuse(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        (self.dropping, self.read) = (Some(DROPPED), BytesMut::new());
        if self.connection.is_new() {
            let written = Pin::new(&mut self.stream).poll_write(context, TOO_LARGE);
            if written.is_ready() {
                let _ = Pin::new(&mut self.stream).poll_flush(context);
            }
        }
        self.drop_the_rest(context, DROPPED)
    }
}

/// Whether a request of HTTP/1 may begin with these bytes, by what can be told at once.
fn may_begin_request(bytes: &[u8]) -> bool {
    match memchr(b'\n', bytes) {
        None => bytes.first().is_none_or(|first| first.is_ascii_graphic() || *first == b'\r'),
        Some(end) => {
            let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
            line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stranger = self.get_mut();
        let connection = Arc::clone(&stranger.connection);
        if connection.is_over() {
            // Nothing of it is served any more.
            (stranger.read, stranger.head) = (BytesMut::new(), 0);
        }
        if let Some(left) = stranger.dropping {
            return stranger.drop_the_rest(context, left);
        }
        if connection.is_known() {
            if stranger.read.is_empty() {
                return Pin::new(&mut stranger.stream).poll_read(context, buffer);
            }
            stranger.pass_on(buffer, usize::MAX);
            return Poll::Ready(Ok(()));
        }
        if connection.is_upgraded() {
            return stranger.read_upgraded(context, buffer);
        }
        if stranger.head > 0 {
            return stranger.pass_on_head(buffer);
        }
        if stranger.turn == Turn::Head {
            // Others have their turn before what comes behind it.
            context.waker().wake_by_ref();
            stranger.turn = Turn::Over;
            return Poll::Pending;
        }
        if stranger.turn == Turn::Over {
            connection.awaits(context.waker());
            if !connection.is_without_request() || connection.waits_to_be_taken() {
                // Looked at again when the request has ended and its answer was taken.
                return Poll::Pending;
            }
            stranger.turn = Turn::Reading;
        }
        stranger.read_head(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bounded<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
