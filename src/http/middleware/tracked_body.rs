//! The body of every answer: holds the permit of its request until it has ended, and is sent in pieces.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody, None as NoBody};
use actix_web::web::Bytes;

use crate::http::auth::RequestPermit;
use crate::http::connections::RequestInProgress;

/// Bytes of an answer given to the server at once: larger pieces are no quicker.
const PIECE: usize = 64 * 1024;

/// The same for callers without a token, who may be many and read nothing.
const ANONYMOUS_PIECE: usize = 8 * 1024;

/// An answer's body, with what lasts until it has ended. It is given out in pieces, since the server copies each piece
/// whole and keeps it until the caller has taken it. It also writes for as long as a socket takes more, which may be a
/// megabyte, so callers without a token get one piece a turn.
#[derive(Debug)]
pub struct TrackedBody {
    body: BoxBody,
    /// What of a chunk is still to be given out; boxed, since most answers are one piece.
    rest: Option<Box<Bytes>>,
    piece: usize,
    /// Other connections have their turn before the next piece.
    yields: bool,
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
        Self { body, rest: None, piece, yields: false, _permit: permit, _in_progress: in_progress }
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
        if std::mem::take(&mut self.yields) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
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
        self.yields = piece == ANONYMOUS_PIECE && self.rest.is_some();
        Poll::Ready(Some(Ok(first)))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_caller_without_a_token_gets_one_piece_a_turn_and_all_of_them() {
        for (is_known, pieces) in [(false, 10), (true, 2)] {
            let body = Bytes::from(vec![b'x'; 10 * ANONYMOUS_PIECE]).boxed();
            let mut body = TrackedBody::new(body, is_known, None, None);
            let (mut context, mut lengths, mut turns) = (Context::from_waker(Waker::noop()), Vec::new(), 1);
            loop {
                match Pin::new(&mut body).poll_next(&mut context) {
                    Poll::Ready(Some(piece)) => lengths.push(piece.unwrap().len()),
                    Poll::Ready(None) => break,
                    Poll::Pending => turns += 1,
                }
            }
            assert_eq!((lengths.len(), lengths.iter().sum()), (pieces, 10 * ANONYMOUS_PIECE));
            assert_eq!(turns, if is_known { 1 } else { pieces });
        }
    }
}
