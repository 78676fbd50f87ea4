use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 30;
const GUARD: u64 = 3;
const HOLD: u64 = WINDOW + GUARD;
const CAPACITY: u64 = 100;

fn price(points: u64) -> Price {
    Price { points, limit: CAPACITY }
}

/// What the window must amount to, kept in the plainest way.
#[derive(Debug, Clone, Copy)]
struct Command {
    points: u64,
    granted: u64,
    ended: Option<u64>,
}

impl Command {
    fn holds_at(self, instant: u64) -> bool {
        self.granted <= instant && self.ended.is_none_or(|ended| instant < ended + HOLD)
    }
}

fn held(commands: &[Command], instant: u64) -> u64 {
    commands.iter().filter(|command| command.holds_at(instant)).map(|command| command.points).sum()
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Ask(u64),
    End(prop::sample::Index),
    GiveBack(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..40_u64).prop_map(Step::Pass),
        4 => (1..=50_u64).prop_map(Step::Ask),
        4 => any::<prop::sample::Index>().prop_map(Step::End),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
    ];
    prop::collection::vec(step, 0..150)
}

/// A window and its plain counterpart, driven through the same steps.
struct Run {
    now: u64,
    window: Window,
    flying: Vec<(Grant, usize)>,
    commands: Vec<Command>,
}

impl Run {
    fn new() -> Self {
        Self { now: 0, window: Window::new(HOLD), flying: Vec::new(), commands: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pass(ticks) => self.now += ticks,
            Step::Ask(points) => self.ask(*points),
            Step::End(which) if !self.flying.is_empty() => {
                let (grant, command) = self.flying.swap_remove(which.index(self.flying.len()));
                self.window.ended(grant, Tick(self.now), true);
                self.commands[command].ended = Some(self.now);
            }
            Step::GiveBack(which) if !self.flying.is_empty() => {
                let (grant, command) = self.flying.swap_remove(which.index(self.flying.len()));
                self.window.give_back(grant);
                self.commands[command].points = 0;
            }
            Step::End(_) | Step::GiveBack(_) => {}
        }
    }

    /// Asks, and checks the answer against the plain count: granted exactly if there is room, and told the first
    /// instant at which there will be.
    fn ask(&mut self, points: u64) {
        let fits = |at: u64| held(&self.commands, at) + points <= CAPACITY;
        match self.window.try_grant(Tick(self.now), price(points)) {
            Ok(grant) => {
                assert!(fits(self.now));
                self.flying.push((grant, self.commands.len()));
                self.commands.push(Command { points, granted: self.now, ended: None });
            }
            Err(Wait::Until(Tick(at))) => {
                assert!((self.now..at).all(|earlier| !fits(earlier)), "{at} is later than it must be");
                assert!(fits(at), "{at} is too early");
            }
            Err(Wait::InFlight { no_sooner }) => {
                assert!(!fits(u64::MAX / 2), "the points come free without anything ending");
                assert_eq!(no_sooner, Tick(self.now + HOLD));
            }
            Err(Wait::Never) => unreachable!("every ask is below the capacity"),
        }
    }
}

