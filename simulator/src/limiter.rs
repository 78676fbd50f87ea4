//! The gateway's rate limit: an exact sliding window, counted when a command arrives.
//!
//! Exact, because a client that claims to stay under the limit has to be held to it: not a bucket that lets twice the
//! capacity through, nor one that refuses early. A refused request is not counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::commands::Verb;
use super::config::{Counting, Limits};

/// What was counted lately. A request counted at `t` weighs until just before `t + length`.
#[derive(Debug, Default)]
struct Window {
    counted: VecDeque<(Instant, u32)>,
    sum: u32,
}

impl Window {
    /// Counts a request of `cost` points, or says how long until it would fit.
    fn admit(&mut self, now: Instant, cost: u32, capacity: u32, length: Duration) -> Result<(), Duration> {
        while let Some((at, points)) = self.counted.front().copied() {
            if now.duration_since(at) < length {
                break;
            }
            self.counted.pop_front();
            self.sum -= points;
        }
        let room = capacity.saturating_sub(self.sum);
        if cost <= room {
            if cost > 0 {
                self.counted.push_back((now, cost));
                self.sum += cost;
            }
            return Ok(());
        }
        let mut missing = cost - room;
        for (at, points) in &self.counted {
            if *points >= missing {
                return Err(length.saturating_sub(now.duration_since(*at)));
            }
            missing -= points;
        }
        // It costs more than the capacity and will never fit.
        Err(length)
    }
}

/// The windows of every instance and, where counted so, command.
pub(super) struct Limiter {
    limits: Limits,
    windows: Mutex<HashMap<(usize, Option<Verb>), Window>>,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, windows: Mutex::default() }
    }

    /// Counts one request of `instance` arriving at `now` and returns its points, or says how long to wait.
    pub(super) fn admit(&self, instance: usize, verb: Verb, now: Instant) -> Result<u32, Duration> {
        let cost = self.limits.cost(verb);
        let counter = match self.limits.counting {
            Counting::Off => return Ok(cost),
            Counting::PerCommand => (instance, Some(verb)),
            Counting::PerInstance => (instance, None),
        };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(counter).or_default();
        window.admit(now, cost, self.limits.capacity, self.limits.window).map(|()| cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    #[test]
    fn a_window_takes_exactly_its_capacity_and_says_when_there_is_room() {
        let (mut window, start) = (Window::default(), Instant::now());
        for second in 0..4 {
            assert_eq!(window.admit(start + Duration::from_secs(second), 25, 100, LENGTH), Ok(()));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!(window.admit(now, 25, 100, LENGTH), Err(Duration::from_secs(20)));
        assert_eq!(window.admit(now, 26, 100, LENGTH), Err(Duration::from_secs(21)));
        let nearly = start + Duration::from_nanos(29_999_999_999);
        assert_eq!(window.admit(nearly, 1, 100, LENGTH), Err(Duration::from_nanos(1)));
        assert_eq!(window.admit(start + LENGTH, 25, 100, LENGTH), Ok(()));
        assert_eq!(window.admit(start + LENGTH, 1, 100, LENGTH), Err(Duration::from_secs(1)));
    }

    #[test]
    fn what_can_never_fit_waits_a_whole_window() {
        let (mut window, now) = (Window::default(), Instant::now());
        assert_eq!(window.admit(now, 101, 100, LENGTH), Err(LENGTH));
        assert_eq!(window.admit(now, 100, 100, LENGTH), Ok(()));
    }

    #[test]
    fn counters_are_shared_only_as_far_as_was_chosen() {
        let now = Instant::now();
        let limiter = |counting| Limiter::new(Limits { capacity: 50, ..Limits::new(counting) });
        let per_command = limiter(Counting::PerCommand);
        assert_eq!(per_command.admit(0, Verb::Version, now), Ok(50));
        assert!(per_command.admit(0, Verb::Version, now).is_err());
        assert_eq!(per_command.admit(0, Verb::GetConfig, now), Ok(25));
        assert_eq!(per_command.admit(1, Verb::Version, now), Ok(50));
        let per_instance = limiter(Counting::PerInstance);
        assert_eq!(per_instance.admit(0, Verb::Version, now), Ok(50));
        assert!(per_instance.admit(0, Verb::GetConfig, now).is_err());
        let off = limiter(Counting::Off);
        assert!((0..100).all(|_| off.admit(0, Verb::Version, now) == Ok(50)));
    }

    proptest::proptest! {
        #[test]
        fn no_window_ever_holds_more_than_the_capacity_and_no_room_is_refused(
            requests in proptest::collection::vec((0_u64..20_000, 1_u32..40), 1..80)
        ) {
            let (mut window, start, mut at) = (Window::default(), Instant::now(), Duration::ZERO);
            let mut admitted: Vec<(Duration, u32)> = Vec::new();
            for (pause, cost) in requests {
                at += Duration::from_millis(pause);
                let sum_at = |then: Duration, admitted: &[(Duration, u32)]| -> u32 {
                    admitted.iter().filter(|(made, _)| then < *made + LENGTH).map(|(_, points)| points).sum()
                };
                match window.admit(start + at, cost, 100, LENGTH) {
                    Ok(()) => admitted.push((at, cost)),
                    Err(wait) => {
                        proptest::prop_assert!(sum_at(at, &admitted) + cost > 100);
                        proptest::prop_assert!(sum_at(at + wait, &admitted) + cost <= 100);
                        proptest::prop_assert!(sum_at(at + wait.saturating_sub(Duration::from_nanos(1)), &admitted) + cost > 100);
                    }
                }
                proptest::prop_assert!(sum_at(at, &admitted) <= 100);
            }
        }
    }
}
