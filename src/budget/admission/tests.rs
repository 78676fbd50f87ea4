mod promises;

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::super::shares::GRACE;
use super::*;

const HOLD: u64 = 33;
const CAPACITY: u64 = 100;
const FOREVER: Tick = Tick(u64::MAX);

fn admission() -> Admission {
    Admission::new(Window::new(HOLD))
}

fn ask(class: Class<'_>, points: u64, deadline: Tick) -> PointsRequest<'_> {
    PointsRequest { class, price: Price { points, limit: CAPACITY }, deadline }
}

fn read(points: u64, deadline: Tick) -> PointsRequest<'static> {
    ask(Class::Caller("a"), points, deadline)
}

fn granted(entered: Entered) -> Grant {
    match entered {
        Entered::Decided(Resolution::Granted(grant)) => grant,
        other => panic!("{other:?}"),
    }
}

fn waits(entered: Entered) -> Rank {
    match entered {
        Entered::Waits(rank, _) => rank,
        Entered::Decided(verdict) => panic!("{verdict:?}"),
    }
}

fn denied(entered: &Entered) -> u64 {
    match entered {
        Entered::Decided(Resolution::Denied { wait }) => *wait,
        other => panic!("{other:?}"),
    }
}

/// A admission whose points were all spent by a command that ended at 0.
fn spent() -> Admission {
    let mut admission = admission();
    let grant = granted(admission.enter(Tick(0), read(CAPACITY, FOREVER)));
    admission.ended(Tick(0), grant, true);
    admission
}

#[test]
fn who_can_be_served_exactly_at_the_deadline_waits_and_who_cannot_is_denied_at_once() {
    let mut admission = spent();
    assert_eq!(denied(&admission.enter(Tick(3), read(1, Tick(HOLD - 1)))), HOLD - 3);
    let rank = waits(admission.enter(Tick(3), read(1, Tick(HOLD))));
    assert_eq!(admission.check(Tick(3), rank), Check::AgainAt(Tick(HOLD)));
    assert!(matches!(admission.check(Tick(HOLD), rank), Check::Decided(Resolution::Granted(_))));
}

#[test]
fn those_who_wait_before_it_are_counted_in_what_a_newcomer_is_told() {
    let mut admission = spent();
    waits(admission.enter(Tick(0), read(100, Tick(HOLD))));
    // Behind the one who takes everything at HOLD, points come free no sooner than at twice that.
    assert_eq!(denied(&admission.enter(Tick(0), read(1, Tick(2 * HOLD - 1)))), 2 * HOLD);
    waits(admission.enter(Tick(0), read(1, Tick(2 * HOLD))));
}

#[test]
fn a_payment_that_comes_later_sends_away_at_once_whoever_it_leaves_no_chance() {
    let mut admission = spent();
    let reading = waits(admission.enter(Tick(1), read(60, Tick(HOLD))));
    let patient = waits(admission.enter(Tick(1), ask(Class::Caller("b"), 30, Tick(HOLD))));
    waits(admission.enter(Tick(2), ask(Class::Payment, 70, Tick(HOLD))));
    assert_eq!(admission.check(Tick(2), reading), Check::Decided(Resolution::Denied { wait: 2 * HOLD - 2 }));
    // With the larger one gone, the smaller still fits.
    assert!(matches!(admission.check(Tick(2), patient), Check::AgainAt(_)));
}

#[test]
fn nobody_overtakes_however_little_is_asked() {
    let mut admission = admission();
    let half = granted(admission.enter(Tick(0), read(60, FOREVER)));
    let large = waits(admission.enter(Tick(0), read(50, FOREVER)));
    let small = waits(admission.enter(Tick(0), read(1, FOREVER)));
    assert!(matches!(admission.check(Tick(5), small), Check::AgainAt(_)));
    admission.give_back(Tick(5), half);
    assert!(matches!(admission.check(Tick(5), large), Check::Decided(Resolution::Granted(_))));
    assert!(matches!(admission.check(Tick(5), small), Check::Decided(Resolution::Granted(_))));
}

#[test]
fn points_that_came_back_are_not_held_against_their_token() {
    let mut admission = admission();
    let unwritten = granted(admission.enter(Tick(0), ask(Class::Caller("a"), 60, FOREVER)));
    assert_eq!(admission.shares.given("a"), 60);
    admission.give_back(Tick(0), unwritten);
    assert_eq!(admission.shares.given("a"), 0);
}

