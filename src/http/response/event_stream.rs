//! One caller's stream of events: a body that actix asks for more as long as the caller takes it.
//!
//! It holds a subscription, a timer and nothing that grows. Where the caller takes nothing, actix asks for nothing, the
//! log overtakes the subscription, and the stream is over; the socket itself is given up by the system once what was
//! written has not been taken for as long as the server allows.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::broadcasts::{End, Event, Id, Item, Subscription};
use crate::http::auth::authorization::Authorization;
use crate::http::response::sse::{self, Block, Name};

/// When a client whose stream has ended comes back, in milliseconds: soon, and not all at once.
const RETRY_MS: std::ops::RangeInclusive<u64> = 1000..=5000;

/// When a client comes back that cannot be served now: spread wide, so that not all come at once after a restart.
const LATER_MS: std::ops::RangeInclusive<u64> = 5000..=30_000;

/// When a client is to come back after its stream has ended.
fn soon() -> Duration {
    Duration::from_millis(fastrand::u64(RETRY_MS))
}

/// When a client is to come back who cannot be served now.
#[must_use]
pub fn later() -> Duration {
    Duration::from_millis(fastrand::u64(LATER_MS))
}

/// The body of a stream.
#[derive(Debug)]
pub struct EventStream {
    subscription: Subscription,
    authorization: Authorization,
    /// Only broadcasts of this name.
    message: Option<Box<str>>,
    heartbeat: Duration,
    /// Fires no later than a heartbeat is due.
    alarm: Pin<Box<Sleep>>,
    last_sent: Instant,
    /// The last id that the client was sent.
    last_id: Id,
    begun: bool,
    over: bool,
}

impl EventStream {
    /// A stream of what `subscription` hears, for as long as its listener may. A sign of life is sent when nothing else was
    /// for about `heartbeat`.
    #[must_use]
    pub fn new(
        subscription: Subscription,
        authorization: Authorization,
        message: Option<String>,
        heartbeat: Duration,
    ) -> Self {
        // A little sooner, each client differently, so that the signs of thousands are not sent all at once.
        let heartbeat = heartbeat.mul_f64(1.0 - fastrand::f64() / 8.0);
        let (now, last_id) = (Instant::now(), subscription.cursor());
        let expires_at = authorization.expires_at();
        Self {
            subscription,
            authorization,
            message: message.map(String::into_boxed_str),
            heartbeat,
            alarm: Box::pin(sleep_until(expires_at.map_or(now + heartbeat, |at| at.min(now + heartbeat)))),
            last_sent: now,
            last_id,
            begun: false,
            over: false,
        }
    }

    /// Puts the stream beside an answer without a body, past all layers: what each of them would wrap around it, a
    /// listener would hold for as long as it listens. [`EventStream::of`] makes it the body.
    #[must_use]
    pub fn into_answer(self, mut answer: HttpResponse) -> HttpResponse {
        answer.extensions_mut().insert(self);
        answer
    }

    /// The stream that was put beside an answer.
    pub fn of<B>(answer: &mut HttpResponse<B>) -> Option<Self> {
        answer.extensions_mut().remove()
    }

    /// What a stream begins with. A reset comes before the new cursor: a client that loses the connection between the two
    /// must not take the cursor for its own.
    fn opening(&self) -> Bytes {
        let mut out = Vec::with_capacity(192);
        let mut retry = Some(soon());
        if self.subscription.is_reset() {
            Block { retry: retry.take(), ..sse::mark(Name::Reset, self.last_id) }.write(&mut out);
        }
        Block { retry, ..sse::mark(Name::Ready, self.last_id) }.write(&mut out);
        out.into()
    }

    /// What a client is told whose stream ends with the instance: to come back soon where another replica serves it.
    fn draining(&self) -> Bytes {
        sse::overloaded("draining", if self.subscription.has_moved() { soon() } else { later() })
    }

    /// What the next item is to the client, if anything.
    fn written(&mut self, item: &Item) -> Option<Bytes> {
        match item {
            // Sent in the opening.
            Item::Reset => None,
            Item::Lost { from, to } => Some(sse::lost(*from, *to)),
            Item::Entry(entry) => {
                let wanted = match (&self.message, &entry.event) {
                    (Some(message), Event::Broadcast(broadcast)) => **message == *broadcast.message,
                    (None, _) | (_, Event::Gap(_)) => true,
                };
                wanted.then(|| sse::entry(entry))
            }
        }
    }

    /// For then, or for when the token expires.
    fn set_alarm(&mut self, at: Instant) {
        let expires_at = self.authorization.expires_at();
        self.alarm.as_mut().reset(expires_at.map_or(at, |expires_at| expires_at.min(at)));
    }

    /// The heartbeat, if it is due; with it, how far a filtered stream has got.
    fn poll_heartbeat(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        while self.alarm.as_mut().poll(context).is_ready() {
            if !self.authorization.is_valid() {
                // The stream ends when it is polled again.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let (now, due) = (Instant::now(), self.last_sent + self.heartbeat);
            if due > now {
                // Something was sent meanwhile.
                self.set_alarm(due);
                continue;
            }
            self.set_alarm(now + self.heartbeat);
            self.last_sent = now;
            let cursor = self.subscription.cursor();
            if cursor == self.last_id {
                return Poll::Ready(Bytes::from_static(sse::HEARTBEAT));
            }
            self.last_id = cursor;
            let mut out = sse::HEARTBEAT.to_vec();
            sse::mark(Name::Cursor, cursor).write(&mut out);
            return Poll::Ready(out.into());
        }
        Poll::Pending
    }
}

impl MessageBody for EventStream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let stream = &mut *self;
        if stream.over {
            return Poll::Ready(None);
        }
        if !stream.authorization.is_valid() {
            stream.over = true;
            // The tokens of an instance that was removed may have gone with it: its clients are told as on any drain.
            let told = stream.subscription.is_closed().then(|| Ok(stream.draining()));
            return Poll::Ready(told);
        }
        if !std::mem::replace(&mut stream.begun, true) {
            return Poll::Ready(Some(Ok(stream.opening())));
        }
        loop {
            match stream.subscription.poll_next(context) {
                Poll::Ready(Ok(item)) => {
                    if let Some(written) = stream.written(&item) {
                        stream.last_id = stream.subscription.cursor();
                        stream.last_sent = Instant::now();
                        return Poll::Ready(Some(Ok(written)));
                    }
                }
                Poll::Ready(Err(end)) => {
                    stream.over = true;
                    return Poll::Ready(match end {
                        // The client comes back after `retry`, and then gets what it missed.
                        End::Overtaken => None,
                        End::Draining => Some(Ok(stream.draining())),
                    });
                }
                Poll::Pending => return stream.poll_heartbeat(context).map(|heartbeat| Some(Ok(heartbeat))),
            }
        }
    }
}

#[cfg(test)]
mod tests;
