//! The names that each route takes in its query.
//!
//! A misspelled name that is ignored gives an answer to another question: all payments instead of the unknown ones. So
//! under `/v1` an unknown name is refused. Elsewhere it is ignored: pages and probes are requested by browsers and
//! balancers that add names of their own.
//!
//! The names are those that the OpenAPI document lists, so that the two cannot disagree.

use std::collections::HashMap;

use actix_web::HttpRequest;
use actix_web::http::Method;

use super::params;
use crate::http::openapi::listed::ListedRoutes;
use crate::http::problem::{Problem, table};

/// Where names are checked.
const CHECKED: &str = "/v1/";

/// The names of each route, by its path and method.
#[derive(Debug, Default)]
pub struct QueryNames(HashMap<(String, Method), Vec<String>>);

impl QueryNames {
    /// Of what the document lists.
    #[must_use]
    pub fn of(routes: &ListedRoutes) -> Self {
        let operations = routes.0.iter().flat_map(|(path, methods)| methods.iter().map(move |one| (path, one)));
        let names = operations
            .filter_map(|(path, (method, names))| Some(((path.clone(), method.parse().ok()?), names.clone())));
        Self(names.collect())
    }

    /// Refuses a name that the route of this request does not take.
    pub fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        if request.query_string().is_empty() || !request.path().starts_with(CHECKED) {
            return Ok(());
        }
        let Some(route) = request.match_pattern() else { return Ok(()) };
        let known = self.0.get(&(route, request.method().clone())).map_or(&[][..], Vec::as_slice);
        let given = params::pairs(request)?;
        match given.iter().find(|(name, _)| !known.contains(name)) {
            Some((name, _)) => Err(unknown(name, known)),
            None => Ok(()),
        }
    }
}

fn unknown(name: &str, known: &[String]) -> Problem {
    let lower = name.to_lowercase();
    let alike = |known: &&String| strsim::jaro_winkler(&lower, known);
    let nearest = known.iter().max_by(|one, other| alike(one).total_cmp(&alike(other)));
    // Shortened and in Debug's spelling, since a query may hold anything.
    let name: String = name.chars().take(60).collect();
    Problem::new(&table::INVALID_REQUEST).detail(match nearest {
        Some(nearest) => format!("The query has no {name:?} here; the nearest known name is `{nearest}`."),
        None => format!("The query has no {name:?} here, nor any other name."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_told() {
        let known = ["state", "idempotency_key"].map(str::to_owned);
        for (name, nearest) in [("stat", "`state`"), ("idempotency-key", "`idempotency_key`"), ("State", "`state`")] {
            let problem = format!("{:?}", unknown(name, &known));
            assert!(problem.contains(nearest), "{problem}");
        }
        assert!(format!("{:?}", unknown("a", &[])).contains("nor any other"));
    }
}
