//! The header fields of what is passed on: which end at the connection that they came on (RFC 9110, section 7.6.1), and from
//! the server's types to the client's and back. Pure.

use actix_web::http::header::{self as here, CONNECTION, HeaderMap};
use hyper::header as there;

use super::proof;

/// Those that end at the connection, named in `Connection` or not.
const OF_A_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Those of a request that its owner gets in another form: how long the body is, whose address counts, and what this replica
/// has already met.
const SAID_OTHERWISE: [&str; 5] = ["content-length", "expect", "http2-settings", "x-forwarded-for", "x-request-id"];

/// Names that the fields `Connection` list.
fn options<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let texts = values.filter_map(|value| std::str::from_utf8(value).ok());
    texts.flat_map(|text| text.split(',')).map(|option| option.trim().to_ascii_lowercase()).collect()
}

fn ends_here(name: &str, options: &[String]) -> bool {
    OF_A_CONNECTION.contains(&name) || name == proof::FIELD.as_str() || options.iter().any(|option| option == name)
}

/// The fields of a request as they are passed on.
pub(super) fn of_request(headers: &HeaderMap) -> there::HeaderMap {
    let options = options(headers.get_all(CONNECTION).map(here::HeaderValue::as_bytes));
    let mut passed = there::HeaderMap::with_capacity(headers.len() + 4);
    let kept = headers
        .iter()
        .filter(|(name, _)| !ends_here(name.as_str(), &options) && !SAID_OTHERWISE.contains(&name.as_str()));
    for (name, value) in kept {
        append(&mut passed, name.as_str(), value.as_bytes());
    }
    passed
}

/// Adds a field to a request. One that cannot be sent is left out.
pub(super) fn append(headers: &mut there::HeaderMap, name: &str, value: &[u8]) {
    let parsed = (there::HeaderName::from_bytes(name.as_bytes()), there::HeaderValue::from_bytes(value));
    if let (Ok(name), Ok(value)) = parsed {
        headers.append(name, value);
    }
}

/// The fields of an answer as they are passed back. Its length is left to the server that sends it.
pub(super) fn of_answer(headers: &there::HeaderMap, to: &mut HeaderMap) {
    let options = options(headers.get_all(there::CONNECTION).iter().map(there::HeaderValue::as_bytes));
    let kept = headers.iter().filter(|(name, _)| !ends_here(name.as_str(), &options) && *name != there::CONTENT_LENGTH);
    for (name, value) in kept {
        let parsed = (here::HeaderName::from_bytes(name.as_str().as_bytes()), value.as_bytes());
        if let (Ok(name), Ok(value)) = (parsed.0, here::HeaderValue::from_bytes(parsed.1)) {
            to.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(here::HeaderName::from_static(name), here::HeaderValue::from_static(value));
        }
        let passed = of_request(&headers);
        passed.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn fields_of_the_connection_end_with_it_and_others_pass_as_they_are() {
        let passed = request(&[
            ("authorization", "Bearer t"),
            ("idempotency-key", "k"),
            ("accept", "a"),
            ("accept", "b"),
            ("connection", "keep-alive, X-Own"),
            ("connection", "x-second"),
            ("x-own", "1"),
            ("x-second", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("content-length", "7"),
            ("x-forwarded-for", "192.0.2.1"),
            ("bridge-forwarded", "1 forged"),
        ]);
        let expected = [("authorization", "Bearer t"), ("idempotency-key", "k"), ("accept", "a"), ("accept", "b")];
        let mut expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        expected.sort();
        let mut passed = passed;
        passed.sort();
        assert_eq!(passed, expected);
    }

    #[test]
    fn an_answer_keeps_its_fields_but_those_of_the_connection_and_its_length() {
        let mut headers = there::HeaderMap::new();
        for (name, value) in [
            ("etag", "\"a\""),
            ("vary", "Accept"),
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("bridge-forwarded", "1 served - 00"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            append(&mut headers, name, value.as_bytes());
        }
        append(&mut headers, "x-latin", b"\xe4");
        let mut passed = HeaderMap::new();
        of_answer(&headers, &mut passed);
        let mut names: Vec<_> = passed.keys().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["date", "etag", "vary", "x-latin"]);
    }
}