#[test]
fn whoever_leaves_hands_on_the_place_and_the_points() {
    let mut admission = admission();
    let half = granted(admission.enter(Tick(0), read(60, FOREVER)));
    let large = waits(admission.enter(Tick(0), read(90, FOREVER)));
    let small = waits(admission.enter(Tick(0), read(40, FOREVER)));
    admission.leave(Tick(1), large);
    let Check::Decided(Resolution::Granted(grant)) = admission.check(Tick(1), small) else {
        panic!("the place was kept")
    };
    admission.give_back(Tick(1), grant);

    let large = waits(admission.enter(Tick(2), read(90, FOREVER)));
    admission.give_back(Tick(3), half);
    admission.leave(Tick(3), large);
    assert_eq!(admission.window.used(Tick(3)), 0, "points granted to someone who is gone are lost");
}

#[test]
fn a_closing_sends_away_at_once_whoever_cannot_outlast_it() {
    let mut admission = spent();
    let hasty = waits(admission.enter(Tick(0), read(1, Tick(HOLD))));
    let patient = waits(admission.enter(Tick(0), read(1, Tick(80))));
    admission.close_until(Tick(10), Tick(80));
    assert_eq!(admission.check(Tick(10), hasty), Check::Decided(Resolution::Denied { wait: 70 }));
    assert_eq!(admission.check(Tick(10), patient), Check::AgainAt(Tick(80)));
    assert!(matches!(admission.check(Tick(80), patient), Check::Decided(Resolution::Granted(_))));
}

/// Whether a waiter has been called since it was asked last.
#[test]
fn while_a_probe_is_under_way_the_others_wait_for_its_answer_and_are_called_by_it() {
    let mut admission = admission();
    admission.close_until(Tick(0), Tick(10));
    let first = waits(admission.enter(Tick(1), read(1, FOREVER)));
    let second = waits(admission.enter(Tick(1), read(1, FOREVER)));
    let Check::Decided(Resolution::Granted(probe)) = admission.check(Tick(10), first) else { panic!("it is open") };
    let Check::AgainAt(at) = admission.check(Tick(10), second) else { panic!("two probes") };
    assert!(at > Tick(10), "it looks without end");
    admission.ended(Tick(12), probe, true);
    assert!(matches!(admission.check(Tick(12), second), Check::Decided(Resolution::Granted(_))));
}

