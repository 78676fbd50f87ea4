//! What an answer says about the form it was chosen in: `Vary`, one tag for each coding, and what becomes of it under the
//! preconditions of the request.
//!
//! This is decided in the outermost layer, since only there the coding is known. A compressed answer has other bytes than a plain one;
//! with one tag for both, a cache takes the 304 about the one for news of the other, and gives gzip to a client that
//! cannot read it.

use actix_web::body::{BoxBody, MessageBody, None as NoBody};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, VARY};
use actix_web::http::{Method, StatusCode};

use crate::http::problem::{Problem, table};
use crate::http::request::preconditions::{Verdict, verdict};

/// What every answer depends on that may be compressed.
const ACCEPT_ENCODING: &str = "Accept-Encoding";

/// The coding that an answer names if it is not to be compressed.
const AS_IT_IS: &[u8] = b"identity";

/// Completes an answer to `method`. The problem, where there is one, is to be sent in its place.
pub fn completed(
    method: &Method,
    mut response: ServiceResponse<BoxBody>,
) -> (ServiceResponse<BoxBody>, Option<Problem>) {
    if response.status().is_informational() {
        return (response, None);
    }
    let headers = response.headers_mut();
    let is_negotiated = tell_codings_apart(headers);
    one_line_of_vary(headers, is_negotiated);
    let is_fetched = response.status() == StatusCode::OK && (*method == Method::GET || *method == Method::HEAD);
    let verdict = match response.headers().get(ETAG) {
        Some(etag) if is_fetched => verdict(response.request().headers(), etag.as_bytes()),
        _ => Verdict::Send,
    };
    match verdict {
        Verdict::Send => (response, None),
        Verdict::NotModified => (not_modified(response), None),
        Verdict::Failed => {
            let detail = "`If-Match` names another version than the present one.";
            (response, Some(Problem::new(&table::PRECONDITION_FAILED).detail(detail)))
        }
    }
}

/// Gives a compressed answer a tag of its own (RFC 9110, 8.8.3.3), and says whether its coding was chosen by what the
/// request accepts. `identity` is said by what is not to be compressed, to the layer that would, and is no coding for
/// callers to read.
fn tell_codings_apart(headers: &mut HeaderMap) -> bool {
    let Some(coding) = headers.get(CONTENT_ENCODING).cloned() else { return true };
    if coding.as_bytes() == AS_IT_IS {
        headers.remove(CONTENT_ENCODING);
        return false;
    }
    let tag = headers.get(ETAG).and_then(|tag| tag.as_bytes().strip_suffix(b"\""));
    if let Some(Ok(tag)) = tag.map(|tag| HeaderValue::from_bytes(&[tag, b"-", coding.as_bytes(), b"\""].concat())) {
        headers.insert(ETAG, tag);
    }
    true
}

/// Some caches read one line of `Vary` and no more, and some layers here write one each.
fn one_line_of_vary(headers: &mut HeaderMap, is_negotiated: bool) {
    let mut given = headers.get_all(VARY);
    if let (Some(line), None) = (given.next(), given.next())
        && (!is_negotiated || line.as_bytes().ends_with(ACCEPT_ENCODING.as_bytes()))
    {
        return;
    }
    let lines = headers.get_all(VARY).filter_map(|line| line.to_str().ok());
    let mut names: Vec<&str> = Vec::new();
    let given = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty());
    for name in given.chain(is_negotiated.then_some(ACCEPT_ENCODING)) {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    let line = if names.contains(&"*") { "*".to_owned() } else { names.join(", ") };
    match HeaderValue::try_from(line) {
        Ok(line) if !line.is_empty() => drop(headers.insert(VARY, line)),
        _ => {}
    }
}

fn not_modified(mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    *response.response_mut().status_mut() = StatusCode::NOT_MODIFIED;
    for about_the_body in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
        response.headers_mut().remove(about_the_body);
    }
    response.map_body(|_, _| NoBody::new().boxed())
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;
    use actix_web::http::header::HeaderName;
    use actix_web::test::TestRequest;

    use super::*;

    fn answer(headers: &[(HeaderName, &'static str)]) -> ServiceResponse<BoxBody> {
        let mut response = HttpResponse::Ok();
        for (name, value) in headers {
            response.append_header((name.clone(), *value));
        }
        let response = ServiceResponse::new(TestRequest::get().to_http_request(), response.body("text"));
        completed(&Method::GET, response).0
    }

    fn one<'a>(response: &'a ServiceResponse<BoxBody>, name: &HeaderName) -> Option<&'a str> {
        let lines: Vec<_> = response.headers().get_all(name).collect();
        assert!(lines.len() < 2, "{lines:?}");
        lines.first().map(|line| line.to_str().unwrap())
    }

    #[test]
    fn each_coding_has_a_tag_of_its_own() {
        for (tag, coding, expected) in [
            ("\"a\"", None, "\"a\""),
            ("\"a\"", Some("gzip"), "\"a-gzip\""),
            ("W/\"a\"", Some("zstd"), "W/\"a-zstd\""),
            ("\"a\"", Some("identity"), "\"a\""),
        ] {
            let coding = coding.map(|coding| (CONTENT_ENCODING, coding));
            let headers: Vec<_> = [(ETAG, tag)].into_iter().chain(coding).collect();
            let answer = answer(&headers);
            assert_eq!(one(&answer, &ETAG), Some(expected));
            assert_ne!(one(&answer, &CONTENT_ENCODING), Some("identity"));
        }
    }

    #[test]
    fn what_an_answer_depends_on_is_said_in_one_line_and_once() {
        for (given, expected) in [
            (&[][..], "Accept-Encoding"),
            (&["Accept"], "Accept, Accept-Encoding"),
            (&["Authorization, Accept-Encoding"], "Authorization, Accept-Encoding"),
            (&["accept-encoding"], "accept-encoding"),
            (&["Accept", "accept-encoding", "Origin, accept"], "Accept, accept-encoding, Origin"),
            (&["Accept", "*"], "*"),
        ] {
            let headers: Vec<_> = given.iter().map(|line| (VARY, *line)).collect();
            assert_eq!(one(&answer(&headers), &VARY), Some(expected), "{given:?}");
        }
        let never_compressed = (CONTENT_ENCODING, "identity");
        assert_eq!(one(&answer(std::slice::from_ref(&never_compressed)), &VARY), None);
        assert_eq!(one(&answer(&[never_compressed, (VARY, "Accept")]), &VARY), Some("Accept"));
    }
}
