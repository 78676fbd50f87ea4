//! How the disk of a journal and the wall clock are doing, as the thread that writes finds. PURE over given instants.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A commit that takes as long holds up sales: a healthy one takes about a millisecond.
const SLOW: Duration = Duration::from_millis(500);
/// For how long a slow commit is told of.
const SLOW_TOLD: Duration = Duration::from_mins(1);
/// The least change of the wall clock against the monotonic one that is called a step. Corrections of a network's clock are
/// smaller.
const LEAST_STEP_MS: i64 = 2_000;
/// For how long a step is told of.
const STEP_TOLD: Duration = Duration::from_hours(1);

/// What is known of it now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// Since when it cannot be written, and why.
    pub unwritable: Option<(Instant, String)>,
    /// The slowest commit of the last minute or under way, where one is slow.
    pub slow: Option<Duration>,
    /// Its file was found to be damaged.
    pub is_damaged: bool,
    /// What is left on the disk.
    pub free_bytes: Option<u64>,
    /// When the wall clock last stepped, and by how much, within the last hour.
    pub clock_step_ms: Option<(Instant, i64)>,
}

#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    unwritable: Option<(Instant, String)>,
    commit_begun: Option<Instant>,
    slowest: Option<(Instant, Duration)>,
    free_bytes: Option<u64>,
    /// By how much the wall clock was ahead of the monotonic one.
    ahead_ms: Option<i64>,
    step_ms: Option<(Instant, i64)>,
}

impl Watched {
    pub(super) fn commit_begun(&self, now: Instant) {
        self.0.lock().commit_begun = Some(now);
    }

    pub(super) fn commit_ended(&self, now: Instant) {
        let mut state = self.0.lock();
        let Some(took) = state.commit_begun.take().map(|begun| now.saturating_duration_since(begun)) else { return };
        let told = state.slowest.filter(|(at, _)| now.saturating_duration_since(*at) < SLOW_TOLD);
        state.slowest = told.filter(|(_, slowest)| *slowest > took).or((took >= SLOW).then_some((now, took)));
    }

    /// It cannot be written, for this reason; known since the first time.
    pub(super) fn failed(&self, reason: String, now: Instant) {
        let mut state = self.0.lock();
        let since = state.unwritable.take().map_or(now, |(since, _)| since);
        state.unwritable = Some((since, reason));
    }

    pub(super) fn recovered(&self) {
        self.0.lock().unwritable = None;
    }

    pub(super) fn has_free(&self, bytes: Option<u64>) {
        self.0.lock().free_bytes = bytes;
    }

    /// Compares the clocks. The first time there is nothing to compare with.
    pub(super) fn clocks(&self, wall_ms: i64, monotonic: Duration, now: Instant) {
        let ahead_ms = wall_ms.saturating_sub(i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX));
        let mut state = self.0.lock();
        let step_ms = state.ahead_ms.map_or(0, |before_ms| ahead_ms.saturating_sub(before_ms));
        state.ahead_ms = Some(ahead_ms);
        if step_ms.abs() >= LEAST_STEP_MS {
            state.step_ms = Some((now, step_ms));
            drop(state);
            tracing::warn!(
                step_ms,
                "the wall clock was changed: times in records and logs before and after do not compare"
            );
        }
    }

    pub(super) fn at(&self, now: Instant) -> Condition {
        let state = self.0.lock();
        let under_way =
            state.commit_begun.map(|begun| now.saturating_duration_since(begun)).filter(|took| *took >= SLOW);
        let ended =
            state.slowest.filter(|(at, _)| now.saturating_duration_since(*at) < SLOW_TOLD).map(|(_, took)| took);
        Condition {
            unwritable: state.unwritable.clone(),
            slow: under_way.max(ended),
            is_damaged: false,
            free_bytes: state.free_bytes,
            clock_step_ms: state.step_ms.filter(|(at, _)| now.saturating_duration_since(*at) < STEP_TOLD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slow_commit_is_told_while_it_lasts_and_for_a_minute_after() {
        let (watched, now) = (Watched::default(), Instant::now());
        watched.commit_begun(now);
        assert_eq!(watched.at(now + SECOND / 4).slow, None);
        assert_eq!(watched.at(now + SECOND * 3).slow, Some(SECOND * 3));
        watched.commit_ended(now + SECOND * 4);
        watched.commit_begun(now + SECOND * 5);
        watched.commit_ended(now + SECOND * 6);
        assert_eq!(watched.at(now + SECOND * 60).slow, Some(SECOND * 4));
        watched.commit_begun(now + SECOND * 65);
        watched.commit_ended(now + SECOND * 65);
        assert_eq!(watched.at(now + SECOND * 65).slow, None);
    }

    #[test]
    fn a_fault_keeps_its_first_instant_and_its_last_reason() {
        let (watched, now) = (Watched::default(), Instant::now());
        watched.failed("full".into(), now);
        watched.failed("gone".into(), now + SECOND);
        assert_eq!(watched.at(now).unwritable, Some((now, "gone".into())));
        watched.recovered();
        assert_eq!(watched.at(now).unwritable, None);
    }

    #[test]
    fn a_step_of_the_wall_clock_in_either_direction_is_told_for_an_hour_and_a_correction_is_not() {
        for step_ms in [3_600_000, -2_000] {
            let (watched, now) = (Watched::default(), Instant::now());
            for (wall_ms, passed) in
                [(0, 0), (10_500, 10), (20_000, 20), (30_000 + step_ms, 30), (40_000 + step_ms, 40)]
            {
                watched.clocks(wall_ms, SECOND * passed, now);
                let told = watched.at(now).clock_step_ms;
                assert_eq!(told, (passed >= 30).then_some((now, step_ms)), "{passed}");
            }
            assert_eq!(watched.at(now + SECOND * 3600).clock_step_ms, None);
        }
    }
}
