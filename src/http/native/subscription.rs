//! The broadcasts of a connection's instance, each once.
//!
//! A connection is one more subscriber: a position in the log of broadcasts. The protocol has no word for broadcasts that may
//! have been missed, so the connection gets `updatepos`, after which a till fetches everything again. Where the limit of
//! subscribers refuses a connection, it tries again at each ping and gets `updatepos` once it is in; a till never gets an
//! error for it.

use std::future::pending;

use actix_web::web::Bytes;
use bytestring::ByteString;

use super::frame;
use crate::broadcasts::{Broadcasts, End, Entry, Event, Form, Item, Since, Subscription};
use crate::protocol::Format;

/// The broadcast that makes a till fetch everything again.
const UPDATEPOS: &str = "updatepos";

#[derive(Debug)]
pub(super) enum NativeSubscription {
    /// Not yet allowed, or the bridge shuts down.
    Off,
    /// The limit of subscribers refused it; it is tried again.
    Waiting,
    On(Box<Subscription>),
}

pub(super) enum Received {
    Frame(ByteString),
    /// The peer reads so slowly that the log no longer holds its next entry.
    Overtaken,
}

impl NativeSubscription {
    /// Subscribes `listener` to what comes from now on, if the limit of subscribers allows it. Returns the frame that says that
    /// broadcasts may have been missed, if it had to wait before.
    pub(super) fn start(&mut self, broadcasts: &Broadcasts, listener: &str, format: Format) -> Option<ByteString> {
        if matches!(self, Self::On(_)) {
            return None;
        }
        let waited = self.is_waiting();
        *self = broadcasts
            .subscribe(listener, Since::Now)
            .map_or(Self::Waiting, |subscription| Self::On(Box::new(subscription)));
        (waited && !self.is_waiting()).then(|| missed(format).into())
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self, format: Format) -> Received {
        let Self::On(subscription) = self else { return pending().await };
        match subscription.next().await {
            Ok(Item::Entry(entry)) => Received::Frame(written(&entry, format)),
            Ok(Item::Reset | Item::Lost { .. }) => Received::Frame(missed(format).into()),
            Err(End::Overtaken) => Received::Overtaken,
            // The session closes the connection on its own.
            Err(End::Draining) => {
                *self = Self::Off;
                pending().await
            }
        }
    }
}

/// An entry as a frame, rendered once for all connections of a format.
fn written(entry: &Entry, format: Format) -> ByteString {
    let write = |entry: &Entry| {
        Bytes::from(match &entry.event {
            Event::Broadcast(broadcast) => frame::broadcast(&broadcast.message, Some(&broadcast.parameters), format),
            Event::Gap(_) => missed(format),
        })
    };
    // `write` above renders UTF-8.
    ByteString::try_from(entry.written(Form::Frame(format), write)).unwrap_or_default()
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
        let (mut json, mut json5) = (NativeSubscription::Off, NativeSubscription::Off);
        broadcasts.publish(broadcast("before"));
        assert_eq!(json.start(&broadcasts, "one", Format::Json), None);
        assert_eq!(json5.start(&broadcasts, "one", Format::Json5), None);
        assert_eq!(json.start(&broadcasts, "one", Format::Json), None, "it hears already");
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
    async fn a_connection_that_had_to_wait_is_told_that_broadcasts_may_have_been_missed() {
        let broadcasts = Broadcasts::new(Epoch::new(7), 8, SubscriberLimit::new(1, 1));
        let (mut first, mut second) = (NativeSubscription::Off, NativeSubscription::Off);
        first.start(&broadcasts, "one", Format::Json);
        assert_eq!(second.start(&broadcasts, "one", Format::Json), None);
        assert!(second.is_waiting() && !second.is_off());
        drop(first);
        assert_eq!(second.start(&broadcasts, "one", Format::Json).as_deref(), Some(UPDATE));
        broadcasts.publish(broadcast("news"));
        assert!(heard(&mut second, Format::Json).await.unwrap().contains("news"));
    }

    #[tokio::test]
    async fn a_connection_that_reads_too_slowly_is_overtaken_and_a_shutdown_ends_the_subscription() {
        let broadcasts = Broadcasts::new(Epoch::new(7), 1, SubscriberLimit::new(2, 2));
        let (mut slow, mut quick) = (NativeSubscription::Off, NativeSubscription::Off);
        slow.start(&broadcasts, "one", Format::Json);
        quick.start(&broadcasts, "one", Format::Json);
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
