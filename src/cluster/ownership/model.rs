//! Every interleaving, within bounds, of two replicas and a database with a synchronous standby: slow and lost answers,
//! requests that take effect long after they were given up, pauses, clocks that drift by the margin, a failover that loses
//! what the standby did not have, and reads from an old primary that lives on.
//!
//! The rules are those of the program, the statements are modelled. Who should own the instance is left open: a replica may claim
//! or release it at any time, so the promise does not rest on the choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};
use uuid::Uuid;

use super::{Ending, Holdings, Row, Rules, Timeline, Watch};
use crate::tenure::SessionId;

/// A rule that is broken on purpose, to see that the model notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    NoMargin,
    LeaseFromAcknowledgement,
    ClaimWithoutEnd,
    RenewalAfterEnd,
    ActingAfterRelease,
    EndingWhateverTheBeat,
    EndingOnAnotherTimeline,
    ActingUnderAClaimThatWasRead,
    ActingOnAClaimThatIsNotReplicated,
}

/// How much of what can go wrong happens in one run.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    ticks: u8,
    given_up: u8,
    failovers: u8,
    drift: u8,
    /// The last epoch that is claimed.
    epochs: i64,
    /// Whether an owner may release, and whether requests that were given up may take effect later.
    releases: bool,
}

#[derive(Debug, Clone)]
struct Cluster {
    broken: Broken,
    bounds: Bounds,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    tick: u8,
    primary: Database,
    standby: Database,
    /// The primary of before the failover.
    old: Option<Database>,
    replicas: [Replica; 2],
    answers: Vec<Heard>,
    /// Requests that were given up, and may yet take effect.
    late: Vec<(SessionId, What)>,
    given_up: u8,
    /// The highest token under which anybody acted.
    acted: Option<(i64, SessionId)>,
    /// Somebody acted beside or after a later owner.
    doubled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Database {
    timeline: Timeline,
    /// Beat, and whether it has ended.
    sessions: BTreeMap<SessionId, (i64, bool)>,
    row: Row,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Replica {
    clock: u8,
    drift: u8,
    session: SessionId,
    is_registered: bool,
    valid_until: Duration,
    watch: Watch,
    holdings: Holdings,
    /// When it last renewed, and last read: it does each once a tick.
    renewed: Option<u8>,
    read: Option<u8>,
}

/// An answer on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Heard {
    by: usize,
    /// When the request was sent, by the replica's clock.
    sent: u8,
    what: What,
    answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum What {
    Renew,
    Read,
    End(Ending),
    Claim(i64),
    Release(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Answer {
    Rows(u8),
    Read { timeline: Timeline, others: Vec<(SessionId, i64)>, row: Row },
}

/// What becomes of a request. Each takes effect when it is sent, or late: one that takes effect later and is heard of is the
/// same as one that was sent later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its answer comes, sooner or later.
    Answered,
    /// It takes effect, and the answer is lost.
    Unheard,
    /// It takes effect on the primary, and the standby does not have it.
    Unreplicated,
    /// It is given up, and takes effect later.
    Late,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// Time passes; the clock of this replica stands still.
    Tick(Option<usize>),
    Send(usize, What, Fate),
    /// A late request takes effect.
    Apply {
        at: usize,
        replicated: bool,
    },
    Answer(usize),
    ReadOld,
    Failover,
}

/// The replica that reads and may end the other, which renews, and owns the instance at first. Who lost its session sends
/// nothing more: what a new session does is what the watcher does.
const WATCHER: usize = 1;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u128) -> SessionId {
    SessionId::from(Uuid::from_u128(number))
}

fn instance() -> Arc<str> {
    "one".into()
}

impl Replica {
    fn new(session: SessionId, drift: u8) -> Self {
        Self {
            clock: 0,
            drift,
            session,
            is_registered: true,
            valid_until: Duration::ZERO,
            watch: Watch::default(),
            holdings: Holdings::of(session),
            renewed: None,
            read: None,
        }
    }

    fn now(&self) -> Duration {
        SECOND * self.clock.into()
    }

    /// The token under which it would write to the gateway now.
    fn acts(&self) -> Option<(i64, SessionId)> {
        let held = self.holdings.get("one")?;
        (self.now() < self.valid_until).then_some((held.epoch, self.session))
    }

    /// It has no session any more.
    fn lose(&mut self) {
        *self = Self { clock: self.clock, is_registered: false, ..Self::new(self.session, self.drift) };
    }
}

impl Cluster {
    fn rules(&self) -> Rules {
        let margin = if self.broken == Broken::NoMargin { Duration::ZERO } else { SECOND };
        Rules { lease: SECOND * 2, margin }
    }

    fn apply(&self, database: &mut Database, session: SessionId, what: &What) -> Answer {
        let ended = |database: &Database, session| database.sessions.get(&session).is_some_and(|(_, ended)| *ended);
        let applied = match what {
            What::Renew => match database.sessions.get_mut(&session) {
                Some((beat, ended)) if !*ended || self.broken == Broken::RenewalAfterEnd => {
                    *beat += 1;
                    true
                }
                _ => false,
            },
            What::Read => {
                let live = database.sessions.iter().filter(|(other, (_, ended))| **other != session && !ended);
                let others = live.map(|(other, (beat, _))| (*other, *beat)).collect();
                return Answer::Read { timeline: database.timeline, others, row: database.row.clone() };
            }
            What::End(ending) => {
                let on_this_timeline =
                    ending.timeline == database.timeline || self.broken == Broken::EndingOnAnotherTimeline;
                match database.sessions.get_mut(&ending.session) {
                    Some((beat, ended))
                        if on_this_timeline
                            && (*beat == ending.beat || self.broken == Broken::EndingWhateverTheBeat) =>
                    {
                        *ended = true;
                        true
                    }
                    _ => false,
                }
            }
            What::Claim(after) => {
                let owner = database.row.session;
                let free = owner.is_none_or(|owner| owner == session || ended(database, owner))
                    || self.broken == Broken::ClaimWithoutEnd;
                let claims = free && database.row.epoch == *after;
                if claims {
                    database.row = Row { session: Some(session), epoch: after + 1, ..Row::default() };
                }
                claims
            }
            What::Release(epoch) => {
                let releases = database.row.session == Some(session) && database.row.epoch == *epoch;
                if releases {
                    database.row.session = None;
                }
                releases
            }
        };
        Answer::Rows(applied.into())
    }

    fn send(&self, world: &mut World, by: usize, what: What, fate: Fate) {
        let replica = &mut world.replicas[by];
        let (session, sent) = (replica.session, replica.clock);
        match what {
            What::Renew => replica.renewed = Some(sent),
            What::Read => replica.read = Some(sent),
            What::Release(_) if self.broken != Broken::ActingAfterRelease => {
                replica.holdings.release("one");
            }
            _ => {}
        }
        if fate != Fate::Answered {
            world.given_up += 1;
            if matches!(what, What::End(_)) {
                replica.watch.begin_anew();
            }
        }
        if fate == Fate::Late {
            world.late.push((session, what));
            return;
        }
        let answer = self.apply(&mut world.primary, session, &what);
        if fate != Fate::Unreplicated && what != What::Read {
            world.standby = world.primary.clone();
        }
        let is_heard = fate == Fate::Answered
            || fate == Fate::Unreplicated && self.broken == Broken::ActingOnAClaimThatIsNotReplicated;
        // Nothing follows from the others.
        let matters = match what {
            What::Renew | What::Read => true,
            What::Claim(_) => answer == Answer::Rows(1),
            What::Release(_) => self.broken == Broken::ActingAfterRelease,
            What::End(_) => false,
        };
        if is_heard && matters {
            world.answers.push(Heard { by, sent, what, answer });
        }
    }

    /// The replica hears the answer, and applies the rules to it.
    fn hear(&self, world: &mut World, Heard { by, sent, what, answer }: Heard) {
        let replica = &mut world.replicas[by];
        let now = replica.now();
        let sent = SECOND * sent.into();
        match (what, answer) {
            (What::Renew, Answer::Rows(1)) => {
                let from = if self.broken == Broken::LeaseFromAcknowledgement { now } else { sent };
                replica.valid_until = replica.valid_until.max(self.rules().valid_until(from));
            }
            (What::Renew, _) => replica.lose(),
            (What::Read, Answer::Read { timeline, others, row }) => {
                replica.watch.saw(timeline, others, now);
                replica.holdings.saw("one", Some(&row), sent);
                if self.broken == Broken::ActingUnderAClaimThatWasRead && row.session == Some(replica.session) {
                    replica.holdings.claimed(&instance(), row.epoch, now);
                }
            }
            (What::Claim(after), _) => replica.holdings.claimed(&instance(), after + 1, now),
            (What::Release(_), _) => {
                replica.holdings.release("one");
            }
            _ => {}
        }
    }

    fn may_fail_over(&self, world: &World) -> bool {
        world.primary.timeline <= Timeline::from(self.bounds.failovers)
    }

    fn watch_acts(world: &mut World) {
        let acting: Vec<_> = world.replicas.iter().filter_map(Replica::acts).collect();
        world.doubled |= acting.len() > 1;
        for token in acting {
            match world.acted {
                Some(last) if last.0 > token.0 || (last.0 == token.0 && last.1 != token.1) => world.doubled = true,
                _ => world.acted = Some(token),
            }
        }
    }

    /// What may become of a request. A renewal that is late or not heard of only makes it harder to end the session.
    fn fates(&self, world: &World, what: &What) -> Vec<Fate> {
        let mut fates = vec![Fate::Answered];
        if world.given_up == self.bounds.given_up || *what == What::Read {
            return fates;
        }
        if *what != What::Renew && self.bounds.releases {
            fates.push(Fate::Late);
        }
        if matches!(what, What::Claim(_)) || self.broken == Broken::ActingAfterRelease {
            fates.push(Fate::Unheard);
        }
        if self.may_fail_over(world) {
            fates.push(Fate::Unreplicated);
        }
        fates
    }

    fn sends(&self, world: &World, by: usize) -> Vec<What> {
        let replica = &world.replicas[by];
        // Renewals and readings go by one connection, claims and releases by another.
        let waits_for_owners = |heard: &Heard| matches!(heard.what, What::Claim(_) | What::Release(_));
        let is_busy =
            |of_owners: bool| world.answers.iter().any(|heard| heard.by == by && waits_for_owners(heard) == of_owners);
        let mut sends = Vec::new();
        if !is_busy(false) {
            if by == WATCHER {
                sends.extend(replica.watch.overdue(&self.rules(), replica.now()).into_iter().map(What::End));
                if replica.read != Some(replica.clock) {
                    sends.push(What::Read);
                }
            } else if replica.is_registered && replica.renewed != Some(replica.clock) {
                sends.push(What::Renew);
            }
        }
        if !is_busy(true) && replica.is_registered {
            match replica.holdings.get("one") {
                Some(held) if self.bounds.releases => sends.push(What::Release(held.epoch)),
                None if world.primary.row.epoch < self.bounds.epochs => {
                    sends.push(What::Claim(world.primary.row.epoch));
                }
                _ => {}
            }
        }
        sends
    }
}

impl Model for Cluster {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let (first, second) = (id(1), id(2));
        let row = Row { session: Some(first), epoch: 1, ..Row::default() };
        let sessions = [(first, (0, false)), (second, (0, false))].into();
        let database = Database { timeline: 1, sessions, row };
        let mut replicas = [Replica::new(first, self.bounds.drift), Replica::new(second, self.bounds.drift)];
        replicas[0].valid_until = self.rules().valid_until(Duration::ZERO);
        // Nobody ends the watcher, so its lease may be taken for one that never is over.
        replicas[WATCHER].valid_until = Duration::MAX;
        replicas[0].holdings.claimed(&instance(), 1, Duration::ZERO);
        vec![World {
            tick: 0,
            primary: database.clone(),
            standby: database,
            old: None,
            replicas,
            answers: Vec::new(),
            late: Vec::new(),
            given_up: 0,
            acted: Some((1, first)),
            doubled: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.doubled {
            return;
        }
        if world.tick < self.bounds.ticks {
            actions.push(Action::Tick(None));
            let drifting = (0..2).filter(|which| world.replicas[*which].drift > 0);
            actions.extend(drifting.map(|which| Action::Tick(Some(which))));
        }
        for by in 0..2 {
            for what in self.sends(world, by) {
                let fates = self.fates(world, &what).into_iter();
                actions.extend(fates.map(|fate| Action::Send(by, what.clone(), fate)));
            }
        }
        actions.extend((0..world.answers.len()).map(Action::Answer));
        for at in 0..world.late.len() {
            actions.push(Action::Apply { at, replicated: true });
            if self.may_fail_over(world) {
                actions.push(Action::Apply { at, replicated: false });
            }
        }
        if self.may_fail_over(world) {
            actions.push(Action::Failover);
        }
        let watcher = &world.replicas[WATCHER];
        let reads = world.answers.iter().any(|heard| heard.what == What::Read);
        if world.old.is_some() && !reads && watcher.read != Some(watcher.clock) {
            actions.push(Action::ReadOld);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Tick(still) => {
                world.tick += 1;
                for (which, replica) in world.replicas.iter_mut().enumerate() {
                    if still == Some(which) {
                        replica.drift -= 1;
                    } else {
                        replica.clock += 1;
                    }
                }
            }
            Action::Send(by, what, fate) => self.send(&mut world, by, what, fate),
            Action::Apply { at, replicated } => {
                let (session, what) = world.late.remove(at);
                self.apply(&mut world.primary, session, &what);
                if replicated {
                    world.standby = world.primary.clone();
                }
            }
            Action::ReadOld => {
                let (session, sent) = (world.replicas[WATCHER].session, world.replicas[WATCHER].clock);
                let mut old = world.old.clone()?;
                let answer = self.apply(&mut old, session, &What::Read);
                world.replicas[WATCHER].read = Some(sent);
                world.answers.push(Heard { by: WATCHER, sent, what: What::Read, answer });
            }
            Action::Answer(at) => {
                let heard = world.answers.remove(at);
                self.hear(&mut world, heard);
            }
            Action::Failover => {
                let timeline = world.primary.timeline + 1;
                world.old = Some(world.primary.clone());
                world.primary = Database { timeline, ..world.standby.clone() };
                world.standby = world.primary.clone();
            }
        }
        Self::watch_acts(&mut world);
        world.answers.sort_unstable();
        world.late.sort_unstable();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one at a time acts", |_, world: &World| !world.doubled),
            Property::sometimes("another takes over", |_, world: &World| {
                world.acted.is_some_and(|(epoch, session)| epoch > 1 && session != id(1))
            }),
        ]
    }
}

fn check(broken: Broken, bounds: Bounds) -> (bool, bool, usize) {
    let checker = Cluster { broken, bounds }.checker().threads(2).target_state_count(40_000_000);
    let checker = if broken == Broken::Nothing { checker } else { checker.finish_when(HasDiscoveries::AnyFailures) };
    let checker = checker.spawn_bfs().join();
    (
        checker.discovery("one at a time acts").is_none(),
        checker.discovery("another takes over").is_some(),
        checker.unique_state_count(),
    )
}

fn holds(bounds: Bounds) {
    let (holds, takes_over, states) = check(Broken::Nothing, bounds);
    println!("{states} states within {bounds:?}");
    assert!(holds && takes_over);
}

#[test]
fn nobody_acts_beside_another_whatever_is_late_or_lost() {
    holds(Bounds { ticks: 3, given_up: 1, failovers: 0, drift: 0, epochs: 2, releases: true });
}

#[test]
fn nobody_acts_beside_another_where_clocks_drift() {
    holds(Bounds { ticks: 3, given_up: 0, failovers: 0, drift: 1, epochs: 2, releases: true });
}

#[test]
fn nobody_acts_beside_another_across_a_failover() {
    holds(FAILING_OVER);
    holds(RELEASING);
}

/// Renewals, ends and claims around a failover.
const FAILING_OVER: Bounds = Bounds { ticks: 3, given_up: 1, failovers: 1, drift: 0, epochs: 2, releases: false };

/// Releases and requests that take effect late around a failover, while nobody is ended.
const RELEASING: Bounds = Bounds { ticks: 1, releases: true, ..FAILING_OVER };

fn all_are_noticed(broken: &[(Broken, Bounds)]) {
    for (broken, bounds) in broken {
        let (holds, _, states) = check(*broken, *bounds);
        println!("{broken:?}: {states} states");
        assert!(!holds, "{broken:?} went unnoticed");
    }
}

#[test]
fn each_rule_that_is_broken_is_noticed() {
    let usual = Bounds { ticks: 3, given_up: 0, failovers: 0, drift: 0, epochs: 2, releases: true };
    all_are_noticed(&[
        (Broken::NoMargin, Bounds { drift: 1, ..usual }),
        (Broken::LeaseFromAcknowledgement, usual),
        (Broken::ClaimWithoutEnd, usual),
        (Broken::RenewalAfterEnd, usual),
        (Broken::ActingAfterRelease, Bounds { given_up: 1, ..usual }),
        (Broken::EndingWhateverTheBeat, usual),
    ]);
}

#[test]
fn each_rule_about_a_failover_that_is_broken_is_noticed() {
    all_are_noticed(&[
        (Broken::EndingOnAnotherTimeline, FAILING_OVER),
        (Broken::ActingUnderAClaimThatWasRead, RELEASING),
        (Broken::ActingOnAClaimThatIsNotReplicated, RELEASING),
    ]);
}
