//! Metrics of requests: by route and status, and how long the answer took. A few atomic operations a request.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;

use crate::http::openapi::listed::ListedRoutes;
use crate::http::route_patterns::{Patterns, UNMATCHED};
use crate::telemetry::metrics::{Families, Histogram};

/// Routes that the document does not list: probes, pages, and what serves the document itself.
const UNLISTED: [&str; 11] = [
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/openapi-3.2.json",
    "/asyncapi.json",
    "/docs",
    "/docs/*",
    "/problems",
    "/problems/{code}",
];

/// Every status that the bridge answers with; others are counted as 0.
const STATUSES: [u16; 28] = [
    0, 101, 200, 201, 204, 206, 304, 308, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415, 422, 429, 431, 500,
    501, 502, 503, 504, 505,
];

/// The answers of one route. Its series begin with its first request, each status's with its first answer.
#[derive(Debug)]
struct Route {
    statuses: [OnceLock<Counter>; STATUSES.len()],
    /// From the request's head to the answer's head.
    durations: OnceLock<Box<Histogram>>,
}

/// The answers of all routes.
#[derive(Debug)]
pub struct Metrics {
    patterns: Patterns,
    routes: Vec<Route>,
}

impl Metrics {
    /// For the routes of the document and those it does not list.
    #[must_use]
    pub fn of(routes: &ListedRoutes) -> Self {
        let patterns = Patterns::new(routes.0.keys().map(String::as_str).chain(UNLISTED));
        let route = |_| Route { statuses: [const { OnceLock::new() }; STATUSES.len()], durations: OnceLock::new() };
        let routes = patterns.names().map(route).collect();
        Self { patterns, routes }
    }

    /// A request was answered. Returns the pattern of its route.
    pub fn answered(&self, path: &str, status: u16, took: Duration) -> &str {
        let index = self.patterns.find(path);
        let Some(route) = self.routes.get(index) else { return UNMATCHED };
        let known = STATUSES.iter().position(|known| *known == status).unwrap_or(0);
        if let Some(counter) = route.statuses.get(known) {
            counter.get_or_init(Counter::default).inc();
        }
        route.durations.get_or_init(Box::default).record(took);
        self.patterns.name(index)
    }

    /// Shows the routes that were asked for.
    pub fn encode(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes = || self.patterns.names().zip(&self.routes);
        let mut family = page.counter("requests", "Requests answered, by route and status.")?;
        for (pattern, route) in routes() {
            for (status, counter) in STATUSES.iter().zip(&route.statuses) {
                if let Some(counter) = counter.get() {
                    counter.encode(family.encode_family(&([("route", pattern)], [("status", *status)]))?)?;
                }
            }
        }
        let mut family = page.histogram("request_duration_seconds", "From a request's head to its answer's head.")?;
        for (pattern, route) in routes() {
            if let Some(durations) = route.durations.get() {
                durations.encode(family.encode_family(&[("route", pattern)])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::web::Data;

    use super::*;
    use crate::http::testing::{auth, bridge};
    use crate::http::{Config, openapi, server};

    #[actix_web::test]
    async fn a_request_is_counted_under_the_route_that_the_router_finds() {
        let shared = Data::new(server::state(bridge(), auth(), Config::default()));
        let app = init_service(server::app(shared.clone())).await;
        let document = openapi::document();
        let patterns: Vec<&str> = document.paths.paths.keys().map(String::as_str).chain(UNLISTED).collect();
        for pattern in patterns.iter().filter(|pattern| **pattern != "/") {
            let path: Vec<&str> = pattern
                .split('/')
                .map(|segment| if segment.starts_with('{') || segment == "*" { "some" } else { segment })
                .collect();
            let response = call_service(&app, TestRequest::get().uri(&path.join("/")).to_request()).await;
            let found = response.request().match_pattern().unwrap_or_default();
            let counted = shared.metrics.patterns.names().nth(shared.metrics.patterns.find(response.request().path()));
            assert_eq!(counted, Some(*pattern));
            assert_eq!(found.replace("{_:.*}", "*"), *pattern, "{found}");
        }
    }
}
