//! Tokens that an issuer signed, and those that nobody did.

use std::collections::BTreeSet;

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::http::auth::caller::Scope;
use crate::http::auth::rate_limit::CallerLimits;

const ISSUER: &str = "https://id.example";

/// Signs with a key of its own.
enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

fn ed() -> Signer {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Signer::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
}

fn ec() -> Signer {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    Signer::Ec(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Signer {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed(_) => "EdDSA",
            Self::Ec(_) => "ES256",
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ed(key) => key.public_key().as_ref(),
            Self::Ec(key) => key.public_key().as_ref(),
        }
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "x": base64(self.public())}),
            Self::Ec(_) => {
                let (x, y) = self.public()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "x": base64(x), "y": base64(y)})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", base64(signature))
    }

    /// A token as the issuer makes them.
    fn good(&self, id: &str) -> String {
        self.token(&json!({"alg": self.algorithm(), "kid": id, "typ": "at+jwt"}), &claims())
    }
}

fn claims() -> Value {
    let now = since_1970().as_secs();
    json!({
        "iss": ISSUER, "aud": ["other", "bridge"], "sub": "shop-7", "exp": now + 300, "nbf": now, "iat": now,
        "scope": "openid read pay", "instances": ["demo"],
    })
}

fn config() -> JwtConfig {
    JwtConfig {
        issuer: ISSUER.into(),
        audience: BTreeSet::from(["bridge".to_owned()]),
        keys: KeySource::Url("https://id.example/jwks".into()),
        ca_file: None,
        algorithms: SignatureAlgorithm::ALL.into(),
        caller: Claim("sub".into()),
        instances: Claim("instances".into()),
        scopes: Claim("scope".into()),
        scope_prefix: String::new(),
        leeway: Duration::from_secs(30),
        refresh: Duration::from_mins(10),
        refresh_floor: Duration::from_secs(10),
        limits: CallerLimits::TOKEN,
    }
}

/// A verifier that knows these keys.
fn verifier(keys: &[Value]) -> Arc<JwtVerifier> {
    verifier_of(config(), keys)
}

fn verifier_of(config: JwtConfig, keys: &[Value]) -> Arc<JwtVerifier> {
    let store = Arc::new(KeyStore::new(&config));
    store.take(KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), &config.algorithms));
    Arc::new(JwtVerifier::new(config, store))
}

fn refusal(verifier: &Arc<JwtVerifier>, token: &str) -> Rejection {
    let credential = Credential::bearer(token);
    verifier.verify(&credential).expect_err("it is not to be let in")
}

#[test]
fn a_token_of_the_issuer_proves_a_caller_named_by_both_with_what_its_claims_say() {
    for signer in [ed(), ec()] {
        let verifier = verifier(&[ed().jwk("other"), signer.jwk("k")]);
        let token = signer.good("k");
        let credential = Credential::bearer(&token);
        assert!(verifier.recognizes(&credential));
        let caller = verifier.verify(&credential).unwrap();
        assert_eq!(caller.name(), "https://id.example|shop-7");
        assert!(caller.scopes().eq([Scope::Read, Scope::Pay]), "and not what is no scope of the bridge");
        assert!(caller.may_reach("demo") && !caller.may_reach("other"));
        let left = caller.expires_at().unwrap() - Instant::now();
        assert!((Duration::from_secs(320)..Duration::from_secs(331)).contains(&left), "300 s and the leeway: {left:?}");
    }
}

#[test]
fn the_example_of_rfc_7515_verifies_by_its_rsa_key() {
    let jwk = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let verifier = verifier(&[jwk]);
    let (claims, key) = verifier.claims(token).unwrap();
    assert_eq!((claims["iss"].as_str(), key.algorithm), (Some("joe"), SignatureAlgorithm::Rs256));
    assert!(verifier.claims(&token.replace("Rw", "Rg")).is_err());
}

