//! The rights of callers, case by case.

use super::*;

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
    Config { mode: Mode::Tokens, tokens: tokens.into_iter().map(|(name, token)| (name.to_owned(), token)).collect() }
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
    let caller = auth.by_header(&headers(&["Bearer s3cret"])).unwrap();
    assert_eq!(caller.name(), "shop");
    assert!(caller.permit("demo", Scope::Read).is_ok());
    assert_eq!(code(caller.permit("demo", Scope::Pay)), "forbidden");
    assert_eq!(code(caller.permit("other", Scope::Read)), "forbidden");
}

#[test]
fn whatever_is_no_known_token_is_unauthenticated_and_challenged() {
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
        let problem = auth.by_header(&headers(values)).unwrap_err();
        assert_eq!(problem.entry().code, "unauthenticated", "{values:?}");
        let challenge = problem.render("", None).headers().get(WWW_AUTHENTICATE).unwrap().to_str().unwrap().to_owned();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
    }
    assert!(auth.by_token("").is_none(), "an empty key opens nothing");
    assert!(auth.by_header(&headers(&["bearer s3cret"])).is_ok(), "the scheme's case does not matter");
}

#[test]
fn a_rotated_token_keeps_its_name() {
    let mut shop = token("old", &["demo"], &[Scope::Read]);
    shop.sha256.push(digest("new"));
    let auth = Auth::new(&config([("shop", shop)]), &keys(&[])).unwrap();
    for secret in ["old", "new"] {
        assert_eq!(auth.by_token(secret).unwrap().name(), "shop");
    }
}

#[test]
fn a_gateway_key_grants_every_scope_but_operate_for_its_own_instances() {
    let auth = Auth::new(&config([]), &keys(&[("a", "one"), ("b", "two"), ("c", "one")])).unwrap();
    let caller = auth.by_token("one").unwrap();
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
    let caller = auth.by_header(&headers(&[])).unwrap();
    for scope in Scope::ALL {
        assert!(caller.permit("any", scope).is_ok());
    }
}

#[test]
fn a_configuration_nobody_can_use_or_that_confuses_names_is_refused() {
    assert_eq!(Auth::new(&config([]), &keys(&[])).unwrap_err(), [Refusal::Nobody]);
    let both = config([("a", token("same", &[], &[])), ("b", token("same", &[], &[]))]);
    assert_eq!(Auth::new(&both, &keys(&[])).unwrap_err(), [Refusal::Shared("a".into(), "b".into())]);
    let reserved = config([(GATEWAY_KEY, token("x", &[], &[]))]);
    assert_eq!(Auth::new(&reserved, &keys(&[])).unwrap_err(), [Refusal::Reserved(GATEWAY_KEY.into())]);
}

#[test]
fn a_reload_replaces_the_tokens_and_a_bad_one_leaves_the_old_in_force() {
    let auth = Auth::new(&config([("shop", token("old", &[], &[]))]), &keys(&[])).unwrap();
    assert!(auth.reload(&config([]), &keys(&[])).is_err());
    assert!(auth.by_token("old").is_some());
    auth.reload(&config([("shop", token("new", &[], &[]))]), &keys(&[])).unwrap();
    assert!(auth.by_token("old").is_none() && auth.by_token("new").is_some());
}

#[test]
fn nothing_secret_shows_in_debug() {
    let auth = Auth::new(&config([("shop", token("s3cret", &[], &[]))]), &keys(&[("demo", "key-123")])).unwrap();
    let shown = format!("{auth:?}");
    assert!(!shown.contains("key-123") && !shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("2 tokens"), "{shown}");
}
