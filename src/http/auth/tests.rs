//! Authentication and the rights of callers, case by case.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::test::TestRequest;

use super::authorization::Authorization;
use super::caller::GATEWAY_KEY;
use super::verifier::digest;
use super::*;
use crate::http::testing;

/// The address that these tests call from.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn token(secret: &str, instances: &[&str], scopes: &[Scope]) -> Token {
    Token {
        sha256: vec![digest(secret)],
        instances: instances.iter().map(ToString::to_string).collect(),
        scopes: scopes.iter().copied().collect(),
        max_in_flight: 64,
        per_second: 200,
    }
}

fn config(tokens: impl IntoIterator<Item = (&'static str, Token)>) -> Config {
    let tokens = tokens.into_iter().map(|(name, token)| (name.to_owned(), token)).collect();
    Config { tokens, ..Config::default() }
}

fn keys(keys: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
    keys.iter().map(|(instance, key)| ((*instance).to_owned(), SecretString::from(*key))).collect()
}

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn code(result: Result<impl fmt::Debug, Problem>) -> &'static str {
    result.unwrap_err().entry().code
}

#[test]
fn a_token_may_do_what_its_scopes_say_where_its_instances_say() {
    let auth = Auth::new(&config([("shop", token("s3cret", &["demo"], &[Scope::Read]))]), &keys(&[])).unwrap();
    let caller = auth.by_header(&headers(&["Bearer s3cret"]), HERE).unwrap();
    assert_eq!(caller.name(), "shop");
    assert!(caller.permit("demo", Scope::Read).is_ok());
    assert_eq!(code(caller.permit("demo", Scope::Pay)), "forbidden");
    assert_eq!(code(caller.permit("other", Scope::Read)), "forbidden");
}

#[test]
fn an_unknown_or_malformed_token_is_unauthenticated_and_challenged() {
    let auth = Auth::new(&config([("shop", token("s3cret", &["demo"], &[]))]), &keys(&[("demo", "")])).unwrap();
    let wrong: [&[&str]; 8] = [
        &[],
        &["Bearer wrong"],
        &["Bearer "],
        &["Bearer"],
        &["Basic s3cret"],
        &["s3cret"],
        &["Bearer s3cret extra"],
        &["Bearer s3cret", "Bearer s3cret"],
    ];
    for values in wrong {
        let problem = auth.by_header(&headers(values), HERE).unwrap_err();
        assert_eq!(problem.entry().code, "unauthenticated", "{values:?}");
        let challenge = problem.render("", None).headers().get(WWW_AUTHENTICATE).unwrap().to_str().unwrap().to_owned();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
    }
    assert!(auth.by_token("", HERE).is_err(), "an empty key opens nothing");
    assert!(auth.by_header(&headers(&["bearer s3cret"]), HERE).is_ok(), "the scheme's case does not matter");
}

#[test]
fn a_header_without_a_bearer_token_is_challenged_and_not_throttled() {
    let auth = Auth::new(&config([("shop", token("s3cret", &["demo"], &[]))]), &keys(&[("demo", "")])).unwrap();
    for value in ["s3cret", "Basic s3cret", "Bearer"].repeat(50) {
        let problem = auth.by_header(&headers(&[value]), HERE).unwrap_err();
        let answer = problem.render("", None);
        assert_eq!(answer.headers().get(WWW_AUTHENTICATE).unwrap(), "Bearer", "{value}");
    }
    assert!(auth.by_header(&headers(&["Bearer s3cret"]), HERE).is_ok(), "nothing was guessed");
}

#[test]
fn a_rotated_token_keeps_its_name() {
    let mut shop = token("old", &["demo"], &[Scope::Read]);
    shop.sha256.push(digest("new"));
    let auth = Auth::new(&config([("shop", shop)]), &keys(&[])).unwrap();
    for secret in ["old", "new"] {
        assert_eq!(auth.by_token(secret, HERE).unwrap().name(), "shop");
    }
}

#[test]
fn a_gateway_key_grants_every_scope_but_operate_for_its_own_instances() {
    let auth = Auth::new(&config([]), &keys(&[("a", "one"), ("b", "two"), ("c", "one")])).unwrap();
    let caller = auth.by_token("one", HERE).unwrap();
    assert_eq!(caller.name(), GATEWAY_KEY);
    for scope in Scope::ALL {
        assert_eq!(caller.permit("a", scope).is_ok(), scope != Scope::Operate, "{scope}");
        assert_eq!(caller.permit("c", scope).is_ok(), scope != Scope::Operate, "{scope}");
        assert!(caller.permit("b", scope).is_err(), "{scope}");
    }
}

