//! Whether a shard can be dialled, and when. Pure over given instants.
//!
//! A failed connection counts at once. An answer to a command (a rate limit, a refusal) and a caller that goes away never
//! count: they say nothing about the shard.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause, chosen so that the first shard to return is found within five seconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The pause before a shard is probed when no connection to it is needed: rare enough not to load the gateway, and soon
/// enough that the status shows that it is back.
const UNTIL_PROBED: Duration = Duration::from_secs(10);

/// The pause after the loss of a connection that had proved itself: long enough for a restarting shard to close its
/// listener, too short for a caller to notice.
const AFTER_A_LOSS: Duration = Duration::from_millis(25);

/// How many attempts may fail in a row before callers stop waiting for the next one. Their pauses add up to less than a
/// second, in which a gateway that restarts, or a network that was interrupted, is usually back.
const FAILURES_WAITED_OUT: u32 = 3;

/// What is known about one shard.
#[derive(Debug, Clone)]
pub struct Health {
    failures: u32,
    /// When the last of them was noted.
    failed_at: Option<Instant>,
    /// Whether the last attempt timed out.
    hung: bool,
    unproven_losses: u32,
    timeouts: u32,
    retry_at: Option<Instant>,
    probe_at: Option<Instant>,
    round_trip: Option<Duration>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A shard of which nothing is known yet: presumed good.
    #[must_use]
    pub fn new() -> Self {
        Self {
            failures: 0,
            failed_at: None,
            hung: false,
            unproven_losses: 0,
            timeouts: 0,
            retry_at: None,
            probe_at: None,
            round_trip: None,
        }
    }

