//! The body of a request that is passed on. A short one is read before anything is sent, so that it can be sent again where
//! nothing of it was; a long one passes through as it comes, once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use actix_web::web::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, timeout_at};

/// The longest body that is read before it is sent: a payment of a hundred products has a quarter of it.
const SHORT: u64 = 16 * 1024;

pub(super) enum Body {
    None,
    Whole(Bytes),
    Stream { payload: Payload, length: Option<u64> },
}

/// The length that a request announces; none where it comes in chunks.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok())
}

/// Whether a request has a body that may be read before it is sent.
pub(super) fn is_short(request: &ServiceRequest) -> bool {
    length(request.headers()).is_some_and(|length| (1..=SHORT).contains(&length))
}

impl Body {
    /// Takes the body of a request. One that is short is read where it `is_readable`.
    pub(super) async fn of(request: &mut ServiceRequest, is_readable: bool, deadline: Instant) -> Self {
        let (length, is_chunked) = (length(request.headers()), request.headers().contains_key(TRANSFER_ENCODING));
        let payload = request.take_payload();
        match length {
            None | Some(0) if !is_chunked => Self::None,
            Some(length) if length <= SHORT && is_readable => Self::read(payload, length, deadline).await,
            length => Self::Stream { payload, length },
        }
    }

    /// Reads a short body. What ends early passes on as far as it came, with its error or the rest after it.
    async fn read(mut payload: Payload, length: u64, deadline: Instant) -> Self {
        let mut read = BytesMut::new();
        loop {
            match timeout_at(deadline, payload.next()).await {
                Ok(Some(Ok(chunk))) => read.extend_from_slice(&chunk),
                Ok(None) => return Self::Whole(read.freeze()),
                Ok(Some(Err(error))) => return Self::continued(read, stream::iter([Err(error)]), length),
                Err(_) => return Self::continued(read, payload, length),
            }
        }
    }

    fn continued(read: BytesMut, rest: impl Stream<Item = Result<Bytes, PayloadError>> + 'static, length: u64) -> Self {
        let whole = stream::iter([Ok(read.freeze())]).chain(rest);
        Self::Stream { payload: Payload::Stream { payload: Box::pin(whole) }, length: Some(length) }
    }

    /// The same again, where there can be one.
    pub(super) fn copy(&self) -> Option<Self> {
        match self {
            Self::None => Some(Self::None),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Stream { .. } => None,
        }
    }

    /// As the router reads it.
    pub(super) fn into_payload(self) -> Payload {
        match self {
            Self::None => Payload::None,
            Self::Whole(bytes) => Payload::from(bytes),
            Self::Stream { payload, .. } => payload,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            whole @ Self::Whole(_) => {
                let Self::Whole(bytes) = std::mem::replace(whole, Self::None) else { return Poll::Ready(None) };
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream { payload, .. } => payload.poll_next_unpin(context).map(|next| {
                next.map(|chunk| chunk.map(Frame::data).map_err(|error| io::Error::other(error.to_string())))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { length, .. } => length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
