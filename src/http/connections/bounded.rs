//! A stream that reads no more ahead of an anonymous connection than the bridge may have to hold.
//!
//! The server reads whatever has come, up to 128 KiB, before it parses any of it, keeps up to 16 parsed requests, and
//! answers all that it has read before another connection has its turn. So until a caller has authenticated, it gets one
//! head at a time: a head is kept here until it is whole, up to [`AHEAD`] bytes, and nothing more is read while a request is
//! in progress. A thousand connections that each send thousands of requests at once then delay others by a thousand
//! requests. An upgraded connection is read in small pieces, each once the last one was handled. Once a caller has
//! authenticated, the stream is passed through.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;

/// Bytes that an anonymous connection may have read and not handled: twice the longest head that other servers accept.
pub const AHEAD: usize = 16 * 1024;

/// Bytes in one read: a whole head, unless it is unusually long.
const PIECE: usize = 4 * 1024;

/// Bytes in one read of an upgraded connection: dozens of small messages, and no more.
const UPGRADED_PIECE: usize = 1024;

/// Bytes that are read and dropped before the end, so that a peer which is still sending can read its answer: more than a
/// caller with a wrong token sends.
const DROPPED: u32 = 256 * 1024;

/// The answer to a first head that is too long.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Whether an anonymous connection may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Reading,
    /// The server has a whole head and must parse it first.
    Head,
    /// The server has had its turn to do so.
    Over,
}

#[derive(Debug)]
pub struct Bounded<T> {
    stream: T,
    connection: Arc<Connection>,
    /// Read, and not passed on yet.
    read: BytesMut,
    /// How much of that was searched for the end of a head.
    searched: usize,
    /// Where the last line in that begins.
    line: usize,
    /// How much of `read` is to be passed on now: a whole head.
    head: usize,
    turn: Turn,
    /// What cannot begin a request was passed on, so that the server refuses it.
    garbled: bool,
    /// A head was too long: what comes is dropped, this many bytes yet.
    dropping: Option<u32>,
}

impl<T> Bounded<T> {
    #[must_use]
    pub fn new(stream: T, connection: Arc<Connection>) -> Self {
        let (read, turn) = (BytesMut::new(), Turn::Reading);
        Self { stream, connection, read, searched: 0, line: 0, head: 0, turn, garbled: false, dropping: None }
    }

    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Searches for the empty line at the end of a head. A body from an anonymous connection is searched too: it is not
    /// handled, so nothing depends on where its lines end.
    fn find_head(&mut self) {
        while let Some(length) = memchr(b'\n', self.read.get(self.searched..).unwrap_or_default()) {
            let end = self.searched + length;
            let line = self.read.get(self.line..end).unwrap_or_default();
            if line.iter().all(|byte| *byte == b'\r') {
                return self.pass_on_next(end + 1);
            }
            (self.searched, self.line) = (end + 1, end + 1);
        }
        self.searched = self.read.len();
        if !self.garbled && !may_begin_request(&self.read) {
            // Refused at once, without waiting for the end of a head. Only once, so that the server never holds more.
            self.garbled = true;
            self.pass_on_next(self.read.len());
        }
    }

    fn pass_on_next(&mut self, length: usize) {
        (self.searched, self.line, self.head) = (0, 0, length);
    }

    /// Passes on at most `most` bytes of `read`.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>, most: usize) -> usize {
        let length = self.read.len().min(most).min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(length));
        if self.read.is_empty() {
            // Frees its memory.
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
    /// Reads until there is a whole head and passes it on, so that a slow or endless one takes no memory of the server.
    fn read_head(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.find_head();
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
                // The server handles an incomplete head.
                self.pass_on_next(self.read.len());
            } else {
                self.read.extend_from_slice(piece.filled());
                self.find_head();
            }
        }
        self.pass_on_head(buffer)
    }

    /// Reads an upgraded connection once what was read before has been handled.
    fn read_upgraded(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_discarding() {
            self.dropping = Some(DROPPED);
            return self.drop_the_rest(context, DROPPED);
        }
        if !self.connection.may_read(context.waker()) {
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

    /// Reads and drops what comes, a little at a time, and then ends the stream. The register closes it if that takes long.
    fn drop_the_rest(&mut self, context: &mut Context<'_>, left: u32) -> Poll<io::Result<()>> {
        let mut piece = [0; AHEAD];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        let dropped = u32::try_from(piece.filled().len()).unwrap_or(u32::MAX);
        if dropped == 0 || dropped >= left {
            return Poll::Ready(Ok(()));
        }
        self.dropping = Some(left - dropped);
        // Yields to other connections.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// The head is too long. A connection that never had an answer gets one, if it can be written at once.
    fn refuse(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        (self.dropping, self.read) = (Some(DROPPED), BytesMut::new());
        if self.connection.is_unused() {
            let written = Pin::new(&mut self.stream).poll_write(context, TOO_LARGE);
            if written.is_ready() {
                let _ = Pin::new(&mut self.stream).poll_flush(context);
            }
        }
        self.drop_the_rest(context, DROPPED)
    }
}

/// Whether a request of HTTP/1 may begin with these bytes.
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
        let this = self.get_mut();
        let connection = Arc::clone(&this.connection);
        if connection.is_closing() {
            // What was read before is not served.
            (this.read, this.head) = (BytesMut::new(), 0);
        }
        if let Some(left) = this.dropping {
            return this.drop_the_rest(context, left);
        }
        if connection.is_authenticated() {
            if this.read.is_empty() {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            this.pass_on(buffer, usize::MAX);
            return Poll::Ready(Ok(()));
        }
        if connection.is_upgraded() {
            return this.read_upgraded(context, buffer);
        }
        if this.head > 0 {
            return this.pass_on_head(buffer);
        }
        if this.turn == Turn::Head {
            // Yields to other connections before the next head.
            context.waker().wake_by_ref();
            this.turn = Turn::Over;
            return Poll::Pending;
        }
        if this.turn == Turn::Over {
            connection.register_reader(context.waker());
            if !connection.has_no_request() || connection.is_write_blocked() {
                // The reader is woken when the request has ended and its answer was written.
                return Poll::Pending;
            }
            this.turn = Turn::Reading;
        }
        this.read_head(context, buffer)
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
