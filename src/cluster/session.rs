//! The task of a replica in the cluster: begins a session, renews it, and does what the rules of ownership say.
//!
//! A renewal is sent each second, whatever else is under way. Claims and releases go by another connection. A session
//! that has ended acts no more; another begins in its place. While the database is away nothing ends but the lease.

use std::collections::{BTreeMap, HashSet};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::config::Config;
use super::directory::{Directory, Member, Owner};
use super::host::{Host, Listed};
use super::hosting::Hosting;
use super::ownership::{Claim, HandOver, Ownership, Preparation, Reading, Rules, Session, Steps};
use super::statements::{self, Introduction, Snapshot};
use crate::clock::unix_ms;
use crate::database::{self, Connection, Ended, Error, Statement};
use crate::tenure::{Lease, SessionId, boot_time};

/// Between renewals.
const BEAT: Duration = Duration::from_secs(1);

/// How many instances are claimed in one transaction.
const BATCH: usize = 500;

/// How many instances are released in one transaction, each with some statements of its state.
const RELEASED_AT_ONCE: usize = 64;

/// Between looks at who owns what that notifications ask for.
const LOOK: Duration = Duration::from_millis(20);

/// How much longer than a preparation takes a handover waits for it.
const PREPARED_LATE: Duration = Duration::from_secs(3);

/// How long what is in flight at an instance may take that is handed over.
const QUIESCE: Duration = Duration::from_secs(1);

/// How many outcomes may wait to be taken in. Whoever brings one waits then.
const OUTCOMES: usize = 256;

/// What a replica needs to take part.
pub struct Parts {
    pub config: Config,
    pub database: database::Config,
    pub host: Arc<dyn Host>,
    /// Shows what is read.
    pub directory: Directory,
}

/// A replica's part in the cluster. Dropping it leaves the session to its lease.
#[derive(Debug)]
pub struct Replica {
    directory: Directory,
    relist: Arc<Notify>,
    drain: CancellationToken,
    end: CancellationToken,
    handed_over: CancellationToken,
    /// How long a handover waits until the next owner is prepared.
    patience: Duration,
    tasks: TaskTracker,
}

impl Replica {
    /// Begins to take part. The database may be away: that is tried until it answers.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn begin(parts: Parts) -> Self {
        let (directory, tasks) = (parts.directory, TaskTracker::new());
        let [drain, end, handed_over] = [(); 3].map(|()| CancellationToken::new());
        let (relist, hints) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let patience = parts.host.listens_within() + PREPARED_LATE;
        let (of_hints, database, noted) = (directory.clone(), parts.database.clone(), Arc::clone(&hints));
        let heed = async move {
            let told = |payload: &str| {
                if of_hints.me().is_some_and(|me| me.to_string() == payload) {
                    noted.notify_one();
                }
            };
            database::listen(&database, statements::CHANNEL, told).await;
        };
        tasks.spawn(end.clone().run_until_cancelled_owned(heed));
        let task = Task {
            rules: Rules::of(parts.config.lease),
            introduction: Introduction {
                name: parts.config.name.as_str().into(),
                address: parts.config.advertise.as_str().into(),
                version: env!("CARGO_PKG_VERSION").into(),
                format: database::FORMAT,
            },
            migrate: parts.config.migrate,
            beats: Connection::new(parts.database.clone(), "session"),
            claims: Arc::new(Connection::new(parts.database.clone(), "owners")),
            database: parts.database,
            hosting: Hosting::new(parts.host),
            directory: directory.clone(),
            relist: Arc::clone(&relist),
            hints,
            patience,
            drain: drain.clone(),
            end: end.clone(),
            handed_over: handed_over.clone(),
            is_troubled: false,
        };
        tasks.spawn(task.run());
        tasks.close();
        Self { directory, relist, drain, end, handed_over, patience, tasks }
    }

    /// Who owns what.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether this replica has a session that may act for what it owns.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.directory.is_read() && self.directory.standing().lease.is_some_and(|lease| lease.is_valid())
    }

    /// What [`Host::configured`] gives has changed.
    pub fn relist(&self) {
        self.relist.notify_one();
    }

    /// Gives up everything, so that others own it. Returns once nothing is owned, or `limit` after what a preparation may take.
    pub async fn hand_over(&self, limit: Duration) {
        self.drain.cancel();
        let _ = timeout(self.patience + limit, self.handed_over.cancelled()).await;
    }

    /// Ends the session, once nothing of it is in flight any more; then others may take what it still owns.
    pub async fn end(&self) {
        self.drain.cancel();
        self.end.cancel();
        self.tasks.wait().await;
    }
}

