//! What no route took: a path nobody knows, a method the path does not have, or a question about either.
//!
//! Which methods a path has is read from the OpenAPI document, so `Allow` and the document cannot disagree.

use std::collections::HashMap;

use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::PathItem;

use super::native;
use super::problem::{Problem, table};
use super::server::Shared;

/// What a path answers that the document does not list: pages and probes.
const UNLISTED: &str = "GET, HEAD, OPTIONS";

/// The methods of each path, as `Allow` spells them.
#[derive(Debug, Default)]
pub struct Methods(HashMap<String, String>);

impl Methods {
    /// Reads them out of the document.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        Self(document.paths.paths.iter().map(|(path, item)| (path.clone(), spell(item))).collect())
    }

    /// The methods of the route with this pattern.
    #[must_use]
    pub fn allow(&self, pattern: &str) -> &str {
        self.0.get(pattern).map_or(UNLISTED, String::as_str)
    }
}

fn spell(item: &PathItem) -> String {
    let known = [
        (&["GET", "HEAD"][..], item.get.is_some()),
        (&["POST"], item.post.is_some()),
        (&["PUT"], item.put.is_some()),
        (&["PATCH"], item.patch.is_some()),
        (&["DELETE"], item.delete.is_some()),
        (&["OPTIONS"], true),
    ];
    let listed: Vec<&str> = known.into_iter().filter(|(_, has)| *has).flat_map(|(names, _)| names).copied().collect();
    listed.join(", ")
}

/// Answers what no route took.
pub async fn answer(request: HttpRequest, shared: Data<Shared>) -> Result<HttpResponse, Problem> {
    let asks = request.method() == Method::OPTIONS;
    if asks && request.path() == "*" {
        return Ok(HttpResponse::NoContent().finish());
    }
    let pattern = request.resource_map().match_pattern(request.path());
    // Whatever stands at the root has the root's own pattern, which is the first of the upgrade's.
    let known = |pattern: &String| request.path() == "/" || !native::is_pattern(pattern);
    let Some(pattern) = pattern.filter(known) else {
        return Err(Problem::new(&table::NOT_FOUND));
    };
    let allow = HeaderValue::from_str(shared.methods.allow(&pattern)).map_err(|_| Problem::new(&table::NOT_FOUND))?;
    if asks {
        return Ok(HttpResponse::NoContent().insert_header((ALLOW, allow)).finish());
    }
    Err(Problem::new(&table::METHOD_NOT_ALLOWED).header(ALLOW, allow))
}