#[test]
fn no_algorithm_but_that_of_its_key_verifies_a_token() {
    for signer in [ed(), ec()] {
        let verifier = verifier(&[signer.jwk("k")]);
        let claims = claims();
        for name in [
            "none", "None", "NONE", "", "HS256", "HS384", "HS512", "RS256", "RS512", "PS256", "ES384", "ES256", "EdDSA",
        ] {
            let header = json!({"alg": name, "kid": "k"});
            if name != signer.algorithm() {
                assert!(refusal(&verifier, &signer.token(&header, &claims)).is_guess, "{name}");
            }
            let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
            for empty in [format!("{message}."), format!("{message}.{}", base64([0; 64]))] {
                refusal(&verifier, &empty);
            }
        }
        refusal(&verifier, &signer.token(&json!({"kid": "k"}), &claims));
    }
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    use hmac::{Hmac, KeyInit, Mac};
    for signer in [ed(), ec()] {
        let jwk = signer.jwk("k");
        let verifier = verifier(std::slice::from_ref(&jwk));
        let spelled = [jwk.to_string().into_bytes(), signer.public().to_vec(), base64(signer.public()).into_bytes()];
        for secret in spelled {
            let header = json!({"alg": "HS256", "kid": "k", "jwk": jwk});
            let message = format!("{}.{}", base64(header.to_string()), base64(claims().to_string()));
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
            mac.update(message.as_bytes());
            let token = format!("{message}.{}", base64(mac.finalize().into_bytes()));
            assert_eq!(refusal(&verifier, &token), WRONG_ALGORITHM);
        }
    }
}

#[test]
fn a_key_that_the_token_brings_itself_or_that_is_not_listed_verifies_nothing() {
    let (known, own) = (ed(), ed());
    let verifier = verifier(&[known.jwk("k")]);
    for header in [
        json!({"alg": "EdDSA", "kid": "k", "jwk": own.jwk("k")}),
        json!({"alg": "EdDSA", "kid": "k", "jku": "https://evil.example/jwks"}),
        json!({"alg": "EdDSA", "kid": "k"}),
        json!({"alg": "EdDSA"}),
        json!({"alg": "EdDSA", "kid": "k", "crit": ["x"], "x": 1}),
    ] {
        refusal(&verifier, &own.token(&header, &claims()));
    }
    refusal(&verifier, &known.token(&json!({"alg": "EdDSA", "kid": "k", "crit": ["x"], "x": 1}), &claims()));
    assert_eq!(refusal(&verifier, &own.good("another")), UNKNOWN_KEY);
    assert!(
        verifier.verify(&Credential::bearer(&known.token(&json!({"alg": "EdDSA"}), &claims()))).is_ok(),
        "there is one"
    );
    let two = verifier_of(config(), &[known.jwk("k"), ec().jwk("l")]);
    assert_eq!(refusal(&two, &known.token(&json!({"alg": "EdDSA"}), &claims())), UNKNOWN_KEY, "it has to say which");
}

