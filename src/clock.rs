//! Readings of the wall clock and durations in whole units, for every room.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The `Retry-After` of a refusal where nothing says how long its cause will last.
pub const RETRY_SHORTLY: Duration = Duration::from_secs(1);

/// The wall clock, as the time since 1970; zero where it is set before that. May step in either direction.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970 by the wall clock.
#[must_use]
pub fn unix_ms() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

/// What the wall clock would have shown at an earlier instant, if it had not been changed since.
#[must_use]
pub fn unix_ms_at(instant: Instant) -> i64 {
    let age = Instant::now().saturating_duration_since(instant);
    unix_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Whole milliseconds, rounded down.
#[must_use]
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds, rounded down.
#[must_use]
pub fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up, so that a caller who waits that long does not come too early.
#[must_use]
pub fn secs_up(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_counts_as_a_whole_one() {
        let rounded = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(2), Duration::MAX].map(secs_up);
        assert_eq!(rounded, [0, 1, 2, u64::MAX]);
    }
}
