//! Random lives of a journal, with faults and crashes, against a model that fits on a page.
//!
//! The model knows of each key its latest attempt and who holds it. After every step the journal must answer for
//! every key as the model does: not later, not sooner, and not differently after a crash.

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::disk::Failure;
use super::*;
use crate::journal::Late;

const KEYS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Step {
    Reserve {
        key: usize,
        amount: u64,
    },
    Abandon(usize),
    Dispatch(usize),
    Finish(usize, Told),
    Leave(usize),
    Late(usize, Told),
    Settle(usize, Finding),
    Run {
        ms: u64,
        wall_ms: i64,
    },
    /// The disk fails after some more operations; once that shows, it is healed, or the machine crashes.
    Break {
        failure: Failure,
        after: u32,
        crash: Option<u64>,
    },
    Crash(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Booked,
    Refused,
    NeverWritten,
    Nothing,
}

impl Told {
    fn outcome(self) -> Outcome {
        match self {
            Self::Booked => booked(),
            Self::Refused => refused(),
            Self::NeverWritten => Outcome::Released(Release::NeverWritten),
            Self::Nothing => Outcome::Unknown(None),
        }
    }

    /// What an attempt in `state` is after this.
    fn after(self, state: State) -> State {
        match (state, self) {
            (State::Dispatching | State::Unknown, Self::Booked) => State::Booked,
            (State::Dispatching | State::Unknown, Self::Refused | Self::NeverWritten) => State::Released,
            (State::Dispatching, Self::Nothing) => State::Unknown,
            (state, _) => state,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..KEYS;
    let told = prop_oneof![Just(Told::Booked), Just(Told::Refused), Just(Told::NeverWritten), Just(Told::Nothing)];
    let finding = prop_oneof![Just(Finding::Booked), Just(Finding::NotBooked)];
    let failure = prop_oneof![Just(Failure::Write), Just(Failure::Full), Just(Failure::Sync)];
    let step = prop_oneof![
        6 => (key.clone(), 1..3u64).prop_map(|(key, amount)| Step::Reserve { key, amount }),
        1 => key.clone().prop_map(Step::Abandon),
        6 => key.clone().prop_map(Step::Dispatch),
        5 => (key.clone(), told.clone()).prop_map(|(key, told)| Step::Finish(key, told)),
        1 => key.clone().prop_map(Step::Leave),
        2 => (key.clone(), told).prop_map(|(key, told)| Step::Late(key, told)),
        2 => (key, finding).prop_map(|(key, finding)| Step::Settle(key, finding)),
        2 => (1..90_000u64, any::<i32>()).prop_map(|(ms, wall)| Step::Run { ms, wall_ms: i64::from(wall) * 1_000_000 }),
        2 => (failure, 0..30u32, prop::option::of(any::<u64>()))
            .prop_map(|(failure, after, crash)| Step::Break { failure, after, crash }),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// The latest attempt under a key, as the model has it.
#[derive(Debug, Clone)]
struct Attempt {
    id: RecordId,
    amount: u64,
    state: State,
    is_free: bool,
    /// Released by the gateway's word, which its reply can take back.
    is_refused: bool,
    /// How long the journal ran when it ended.
    ended_ms: Option<u64>,
}

#[derive(Debug)]
enum Held {
    Reserved(Reservation),
    Dispatched(Dispatched),
}

struct Life<P> {
    runtime: Runtime,
    place: P,
    clock: Arc<HandClock>,
    journal: Journal,
    attempts: [Option<Attempt>; KEYS],
    held: [Option<(Held, u64)>; KEYS],
    /// How long the journal ran.
    ran_ms: u64,
    crash_on_fault: Option<u64>,
}

impl<P: Place> Life<P> {
    fn new() -> Self {
        let (place, clock) = (P::default(), Arc::new(HandClock::default()));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let journal = open(&place, &clock);
        let (attempts, held) = Default::default();
        Self { runtime, place, clock, journal, attempts, held, ran_ms: 0, crash_on_fault: None }
    }

    fn key(at: usize) -> Key {
        key(&at.to_string())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Reserve { key, amount } => self.reserve(key, amount),
            Step::Abandon(key) => {
                if let Some((Held::Reserved(_), _)) = &self.held[key] {
                    self.held[key] = None;
                }
            }
            Step::Dispatch(key) => self.dispatch(key),
            Step::Finish(key, told) => {
                if let Some(dispatched) = self.take_dispatched(key) {
                    let (id, finished) = (dispatched.id(), self.journal.finish(dispatched, told.outcome()));
                    let finished = self.runtime.block_on(finished).map(|_| ());
                    self.told(key, id, told, finished);
                }
            }
            Step::Leave(key) => {
                if let Some(dispatched) = self.take_dispatched(key) {
                    let id = dispatched.id();
                    drop(dispatched);
                    let written = self.settle_down();
                    self.told(key, id, Told::Nothing, written);
                }
            }
            Step::Late(key, told) => self.late(key, told),
            Step::Settle(key, finding) => self.settle(key, finding),
            Step::Run { ms, wall_ms } => self.run(ms, wall_ms),
            Step::Break { failure, after, crash } => {
                self.place.fail_after(failure, after);
                self.crash_on_fault = crash;
            }
            Step::Crash(seed) => self.crash(seed),
        }
    }

    fn take_dispatched(&mut self, key: usize) -> Option<Dispatched> {
        match self.held[key].take() {
            Some((Held::Dispatched(dispatched), _)) => Some(dispatched),
            other => {
                self.held[key] = other;
                None
            }
        }
    }

    fn settle_down(&self) -> Result<(), JournalError> {
        // What a dropped guard hands in comes before this.
        self.runtime.block_on(settled_down(&self.journal))
    }

    fn reserve(&mut self, key: usize, amount: u64) {
        let reserved = self.runtime.block_on(self.journal.reserve(Self::key(key), sale(amount)));
        let held = self.held[key].as_ref().map(|(_, held)| *held);
        let expected = match (&self.attempts[key], held) {
            (Some(attempt), _) if !attempt.is_free => match attempt.state {
                _ if attempt.amount != amount => "reused",
                State::Dispatching => "in progress",
                State::Unknown => "unknown",
                _ => "replay",
            },
            (_, Some(held)) if held == amount => "in progress",
            (_, Some(_)) => "reused",
            (_, None) => "fresh",
        };
        let found = match reserved {
            Reserve::Fresh(reservation) => {
                self.held[key] = Some((Held::Reserved(reservation), amount));
                "fresh"
            }
            Reserve::Replay(_) => "replay",
            Reserve::InProgress(_) => "in progress",
            Reserve::Reused => "reused",
            Reserve::Unknown(_) => "unknown",
            Reserve::Unreadable(_) => "unreadable",
            Reserve::Overloaded | Reserve::Unavailable(_) => "unavailable",
        };
        assert_eq!(found, expected, "{:?}, held {held:?}", self.attempts[key]);
    }

    fn dispatch(&mut self, key: usize) {
        let (mut reservation, amount) = match self.held[key].take() {
            Some((Held::Reserved(reservation), amount)) => (reservation, amount),
            other => {
                self.held[key] = other;
                return;
            }
        };
        let id = reservation.id();
        reservation.note_details(details(amount));
        let attempt =
            Attempt { id, amount, state: State::Dispatching, is_free: false, is_refused: false, ended_ms: None };
        if let Ok(dispatched) = self.runtime.block_on(self.journal.dispatch(reservation)) {
            self.held[key] = Some((Held::Dispatched(dispatched), amount));
            self.attempts[key] = Some(attempt);
            return;
        }
        // Never sent: released, or never recorded, or unknown where a crash came between.
        let crashed = self.after_fault();
        if let Some(state) = self.state_on_disk(id) {
            assert!(state == State::Released || (crashed && state == State::Unknown), "{state}");
            self.attempts[key] = Some(attempt);
            self.move_to(key, state, state == State::Released);
        }
    }

    /// An outcome was handed in: it applies, unless a crash came before it was on disk.
    fn told(&mut self, key: usize, id: RecordId, told: Told, written: Result<(), JournalError>) {
        self.told_by(key, id, told, written, false);
    }

    fn told_by(&mut self, key: usize, id: RecordId, told: Told, written: Result<(), JournalError>, is_late: bool) {
        let was_refused = self.attempts[key].as_ref().is_some_and(|attempt| attempt.id == id && attempt.is_refused);
        let before = self.attempts[key].as_ref().filter(|attempt| attempt.id == id).map(|attempt| attempt.state);
        let crashed = written.is_err() && self.after_fault();
        let Some(before) = before else { return };
        let takes_back = is_late && was_refused && told == Told::Booked;
        let mut expected = if takes_back { State::Booked } else { told.after(before) };
        if crashed {
            let lost = if before == State::Dispatching { State::Unknown } else { before };
            let found = self.state_on_disk(id).expect("a dispatched payment is on disk");
            assert!(found == lost || found == expected, "{found}, neither {lost} nor {expected}");
            expected = found;
        }
        let is_free = expected == State::Released || (self.is_free(key) && expected == before);
        self.move_to(key, expected, is_free);
        if let Some(attempt) = &mut self.attempts[key] {
            let by_word = before != State::Released && told == Told::Refused;
            attempt.is_refused = expected == State::Released && (was_refused || by_word);
        }
    }

    fn late(&mut self, key: usize, told: Told) {
        let Some(Attempt { id, state, is_free, is_refused, .. }) = self.attempts[key].clone() else { return };
        match self.runtime.block_on(self.journal.late(id, told.outcome())) {
            Ok(late) => {
                let contradicts = match told {
                    Told::Booked => is_free && !is_refused,
                    Told::Refused | Told::NeverWritten => state.has_ended() && !is_free,
                    Told::Nothing => false,
                };
                assert_eq!(matches!(late, Late::Contradiction(_)), contradicts, "{told:?} for {state}");
                self.told_by(key, id, told, Ok(()), true);
            }
            Err(error) => self.told_by(key, id, told, Err(error), true),
        }
    }

    fn settle(&mut self, key: usize, finding: Finding) {
        let Some(attempt) = self.attempts[key].clone() else { return };
        let seen = self.runtime.block_on(self.journal.get(attempt.id)).unwrap().expect("the model knows it");
        let settled = self.runtime.block_on(self.journal.settle(attempt.id, seen.revision, verdict(finding)));
        let settles = attempt.state == State::Unknown;
        let is_free = finding == Finding::NotBooked;
        match settled {
            Ok(_) => {
                assert!(settles);
                self.move_to(key, State::Settled, is_free);
            }
            Err(JournalError::Rejected(_)) => assert!(!settles),
            Err(_) => {
                self.after_fault();
                let found = self.state_on_disk(attempt.id).expect("a dispatched payment is on disk");
                if found == State::Settled && settles {
                    self.move_to(key, found, is_free);
                }
            }
        }
    }

    fn run(&mut self, ms: u64, wall_ms: i64) {
        // A fault here would leave open how much of the time was saved.
        self.heal();
        self.clock.run(Duration::from_millis(ms));
        self.clock.step_wall(wall_ms);
        self.ran_ms += ms;
        self.settle_down().unwrap();
        let keep_ms = u64::try_from(KEEP.as_millis()).unwrap();
        for attempt in &mut self.attempts {
            let has_expired = |attempt: &Attempt| attempt.ended_ms.is_some_and(|at| at + keep_ms <= self.ran_ms);
            if attempt.as_ref().is_some_and(has_expired) {
                *attempt = None;
            }
        }
    }

    fn crash(&mut self, seed: u64) {
        self.place = self.place.after_crash(seed);
        // What the old process still holds goes to a disk that nobody reads any more.
        self.journal = open(&self.place, &self.clock);
        self.held = Default::default();
        for key in 0..KEYS {
            if self.attempts[key].as_ref().is_some_and(|attempt| attempt.state == State::Dispatching) {
                self.move_to(key, State::Unknown, false);
            }
        }
    }

    /// The journal said that it is not available: the disk is healed, or the machine crashes.
    fn after_fault(&mut self) -> bool {
        if let Some(seed) = self.crash_on_fault.take() {
            self.crash(seed);
            return true;
        }
        self.heal();
        false
    }

    fn heal(&mut self) {
        self.crash_on_fault = None;
        self.place.heal();
        self.runtime.block_on(until("the journal recovers", || self.journal.is_available()));
    }

    fn is_free(&self, key: usize) -> bool {
        self.attempts[key].as_ref().is_some_and(|attempt| attempt.is_free)
    }

    fn move_to(&mut self, key: usize, state: State, is_free: bool) {
        let Some(attempt) = &mut self.attempts[key] else { return };
        if state.has_ended() && attempt.state != state {
            attempt.ended_ms = Some(self.ran_ms);
        }
        attempt.state = state;
        attempt.is_free = is_free;
    }

    fn state_on_disk(&self, id: RecordId) -> Option<State> {
        self.runtime.block_on(state(&self.journal, id))
    }

    fn check(&self) {
        for key in 0..KEYS {
            let found = self.runtime.block_on(current(&self.journal, &key.to_string())).unwrap();
            let found = found.map(|record| (record.id, record.state(), record.frees_its_key()));
            let expected = self.attempts[key].as_ref().map(|attempt| (attempt.id, attempt.state, attempt.is_free));
            assert_eq!(found, expected, "key {key}");
        }
        self.runtime.block_on(self.check_indexes());
    }

    /// Every record is in every index once, under its state, and counted there.
    async fn check_indexes(&self) {
        let filter = Filter { instance: "demo".into(), limit: 1000, ..Filter::default() };
        let all = self.journal.list(filter.clone()).await.unwrap().readable();
        let by_caller = Filter { caller: Some("shop".into()), ..filter.clone() };
        assert_eq!(self.journal.list(by_caller).await.unwrap().readable(), all);
        for record in &all {
            let amount = record.sale.products[0].1;
            assert_eq!(record.details.as_deref(), details(amount).as_ref(), "what was known of {amount}");
        }
        let counts = self.journal.counts().await.unwrap();
        for state in State::ALL.into_iter().filter(|state| *state != State::Reserved) {
            let in_state: Vec<_> = all.iter().filter(|record| record.state() == state).cloned().collect();
            assert_eq!(counts[&state.into()], in_state.len() as u64, "{state}");
            let by_state = Filter { state: Some(state.into()), ..filter.clone() };
            assert_eq!(self.journal.list(by_state).await.unwrap().readable(), in_state, "{state}");
        }
    }
}

fn live<P: Place>(steps: Vec<Step>) {
    let mut life = Life::<P>::new();
    for step in steps {
        life.step(step);
        life.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_journal_answers_as_the_model_does(steps in steps()) {
        live::<Disk>(steps);
    }

    #[test]
    fn and_so_does_one_in_memory(steps in steps()) {
        live::<Memory>(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds_of_postgres(), ..ProptestConfig::default() })]

    #[test]
    fn and_so_does_one_in_postgres_whose_connections_lose_messages(steps in steps()) {
        live::<Database>(steps);
    }
}

fn rounds_of_postgres() -> u32 {
    u32::try_from(rounds("JOURNAL_ROUNDS", 6)).unwrap()
}