proptest! {
    #[test]
    fn no_change_of_a_token_passes(at in any::<prop::sample::Index>(), other in 0..64_usize) {
        let signer = ed();
        let (verifier, token) = (verifier(&[signer.jwk("k")]), signer.good("k"));
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut changed = token.clone().into_bytes();
        let place = at.index(changed.len());
        changed[place] = alphabet[other];
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != token);
        prop_assert!(verifier.verify(&Credential::bearer(&changed)).is_err());
    }

    #[test]
    fn nothing_that_is_presented_panics(text in "(eyJ)?[A-Za-z0-9_.-]{0,80}") {
        let verifier = verifier(&[ed().jwk("k")]);
        let credential = Credential::bearer(&text);
        let _ = verifier.recognizes(&credential);
        prop_assert!(verifier.verify(&credential).is_err());
    }

    #[test]
    fn no_key_set_panics_and_none_lets_a_stranger_in(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        x in prop::collection::vec(any::<u8>(), 0..70),
        kty in prop::sample::select(vec!["OKP", "EC", "RSA", "oct", ""]),
        crv in prop::sample::select(vec!["Ed25519", "P-256", "P-384", ""]),
    ) {
        let _ = KeySet::read(&bytes, &config().algorithms);
        let x = base64(x);
        let jwk = json!({"kty": kty, "crv": crv, "kid": "k", "x": x, "y": x, "n": x.repeat(6), "e": "AQAB", "k": x});
        if let Ok(set) = set(&json!([jwk])) {
            let store = Arc::new(KeyStore::new(&config()));
            store.take(Ok(set));
            let verifier = Arc::new(JwtVerifier::new(config(), store));
            for signer in [ed(), ec()] {
                refusal(&verifier, &signer.good("k"));
            }
        }
    }

    /// Whatever the times are, a token is valid from `nbf` and `iat` to `exp`, each give or take the leeway.
    #[test]
    fn a_token_is_valid_in_its_time_give_or_take_the_leeway(
        exp in -100..100_i64, nbf in prop::option::of(-100..100_i64), iat in prop::option::of(-100..100_i64),
        leeway in 0..60_u64,
    ) {
        const NOW: i64 = 1_800_000_000;
        let config = JwtConfig { leeway: Duration::from_secs(leeway), ..config() };
        let mut given = json!({"iss": ISSUER, "aud": "bridge", "sub": "s", "exp": NOW + exp});
        for (name, offset) in [("nbf", nbf), ("iat", iat)] {
            if let Some(offset) = offset {
                given[name] = json!(NOW + offset);
            }
        }
        let leeway = i64::try_from(leeway).unwrap();
        let is_valid = exp + leeway > 0 && nbf.is_none_or(|nbf| nbf <= leeway) && iat.is_none_or(|iat| iat <= leeway);
        let judged = claims::judge(given.as_object().unwrap(), &config, Duration::from_secs(NOW.unsigned_abs()));
        prop_assert_eq!(judged.is_ok(), is_valid, "{:?}", judged);
        if let Ok(proven) = judged {
            prop_assert_eq!(proven.valid_for, Duration::from_secs((exp + leeway).unsigned_abs()));
        }
    }
}

fn judged(change: impl FnOnce(&mut Value)) -> Result<claims::Proven, claims::Refusal> {
    let mut claims = claims();
    change(&mut claims);
    claims::judge(claims.as_object().unwrap(), &config(), since_1970())
}

#[test]
fn a_token_that_does_not_expire_or_has_times_that_are_none_is_refused() {
    assert!(judged(|_| ()).is_ok());
    for (name, value) in [
        ("exp", Value::Null),
        ("exp", json!("1900000000")),
        ("exp", json!([])),
        ("exp", json!(-1)),
        ("nbf", json!("soon")),
        ("iat", json!({})),
    ] {
        assert!(judged(|claims| claims[name] = value.clone()).is_err(), "{name}: {value}");
    }
    assert!(judged(|claims| drop(claims.as_object_mut().unwrap().remove("exp"))).is_err());
    assert!(judged(|claims| claims["exp"] = json!(1e300)).is_ok(), "a very long time");
}

#[test]
fn the_audience_is_a_text_or_a_list_and_the_issuer_is_one_text() {
    for aud in [json!("bridge"), json!(["bridge"]), json!(["x", "bridge", 7])] {
        assert!(judged(|claims| claims["aud"] = aud).is_ok());
    }
    for aud in
        [json!("other"), json!([]), json!(["x"]), json!(""), Value::Null, json!({"bridge": 1}), json!("bridge x")]
    {
        assert!(judged(|claims| claims["aud"] = aud.clone()).is_err(), "{aud}");
    }
    for iss in [json!("https://id.example/"), json!([ISSUER]), Value::Null, json!("")] {
        assert!(judged(|claims| claims["iss"] = iss.clone()).is_err(), "{iss}");
    }
}

