//! Events that are written to a database before they are logged. Pure; bounded: what does not fit becomes a gap.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::entry::{Event, Gap, Reason};
use super::log::MOST_BYTES;

/// How many gaps there are at most beside what may wait: one that is being written, and one that may grow.
pub(super) const MOST_GAPS: usize = 2;

#[derive(Debug)]
pub(super) struct Unwritten {
    most: usize,
    events: VecDeque<Event>,
    bytes: usize,
    /// How many are being written and therefore stay as they are.
    taken: usize,
}

impl Unwritten {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), events: VecDeque::new(), bytes: 0, taken: 0 }
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.events.len() < self.most && self.bytes + event.size() <= MOST_BYTES {
            self.bytes += event.size();
            return self.events.push_back(event);
        }
        let (from, to) = event.times();
        let extensible = self.events.len() > self.taken.max(self.most);
        match self.events.back_mut() {
            Some(Event::Gap(gap)) if extensible => gap.to = gap.to.max(to),
            _ => self.events.push_back(Event::Gap(Gap { from, to, reason: Reason::NotStored })),
        }
    }

    /// When the oldest came.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.events.iter().map(|event| event.times().0).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The oldest, at most so many.
    pub(super) fn next(&mut self, most: usize) -> Vec<Event> {
        if self.taken == 0 {
            self.taken = most.min(self.events.len());
        }
        self.events.iter().take(self.taken).cloned().collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }

    /// What [`Self::next`] gave last, which is written.
    pub(super) fn written(&mut self) -> Vec<Event> {
        let written: Vec<_> = self.events.drain(..self.taken).collect();
        self.bytes -= written.iter().map(Event::size).sum::<usize>();
        self.taken = 0;
        written
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::broadcasts::Broadcast;
    use crate::protocol::Body;

    fn broadcast(second: i64) -> Event {
        let parameters = Body::from(&*RawValue::from_string("{}".to_owned()).unwrap());
        let received_at = Timestamp::from_second(second).unwrap();
        Event::Broadcast(Broadcast { message: Arc::from("m"), parameters, received_at, maybe_duplicate: false })
    }

    proptest! {
        #[test]
        fn each_event_is_written_once_in_order_or_lies_in_a_gap_and_there_are_no_more_than_may_wait(
            most in 1..6_usize,
            steps in prop::collection::vec(prop_oneof![3 => Just(0_usize), 1 => 1..4_usize, 1 => Just(9)], 0..80),
        ) {
            let (mut unwritten, mut pushed, mut written) = (Unwritten::new(most), 0_i64, Vec::new());
            for step in steps.into_iter().chain([9, 9, 9, 9]) {
                if step == 0 {
                    unwritten.push(broadcast(pushed));
                    pushed += 1;
                } else if step < 9 {
                    let given = unwritten.next(step);
                    prop_assert_eq!(&given, &unwritten.next(9), "the same until it is written");
                } else {
                    let given = unwritten.next(4);
                    prop_assert_eq!(&unwritten.written(), &given);
                    written.extend(given);
                }
                prop_assert!(unwritten.events.len() <= 2 * most + 1);
            }
            while !unwritten.next(9).is_empty() {
                written.extend(unwritten.written());
            }
            prop_assert_eq!((unwritten.bytes, unwritten.taken), (0, 0));
            let mut next = 0;
            for event in written {
                let (from, to) = event.times();
                prop_assert_eq!(from.as_second(), next);
                next = to.as_second() + 1;
            }
            prop_assert_eq!(next, pushed);
        }
    }
}
