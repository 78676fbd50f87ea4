//! The right of this process to act for an instance, and until when it lasts.
//!
//! With several replicas one of them owns an instance at a time. Its session renews a [`Lease`] in the database; each
//! instance that it owns has a [`Tenure`] under that lease, with the fencing token of that claim. Whoever is about to write
//! to the gateway, or to promise something, asks [`Tenure::may_act`] immediately before. The single bridge's tenure is
//! unlimited.
//!
//! Deadlines are instants of `CLOCK_BOOTTIME`, which goes on while the process is stopped and while the machine sleeps.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Time by a clock that goes on while the process is stopped and while the machine sleeps.
#[must_use]
pub fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// A replica from its start until it ends, or until it loses its place in the database: random, and new each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// # Errors
    /// Where the system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(uuid::Builder::from_random_bytes(bytes).into_uuid()))
    }

    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for SessionId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Until when a session may act. Over until it is first extended. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Lease {
    session: SessionId,
    shared: Arc<Term>,
}

#[derive(Debug, Default)]
struct Term {
    /// In nanoseconds of [`boot_time`].
    until: AtomicU64,
    ended: CancellationToken,
    /// It was extended after it had been over.
    resumed: Notify,
}

impl Lease {
    #[must_use]
    pub fn of(session: SessionId) -> Self {
        Self { session, shared: Arc::default() }
    }

    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Moves the end on to `boot`, an instant of [`boot_time`]; an earlier one changes nothing.
    pub fn extend_to(&self, boot: Duration) {
        if self.shared.ended.is_cancelled() {
            return;
        }
        let was_over = !self.is_valid();
        self.shared.until.fetch_max(nanos(boot), Ordering::AcqRel);
        if was_over {
            self.shared.resumed.notify_waiters();
        }
    }

    /// Ends it for ever: no later extension counts.
    pub fn end(&self) {
        self.shared.ended.cancel();
        self.shared.until.fetch_min(nanos(boot_time()), Ordering::AcqRel);
    }

    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.shared.ended.is_cancelled() && boot_time() < self.until()
    }

    /// The instant of [`boot_time`] at which it is over, unless it is extended before.
    #[must_use]
    pub fn until(&self) -> Duration {
        Duration::from_nanos(self.shared.until.load(Ordering::Acquire))
    }

    /// Resolves once it is over.
    async fn over(&self) {
        while self.is_valid() {
            tokio::select! {
                () = self.shared.ended.cancelled() => {}
                () = sleep(self.until().saturating_sub(boot_time())) => {}
            }
        }
    }
}

fn nanos(boot: Duration) -> u64 {
    u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX)
}

/// The right to act for one instance: a fencing token and a deadline. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Tenure(Option<Arc<Limits>>);

#[derive(Debug)]
struct Limits {
    lease: Lease,
    /// None before the claim is acknowledged.
    epoch: OnceLock<i64>,
    released: CancellationToken,
    /// By [`boot_time`].
    released_at: OnceLock<Duration>,
}

impl Limits {
    fn may_act(&self) -> bool {
        self.epoch.get().is_some() && self.may_listen()
    }

    fn may_listen(&self) -> bool {
        !self.released.is_cancelled() && self.lease.is_valid()
    }

    async fn lapsed(&self) {
        tokio::select! {
            () = self.released.cancelled() => {}
            () = self.lease.over() => {}
        }
    }

    async fn resumed(&self) {
        loop {
            let mut resumed = pin!(self.lease.shared.resumed.notified());
            resumed.as_mut().enable();
            if self.may_listen() {
                return;
            }
            resumed.await;
        }
    }
}

impl Tenure {
    /// The single bridge's: it always may act.
    #[must_use]
    pub fn unlimited() -> Self {
        Self(None)
    }

    /// For a claim of an instance that the database acknowledged under `epoch`.
    #[must_use]
    pub fn new(lease: &Lease, epoch: i64) -> Self {
        let tenure = Self::prepared(lease);
        tenure.grant(epoch);
        tenure
    }

    /// For an instance that another session owns and will hand over: connections may be opened, and nothing is sent on them.
    #[must_use]
    pub fn prepared(lease: &Lease) -> Self {
        let (epoch, released, released_at) = Default::default();
        Self(Some(Arc::new(Limits { lease: lease.clone(), epoch, released, released_at })))
    }

