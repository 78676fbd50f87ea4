//! A request's id: the caller's own `X-Request-Id`, or a fresh one.

use actix_web::http::header::{HeaderMap, HeaderName};
use uuid::Builder;

use crate::clock;

/// The header that names a request, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken from a caller: anything longer is no id.
const LONGEST_ID: usize = 128;

/// A request's name in the log and in problems.
#[derive(Debug, Clone)]
pub struct RequestId(String);

impl RequestId {
    /// The caller's own, if it is a sane one, else a fresh UUID, which sorts by time.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        Self(given.filter(|id| is_sane(id)).map_or_else(fresh_id, str::to_owned))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A UUID of version 7. It only has to be unlike others, so its random part costs no system call.
fn fresh_id() -> String {
    let millis = clock::whole_ms(clock::since_1970());
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

/// Only what can break no log line and no header.
fn is_sane(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use uuid::Uuid;

    use super::*;

    fn id_for(given: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_str(given).unwrap());
        RequestId::of(&headers).0
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_is_replaced() {
        for id in ["a", "req-1_2.3:4/5", "0190b5f2-7a1c-7c3e-8000-000000000000", &"x".repeat(128)] {
            assert_eq!(id_for(id), id);
        }
        for id in ["", "a b", "a\"b", "a\tb", "{}", "<script>", &"x".repeat(129)] {
            let made = id_for(id);
            assert_eq!(Uuid::parse_str(&made).unwrap().get_version_num(), 7, "{id}");
        }
    }
}
