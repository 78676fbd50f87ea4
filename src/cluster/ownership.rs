//! The rules of ownership: from what was read and acknowledged, and when, to what this session does next. Pure.
//!
//! Instants are of `CLOCK_BOOTTIME` of this machine; no rule compares those of two. Three parts hold the promise that no two
//! sessions act for one instance at once, and are model-checked together with the statements of the database:
//! [`Rules::valid_until`] until when a session acts, [`Watch`] when another may end it, [`Holdings`] which epochs count. What
//! else is decided here, who should own what, cannot break it.

mod holdings;
mod placement;
mod preparing;
mod reach;
mod reading;
mod rules;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::holdings::{Held, Holdings};
pub use self::placement::ranking;
pub use self::preparing::{Offer, Preparation};
use self::preparing::{Offered, Offers, Preparations};
use self::reach::Reach;
pub use self::reading::{Reading, Row, Session};
pub use self::rules::Rules;
pub use self::watch::{Ending, Timeline, Watch};
use crate::tenure::SessionId;

/// How long each session in turn has for itself to claim what nobody owns, before the next one claims it as well.
const TURN: Duration = Duration::from_secs(5);

/// How long an instance that could not be begun here is left to others.
const AVOIDED: Duration = Duration::from_mins(1);

/// How many claims there may be under way. They come from the database in batches.
const CLAIMS: usize = 2000;

/// How long no session came, went or changed before instances are moved to who should own them.
const QUIET: Duration = Duration::from_secs(10);

/// How long an instance stays where it was claimed before it is moved.
const STAY: Duration = Duration::from_mins(1);

/// How many instances are moved at once, where nothing else is under way.
const MOVED_AT_ONCE: usize = 8;

/// How many instances are offered at once.
const OFFERED_AT_ONCE: usize = 1024;

/// How many instances are given up at once.
const GIVEN_AT_ONCE: usize = 256;

/// A claim takes effect only if the epoch is still this one and nobody owns the instance but an ended session, or this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub instance: Arc<str>,
    /// The last owner's; 0 where there never was one.
    pub after: i64,
}

/// An instance to be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    pub instance: Arc<str>,
    pub epoch: i64,
    pub next: Option<SessionId>,
}

/// What is to be done next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    pub endings: Vec<Ending>,
    pub claims: Vec<Claim>,
    pub hand_overs: Vec<HandOver>,
    /// To be written, so that others prepare.
    pub offers: Vec<Offer>,
    /// Whose connections are to be opened here.
    pub preparations: Vec<Preparation>,
    /// Whose owner is to be told that they are open.
    pub prepared: Vec<Preparation>,
    /// Whose connections are of no use any more.
    pub abandoned: Vec<Arc<str>>,
}

/// What one session knows, and holds.
#[derive(Debug)]
pub struct Ownership {
    rules: Rules,
    me: SessionId,
    /// The newest format of data that this program reads.
    format: i32,
    /// What this replica can serve.
    listed: Vec<Arc<str>>,
    draining: bool,
    /// When it began to drain.
    drained_at: Option<Duration>,
    /// How long a handover waits until the next owner is prepared.
    patience: Duration,
    offers: Offers,
    preparations: Preparations,
    valid_until: Duration,
    watch: Watch,
    holdings: Holdings,
    reach: Reach,
    /// When sessions last came, went or changed.
    changed_at: Duration,
    /// Every instance that is held was seen to be where it should be.
    is_balanced: bool,
    known: Option<Known>,
    /// Instances for which a claim or a release is under way.
    under_way: HashSet<Arc<str>>,
    /// Until when instances are left to others.
    avoided: HashMap<Arc<str>, Duration>,
    /// Since when nobody owns an instance, as far as known.
    free_since: HashMap<Arc<str>, Duration>,
}

#[derive(Debug, Default)]
struct Known {
    format: i32,
    sessions: BTreeMap<SessionId, Session>,
    rows: HashMap<Arc<str>, Row>,
}

impl Ownership {
    #[must_use]
    pub fn begin(rules: Rules, me: SessionId, format: i32, listed: Vec<Arc<str>>, patience: Duration) -> Self {
        Self {
            rules,
            me,
            format,
            listed,
            draining: false,
            drained_at: None,
            patience,
            offers: Offers::default(),
            preparations: Preparations::default(),
            valid_until: Duration::ZERO,
            watch: Watch::default(),
            holdings: Holdings::of(me),
            reach: Reach::default(),
            changed_at: Duration::ZERO,
            is_balanced: false,
            known: None,
            under_way: HashSet::new(),
            avoided: HashMap::new(),
            free_since: HashMap::new(),
        }
    }