    /// The claim for which it was prepared is acknowledged under `epoch`.
    pub fn grant(&self, epoch: i64) {
        if let Some(limits) = &self.0 {
            let _ = limits.epoch.set(epoch);
        }
    }

    /// Whether the lease is valid and nothing was released. To be asked immediately before each act.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.0.as_ref().is_none_or(|limits| limits.may_act())
    }

    /// Whether connections may be open: as long as it may act, and before that while it is prepared.
    #[must_use]
    pub fn may_listen(&self) -> bool {
        self.0.as_ref().is_none_or(|limits| limits.may_listen())
    }

    /// For how long it has not been allowed to act; none where it may.
    #[must_use]
    pub fn lapsed_for(&self) -> Option<Duration> {
        let limits = self.0.as_ref().filter(|limits| !limits.may_act())?;
        let until = limits.lease.until();
        let since = limits.released_at.get().map_or(until, |released| until.min(*released));
        Some(boot_time().saturating_sub(since))
    }

    /// The fencing token; none for the single bridge, and before the claim.
    #[must_use]
    pub fn token(&self) -> Option<(SessionId, i64)> {
        self.0.as_ref().and_then(|limits| Some((limits.lease.session, *limits.epoch.get()?)))
    }

    /// Ends it for ever. A lease that ends by its deadline may be renewed, a release cannot be taken back.
    pub fn release(&self) {
        if let Some(limits) = &self.0 {
            let _ = limits.released_at.set(boot_time());
            limits.released.cancel();
        }
    }

    /// Whether it was released, or its session has ended: it will never act again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|limits| limits.released.is_cancelled() || limits.lease.shared.ended.is_cancelled())
    }

    /// Resolves once it may neither act nor listen, now or for ever. Late where the machine slept: who writes asks
    /// [`Self::may_listen`], and for a command [`Self::may_act`].
    pub async fn lapsed(&self) {
        match &self.0 {
            None => pending().await,
            // Boxed: who waits is most often the single bridge.
            Some(limits) => Box::pin(limits.lapsed()).await,
        }
    }

    /// Resolves once it may listen again; never where it [is over](Self::is_over).
    pub async fn resumed(&self) {
        if let Some(limits) = &self.0 {
            limits.resumed().await;
        }
    }

    /// Whether both are of the same claim.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// The tenures of this process by instance, for who has only a name. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Tenures(Arc<RwLock<HashMap<String, Tenure>>>);

impl Tenures {
    /// The instance is served under `tenure` from now on, and under no earlier one.
    pub fn insert(&self, instance: &str, tenure: Tenure) {
        self.0.write().insert(instance.to_owned(), tenure);
    }

    /// Forgets `tenure`, and none that was inserted after it.
    pub fn remove(&self, instance: &str, tenure: &Tenure) {
        let mut tenures = self.0.write();
        if tenures.get(instance).is_some_and(|known| known.is(tenure)) {
            tenures.remove(instance);
        }
    }

