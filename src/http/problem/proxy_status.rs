//! `Proxy-Status` (RFC 9209): whether the bridge refused, or the gateway.
//!
//! As the RFC has it, `error` says that the answer was made by the intermediary, which is the bridge, and why. Where the gateway
//! refused there is none, and `details` has its word.

use actix_web::http::header::{HeaderName, HeaderValue};

use super::proxy_error::ProxyError;
use super::table::Entry;

pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The name under which the bridge stands in `Proxy-Status`, as in `Cache-Status`.
const PROXY_NAME: &str = "concertpos-bridge";

/// The longest word of the gateway that is passed on in a header field. Those that are known have at most 40 characters.
const MAX_WORD: usize = 64;

/// The field of a problem; `gateway_word` where the gateway refused.
pub(super) fn value(entry: &Entry, error: ProxyError, gateway_word: Option<&str>) -> Option<HeaderValue> {
    let text = match gateway_word {
        Some(word) if is_plain(word) => format!("{PROXY_NAME}; details=\"the gateway answered {word}\""),
        Some(_) => format!("{PROXY_NAME}; details=\"the gateway answered an error\""),
        None => format!("{PROXY_NAME}; error={}; details=\"{}\"", error.name(), entry.code),
    };
    HeaderValue::from_str(&text).ok()
}

/// Whether a word is one as the gateway has them. Another one may hold anything.
fn is_plain(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=MAX_WORD).contains(&word.len()) && word.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::table;

    fn told(word: Option<&str>) -> String {
        let value = value(&table::RATE_LIMITED, table::RATE_LIMITED.proxy_error, word).unwrap();
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn it_says_whose_refusal_it_is() {
        assert_eq!(told(None), "concertpos-bridge; error=http_request_denied; details=\"rate-limited\"");
        assert_eq!(told(Some("ratelimit")), "concertpos-bridge; details=\"the gateway answered ratelimit\"");
    }

    #[test]
    fn no_word_of_the_gateway_can_add_to_the_field() {
        for word in ["", "a\", evil", "a b", "a\r\nx: y", "\u{fc}", &"a".repeat(65)] {
            assert_eq!(told(Some(word)), "concertpos-bridge; details=\"the gateway answered an error\"", "{word:?}");
        }
    }
}