struct Task {
    rules: Rules,
    introduction: Introduction,
    migrate: bool,
    database: database::Config,
    beats: Connection,
    claims: Arc<Connection>,
    hosting: Hosting,
    directory: Directory,
    relist: Arc<Notify>,
    /// Another session told this one to look.
    hints: Arc<Notify>,
    patience: Duration,
    drain: CancellationToken,
    end: CancellationToken,
    handed_over: CancellationToken,
    /// The last renewal failed: it is told once.
    is_troubled: bool,
}

/// Why a session is no more.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// Others ended it, or the database knows nothing of it.
    Lost,
    /// It was ended here.
    Ended,
}

/// What became of claims and releases.
#[derive(Debug)]
enum Outcome {
    Claimed(Vec<(Arc<str>, i64)>),
    /// Nothing is under way for these any more.
    Settled(Vec<Arc<str>>),
    CannotServe(Arc<str>, i64),
    /// With what the next owner begins with.
    Quiesced(HandOver, Vec<Statement>),
    /// What is prepared has been listening for long enough.
    Listens(Preparation),
    Released(Vec<Arc<str>>),
}

impl Task {
    async fn run(mut self) {
        let end = self.end.clone();
        loop {
            let begun = end.run_until_cancelled(self.begin()).await;
            let Some(mut live) = begun else { break };
            if self.serve(&mut live).await == Over::Ended {
                break;
            }
            live.lease.end();
            self.hosting.abandon_all();
            tracing::error!(session = %live.me, "this replica's session was ended by others: it begins another");
        }
        self.handed_over.cancel();
    }

    /// Begins a session, however long the database is away.
    async fn begin(&mut self) -> Live {
        loop {
            match self.register().await {
                Ok(live) => return live,
                Err(why) => self.fail(&why, false),
            }
            sleep(BEAT).await;
        }
    }

    async fn register(&mut self) -> Result<Live, String> {
        if self.migrate {
            let migrated = database::migrate(&self.database).await.map_err(|fault| fault.to_string())?;
            tracing::debug!(?migrated, "the schema is up to date");
        } else {
            database::check_schema(&self.beats).await.map_err(|fault| fault.to_string())?;
        }
        let me = SessionId::random().map_err(|fault| fault.to_string())?;
        let listed = self.hosting.host.configured();
        let sent = boot_time();
        match statements::register(&self.beats, me, &self.introduction, &listed).await {
            Ended::Done(_) => {}
            Ended::NotDone(fault) => return Err(fault.to_string()),
            // Should it be there after all, it is never renewed, and others end it.
            Ended::Ambiguous => return Err(AMBIGUOUS.into()),
        }
        let names = listed.iter().map(|listed| Arc::clone(&listed.name)).collect();
        let mut ownership = Ownership::begin(self.rules, me, self.introduction.format, names, self.patience);
        let lease = Lease::of(me);
        lease.extend_to(ownership.renewed(sent));
        let (outcomes, taken) = mpsc::channel(OUTCOMES);
        self.recover();
        self.directory.note(|standing| {
            standing.lease = Some(lease.clone());
            standing.sessions_begun += 1;
        });
        tracing::info!(session = %me, name = &*self.introduction.name, "begun a session in the cluster");
        Ok(Live { me, lease, ownership, since: None, lists: BTreeMap::new(), outcomes, taken })
    }

    /// Renews and obeys until the session is over.
    async fn serve(&mut self, live: &mut Live) -> Over {
        let (mut next, mut looked, mut is_hinted) = (Instant::now(), Instant::now(), false);
        let (relist, hints) = (Arc::clone(&self.relist), Arc::clone(&self.hints));
        let (drain, end) = (self.drain.clone(), self.end.clone());
        loop {
            tokio::select! {
                () = end.cancelled() => {
                    self.end_own(live).await;
                    return Over::Ended;
                }
                () = drain.cancelled(), if !live.ownership.is_draining() => {
                    live.ownership.drain();
                    next = Instant::now();
                }
                () = relist.notified() => {
                    if !self.relist(live).await {
                        return Over::Lost;
                    }
                }
                Some(outcome) = live.taken.recv() => self.take(live, outcome),
                () = hints.notified(), if !is_hinted => is_hinted = true,
                () = sleep_until(looked + LOOK), if is_hinted => {
                    (looked, is_hinted) = (Instant::now(), false);
                    self.look(live).await;
                }
                () = sleep_until(next) => {
                    next = Instant::now() + BEAT;
                    if !self.beat(live).await {
                        return Over::Lost;
                    }
                    next = next.min(live.next_overdue());
                }
            }
            if live.ownership.is_draining() && live.ownership.is_done() {
                self.handed_over.cancel();
            }
        }
    }