#[test]
fn without_tokens_everyone_may_do_everything() {
    let auth = Auth::new(&Config { mode: Mode::None, ..Config::default() }, &keys(&[])).unwrap();
    let caller = auth.by_header(&headers(&[]), HERE).unwrap();
    for scope in Scope::ALL {
        assert!(caller.permit("any", scope).is_ok());
    }
}

#[test]
fn a_configuration_without_callers_or_with_ambiguous_names_is_refused() {
    assert_eq!(Auth::new(&config([]), &keys(&[])).unwrap_err(), [AuthConfigError::NoCaller]);
    let both = config([("a", token("same", &[], &[])), ("b", token("same", &[], &[]))]);
    assert_eq!(Auth::new(&both, &keys(&[])).unwrap_err(), [AuthConfigError::SharedDigest("a".into(), "b".into())]);
    let reserved = config([(GATEWAY_KEY, token("x", &[], &[]))]);
    assert_eq!(Auth::new(&reserved, &keys(&[])).unwrap_err(), [AuthConfigError::ReservedName(GATEWAY_KEY.into())]);
}

#[test]
fn a_reload_replaces_the_tokens_and_a_bad_one_leaves_the_old_in_force() {
    let auth = Auth::new(&config([("shop", token("old", &[], &[]))]), &keys(&[])).unwrap();
    assert!(auth.reload(&config([]), &keys(&[])).is_err());
    assert!(auth.by_token("old", HERE).is_ok());
    auth.reload(&config([("shop", token("new", &[], &[]))]), &keys(&[])).unwrap();
    assert!(auth.by_token("old", HERE).is_err() && auth.by_token("new", HERE).is_ok());
}

#[test]
fn a_connection_that_remembers_its_caller_notices_a_reload_and_another_token() {
    let both = config([("shop", token("s3cret", &[], &[])), ("till", token("other", &[], &[]))]);
    let auth = Auth::new(&both, &keys(&[])).unwrap();
    let connection = RememberedCaller::default();
    let ask = |values: &[&str]| {
        let caller = auth.by_header_again(&headers(values), HERE, Some(&connection));
        caller.map(|caller| caller.name().to_owned()).map_err(|problem| problem.entry().code)
    };
    for _ in 0..2 {
        assert_eq!(ask(&["Bearer s3cret"]), Ok("shop".to_owned()));
    }
    assert_eq!(ask(&["Bearer wrong"]), Err("unauthenticated"));
    assert_eq!(ask(&["Bearer s3cret", "Bearer s3cret"]), Err("unauthenticated"));
    assert_eq!(ask(&["Bearer other"]), Ok("till".to_owned()));
    assert_eq!(ask(&["Bearer s3cret"]), Ok("shop".to_owned()));
    auth.reload(&config([("till", token("other", &[], &[]))]), &keys(&[])).unwrap();
    assert_eq!(ask(&["Bearer s3cret"]), Err("unauthenticated"));
    assert_eq!(ask(&["Bearer other"]), Ok("till".to_owned()));
}

#[test]
fn nothing_secret_shows_in_debug() {
    let auth = Auth::new(&config([("shop", token("s3cret", &[], &[]))]), &keys(&[("demo", "key-123")])).unwrap();
    let shown = format!("{auth:?}");
    assert!(!shown.contains("key-123") && !shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("2 tokens"), "{shown}");
}

#[test]
fn an_address_that_guesses_is_not_listened_to_and_tells_a_right_guess_from_a_wrong_one_no_more() {
    let auth = Auth::new(&config([]), &keys(&[("demo", "k")])).unwrap();
    let (tills, guesser): (IpAddr, IpAddr) = (HERE, "198.51.100.9".parse().unwrap());
    assert!(auth.by_token("k", tills).is_ok());
    for guess in 0..50 {
        assert!(auth.by_token(&guess.to_string(), guesser).is_err());
    }
    assert!(matches!(auth.by_token("wrong", guesser), Err(AuthError::Throttled { .. })));
    assert!(
        matches!(auth.by_token("k", guesser), Err(AuthError::Throttled { .. })),
        "a right guess looks like a wrong one"
    );
    assert!(auth.by_token("k", tills).is_ok(), "nobody elsewhere is slowed");
    for guess in 0..50 {
        assert!(auth.by_token(&guess.to_string(), tills).is_err());
    }
    assert!(auth.by_token("k", tills).is_ok(), "one till with an old key does not lock the others out");
}