    #[must_use]
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// For how long no renewal of a session was seen.
    #[must_use]
    pub fn silent(&self, session: SessionId, now: Duration) -> Duration {
        self.watch.silent(session, now)
    }

    /// Whether this replica reaches the gateway, as the others are to know: `any` says whether one of its instances does.
    pub fn reaches(&mut self, any: Option<bool>, now: Duration) -> bool {
        self.reach.saw(any, now);
        self.reach.is_good(now)
    }

    /// The next instant at which another session may be ended.
    #[must_use]
    pub fn next_overdue(&self) -> Option<Duration> {
        self.watch.next_overdue(&self.rules)
    }

    /// From now on everything is given up and nothing is claimed.
    pub fn drain(&mut self) {
        self.draining = true;
        self.offers.hurry();
    }

    /// Whether nothing is held or under way any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.holdings.is_empty() && self.under_way.is_empty()
    }

    /// What this replica can serve has changed.
    pub fn list(&mut self, listed: Vec<Arc<str>>) {
        self.listed = listed;
    }

    /// A renewal that was sent at `sent` was acknowledged: until when this session may act.
    pub fn renewed(&mut self, sent: Duration) -> Duration {
        self.valid_until = self.valid_until.max(self.rules.valid_until(sent));
        self.valid_until
    }

    /// A renewal or a reading failed, or its outcome is not known.
    pub fn failed(&mut self) {
        self.watch.begin_anew();
    }

    /// Takes in what was read; the instances that this session lost by it.
    pub fn saw(&mut self, reading: Reading) -> Vec<Arc<str>> {
        let Reading { asked, came, timeline, format, sessions, is_complete, rows } = reading;
        let others = sessions.iter().filter(|(id, _, _)| *id != self.me).map(|(id, beat, _)| (*id, *beat));
        self.watch.saw(timeline, others, came);
        let known = self.known.get_or_insert_default();
        known.format = format;
        let sessions: BTreeMap<_, _> = sessions.into_iter().map(|(id, _, session)| (id, session)).collect();
        if sessions != known.sessions {
            (self.changed_at, self.is_balanced) = (came, false);
        }
        known.sessions = sessions;
        if is_complete {
            known.rows.clear();
        }
        let changed: Vec<_> = rows.iter().map(|(instance, _)| Arc::clone(instance)).collect();
        known.rows.extend(rows);
        let looked_at: Vec<_> = if is_complete {
            self.holdings.iter().map(|(instance, _)| Arc::clone(instance)).collect()
        } else {
            changed
        };
        let holdings = &mut self.holdings;
        looked_at.into_iter().filter(|instance| holdings.saw(instance, known.rows.get(instance), asked)).collect()
    }

    /// A claim was acknowledged, in this epoch.
    pub fn claimed(&mut self, instance: &Arc<str>, epoch: i64, now: Duration) {
        self.under_way.remove(instance);
        self.free_since.remove(instance);
        self.preparations.claimed(instance);
        self.holdings.claimed(instance, epoch, now);
        self.is_balanced = false;
        if let Some(known) = &mut self.known {
            known.rows.insert(Arc::clone(instance), Row { session: Some(self.me), epoch, ..Row::default() });
        }
    }

    /// A claim had no effect, or its outcome is not known; or a release has ended, however it did.
    pub fn ended(&mut self, instance: &str) {
        self.under_way.remove(instance);
    }

    /// An instance that was claimed cannot be served here.
    pub fn cannot_serve(&mut self, instance: &Arc<str>, now: Duration) -> Option<HandOver> {
        self.avoided.insert(Arc::clone(instance), now + AVOIDED);
        let next = self.best_other(instance);
        self.give_up(instance, next)
    }

    /// The release is about to be sent: from now on this session does not act for the instance.
    pub fn release(&mut self, instance: &str) -> Option<i64> {
        self.holdings.release(instance)
    }

    /// The connections of an instance that is prepared for have been open for long enough.
    pub fn listens(&mut self, (instance, epoch): &Preparation) {
        self.preparations.listens(instance, *epoch);
    }

    /// What to do at `now`.
    pub fn decide(&mut self, now: Duration) -> Steps {
        if now >= self.valid_until || self.known.is_none() {
            return Steps::default();
        }
        self.avoided.retain(|_, until| *until > now);
        let endings = self.watch.overdue(&self.rules, now);
        let claims = if self.draining { Vec::new() } else { self.claims(now) };
        let mut steps = Steps { endings, claims, ..Steps::default() };
        self.hand_overs(now, &mut steps);
        self.prepare(now, &mut steps);
        steps
    }

    /// Opens connections for what others offer, and says when they are open.
    fn prepare(&mut self, now: Duration, steps: &mut Steps) {
        let Some(known) = &self.known else { return };
        let (me, is_able) = (self.me, !self.draining && known.format <= self.format);
        let may_come = |instance: &str, epoch| {
            known.rows.get(instance).is_some_and(|row| match row.session {
                // The claim is read before its acknowledgement is heard.
                Some(owner) if owner == me => true,
                Some(_) => row.epoch == epoch && row.offered == Some(me),
                None => row.epoch == epoch && row.next == Some(me),
            })
        };
        steps.abandoned = self.preparations.drop_useless(now, |instance, epoch| is_able && may_come(instance, epoch));
        for instance in self.listed.iter().filter(|_| is_able) {
            let offered = known.rows.get(instance).filter(|row| row.offered == Some(me) && row.session != Some(me));
            let is_offered = offered.filter(|row| row.session.is_some_and(|owner| known.sessions.contains_key(&owner)));
            if let Some(row) = is_offered
                && self.preparations.has_room()
                && !self.preparations.contains(instance)
            {
                self.preparations.begin((Arc::clone(instance), row.epoch), now);
                steps.preparations.push((Arc::clone(instance), row.epoch));
            }
        }
        steps.prepared = self.preparations.tell(&known.rows, me, now);
    }

    fn claims(&mut self, now: Duration) -> Vec<Claim> {
        let Some(known) = self.known.as_ref().filter(|known| known.format <= self.format) else { return Vec::new() };
        let room = CLAIMS.saturating_sub(self.under_way.len());
        let mut claims = Vec::new();
        for instance in &self.listed {
            let row = known.rows.get(instance);
            if self.holdings.get(instance).is_some() || !known.is_free(row, self.me) {
                self.free_since.remove(instance);
                continue;
            }
            let since = *self.free_since.entry(Arc::clone(instance)).or_insert(now);
            let is_left = self.under_way.contains(instance) || self.avoided.contains_key(instance);
            if claims.len() < room && !is_left && known.is_turn_of(self.me, instance, now.saturating_sub(since)) {
                claims.push(Claim { instance: Arc::clone(instance), after: row.map_or(0, |row| row.epoch) });
            }
        }
        self.under_way.extend(claims.iter().map(|claim| Arc::clone(&claim.instance)));
        claims
    }

    /// Offers what another should own, and gives up what that other is prepared for, or what cannot wait.
    fn hand_overs(&mut self, now: Duration, steps: &mut Steps) {
        self.look_at_offers(now, steps);
        let since_drain =
            if self.draining { Some(now.saturating_sub(*self.drained_at.get_or_insert(now))) } else { None };
        let may_wait = since_drain.is_none_or(|since| since < self.patience);
        let listed: HashSet<_> = self.listed.iter().collect();
        let is_cut_off = !self.reach.is_good(now);
        let mut given = Vec::new();
        for (instance, held) in self.holdings.iter() {
            if given.len() + self.under_way.len() >= GIVEN_AT_ONCE {
                break;
            }
            if self.under_way.contains(instance) || self.offers.contains(instance) {
                continue;
            }
            if self.draining || !listed.contains(instance) {
                given.push((Arc::clone(instance), held.epoch, self.best_other(instance)));
            } else if is_cut_off && let Some(next) = self.best_other(instance).filter(|other| self.is_good(*other)) {
                given.push((Arc::clone(instance), held.epoch, Some(next)));
            }
        }
        let nothing_moves = given.is_empty() && self.under_way.is_empty() && self.offers.len() == 0;
        let misplaced = if nothing_moves && !self.is_balanced { self.misplaced(now) } else { Vec::new() };
        for (instance, epoch, next) in misplaced {
            steps.offers.extend(next.map(|next| self.offers.make((instance, epoch), next, now, false)));
        }
        for (instance, epoch, next) in given {
            match next.filter(|_| may_wait && !is_cut_off) {
                Some(next) if self.offers.len() < OFFERED_AT_ONCE => {
                    steps.offers.push(self.offers.make((instance, epoch), next, now, true));
                }
                Some(_) => {}
                None => steps.hand_overs.extend(self.give_up(&instance, next)),
            }
        }
    }

    fn look_at_offers(&mut self, now: Duration, steps: &mut Steps) {
        let Some(known) = &self.known else { return };
        let holdings = &self.holdings;
        self.offers.keep(
            |instance, epoch| holdings.get(instance).is_some_and(|held| held.epoch == epoch),
            |instance, to| {
                known.sessions.get(&to).is_some_and(|session| session.takes(instance) && known.is_read_by(session))
            },
        );
        let (ended, again) = self.offers.look(&known.rows, self.patience, now);
        steps.offers = again;
        for (instance, became) in ended {
            match became {
                Offered::Ripe(next) => steps.hand_overs.extend(self.give_up(&instance, Some(next))),
                // As if it had just come.
                Offered::Late => self.holdings.stays(&instance, now),
            }
        }
    }

    /// Some of the instances that another session should own, once that has been settled for long enough.
    fn misplaced(&mut self, now: Duration) -> Vec<(Arc<str>, i64, Option<SessionId>)> {
        let Some(known) = self.known.as_ref().filter(|_| now.saturating_sub(self.changed_at) >= QUIET) else {
            return Vec::new();
        };
        let mut misplaced = Vec::new();
        let mut is_balanced = true;
        for (instance, held) in self.holdings.iter() {
            let best = ranking(instance, known.sessions.iter()).into_iter().next();
            // What an older session should own stays here until that replica is upgraded too.
            if best.is_none_or(|best| best == self.me || !self.is_good(best)) {
                continue;
            }
            is_balanced = false;
            if now.saturating_sub(held.stays_from) >= STAY {
                misplaced.push((Arc::clone(instance), held.epoch, best));
            }
            if misplaced.len() == MOVED_AT_ONCE {
                break;
            }
        }
        self.is_balanced = is_balanced;
        misplaced
    }

    /// Whether another session can serve what it claims: it reaches the gateway, as far as it says, and reads the data.
    fn is_good(&self, session: SessionId) -> bool {
        let Some(known) = &self.known else { return false };
        known.sessions.get(&session).is_some_and(|session| session.reaches && known.is_read_by(session))
    }

    fn give_up(&mut self, instance: &Arc<str>, next: Option<SessionId>) -> Option<HandOver> {
        let held = self.holdings.get(instance)?;
        self.offers.remove(instance);
        self.under_way.insert(Arc::clone(instance));
        Some(HandOver { instance: Arc::clone(instance), epoch: held.epoch, next })
    }

    fn best_other(&self, instance: &str) -> Option<SessionId> {
        self.known.as_ref()?.able(instance).into_iter().find(|session| *session != self.me)
    }
}

