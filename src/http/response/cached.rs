//! The answer to a read, with what it says about its copy: `ETag`, `Age` and `Cache-Status` (RFC 9211).

use std::fmt::Write;

use actix_web::HttpResponse;
use actix_web::http::header::{AGE, ETAG, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::bridge::freshness::Forward;
use crate::bridge::{self, Instance, Served, Status};
use crate::http::problem::Problem;
use crate::http::response::{rate_limit_fields, reply};
use crate::protocol::Spec;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name under which the bridge stands in `Cache-Status`.
const CACHE_NAME: &str = "concertpos-bridge";

/// What came of a read of the bridge. Only an answer that touched the budget speaks of it.
pub fn answer_to_read(
    instance: &Instance,
    spec: &Spec,
    outcome: Result<Served, bridge::Error>,
) -> Result<HttpResponse, Problem> {
    match outcome {
        Ok(served) if served.status.forward.is_none() => Ok(answer(served)),
        outcome => {
            let quota = instance.quota(spec.name);
            rate_limit_fields::add_to(outcome.map(answer).map_err(Problem::from), spec.name, Some(quota))
        }
    }
}

/// Answers a read: the reply, with what is to be said about its copy.
#[must_use]
pub fn answer(served: Served) -> HttpResponse {
    let Served { copy, status } = served;
    let age = Instant::now().saturating_duration_since(copy.written).as_secs();
    let etag = HeaderValue::from_str(&copy.etag);
    let mut response = reply::read(copy);
    let headers = response.headers_mut();
    headers.insert(AGE, if age == 0 { HeaderValue::from_static("0") } else { HeaderValue::from(age) });
    if let Ok(etag) = etag {
        headers.insert(ETAG, etag);
    }
    if let Some(status) = cache_status(&status) {
        headers.insert(CACHE_STATUS, status);
    }
    response
}

fn cache_status(status: &Status) -> Option<HeaderValue> {
    // What is never stored is most often answered so.
    if *status == (Status { forward: Some(Forward::UriMiss), ..Status::default() }) {
        return Some(HeaderValue::from_static("concertpos-bridge; fwd=uri-miss"));
    }
    // Visible ASCII.
    cache_status_text(status).try_into().ok()
}

fn cache_status_text(status: &Status) -> String {
    // Long enough for most answers.
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

    #[test]
    fn cache_status_is_a_structured_field() {
        let hit = Status { hit: true, ttl_s: Some(-3), ..Status::default() };
        assert_eq!(cache_status_text(&hit), "concertpos-bridge; hit; ttl=-3");
        let fetched = Status { forward: Some(Forward::UriMiss), stored: true, collapsed: true, ..Status::default() };
        assert_eq!(cache_status_text(&fetched), "concertpos-bridge; fwd=uri-miss; stored; collapsed");
        let old = Status { forward: Some(Forward::Stale), ttl_s: Some(-9), detail: Some("rate-limited"), ..hit };
        assert_eq!(cache_status_text(&old), "concertpos-bridge; hit; ttl=-9; fwd=stale; detail=rate-limited");
    }

    #[test]
    fn what_is_written_beforehand_is_what_would_be_written() {
        for forward in [None, Some(Forward::UriMiss), Some(Forward::Stale), Some(Forward::Request)] {
            for (stored, collapsed) in [(false, false), (true, false), (false, true)] {
                let status = Status { forward, collapsed, stored, ..Status::default() };
                assert_eq!(cache_status(&status).unwrap(), cache_status_text(&status));
            }
        }
    }
}
