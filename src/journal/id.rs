//! A payment's id in the bridge.
//!
//! It is the bridge's own and says nothing about the caller or the sale, since it stands in URLs and logs. Listings and
//! their cursors go by it, so within one journal a later payment always has the greater id: [`Ids`] takes the time from
//! the wall clock while that moves forward, and counts on from the newest id while it does not.

use std::fmt;
use std::str::FromStr;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A payment's id in the bridge: a version 7 UUID. Ids of one journal are in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordId(Uuid);

impl RecordId {
    /// A unique id, by the machine's clock alone.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as a number that sorts as its text does.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The time in the id, in milliseconds since the epoch. Not before the payment was made, but for a clock read twice.
    pub(super) fn time_ms(self) -> i64 {
        i64::try_from(self.as_u128() >> TIME_SHIFT).unwrap_or(i64::MAX)
    }

    /// The greatest id whose time is before `ms`.
    pub(super) fn last_before(ms: i64) -> Self {
        let ms = u128::try_from(ms).unwrap_or_default().min(MAX_TIME_MS);
        Self::from((ms << TIME_SHIFT).saturating_sub(1))
    }
}

/// Where a version 7 UUID (RFC 9562) has its time, of 48 bits; the other bits count up, but for version and variant.
const TIME_SHIFT: u32 = 80;
const MAX_TIME_MS: u128 = (1 << 48) - 1;
const VERSION: u128 = 0x7 << 76;
const VARIANT: u128 = 0b10 << 62;
const HIGH_BITS: u32 = 12;
const LOW_BITS: u32 = 62;
const TAIL_BITS: u32 = HIGH_BITS + LOW_BITS;

/// Makes the ids of one journal.
#[derive(Debug)]
pub(super) struct Ids {
    last: Mutex<u128>,
}

impl Ids {
    /// Goes on from the newest id of the journal.
    pub(super) fn after(newest: Option<RecordId>) -> Self {
        Self { last: Mutex::new(newest.map_or(0, |id| counter(id.as_u128()))) }
    }

    /// An id greater than every one before it, made at `wall_ms` by a clock that may have stepped back.
    pub(super) fn next(&self, wall_ms: i64) -> RecordId {
        let mut last = self.last.lock();
        let now = u128::try_from(wall_ms).unwrap_or_default().min(MAX_TIME_MS);
        let by_clock = (now << TAIL_BITS) | (fastrand::u128(..) >> (u128::BITS - TAIL_BITS));
        // A random step, so that one id does not tell the next.
        let by_count = last.saturating_add(1 + u128::from(fastrand::u32(..)));
        *last = if by_clock > *last { by_clock } else { by_count };
        id(*last)
    }
}

/// The bits of an id that count, as one number: 48 of time and 74 more.
fn counter(id: u128) -> u128 {
    let (time, high, low) = (id >> TIME_SHIFT, (id >> 64) & ((1 << HIGH_BITS) - 1), id & ((1 << LOW_BITS) - 1));
    (time << TAIL_BITS) | (high << LOW_BITS) | low
}

/// The id whose counting bits these are.
fn id(counter: u128) -> RecordId {
    let (time, high, low) =
        (counter >> TAIL_BITS, (counter >> LOW_BITS) & ((1 << HIGH_BITS) - 1), counter & ((1 << LOW_BITS) - 1));
    RecordId::from((time << TIME_SHIFT) | VERSION | (high << 64) | VARIANT | low)
}

impl From<u128> for RecordId {
    fn from(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl From<RecordId> for String {
    fn from(id: RecordId) -> Self {
        id.to_string()
    }
}

impl FromStr for RecordId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for RecordId {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_number() {
        let id = RecordId::fresh();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(RecordId::from(id.as_u128()), id);
    }

    #[test]
    fn an_id_is_a_version_7_uuid_of_its_time() {
        let made = Ids::after(None).next(1_767_225_600_000);
        assert_eq!((made.0.get_version_num(), made.0.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(made.time_ms(), 1_767_225_600_000);
        let standard = RecordId::fresh();
        assert_eq!(id(counter(standard.as_u128())), standard);
    }

    proptest! {
        #[test]
        fn ids_grow_whatever_the_clock_does_and_over_restarts(
            times in prop::collection::vec((0..100_000i64, any::<bool>()), 1..50),
        ) {
            let mut ids = Ids::after(None);
            let mut newest: Option<RecordId> = None;
            for (wall_ms, restarts) in times {
                if restarts {
                    ids = Ids::after(newest);
                }
                let next = ids.next(wall_ms);
                prop_assert!(newest.is_none_or(|newest| newest < next && newest.as_u128() < next.as_u128()));
                prop_assert!(next.time_ms() >= wall_ms);
                newest = Some(next);
            }
        }

        #[test]
        fn the_last_id_before_a_time_parts_the_ids(wall_ms in 1..100_000i64, ms in 1..100_000i64) {
            let made = Ids::after(None).next(wall_ms);
            prop_assert_eq!(made <= RecordId::last_before(ms), wall_ms < ms);
        }
    }
}
