//! The fast path: reads with a fresh copy are answered before routing and the inner layers.
//!
//! Most requests of a festival are such reads, and routing and layers cost several times the copy itself. A request takes
//! the fast path only if it has a path as documented, no query, and no header field about copies, compression or origin,
//! and its copy is fresh; any other request is routed. Answers and refusals are those of the router, byte for byte: tests
//! compare the two.

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::web::Data;

use crate::http::auth::Scope;
use crate::http::auth::request::{self, Admitted};
use crate::http::problem::Problem;
use crate::http::request::integer;
use crate::http::response::cached;
use crate::http::state::AppState;
use crate::protocol::{Spec, command};
use crate::telemetry::traces;

/// Where instances are.
const INSTANCES: &str = "/v1/instances/";

/// Header fields that only the router handles.
const ROUTED_FIELDS: [&str; 9] = [
    "accept-encoding",
    "cache-control",
    "if-match",
    "origin",
    "pragma",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "x-pos-password",
];

/// A read by its path.
#[derive(Debug, PartialEq, Eq)]
struct Read<'a> {
    instance: &'a str,
    spec: &'static Spec,
    pos_id: Option<i64>,
}

/// The answer from a fresh copy, with its caller and permit, or the refusal of a caller who may not have it; `None` where
/// the request has to be routed.
pub(super) fn lookup_fresh(request: &ServiceRequest) -> Option<Result<(HttpResponse, Admitted), Problem>> {
    // Where traces are collected, each request is to have one.
    if traces::are_wanted()
        || request.method() != Method::GET
        || request.uri().query().is_some()
        || !is_plain(request.headers())
    {
        return None;
    }
    let Read { instance, spec, pos_id } = read(request.uri().path())?;
    let shared = request.app_data::<Data<AppState>>()?;
    // The CORS layer then adds fields to every answer.
    if !shared.config.cors_origins.is_empty() {
        return None;
    }
    let mut outcome = None;
    // Called only where its result decides, since it counts the request against the caller's limits.
    let admitted = || {
        let examined = request::examine(request.request());
        let permitted = examined.and_then(|admitted| admitted.caller.permit(instance, Scope::Read).map(|()| admitted));
        outcome.insert(permitted).is_ok()
    };
    let served = shared.bridge.instances().get(instance)?.lookup_fresh(spec, pos_id, admitted);
    match (served, outcome?) {
        (Some(served), Ok(admitted)) => Some(Ok((cached::answer(served), admitted))),
        (_, Err(problem)) => Some(Err(problem)),
        (None, Ok(_)) => None,
    }
}

/// Whether a request has no header field that the router has to look at.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.iter().all(|(name, value)| match name.as_str() {
        "accept" => matches!(value.as_bytes(), b"*/*" | b"application/json"),
        name => !ROUTED_FIELDS.contains(&name),
    })
}

/// The read that a path as it is documented asks for.
fn read(path: &str) -> Option<Read<'_>> {
    let below = path.strip_prefix(INSTANCES)?;
    let (instance, route) = below.split_at_checked(below.find('/')?)?;
    let (spec, pos_id) = command::find_kept_read(route)?;
    let pos_id = pos_id.map(integer::of_digits).transpose().ok()?;
    Some(Read { instance, spec, pos_id })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_paths_as_they_are_documented_are_read() {
        let products = Read { instance: "demo", spec: &command::LISTPRODUCTS, pos_id: Some(7) };
        assert_eq!(read("/v1/instances/demo/points-of-sale/7/products"), Some(products));
        assert_eq!(read("/v1/instances/demo/license").unwrap().spec.name, "getlicense");
        for path in [
            "/v1/instances/demo",
            "/v1/instances/demo/",
            "/v1/instances/demo/config/",
            "/v1/instances/demo/points-of-sale/7/transactions",
            "/v1/instances/demo/points-of-sale/-7/products",
            "/v1/instances/demo/points-of-sale/7/products/",
            "/v1/instances/demo/points-of-sale//products",
            "/v1/instances",
            "/docs",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    #[test]
    fn a_wish_goes_the_long_way() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            is_plain(&headers)
        };
        for (name, value) in [("accept", "*/*"), ("accept", "application/json"), ("if-none-match", "\"a\"")] {
            assert!(with(name, value), "{name}: {value}");
        }
        for (name, value) in [
            ("accept", "text/html"),
            ("accept-encoding", "gzip"),
            ("cache-control", "no-cache"),
            ("if-match", "\"a\""),
            ("origin", "https://shop.example"),
            ("x-pos-password", "p"),
        ] {
            assert!(!with(name, value), "{name}: {value}");
        }
    }
}
