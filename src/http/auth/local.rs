//! The guard of a bridge without authentication: only programs on this machine may call it.
//!
//! Such a bridge listens on loopback, but a browser on the same machine sends requests of any web page there. A page can
//! choose the name it is served under (so `Host` must be a loopback name, against DNS rebinding), but neither its `Origin`
//! nor `Sec-Fetch-Site`. Both are checked: an image, a frame or a `fetch` without CORS sends no `Origin`, and old browsers
//! send no `Sec-Fetch-Site`.

use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, Uri};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};

use super::config::Mode;
use crate::http::problem::{Problem, table};
use crate::http::state::AppState;
use crate::settings::url::host_and_port;

/// Whether the page that makes a request is of this origin, as the browser says.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a browser sends when a user opens a page in a window of its own.
const NAVIGATION: [(HeaderName, &str); 2] =
    [(HeaderName::from_static("sec-fetch-mode"), "navigate"), (HeaderName::from_static("sec-fetch-dest"), "document")];

/// An error for a request under a name that is not loopback, or by a page of another origin that is not among
/// `cors_origins`.
pub fn guard(uri: &Uri, headers: &HeaderMap, cors_origins: &[String]) -> Result<(), Problem> {
    let mut names: Vec<&str> = headers.get_all(HOST).map(|host| host.to_str().unwrap_or_default()).collect();
    names.extend(uri.authority().map(Authority::as_str));
    if names.is_empty() || !names.iter().all(|name| is_loopback(name)) {
        return Err(forbidden("Without tokens the bridge answers only under a loopback name such as `localhost`."));
    }
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let local = origin
            .split_once("://")
            .is_some_and(|(scheme, authority)| ["http", "https"].contains(&scheme) && is_loopback(authority));
        if !local && !cors_origins.iter().any(|invited| invited == origin) {
            return Err(foreign_page());
        }
    }
    if is_of_foreign_page(headers, cors_origins) { Err(foreign_page()) } else { Ok(()) }
}