#[test]
fn a_caller_has_a_name_that_can_stand_in_a_log_and_a_header() {
    let longest = "x".repeat(255);
    for name in ["a", "shop@example.com", "auth0|5f7c", &longest] {
        assert_eq!(judged(|claims| claims["sub"] = json!(name)).unwrap().name, format!("{ISSUER}|{name}"));
    }
    let too_long = "x".repeat(256);
    for name in [json!(""), json!("a b"), json!("a\nb"), json!("ü"), json!(too_long), json!(7), Value::Null] {
        assert!(judged(|claims| claims["sub"] = name.clone()).is_err(), "{name}");
    }
}

#[test]
fn claims_are_found_where_the_configuration_says_and_grant_nothing_else() {
    let pointed = JwtConfig {
        caller: Claim("azp".into()),
        instances: Claim("https://pos.example/instances".into()),
        scopes: Claim("/realm_access/roles".into()),
        scope_prefix: "pos:".into(),
        ..config()
    };
    let mut given = claims();
    given["azp"] = json!("kiosk");
    given["https://pos.example/instances"] = json!("demo other");
    given["realm_access"] = json!({"roles": ["pos:read", "pay", "pos:operate2", "pos:events", 7]});
    let proven = claims::judge(given.as_object().unwrap(), &pointed, since_1970()).unwrap();
    assert_eq!(proven.name, format!("{ISSUER}|kiosk"));
    assert_eq!(proven.scopes, BTreeSet::from([Scope::Read, Scope::Events]));
    assert_eq!(proven.instances, Some(BTreeSet::from(["demo".to_owned(), "other".to_owned()])));
    let nothing = judged(|claims| {
        claims.as_object_mut().unwrap().retain(|name, _| !["scope", "instances"].contains(&name.as_str()));
    });
    let nothing = nothing.unwrap();
    assert!(nothing.scopes.is_empty() && nothing.instances == Some(BTreeSet::new()));
    assert_eq!(judged(|claims| claims["instances"] = json!(["*"])).unwrap().instances, None);
}

fn set(keys: &Value) -> Result<KeySet, String> {
    KeySet::read(json!({ "keys": keys }).to_string().as_bytes(), &config().algorithms)
}

#[test]
fn of_a_key_set_only_what_verifies_is_taken_and_it_is_bounded() {
    let good = ed().jwk("good");
    let with = |name: &str, value: Value| {
        let mut jwk = ed().jwk("other");
        jwk[name] = value;
        jwk
    };
    let unusable = [
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("ES256")),
        with("crv", json!("Ed448")),
        with("crv", json!("X25519")),
        with("x", json!("AAAA")),
        with("x", json!("***")),
        with("kty", json!("new")),
        json!({"kty": "oct", "kid": "other", "k": base64("a secret"), "alg": "HS256"}),
        json!({"kty": "RSA", "kid": "other", "e": "AQAB", "n": base64([255; 128])}),
        json!({"kty": "RSA", "kid": "other", "e": "AQAB", "n": base64([255; 256]), "alg": "PS256"}),
        json!({"kty": "EC", "crv": "P-384", "kid": "other", "x": base64([1; 48]), "y": base64([1; 48])}),
        json!({}),
        json!(7),
        ed().jwk("good"),
    ];
    for jwk in unusable {
        let set = set(&json!([good, jwk])).unwrap();
        assert_eq!((set.count(), set.unusable), (1, 1), "{jwk}");
    }
    assert_eq!(set(&json!([good, json!({"kty": "RSA", "e": "AQAB", "n": base64([255; 256])})])).unwrap().count(), 2);
    for bad in [json!([]), json!({}), json!([json!({"kty": "oct", "k": "AAAA"})])] {
        assert!(set(&bad).is_err(), "{bad}");
    }
    let many: Vec<_> = (0..=key_set::MAX_KEYS).map(|number| ed().jwk(&number.to_string())).collect();
    assert!(set(&json!(many[1..])).is_ok() && set(&json!(many)).unwrap_err().contains("more than 64 keys"));
    let large = format!("{{\"keys\":[{good}],\"x\":\"{}\"}}", "x".repeat(key_set::MAX_BYTES));
    assert!(KeySet::read(large.as_bytes(), &config().algorithms).unwrap_err().contains("256 KiB"));
    assert!(KeySet::read(b"not found", &config().algorithms).is_err());
}

