//! What the edge counts of every request: by route and status, and how long the answer took. A few atomic operations a
//! request; what they add up to is written out only when somebody asks.

use std::time::Duration;

use utoipa::openapi::OpenApi;

use crate::http::route_patterns::{Patterns, UNMATCHED};
use crate::telemetry::meter::{Counter, Durations};

/// Routes that the document does not list: probes, pages, and what serves the document itself.
const UNLISTED: [&str; 9] =
    ["/", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/*", "/problems", "/problems/{code}"];

/// Every status that the bridge answers with; others are counted as 0.
const STATUSES: [u16; 28] = [
    0, 101, 200, 201, 204, 206, 304, 308, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415, 422, 429, 431, 500,
    501, 502, 503, 504, 505,
];

/// The answers of one route.
#[derive(Debug, Default)]
pub struct Route {
    statuses: [Counter; STATUSES.len()],
    /// From the arrival of the head to the answer's head.
    pub durations: Durations,
}

impl Route {
    /// How many were answered with each status, those that never were left out.
    pub fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = STATUSES.into_iter().zip(self.statuses.iter().map(Counter::get));
        counts.filter(|(_, count)| *count > 0)
    }
}

/// The answers of all routes.
#[derive(Debug)]
pub struct Tally {
    patterns: Patterns,
    routes: Vec<Route>,
}

impl Tally {
    /// Nothing counted yet, for the routes of the document and those it does not list.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let patterns = Patterns::new(document.paths.paths.keys().map(String::as_str).chain(UNLISTED));
        let routes = patterns.names().map(|_| Route::default()).collect();
        Self { patterns, routes }
    }

    /// A request was answered. Returns the pattern of its route.
    pub fn answered(&self, path: &str, status: u16, took: Duration) -> &str {
        let at = self.patterns.find(path);
        let Some(route) = self.routes.get(at) else { return UNMATCHED };
        let index = STATUSES.iter().position(|known| *known == status).unwrap_or(0);
        if let Some(counter) = route.statuses.get(index) {
            counter.count();
        }
        route.durations.note(took);
        self.patterns.name(at)
    }

    /// The routes that were asked for, by pattern.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.patterns.names().zip(&self.routes).filter(|(_, route)| route.statuses().next().is_some())
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
            let counted = shared.tally.patterns.names().nth(shared.tally.patterns.find(response.request().path()));
            assert_eq!(counted, Some(*pattern));
            assert_eq!(found.replace("{_:.*}", "*"), *pattern, "{found}");
        }
    }
}