fn called(call: &Notify) -> bool {
    std::pin::pin!(call.notified()).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn the_first_in_the_queue_is_called_when_its_alarm_would_ring_too_late_and_never_by_its_own_look() {
    let mut admission = admission();
    let in_flight = granted(admission.enter(Tick(0), read(60, FOREVER)));
    let other = granted(admission.enter(Tick(0), read(30, FOREVER)));
    let Entered::Waits(rank, call) = admission.enter(Tick(0), read(50, FOREVER)) else { panic!("points were had") };
    called(&call);
    for now in 1..5 {
        assert_eq!(admission.check(Tick(now), rank), Check::AgainAt(Tick(now + HOLD)), "no sooner, as far as is known");
        assert!(!called(&call), "it would look without end");
    }
    admission.ended(Tick(6), in_flight, true);
    assert!(!called(&call), "the alarm at {} rings before the points are free", 4 + HOLD);
    assert_eq!(admission.check(Tick(4 + HOLD), rank), Check::AgainAt(Tick(6 + HOLD)));
    admission.give_back(Tick(5 + HOLD), other);
    assert!(!called(&call), "that alone is not enough");
    admission.close_until(Tick(5 + HOLD), Tick(90));
    assert_eq!(admission.check(Tick(6 + HOLD), rank), Check::AgainAt(Tick(90)));

    let before = waits(admission.enter(Tick(50), ask(Class::Payment, 90, FOREVER)));
    admission.check(Tick(50), before);
    admission.leave(Tick(51), before);
    assert!(called(&call), "the place before it is free");
    assert_eq!(admission.check(Tick(51), rank), Check::AgainAt(Tick(90)));
}

#[test]
fn points_given_back_are_told_to_whoever_sleeps_until_later() {
    let mut admission = admission();
    let first = granted(admission.enter(Tick(0), read(60, FOREVER)));
    let second = granted(admission.enter(Tick(0), read(40, FOREVER)));
    admission.ended(Tick(0), first, true);
    let Entered::Waits(rank, call) = admission.enter(Tick(7), read(70, FOREVER)) else { panic!("points were had") };
    assert_eq!(admission.check(Tick(7), rank), Check::AgainAt(Tick(7 + HOLD)));
    let Entered::Waits(behind, call_behind) = admission.enter(Tick(7), read(90, FOREVER)) else { panic!("overtaken") };
    called(&call);
    called(&call_behind);
    admission.give_back(Tick(8), second);
    assert!(called(&call), "its alarm would ring {} too late", 7);
    assert_eq!(admission.check(Tick(8), rank), Check::AgainAt(Tick(HOLD)));
    assert_eq!(admission.check(Tick(8), behind), Check::AgainAt(FOREVER), "only the first needs an alarm");
    let Check::Decided(Resolution::Granted(_)) = admission.check(Tick(HOLD), rank) else { panic!("not on time") };
    assert!(called(&call_behind), "it is the first now");
}

#[test]
fn a_class_that_is_full_is_told_when_its_turn_would_have_come() {
    let mut admission = spent();
    for _ in 0..super::super::queue::MAX_PER_TOKEN {
        waits(admission.enter(Tick(0), read(1, Tick(HOLD))));
    }
    assert_eq!(denied(&admission.enter(Tick(1), read(40, FOREVER))), 2 * HOLD - 1);
    waits(admission.enter(Tick(1), ask(Class::Payment, 1, FOREVER)));
}

/// Lets time pass by alarms alone, as the waiters do, ending each command the moment it is granted, until `until`.
/// Returns who was granted, in order, and when.
fn run(admission: &mut Admission, waiting: &mut BTreeSet<Rank>, from: Tick, until: Tick) -> Vec<(Rank, Tick)> {
    let (mut now, mut served) = (from, Vec::new());
    loop {
        let mut alarm = until;
        for rank in waiting.clone() {
            match admission.check(now, rank) {
                Check::Decided(verdict) => {
                    waiting.remove(&rank);
                    if let Resolution::Granted(grant) = verdict {
                        served.push((rank, now));
                        admission.ended(now, grant, true);
                    }
                }
                Check::AgainAt(at) => alarm = alarm.min(at),
            }
        }
        if now == until {
            return served;
        }
        now = alarm;
    }
}

/// Something that happens to a admission.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Asks(Class<'static>, u64, u64),
    Ends,
    IsGivenBack,
    Leaves,
    Closes(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (class(), 1..=60_u64, 0..300_u64).prop_map(|(class, points, wait)| Happening::Asks(class, points, wait)),
        3 => Just(Happening::Ends),
        1 => Just(Happening::IsGivenBack),
        1 => Just(Happening::Leaves),
        1 => (0..50_u64).prop_map(Happening::Closes),
    ]
}

/// An admission and its waiters, who look when they are called and when their alarm rings, and at no other time.
struct Hall {
    admission: Admission,
    now: Tick,
    waiting: BTreeMap<Rank, (Arc<Notify>, Tick)>,
    flying: Vec<Grant>,
}

impl Hall {
    fn happens(&mut self, happening: Happening) {
        let Self { admission, now, waiting, flying } = self;
        match happening {
            Happening::Asks(class, points, wait) => {
                match admission.enter(*now, ask(class, points, now.after(wait))) {
                    // Whoever comes looks at once.
                    Entered::Waits(rank, call) => drop(waiting.insert(rank, (call, *now))),
                    Entered::Decided(Resolution::Granted(grant)) => flying.push(grant),
                    Entered::Decided(Resolution::Denied { .. }) => {}
                }
            }
            Happening::Ends if !flying.is_empty() => admission.ended(*now, flying.remove(0), true),
            Happening::IsGivenBack if !flying.is_empty() => admission.give_back(*now, flying.remove(0)),
            Happening::Leaves => {
                if let Some((rank, _)) = waiting.pop_last() {
                    admission.leave(*now, rank);
                }
            }
            Happening::Closes(pause) => admission.close_until(*now, now.after(pause)),
            Happening::Ends | Happening::IsGivenBack => {}
        }
    }