    /// The one under which the instance is served here, whether or not it may act now.
    #[must_use]
    pub fn of(&self, instance: &str) -> Option<Tenure> {
        self.0.read().get(instance).cloned()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    fn lease() -> Lease {
        Lease::of(SessionId::random().unwrap())
    }

    fn valid_lease() -> Lease {
        let lease = lease();
        lease.extend_to(boot_time() + LONG);
        lease
    }

    #[test]
    fn a_lease_is_over_until_it_is_extended_and_no_extension_shortens_it() {
        let lease = lease();
        assert!(!lease.is_valid());
        let until = boot_time() + LONG;
        lease.extend_to(until);
        lease.extend_to(until.saturating_sub(LONG));
        assert!(lease.is_valid());
        assert_eq!(lease.until(), until);
    }

    #[test]
    fn a_lease_that_ran_out_can_be_extended_and_one_that_was_ended_cannot() {
        let lease = lease();
        lease.extend_to(boot_time().saturating_sub(Duration::from_nanos(1)));
        assert!(!lease.is_valid());
        lease.extend_to(boot_time() + LONG);
        assert!(lease.clone().is_valid());
        lease.end();
        lease.extend_to(boot_time() + LONG * 2);
        assert!(!lease.is_valid());
    }

    #[test]
    fn a_tenure_acts_within_its_lease_and_never_after_its_release() {
        let lease = valid_lease();
        let (released, other) = (Tenure::new(&lease, 7), Tenure::new(&lease, 8));
        assert_eq!(released.token(), Some((lease.session(), 7)));
        assert!(released.may_act());
        released.clone().release();
        lease.extend_to(boot_time() + LONG * 2);
        assert!(!released.may_act() && released.is_over());
        assert!(other.may_act() && !other.is_over(), "the release is of one instance");
        lease.end();
        assert!(!other.may_act() && other.is_over());
    }

    #[test]
    fn it_is_told_for_how_long_nothing_may_be_done() {
        let lease = lease();
        lease.extend_to(boot_time().saturating_sub(LONG));
        let tenure = Tenure::new(&lease, 1);
        assert!(tenure.lapsed_for().is_some_and(|lapsed| lapsed >= LONG));
        lease.extend_to(boot_time() + LONG);
        assert_eq!(tenure.lapsed_for(), None);
        tenure.release();
        assert!(tenure.lapsed_for().is_some_and(|lapsed| lapsed < LONG));
    }

    #[tokio::test]
    async fn who_waits_to_act_again_hears_of_the_extension_and_never_of_one_after_the_end() {
        let lease = lease();
        let (tenure, released) = (Tenure::new(&lease, 1), Tenure::new(&lease, 2));
        released.release();
        let (mut resumed, mut never) = (pin!(tenure.resumed()), pin!(released.resumed()));
        assert_eq!((resumed.as_mut().now_or_never(), never.as_mut().now_or_never()), (None, None));
        lease.extend_to(boot_time() + LONG);
        resumed.await;
        assert_eq!(never.now_or_never(), None);
        lease.end();
        lease.extend_to(boot_time() + LONG * 2);
        assert_eq!(tenure.resumed().now_or_never(), None);
        Tenure::unlimited().resumed().await;
    }

    #[test]
    fn the_single_bridge_always_may_act() {
        let tenure = Tenure::unlimited();
        tenure.release();
        assert!(tenure.may_act() && !tenure.is_over());
        assert_eq!((tenure.token(), tenure.lapsed_for()), (None, None));
        assert_eq!(tenure.lapsed().now_or_never(), None);
    }

    #[tokio::test]
    async fn who_waits_for_the_end_hears_of_a_release_of_the_session_s_end_and_of_the_deadline() {
        for end in [|_: &Lease, tenure: &Tenure| tenure.release(), |lease: &Lease, _: &Tenure| lease.end()] {
            let lease = valid_lease();
            let tenure = Tenure::new(&lease, 1);
            let mut lapsed = pin!(tenure.lapsed());
            assert_eq!(lapsed.as_mut().now_or_never(), None);
            end(&lease, &tenure);
            lapsed.await;
        }
        let lease = lease();
        lease.extend_to(boot_time() + Duration::from_millis(20));
        let tenure = Tenure::new(&lease, 1);
        tenure.lapsed().await;
        assert!(!tenure.may_act() && !tenure.is_over());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_waits_on_where_the_lease_is_extended() {
        let lease = lease();
        lease.extend_to(boot_time() + Duration::from_millis(20));
        let tenure = Tenure::new(&lease, 1);
        let mut lapsed = pin!(tenure.lapsed());
        assert_eq!(lapsed.as_mut().now_or_never(), None);
        let until = boot_time() + Duration::from_millis(60);
        lease.extend_to(until);
        lapsed.await;
        assert!(boot_time() >= until);
    }

    #[test]
    fn a_tenure_that_is_removed_late_leaves_the_later_one() {
        let (lease, tenures) = (valid_lease(), Tenures::default());
        let (earlier, later) = (Tenure::new(&lease, 1), Tenure::new(&lease, 2));
        tenures.insert("demo", earlier.clone());
        tenures.insert("demo", later.clone());
        tenures.remove("demo", &earlier);
        assert!(tenures.of("demo").is_some_and(|tenure| tenure.is(&later)));
        tenures.clone().remove("demo", &later);
        assert!(tenures.of("demo").is_none());
    }
}
