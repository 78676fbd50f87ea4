//! What to ask the gateway about payments, and when. PURE: instants come in as arguments.
//!
//! Two kinds of tasks: a lookup of the transactions of a point of sale for its payments of unknown outcome, a few times
//! with growing pauses; and the newest transaction of a point of sale that sells, so that the next payment there knows
//! what was booked before it. One lookup serves all payments of its point of sale that are due.
//!
//! Everything has an end: a payment is struck off after [`LOOKS`] answers or [`MOST_MISSES`] attempts without one, and
//! whatever does not fit goes without.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::RecordId;

/// Pauses before each look. The first is short, because most replies are lost after the booking; the last looks come
/// when even a gateway that stalled for minutes has booked what it was going to book.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(3),
    Duration::from_secs(12),
    Duration::from_secs(45),
    Duration::from_mins(3),
];

/// Looks that the gateway answered, after which a payment is left to a person.
pub(super) const LOOKS: usize = PAUSES.len();

/// Attempts without an answer, after which a payment is left to a person: with [`LONGEST_RETRY`] between them about an
/// hour of outage.
const MOST_MISSES: usize = 60;

/// The longest pause after an attempt without an answer.
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// Payments of unknown outcome that are looked for at a time. One more is left to a person without evidence.
const MAX_OPEN: usize = 1024;

/// Points of sale whose newest transaction is remembered. One more takes the place of the one unheard of for longest.
const MAX_POINTS: usize = 1024;

/// How old the knowledge of the newest transaction may be before a payment has it asked for again. Older knowledge is
/// as true, and only leaves more transactions that might be meant.
const FRESH_ENOUGH: Duration = Duration::from_mins(1);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Lookup for these payments of one point of sale.
    Lookup { pos_id: i64, ids: Vec<RecordId> },
    /// Ask for the newest transaction of a point of sale, if the budget is idle.
    Newest { pos_id: i64 },
    /// Nothing before this instant.
    Wait(Instant),
    /// Nothing at all.
    Idle,
}

/// A payment that is looked for.
#[derive(Debug, Clone, Copy)]
struct Open {
    pos_id: i64,
    due: Instant,
    looks: usize,
    misses: usize,
}

/// What is known of a point of sale.
#[derive(Debug, Clone, Copy)]
struct Point {
    newest: Option<i64>,
    /// When that was asked or seen.
    at: Instant,
}

/// The tasks of one instance.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    open: BTreeMap<RecordId, Open>,
    points: HashMap<i64, Point>,
    wanted: BTreeSet<i64>,
}

impl Schedule {
    /// A reply showed that this transaction is there. Knowledge never goes back.
    pub(super) fn seen(&mut self, pos_id: i64, newest: i64, now: Instant) {
        let point = self.point(pos_id, now);
        *point = Point { newest: point.newest.max(Some(newest)), at: now };
    }

    /// The newest transaction known of a point of sale.
    pub(super) fn newest(&self, pos_id: i64) -> Option<i64> {
        self.points.get(&pos_id).and_then(|point| point.newest)
    }

    /// A point of sale sells. Says whether there is something new to do.
    pub(super) fn sells(&mut self, pos_id: i64, now: Instant) -> bool {
        let is_known = self.points.get(&pos_id).is_some_and(|point| now.duration_since(point.at) < FRESH_ENOUGH);
        if is_known {
            return false;
        }
        self.point(pos_id, now);
        self.wanted.insert(pos_id)
    }

    fn point(&mut self, pos_id: i64, now: Instant) -> &mut Point {
        if self.points.len() >= MAX_POINTS && !self.points.contains_key(&pos_id) {
            let oldest = self.points.iter().min_by_key(|(_, point)| point.at).map(|(pos_id, _)| *pos_id);
            if let Some(oldest) = oldest {
                self.points.remove(&oldest);
                self.wanted.remove(&oldest);
            }
        }
        // Not asked yet: as good as asked long ago.
        let at = now.checked_sub(FRESH_ENOUGH).unwrap_or(now);
        self.points.entry(pos_id).or_insert(Point { newest: None, at })
    }

