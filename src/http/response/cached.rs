//! HTTP caching: what a caller asks of copies, and what an answer says about the one it got.
//!
//! Request directives as in RFC 9111, `Cache-Status` as in RFC 9211. A directive that is malformed is ignored, as RFC
//! 9111 has it.

use std::fmt::Write;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::bridge::freshness::Forward;
use crate::bridge::{CacheDirectives, Served, Status};
use crate::http::response::reply;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name under which the bridge stands in `Cache-Status`.
const CACHE_NAME: &str = "concertpos-bridge";

/// What the request's `Cache-Control` asks for.
#[must_use]
pub fn wish(headers: &HeaderMap) -> CacheDirectives {
    let mut wish = CacheDirectives::default();
    let lines = headers.get_all(CACHE_CONTROL).filter_map(|line| line.to_str().ok());
    for directive in lines.flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let seconds = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        match name.trim().to_ascii_lowercase().as_str() {
            "no-cache" => wish.no_cache = true,
            "max-age" => wish.max_age = seconds.or(wish.max_age),
            // Without a value any old copy is welcome, which is what no directive means here too.
            "max-stale" => wish.max_stale = seconds.or(wish.max_stale),
            "only-if-cached" => wish.only_if_cached = true,
            _ => {}
        }
    }
    wish
}

/// Answers a read: the reply, with what is to be said about its copy.
#[must_use]
pub fn answer(served: Served) -> HttpResponse {
    let Served { copy, status } = served;
    let age = Instant::now().saturating_duration_since(copy.written).as_secs();
    let etag = HeaderValue::from_str(&copy.etag);
    let mut response = reply::read(copy);
    let headers = response.headers_mut();
    headers.insert(AGE, HeaderValue::from(age));
    // Both are made of visible ASCII.
    for (name, value) in [(ETAG, etag), (CACHE_STATUS, cache_status(&status).try_into())] {
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    response
}

fn cache_status(status: &Status) -> String {
    // Room for what most answers say.
    let mut text = String::with_capacity(2 * CACHE_NAME.len() + 16);
    text.push_str(CACHE_NAME);
    if status.hit {
        text.push_str("; hit");
    }
    if let Some(ttl_s) = status.ttl_s {
        // Writing to a text cannot fail.
        let _ = write!(text, "; ttl={ttl_s}");
    }
    if let Some(forward) = status.forward {
        text.push_str(match forward {
            Forward::UriMiss => "; fwd=uri-miss",
            Forward::Stale => "; fwd=stale",
            Forward::Request => "; fwd=request",
        });
    }
    if status.stored {
        text.push_str("; stored");
    }
    if status.collapsed {
        text.push_str("; collapsed");
    }
    if let Some(detail) = status.detail {
        text.push_str("; detail=");
        text.push_str(detail);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &'static str) -> CacheDirectives {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(line));
        wish(&headers)
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

    #[test]
    fn cache_status_is_a_structured_field() {
        let hit = Status { hit: true, ttl_s: Some(-3), ..Status::default() };
        assert_eq!(cache_status(&hit), "concertpos-bridge; hit; ttl=-3");
        let fetched = Status { forward: Some(Forward::UriMiss), stored: true, collapsed: true, ..Status::default() };
        assert_eq!(cache_status(&fetched), "concertpos-bridge; fwd=uri-miss; stored; collapsed");
        let old = Status { forward: Some(Forward::Stale), ttl_s: Some(-9), detail: Some("rate-limited"), ..hit };
        assert_eq!(cache_status(&old), "concertpos-bridge; hit; ttl=-9; fwd=stale; detail=rate-limited");
    }
}
