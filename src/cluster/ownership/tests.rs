use std::slice;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::cluster::config::MARGIN;

const LEASE: Duration = Duration::from_secs(6);
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

fn id(number: u128) -> SessionId {
    SessionId::from(Uuid::from_u128(number))
}

fn session(name: &str, instances: &[Arc<str>]) -> Session {
    let lists = Arc::new(instances.iter().cloned().collect());
    Session { name: name.into(), shares_its_name: false, draining: false, reaches: true, format: 1, lists }
}

fn names(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|number| format!("festival-{number}").into()).collect()
}

fn owned(session: Option<SessionId>, epoch: i64) -> Row {
    Row { session, epoch, ..Row::default() }
}

/// The first session of two, with a valid lease.
struct Given {
    ownership: Ownership,
    instances: Vec<Arc<str>>,
    other: Session,
    now: Duration,
}

impl Given {
    fn new(count: usize) -> Self {
        let instances = names(count);
        let ownership = Ownership::begin(Rules::of(LEASE), id(1), 1, instances.clone(), PATIENCE);
        let other = session("two", &instances);
        Self { ownership, instances, other, now: SECOND * 100 }
    }

    /// A second later: renewed, and everything is read; the beat of the other as given, or it has ended.
    fn beat(&mut self, other: Option<i64>, rows: &[(Arc<str>, Row)]) -> Steps {
        self.reads(1, other, rows)
    }

    fn reads(&mut self, format: i32, other: Option<i64>, rows: &[(Arc<str>, Row)]) -> Steps {
        self.now += SECOND;
        self.ownership.renewed(self.now);
        let me = Session { format: self.ownership.format, ..session("one", &self.instances) };
        let mut sessions = vec![(id(1), 0, me)];
        sessions.extend(other.map(|beat| (id(2), beat, self.other.clone())));
        self.ownership.saw(Reading {
            asked: self.now,
            came: self.now,
            timeline: 1,
            format,
            sessions,
            is_complete: true,
            rows: rows.to_vec(),
        });
        self.ownership.decide(self.now)
    }

    fn rows(&self, session: Option<SessionId>, epoch: i64) -> Vec<(Arc<str>, Row)> {
        self.instances.iter().map(|instance| (Arc::clone(instance), owned(session, epoch))).collect()
    }

    fn claim_all(&mut self) {
        for instance in self.instances.clone() {
            self.ownership.claimed(&instance, 1, self.now);
        }
    }
}

#[test]
fn what_a_live_session_owns_is_left_and_what_an_ended_one_owned_is_claimed_after_its_epoch() {
    let mut given = Given::new(4);
    let rows = given.rows(Some(id(2)), 7);
    assert_eq!(given.beat(Some(1), &rows), Steps::default());
    let claims = given.beat(None, &rows).claims;
    assert_eq!(claims.len(), 4);
    assert!(claims.iter().all(|claim| claim.after == 7));
    assert_eq!(given.beat(None, &rows).claims, [], "they are under way");
}

#[test]
fn a_session_is_ended_once_its_beat_stood_still_for_lease_and_margin_and_not_after_an_outage() {
    let mut given = Given::new(1);
    let rows = given.rows(Some(id(2)), 7);
    for _ in 0..7 {
        assert_eq!(given.beat(Some(5), &rows).endings, []);
    }
    let ending = Ending { session: id(2), beat: 5, timeline: 1 };
    assert_eq!(given.beat(Some(5), &rows).endings, [ending]);
    given.ownership.failed();
    for _ in 0..7 {
        assert_eq!(given.beat(Some(5), &rows).endings, []);
    }
    assert_eq!(given.beat(Some(5), &rows).endings, [ending]);
    assert_eq!(given.beat(Some(6), &rows).endings, []);
}

#[test]
fn nothing_is_done_without_a_lease_or_with_data_in_a_newer_format() {
    let mut given = Given::new(3);
    assert_eq!(given.reads(2, None, &[]).claims, []);
    assert_eq!(given.beat(None, &[]).claims.len(), 3);
    assert_eq!(given.ownership.decide((given.now + LEASE).saturating_sub(MARGIN)), Steps::default());
}