impl Known {
    /// Whether a session reads the data, and so can claim.
    fn is_read_by(&self, session: &Session) -> bool {
        self.format <= session.format
    }

    /// The sessions that can claim `instance`, the best first.
    fn able(&self, instance: &str) -> Vec<SessionId> {
        ranking(instance, self.sessions.iter().filter(|(_, session)| self.is_read_by(session)))
    }

    /// Whether an instance can be claimed: nobody owns it, or an ended session, or `me` in an epoch that is not held.
    fn is_free(&self, row: Option<&Row>, me: SessionId) -> bool {
        let owner = row.and_then(|row| row.session);
        owner.is_none_or(|owner| owner == me || !self.sessions.contains_key(&owner))
    }

    /// Whether `me` claims what has been free for so long: who was named, then the best, and each next one a turn later.
    fn is_turn_of(&self, me: SessionId, instance: &str, free_for: Duration) -> bool {
        let row = self.rows.get(instance);
        if row.is_some_and(|row| row.session == Some(me)) {
            return true;
        }
        let mut order = self.able(instance);
        let named = row.and_then(|row| row.next).and_then(|next| order.iter().position(|session| *session == next));
        if let Some(at) = named {
            let named = order.remove(at);
            order.insert(0, named);
        }
        let turns = free_for.as_secs() / TURN.as_secs();
        order
            .iter()
            .position(|session| *session == me)
            .and_then(|at| u64::try_from(at).ok())
            .is_some_and(|at| at <= turns)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