    /// Whether the last attempts did not fail.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures == 0
    }

    /// Whether it is good, or has been bad for so short a time that callers should wait for the next attempt. After an attempt
    /// that timed out they should not.
    #[must_use]
    pub fn may_be_back_soon(&self) -> bool {
        self.failures <= FAILURES_WAITED_OUT && !self.hung
    }

    /// Whether a connection was lost and none was opened since. A shard of which none is asked stays so until it is
    /// dialled again, and whether it is there is not known.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.is_good() && self.retry_at.is_some()
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When it may be dialled; `None` for at once.
    #[must_use]
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// When to look whether it is back, though no connection is wanted; `None` where there is no doubt.
    #[must_use]
    pub fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Whether it may be dialled at `now`, with `dialling` attempts under way: a bad shard gets a single trial.
    #[must_use]
    pub fn may_dial(&self, now: Instant, dialling: usize) -> bool {
        self.retry_at.is_none_or(|at| at <= now) && (self.is_good() || dialling == 0)
    }

    /// The smoothed round trip, where one was measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// An attempt to connect that was `begun` then failed, at once or because it `hung`. `jitter` is uniform in 0..1 and
    /// spreads the next attempts. Several attempts that were under way at once count as one failure.
    pub fn dial_failed(&mut self, now: Instant, begun: Instant, jitter: f64, hung: bool) {
        if self.failed_at.is_some_and(|noted| begun <= noted) {
            return;
        }
        self.failed_at = Some(now);
        self.failures = self.failures.saturating_add(1);
        self.hung = hung;
        self.pause(now, jitter, self.failures);
    }

    pub fn dial_succeeded(&mut self) {
        self.failures = 0;
        self.failed_at = None;
        self.hung = false;
        self.retry_at = None;
        self.probe_at = None;
    }

    /// What failed may have been mended: it may be dialled at once.
    pub fn retry_now(&mut self) {
        self.retry_at = None;
        self.hung = false;
    }

    /// An open connection ended without being told to. One that had `proved` itself, by completing an exchange, is
    /// replaced almost at once; a shard that accepts and drops is paused for as one that refuses, but is not bad.
    pub fn lost(&mut self, now: Instant, proved: bool, jitter: f64) {
        self.unproven_losses = if proved { 0 } else { self.unproven_losses.saturating_add(1) };
        self.pause(now, jitter, self.unproven_losses);
    }

    /// A command was not answered in time. A shard that answers pings and no commands stays in use, after the others.
    pub fn timed_out(&mut self) {
        self.timeouts = self.timeouts.saturating_add(1);
    }

    pub fn answered(&mut self) {
        self.timeouts = 0;
    }

    /// Commands in a row that were not answered in time.
    #[must_use]
    pub fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// A ping was answered after `sample`. Smoothed as TCP does it, an eighth at a time.
    pub fn measured(&mut self, sample: Duration) {
        self.round_trip = Some(self.round_trip.map_or(sample, |old| (old * 7 + sample) / 8));
    }

    fn pause(&mut self, now: Instant, jitter: f64, times: u32) {
        let whole = match times {
            0 => AFTER_A_LOSS,
            _ => FIRST_PAUSE.saturating_mul(1 << (times - 1).min(10)).min(LONGEST_PAUSE),
        };
        // Between half of the pause and the whole: never at once, never in step with the other bridges.
        let part = 0.5 + jitter.clamp(0.0, 1.0) / 2.0;
        self.retry_at = Some(now + whole.mul_f64(part));
        self.probe_at = Some(now + UNTIL_PROBED.mul_f64(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_three_seconds_and_no_further() {
        let now = Instant::now();
        let mut health = Health::new();
        let mut last = Duration::ZERO;
        for second in 0..40 {
            let now = now + Duration::from_secs(second);
            health.dial_failed(now, now, 1.0, false);
            let pause = health.retry_at().unwrap() - now;
            assert!(pause >= last && pause <= LONGEST_PAUSE, "{pause:?}");
            last = pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
        health.dial_succeeded();
        assert!(health.is_good() && health.may_dial(now, 3));
    }

    #[test]
    fn a_shard_is_worth_waiting_for_while_its_pauses_add_up_to_less_than_a_second_and_never_where_it_hangs() {
        let mut now = Instant::now();
        let (begun, mut health) = (now, Health::new());
        assert!(health.may_be_back_soon(), "nothing is known yet");
        health.dial_failed(now, now, 1.0, false);
        let mut attempts = 0..9;
        while health.may_be_back_soon() && attempts.next().is_some() {
            now = health.retry_at().unwrap();
            health.dial_failed(now, now, 1.0, false);
        }
        let waited = now - begun;
        assert!((Duration::from_millis(500)..Duration::from_secs(1)).contains(&waited), "{waited:?}");
        health.dial_succeeded();
        assert!(health.may_be_back_soon());
        health.dial_failed(now, now, 1.0, true);
        assert!(!health.may_be_back_soon());
    }

    #[test]
    fn a_shard_that_lost_a_connection_is_in_doubt_until_it_was_dialled() {
        let mut health = Health::new();
        assert!(!health.is_in_doubt());
        health.lost(Instant::now(), true, 0.5);
        assert!(health.is_in_doubt());
        assert!(health.probe_at() > health.retry_at());
        health.dial_succeeded();
        assert!(!health.is_in_doubt() && health.probe_at().is_none());
        let now = Instant::now();
        health.dial_failed(now, now, 0.5, false);
        assert!(!health.is_in_doubt(), "then it is known to be bad");
    }

    #[test]
    fn a_round_trip_moves_what_is_known_by_an_eighth() {
        let mut health = Health::new();
        health.measured(Duration::from_millis(80));
        health.measured(Duration::from_millis(160));
        assert_eq!(health.round_trip(), Some(Duration::from_millis(90)));
    }

    #[test]
    fn attempts_that_were_under_way_together_fail_as_one() {
        let begun = Instant::now();
        let (mut health, now) = (Health::new(), begun + Duration::from_millis(20));
        for _ in 0..8 {
            health.dial_failed(now, begun, 1.0, false);
        }
        assert_eq!((health.failures(), health.retry_at()), (1, Some(now + FIRST_PAUSE)));
    }

    #[test]
    fn a_bad_shard_gets_a_single_trial_once_its_pause_is_over() {
        let now = Instant::now();
        let mut health = Health::new();
        health.dial_failed(now, now, 0.5, false);
        assert!(!health.may_dial(now, 0));
        let later = health.retry_at().unwrap();
        assert!(health.may_dial(later, 0));
        assert!(!health.may_dial(later, 1));
    }

    #[test]
    fn a_proved_connection_is_replaced_at_once_and_an_accepting_and_dropping_shard_is_paused_for() {
        let now = Instant::now();
        let mut health = Health::new();
        health.lost(now, true, 1.0);
        assert_eq!(health.retry_at(), Some(now + AFTER_A_LOSS));
        for _ in 0..9 {
            health.dial_succeeded();
            health.lost(now, false, 1.0);
        }
        assert!(health.is_good());
        assert_eq!(health.retry_at(), Some(now + LONGEST_PAUSE));
    }
}