    /// Renews, reads, and acts on both; whether the session goes on.
    async fn beat(&mut self, live: &mut Live) -> bool {
        let now = boot_time();
        let reaches = live.ownership.reaches(self.any_reaches(live), now);
        match statements::renew(&self.beats, live.me, live.ownership.is_draining(), reaches).await {
            Ended::Done(true) => live.lease.extend_to(live.ownership.renewed(now)),
            Ended::Done(false) => return false,
            Ended::NotDone(fault) => return self.missed(live, &fault.to_string()).await,
            Ended::Ambiguous => return self.missed(live, AMBIGUOUS).await,
        }
        if let Err(fault) = self.read(live).await {
            return self.missed(live, &fault.to_string()).await;
        }
        self.recover();
        self.act(live).await
    }

    /// Reads, and acts on it, between two renewals.
    async fn look(&mut self, live: &mut Live) {
        // Where that fails the next renewal does too.
        if self.read(live).await.is_ok() {
            self.act(live).await;
        }
    }

    async fn act(&mut self, live: &mut Live) -> bool {
        let mut steps = live.ownership.decide(boot_time());
        if !steps.endings.is_empty() && self.end_others(live, &steps).await {
            // What they owned can be claimed once it is read that they ended.
            match self.read(live).await {
                Ok(()) => {
                    let more = live.ownership.decide(boot_time());
                    steps.claims.extend(more.claims);
                    steps.hand_overs.extend(more.hand_overs);
                    steps.offers.extend(more.offers);
                    steps.preparations.extend(more.preparations);
                    steps.prepared.extend(more.prepared);
                    steps.abandoned.extend(more.abandoned);
                }
                Err(fault) => return self.missed(live, &fault.to_string()).await,
            }
        }
        self.obey(live, steps);
        true
    }

    /// A renewal or a reading did not come through: the session goes on as long as its lease.
    async fn missed(&mut self, live: &mut Live, why: &str) -> bool {
        live.ownership.failed();
        live.since = None;
        let reads = statements::answers(&self.beats).await;
        self.fail(why, reads);
        true
    }

    fn fail(&mut self, why: &str, reads: bool) {
        if !self.is_troubled {
            tracing::error!(reason = why, "the session in the cluster cannot be renewed");
        }
        self.is_troubled = true;
        self.directory.note(|standing| standing.failed(why.to_owned(), reads, unix_ms()));
    }

    fn recover(&mut self) {
        if self.is_troubled {
            tracing::info!("the session in the cluster is renewed again");
            self.directory.note(|standing| standing.fault = None);
        }
        self.is_troubled = false;
    }

    fn any_reaches(&self, live: &Live) -> Option<bool> {
        let mut held = live.ownership.holdings().iter().map(|(instance, _)| instance).peekable();
        held.peek()?;
        Some(held.any(|instance| self.hosting.host.reaches_gateway(instance)))
    }

    async fn relist(&mut self, live: &mut Live) -> bool {
        let listed = self.hosting.host.configured();
        live.ownership.list(listed.iter().map(|listed| Arc::clone(&listed.name)).collect());
        match statements::list(&self.beats, live.me, &listed).await {
            Ended::Done(goes_on) => goes_on,
            Ended::NotDone(fault) => {
                self.relist.notify_one();
                self.missed(live, &fault.to_string()).await
            }
            Ended::Ambiguous => {
                self.relist.notify_one();
                self.missed(live, AMBIGUOUS).await
            }
        }
    }

    async fn read(&mut self, live: &mut Live) -> Result<(), Error> {
        let asked = boot_time();
        let mut snapshot =
            statements::read(&self.beats, live.since.as_ref().map(|(horizon, _)| horizon.as_str())).await?;
        // After a failover a horizon of before may be ahead of changes that come.
        if live.since.as_ref().is_some_and(|(_, timeline)| *timeline != snapshot.timeline) {
            live.since = None;
            snapshot = statements::read(&self.beats, None).await?;
        }
        self.read_lists(live, &snapshot).await?;
        let came = boot_time();
        let is_complete = live.since.is_none();
        live.since = Some((snapshot.horizon.clone(), snapshot.timeline));
        let reading = live.reading(&snapshot, is_complete, asked, came);
        let lost = live.ownership.saw(reading);
        for instance in &lost {
            tracing::warn!(instance = &**instance, "another session owns an instance that was owned here");
            if let Some(tenure) = self.hosting.tenure(instance) {
                tenure.release();
            }
        }
        self.show(live, snapshot, came);
        Ok(())
    }

