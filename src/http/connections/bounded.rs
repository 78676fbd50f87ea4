//! A stream of which no more is read ahead than a caller without a token may make the bridge hold.
//!
//! The server below reads as much as there is, up to 128 KiB, before it looks at any of it, and keeps up to 16 requests
//! that it has understood for later. So what comes before a token was accepted is counted here: at most [`AHEAD`] bytes
//! that the server has not dealt with, and nothing more while a request is under way. Once a token was accepted, the
//! stream is passed through as it is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Connection;

/// Bytes that a connection may have unparsed before a token was accepted on it: twice the longest head that other servers
/// take.
pub const AHEAD: usize = 16 * 1024;

/// How much is read at once: a whole head, if it is not unusually long.
const PIECE: usize = 8 * 1024;

/// How much of what nobody will look at is read at most, so that a peer that is still sending gets to read what it was
/// answered: more than a caller with a wrong token sends.
const DROPPED: u32 = 256 * 1024;

/// What is said to one whose very first head does not end.
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A stream and its connection.
#[derive(Debug)]
pub struct Bounded<T> {
    stream: T,
    connection: Arc<Connection>,
    /// Bytes read since the server last had dealt with everything before them.
    ahead: u32,
    /// Of these, those after the last empty line: the beginning of a head.
    head: u32,
    /// Characters of the line that has begun.
    line: u32,
    /// The server has had the opportunity to deal with what was read.
    paused: bool,
    /// It was too much: what still comes is dropped, so much of it yet.
    dropping: Option<u32>,
}

impl<T> Bounded<T> {
    /// What is read from `stream`, which belongs to `connection`.
    #[must_use]
    pub fn new(stream: T, connection: Arc<Connection>) -> Self {
        Self { stream, connection, ahead: 0, head: 0, line: 0, paused: false, dropping: None }
    }

    /// Its connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Follows the lines, to know where the last head ended. A body without a token is nobody's, so that nothing depends on
    /// its not being taken for lines.
    fn count(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.ahead = self.ahead.saturating_add(1);
            self.head = self.head.saturating_add(1);
            match byte {
                b'\n' if self.line == 0 => self.head = 0,
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line = self.line.saturating_add(1),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Bounded<T> {
    /// Reads what there is room for.
    fn read_some(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>, room: usize) -> Poll<io::Result<()>> {
        let mut piece = [0; PIECE];
        let length = room.min(PIECE).min(buffer.remaining());
        let mut piece = ReadBuf::new(piece.get_mut(..length).unwrap_or_default());
        match Pin::new(&mut self.stream).poll_read(context, &mut piece) {
            Poll::Ready(read) => {
                self.count(piece.filled());
                buffer.put_slice(piece.filled());
                Poll::Ready(read)
            }
            Poll::Pending => self.pause(),
        }
    }

    /// The server is to deal with what it has.
    fn pause<R>(&mut self) -> Poll<R> {
        self.paused = true;
        Poll::Pending
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
        self.dropping = Some(DROPPED);
        if self.connection.is_new() {
            let written = Pin::new(&mut self.stream).poll_write(context, TOO_LARGE);
            if written.is_ready() {
                let _ = Pin::new(&mut self.stream).poll_flush(context);
            }
        }
        self.drop_the_rest(context, DROPPED)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stranger = self.get_mut();
        let connection = Arc::clone(&stranger.connection);
        if let Some(left) = stranger.dropping {
            return stranger.drop_the_rest(context, left);
        }
        if connection.is_known() {
            return Pin::new(&mut stranger.stream).poll_read(context, buffer);
        }
        if connection.is_upgraded() {
            let Some(room) = connection.room(context.waker()) else { return Poll::Pending };
            let before = buffer.filled().len();
            ready!(stranger.read_some(context, buffer, room))?;
            connection.holds(buffer.filled().len() - before);
            return Poll::Ready(Ok(()));
        }
        if stranger.paused {
            connection.awaits(context.waker());
            if !connection.is_without_request() || connection.waits_to_be_taken() {
                // Looked at again when the request has ended and its answer was taken.
                return Poll::Pending;
            }
            // All that was complete has been dealt with.
            (stranger.ahead, stranger.paused) = (stranger.head, false);
            if stranger.ahead as usize >= AHEAD {
                return stranger.refuse(context);
            }
        }
        let room = AHEAD.saturating_sub(stranger.ahead as usize);
        if room == 0 {
            context.waker().wake_by_ref();
            return stranger.pause();
        }
        stranger.read_some(context, buffer, room)
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