#[test]
fn the_configuration_pins_the_algorithms() {
    let (ed, ec) = (ed(), ec());
    let pinned = JwtConfig { algorithms: BTreeSet::from([SignatureAlgorithm::Es256]), ..config() };
    let verifier = verifier_of(pinned, &[ed.jwk("ed"), ec.jwk("ec")]);
    assert!(verifier.verify(&Credential::bearer(&ec.good("ec"))).is_ok());
    assert_eq!(refusal(&verifier, &ed.good("ed")), UNKNOWN_KEY);
}

#[test]
fn a_token_that_the_issuer_signed_and_that_is_over_is_no_guess() {
    let signer = ed();
    let verifier = verifier(&[signer.jwk("k")]);
    let mut over = claims();
    over["exp"] = json!(since_1970().as_secs() - 31);
    let header = json!({"alg": "EdDSA", "kid": "k"});
    assert!(!refusal(&verifier, &signer.token(&header, &over)).is_guess);
    assert!(refusal(&verifier, &ed().token(&header, &claims())).is_guess);
}

#[test]
fn a_fetch_that_fails_leaves_the_keys_in_force_and_one_that_brings_others_ends_the_rights_of_the_old() {
    let (old, new) = (ed(), ed());
    let verifier = verifier(&[old.jwk("old")]);
    let caller = verifier.verify(&Credential::bearer(&old.good("old"))).unwrap();
    assert!(!verifier.keys.take(Err("refused".to_owned())));
    assert!(verifier.recheck(&caller).is_some());
    assert!(verifier.verify(&Credential::bearer(&old.good("old"))).is_ok());
    let status = verifier.keys.status(ISSUER);
    assert_eq!((status.keys, status.fault.as_deref()), (1, Some("refused")));
    let both =
        KeySet::read(json!({"keys": [old.jwk("old"), new.jwk("new")]}).to_string().as_bytes(), &config().algorithms);
    assert!(!verifier.keys.take(both));
    assert!(verifier.recheck(&caller).is_some() && verifier.keys.status(ISSUER).fault.is_none());
    let only_new = KeySet::read(json!({"keys": [new.jwk("new")]}).to_string().as_bytes(), &config().algorithms);
    assert!(verifier.keys.take(only_new), "a key is gone");
    assert!(verifier.recheck(&caller).is_none());
    assert_eq!(refusal(&verifier, &old.good("old")), UNKNOWN_KEY);
    let stricter = JwtVerifier::new(JwtConfig { leeway: Duration::ZERO, ..config() }, Arc::clone(&verifier.keys));
    let caller = verifier.verify(&Credential::bearer(&new.good("new"))).unwrap();
    assert!(Arc::new(stricter).recheck(&caller).is_none(), "what it was judged by is in force no more");
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_are_asked_for_once_in_a_while_and_never_side_by_side() {
    let verifier = verifier(&[ed().jwk("k")]);
    let keys = &verifier.keys;
    assert!(keys.want().is_none(), "they were fetched just now");
    tokio::time::advance(Duration::from_secs(11)).await;
    let first = keys.want().expect("a fetch");
    assert!(!first.has_changed().unwrap() && keys.want().is_some(), "those that come meanwhile wait for it too");
    keys.take(Err("refused".to_owned()));
    assert!(first.has_changed().unwrap() && keys.want().is_none());
}

#[test]
fn what_is_no_jwt_is_left_to_the_other_methods() {
    let verifier = verifier(&[ed().jwk("k")]);
    for token in ["", "s3cret", "a.b.c", "eyJ", "eyJ.a", "eyJ.a.b.c", "eyJ.a b.c", "eyJ\u{fc}.a.b"] {
        assert!(!verifier.recognizes(&Credential::bearer(token)), "{token}");
    }
}
