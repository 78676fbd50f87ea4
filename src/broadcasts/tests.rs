//! What the log promises: no hole, no repeat, losses are reported, and a slow subscription costs the others nothing.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures_util::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::*;
use crate::protocol::{Body, Format};

fn broadcast(message: &str) -> Event {
    let parameters = Body::from(&*RawValue::from_string("{}".to_owned()).unwrap());
    let received_at = Timestamp::UNIX_EPOCH;
    Event::Broadcast(Broadcast { message: Arc::from(message), parameters, received_at, maybe_duplicate: false })
}

fn broadcasts(history: usize, limit: usize) -> Broadcasts {
    Broadcasts::new(Epoch::new(0x1234_5678_9abc), history, SubscriberLimit::new(limit, limit))
}

/// What is to be heard without waiting: offsets, `L..` for what is lost, `R` for a reset, and how it ended.
fn hear(subscription: &mut Subscription) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(next) = subscription.next().now_or_never() {
        heard.push(match next {
            Ok(Item::Entry(entry)) => entry.id.offset.to_string(),
            Ok(Item::Lost { from, to }) => format!("L{}-{}", from.offset, to.offset),
            Ok(Item::Reset) => "R".to_owned(),
            Err(end) => {
                heard.push(end.to_string());
                break;
            }
        });
    }
    heard
}

#[test]
fn an_id_is_spelled_in_one_way_only() {
    let epoch = Epoch::new(u64::MAX);
    let id = Id { epoch, offset: 41 };
    assert_eq!(id.to_string().len(), "k3f9k3f9-41".len());
    assert!(id.to_string().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
    assert_eq!(Id::offset_in(epoch, &id.to_string()), Some(41));
    for text in [
        format!("{epoch}-041"),
        format!("{epoch}-+41"),
        format!("{epoch}-"),
        format!("{epoch}-41 "),
        epoch.to_string(),
        "-41".to_owned(),
        String::new(),
        format!("{epoch}-99999999999999999999"),
        format!("0{id}"),
    ] {
        assert_eq!(Id::offset_in(epoch, &text), None, "{text}");
    }
    assert_eq!(Epoch::new(0).to_string(), "00000000");
}

#[test]
fn whoever_resumes_hears_what_is_held_after_its_id_and_then_what_comes() {
    let broadcasts = broadcasts(3, 9);
    for number in 1..=5 {
        broadcasts.publish(broadcast(&number.to_string()));
    }
    let id = |offset| Id { offset, ..broadcasts.cursor() }.to_string();
    let resume = |text: &str| broadcasts.subscribe("one", Since::After(text)).unwrap();
    assert_eq!(hear(&mut broadcasts.subscribe("one", Since::Now).unwrap()), [""; 0]);
    assert_eq!(hear(&mut resume(&id(5))), [""; 0]);
    let mut listener = resume(&id(3));
    assert_eq!(hear(&mut listener), ["4", "5"]);
    broadcasts.publish(broadcast("6"));
    assert_eq!(hear(&mut listener), ["6"]);
    assert_eq!(hear(&mut resume(&id(3))), ["4", "5", "6"], "all that is held");
    assert_eq!(hear(&mut resume(&id(2))), ["L3-3", "4", "5", "6"], "one is lost");
    assert_eq!(hear(&mut resume(&id(0))), ["L1-3", "4", "5", "6"]);
    for unknown in [id(7), "other-3".to_owned(), String::new()] {
        let mut listener = resume(&unknown);
        assert_eq!(listener.cursor(), broadcasts.cursor());
        assert_eq!(hear(&mut listener), ["R"], "{unknown}");
    }
}

#[test]
fn a_listener_that_the_log_has_overtaken_is_over_and_the_others_hear_everything() {
    let broadcasts = broadcasts(2, 9);
    let (mut slow, mut quick) =
        (broadcasts.subscribe("one", Since::Now).unwrap(), broadcasts.subscribe("one", Since::Now).unwrap());
    broadcasts.publish(broadcast("1"));
    assert_eq!((hear(&mut slow), hear(&mut quick)), (vec!["1".to_owned()], vec!["1".to_owned()]));
    for number in 2..=4 {
        broadcasts.publish(broadcast("x"));
        assert_eq!(hear(&mut quick), [number.to_string()]);
    }
    assert_eq!(hear(&mut slow), [End::Overtaken.to_string()]);
}

#[test]
fn the_log_is_bounded_in_bytes_and_always_holds_the_newest() {
    let broadcasts = broadcasts(100, 9);
    let mut listener = broadcasts.subscribe("one", Since::Now).unwrap();
    let large = "x".repeat(9 << 20);
    broadcasts.publish(broadcast(&large));
    broadcasts.publish(broadcast(&large));
    assert_eq!(hear(&mut listener), ["L1-1", "2"]);
    broadcasts.publish(broadcast(&large.repeat(3)));
    assert_eq!(hear(&mut listener), ["3"]);
}

#[test]
fn places_are_counted_and_given_back_and_nobody_loses_one() {
    let broadcasts = broadcasts(9, 2);
    let first = broadcasts.subscribe("one", Since::Now).unwrap();
    let mut second = broadcasts.subscribe("one", Since::Now).unwrap();
    assert_eq!(broadcasts.subscribe("one", Since::Now).unwrap_err(), Refused::Full);
    broadcasts.publish(broadcast("1"));
    assert_eq!(hear(&mut second), ["1"]);
    drop(first);
    assert!(broadcasts.subscribe("one", Since::Now).is_ok());
    assert_eq!(broadcasts.listeners(), 1);
}

#[test]
fn a_closed_hub_lets_listeners_hear_what_is_logged_and_takes_no_more() {
    let broadcasts = broadcasts(9, 9);
    let mut listener = broadcasts.subscribe("one", Since::Now).unwrap();
    broadcasts.publish(broadcast("1"));
    broadcasts.close();
    // Such as the gap that its own links leave when they are closed.
    broadcasts.publish(broadcast("2"));
    assert_eq!(hear(&mut listener), ["1".to_owned(), End::Draining.to_string()]);
    assert_eq!(broadcasts.subscribe("one", Since::Now).unwrap_err(), Refused::Draining);
}

#[tokio::test]
async fn those_who_wait_are_woken_and_those_who_left_leave_no_waker_behind() {
    let broadcasts = broadcasts(9, 9);
    let announcer = tokio::spawn({
        let broadcasts = broadcasts.clone();
        async move { broadcasts.announce().await }
    });
    let waits: Vec<_> = (0..3)
        .map(|_| {
            let mut listener = broadcasts.subscribe("one", Since::Now).unwrap();
            tokio::spawn(async move { matches!(listener.next().await, Ok(Item::Entry(entry)) if entry.id.offset == 1) })
        })
        .collect();
    let mut gone = broadcasts.subscribe("one", Since::Now).unwrap();
    assert!(gone.next().now_or_never().is_none());
    while broadcasts.shared.state().waiting.len() < 4 {
        tokio::task::yield_now().await;
    }
    drop(gone);
    assert_eq!(broadcasts.shared.state().waiting.len(), 3);
    broadcasts.publish(broadcast("1"));
    for wait in waits {
        assert!(wait.await.unwrap());
    }
    broadcasts.close();
    announcer.await.unwrap();
}

/// Notes that it was woken.
struct Noting(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.1.lock().push(self.0);
    }
}