    /// Reads what sessions list where that is new.
    async fn read_lists(&self, live: &mut Live, snapshot: &Snapshot) -> Result<(), Error> {
        let is_known = |id, listed| live.lists.get(&id).is_some_and(|list: &List| list.count == listed);
        let new: Vec<Uuid> =
            snapshot.sessions.iter().filter(|row| !is_known(row.id, row.listed)).map(|row| row.id.as_uuid()).collect();
        live.lists.retain(|id, _| snapshot.sessions.iter().any(|row| row.id == *id));
        if new.is_empty() {
            return Ok(());
        }
        for (id, (count, listed)) in statements::lists(&self.beats, new).await? {
            let names = Arc::new(listed.iter().map(|listed| Arc::clone(&listed.name)).collect());
            live.lists.insert(id, List { count, listed, names });
        }
        Ok(())
    }

    /// Shows the directory what was read, and retires what others own.
    fn show(&mut self, live: &Live, snapshot: Snapshot, now: Duration) {
        let members = snapshot.sessions.iter().map(|row| {
            let (name, address, version, format) = row.introduction.clone();
            Member {
                session: row.id,
                name,
                address,
                version,
                format,
                draining: row.draining,
                silent: live.ownership.silent(row.id, now),
                instances: live.lists.get(&row.id).map(|list| Arc::clone(&list.listed)).unwrap_or_default(),
            }
        });
        self.directory.show_members(Some(live.me), members.collect());
        self.directory.note(|standing| standing.has_standby = Some(snapshot.has_standby));
        let owners = snapshot
            .owners
            .into_iter()
            .map(|(instance, row)| (instance, Owner { session: row.session, epoch: row.epoch }));
        self.directory.show_owners(owners.collect());
        let listed = live.lists.get(&live.me).map(|list| Arc::clone(&list.names));
        let directory = self.directory.clone();
        self.hosting.retire(|instance| {
            let is_listed = listed.as_ref().is_none_or(|listed| listed.contains(instance));
            !is_listed || matches!(directory.route(instance), super::Route::Other(_))
        });
    }

    /// Ends sessions that were not renewed; whether any ended by it.
    async fn end_others(&mut self, live: &Live, steps: &Steps) -> bool {
        let Ended::Done(ended) = statements::end(&self.beats, &steps.endings).await else { return false };
        for session in &ended {
            let member = self.directory.members().into_iter().find(|member| member.session == *session);
            let name = member.map(|member| member.name);
            tracing::warn!(%session, name = name.as_deref(), by = %live.me, "ended the session of a replica that was not renewed in time");
        }
        !ended.is_empty()
    }

    fn obey(&mut self, live: &Live, steps: Steps) {
        let Steps { claims, hand_overs, offers, preparations, prepared, abandoned, .. } = steps;
        for instance in &abandoned {
            self.hosting.abandon(instance);
        }
        for preparation in preparations {
            let (outcomes, prepared) = (live.outcomes.clone(), preparation.clone());
            self.hosting.prepare(&preparation.0, &live.lease, async move {
                let _ = outcomes.send(Outcome::Listens(prepared)).await;
            });
        }
        if !offers.is_empty() || !prepared.is_empty() {
            let (connection, me) = (Arc::clone(&self.claims), live.me);
            tokio::spawn(async move {
                if !offers.is_empty() {
                    statements::offer(&connection, me, &offers).await;
                }
                if !prepared.is_empty() {
                    statements::prepared(&connection, me, &prepared).await;
                }
            });
        }
        if !claims.is_empty() {
            let claiming = Claiming {
                me: live.me,
                format: self.introduction.format,
                connection: Arc::clone(&self.claims),
                outcomes: live.outcomes.clone(),
                others: self.directory.members().into_iter().map(|member| member.session).collect(),
            };
            tokio::spawn(claiming.run(claims));
        }
        for hand_over in hand_overs {
            let (host, outcomes) = (Arc::clone(&self.hosting.host), live.outcomes.clone());
            let instance = Arc::clone(&hand_over.instance);
            self.hosting.run(&instance, async move {
                let state = host.quiesce(&hand_over.instance, QUIESCE).await;
                let _ = outcomes.send(Outcome::Quiesced(hand_over, state)).await;
            });
        }
    }

