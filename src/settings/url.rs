//! Checks of a URL that need no network, and URLs shown without their credentials.
//!
//! Most parsers accept a port that does not exist; the URL of a gateway would then fail long after the start. So it is
//! checked while the configuration is read.

use std::net::Ipv6Addr;

/// What stands in place of a secret.
const REDACTED: &str = "(redacted)";

/// Parts of a parameter's name that tell that its value is a secret.
const SECRET_NAMES: [&str; 6] = ["key", "token", "secret", "pass", "auth", "sig"];

/// The host of `authority` (`host`, `host:port`, `[::1]:port`) and its port; `None` where it is no authority. A name and
/// a password before an `@` are left out.
#[must_use]
pub fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, rest) = match place.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => place.find(':').map_or((place, ""), |at| place.split_at(at)),
    };
    let is_host =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:%".contains(&byte));
    let port = match rest.strip_prefix(':') {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
    };
    let is_whole = rest.is_empty() || port.is_some();
    (is_host && is_whole).then_some((host, port))
}

/// What is wrong with a URL that must begin with one of `schemes`, as a clause that follows its key.
pub fn check(url: &str, schemes: &[&str]) -> Result<(), String> {
    let begins = |scheme: &&&str| url.split_once("://").is_some_and(|(given, _)| given == **scheme);
    if !schemes.iter().any(|scheme| begins(&scheme)) {
        let wanted: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        return Err(format!("must begin with {}", wanted.join(" or ")));
    }
    if url.bytes().any(|byte| !byte.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&byte)) {
        return Err("holds a character that no URL may hold".to_owned());
    }
    match host_and_port(authority(url)) {
        Some(_) => Ok(()),
        None => Err("must name a host and, if any, a port from 1 to 65535".to_owned()),
    }
}

/// What stands between the scheme and the path.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?', '#']).map_or(rest, |end| rest.get(..end).unwrap_or(rest))
}

/// Whether a name, and perhaps a password, stands before the host.
#[must_use]
pub fn names_a_user(url: &str) -> bool {
    authority(url).contains('@')
}

/// What follows the host and port: path, query and fragment.
#[must_use]
pub fn after_authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.get(authority(url).len()..).unwrap_or_default()
}

/// `shown` with the credentials of every URL in it redacted: a name and a password before the host, and parameters whose
/// name tells that they are secret. `shown` is a value as TOML writes it, a list too.
#[must_use]
pub fn redacted(shown: &str) -> String {
    if !shown.contains("://") {
        return shown.to_owned();
    }
    shown.split('"').map(without_credentials).collect::<Vec<_>>().join("\"")
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, _)) = url.split_once("://") else { return url.to_owned() };
    let authority = authority(url);
    let place = match authority.rsplit_once('@') {
        Some((_, place)) => format!("{REDACTED}@{place}"),
        None => authority.to_owned(),
    };
    let rest = after_authority(url);
    let rest = match rest.split_once('?') {
        Some((path, query)) => {
            format!("{path}?{}", query.split('&').map(without_secret).collect::<Vec<_>>().join("&"))
        }
        None => rest.to_owned(),
    };
    format!("{scheme}://{place}{rest}")
}

fn without_secret(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if SECRET_NAMES.iter().any(|part| name.to_ascii_lowercase().contains(part)) => {
            format!("{name}={REDACTED}")
        }
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port_that_exists() {
        assert_eq!(host_and_port("gate.example"), Some(("gate.example", None)));
        assert_eq!(host_and_port("u:p@[::1]:65535"), Some(("::1", Some(65535))));
        for wrong in ["", ":80", "a:", "a:0", "a:99999", "a:+80", "a:8x", "[::1", "[::1]80", "[x]:80", "a b", "::1"] {
            assert_eq!(host_and_port(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_url_that_could_only_fail_when_used_is_refused() {
        for url in ["http://collector:4318", "https://u:p@c.example/v1/traces?x=1", "http://[::1]"] {
            assert_eq!(check(url, &["http", "https"]), Ok(()), "{url}");
        }
        for url in
            ["collector:4318", "httpx://c", "http://", "http:///x", "http://c:99999", "http://c/ x", "http://c/{x}"]
        {
            assert!(check(url, &["http", "https"]).is_err(), "{url}");
        }
    }

    #[test]
    fn credentials_of_a_url_are_not_shown() {
        let shown = redacted(r#"["https://me:hush@c.example:1/a?api_key=hush&b=1&Token=hush", "http://plain/?x=@"]"#);
        let expected =
            r#"["https://(redacted)@c.example:1/a?api_key=(redacted)&b=1&Token=(redacted)", "http://plain/?x=@"]"#;
        assert_eq!(shown, expected);
        assert_eq!(redacted("\"30s\""), "\"30s\"");
    }
}
