//! A problem as it is answered: RFC 9457, with the members of this bridge.
//!
//! A problem is made deep in a handler, where neither the request's id nor the public address is known. It therefore
//! travels as an error value, and a middleware writes it out by [`Problem::render`]. Callers see all that a problem holds,
//! so what is only for the log never enters it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use super::code::ProblemCode;
use super::proxy_error::ProxyError;
use super::proxy_status::{self, PROXY_STATUS};
use super::table::Entry;
use crate::clock::secs_up;
use crate::http::views::spelled::ErrorCode;
use crate::protocol::GatewayError;

/// The media type of every error answer.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One fault in the request's body and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct FieldError {
    /// A JSON Pointer (RFC 6901) into the request's body.
    #[schema(examples("/Products/0/Amount"))]
    pub pointer: String,
    /// What is wrong there.
    #[schema(examples("must not be negative"))]
    pub detail: String,
}

impl FieldError {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// In the extensions of an answer: nothing was begun here, and another replica may do what was asked.
#[derive(Debug, Clone, Copy)]
struct NotBegun;

/// Whether an answer says that nothing was begun here, and that another replica may do what was asked.
pub(crate) fn is_not_begun<B>(answer: &HttpResponse<B>) -> bool {
    answer.extensions().get::<NotBegun>().is_some()
}

/// Why a request was not answered as asked. Cheap to move.
#[derive(Debug, Clone)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    entry: &'static Entry,
    detail: Cow<'static, str>,
    retryable: bool,
    retry_after: Option<u64>,
    errors: Vec<FieldError>,
    gateway: Option<GatewayError>,
    proxy_error: ProxyError,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of the table; its detail is the row's explanation until [`Self::detail`] says more.
    #[must_use]
    pub fn new(entry: &'static Entry) -> Self {
        Self(Box::new(Parts {
            entry,
            detail: Cow::Borrowed(entry.explanation),
            retryable: entry.retryable,
            retry_after: None,
            errors: Vec::new(),
            gateway: None,
            proxy_error: entry.proxy_error,
            headers: Vec::new(),
        }))
    }

    /// What happened this time, for the caller to read.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// When to come back, in whole seconds, rounded up, and at least 1, so that no client repeats without a pause.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(whole_seconds(wait));
        self
    }

    /// Says that repeating this very request is not safe or cannot succeed, whatever the row says.
    #[must_use]
    pub fn not_retryable(mut self) -> Self {
        self.0.retryable = false;
        self
    }

    /// Where the request's body is wrong.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// The gateway's own words.
    #[must_use]
    pub fn gateway(mut self, words: impl Into<Option<GatewayError>>) -> Self {
        self.0.gateway = words.into();
        self
    }

    /// Why the bridge made the answer, where the row's reason is not the one.
    #[must_use]
    pub fn proxy_error(mut self, error: ProxyError) -> Self {
        self.0.proxy_error = error;
        self
    }

    /// A header that belongs to this problem, such as `Allow`.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Whether it passes on the gateway's own words.
    #[must_use]
    pub fn is_the_gateway_s(&self) -> bool {
        self.0.gateway.is_some()
    }

    /// The row of the table.
    #[must_use]
    pub fn entry(&self) -> &'static Entry {
        self.0.entry
    }

    /// The answer. `base` goes before `/problems/…` in `type`: the bridge's public address, or nothing.
    #[must_use]
    pub fn render(&self, base: &str, request_id: Option<&str>) -> HttpResponse {
        let Parts { entry, detail, retryable, retry_after, errors, gateway, proxy_error, headers } = &*self.0;
        let document = Document {
            kind: format!("{base}/problems/{}", entry.code),
            title: entry.title,
            status: entry.status,
            detail,
            code: entry.code,
            request_id,
            retryable: *retryable,
            retry_after: *retry_after,
            errors,
            gateway: gateway.as_ref(),
        };
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(MEDIA_TYPE).insert_header((header::CACHE_CONTROL, "no-store"));
        // A compressor takes some hundred kilobytes, and anybody is refused as often as it likes.
        response.insert_header((header::CONTENT_ENCODING, "identity"));
        if let Some(seconds) = retry_after {
            response.insert_header((header::RETRY_AFTER, *seconds));
        }
        let gateway_word = gateway.as_ref().map(|words| words.error.as_str());
        if let Some(value) = proxy_status::value(entry, *proxy_error, gateway_word) {
            response.insert_header((PROXY_STATUS, value));
        }
        for (name, value) in headers {
            response.insert_header((name.clone(), value.clone()));
        }
        if entry.is_not_begun() {
            response.extensions_mut().insert(NotBegun);
        }
        // Strings, numbers and raw JSON cannot fail to serialize.
        response.body(serde_json::to_vec(&document).unwrap_or_default())
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    secs_up(wait).max(1)
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.entry.code, self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.entry.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.render("", None)
    }
}

