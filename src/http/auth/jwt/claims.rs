//! What the claims of a token whose signature is good say: who calls, what it may, and until when. PURE.
//!
//! Of times the bridge's clock and the issuer's may differ by the leeway, and by no more.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use super::config::{Claim, JwtConfig};
use crate::http::auth::caller::{EVERY_INSTANCE, Scope};

/// The longest name that an issuer may give a caller (`OpenID` Connect Core, section 2, of `sub`).
const MAX_NAME: usize = 255;

/// Between the issuer and the name of a caller. No token's name holds one, so none is that of another method's caller.
pub const SEPARATOR: char = '|';

/// What claims prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proven {
    /// `ISSUER|NAME`.
    pub(super) name: String,
    /// `None` is every instance.
    pub(super) instances: Option<BTreeSet<String>>,
    pub(super) scopes: BTreeSet<Scope>,
    /// For how much longer they are valid.
    pub(super) valid_for: Duration,
}

/// Why claims prove nothing, in words for whoever presented them. They were signed by the issuer, so these are no secret.
pub(super) type Refusal = &'static str;

const NO_INSTANT: Refusal = "`exp`, `nbf` and `iat` of the token must be seconds since 1970.";

/// Judges claims at `now`, the time since 1970.
pub(super) fn judge(claims: &Map<String, Value>, config: &JwtConfig, now: Duration) -> Result<Proven, Refusal> {
    if claims.get("iss").and_then(Value::as_str) != Some(&config.issuer) {
        return Err("The token is not of the issuer that is accepted here (`iss`).");
    }
    if !is_for(claims.get("aud"), &config.audience) {
        return Err("The token is not for this bridge (`aud`).");
    }
    let ends =
        instant(claims, "exp")?.ok_or("The token does not expire (`exp` is missing).")?.saturating_add(config.leeway);
    if ends <= now {
        return Err("The token has expired.");
    }
    let latest = now.saturating_add(config.leeway);
    if instant(claims, "nbf")?.is_some_and(|begins| begins > latest) {
        return Err("The token is not valid yet (`nbf`).");
    }
    if instant(claims, "iat")?.is_some_and(|issued| issued > latest) {
        return Err("The token was issued in the future (`iat`).");
    }
    let name = named(claims, &config.caller).and_then(Value::as_str).filter(|name| is_name(name));
    let name =
        name.ok_or("The claim that names the caller is missing, or is not 1 to 255 visible ASCII characters.")?;
    let instances = listed(named(claims, &config.instances));
    let reaches_all = instances.contains(EVERY_INSTANCE);
    let granted = listed(named(claims, &config.scopes));
    let is_granted =
        |scope: &Scope| granted.iter().any(|given| given.strip_prefix(&config.scope_prefix) == Some(scope.name()));
    Ok(Proven {
        name: format!("{}{SEPARATOR}{name}", config.issuer),
        instances: (!reaches_all).then(|| instances.into_iter().map(str::to_owned).collect()),
        scopes: Scope::ALL.into_iter().filter(is_granted).collect(),
        valid_for: ends.saturating_sub(now),
    })
}

/// Whether `aud`, a text or a list of texts, holds one of `audience`.
fn is_for(aud: Option<&Value>, audience: &BTreeSet<String>) -> bool {
    let is_it = |value: &Value| value.as_str().is_some_and(|one| audience.contains(one));
    match aud {
        Some(Value::Array(all)) => all.iter().any(is_it),
        Some(one) => is_it(one),
        None => false,
    }
}

/// A `NumericDate` (RFC 7519, section 2), which may have a fraction. Before 1970 is 1970.
fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Duration>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().filter(|seconds| seconds.is_finite()).ok_or(NO_INSTANT)?;
            Ok(Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
        }
        Some(_) => Err(NO_INSTANT),
    }
}

fn named<'a>(claims: &'a Map<String, Value>, Claim(path): &Claim) -> Option<&'a Value> {
    let Some(pointer) = path.strip_prefix('/') else { return claims.get(path) };
    let mut names = pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&names.next()?)?;
    names.try_fold(first, |value, name| value.as_object()?.get(&name))
}

/// The texts of a list, or the words of one text, as `scope` has them (RFC 8693, section 4.2).
fn listed(value: Option<&Value>) -> BTreeSet<&str> {
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(words)) => words.split_ascii_whitespace().collect(),
        _ => BTreeSet::new(),
    }
}

/// Names stand in logs and in header fields.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}