#[test]
fn who_was_named_claims_first_and_others_in_turn() {
    let mut given = Given::new(1);
    let row = Row { epoch: 3, next: Some(id(2)), ..Row::default() };
    let rows = vec![(Arc::clone(&given.instances[0]), row.clone())];
    for _ in 0..5 {
        assert_eq!(given.beat(Some(given.now.as_secs().try_into().unwrap()), &rows).claims, []);
    }
    assert_eq!(given.beat(Some(0), &rows).claims.len(), 1, "the named one does not claim it");
    let mut given = Given::new(1);
    let rows = vec![(Arc::clone(&given.instances[0]), Row { next: Some(id(1)), ..row })];
    assert_eq!(given.beat(Some(0), &rows).claims.len(), 1);
}

/// Those rows, offered to the other, which is prepared for them or not.
fn offered(rows: &[(Arc<str>, Row)], is_prepared: bool) -> Vec<(Arc<str>, Row)> {
    let prepared = is_prepared.then_some(id(2));
    let offered = |row: &Row| Row { offered: Some(id(2)), prepared, ..row.clone() };
    rows.iter().map(|(instance, row)| (Arc::clone(instance), offered(row))).collect()
}

#[test]
fn who_drains_claims_nothing_and_gives_up_what_the_best_other_is_prepared_for() {
    let mut given = Given::new(5);
    given.beat(Some(0), &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    given.ownership.drain();
    let steps = given.beat(Some(1), &rows);
    assert_eq!((steps.claims.len(), steps.hand_overs.len(), steps.offers.len()), (0, 0, 5));
    assert!(steps.offers.iter().all(|one| one.to == Some(id(2)) && one.epoch == 1));
    let steps = given.beat(Some(2), &offered(&rows, false));
    assert_eq!((steps.hand_overs.len(), steps.offers.len()), (0, 0), "they are offered");
    let steps = given.beat(Some(3), &offered(&rows, true));
    assert_eq!((steps.hand_overs.len(), steps.offers.len()), (5, 0));
    assert!(steps.hand_overs.iter().all(|one| one.next == Some(id(2)) && one.epoch == 1));
    assert_eq!(given.beat(Some(4), &offered(&rows, true)), Steps::default(), "they are under way");
    for instance in given.instances.clone() {
        assert_eq!(given.ownership.release(&instance), Some(1));
        assert!(!given.ownership.is_done());
        given.ownership.ended(&instance);
    }
    assert!(given.ownership.is_done());
}

#[test]
fn who_drains_does_not_wait_for_ever_nor_for_a_session_that_is_gone() {
    let mut given = Given::new(2);
    given.beat(Some(0), &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    given.ownership.drain();
    assert_eq!(given.beat(Some(1), &rows).offers.len(), 2);
    let mut waited = Duration::ZERO;
    let hand_overs = loop {
        waited += SECOND;
        let hand_overs = given.beat(Some(1), &offered(&rows, false)).hand_overs;
        if !hand_overs.is_empty() {
            break hand_overs;
        }
    };
    assert_eq!((hand_overs.len(), waited), (2, PATIENCE));
    assert!(hand_overs.iter().all(|one| one.next == Some(id(2))));

    let mut given = Given::new(2);
    given.beat(Some(0), &[]);
    given.claim_all();
    given.ownership.drain();
    assert_eq!(given.beat(Some(1), &rows).offers.len(), 2);
    let hand_overs = given.beat(None, &offered(&rows, false)).hand_overs;
    assert!(hand_overs.len() == 2 && hand_overs.iter().all(|one| one.next.is_none()));
}

/// The first of three sessions owns all. A newer replica, which is the third, has brought the data to a newer format.
fn upgraded(drains: bool) -> (Steps, Vec<SessionId>) {
    let mut given = Given::new(40);
    given.beat(Some(0), &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    if drains {
        given.ownership.drain();
        assert_eq!(given.beat(Some(1), &rows).offers.len(), 40, "to the second, as long as it reads the data");
    }
    let newer = Session { format: 2, ..session("three", &given.instances) };
    let mut steps = Steps::default();
    for _ in 0..=QUIET.max(STAY).as_secs() {
        given.now += SECOND;
        given.ownership.renewed(given.now);
        given.ownership.saw(Reading {
            asked: given.now,
            came: given.now,
            timeline: 1,
            format: 2,
            sessions: vec![
                (id(1), 0, session("one", &given.instances)),
                (id(2), 1, given.other.clone()),
                (id(3), 1, newer.clone()),
            ],
            is_complete: true,
            rows: rows.clone(),
        });
        let more = given.ownership.decide(given.now);
        steps.offers.extend(more.offers);
        steps.hand_overs.extend(more.hand_overs);
        if drains {
            break;
        }
    }
    let sessions =
        BTreeMap::from([(id(1), session("one", &given.instances)), (id(2), given.other.clone()), (id(3), newer)]);
    let best = given.instances.iter().map(|instance| ranking(instance, sessions.iter())[0]).collect();
    (steps, best)
}

#[test]
fn during_an_upgrade_what_is_given_up_goes_to_who_reads_the_newer_data() {
    let (steps, best) = upgraded(true);
    assert!(best.contains(&id(2)), "some of it would go to a session that could not claim it");
    assert_eq!((steps.offers.len(), steps.hand_overs.len()), (40, 0));
    assert!(steps.offers.iter().all(|one| one.to == Some(id(3))), "{:?}", steps.offers);
}

#[test]
fn during_an_upgrade_what_an_older_session_should_own_stays() {
    let (steps, best) = upgraded(false);
    assert!([1, 2, 3].iter().all(|number| best.contains(&id(*number))));
    let names = names(40);
    let of_newer = |one: &Offer| {
        let at = names.iter().position(|name| *name == one.instance).unwrap();
        best[at] == id(3) && one.to == Some(id(3))
    };
    assert!(!steps.offers.is_empty() && steps.offers.iter().all(of_newer), "{:?}", steps.offers);
}

#[test]
fn a_newer_session_waits_for_no_older_one_that_was_named() {
    let mut given = Given::new(1);
    given.ownership.format = 2;
    let rows = vec![(Arc::clone(&given.instances[0]), Row { epoch: 3, next: Some(id(2)), ..Row::default() })];
    assert_eq!(given.reads(1, Some(0), &rows).claims, [], "as long as it can claim it");
    assert_eq!(given.reads(2, Some(1), &rows).claims.len(), 1);
}

#[test]
fn what_was_prepared_for_is_closed_where_the_data_is_in_a_newer_format() {
    let mut given = Given::new(1);
    let rows = vec![(
        Arc::clone(&given.instances[0]),
        Row { session: Some(id(2)), epoch: 7, offered: Some(id(1)), ..Row::default() },
    )];
    assert_eq!(given.beat(Some(0), &rows).preparations.len(), 1);
    let steps = given.reads(2, Some(1), &rows);
    assert_eq!((steps.abandoned.len(), steps.preparations.len()), (1, 0));
}

#[test]
fn an_offer_that_was_not_written_is_written_again() {
    let mut given = Given::new(1);
    given.beat(Some(0), &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    given.ownership.drain();
    let offers = given.beat(Some(1), &rows).offers;
    assert_eq!(given.beat(Some(2), &rows).offers, []);
    assert_eq!(given.beat(Some(3), &rows).offers, offers);
}

#[test]
fn what_is_offered_is_prepared_for_told_once_it_listens_and_claimed_once_it_is_released() {
    let mut given = Given::new(2);
    let owner = Row { session: Some(id(2)), epoch: 7, ..Row::default() };
    let row = |given: &Given, row: &Row| vec![(Arc::clone(&given.instances[0]), row.clone())];
    let of_offer = Row { offered: Some(id(1)), ..owner.clone() };
    let rows = row(&given, &of_offer);
    let preparation = (Arc::clone(&given.instances[0]), 7);
    let steps = given.beat(Some(0), &rows);
    assert_eq!((steps.preparations, steps.prepared), (vec![preparation.clone()], vec![]));
    assert_eq!(given.beat(Some(1), &rows).preparations, []);
    given.ownership.listens(&(Arc::clone(&preparation.0), 6));
    assert_eq!(given.beat(Some(2), &rows).prepared, [], "that was of an earlier epoch");
    given.ownership.listens(&preparation);
    assert_eq!(given.beat(Some(3), &rows).prepared, slice::from_ref(&preparation));
    assert_eq!(given.beat(Some(4), &rows).prepared, []);
    assert_eq!(given.beat(Some(5), &rows).prepared, slice::from_ref(&preparation), "it was not read that it was told");
    let released = Row { epoch: 7, next: Some(id(1)), ..Row::default() };
    let rows = row(&given, &released);
    let steps = given.beat(Some(6), &rows);
    let claim = Claim { instance: Arc::clone(&preparation.0), after: 7 };
    assert!(steps.claims.contains(&claim) && steps.abandoned.is_empty(), "{steps:?}");
    // The claim is read before its acknowledgement comes.
    let claimed = owned(Some(id(1)), 8);
    let rows = row(&given, &claimed);
    assert_eq!(given.beat(Some(7), &rows).abandoned, Vec::<Arc<str>>::new());
}

#[test]
fn what_was_prepared_for_nothing_is_closed() {
    let owner = Row { session: Some(id(2)), epoch: 7, offered: Some(id(1)), ..Row::default() };
    let withdrawn = Row { offered: None, ..owner.clone() };
    let elsewhere = Row { session: Some(id(3)), epoch: 8, ..Row::default() };
    let to_another = Row { epoch: 7, next: Some(id(3)), ..Row::default() };
    for after in [withdrawn, elsewhere, to_another] {
        let mut given = Given::new(1);
        let instance = Arc::clone(&given.instances[0]);
        given.beat(Some(0), &[(Arc::clone(&instance), owner.clone())]);
        let abandoned = given.beat(Some(1), &[(Arc::clone(&instance), after)]).abandoned;
        assert_eq!(abandoned, [Arc::clone(&instance)]);
    }
    let mut given = Given::new(1);
    let rows = vec![(Arc::clone(&given.instances[0]), owner)];
    assert_eq!(given.beat(Some(0), &rows).preparations.len(), 1);
    given.ownership.drain();
    let steps = given.beat(Some(1), &rows);
    assert_eq!((steps.abandoned.len(), steps.preparations.len()), (1, 0), "it will not own anything");
}

#[test]
fn who_does_not_reach_the_gateway_hands_over_to_who_does_and_to_nobody_else() {
    let mut given = Given::new(2);
    given.beat(Some(0), &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    given.other.reaches = false;
    for beat in 0..20 {
        given.ownership.reaches(Some(false), given.now);
        assert_eq!(given.beat(Some(beat), &rows).hand_overs, []);
    }
    given.other.reaches = true;
    let hand_overs = given.beat(Some(30), &rows).hand_overs;
    assert!(hand_overs.len() == 2 && hand_overs.iter().all(|one| one.next == Some(id(2))));
    assert!(!given.ownership.reaches(None, given.now + SECOND * 57));
    assert!(given.ownership.reaches(None, given.now + SECOND * 61));
}

#[test]
fn what_is_no_longer_configured_is_given_up() {
    let mut given = Given::new(2);
    given.beat(Some(0), &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    given.ownership.list(vec![Arc::clone(&given.instances[0])]);
    let offers = given.beat(Some(1), &rows).offers;
    assert_eq!(offers.iter().map(|one| &one.instance).collect::<Vec<_>>(), [&given.instances[1]]);
}

#[test]
fn what_another_should_own_is_moved_a_few_at_a_time_once_all_was_quiet() {
    let mut given = Given::new(100);
    given.beat(None, &[]);
    given.claim_all();
    let rows = given.rows(Some(id(1)), 1);
    // A session comes, whose share is about a half.
    for beat in 0..59 {
        assert_eq!(given.beat(Some(beat), &rows), Steps::default(), "{beat} seconds after the claims");
    }
    let moved = given.beat(Some(60), &rows).offers;
    assert_eq!(moved.len(), MOVED_AT_ONCE);
    let mut sessions = BTreeMap::from([(id(1), session("one", &given.instances)), (id(2), given.other.clone())]);
    assert!(moved.iter().all(|one| ranking(&one.instance, sessions.iter())[0] == id(2) && one.to == Some(id(2))));
    // For one of them the other is prepared.
    let mut of_offers = rows.clone();
    let is_moved = |instance: &Arc<str>| moved.iter().position(|one| one.instance == *instance);
    for (instance, row) in &mut of_offers {
        let at = is_moved(instance);
        row.offered = at.map(|_| id(2));
        row.prepared = at.filter(|at| *at == 0).map(|_| id(2));
    }
    let steps = given.beat(Some(61), &of_offers);
    assert_eq!((steps.hand_overs.len(), steps.offers.len()), (1, 0), "the others are under way");
    for one in steps.hand_overs {
        assert_eq!((one.instance.clone(), one.next), (Arc::clone(&moved[0].instance), Some(id(2))));
        given.ownership.release(&one.instance);
        given.ownership.ended(&one.instance);
    }
    // Those for which it is not are left where they are.
    for beat in 62..65 {
        let steps = given.beat(Some(beat), &of_offers);
        assert_eq!((steps.hand_overs.len(), steps.offers.len()), (0, 0));
    }
    let steps = given.beat(Some(65), &of_offers);
    let withdrawn = steps.offers.iter().filter(|one| one.to.is_none() && is_moved(&one.instance).is_some()).count();
    assert_eq!((steps.hand_overs.len(), withdrawn), (0, MOVED_AT_ONCE - 1));
    // The other changes: nothing moves until that has been quiet too.
    given.other.reaches = false;
    sessions.clear();
    for beat in 66..80 {
        assert_eq!(given.beat(Some(beat), &rows).hand_overs, []);
    }
}

#[test]
fn an_epoch_that_was_released_is_not_acted_under_again() {
    let mut given = Given::new(1);
    given.beat(None, &[]);
    given.claim_all();
    let instance = Arc::clone(&given.instances[0]);
    assert_eq!(given.ownership.release(&instance), Some(1));
    given.ownership.ended(&instance);
    // The release did not come through.
    let rows = given.rows(Some(id(1)), 1);
    assert_eq!(given.beat(None, &rows).claims, [Claim { instance: Arc::clone(&instance), after: 1 }]);
    assert_eq!(given.ownership.holdings().get(&instance), None);
}

#[test]
fn what_another_took_is_lost_and_a_reading_of_before_the_claim_says_nothing() {
    let mut given = Given::new(1);
    given.beat(Some(0), &[]);
    let instance = Arc::clone(&given.instances[0]);
    given.ownership.claimed(&instance, 4, given.now + SECOND);
    let reading = |given: &Given, asked, epoch| Reading {
        asked,
        came: asked,
        timeline: 1,
        format: 1,
        sessions: vec![(id(1), 0, session("one", &given.instances)), (id(2), 1, given.other.clone())],
        is_complete: true,
        rows: vec![(Arc::clone(&given.instances[0]), owned(Some(id(2)), epoch))],
    };
    let before = reading(&given, given.now, 3);
    assert_eq!(given.ownership.saw(before), Vec::<Arc<str>>::new());
    let after = reading(&given, given.now + SECOND * 2, 5);
    assert_eq!(given.ownership.saw(after), [instance]);
    assert!(given.ownership.holdings().is_empty());
}

proptest! {
    #[test]
    fn a_session_that_comes_takes_its_share_and_moves_nothing_else(count in 1_u128..8) {
        let instances = names(200);
        let sessions = |count| -> BTreeMap<_, _> {
            (0..count).map(|number: u128| (id(number + 1), session(&format!("bridge-{number}"), &instances))).collect()
        };
        let (before, after) = (sessions(count), sessions(count + 1));
        let mut gained = 0;
        for instance in &instances {
            let (old, new) = (ranking(instance, before.iter())[0], ranking(instance, after.iter())[0]);
            prop_assert!(new == old || new == id(count + 1));
            gained += usize::from(new != old);
        }
        let share = 200 / (usize::try_from(count).unwrap() + 1);
        prop_assert!(gained > share / 3 && gained < share * 2, "{gained} of 200, and {share} would be fair");
    }

    #[test]
    fn a_restarted_replica_should_own_what_it_did(restarted in 10_u128..1000) {
        let instances = names(50);
        let place = |first| {
            let sessions: BTreeMap<_, _> =
                [(id(first), session("one", &instances)), (id(2), session("two", &instances))].into();
            let name = |chosen: SessionId| if chosen == id(2) { "two" } else { "one" };
            instances.iter().map(|instance| name(ranking(instance, sessions.iter())[0])).collect::<Vec<_>>()
        };
        prop_assert_eq!(place(1), place(restarted));
    }
}
