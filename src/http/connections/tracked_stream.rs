//! A socket that the register can close: the server then reads its end, as if the peer had closed it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::offers::Offers;

/// A socket and its connection, which leaves the register when the socket is dropped.
#[derive(Debug)]
pub struct TrackedStream {
    socket: TcpStream,
    connection: Arc<Connection>,
    offers: Offers,
}

impl TrackedStream {
    #[must_use]
    pub fn new(socket: TcpStream, connection: Arc<Connection>) -> Self {
        Self { socket, connection, offers: Offers::default() }
    }

    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for TrackedStream {
    fn drop(&mut self) {
        self.connection.leave();
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, connection, offers } = self.get_mut();
        if connection.is_closing() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(socket).poll_read(context, buffer);
        match &read {
            Poll::Ready(_) if buffer.filled().len() > before => {
                offers.ignore(buffer.filled_mut().get_mut(before..).unwrap_or_default());
                connection.received();
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                connection.register_reader(context.waker());
                // It may have been closed since the check above and before the waker was registered.
                if connection.is_closing() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, connection, .. } = self.get_mut();
        tracked(connection, context, |context| Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, connection, .. } = self.get_mut();
        tracked(connection, context, |context| Pin::new(socket).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes once it has written all that it has.
        let Self { socket, connection, .. } = self.get_mut();
        connection.write_done();
        Pin::new(socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

/// A write that tells the connection when it is blocked.
fn tracked(
    connection: &Connection,
    context: &mut Context<'_>,
    write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let aborted = || Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
    if connection.is_aborted() {
        return aborted();
    }
    let written = write(context);
    if written.is_pending() {
        connection.write_blocked(context.waker());
        // It may have been aborted since the check above and before the waker was registered.
        if connection.is_aborted() {
            return aborted();
        }
    }
    written
}