#[test]
fn while_an_address_is_slowed_only_a_token_that_was_accepted_there_is_told_from_a_wrong_one() {
    let mut shop = token("old", &["demo"], &[Scope::Read]);
    shop.sha256.push(digest("new"));
    let auth = Auth::new(&config([("shop", shop)]), &keys(&[("demo", "k")])).unwrap();
    assert!(auth.by_token("old", HERE).is_ok());
    for guess in 0..50 {
        assert!(auth.by_token(&guess.to_string(), HERE).is_err());
    }
    let refusals = ["wrong", "new", "k", ""].map(|token| auth.by_token(token, HERE).unwrap_err());
    for refusal in refusals {
        let AuthError::Throttled { retry_after } = refusal else { panic!("{refusal:?}") };
        assert!(!retry_after.is_zero());
    }
    assert!(auth.by_token("old", HERE).is_ok(), "this very token was accepted there");
    auth.reload(&config([("shop", token("new", &["demo"], &[Scope::Read]))]), &keys(&[])).unwrap();
    assert!(auth.by_token("old", HERE).is_err(), "an accepted token that was revoked is let in no more");
}

#[test]
fn a_token_for_every_instance_reaches_those_that_come_later() {
    let tokens = [("all", token("s3cret", &[EVERY_INSTANCE], &[Scope::Operate])), ("one", token("x", &["a"], &[]))];
    let auth = Auth::new(&config(tokens), &keys(&[])).unwrap();
    let (all, one) = (auth.by_token("s3cret", HERE).unwrap(), auth.by_token("x", HERE).unwrap());
    assert!(all.permit("whatever", Scope::Operate).is_ok() && all.may_reach_all(["a", "b"]));
    assert!(one.may_reach_all(["a"]) && !one.may_reach_all(["a", "b"]) && !one.may_reach(EVERY_INSTANCE));
}

#[test]
fn a_reload_leaves_what_is_in_flight_counted() {
    let shop = |secret| Token { max_in_flight: 1, ..token(secret, &[], &[]) };
    let auth = Auth::new(&config([("shop", shop("old"))]), &keys(&[])).unwrap();
    let place = auth.by_token("old", HERE).unwrap().admit(Purpose::Other).unwrap();
    auth.reload(&config([("shop", shop("new"))]), &keys(&[])).unwrap();
    assert!(auth.by_token("new", HERE).unwrap().admit(Purpose::Other).is_err());
    drop(place);
    assert!(auth.by_token("new", HERE).unwrap().admit(Purpose::Other).is_ok());
}

/// A second authentication method, as signed assertions would be: `Bearer signed.NAME.ok` proves NAME.
#[derive(Debug, Default)]
struct Signed {
    revoked: Arc<AtomicBool>,
}

const FORGED: Rejection = Rejection::guess("The signature is not valid.");

impl Signed {
    fn caller(value: &str) -> Result<Caller, Rejection> {
        let name = value.strip_prefix("signed.").and_then(|rest| rest.strip_suffix(".ok")).ok_or(FORGED)?;
        let scopes = BTreeSet::from([Scope::Read, Scope::Events]);
        let limiter = CallerLimiter::kept(CallerLimits::TOKEN, None);
        let caller = Caller::new(name, Some(BTreeSet::from(["demo".to_owned()])), scopes, Some(limiter));
        Ok(caller.with_credential(digest(value)))
    }
}

impl Verifier for Signed {
    fn recognizes(&self, credential: &Credential<'_>) -> bool {
        credential.is_bearer() && credential.value().starts_with("signed.")
    }

    fn verify(&self, credential: &Credential<'_>) -> Result<Caller, Rejection> {
        Self::caller(credential.value())
    }

    fn recheck(&self, caller: &Caller) -> Option<Caller> {
        let rechecked = Self::caller(&format!("signed.{}.ok", caller.name())).ok()?;
        let is_own = caller.credential() == rechecked.credential();
        (is_own && !self.revoked.load(Ordering::Relaxed)).then_some(rechecked)
    }

    fn callers(&self) -> Vec<Caller> {
        Vec::new()
    }
}

