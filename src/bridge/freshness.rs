//! Whether a copy answers a read, and with which words. Pure: standing, age and wishes in, a decision out.

use std::time::Duration;

use crate::cache::Standing;

/// What a caller asked of copies: the request directives of RFC 9111.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// `no-cache`: ask the gateway.
    pub no_cache: bool,
    /// `max-age`: nothing older.
    pub max_age: Option<Duration>,
    /// `max-stale`: nothing that is stale for longer. Absent, any old copy is welcome; zero forbids them.
    pub max_stale: Option<Duration>,
    /// `only-if-cached`: send nothing.
    pub only_if_cached: bool,
}

impl Wish {
    fn wants_newer_than(&self, age: Duration, min_age: Duration) -> bool {
        // A copy younger than min_age is as new as anybody may ask, so that a browser's reload spends nothing.
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
        /// Why.
        forward: Forward,
        /// Whether the copy may stand in.
        fallback: bool,
    },
    /// Nothing to answer with, and nothing may be sent.
    Absent,
}

/// Decides. `copy` is the standing and the age of what is there.
#[must_use]
pub fn decide(copy: Option<(Standing, Duration)>, wish: &Wish, min_age: Duration) -> Decision {
    let fetch = |forward, fallback| {
        if wish.only_if_cached { Decision::Absent } else { Decision::Fetch { forward, fallback } }
    };
    match copy {
        None | Some((Standing::Useless, _)) => fetch(Forward::UriMiss, false),
        Some((Standing::Fresh { .. }, age)) => {
            if wish.wants_newer_than(age, min_age) && !wish.only_if_cached {
                fetch(Forward::Request, true)
            } else {
                Decision::Serve
            }
        }
        Some((Standing::Aged { by }, age)) => match (wish.allows_stale(by), wish.only_if_cached) {
            (true, true) => Decision::Serve,
            (true, false) if wish.wants_newer_than(age, min_age) => fetch(Forward::Request, true),
            (true, false) => Decision::ServeAndRefresh,
            (false, _) => fetch(Forward::Stale, false),
        },
        Some((Standing::Ended { by }, _)) => match (wish.allows_stale(by), wish.only_if_cached) {
            (true, true) => Decision::Serve,
            (fallback, _) => fetch(Forward::Stale, fallback),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FRESH: Standing = Standing::Fresh { left: SECOND };
    const AGED: Standing = Standing::Aged { by: SECOND };
    const ENDED: Standing = Standing::Ended { by: Duration::ZERO };

    fn decided(standing: Standing, age_s: u32, wish: Wish) -> Decision {
        decide(Some((standing, SECOND * age_s)), &wish, SECOND * 5)
    }

    #[test]
    fn without_wishes_fresh_is_served_aged_is_served_while_refreshing_and_ended_is_replaced_first() {
        let wish = Wish::default();
        assert_eq!(decided(FRESH, 9, wish), Decision::Serve);
        assert_eq!(decided(AGED, 9, wish), Decision::ServeAndRefresh);
        assert_eq!(decided(ENDED, 9, wish), Decision::Fetch { forward: Forward::Stale, fallback: true });
        let absent = decide(None, &wish, SECOND);
        assert_eq!(absent, Decision::Fetch { forward: Forward::UriMiss, fallback: false });
    }

    #[test]
    fn a_reload_asks_the_gateway_only_once_the_copy_is_older_than_min_age() {
        for wish in
            [Wish { no_cache: true, ..Wish::default() }, Wish { max_age: Some(Duration::ZERO), ..Wish::default() }]
        {
            assert_eq!(decided(FRESH, 4, wish), Decision::Serve);
            assert_eq!(decided(FRESH, 5, wish), Decision::Fetch { forward: Forward::Request, fallback: true });
        }
    }

    #[test]
    fn a_reload_asks_past_an_aged_copy_too_and_one_of_just_the_wanted_age_will_do() {
        let reload = Wish { no_cache: true, ..Wish::default() };
        let asked = Decision::Fetch { forward: Forward::Request, fallback: true };
        assert_eq!(decided(AGED, 9, reload), asked);
        assert_eq!(decided(AGED, 4, reload), Decision::ServeAndRefresh, "younger than min_age");
        let nine_seconds = Wish { max_age: Some(SECOND * 9), ..Wish::default() };
        assert_eq!(decided(FRESH, 9, nine_seconds), Decision::Serve);
        assert_eq!(decided(FRESH, 10, nine_seconds), asked);
    }

    #[test]
    fn max_stale_zero_forbids_old_copies_and_a_bound_is_kept() {
        let none = Wish { max_stale: Some(Duration::ZERO), ..Wish::default() };
        assert_eq!(decided(AGED, 9, none), Decision::Fetch { forward: Forward::Stale, fallback: false });
        assert_eq!(decided(ENDED, 9, none), Decision::Fetch { forward: Forward::Stale, fallback: false });
        let some = Wish { max_stale: Some(SECOND), ..Wish::default() };
        assert_eq!(decided(AGED, 9, some), Decision::ServeAndRefresh);
        assert_eq!(decided(Standing::Aged { by: SECOND * 2 }, 9, some), decided(AGED, 9, none));
    }

    #[test]
    fn only_if_cached_never_sends() {
        let wish = Wish { only_if_cached: true, no_cache: true, ..Wish::default() };
        for standing in [FRESH, AGED, ENDED] {
            assert_eq!(decided(standing, 99, wish), Decision::Serve);
        }
        assert_eq!(decide(None, &wish, SECOND), Decision::Absent);
        assert_eq!(decided(AGED, 99, Wish { max_stale: Some(Duration::ZERO), ..wish }), Decision::Absent);
    }
}
