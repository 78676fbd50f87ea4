//! `Preference-Applied` (RFC 7240): which wish of the caller an answer follows.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderName, HeaderValue};

use crate::http::problem::Problem;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Says for how long the caller was ready to wait, in whole seconds.
pub fn add_wait_to(outcome: Result<HttpResponse, Problem>, wait: Duration) -> Result<HttpResponse, Problem> {
    let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs())) else { return outcome };
    match outcome {
        Ok(mut response) => {
            response.headers_mut().insert(PREFERENCE_APPLIED, value);
            Ok(response)
        }
        Err(problem) => Err(problem.header(PREFERENCE_APPLIED, value)),
    }
}
