//! The section `auth.jwt`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::gateway;
use crate::http::auth::CallerLimits;
use crate::http::auth::jwt::{Claim, JwtConfig, KeySource, SEPARATOR, SignatureAlgorithm};
use crate::settings::{Section, url};

/// Clocks that differ by more are to be set.
const MOST_LEEWAY: Duration = Duration::from_mins(5);

/// The issuer is asked no more often than that.
const LEAST_REFRESH: Duration = Duration::from_secs(1);

/// Whose JWTs are accepted; nobody's where the section is not there. That there are such keys is judged with the whole.
pub(super) fn read(
    section: &mut Section<'_>,
    limits: impl FnOnce(&mut Section<'_>, CallerLimits) -> CallerLimits,
) -> Option<JwtConfig> {
    if !section.is_set() {
        return None;
    }
    let errors_before = section.errors();
    let issuer: Option<String> = section.optional("issuer");
    match &issuer {
        None => section.error("issuer", "is missing: what `iss` of the tokens is"),
        Some(issuer) if !is_issuer(issuer) => section.error(
            "issuer",
            format_args!("must be 1 to 255 visible ASCII characters without `{SEPARATOR}`, such as a URL"),
        ),
        Some(_) => {}
    }
    let audience: Vec<String> = section.get("audience", Vec::new());
    if audience.iter().all(String::is_empty) {
        section.error("audience", "is missing: what `aud` of the tokens for this bridge holds");
    }
    let keys = keys(section);
    let ca_file: Option<PathBuf> = section.optional("ca_file");
    if let Some(Err(why)) = ca_file.as_deref().map(|file| gateway::trusted_certificates(Some(file))) {
        section.error("ca_file", format_args!("cannot be used: {why}"));
    }
    let algorithms = algorithms(section);
    let claim = |section: &mut Section<'_>, key: &'static str, default: &str| {
        let name: String = section.get(key, default.to_owned());
        if name.is_empty() {
            section.error(key, "is empty; name a claim");
        }
        Claim(name)
    };
    let caller = claim(section, "caller_claim", "sub");
    let instances = claim(section, "instances_claim", "instances");
    let scopes = claim(section, "scopes_claim", "scope");
    let scope_prefix = section.get("scope_prefix", String::new());
    let leeway = section.get("leeway", Duration::from_secs(30));
    if leeway > MOST_LEEWAY {
        section.error("leeway", "must be at most 5m");
    }
    let refresh = section.at_least("refresh", Duration::from_mins(10), &LEAST_REFRESH);
    let refresh_floor = section.at_least("refresh_floor", Duration::from_secs(10), &LEAST_REFRESH);
    let limits = limits(section, CallerLimits::TOKEN);
    let (issuer, keys, audience) = (issuer?, keys?, audience.into_iter().collect());
    let config = JwtConfig {
        issuer,
        audience,
        keys,
        ca_file,
        algorithms,
        caller,
        instances,
        scopes,
        scope_prefix,
        leeway,
        refresh,
        refresh_floor,
        limits,
    };
    (section.errors() == errors_before).then_some(config)
}

fn is_issuer(issuer: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_graphic() && char::from(byte) != SEPARATOR;
    (1..=255).contains(&issuer.len()) && issuer.bytes().all(is_fine)
}

fn keys(section: &mut Section<'_>) -> Option<KeySource> {
    match (section.optional::<String>("jwks_url"), section.optional::<PathBuf>("jwks_file")) {
        (Some(given), None) => {
            if let Err(why) = url::check(&given, &["https", "http"]) {
                section.error("jwks_url", why);
            } else if url::names_a_user(&given) {
                section.error("jwks_url", "holds a name and a password, which are not sent");
            } else if given.starts_with("http:") && !is_local(&given) {
                section.error("jwks_url", "must be https: whoever changes the keys on their way lets in anybody");
            }
            Some(KeySource::Url(given))
        }
        (None, Some(path)) => Some(KeySource::File(path)),
        (Some(_), Some(_)) => {
            section.error("jwks_file", "is set beside jwks_url; set one of them");
            None
        }
        (None, None) => {
            section.error("jwks_url", "is missing; set it or jwks_file");
            None
        }
    }
}

/// Whether a URL leads to this machine.
fn is_local(given: &str) -> bool {
    let authority =
        given.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let host = url::host_and_port(authority).map_or("", |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn algorithms(section: &mut Section<'_>) -> BTreeSet<SignatureAlgorithm> {
    let all = SignatureAlgorithm::ALL;
    let named: Vec<String> = section.get("algorithms", all.map(|one| one.name().to_owned()).to_vec());
    let known = || all.map(SignatureAlgorithm::name).join(", ");
    let mut chosen = BTreeSet::new();
    for name in &named {
        match all.into_iter().find(|one| one.name() == name) {
            Some(one) => drop(chosen.insert(one)),
            None => section.error("algorithms", format_args!("names `{name}`; there are {}", known())),
        }
    }
    if named.is_empty() {
        section.error("algorithms", format_args!("is empty; there are {}", known()));
    }
    chosen
}
