//! What goes wrong between the bridge and the gateway, and when: all of it decided by a seed before anything runs. Pure.
//!
//! A plan is a list of steps in order of time. What a step begins it also ends, so that at the plan's end nothing is
//! wrong any more. On one way only one thing is wrong at a time, since ending the one would end the other too.

use concertpos_simulator::{Action, Fault};
use fastrand::Rng;
use serde_json::json;

pub(crate) const SHARDS: [&str; 3] = ["exon", "cyton", "zeus"];

/// How long things go wrong.
pub(crate) const TROUBLE_MS: u64 = 30_000;

/// From one step to the next, drawn anew for each.
const BETWEEN_STEPS_MS: std::ops::Range<u64> = 50..1_200;

/// The delay of each message where nothing is wrong, at most.
pub(crate) const USUAL_DELAY_MS: u64 = 20;

/// One thing that goes wrong for a while.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// What is under way to and from these shards, or is sent, waits. Ended, all of it comes at once.
    Hold(Vec<&'static str>),
    /// It is lost, both ways. Ended, a connection that lost something stays deaf, as nothing is sent twice.
    Partition(Vec<&'static str>),
    /// Only what the bridge sends is lost.
    Mute(Vec<&'static str>),
    /// Only what the shards send is lost.
    Deaf(Vec<&'static str>),
    /// Each message takes up to so many milliseconds.
    Slow(Vec<&'static str>, u64),
    /// The processes of these shards are gone, and are started again at the end.
    Crash(Vec<&'static str>),
    /// The gateway itself misbehaves.
    Gateway(Fault),
}

impl Act {
    /// The shards whose way it takes up.
    fn shards(&self) -> &[&'static str] {
        match self {
            Self::Hold(shards)
            | Self::Partition(shards)
            | Self::Mute(shards)
            | Self::Deaf(shards)
            | Self::Slow(shards, _)
            | Self::Crash(shards) => shards,
            Self::Gateway(_) => &[],
        }
    }
}

/// An act, when it begins and when it ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    pub(crate) act: Act,
}

/// Everything that a seed decides beforehand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
    /// When the pool is told to stop, where that is in the middle of it all. Otherwise it is once everything works again.
    pub(crate) stop_ms: Option<u64>,
}

/// A step begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    Ends(usize),
    Begins(usize),
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Rng::with_seed(seed);
        let (mut steps, mut busy_until, mut from_ms) = (Vec::<Step>::new(), [0; SHARDS.len()], 500);
        while from_ms < TROUBLE_MS {
            let act = act(&mut dice);
            // Some are over before anybody notices, others outlast every timeout.
            let lasts = if dice.bool() { dice.u64(20..1_500) } else { dice.u64(1_500..9_000) };
            let until_ms = (from_ms + lasts).min(TROUBLE_MS);
            let places = || SHARDS.iter().enumerate().filter(|(_, shard)| act.shards().contains(shard));
            if places().all(|(place, _)| busy_until[place] < from_ms) {
                places().for_each(|(place, _)| busy_until[place] = until_ms);
                steps.push(Step { from_ms, until_ms, act });
            }
            from_ms += dice.u64(BETWEEN_STEPS_MS);
        }
        let stop_ms = (dice.u8(..4) == 0).then(|| dice.u64(2_000..TROUBLE_MS));
        Self { seed, steps, stop_ms }
    }

    /// Every beginning and every end, in order of time; at the same instant ends come first.
    pub(crate) fn moments(&self) -> Vec<(u64, Moment)> {
        let both = |(number, step): (usize, &Step)| {
            [(step.from_ms, Moment::Begins(number)), (step.until_ms, Moment::Ends(number))]
        };
        let mut moments: Vec<_> = self.steps.iter().enumerate().flat_map(both).collect();
        moments.sort_unstable();
        moments
    }
}

fn act(dice: &mut Rng) -> Act {
    let shards = match dice.u8(..8) {
        0 => SHARDS.to_vec(),
        1 | 2 => dice.choose_multiple(SHARDS, 2),
        _ => dice.choose_multiple(SHARDS, 1),
    };
    match dice.u8(..12) {
        0 | 1 => Act::Hold(shards),
        2 => Act::Partition(shards),
        3 => Act::Mute(shards),
        4 => Act::Deaf(shards),
        5 => Act::Slow(shards, dice.u64(50..1_500)),
        6 => Act::Crash(shards),
        _ => Act::Gateway(fault(dice)),
    }
}

/// What the gateway does wrong, each with a chance, so that others get through.
fn fault(dice: &mut Rng) -> Fault {
    let rate_limit = |command: &str| Action::Error {
        word: "ratelimit".to_owned(),
        code: Some(json!({"command": command, "retry_after": 100})),
        and_reply: false,
    };
    let late = Action::Late { ms: dice.u64(100..6_000) };
    let fault = match dice.u8(..10) {
        0..=2 => Fault::new(Action::Duplicate),
        3 => Fault::new(Action::Error { word: "server_error".to_owned(), code: None, and_reply: true }),
        4 => Fault::new(late),
        5 => Fault::new(late).on("payitems"),
        6 => Fault::new(Action::CutAfterApply),
        7 => Fault::new(Action::CutBeforeApply),
        8 => Fault::new(Action::HalfOpen),
        _ => Fault::new(rate_limit("payitems")).on("payitems"),
    };
    Fault { probability: 0.1 + dice.f64() * 0.5, ..fault }
}

#[test]
fn a_plan_ends_all_that_it_begins_and_never_does_two_things_to_one_way() {
    for seed in 0..200 {
        let plan = Plan::of(seed);
        assert_eq!(plan, Plan::of(seed));
        for (number, step) in plan.steps.iter().enumerate() {
            assert!(step.from_ms < step.until_ms && step.until_ms <= TROUBLE_MS, "{step:?}");
            let overlaps = |other: &&Step| other.from_ms <= step.until_ms;
            for other in plan.steps[number + 1..].iter().take_while(overlaps) {
                assert!(
                    !step.act.shards().iter().any(|shard| other.act.shards().contains(shard)),
                    "{step:?} {other:?}"
                );
            }
        }
    }
}