/// The most that can be counted in one interval of `length` ticks, if every command is counted at the worst moment
/// between its grant and its end. Only intervals that begin where a command ends can be the worst.
fn worst_interval(commands: &[Command], length: u64) -> u64 {
    let starts = commands.iter().map(|command| command.ended.unwrap_or(u64::MAX / 2));
    let counted = |start: u64| {
        let may_fall_in =
            |command: &&Command| command.granted < start + length && command.ended.is_none_or(|ended| ended >= start);
        commands.iter().filter(may_fall_in).map(|command| command.points).sum()
    };
    starts.map(counted).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn no_interval_can_hold_more_than_the_capacity_wherever_the_gateway_counts(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            prop_assert_eq!(run.window.used(Tick(run.now)), held(&run.commands, run.now));
        }
        prop_assert!(worst_interval(&run.commands, WINDOW) <= CAPACITY);
        prop_assert!(worst_interval(&run.commands, HOLD) <= CAPACITY);
    }

    #[test]
    fn the_earliest_instant_is_the_one_that_a_forecast_says(
        steps in steps(),
        closed in prop::option::of(0..80_u64),
        points in 0..130_u64,
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        if let Some(pause) = closed {
            run.window.close_until(Tick(run.now + pause));
            run.now += pause / 2;
            if let Ok(probe) = run.window.try_grant(Tick(run.now + pause), price(1)) {
                run.flying.push((probe, 0));
                run.now += pause;
            }
        }
        let forecast = run.window.forecast(Tick(run.now)).earliest(price(points));
        prop_assert_eq!(run.window.earliest(Tick(run.now), price(points)), forecast);
    }

    #[test]
    fn a_forecast_places_asks_where_they_are_granted_if_all_goes_well(
        steps in steps(),
        asks in prop::collection::vec(1..=50_u64, 1..20),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        let mut forecast = run.window.forecast(Tick(run.now));
        for (grant, _) in run.flying.drain(..) {
            run.window.ended(grant, Tick(run.now), true);
        }
        let mut now = Tick(run.now);
        for points in asks {
            let promised = forecast.earliest(price(points));
            match run.window.free_at(now, price(points)) {
                Some(Wait::Until(at)) => now = at,
                None => {}
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(promised, Some(now));
            prop_assert_eq!(forecast.place(price(points)), promised);
            prop_assert_eq!(forecast.room(CAPACITY), CAPACITY - run.window.used(now) - points);
            let grant = run.window.try_grant(now, price(points)).unwrap();
            run.window.ended(grant, now, true);
        }
    }

    #[test]
    fn a_restored_window_frees_nothing_early_and_hardly_late(
        ends in prop::collection::vec((1..=20_u64, 0..40_000_u64), 0..8),
        flying in 0..=20_u64,
        away_ms in 0..40_u64,
    ) {
        let hold = HOLD * 1000;
        let mut first = Window::new(hold);
        let mut now = Tick(0);
        for (points, pause) in ends {
            now = now.after(pause);
            if let Ok(grant) = first.try_grant(now, price(points)) {
                first.ended(grant, now, true);
            }
        }
        let flying = first.try_grant(now, price(flying)).ok();
        let mut second = Window::new(hold);
        // The second process has a clock of its own.
        second.restore(Tick(7), &first.spent(now), away_ms);
        let read_at = now.after(away_ms * 1000);
        if let Some(grant) = flying {
            first.ended(grant, read_at, true);
        }
        for later in (0..=hold + 1000).step_by(250) {
            let used = |window: &Window, at: Tick| window.clone().used(at);
            let restored = used(&second, Tick(7).after(later));
            prop_assert!(restored >= used(&first, read_at.after(later)), "early after {} microseconds", later);
            // A millisecond is what rounding may cost.
            if let Some(earlier) = later.checked_sub(1000) {
                prop_assert!(restored <= used(&first, read_at.after(earlier)), "late after {} microseconds", later);
            }
        }
    }

    #[test]
    fn a_window_that_is_taken_over_grants_what_the_other_would_have_and_frees_nothing_early(
        ends in prop::collection::vec((1..=20_u64, 0..40_000_u64), 0..8),
        flying in 0..=20_u64,
        closed_ms in prop::option::of(0..=HOLD),
        later_us in 0..(HOLD * 1000),
    ) {
        let hold = HOLD * 1000;
        let mut first = Window::new(hold);
        let mut now = Tick(0);
        for (points, pause) in ends {
            now = now.after(pause);
            if let Ok(grant) = first.try_grant(now, price(points)) {
                first.ended(grant, now, true);
            }
        }
        let flying = first.try_grant(now, price(flying)).ok();
        if let Some(closed_ms) = closed_ms {
            first.close_until(now.after(closed_ms * 1000));
        }
        let mut second = Window::new(hold);
        second.take_over(Tick(7), &first.remaining(now), 2000);
        prop_assert_eq!(second.used(Tick(7)), first.used(now));
        prop_assert_eq!(second.needs_probe(), first.needs_probe());
        // What was in flight ends as late as it can.
        if let Some(grant) = flying {
            first.ended(grant, now.after(2000), true);
        }
        for asked in 1..=CAPACITY {
            let (one, other) = (first.clone().earliest(now.after(2000), price(asked)), second.earliest(Tick(2007), price(asked)));
            let (one, other) = (one.unwrap().0 - now.0, other.unwrap().0 - 7);
            prop_assert!(one <= other && other < one + 1000, "{asked} points at {one} and {other}");
        }
        let (one, other) = (first.used(now.after(2000 + later_us)), second.used(Tick(2007).after(later_us)));
        prop_assert!(one <= other);
    }
}

