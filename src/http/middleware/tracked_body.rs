//! The body of every answer: holds the permit of its request until it has ended, and is sent in pieces.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody, None as NoBody};
use actix_web::web::Bytes;

use crate::http::auth::RequestPermit;
use crate::http::connections::Request as RequestInProgress;

/// Bytes of an answer given to the server at once: larger pieces are no quicker.
const PIECE: usize = 64 * 1024;

/// The same for callers without a token, who may be many and read nothing.
const ANONYMOUS_PIECE: usize = 8 * 1024;

/// An answer's body, with what lasts until it has ended. It is given out in pieces, since the server copies each piece
/// whole and keeps it until the caller has taken it.
#[derive(Debug)]
pub struct TrackedBody {
    body: BoxBody,
    /// What of a chunk is still to be given out; boxed, since most answers are one piece.
    rest: Option<Box<Bytes>>,
    piece: usize,
    _permit: Option<RequestPermit>,
    _in_progress: Option<RequestInProgress>,
}

impl TrackedBody {
    pub(super) fn new(
        body: BoxBody,
        is_known: bool,
        permit: Option<RequestPermit>,
        in_progress: Option<RequestInProgress>,
    ) -> Self {
        let piece = if is_known { PIECE } else { ANONYMOUS_PIECE };
        Self { body, rest: None, piece, _permit: permit, _in_progress: in_progress }
    }

    /// No body at all.
    pub(super) fn empty(in_progress: Option<RequestInProgress>) -> Self {
        Self::new(NoBody::new().boxed(), true, None, in_progress)
    }
}

impl MessageBody for TrackedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let piece = self.piece;
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(chunk)) if chunk.len() > piece => Box::new(chunk),
                other => return Poll::Ready(other),
            },
        };
        let first = rest.split_to(piece.min(rest.len()));
        self.rest = Some(rest).filter(|rest| !rest.is_empty());
        Poll::Ready(Some(Ok(first)))
    }
}
