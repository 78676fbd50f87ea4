//! The section `auth` and its `tokens.NAME`; `jwt` is in a file of its own.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER_PERMISSIVE;

use super::instances::Instance;
use super::jwt;
use crate::http::auth::{CallerLimits, Config, EVERY_INSTANCE, Mode, Scope, Token};
use crate::settings::{EnumSetting, Section};

/// What the section of a token has.
const TOKEN_KEYS: [&str; 5] = ["sha256", "instances", "scopes", "max_in_flight", "per_second"];

impl EnumSetting for Mode {
    const ALL: &'static [(&'static str, Self)] = &[("tokens", Self::Tokens), ("none", Self::None)];
}

pub(super) fn read(section: &mut Section<'_>, instances: &BTreeMap<String, Instance>) -> Config {
    let mode = section.get("mode", Mode::Tokens);
    let mut tokens = section.section("tokens");
    let names = tokens.names(&TOKEN_KEYS);
    let tokens: BTreeMap<String, Token> =
        names.into_iter().map(|name| (name.clone(), token(&mut tokens.section(&name), instances))).collect();
    let keys_accepted = instances.values().any(|instance| instance.accept_gateway_key);
    let jwt = jwt::read(&mut section.section("jwt"), limits);
    let has_issuer = section.section("jwt").is_set();
    if mode == Mode::None && has_issuer {
        section.warn("jwt", "has no effect while auth.mode is \"none\"");
    }
    if mode == Mode::Tokens && tokens.is_empty() && !keys_accepted && !has_issuer && !instances.is_empty() {
        section.error("", "lets nobody call: make a token (`concertpos-bridge token new`) or accept a gateway key");
    }
    let gateway_key = limits(&mut section.section("gateway_key"), CallerLimits::GATEWAY_KEY);
    Config { mode, tokens, gateway_key, jwt }
}

fn token(section: &mut Section<'_>, instances: &BTreeMap<String, Instance>) -> Token {
    let digests: Vec<String> = section.get("sha256", Vec::new());
    let mut sha256 = Vec::new();
    for text in &digests {
        match digest(text) {
            Some(digest) => sha256.push(digest),
            None => section.error("sha256", "must hold SHA-256 digests of 64 hexadecimal digits"),
        }
    }
    if digests.is_empty() {
        section.error("sha256", "is missing; `concertpos-bridge token new` prints it");
    }
    let reachable: Vec<String> = section.get("instances", Vec::new());
    if reachable.is_empty() {
        section.error("instances", "names no instance that the token may use");
    }
    let reaches_all = reachable.iter().any(|name| name == EVERY_INSTANCE);
    if reaches_all && reachable.len() > 1 {
        section.error("instances", "names instances beside \"*\", which means all of them");
    }
    for name in reachable.iter().filter(|_| !reaches_all) {
        if !instances.contains_key(name) {
            section.error("instances", format_args!("names `{name}`, which is not configured"));
        }
    }
    let named: Vec<String> = section.get("scopes", Vec::new());
    let mut scopes = BTreeSet::new();
    for name in &named {
        match Scope::ALL.into_iter().find(|scope| scope.name() == name) {
            Some(scope) => drop(scopes.insert(scope)),
            None => section.error("scopes", format_args!("names `{name}`; there are {}", all_scopes())),
        }
    }
    if named.is_empty() {
        section.error("scopes", format_args!("is missing; there are {}", all_scopes()));
    }
    let CallerLimits { max_in_flight, per_second } = limits(section, CallerLimits::TOKEN);
    Token { sha256, instances: reachable, scopes, max_in_flight, per_second }
}

fn limits(section: &mut Section<'_>, default: CallerLimits) -> CallerLimits {
    CallerLimits {
        max_in_flight: section.at_least("max_in_flight", default.max_in_flight, &1),
        per_second: section.at_least("per_second", default.per_second, &1),
    }
}

fn all_scopes() -> String {
    Scope::ALL.map(Scope::name).join(", ")
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}