    fn take(&mut self, live: &mut Live, outcome: Outcome) {
        match outcome {
            Outcome::Claimed(claimed) => {
                let owner = |epoch| Owner { session: Some(live.me), epoch };
                let owners = claimed.iter().map(|(instance, epoch)| (Arc::clone(instance), owner(*epoch)));
                self.directory.show_owners(owners.collect());
                for (instance, epoch) in &claimed {
                    self.serve_one(live, instance, *epoch);
                }
            }
            Outcome::Settled(instances) => {
                for instance in &instances {
                    live.ownership.ended(instance);
                }
            }
            Outcome::CannotServe(instance, epoch) => {
                let is_held = live.ownership.holdings().get(&instance).is_some_and(|held| held.epoch == epoch);
                if is_held && let Some(hand_over) = live.ownership.cannot_serve(&instance, boot_time()) {
                    self.release(live, vec![(hand_over, Vec::new())]);
                }
            }
            Outcome::Listens(preparation) => {
                live.ownership.listens(&preparation);
                self.hints.notify_one();
            }
            Outcome::Quiesced(first, state) => {
                let mut given = vec![(first, state)];
                let mut others = Vec::new();
                while given.len() < RELEASED_AT_ONCE
                    && let Ok(outcome) = live.taken.try_recv()
                {
                    match outcome {
                        Outcome::Quiesced(hand_over, state) => given.push((hand_over, state)),
                        other => others.push(other),
                    }
                }
                self.release(live, given);
                for other in others {
                    self.take(live, other);
                }
            }
            Outcome::Released(instances) => {
                for instance in &instances {
                    live.ownership.ended(instance);
                }
                let released: HashSet<_> = instances.into_iter().collect();
                self.hosting.retire(|instance| released.contains(instance));
            }
        }
    }

    fn serve_one(&mut self, live: &mut Live, instance: &Arc<str>, epoch: i64) {
        live.ownership.claimed(instance, epoch, boot_time());
        let (outcomes, named) = (live.outcomes.clone(), Arc::clone(instance));
        let failed = async move {
            let _ = outcomes.send(Outcome::CannotServe(named, epoch)).await;
        };
        self.hosting.begin(instance, (&live.lease, epoch), failed);
    }

    /// Releases what was quiesced. From here on nothing acts under these epochs, whatever becomes of the release.
    fn release(&mut self, live: &mut Live, given: Vec<(HandOver, Vec<Statement>)>) {
        let (mut released, mut states) = (Vec::with_capacity(given.len()), Vec::new());
        for (hand_over, state) in given {
            let held = live.ownership.holdings().get(&hand_over.instance);
            if held.is_some_and(|held| held.epoch == hand_over.epoch) {
                live.ownership.release(&hand_over.instance);
                if let Some(tenure) = self.hosting.tenure(&hand_over.instance) {
                    tenure.release();
                }
                released.push(hand_over);
                states.extend(state);
            } else {
                live.ownership.ended(&hand_over.instance);
            }
        }
        if !released.is_empty() {
            let (connection, outcomes) = (Arc::clone(&self.claims), live.outcomes.clone());
            tokio::spawn(Releasing { me: live.me, connection, outcomes }.run(released, states));
        }
    }

    async fn end_own(&mut self, live: &Live) {
        live.lease.end();
        if matches!(statements::end_own(&self.beats, live.me).await, Ended::Done(_)) {
            tracing::info!(session = %live.me, "ended the session in the cluster");
        } else {
            tracing::warn!(session = %live.me, "the session could not be ended: others wait for its lease");
        }
    }
}

/// What is told where the outcome of a write is not known.
const AMBIGUOUS: &str = "a write was not acknowledged";

/// A session while it lasts.
struct Live {
    me: SessionId,
    lease: Lease,
    ownership: Ownership,
    /// What was read up to, and on which timeline; none where all must be read.
    since: Option<(String, u32)>,
    lists: BTreeMap<SessionId, List>,
    outcomes: mpsc::Sender<Outcome>,
    taken: mpsc::Receiver<Outcome>,
}

/// What a session lists.
struct List {
    count: i64,
    listed: Arc<[Listed]>,
    names: Arc<HashSet<Arc<str>>>,
}

