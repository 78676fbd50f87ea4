//! A socket that its register can end: to whoever reads, it looks as if the peer had closed it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Connection;
use super::offers::Offers;

/// A socket and its place among all connections, given back with it.
#[derive(Debug)]
pub struct Kept {
    socket: TcpStream,
    connection: Arc<Connection>,
    offers: Offers,
}

impl Kept {
    /// A socket on `connection`.
    #[must_use]
    pub fn new(socket: TcpStream, connection: Arc<Connection>) -> Self {
        Self { socket, connection, offers: Offers::default() }
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Its place.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.connection.closed();
    }
}

impl AsyncRead for Kept {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, connection, offers } = self.get_mut();
        if connection.is_over() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(socket).poll_read(context, buffer);
        match &read {
            Poll::Ready(_) if buffer.filled().len() > before => {
                offers.ignore(buffer.filled_mut().get_mut(before..).unwrap_or_default());
                connection.heard();
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                connection.awaits(context.waker());
                // It may have been ended between the first look and the wish to be woken.
                if connection.is_over() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        read
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, connection, .. } = self.get_mut();
        watched(connection, context, |context| Pin::new(socket).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, connection, .. } = self.get_mut();
        watched(connection, context, |context| Pin::new(socket).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for by the server once it has written all that it has.
        let Self { socket, connection, .. } = self.get_mut();
        connection.is_taken();
        Pin::new(socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

/// A write, of which the connection knows whether the peer takes it.
fn watched(
    connection: &Connection,
    context: &mut Context<'_>,
    write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let cut = || Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
    if connection.is_cut() {
        return cut();
    }
    let written = write(context);
    if written.is_pending() {
        connection.is_not_taken(context.waker());
        // It may have been cut between the first look and the wish to be woken.
        if connection.is_cut() {
            return cut();
        }
    }
    written
}