    /// Who is to be served next, if nothing is kept for somebody else before.
    fn first(&self) -> Option<Rank> {
        let Admission { queue, shares, .. } = &self.admission;
        let order = queue.order(shares);
        let kept = |next: &Next| matches!(next, Next::Expected(claim) if claim.is_due(self.now));
        let waiter = |next: &Next| if let Next::Waiter(rank) = next { Some(*rank) } else { None };
        match order.iter().position(|next| waiter(next).is_some()) {
            Some(first) => order[..=first].iter().find(|next| kept(next) || waiter(next).is_some()).and_then(waiter),
            None if order.iter().any(kept) || !shares.promises().is_empty() => None,
            None => queue.refreshes().first().copied(),
        }
    }

    /// Lets everyone look who has reason to, until nobody has; says how many looks that took.
    fn check(&mut self) -> usize {
        let mut looks = 0;
        while let Some(rank) = self.waiting.iter().find(|(_, (call, at))| called(call) || *at <= self.now) {
            let rank = *rank.0;
            looks += 1;
            // It takes its time.
            self.now = self.now.after(1);
            assert!(looks < 1_000, "{rank:?} looks without end");
            match self.admission.check(self.now, rank) {
                Check::AgainAt(at) => self.waiting.get_mut(&rank).unwrap().1 = at,
                Check::Decided(verdict) => {
                    self.waiting.remove(&rank);
                    self.flying.extend(match verdict {
                        Resolution::Granted(grant) => Some(grant),
                        Resolution::Denied { .. } => None,
                    });
                }
            }
        }
        looks
    }

    /// Lets time pass until `until`, alarm by alarm.
    fn pass(&mut self, until: Tick) {
        loop {
            let waiting = self.waiting.len();
            let looks = self.check();
            assert!(looks <= 3 * waiting, "{looks} looks of {waiting} who wait, as good as at once");
            if let Some(rank) = self.first() {
                let price = self.admission.queue.get(rank).unwrap().price;
                let at = self.admission.window.free_at(self.now, price);
                assert!(at.is_some(), "{rank:?} waits at {:?} for nothing", self.now);
            }
            if self.now >= until {
                return;
            }
            self.now = self.waiting.values().map(|(_, at)| *at).fold(until, Tick::min);
        }
    }
}

/// With one caller, who is in nobody's way.
fn class_of_one() -> impl Strategy<Value = Class<'static>> {
    class().prop_map(|class| if let Class::Caller(_) = class { Class::Caller("a") } else { class })
}

fn class() -> impl Strategy<Value = Class<'static>> {
    prop_oneof![
        Just(Class::Payment),
        prop::sample::select(&["a", "b", "c"]).prop_map(Class::Caller),
        (0..5_u64).prop_map(|secs| Class::Refresh { staleness: Duration::from_secs(secs) }),
    ]
}

