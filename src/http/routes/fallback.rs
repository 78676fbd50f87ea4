//! The answer to a request that no route took: an unknown path, a method that the path does not have, or `OPTIONS`.

use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use crate::http::problem::{Problem, table};
use crate::http::state::AppState;
use crate::http::upgrade;

/// Answers what no route took.
pub async fn answer(request: HttpRequest, state: Data<AppState>) -> Result<HttpResponse, Problem> {
    let asks = request.method() == Method::OPTIONS;
    if asks && request.path() == "*" {
        return Ok(HttpResponse::NoContent().finish());
    }
    let pattern = request.resource_map().match_pattern(request.path());
    // Whatever stands at the root has the root's own pattern, which is the first of the upgrade's.
    let known = |pattern: &String| request.path() == "/" || !upgrade::is_pattern(pattern);
    let Some(pattern) = pattern.filter(known) else {
        return Err(Problem::new(&table::NOT_FOUND));
    };
    let allow =
        HeaderValue::from_str(state.allowed_methods.allow(&pattern)).map_err(|_| Problem::new(&table::NOT_FOUND))?;
    if asks {
        return Ok(HttpResponse::NoContent().insert_header((ALLOW, allow)).finish());
    }
    Err(Problem::new(&table::METHOD_NOT_ALLOWED).header(ALLOW, allow))
}
