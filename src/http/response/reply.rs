//! Answers that are not problems.
//!
//! The gateway's reply is sent as the bytes that came: prices are never reprinted, and fields that the bridge does not know
//! are passed on.

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use actix_web::web::Bytes;

use crate::cache::CachedReply;
use crate::protocol::Body;

/// The header in which callers give the password of a point of sale.
pub const POS_PASSWORD: &str = "X-POS-Password";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const VARY_BY_CALLER: HeaderValue = HeaderValue::from_static("Authorization, X-POS-Password, Accept-Encoding");

/// A body as its owner holds it: shared, not copied.
struct SharedBytes<T>(T);

impl AsRef<[u8]> for SharedBytes<Body> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_str().as_bytes()
    }
}

impl AsRef<[u8]> for SharedBytes<CachedReply> {
    fn as_ref(&self) -> &[u8] {
        self.0.body.as_str().as_bytes()
    }
}

/// The answer to a read. A private cache may keep it but asks each time, for it cannot hear `updatepos`; and it must
/// not give one caller's copy to another.
#[must_use]
pub fn read(copy: CachedReply) -> HttpResponse {
    let mut response = HttpResponse::with_body(StatusCode::OK, Bytes::from_owner(SharedBytes(copy)).boxed());
    for (name, value) in [(CONTENT_TYPE, JSON), (CACHE_CONTROL, PRIVATE), (VARY, VARY_BY_CALLER)] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The answer to something that was done.
#[must_use]
pub fn done(status: StatusCode, reply: Body) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/json")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(Bytes::from_owner(SharedBytes(reply)))
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use serde_json::value::RawValue;

    use tokio::time::Instant;

    use super::*;
    use crate::cache::Epoch;

    const REPLY: &str = r#"{"Products": [{"ID":"1", "Price":2.50, "new":1e400}]}"#;

    fn copy() -> CachedReply {
        CachedReply::new(reply(), Instant::now(), Epoch::FORMER)
    }

    fn reply() -> Body {
        Body::from(&*RawValue::from_string(REPLY.to_owned()).unwrap())
    }

    #[actix_web::test]
    async fn a_reply_leaves_as_the_bytes_that_came() {
        for response in [read(copy()), done(StatusCode::CREATED, reply())] {
            assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/json");
            assert_eq!(to_bytes(response.into_body()).await.unwrap(), REPLY);
        }
    }

    #[test]
    fn a_read_may_be_kept_privately_and_a_deed_not_at_all() {
        let response = read(copy());
        assert_eq!(response.headers().get(CACHE_CONTROL).unwrap(), "private, no-cache");
        assert_eq!(response.headers().get(VARY).unwrap(), "Authorization, X-POS-Password, Accept-Encoding");
        assert_eq!(done(StatusCode::CREATED, reply()).headers().get(CACHE_CONTROL).unwrap(), "no-store");
    }
}
