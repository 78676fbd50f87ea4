//! The directives of a request's `Cache-Control` (RFC 9111). One that is malformed is ignored, as the RFC says.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, HeaderMap};

use crate::bridge::CacheDirectives;

#[must_use]
pub fn directives(headers: &HeaderMap) -> CacheDirectives {
    let mut directives = CacheDirectives::default();
    let lines = headers.get_all(CACHE_CONTROL).filter_map(|line| line.to_str().ok());
    for directive in lines.flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let seconds = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        match name.trim().to_ascii_lowercase().as_str() {
            "no-cache" => directives.no_cache = true,
            "max-age" => directives.max_age = seconds.or(directives.max_age),
            // Without a value any old copy will do, which is the default here.
            "max-stale" => directives.max_stale = seconds.or(directives.max_stale),
            "only-if-cached" => directives.only_if_cached = true,
            _ => {}
        }
    }
    directives
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn asked(line: &'static str) -> CacheDirectives {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(line));
        directives(&headers)
    }

    #[test]
    fn the_directives_are_read_and_what_is_malformed_is_ignored() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked("No-Cache"), CacheDirectives { no_cache: true, ..CacheDirectives::default() });
        assert_eq!(
            asked("max-age=0, max-stale=\"60\""),
            CacheDirectives { max_age: seconds(0), max_stale: seconds(60), ..CacheDirectives::default() }
        );
        assert_eq!(
            asked("only-if-cached,max-stale"),
            CacheDirectives { only_if_cached: true, ..CacheDirectives::default() }
        );
        assert_eq!(asked("max-age=soon, x=1"), CacheDirectives::default());
    }
}
