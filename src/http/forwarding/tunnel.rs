//! A connection that speaks another protocol than HTTP from here on: bytes pass as they come, both ways.
//!
//! No more is read on either side than the other side takes. Where one side ends, the other is closed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, UPGRADE};
use actix_web::rt;
use actix_web::web::Bytes;
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::upgrade::{self, Upgraded};
use hyper::{Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::task::AbortHandle;

use super::client::Lent;
use super::fields;
use super::metrics::InFlight;

/// What is read from the other replica at once. Nothing is held between two pieces: a till may say nothing for hours.
const PIECE: usize = 4 * 1024;

type Stream = TokioIo<Upgraded>;

/// The answer to an upgrade that the other replica made, or why it came to nothing.
pub(super) async fn joined(
    mut answer: Response<Incoming>,
    payload: Payload,
    (lent, in_flight): (Lent, InFlight),
) -> Result<HttpResponse, String> {
    let upgraded = upgrade::on(&mut answer).await.map_err(|fault| fault.to_string())?;
    let (reading, writing) = tokio::io::split(TokioIo::new(upgraded));
    let sending = rt::spawn(send(payload, writing)).abort_handle();
    let tunnel = Tunnel { reading, sending, _held: (lent, in_flight) };
    let mut response = HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS);
    let protocol = answer.headers().get(header::UPGRADE).map(|protocol| HeaderValue::from_bytes(protocol.as_bytes()));
    let protocol = protocol.and_then(Result::ok).ok_or("it names no protocol")?;
    response.upgrade(protocol);
    let mut response = response.message_body(tunnel).map_err(|fault| fault.to_string())?;
    let mut passed = actix_web::http::header::HeaderMap::new();
    fields::of_answer(answer.headers(), &mut passed);
    for (name, value) in passed.into_iter().filter(|(name, _)| *name != UPGRADE) {
        response.headers_mut().append(name, value);
    }
    Ok(response.map_into_boxed_body())
}

/// Sends what the caller sends, and ends with it.
async fn send(mut payload: Payload, mut to: WriteHalf<Stream>) {
    while let Some(Ok(bytes)) = payload.next().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        if to.flush().await.is_err() {
            return;
        }
    }
    // The other side ends its half as well, by which the caller's ends.
    let _ = to.shutdown().await;
}

/// What the other replica sends.
struct Tunnel {
    reading: ReadHalf<Stream>,
    sending: AbortHandle,
    _held: (Lent, InFlight),
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

impl MessageBody for Tunnel {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        let tunnel = self.get_mut();
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        let read = ready!(Pin::new(&mut tunnel.reading).poll_read(context, &mut piece));
        Poll::Ready(match read {
            // Whether it ended in order or not, there is nothing more to send.
            Err(_) => None,
            Ok(()) if piece.filled().is_empty() => None,
            Ok(()) => Some(Ok(Bytes::copy_from_slice(piece.filled()))),
        })
    }
}