#[tokio::test]
async fn those_who_wait_are_woken_in_the_order_in_which_they_began() {
    let (broadcasts, woken) = (broadcasts(9, 9), Arc::new(Mutex::new(Vec::new())));
    let mut listeners: Vec<_> = (0..9).map(|_| broadcasts.subscribe("one", Since::Now).unwrap()).collect();
    for (number, listener) in listeners.iter_mut().enumerate().rev() {
        let waker = Waker::from(Arc::new(Noting(number, Arc::clone(&woken))));
        assert!(listener.poll_next(&mut Context::from_waker(&waker)).is_pending());
    }
    broadcasts.close();
    broadcasts.announce().await;
    assert!(woken.lock().iter().copied().eq(0..9), "{woken:?}");
}

#[test]
fn an_entry_is_written_once_in_each_form() {
    let broadcasts = broadcasts(9, 9);
    let mut listener = broadcasts.subscribe("one", Since::Now).unwrap();
    broadcasts.publish(broadcast("1"));
    let Some(Ok(Item::Entry(entry))) = listener.next().now_or_never() else { panic!("an entry") };
    assert_eq!(entry.written(Form::Frame(Format::Json), |_| "first".into()), "first");
    assert_eq!(entry.written(Form::Frame(Format::Json), |_| panic!("written already")), "first");
    assert_eq!(entry.written(Form::EventStream, |_| "other".into()), "other");
}