proptest! {
    #[test]
    fn asking_again_after_the_time_told_succeeds_and_a_moment_earlier_does_not(
        past in prop::collection::vec((1..=60_u64, 0..10_u64), 0..8),
        queue in prop::collection::vec((class_of_one(), 1..=60_u64), 0..8),
        points in 1..=60_u64,
    ) {
        let mut admission = admission();
        let mut now = Tick(0);
        for (points, pause) in past {
            now = now.after(pause);
            if let Entered::Decided(Resolution::Granted(grant)) = admission.enter(now, ask(Class::Payment, points, now)) {
                admission.ended(now, grant, true);
            }
        }
        let mut waiting = BTreeSet::new();
        for (class, points) in queue {
            match admission.enter(now, ask(class, points, FOREVER)) {
                Entered::Waits(rank, _) => {
                    waiting.insert(rank);
                }
                Entered::Decided(Resolution::Granted(grant)) => admission.ended(now, grant, true),
                Entered::Decided(Resolution::Denied { .. }) => prop_assert!(false, "denied before the end of time"),
            }
        }
        // The last of all: behind everybody.
        let last = ask(Class::Refresh { staleness: Duration::ZERO }, points, now);
        if let Entered::Decided(Resolution::Denied { wait }) = admission.enter(now, last) {
            let at = now.after(wait);
            let earlier = Tick(at.0 - 1);
            run(&mut admission, &mut waiting, now, earlier);
            let again = |deadline| ask(Class::Refresh { staleness: Duration::ZERO }, points, deadline);
            prop_assert_eq!(denied(&admission.enter(earlier, again(earlier))), 1);
            run(&mut admission, &mut waiting, earlier, at);
            prop_assert!(waiting.is_empty());
            let _ = granted(admission.enter(at, again(at)));
        }
    }

    #[test]
    fn whatever_happens_nobody_sleeps_past_the_points_and_nobody_looks_without_end(
        happenings in prop::collection::vec((happening(), 0..20_u64), 1..60),
    ) {
        let mut hall =
            Hall { admission: admission(), now: Tick(0), waiting: BTreeMap::new(), flying: Vec::new() };
        for (happening, pause) in happenings {
            hall.happens(happening);
            let until = hall.now.after(pause);
            hall.pass(until);
        }
        // All deadlines have come by then.
        let until = hall.now.after(1_000);
        hall.pass(until);
        prop_assert!(hall.waiting.is_empty() && hall.admission.queue.is_empty(), "{:?}", hall.admission);
    }

    #[test]
    fn whoever_waits_is_served_in_order_and_by_the_deadline(
        asks in prop::collection::vec((class_of_one(), 1..=60_u64, 0..200_u64), 1..20),
    ) {
        let mut admission = spent();
        let mut waiting = BTreeSet::new();
        for (class, points, deadline) in asks {
            if let Entered::Waits(rank, _) = admission.enter(Tick(0), ask(class, points, Tick(deadline))) {
                waiting.insert(rank);
            }
        }
        let all = waiting.clone();
        let served = run(&mut admission, &mut waiting, Tick(0), Tick(200));
        prop_assert!(waiting.is_empty(), "{:?} forgotten", waiting);
        let order: Vec<_> = served.iter().map(|(rank, _)| *rank).collect();
        prop_assert!(order.is_sorted(), "{:?}", served);
        // Nothing comes between, so only those displaced at their arrival by someone of a higher class are missing.
        prop_assert!(all.first().is_none() || order.first() == all.first());
    }
}

/// A window of 30 s and a guard of half a second, in microseconds.
const LONG_HOLD: u64 = 30_500_000;
/// How long a read waits for points.
const PATIENCE: u64 = 2_000_000;
/// Time passes in these steps.
const STEP: u64 = 50_000;

/// Commands in flight, each answered after the same time.
struct InFlight {
    latency: u64,
    /// When each ends.
    commands: Vec<(Tick, Grant)>,
}

impl InFlight {
    fn new(latency: u64) -> Self {
        Self { latency, commands: Vec::new() }
    }

    fn send(&mut self, now: Tick, grant: Grant) {
        self.commands.push((now.after(self.latency), grant));
    }

    fn end_due(&mut self, now: Tick, admission: &mut Admission) {
        for (ends, grant) in std::mem::take(&mut self.commands) {
            if ends <= now {
                admission.ended(now, grant, true);
            } else {
                self.commands.push((ends, grant));
            }
        }
    }
}

/// One token that asks without pause and one that asks now and then, at one window.
struct Rivals {
    admission: Admission,
    now: Tick,
    price: Price,
    in_flight: InFlight,
    loud: Vec<Rank>,
    loud_served: u64,
}

impl Rivals {
    fn new(points: u64, latency: u64) -> Self {
        Self {
            admission: Admission::new(Window::new(LONG_HOLD)),
            now: Tick(1_000_000),
            price: Price { points, limit: CAPACITY },
            in_flight: InFlight::new(latency),
            loud: Vec::new(),
            loud_served: 0,
        }
    }

