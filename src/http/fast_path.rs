//! The fast path: plain reads are answered before routing and the inner layers.
//!
//! Most requests of a festival are such reads, and routing and layers cost several times the copy itself. A request takes
//! the fast path only if it has a path as documented, at most one number in its query, and no header field about copies,
//! compression or origin; any other request is routed. Which reads there are, and which of them take a number, is derived
//! from the table of commands. Answers and refusals are those of the router, byte for byte: tests compare the two.

use std::ops::ControlFlow::{self, Break, Continue};

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpResponse};
use tokio::time::Instant;

use crate::bridge::CacheDirectives;
use crate::http::auth::Scope;
use crate::http::auth::request::{self, Admitted};
use crate::http::problem::Problem;
use crate::http::request::integer;
use crate::http::response::cached;
use crate::http::route_patterns::INSTANCES;
use crate::http::state::AppState;
use crate::protocol::command::{self, POSID, Parameter, ParameterKind};
use crate::protocol::{Parameters, Spec};
use crate::telemetry::traces;

/// A read by its path and query.
#[derive(Debug, PartialEq, Eq)]
struct Read<'a> {
    instance: &'a str,
    spec: &'static Spec,
    pos_id: Option<i64>,
    count: Option<(&'static Parameter, i64)>,
}

/// A request that may take the fast path.
pub(super) struct FastPath<'a> {
    request: &'a ServiceRequest,
    state: &'a AppState,
    read: Read<'a>,
}

/// An answer, or why there is none, and the caller, where it is known.
pub(super) type Outcome = (Result<HttpResponse, Problem>, Option<Admitted>);

impl<'a> FastPath<'a> {
    /// `None` where the request has to be routed.
    pub(super) fn of(request: &'a ServiceRequest) -> Option<Self> {
        // Where traces are collected, each request is to have one.
        if traces::are_wanted() || request.method() != Method::GET || !is_plain(request.headers()) {
            return None;
        }
        let read = read(request.uri().path(), request.uri().query())?;
        let state = request.app_data::<Data<AppState>>()?;
        // The CORS layer then adds fields to every answer.
        state.config.cors_origins.is_empty().then_some(Self { request, state, read })
    }

    /// The answer from a fresh copy, or the refusal of a caller who may not have it; `None` where there is no such copy.
    pub(super) fn answer_fresh(&self) -> Option<Outcome> {
        let Read { instance, spec, pos_id, count: None } = self.read else { return None };
        let mut caller = None;
        // Called only where its result decides, since it counts the request against the caller's limits.
        let admitted = || caller.insert(self.admitted()).is_continue();
        let served = self.state.bridge.instances().get(instance)?.lookup_fresh(spec, pos_id, admitted);
        match (served, caller?) {
            (Some(served), Continue(admitted)) => Some((Ok(cached::answer(served)), Some(admitted))),
            (_, Break(refused)) => Some(refused),
            (None, Continue(_)) => None,
        }
    }

    /// The answer by way of the gateway, or from a copy that is not fresh; `None` where there is no such instance.
    pub(super) async fn answer(&self, arrival: Instant) -> Option<Outcome> {
        let instance = self.state.bridge.instance(self.read.instance).ok()?;
        let admitted = match self.admitted() {
            Continue(admitted) => admitted,
            Break(refused) => return Some(refused),
        };
        let Read { spec, pos_id, count, .. } = self.read;
        let mut parameters = Parameters::default();
        if let Some(pos_id) = pos_id {
            parameters = parameters.with(POSID.name, &pos_id);
        }
        if let Some((parameter, count)) = count {
            parameters = parameters.with(parameter.name, &count);
        }
        let (turn, deadline) = (admitted.caller.name(), arrival + self.state.config.deadline);
        let outcome = instance.read(spec, parameters, turn, CacheDirectives::default(), deadline).await;
        Some((cached::answer_to_read(&instance, spec, outcome), Some(admitted)))
    }

    /// The caller, or the refusal.
    fn admitted(&self) -> ControlFlow<Outcome, Admitted> {
        let admitted = match request::examine(self.request.request()) {
            Ok(admitted) => admitted,
            // A caller over its limits was left with the request.
            Err(problem) => return Break((Err(problem), self.request.extensions_mut().remove())),
        };
        match admitted.caller.permit(self.read.instance, Scope::Read) {
            Ok(()) => Continue(admitted),
            Err(problem) => Break((Err(problem), Some(admitted))),
        }
    }
}

/// Whether a request has no header field that only the router handles.
fn is_plain(headers: &HeaderMap) -> bool {
    headers.iter().all(|(name, value)| match name.as_str() {
        "accept" => matches!(value.as_bytes(), b"*/*" | b"application/json"),
        "accept-encoding" | "cache-control" | "if-match" | "origin" | "pragma" | "prefer" | "traceparent"
        | "transfer-encoding" | "upgrade" | "x-pos-password" => false,
        _ => true,
    })
}

/// The read that a path and a query as they are documented ask for.
fn read<'a>(path: &'a str, query: Option<&str>) -> Option<Read<'a>> {
    let below = path.strip_prefix(INSTANCES)?;
    let (instance, route) = below.split_at_checked(below.find('/')?)?;
    let (spec, pos_id) = command::find_read(route)?;
    let pos_id = pos_id.map(integer::of_digits).transpose().ok()?;
    let count = query.map(|query| count(spec, query).ok_or(())).transpose().ok()?;
    Some(Read { instance, spec, pos_id, count })
}

/// The one number that a query gives for a command, by the name of a parameter that is a count.
fn count(spec: &'static Spec, query: &str) -> Option<(&'static Parameter, i64)> {
    let (name, value) = query.split_once('=')?;
    let is_it = |parameter: &&Parameter| parameter.kind == ParameterKind::Count && parameter.rest_name == name;
    let parameter = spec.parameters.iter().find(is_it)?;
    let value = integer::of_digits(value).ok().filter(|count| *count > 0)?;
    Some((parameter, value))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn only_paths_as_they_are_documented_are_read() {
        let products = Read { instance: "demo", spec: &command::LISTPRODUCTS, pos_id: Some(7), count: None };
        assert_eq!(read("/v1/instances/demo/points-of-sale/7/products", None), Some(products));
        assert_eq!(read("/v1/instances/demo/license", None).unwrap().spec.name, "getlicense");
        for path in [
            "/v1/instances/demo",
            "/v1/instances/demo/",
            "/v1/instances/demo/config/",
            "/v1/instances/demo/points-of-sale/7/payments",
            "/v1/instances/demo/points-of-sale/-7/products",
            "/v1/instances/demo/points-of-sale/7/products/",
            "/v1/instances/demo/points-of-sale//products",
            "/v1/instances",
            "/docs",
        ] {
            assert_eq!(read(path, None), None, "{path}");
        }
    }

    #[test]
    fn a_query_is_read_only_where_it_is_one_count_that_the_command_has() {
        let path = |route| format!("/v1/instances/demo/points-of-sale/7/{route}");
        let count = |route, query| read(&path(route), Some(query)).map(|read| read.count.map(|(_, value)| value));
        assert_eq!(count("transactions", "limit=12"), Some(Some(12)));
        for query in ["", "limit", "limit=", "limit=0", "limit=01", "limit=-1", "limit=1&limit=2", "l%69mit=1", "x=1"] {
            assert_eq!(count("transactions", query), None, "{query}");
        }
        assert_eq!(count("products", "limit=12"), None);
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
            ("prefer", "wait=5"),
            ("x-pos-password", "p"),
        ] {
            assert!(!with(name, value), "{name}: {value}");
        }
    }
}