/// The middleware that refuses pages of other origins on every route, also those without authentication. A link may open a
/// page for people from anywhere.
pub async fn refuse_foreign_pages(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let refused = request.app_data::<Data<AppState>>().is_some_and(|state| {
        state.auth.mode() == Mode::None
            && is_of_foreign_page(request.headers(), &state.config.cors_origins)
            && !opens_a_page(request.method(), request.path(), request.headers())
    });
    if refused {
        // `ServiceRequest::into_response` would lose the problem, which is rendered where the request's id is known.
        let (request, _) = request.into_parts();
        return Ok(ServiceResponse::new(request, HttpResponse::from_error(foreign_page())));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Whether the browser says that a page of another origin, not among `cors_origins`, makes the request. A page on another
/// port of this machine is another origin.
fn is_of_foreign_page(headers: &HeaderMap, cors_origins: &[String]) -> bool {
    let is_foreign = headers.get_all(SITE).any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let mut origins = headers.get_all(ORIGIN);
    let is_invited = match (origins.next(), origins.next()) {
        (Some(origin), None) => cors_origins.iter().any(|invited| invited.as_bytes() == origin.as_bytes()),
        _ => false,
    };
    is_foreign && !is_invited
}

/// Whether a user opens one of the pages for people.
fn opens_a_page(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let is_page = ["/docs", "/problems"]
        .iter()
        .any(|page| path.strip_prefix(page).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let says = |(name, value): &(HeaderName, &str)| headers.get(name).is_some_and(|given| given == value);
    *method == Method::GET && (path == "/" || is_page) && NAVIGATION.iter().all(says)
}

fn foreign_page() -> Problem {
    forbidden("Without tokens the bridge answers no web page of another origin, unless `server.cors_origins` has it.")
}

fn forbidden(detail: &'static str) -> Problem {
    Problem::new(&table::FORBIDDEN).detail(detail)
}

/// Whether `authority` (`name`, `name:port`, `[::1]:port`) is `localhost`, 127.0.0.0/8 or `[::1]`. Names below
/// `.localhost` are not: some systems ask a name server for them.
fn is_loopback(authority: &str) -> bool {
    let Some((host, _)) = host_and_port(authority).filter(|_| !authority.contains('@')) else { return false };
    if authority.starts_with('[') {
        return host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn map(given: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn ask(given: &[(HeaderName, &str)], cors_origins: &[&str]) -> bool {
        let origins: Vec<String> = cors_origins.iter().map(ToString::to_string).collect();
        guard(&Uri::from_static("/v1/instances"), &map(given), &origins).is_ok()
    }

    #[test]
    fn only_loopback_names_are_answered() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert!(ask(&[(HOST, host)], &[]), "{host}");
        }
        let strange = [
            "",
            "evil.example",
            "localhost.evil.example",
            "pos.localhost",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.1",
            "0x7f000001",
            "127.0.0.1@evil.example",
            "evil.example@localhost",
            "0.0.0.0",
            "10.0.0.1",
            "[::2]",
            "[::]",
            "[127.0.0.1]",
            "[localhost]",
            "[::1]x",
            "[::ffff:127.0.0.1]",
            "::1",
            "localhost:80:80",
            "localhost:x",
            "localhost:+80",
            "localhost:",
            "localhost:99999",
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
        let headers = map(&[(HOST, "localhost")]);
        assert!(guard(&Uri::from_static("http://evil.example/"), &headers, &[]).is_err());
        assert!(guard(&Uri::from_static("http://localhost/"), &HeaderMap::new(), &[]).is_ok());
    }

    #[test]
    fn a_page_of_another_machine_is_refused_unless_it_is_in_cors_origins() {
        let from = |origin| [(HOST, "localhost"), (ORIGIN, origin)];
        assert!(ask(&from("http://localhost:3000"), &[]));
        for origin in ["null", "https://evil.example", "http://localhost.evil.example", "", "x://localhost"] {
            assert!(!ask(&from(origin), &[]), "{origin}");
        }
        assert!(ask(&from("https://shop.example"), &["https://shop.example"]));
        assert!(!ask(&from("https://shop.example:444"), &["https://shop.example"]));
    }

    #[test]
    fn a_browser_s_word_that_a_page_is_foreign_counts_without_an_origin_too() {
        let site = |site| vec![(HOST, "localhost"), (SITE, site)];
        for known in ["same-origin", "none"] {
            assert!(ask(&site(known), &[]), "{known}");
        }
        for foreign in ["cross-site", "same-site", "something-new", ""] {
            assert!(!ask(&site(foreign), &["https://shop.example"]), "{foreign}");
            let with = |origin| [site(foreign), vec![(ORIGIN, origin)]].concat();
            assert!(ask(&with("https://shop.example"), &["https://shop.example"]), "{foreign}, invited");
            assert!(!ask(&with("http://localhost:3000"), &["https://shop.example"]), "{foreign}, another port");
        }
    }

    #[test]
    fn a_link_may_open_a_page_for_people_and_nothing_else() {
        let opens = |method: Method, path: &str, mode: &str, dest: &str| {
            let [(mode_name, _), (dest_name, _)] = NAVIGATION;
            opens_a_page(&method, path, &map(&[(mode_name, mode), (dest_name, dest)]))
        };
        for path in ["/", "/docs", "/docs/", "/docs/index.html", "/problems", "/problems/forbidden"] {
            assert!(opens(Method::GET, path, "navigate", "document"), "{path}");
            assert!(!opens(Method::POST, path, "navigate", "document"), "{path} by a form");
            assert!(!opens(Method::GET, path, "navigate", "iframe"), "{path} in a frame");
            assert!(!opens(Method::GET, path, "no-cors", "image"), "{path} as an image");
        }
        for path in ["/v1/instances/demo/config", "/metrics", "/docsx", "/openapi.json", "/livez", "/dashboard/main.js"]
        {
            assert!(!opens(Method::GET, path, "navigate", "document"), "{path}");
        }
    }
}
