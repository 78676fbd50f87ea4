//! What a connection hears without having asked: each broadcast of its instance, once.
//!
//! A connection is one more listener of the broadcasts, a position in its log. Where broadcasts may have been missed the
//! protocol has no word for it, so the listener is told what a till acts upon: `updatepos`. A place at the broadcasts that is not
//! to be had is asked for again at every ping, and what was missed meanwhile is told in the same way: a till sells on
//! without hearing, and refuses nobody.

use std::future::pending;

use actix_web::web::Bytes;
use bytestring::ByteString;

use super::frame;
use crate::broadcasts::{Broadcasts, End, Entry, Event, Form, Item, Since, Subscription};
use crate::protocol::Format;

/// The broadcast that tells a till to fetch everything anew.
const UPDATEPOS: &str = "updatepos";

/// Whether a connection hears broadcasts.
#[derive(Debug)]
pub(super) enum NativeSubscription {
    /// It may not, or there is nothing more to be heard.
    No,
    /// It may, and waits for a place at the broadcasts.
    Waiting,
    /// It hears everything from its beginning on.
    From(Box<Subscription>),
}

/// What was heard.
pub(super) enum Received {
    /// A frame to pass on.
    Frame(ByteString),
    /// More than the log holds was missed, since the peer takes so slowly what is sent to it.
    Overtaken,
}

impl NativeSubscription {
    /// From now on this connection hears `broadcasts` for `listener`, if there is a place. What was missed since a place was first wanted is
    /// returned as the frame that says so.
    pub(super) fn begin(&mut self, broadcasts: &Broadcasts, listener: &str, format: Format) -> Option<ByteString> {
        if matches!(self, Self::From(_)) {
            return None;
        }
        let waited = self.waits();
        *self = broadcasts
            .subscribe(listener, Since::Now)
            .map_or(Self::Waiting, |subscription| Self::From(Box::new(subscription)));
        (waited && !self.waits()).then(|| missed(format).into())
    }

    /// Whether it has not begun.
    pub(super) fn is_off(&self) -> bool {
        matches!(self, Self::No)
    }

    /// Whether a place is still to be had.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    /// The next thing heard. Safe to drop at any moment.
    pub(super) async fn next(&mut self, format: Format) -> Received {
        let Self::From(subscription) = self else { return pending().await };
        match subscription.next().await {
            Ok(Item::Entry(entry)) => Received::Frame(written(&entry, format)),
            Ok(Item::Reset | Item::Lost { .. }) => Received::Frame(missed(format).into()),
            Err(End::Overtaken) => Received::Overtaken,
            // The connection itself is told to end by the same wish.
            Err(End::Draining) => {
                *self = Self::No;
                pending().await
            }
        }
    }
}

/// An entry as a frame, written once for all listeners of a format.
fn written(entry: &Entry, format: Format) -> ByteString {
    let form = match format {
        Format::Json => Form::Json,
        Format::Json5 => Form::Json5,
    };
    let write = |entry: &Entry| {
        Bytes::from(match &entry.event {
            Event::Broadcast(broadcast) => frame::broadcast(&broadcast.message, Some(&broadcast.parameters), format),
            Event::Gap(_) => missed(format),
        })
    };
    // What was text when it was written is text.
    ByteString::try_from(entry.written(form, write)).unwrap_or_default()
}

