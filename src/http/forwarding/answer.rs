//! The answer of another replica, as it is passed back. A short one is complete before its head is passed on, so that a request
//! whose answer breaks off can still be asked again; a long one passes as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, BytesMut};
use hyper::Response;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::time::{Instant, timeout_at};

use super::client::Lent;
use super::fields;
use super::metrics::{InFlight, Outcome};

/// The longest answer that is complete before its head is passed on.
const SHORT: u64 = 64 * 1024;

/// The media type of a stream that its client opens again when it ends.
const EVENT_STREAM: &str = "text/event-stream";

/// The answer as it is passed back, or why it broke off.
pub(super) async fn passed_back(
    answer: Response<Incoming>,
    (method, lent, mut in_flight): (&Method, Lent, InFlight),
    deadline: Instant,
) -> Result<HttpResponse, String> {
    let (head, mut incoming) = answer.into_parts();
    let status = StatusCode::from_u16(head.status.as_u16()).map_err(|fault| fault.to_string())?;
    let text = |name| head.headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let length: Option<u64> = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let is_event_stream = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with(EVENT_STREAM));
    let has_none = *method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
    in_flight.ended(Outcome::Answered);
    let body = if has_none {
        lent.keep();
        Absent(length.filter(|_| *method == Method::HEAD)).boxed()
    } else if let Some(length) = length.filter(|length| *length <= SHORT) {
        let whole = timeout_at(deadline, collect(&mut incoming, length)).await;
        let whole = whole.unwrap_or_else(|_| Err("its answer did not end in time".to_owned()));
        let whole = whole.inspect_err(|_| in_flight.ended(Outcome::NoAnswer))?;
        lent.keep();
        whole.boxed()
    } else {
        Passing { incoming, length, is_event_stream, held: Some((lent, in_flight)) }.boxed()
    };
    let mut response = HttpResponse::with_body(status, body);
    fields::of_answer(&head.headers, response.headers_mut());
    Ok(response)
}

async fn collect(incoming: &mut Incoming, length: u64) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    loop {
        match std::future::poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context)).await {
            None if whole.len() as u64 == length => return Ok(whole.freeze()),
            None => return Err("its answer broke off".to_owned()),
            Some(Err(fault)) => return Err(fault.to_string()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if whole.is_empty() && data.len() as u64 == length {
                    // All of it, without a copy. The end is read for the connection's sake.
                    let ended = std::future::poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context)).await;
                    return if ended.is_none() {
                        Ok(data)
                    } else {
                        Err("its answer is longer than it said".to_owned())
                    };
                }
                whole.extend_from_slice(&data);
            }
        }
    }
}

/// A body that is not sent, with the length that it would have.
struct Absent(Option<u64>);

impl MessageBody for Absent {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        self.0.map_or(BodySize::None, BodySize::Sized)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        Poll::Ready(None)
    }
}

/// A body that passes as it comes: no more is read than the caller takes. Dropped before its end, it closes the connection to
/// the other replica, which learns by that.
struct Passing {
    incoming: Incoming,
    length: Option<u64>,
    is_event_stream: bool,
    held: Option<(Lent, InFlight)>,
}

impl MessageBody for Passing {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        self.length.map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        let passing = self.get_mut();
        loop {
            let next = ready!(Pin::new(&mut passing.incoming).poll_frame(context));
            let Some(frame) = next else {
                if let Some((lent, _)) = passing.held.take() {
                    lent.keep();
                }
                return Poll::Ready(None);
            };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => return Poll::Ready(Some(Ok(data))),
                // Trailers.
                Ok(Err(_)) => {}
                // Its client opens it again.
                Err(_) if passing.is_event_stream => {
                    passing.held = None;
                    return Poll::Ready(None);
                }
                Err(fault) => return Poll::Ready(Some(Err(io::Error::other(fault)))),
            }
        }
    }
}