/// `Bearer s3cret` is the token of `shop`, and signed callers are let in too.
fn two_methods(signed: Signed) -> Verifiers {
    let (tokens, errors) =
        TokenStore::new(&config([("shop", token("s3cret", &["demo"], &[Scope::Read]))]), &keys(&[]), &[]);
    assert!(errors.is_empty());
    Verifiers::new(Mode::Tokens, vec![Box::new(signed), Box::new(tokens)])
}

#[test]
fn a_credential_is_verified_by_the_method_that_recognizes_it_and_all_methods_share_the_throttle() {
    let auth = Auth::with(two_methods(Signed::default()));
    assert_eq!(auth.by_token("s3cret", HERE).unwrap().name(), "shop");
    let signed = auth.by_token("signed.kiosk.ok", HERE).unwrap();
    assert_eq!(signed.name(), "kiosk");
    assert!(signed.permit("demo", Scope::Read).is_ok() && signed.permit("demo", Scope::Pay).is_err());
    assert_eq!(auth.by_token("signed.kiosk.no", HERE).unwrap_err(), AuthError::Rejected(FORGED));
    assert!(matches!(auth.by_token("wrong", HERE), Err(AuthError::Rejected(rejection)) if rejection != FORGED));
    for guess in 0..50 {
        assert!(auth.by_token(&format!("signed.{guess}.no"), HERE).is_err());
    }
    assert!(matches!(auth.by_token("signed.kiosk.no", HERE), Err(AuthError::Throttled { .. })));
    assert!(matches!(auth.by_token("signed.other.ok", HERE), Err(AuthError::Throttled { .. })));
    for accepted in ["s3cret", "signed.kiosk.ok"] {
        assert!(auth.by_token(accepted, HERE).is_ok(), "{accepted} was accepted from this address before");
    }
}

#[test]
fn a_long_connection_ends_when_the_method_that_verified_it_no_longer_knows_its_credential() {
    let revoked = Arc::new(AtomicBool::new(false));
    let auth = Arc::new(Auth::with(two_methods(Signed { revoked: Arc::clone(&revoked) })));
    let [mut signed, mut token] = ["signed.kiosk.ok", "s3cret"].map(|credential| {
        let caller = auth.by_token(credential, HERE).unwrap();
        Authorization::new(Arc::clone(&auth), caller, Arc::from("demo"), Some(Scope::Read))
    });
    assert!(signed.is_valid() && token.is_valid());
    revoked.store(true, Ordering::Relaxed);
    auth.replace(two_methods(Signed { revoked }));
    assert!(!signed.is_valid() && token.is_valid());
}

#[actix_web::test]
async fn a_request_is_let_in_by_either_method() {
    let auth = Arc::new(Auth::with(two_methods(Signed::default())));
    for (credential, code) in [
        ("s3cret", "unknown-instance"),
        ("signed.kiosk.ok", "unknown-instance"),
        ("signed.kiosk.no", "unauthenticated"),
        ("wrong", "unauthenticated"),
    ] {
        let request = TestRequest::get().uri("/v1/instances/demo/config");
        let request = request.insert_header((AUTHORIZATION, format!("Bearer {credential}")));
        let answer = testing::ask_with(crate::http::Config::default(), Arc::clone(&auth), request).await;
        assert_eq!(answer.code(), code, "{credential}");
    }
}

#[test]
fn each_of_thousands_of_keys_is_found_and_opens_its_own_instance_alone() {
    let names: Vec<_> = (0..3000).map(|number| (format!("event-{number}"), format!("key-{number}"))).collect();
    let given: Vec<_> = names.iter().map(|(name, key)| (name.as_str(), key.as_str())).collect();
    // One key is a configured token as well, which goes first.
    let config = config([("shop", token("key-7", &["demo"], &[Scope::Read]))]);
    let (store, errors) = TokenStore::new(&config, &keys(&given), &[]);
    assert!(errors.is_empty(), "{errors:?}");
    for (number, (name, key)) in given.into_iter().enumerate() {
        let caller = store.verify(&Credential::bearer(key)).unwrap();
        if number == 7 {
            assert_eq!((caller.name(), caller.may_reach("demo"), caller.may_reach(name)), ("shop", true, false));
        } else {
            assert!(caller.may_reach(name) && !caller.may_reach(&format!("event-{}", number + 1)), "{name}");
        }
    }
    assert!(store.verify(&Credential::bearer("key-3000")).is_err());
}
