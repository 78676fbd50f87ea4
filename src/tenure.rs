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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rustix::time::{ClockId, clock_gettime};
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
        self.shared.until.fetch_max(u64::try_from(boot.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Ends it for ever: no later extension counts.
    pub fn end(&self) {
        self.shared.ended.cancel();
    }

    #[must_use]
    pub fn is_valid(&self) -> bool {
        boot_time() < self.until()
    }

    /// The instant of [`boot_time`] at which it is over, unless it is extended before.
    #[must_use]
    pub fn until(&self) -> Duration {
        if self.shared.ended.is_cancelled() {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.shared.until.load(Ordering::Acquire))
    }

    /// Resolves once it is over.
    async fn over(&self) {
        loop {
            let left = self.until().saturating_sub(boot_time());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = self.shared.ended.cancelled() => {}
                () = sleep(left) => {}
            }
        }
    }
}

/// The right to act for one instance: a fencing token and a deadline. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Tenure(Option<Arc<Limits>>);

#[derive(Debug)]
struct Limits {
    lease: Lease,
    epoch: i64,
    released: CancellationToken,
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
        Self(Some(Arc::new(Limits { lease: lease.clone(), epoch, released: CancellationToken::new() })))
    }

    /// Whether the lease is valid and nothing was released. To be asked immediately before each act.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.0.as_ref().is_none_or(|limits| !limits.released.is_cancelled() && limits.lease.is_valid())
    }

    /// The fencing token; none for the single bridge.
    #[must_use]
    pub fn token(&self) -> Option<(SessionId, i64)> {
        self.0.as_ref().map(|limits| (limits.lease.session, limits.epoch))
    }

    /// Ends it for ever. A lease that ends by its deadline may be renewed, a release cannot be taken back.
    pub fn release(&self) {
        if let Some(limits) = &self.0 {
            limits.released.cancel();
        }
    }

    /// Whether it was released, or its session has ended: it will never act again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|limits| limits.released.is_cancelled() || limits.lease.shared.ended.is_cancelled())
    }

    /// Resolves once it may not act, now or for ever. Late where the machine slept: who writes asks [`Self::may_act`].
    pub async fn lapsed(&self) {
        match &self.0 {
            None => pending().await,
            Some(limits) => {
                tokio::select! {
                    () = limits.released.cancelled() => {}
                    () = limits.lease.over() => {}
                }
            }
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
    use std::pin::pin;

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
    fn the_single_bridge_always_may_act() {
        let tenure = Tenure::unlimited();
        tenure.release();
        assert!(tenure.may_act() && !tenure.is_over());
        assert_eq!(tenure.token(), None);
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