/// What every error answer holds (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// Identifies the problem; the page there explains it.
    #[serde(rename = "type")]
    #[schema(examples("/problems/rate-limited"))]
    kind: String,
    /// The problem in a few words, always the same for one `code`.
    title: &'a str,
    /// The HTTP status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// The problem's stable name, for programs to go by.
    #[schema(value_type = ProblemCode)]
    code: &'a str,
    /// Identifies the request in the bridge's log; also the `X-Request-Id` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
    /// Whether the same request, with the same `Idempotency-Key` where it has one, is safe to repeat and may succeed.
    retryable: bool,
    /// Seconds to wait before repeating it; also the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    retry_after: Option<u64>,
    /// Where the request's body is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// The gateway's own words, where it spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<GatewayWords>)]
    gateway: Option<&'a GatewayError>,
}

/// An error as the gateway said it.
#[derive(Debug, ToSchema)]
#[schema(as = GatewayError)]
pub struct GatewayWords {
    /// The gateway's word.
    #[schema(examples("ratelimit"))]
    pub error: String,
    /// Usually a number; an object for `ratelimit`.
    #[schema(required = false, nullable = false)]
    pub code: Option<ErrorCode>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::table;

    async fn body(problem: &Problem) -> serde_json::Value {
        let response = problem.render("https://bridge.example", Some("r-1"));
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), MEDIA_TYPE);
        let bytes = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[actix_web::test]
    async fn every_problem_has_the_promised_members() {
        for entry in table::TABLE {
            let problem = Problem::new(entry);
            assert_eq!(problem.status_code().as_u16(), entry.status);
            assert_eq!(
                body(&problem).await,
                serde_json::json!({
                    "type": format!("https://bridge.example/problems/{}", entry.code),
                    "title": entry.title,
                    "status": entry.status,
                    "detail": entry.explanation,
                    "code": entry.code,
                    "request_id": "r-1",
                    "retryable": entry.retryable,
                })
            );
        }
    }

    #[actix_web::test]
    async fn the_wait_is_rounded_up_and_is_the_same_in_header_and_body() {
        for (wait, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (30_000, 30)] {
            let problem = Problem::new(&table::RATE_LIMITED).retry_after(Duration::from_millis(wait));
            assert_eq!(body(&problem).await["retry_after"], seconds);
            let response = problem.render("", None);
            assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), seconds.to_string().as_str());
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }

    #[actix_web::test]
    async fn faults_and_the_gateway_s_words_are_passed_on() {
        let problem = Problem::new(&table::INVALID_REQUEST)
            .detail("two faults")
            .errors(vec![FieldError::new("/Products/0/ID", "is missing")])
            .gateway(GatewayError::word("missing_parameter_ID"));
        let body = body(&problem).await;
        assert_eq!(body["detail"], "two faults");
        assert_eq!(body["errors"], serde_json::json!([{"pointer": "/Products/0/ID", "detail": "is missing"}]));
        assert_eq!(body["gateway"], serde_json::json!({"error": "missing_parameter_ID"}));
    }
}
