//! The short way to a fresh copy: reads that need neither the gateway nor any layer are answered before routing.
//!
//! Most requests a festival makes are reads whose answer is at hand, and what they cost is this program's routing and
//! layers, several times the copy itself. A request takes this way only if it is of the plainest kind (a path as it is
//! documented, no query, no wish about copies, compression, or origin) and its copy is fresh; whatever else it is, it
//! goes the long way, where the same rules decide. Answers and refusals of this way are the long way's to the byte: tests
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

/// Fields whose presence means a wish that the long way has to look at.
const WISHES: [&str; 9] = [
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

/// The answer where a fresh copy has it, with its caller and its place, or the refusal of whoever may not have it; nothing
/// where there is no such copy.
pub(super) fn lookup_fresh(request: &ServiceRequest) -> Option<Result<(HttpResponse, Admitted), Problem>> {
    // A trace is of what happens, and on this way next to nothing does; but whoever wants one gets it.
    if traces::are_wanted()
        || request.method() != Method::GET
        || request.uri().query().is_some()
        || !is_plain(request.headers())
    {
        return None;
    }
    let Read { instance, spec, pos_id } = read(request.uri().path())?;
    let shared = request.app_data::<Data<AppState>>()?;
    // Every answer of the long way then says who may read it.
    if !shared.config.cors_origins.is_empty() {
        return None;
    }
    let mut outcome = None;
    // Asked only where it decides, since it counts: a caller is counted once, on the one way or on the other.
    let admitted = || {
        let examined = request::examine(request.request());
        let permitted = examined.and_then(|admitted| admitted.caller.permit(instance, Scope::Read).map(|()| admitted));
        outcome.insert(permitted).is_ok()
    };
    let served = shared.bridge.instance(instance).ok()?.lookup_fresh(spec, pos_id, admitted);
    match (served, outcome?) {
        (Some(served), Ok(admitted)) => Some(Ok((cached::answer(served), admitted))),
        (_, Err(problem)) => Some(Err(problem)),
        (None, Ok(_)) => None,
    }
}

/// Whether a request wishes for nothing but the answer.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.iter().all(|(name, value)| match name.as_str() {
        "accept" => matches!(value.as_bytes(), b"*/*" | b"application/json"),
        name => !WISHES.contains(&name),
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