fn missed(format: Format) -> String {
    frame::broadcast(UPDATEPOS, None, format)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::value::RawValue;
    use tokio::time::timeout;

    use super::*;
    use crate::broadcasts::{Broadcast, Epoch, Gap, Reason, SubscriberLimit};
    use crate::protocol::Body;

    const UPDATE: &str = r#"{"type":"broadcast","result":{"message":"updatepos","parameters":{}}}"#;

    fn broadcast(message: &str) -> Event {
        let parameters = Body::from(&*RawValue::from_string("{\"n\":1.50}".to_owned()).unwrap());
        let (message, received_at, maybe_duplicate) = (message.into(), Timestamp::UNIX_EPOCH, false);
        Event::Broadcast(Broadcast { message, parameters, received_at, maybe_duplicate })
    }

    async fn heard(subscription: &mut NativeSubscription, format: Format) -> Option<String> {
        match timeout(Duration::from_millis(20), subscription.next(format)).await {
            Ok(Received::Frame(text)) => Some(text.to_string()),
            Ok(Received::Overtaken) => Some("overtaken".to_owned()),
            Err(_) => None,
        }
    }

    #[tokio::test]
    async fn each_broadcast_is_heard_once_in_either_format_and_a_gap_is_one_updatepos() {
        let broadcasts = Broadcasts::new(Epoch::new(7), 8, SubscriberLimit::new(2, 2));
        let (mut json, mut json5) = (NativeSubscription::No, NativeSubscription::No);
        broadcasts.publish(broadcast("before"));
        assert_eq!(json.begin(&broadcasts, "one", Format::Json), None);
        assert_eq!(json5.begin(&broadcasts, "one", Format::Json5), None);
        assert_eq!(json.begin(&broadcasts, "one", Format::Json), None, "it hears already");
        broadcasts.publish(broadcast("it's"));
        broadcasts.publish(Event::Gap(Gap {
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::UNIX_EPOCH,
            reason: Reason::NoConnection,
        }));
        let frame = r#"{"type":"broadcast","result":{"message":"it's","parameters":{"n":1.50}}}"#;
        assert_eq!(heard(&mut json, Format::Json).await.as_deref(), Some(frame));
        assert_eq!(heard(&mut json, Format::Json).await.as_deref(), Some(UPDATE));
        assert_eq!(heard(&mut json, Format::Json).await, None);
        let frame = r#"{type:'broadcast',result:{message:"it's",parameters:{n:1.50}}}"#;
        assert_eq!(heard(&mut json5, Format::Json5).await.as_deref(), Some(frame));
        let frame = "{type:'broadcast',result:{message:'updatepos',parameters:{}}}";
        assert_eq!(heard(&mut json5, Format::Json5).await.as_deref(), Some(frame));
    }

    #[tokio::test]
    async fn who_waited_for_a_place_is_told_that_something_may_have_been_missed() {
        let broadcasts = Broadcasts::new(Epoch::new(7), 8, SubscriberLimit::new(1, 1));
        let (mut first, mut second) = (NativeSubscription::No, NativeSubscription::No);
        first.begin(&broadcasts, "one", Format::Json);
        assert_eq!(second.begin(&broadcasts, "one", Format::Json), None);
        assert!(second.waits() && !second.is_off());
        drop(first);
        assert_eq!(second.begin(&broadcasts, "one", Format::Json).as_deref(), Some(UPDATE));
        broadcasts.publish(broadcast("news"));
        assert!(heard(&mut second, Format::Json).await.unwrap().contains("news"));
    }

    #[tokio::test]
    async fn who_is_overtaken_is_told_so_and_at_the_end_nothing_more_is_heard() {
        let broadcasts = Broadcasts::new(Epoch::new(7), 1, SubscriberLimit::new(2, 2));
        let (mut slow, mut quick) = (NativeSubscription::No, NativeSubscription::No);
        slow.begin(&broadcasts, "one", Format::Json);
        quick.begin(&broadcasts, "one", Format::Json);
        assert_eq!(heard(&mut slow, Format::Json).await, None);
        for _ in 0..3 {
            broadcasts.publish(broadcast("news"));
        }
        assert_eq!(heard(&mut slow, Format::Json).await.as_deref(), Some("overtaken"));
        broadcasts.close();
        // It had heard nothing yet, so the log tells it what it no longer holds.
        assert_eq!(heard(&mut quick, Format::Json).await.as_deref(), Some(UPDATE));
        assert!(heard(&mut quick, Format::Json).await.unwrap().contains("news"));
        assert_eq!(heard(&mut quick, Format::Json).await, None);
        assert!(quick.is_off());
    }
}