#[test]
fn points_are_held_from_the_grant_until_window_and_guard_after_the_end() {
    let mut window = Window::new(HOLD);
    let grant = window.try_grant(Tick(0), price(100)).unwrap();
    assert_eq!(window.try_grant(Tick(500), price(1)), Err(Wait::InFlight { no_sooner: Tick(500 + HOLD) }));
    window.ended(grant, Tick(500), true);
    assert_eq!(window.try_grant(Tick(500), price(1)), Err(Wait::Until(Tick(500 + HOLD))));
    assert_eq!(window.try_grant(Tick(499 + HOLD), price(1)), Err(Wait::Until(Tick(500 + HOLD))));
    assert!(window.try_grant(Tick(500 + HOLD), price(100)).is_ok());
}

#[test]
fn what_was_never_written_is_free_at_once() {
    let mut window = Window::new(HOLD);
    let grant = window.try_grant(Tick(0), price(100)).unwrap();
    window.give_back(grant);
    assert!(window.try_grant(Tick(0), price(100)).is_ok());
}

#[test]
fn a_closing_holds_whatever_the_count_says_and_is_never_shortened() {
    let mut window = Window::new(HOLD);
    window.close_until(Tick(70));
    window.close_until(Tick(50));
    assert_eq!(window.used(Tick(10)), 0);
    assert_eq!(window.try_grant(Tick(10), price(1)), Err(Wait::Until(Tick(70))));
    assert_eq!(window.forecast(Tick(10)).earliest(price(1)), Some(Tick(70)));
    assert!(window.try_grant(Tick(70), price(1)).is_ok());
}

#[test]
fn after_a_closing_one_command_alone_is_granted_until_it_is_answered() {
    let mut window = Window::new(HOLD);
    let before = window.try_grant(Tick(0), price(1)).unwrap();
    window.close_until(Tick(70));
    window.ended(before, Tick(1), true);
    assert!(window.needs_probe(), "what was sent before the closing proves nothing");

    let unanswered = window.try_grant(Tick(70), price(1)).unwrap();
    assert_eq!(window.free_at(Tick(70), price(1)), Some(Wait::InFlight { no_sooner: Tick(70 + PROBE_LOOK) }));
    assert_eq!(window.forecast(Tick(70)).earliest(price(1)), Some(Tick(70 + PROBE_LOOK)));
    window.ended(unanswered, Tick(71), false);
    let unwritten = window.try_grant(Tick(71), price(1)).unwrap();
    assert!(window.free_at(Tick(71), price(1)).is_some(), "it is a probe like the one before");
    window.give_back(unwritten);
    let refused = window.try_grant(Tick(72), price(1)).unwrap();
    window.close_until(Tick(90));
    window.ended(refused, Tick(73), true);
    assert_eq!(window.free_at(Tick(73), price(1)), Some(Wait::Until(Tick(90))));

    let answered = window.try_grant(Tick(90), price(1)).unwrap();
    window.ended(answered, Tick(91), true);
    let both = (window.try_grant(Tick(91), price(1)), window.try_grant(Tick(91), price(1)));
    assert!(both.0.is_ok() && both.1.is_ok() && !window.needs_probe());
}