    fn request<'a>(&self, token: &'a str) -> PointsRequest<'a> {
        PointsRequest { class: Class::Caller(token), price: self.price, deadline: self.now.after(PATIENCE) }
    }

    fn send(&mut self, grant: Grant) {
        self.in_flight.send(self.now, grant);
    }

    /// Lets a step pass, in which the loud one has as many asks waiting as it can.
    fn step(&mut self) {
        self.now = self.now.after(STEP);
        self.in_flight.end_due(self.now, &mut self.admission);
        for rank in std::mem::take(&mut self.loud) {
            match self.admission.check(self.now, rank) {
                Check::AgainAt(_) => self.loud.push(rank),
                Check::Decided(Resolution::Granted(grant)) => self.serve_loud(grant),
                Check::Decided(Resolution::Denied { .. }) => {}
            }
        }
        while self.loud.len() < 8 {
            match self.admission.enter(self.now, self.request("loud")) {
                Entered::Waits(rank, _) => self.loud.push(rank),
                Entered::Decided(Resolution::Granted(grant)) => self.serve_loud(grant),
                Entered::Decided(Resolution::Denied { .. }) => break,
            }
        }
    }

    fn serve_loud(&mut self, grant: Grant) {
        self.loud_served += 1;
        self.send(grant);
    }

    fn pass(&mut self, micros: u64) {
        let until = self.now.after(micros);
        while self.now < until {
            self.step();
        }
    }

    /// The other asks, and waits as long as any. What it is told where it is denied.
    fn ask(&mut self) -> Result<(), u64> {
        let rank = match self.admission.enter(self.now, self.request("quiet")) {
            Entered::Decided(Resolution::Granted(grant)) => {
                self.send(grant);
                return Ok(());
            }
            Entered::Decided(Resolution::Denied { wait }) => return Err(wait),
            Entered::Waits(rank, _) => rank,
        };
        loop {
            self.step();
            match self.admission.check(self.now, rank) {
                Check::AgainAt(_) => {}
                Check::Decided(Resolution::Granted(grant)) => {
                    self.send(grant);
                    return Ok(());
                }
                Check::Decided(Resolution::Denied { wait }) => return Err(wait),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Told in whole seconds, and with some time on the way: whoever comes back when it was told is served.
    #[test]
    fn who_asks_now_and_then_is_served_when_it_comes_back_however_loud_another_is(
        points in prop::sample::select(&[1_u64, 10, 20, 25, 50, 100]),
        latency in 0..400_000_u64,
        visits in prop::collection::vec((LONG_HOLD..4 * LONG_HOLD, 0..700_000_u64), 1..6),
    ) {
        let mut rivals = Rivals::new(points, latency);
        for (pause, on_the_way) in visits {
            rivals.pass(pause);
            if let Err(wait) = rivals.ask() {
                rivals.pass(wait.div_ceil(1_000_000) * 1_000_000 + on_the_way);
                prop_assert_eq!(rivals.ask(), Ok(()), "told {} at first", wait);
            }
        }
        prop_assert!(rivals.loud_served > 0);
    }

    #[test]
    fn who_asks_once_a_window_is_served_each_time_however_loud_another_is(
        points in prop::sample::select(&[1_u64, 10, 20, 25, 50]),
        latency in 0..400_000_u64,
        first in LONG_HOLD..2 * LONG_HOLD,
        late in 0..1_800_000_u64,
    ) {
        let mut rivals = Rivals::new(points, latency);
        rivals.pass(first);
        while let Err(wait) = rivals.ask() {
            rivals.pass(wait.div_ceil(1_000_000) * 1_000_000);
        }
        for window in 0..6 {
            let again = rivals.now.after(LONG_HOLD + late);
            rivals.pass(rivals.now.until(again));
            prop_assert_eq!(rivals.ask(), Ok(()), "in window {}", window);
        }
        // What is kept for the other costs the loud one little.
        let windows = rivals.now.0 / LONG_HOLD;
        let left = windows * (CAPACITY / points) - 8;
        prop_assert!(rivals.loud_served * 10 >= left * 8 || points == 50, "{} of {left}", rivals.loud_served);
    }
}

#[test]
fn what_is_kept_for_one_who_does_not_come_is_given_to_the_next_after_a_moment() {
    let mut rivals = Rivals::new(100, 0);
    rivals.pass(LONG_HOLD / 2);
    let wait = rivals.ask().unwrap_err();
    rivals.pass(wait);
    let served = rivals.loud_served;
    rivals.pass(GRACE - 4 * STEP);
    assert_eq!(rivals.loud_served, served, "it is kept");
    rivals.pass(8 * STEP);
    assert_eq!(rivals.loud_served, served + 1, "no longer");
}