impl Live {
    fn reading(&self, snapshot: &Snapshot, is_complete: bool, asked: Duration, came: Duration) -> Reading {
        let sessions = snapshot.sessions.iter().map(|row| {
            let name = &row.introduction.0;
            let shares_its_name = snapshot
                .sessions
                .iter()
                .any(|other| other.id != row.id && !other.draining && other.introduction.0 == *name);
            let lists = self.lists.get(&row.id).map(|list| Arc::clone(&list.names)).unwrap_or_default();
            let session = Session {
                name: Arc::clone(name),
                shares_its_name,
                draining: row.draining,
                reaches: row.reaches,
                format: row.introduction.3,
                lists,
            };
            (row.id, row.beat, session)
        });
        Reading {
            asked,
            came,
            timeline: snapshot.timeline,
            format: snapshot.format,
            sessions: sessions.collect(),
            is_complete,
            rows: snapshot.owners.clone(),
        }
    }

    /// When another session may be ended next.
    fn next_overdue(&self) -> Instant {
        let left = self.ownership.next_overdue().map_or(BEAT, |at| at.saturating_sub(boot_time()));
        // An ending that had no effect is not repeated at once.
        Instant::now() + left.clamp(BEAT / 20, BEAT)
    }
}

/// One transaction that gives instances up.
struct Releasing {
    me: SessionId,
    connection: Arc<Connection>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Releasing {
    async fn run(self, released: Vec<HandOver>, states: Vec<Statement>) {
        let mut ended = statements::release(&self.connection, self.me, &released, states).await;
        if let Ended::NotDone(fault) = &ended {
            // Better without what the next owners would begin with than not at all.
            tracing::warn!(%fault, "what next owners begin with could not be written");
            ended = statements::release(&self.connection, self.me, &released, Vec::new()).await;
        }
        if !matches!(ended, Ended::Done(_)) {
            let instances = released.len();
            tracing::warn!(instances, "a release was not acknowledged: what is still owned here is claimed again");
        }
        statements::hint(&self.connection, released.iter().filter_map(|hand_over| hand_over.next)).await;
        let instances = released.into_iter().map(|hand_over| hand_over.instance).collect();
        let _ = self.outcomes.send(Outcome::Released(instances)).await;
    }
}

/// One run of claims: batch by batch, each instance by itself where a batch failed.
struct Claiming {
    me: SessionId,
    format: i32,
    connection: Arc<Connection>,
    outcomes: mpsc::Sender<Outcome>,
    /// Who may have requests waiting for the new owner.
    others: Vec<SessionId>,
}

impl Claiming {
    async fn run(self, mut claims: Vec<Claim>) {
        claims.sort_by(|one, other| one.instance.cmp(&other.instance));
        for batch in claims.chunks(BATCH) {
            let mut without_effect = self.attempt(batch).await;
            if without_effect.is_none() && batch.len() > 1 {
                let mut rest = Vec::new();
                for claim in batch {
                    rest.extend(
                        self.attempt(slice::from_ref(claim)).await.unwrap_or_else(|| names(slice::from_ref(claim))),
                    );
                }
                without_effect = Some(rest);
            }
            let settled = without_effect.unwrap_or_else(|| names(batch));
            if self.outcomes.send(Outcome::Settled(settled)).await.is_err() {
                // The session is over.
                return;
            }
        }
    }

    /// Which claims had no effect; none where one of them may have failed the others. One of unknown outcome counts as without:
    /// should it have an effect, that is read, and claimed anew.
    async fn attempt(&self, claims: &[Claim]) -> Option<Vec<Arc<str>>> {
        match statements::claim(&self.connection, (self.me, self.format), claims).await {
            Ended::Done(claimed) => {
                let taken: HashSet<_> = claimed.iter().map(|(instance, _)| Arc::clone(instance)).collect();
                let _ = self.outcomes.send(Outcome::Claimed(claimed)).await;
                if !taken.is_empty() {
                    let others = self.others.iter().copied().filter(|other| *other != self.me);
                    statements::hint(&self.connection, others).await;
                }
                Some(names(claims).into_iter().filter(|instance| !taken.contains(instance)).collect())
            }
            Ended::Ambiguous => Some(names(claims)),
            Ended::NotDone(fault) => {
                tracing::debug!(%fault, claims = claims.len(), "claims failed");
                // Each by itself fails as well where the database is away.
                matches!(fault, Error::Unreachable(_) | Error::Late).then(|| names(claims))
            }
        }
    }
}

fn names(claims: &[Claim]) -> Vec<Arc<str>> {
    claims.iter().map(|claim| Arc::clone(&claim.instance)).collect()
}

#[cfg(test)]
mod tests;
