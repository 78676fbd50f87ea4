//! The guard of a bridge that asks for no tokens: only programs on this machine may call it.
//!
//! It listens on loopback, but a browser on the same machine would carry any web page's requests there. A page can
//! choose the name it is served under (so `Host` must be a loopback name, against rebinding) but not its `Origin`.

use std::net::IpAddr;

use actix_web::http::Uri;
use actix_web::http::header::{HOST, HeaderMap, ORIGIN};
use actix_web::http::uri::Authority;

use super::{Problem, table};

/// Refuses a request that came under another name than this machine's, or from a page served by another.
/// `cors_origins` are pages the operator invited.
pub fn guard(uri: &Uri, headers: &HeaderMap, cors_origins: &[String]) -> Result<(), Problem> {
    let mut names: Vec<&str> = headers.get_all(HOST).map(|host| host.to_str().unwrap_or_default()).collect();
    names.extend(uri.authority().map(Authority::as_str));
    if names.is_empty() || !names.iter().all(|name| is_loopback(name)) {
        return Err(forbidden("Without tokens the bridge answers only under a loopback name such as `localhost`."));
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let local = origin.split_once("://").is_some_and(|(_, authority)| is_loopback(authority));
        if !local && !cors_origins.iter().any(|invited| invited == origin) {
            return Err(forbidden("Without tokens the bridge answers no web page of another machine."));
        }
    }
    Ok(())
}

fn forbidden(detail: &'static str) -> Problem {
    Problem::new(&table::FORBIDDEN).detail(detail)
}

/// Whether `authority` (`name`, `name:port`, `[::1]:port`) names this machine.
fn is_loopback(authority: &str) -> bool {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or((authority, ""), |(name, port)| (name, port)),
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port_is_one = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let name = name.to_ascii_lowercase();
    port_is_one
        && (name == "localhost"
            || name.ends_with(".localhost")
            || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn ask(given: &[(HeaderName, &str)], cors_origins: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let origins: Vec<String> = cors_origins.iter().map(ToString::to_string).collect();
        guard(&Uri::from_static("/v1/instances"), &headers, &origins).is_ok()
    }

    #[test]
    fn only_loopback_names_are_answered() {
        for host in ["localhost", "LOCALHOST:8080", "pos.localhost", "127.0.0.1:80", "127.9.9.9", "[::1]:8080", "[::1]"]
        {
            assert!(ask(&[(HOST, host)], &[]), "{host}");
        }
        let strange = [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "::1",
            "localhost:80:80",
            "localhost:x",
            "xlocalhost",
        ];
        for host in strange {
            assert!(!ask(&[(HOST, host)], &[]), "{host}");
        }
        assert!(!ask(&[], &[]), "no name at all");
        assert!(!ask(&[(HOST, "localhost"), (HOST, "evil.example")], &[]), "two names");
    }

    #[test]
    fn an_authority_in_the_request_line_counts_as_well() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(guard(&Uri::from_static("http://evil.example/"), &headers, &[]).is_err());
        assert!(guard(&Uri::from_static("http://localhost/"), &HeaderMap::new(), &[]).is_ok());
    }

    #[test]
    fn no_page_of_another_machine_is_answered_unless_invited() {
        let from = |origin| [(HOST, "localhost"), (ORIGIN, origin)];
        assert!(ask(&from("http://localhost:3000"), &[]));
        for origin in ["null", "https://evil.example", "http://localhost.evil.example", ""] {
            assert!(!ask(&from(origin), &[]), "{origin}");
        }
        assert!(ask(&from("https://shop.example"), &["https://shop.example"]));
        assert!(!ask(&from("https://shop.example:444"), &["https://shop.example"]));
    }
}
