//! HTTP caching: what a caller asks of copies, and what an answer says about the one it got.
//!
//! Request directives as in RFC 9111, `Cache-Status` as in RFC 9211, `RateLimit` as in the IETF draft of that name. A
//! directive that is malformed is ignored, as RFC 9111 has it.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{AGE, CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use tokio::time::Instant;

use super::answer;
use crate::bridge::freshness::Forward;
use crate::bridge::{Served, Status, Wish};
use crate::budget::Quota;

/// The name under which the bridge stands in `Cache-Status`.
const CACHE_NAME: &str = "concertpos-bridge";

/// What the request's `Cache-Control` asks for.
#[must_use]
pub fn wish(headers: &HeaderMap) -> Wish {
    let mut wish = Wish::default();
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

/// Answers a read: the reply, or 304 where the caller has it already.
#[must_use]
pub fn answer(served: Served, request: &HeaderMap, quota: Option<(&str, Quota)>) -> HttpResponse {
    let Served { copy, status } = served;
    let known = request.get_all(IF_NONE_MATCH).any(|line| line.to_str().is_ok_and(|line| matches(line, &copy.etag)));
    let age = Instant::now().saturating_duration_since(copy.written).as_secs();
    let etag = copy.etag;
    let mut response = if known {
        let mut response = HttpResponse::new(StatusCode::NOT_MODIFIED);
        set(response.headers_mut(), CACHE_CONTROL.as_str(), "private, no-cache");
        set(response.headers_mut(), VARY.as_str(), "Authorization, X-POS-Password");
        response
    } else {
        answer::read(copy.body)
    };
    let headers = response.headers_mut();
    set(headers, ETAG.as_str(), &etag);
    set(headers, AGE.as_str(), &age.to_string());
    set(headers, "cache-status", &cache_status(&status));
    if let Some((command, quota)) = quota {
        let Quota { requests, window_secs, remaining, more_in_secs } = quota;
        set(headers, "ratelimit-policy", &format!("\"{command}\";q={requests};w={window_secs}"));
        set(headers, "ratelimit", &format!("\"{command}\";r={remaining};t={more_in_secs}"));
    }
    response
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // Every value here is made of visible ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(actix_web::http::header::HeaderName::from_static(name), value);
    }
}

/// Weak comparison, as RFC 9110 (13.1.2) wants it for `If-None-Match`.
fn matches(line: &str, etag: &str) -> bool {
    line.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

fn cache_status(status: &Status) -> String {
    let mut text = CACHE_NAME.to_owned();
    if status.hit {
        text.push_str("; hit");
    }
    if let Some(ttl_s) = status.ttl_s {
        text.push_str(&["; ttl=", &ttl_s.to_string()].concat());
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

    fn asked(line: &'static str) -> Wish {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(line));
        wish(&headers)
    }

    #[test]
    fn the_directives_are_read_and_what_is_malformed_is_ignored() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked("No-Cache"), Wish { no_cache: true, ..Wish::default() });
        assert_eq!(
            asked("max-age=0, max-stale=\"60\""),
            Wish { max_age: seconds(0), max_stale: seconds(60), ..Wish::default() }
        );
        assert_eq!(asked("only-if-cached,max-stale"), Wish { only_if_cached: true, ..Wish::default() });
        assert_eq!(asked("max-age=soon, x=1"), Wish::default());
    }

    #[test]
    fn a_tag_matches_weakly_and_among_others() {
        assert!(matches("\"a\", W/\"b\"", "\"b\""));
        assert!(matches("*", "\"b\""));
        assert!(!matches("\"a\"", "\"b\""));
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