    /// The outcome of a payment is not known, and this many looks were made for it already.
    pub(super) fn lost(&mut self, id: RecordId, pos_id: i64, looks: u32, now: Instant) {
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&id) {
            tracing::warn!(payment = %id, "too many payments of unknown outcome: no evidence is gathered for this one");
            return;
        }
        // After a restart one more look is made even for a payment that has had them all.
        let looks = usize::try_from(looks).unwrap_or(LOOKS).min(LOOKS - 1);
        let due = now + PAUSES.first().copied().unwrap_or_default();
        self.open.insert(id, Open { pos_id, due, looks, misses: 0 });
    }

    /// What was not answered is due at once.
    pub(super) fn retry_now(&mut self, now: Instant) {
        for open in self.open.values_mut().filter(|open| open.misses > 0) {
            open.due = open.due.min(now);
        }
    }

    /// What to do at `now`. A point of sale whose newest transaction is wanted is struck off by that.
    pub(super) fn next(&mut self, now: Instant) -> Task {
        let first = self.open.values().min_by_key(|open| open.due).copied();
        if let Some(Open { pos_id, due, .. }) = first
            && due <= now
        {
            let is_due = |open: &Open| open.pos_id == pos_id && open.due <= now;
            let ids = self.open.iter().filter(|(_, open)| is_due(open)).map(|(id, _)| *id).collect();
            return Task::Lookup { pos_id, ids };
        }
        if let Some(pos_id) = self.wanted.pop_first() {
            // Asked once a while even where no answer comes.
            if let Some(point) = self.points.get_mut(&pos_id) {
                point.at = now;
            }
            return Task::Newest { pos_id };
        }
        first.map_or(Task::Idle, |open| Task::Wait(open.due))
    }

    /// The gateway was looked at for a payment that is still unknown.
    pub(super) fn looked(&mut self, id: RecordId, now: Instant) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.looks += 1;
        match PAUSES.get(open.looks) {
            Some(pause) => open.due = now + *pause,
            None => self.done(id),
        }
    }

    /// No answer was to be had.
    pub(super) fn missed(&mut self, id: RecordId, now: Instant) {
        let Some(open) = self.open.get_mut(&id) else { return };
        open.misses += 1;
        open.due = now + Duration::from_secs(1 << open.misses.min(6)).min(LONGEST_RETRY);
        if open.misses >= MOST_MISSES {
            self.done(id);
        }
    }

    /// A payment needs no evidence any more.
    pub(super) fn done(&mut self, id: RecordId) {
        self.open.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(task: &Task) -> &[RecordId] {
        if let Task::Lookup { ids, .. } = task { ids } else { &[] }
    }

    #[test]
    fn a_payment_is_looked_for_a_few_times_with_growing_pauses_and_then_left() {
        let (mut schedule, begun, id) = (Schedule::default(), Instant::now(), RecordId::fresh());
        schedule.lost(id, 1, 0, begun);
        let (mut now, mut pauses) = (begun, Vec::new());
        loop {
            match schedule.next(now) {
                Task::Wait(due) => {
                    pauses.push(due - now);
                    now = due;
                }
                Task::Lookup { pos_id: 1, ids } if ids == [id] => schedule.looked(id, now),
                Task::Idle => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pauses, PAUSES);
        assert!(pauses.is_sorted());
    }

    #[test]
    fn one_look_serves_all_that_are_due_at_a_point_of_sale_and_a_settled_one_is_struck_off() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let [one, two, settled, elsewhere] = [(); 4].map(|()| RecordId::fresh());
        for (id, pos) in [(one, 1), (two, 1), (settled, 1), (elsewhere, 2)] {
            schedule.lost(id, pos, 0, now);
        }
        schedule.done(settled);
        let due = now + PAUSES[0];
        let first = schedule.next(due);
        assert_eq!(look(&first), [one, two]);
        for id in [one, two] {
            schedule.looked(id, due);
        }
        assert_eq!(look(&schedule.next(due)), [elsewhere]);
    }

    #[test]
    fn without_an_answer_no_look_is_used_up_and_even_so_there_is_an_end() {
        let (mut schedule, mut now, id) = (Schedule::default(), Instant::now(), RecordId::fresh());
        schedule.lost(id, 1, 0, now);
        let begun = now;
        for _ in 0..MOST_MISSES {
            let Task::Wait(due) = schedule.next(now) else { panic!("it waits") };
            now = due;
            schedule.missed(id, now);
        }
        assert_eq!(schedule.next(now), Task::Idle);
        assert!(now - begun > Duration::from_mins(30), "a long outage is outlasted");
    }

    #[test]
    fn what_was_not_answered_is_asked_at_once_when_its_reason_may_have_gone_and_nothing_else_is() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let [missed, new] = [(); 2].map(|()| RecordId::fresh());
        schedule.lost(missed, 1, 0, now);
        for _ in 0..5 {
            schedule.missed(missed, now);
        }
        schedule.lost(new, 2, 0, now);
        schedule.retry_now(now);
        assert_eq!(look(&schedule.next(now)), [missed]);
        schedule.looked(missed, now);
        assert_eq!(schedule.next(now), Task::Wait(now + PAUSES[0]), "the new one has its pause");
    }

    #[test]
    fn a_payment_that_had_all_its_looks_gets_one_more_after_a_restart() {
        let (mut schedule, now, id) = (Schedule::default(), Instant::now(), RecordId::fresh());
        schedule.lost(id, 1, 99, now);
        let due = now + PAUSES[0];
        assert_eq!(look(&schedule.next(due)), [id]);
        schedule.looked(id, due);
        assert_eq!(schedule.next(due), Task::Idle);
    }

    #[test]
    fn the_newest_transaction_is_asked_for_where_something_is_sold_and_not_again_for_a_while() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        assert!(schedule.sells(1, now));
        assert!(!schedule.sells(1, now), "it is wanted already");
        assert_eq!(schedule.next(now), Task::Newest { pos_id: 1 });
        assert!(!schedule.sells(1, now), "no answer yet");
        schedule.seen(1, 70, now);
        schedule.seen(1, 60, now);
        assert_eq!(schedule.newest(1), Some(70));
        assert!(!schedule.sells(1, now + FRESH_ENOUGH / 2));
        assert!(schedule.sells(1, now + FRESH_ENOUGH));
    }

    #[test]
    fn what_invented_points_of_sale_and_an_outage_can_make_it_remember_is_bounded() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        for pos_id in 0..10_000 {
            schedule.seen(pos_id, 1, now);
            schedule.sells(pos_id, now + FRESH_ENOUGH);
            schedule.lost(RecordId::fresh(), pos_id, 0, now);
        }
        assert_eq!((schedule.points.len(), schedule.open.len()), (MAX_POINTS, MAX_OPEN));
        assert!(schedule.wanted.len() <= MAX_POINTS);
    }

    proptest! {
        #[test]
        fn whatever_becomes_of_the_looks_they_end(answers in prop::collection::vec(any::<bool>(), 200)) {
            let (mut schedule, mut now, id) = (Schedule::default(), Instant::now(), RecordId::fresh());
            schedule.lost(id, 1, 0, now);
            for answered in answers {
                match schedule.next(now) {
                    Task::Wait(due) => {
                        prop_assert!(due > now);
                        now = due;
                    }
                    Task::Idle => return Ok(()),
                    _ if answered => schedule.looked(id, now),
                    _ => schedule.missed(id, now),
                }
            }
            prop_assert!(false, "it goes on and on");
        }
    }
}
