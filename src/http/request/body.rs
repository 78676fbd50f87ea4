//! Reads a request's body: JSON, one object, within size and time.
//!
//! It is called after the caller is known to be allowed, so a body of an unknown caller is not read. The object's values stay
//! as they were spelled; a name given twice is refused by [`Parameters`].

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, UPGRADE};
use actix_web::web::{BytesMut, Payload};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::integer;
use crate::http::problem::{FieldError, Problem, table};
use crate::protocol::Parameters;

/// Whether a body may be left out, which then means `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// It may.
    Allowed,
    /// It may not.
    Refused,
}

/// Reads the one JSON object of a body of at most `max` bytes that has come by `deadline`.
pub async fn object(
    headers: &HeaderMap,
    payload: Payload,
    (max, deadline): (usize, Instant),
    empty: Empty,
) -> Result<Parameters, Problem> {
    if asks_for_upgrade(headers) {
        return Err(Problem::new(&table::INVALID_REQUEST).detail(
            "A request that asks for another protocol has no body that could be told from what follows. Nothing was sent.",
        ));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max)) {
        return Err(too_large(max));
    }
    if headers.contains_key(CONTENT_TYPE) || headers.contains_key(CONTENT_ENCODING) {
        require_json(headers)?;
    }
    let bytes = timeout_at(deadline, collect(payload, max)).await.map_err(|_| {
        Problem::new(&table::INVALID_REQUEST).detail("The body did not arrive in time. Nothing was sent.")
    })??;
    if bytes.is_empty() && empty == Empty::Allowed {
        return Ok(Parameters::default());
    }
    require_json(headers)?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Parameters, Problem> {
    let invalid = |detail: String| Problem::new(&table::INVALID_REQUEST).detail(detail);
    match bytes.trim_ascii().first() {
        None => Err(invalid("The body is empty, and must be a JSON object. Nothing was sent.".to_owned())),
        Some(b'{') => Parameters::parse(bytes)
            .map_err(|error| invalid(format!("The body is not as it must be: {error}. Nothing was sent."))),
        Some(_) => Err(invalid("The body must be a JSON object, in braces. Nothing was sent.".to_owned())),
    }
}

/// The member `name` of a body, or what is wrong with it. `expected` is read after "must be".
pub fn member<T: DeserializeOwned>(body: &Parameters, name: &str, expected: &str) -> Result<T, FieldError> {
    let fault = |detail: String| FieldError::new(format!("/{name}"), detail);
    let value = body.get(name).ok_or_else(|| fault("is missing".to_owned()))?;
    serde_json::from_str(value.get()).map_err(|_| fault(format!("must be {expected}")))
}

/// Sets `name` to what the path or a header says. A body that says otherwise is refused, not overruled: one of the two
/// is a mistake, and which one only the caller knows. `null` says nothing: tills send it where they know no password.
pub fn with_member(body: Parameters, name: &str, value: &serde_json::Value) -> Result<Parameters, Problem> {
    let same = body.get(name).is_none_or(|given| match value.as_i64() {
        _ if given.get() == "null" => true,
        Some(number) => integer::of_json(given.get()) == Ok(number),
        None => serde_json::from_str::<serde_json::Value>(given.get()).is_ok_and(|given| given == *value),
    });
    if same {
        return Ok(body.with(name, value));
    }
    Err(Problem::new(&table::INVALID_REQUEST)
        .detail(format!("`{name}` in the body contradicts the path or the header."))
        .errors(vec![FieldError::new(format!("/{name}"), "contradicts the path or the header")]))
}

async fn collect(mut payload: Payload, max: usize) -> Result<BytesMut, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|_| Problem::new(&table::INVALID_REQUEST).detail("The body broke off. Nothing was sent."))?;
        if bytes.len().saturating_add(chunk.len()) > max {
            return Err(too_large(max));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Whether actix takes all that follows for one body without an end, whatever its `Content-Length`: it does so for this
/// protocol.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).any(|protocol| protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

fn too_large(max: usize) -> Problem {
    Problem::new(&table::TOO_LARGE).detail(format!("The body is larger than {max} bytes. Nothing was sent."))
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded =
        headers.get_all(CONTENT_ENCODING).any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let mut types = headers.get_all(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    match (types.next(), types.next()) {
        (Some(given), None) if is_json(given) && !encoded => Ok(()),
        _ => Err(Problem::new(&table::UNSUPPORTED_MEDIA_TYPE)),
    }
}

/// `application/json` or a type built on it, in UTF-8.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media_type = parts.next().unwrap_or_default();
    let json =
        media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some(("charset", charset)) => charset.trim_matches('"') == "utf-8",
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(body: &str, value: &serde_json::Value) -> Result<String, &'static str> {
        let body = Parameters::parse(body.as_bytes()).unwrap();
        match with_member(body, "POSID", value) {
            Ok(parameters) => Ok(serde_json::to_string(&parameters).unwrap()),
            Err(problem) => Err(problem.entry().code),
        }
    }

    #[test]
    fn the_path_is_put_into_the_body_and_a_body_that_says_otherwise_is_refused() {
        assert_eq!(merged("{}", &json!(7)).unwrap(), r#"{"POSID":7}"#);
        assert_eq!(merged(r#"{"POSID":"7","x":1.10}"#, &json!(7)).unwrap(), r#"{"x":1.10,"POSID":7}"#);
        assert_eq!(merged(r#"{"POSID":8}"#, &json!(7)), Err("invalid-request"));
        assert_eq!(merged(r#"{"POSID":null}"#, &json!(7)).unwrap(), r#"{"POSID":7}"#);
        assert_eq!(merged(r#"{"POSID":[7]}"#, &json!(7)), Err("invalid-request"));
        assert_eq!(merged(r#"{"POSID":"a"}"#, &json!("a")).unwrap(), r#"{"POSID":"a"}"#);
        assert_eq!(merged(r#"{"POSID":"b"}"#, &json!("a")), Err("invalid-request"));
    }

    #[test]
    fn what_is_no_object_is_told_so_in_words_and_broken_json_with_its_place() {
        let rows = [
            ("", "The body is empty"),
            (" \n", "The body is empty"),
            ("[]", "must be a JSON object"),
            ("7", "must be a JSON object"),
            ("{\"a\":1", "line 1 column 6"),
            ("{\"a\":1,\"a\":2}", "`a` is given twice"),
        ];
        for (body, words) in rows {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert!(format!("{problem:?}").contains(words), "{body}: {problem:?}");
        }
        assert!(parse(b" {\"a\":1} ").is_ok());
    }

    #[test]
    fn a_member_is_pointed_at_where_it_is_missing_or_something_else() {
        let body = parse(b"{\"cordoned\":\"yes\"}").unwrap();
        assert_eq!(
            member::<bool>(&body, "cordoned", "true or false"),
            Err(FieldError::new("/cordoned", "must be true or false"))
        );
        assert_eq!(member::<bool>(&body, "other", "true or false"), Err(FieldError::new("/other", "is missing")));
        let body = parse(b"{\"cordoned\":true}").unwrap();
        assert_eq!(member::<bool>(&body, "cordoned", "true or false"), Ok(true));
    }

    #[test]
    fn json_is_told_from_what_is_not() {
        let json = [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/vnd.pos+json",
            "application/json; charset=\"utf-8\"",
        ];
        for given in json {
            assert!(is_json(given), "{given}");
        }
        for given in
            ["", "text/plain", "text/json", "application/xml", "application/json; charset=latin1", "application/jsonx"]
        {
            assert!(!is_json(given), "{given}");
        }
    }
}
