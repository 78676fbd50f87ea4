//! Whether a copy answers a read, under the request's cache directives. Pure: freshness, age and directives in, a decision out.

use std::time::Duration;

use crate::cache::Freshness;

/// What a caller asked of copies: the request directives of RFC 9111.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheDirectives {
    /// `no-cache`: ask the gateway.
    pub no_cache: bool,
    /// `max-age`: nothing older.
    pub max_age: Option<Duration>,
    /// `max-stale`: nothing that is stale for longer. Absent, any old copy is welcome; zero forbids them.
    pub max_stale: Option<Duration>,
    /// `only-if-cached`: send nothing.
    pub only_if_cached: bool,
}

impl CacheDirectives {
    fn wants_newer_than(&self, age: Duration, min_age: Duration) -> bool {
        // A copy younger than min_age answers even `no-cache`, so that a browser's reload spends nothing.
        age >= min_age && (self.no_cache || self.max_age.is_some_and(|most| age > most))
    }

    fn allows_stale(&self, by: Duration) -> bool {
        self.max_stale.is_none_or(|most| !most.is_zero() && by <= most)
    }
}

/// Why a request went forward, in the words of RFC 9211.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// No copy.
    UriMiss,
    /// The copy was stale.
    Stale,
    /// The request asked for it.
    Request,
}

/// What to do about a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer with the copy.
    Serve,
    /// Answer with the copy and fetch a new one behind it.
    ServeAndRefresh,
    /// Fetch, and where that fails for a reason that leaves the copy true, answer with the copy if `fallback`.
    Fetch {
        forward: Forward,
        /// Whether the copy may stand in.
        fallback: bool,
    },
    /// Nothing to answer with, and nothing may be sent.
    Absent,
}

/// Decides. `copy` is the freshness and the age of what is there.
#[must_use]
pub fn decide(copy: Option<(Freshness, Duration)>, directives: &CacheDirectives, min_age: Duration) -> Decision {
    let fetch = |forward, fallback| {
        if directives.only_if_cached { Decision::Absent } else { Decision::Fetch { forward, fallback } }
    };
    match copy {
        None | Some((Freshness::Expired, _)) => fetch(Forward::UriMiss, false),
        Some((Freshness::Fresh { .. }, age)) => {
            if directives.wants_newer_than(age, min_age) && !directives.only_if_cached {
                fetch(Forward::Request, true)
            } else {
                Decision::Serve
            }
        }
        Some((Freshness::Stale { by }, age)) => match (directives.allows_stale(by), directives.only_if_cached) {
            (true, true) => Decision::Serve,
            (true, false) if directives.wants_newer_than(age, min_age) => fetch(Forward::Request, true),
            (true, false) => Decision::ServeAndRefresh,
            (false, _) => fetch(Forward::Stale, false),
        },
        Some((Freshness::Invalidated { by }, _)) => match (directives.allows_stale(by), directives.only_if_cached) {
            (true, true) => Decision::Serve,
            (fallback, _) => fetch(Forward::Stale, fallback),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FRESH: Freshness = Freshness::Fresh { left: SECOND };
    const AGED: Freshness = Freshness::Stale { by: SECOND };
    const ENDED: Freshness = Freshness::Invalidated { by: Duration::ZERO };

    fn decided(freshness: Freshness, age_s: u32, directives: CacheDirectives) -> Decision {
        decide(Some((freshness, SECOND * age_s)), &directives, SECOND * 5)
    }

    #[test]
    fn without_wishes_fresh_is_served_aged_is_served_while_refreshing_and_ended_is_replaced_first() {
        let directives = CacheDirectives::default();
        assert_eq!(decided(FRESH, 9, directives), Decision::Serve);
        assert_eq!(decided(AGED, 9, directives), Decision::ServeAndRefresh);
        assert_eq!(decided(ENDED, 9, directives), Decision::Fetch { forward: Forward::Stale, fallback: true });
        let absent = decide(None, &directives, SECOND);
        assert_eq!(absent, Decision::Fetch { forward: Forward::UriMiss, fallback: false });
    }

    #[test]
    fn a_reload_asks_the_gateway_only_once_the_copy_is_older_than_min_age() {
        for directives in [
            CacheDirectives { no_cache: true, ..CacheDirectives::default() },
            CacheDirectives { max_age: Some(Duration::ZERO), ..CacheDirectives::default() },
        ] {
            assert_eq!(decided(FRESH, 4, directives), Decision::Serve);
            assert_eq!(decided(FRESH, 5, directives), Decision::Fetch { forward: Forward::Request, fallback: true });
        }
    }

    #[test]
    fn a_reload_asks_past_an_aged_copy_too_and_one_of_just_the_wanted_age_will_do() {
        let reload = CacheDirectives { no_cache: true, ..CacheDirectives::default() };
        let asked = Decision::Fetch { forward: Forward::Request, fallback: true };
        assert_eq!(decided(AGED, 9, reload), asked);
        assert_eq!(decided(AGED, 4, reload), Decision::ServeAndRefresh, "younger than min_age");
        let nine_seconds = CacheDirectives { max_age: Some(SECOND * 9), ..CacheDirectives::default() };
        assert_eq!(decided(FRESH, 9, nine_seconds), Decision::Serve);
        assert_eq!(decided(FRESH, 10, nine_seconds), asked);
    }

    #[test]
    fn max_stale_zero_forbids_old_copies_and_a_bound_is_kept() {
        let none = CacheDirectives { max_stale: Some(Duration::ZERO), ..CacheDirectives::default() };
        assert_eq!(decided(AGED, 9, none), Decision::Fetch { forward: Forward::Stale, fallback: false });
        assert_eq!(decided(ENDED, 9, none), Decision::Fetch { forward: Forward::Stale, fallback: false });
        let some = CacheDirectives { max_stale: Some(SECOND), ..CacheDirectives::default() };
        assert_eq!(decided(AGED, 9, some), Decision::ServeAndRefresh);
        assert_eq!(decided(Freshness::Stale { by: SECOND * 2 }, 9, some), decided(AGED, 9, none));
    }

    #[test]
    fn only_if_cached_never_sends() {
        let directives = CacheDirectives { only_if_cached: true, no_cache: true, ..CacheDirectives::default() };
        for freshness in [FRESH, AGED, ENDED] {
            assert_eq!(decided(freshness, 99, directives), Decision::Serve);
        }
        assert_eq!(decide(None, &directives, SECOND), Decision::Absent);
        assert_eq!(
            decided(AGED, 99, CacheDirectives { max_stale: Some(Duration::ZERO), ..directives }),
            Decision::Absent
        );
    }
}