#[test]
fn what_is_given_back_is_asked_again_only_if_it_was_the_probe_of_a_closing_that_still_holds() {
    let mut window = Window::new(HOLD);
    let before = window.try_grant(Tick(0), price(1)).unwrap();
    window.close_until(Tick(70));
    let probe = window.try_grant(Tick(70), price(1)).unwrap();
    window.give_back(before);
    assert!(matches!(window.free_at(Tick(70), price(1)), Some(Wait::InFlight { .. })), "one command alone");
    window.open();
    window.give_back(probe);
    assert!(!window.needs_probe(), "it was opened by hand");
}

#[test]
fn a_window_is_closed_until_the_instant_that_was_told_and_no_longer() {
    let mut window = Window::new(HOLD);
    window.close_until(Tick(70));
    assert_eq!((window.closed_until(Tick(69)), window.closed_until(Tick(70))), (Some(Tick(70)), None));
}

#[test]
fn a_closing_is_restored_for_what_is_left_of_it_and_one_that_is_over_asks_for_no_probe() {
    let spent = Spent { closed_for_ms: 5, ..Spent::default() };
    let restored = |away_ms| {
        let mut window = Window::new(HOLD * 1000);
        window.restore(Tick(7), &spent, away_ms);
        (window.closed_until(Tick(7)), window.needs_probe())
    };
    assert_eq!(restored(2), (Some(Tick(3_007)), true));
    assert_eq!(restored(5), (None, false));
}

#[test]
fn opened_by_hand_a_window_needs_no_probe_and_keeps_what_it_holds() {
    let mut window = Window::new(HOLD);
    let spent = window.try_grant(Tick(0), price(99)).unwrap();
    window.ended(spent, Tick(0), true);
    window.close_until(Tick(70));
    window.open();
    assert_eq!((window.closed_until(Tick(1)), window.used(Tick(1)), window.needs_probe()), (None, 99, false));
    assert!(window.try_grant(Tick(1), price(1)).is_ok());
    window.close_until(Tick(3));
    let probe = window.try_grant(Tick(HOLD), price(1)).unwrap();
    window.open();
    let beside = window.try_grant(Tick(HOLD), price(1));
    window.ended(probe, Tick(HOLD), false);
    assert!(beside.is_ok() && !window.needs_probe(), "an old probe closes nothing again");
}

#[test]
fn a_price_above_its_limit_is_never_granted_and_one_below_it_leaves_the_rest_alone() {
    let mut window = Window::new(HOLD);
    assert_eq!(window.free_at(Tick(0), Price { points: 81, limit: 80 }), Some(Wait::Never));
    let _read = window.try_grant(Tick(0), Price { points: 80, limit: 80 }).unwrap();
    assert!(window.try_grant(Tick(0), Price { points: 1, limit: 80 }).is_err());
    assert!(window.try_grant(Tick(0), Price { points: 20, limit: 100 }).is_ok());
}

#[test]
fn an_instant_that_goes_back_is_read_as_the_latest_seen() {
    let mut window = Window::new(HOLD);
    let first = window.try_grant(Tick(0), price(100)).unwrap();
    window.ended(first, Tick(0), true);
    assert_eq!(window.used(Tick(HOLD)), 0);
    // The first was counted until HOLD, so nothing may be granted as if it were earlier.
    let second = window.try_grant(Tick(1), price(100)).unwrap();
    window.ended(second, Tick(2), true);
    assert_eq!(window.free_at(Tick(HOLD), price(1)), Some(Wait::Until(Tick(2 * HOLD))));
}

#[test]
fn a_flood_of_small_ends_is_merged_without_freeing_any_early() {
    let hold = 1_000_000;
    let unlimited = Price { points: 1, limit: u64::MAX };
    let mut window = Window::new(hold);
    for instant in 0..20_000 {
        let grant = window.try_grant(Tick(instant), unlimited).unwrap();
        window.ended(grant, Tick(instant), true);
        assert!(window.ended.len() <= MAX_ENDED);
    }
    for instant in (0..20_000).step_by(37) {
        assert!(window.used(Tick(hold + instant)) >= 20_000 - instant - 1, "freed early at {instant}");
    }
    assert_eq!(window.used(Tick(hold + 20_000)), 0);
}
