//! The configuration: every fault at once with its place, and an example that stays true.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use concertpos_bridge::internals::config::Config;
use concertpos_bridge::internals::settings::EffectiveConfig;

fn environment(settings: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    settings.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bridge.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn faults(path: Option<&Path>, settings: &[(&str, &str)]) -> String {
    Config::load(path, environment(settings)).expect_err("faults").to_string()
}

fn shown(printed: &EffectiveConfig) -> BTreeMap<String, Option<String>> {
    printed.iter().map(|entry| (entry.key.clone(), entry.shown.clone())).collect()
}

#[test]
fn one_variable_is_a_whole_configuration() {
    let (config, _) = Config::load(None, environment(&[("BRIDGE_INSTANCES__DEMO__API_KEY", "k")])).unwrap();
    assert_eq!(config.instances["demo"].slug, "demo");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
}

#[test]
fn the_example_shows_every_key_with_exactly_its_default() {
    let text = include_str!("../examples/bridge.toml");
    let (_folder, path) = file(text);
    let (_, example) = Config::load(Some(&path), environment(&[])).unwrap_or_else(|faults| panic!("{faults}"));
    let (_, default) = Config::load(None, environment(&[("BRIDGE_INSTANCES__DEMO__API_KEY", "…")])).unwrap();
    assert_eq!(shown(&example), shown(&default));
    for key in shown(&default).keys() {
        let name = key.rsplit('.').next().unwrap();
        let line = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{name} ="));
        assert!(text.lines().any(line), "{key} is not in the example");
    }
    let (_folder, path) = file(&text.replace("\n# [auth.tokens", "\n[auth.tokens").replace("\n# sha256", "\nsha256"));
    let complaint = faults(Some(&path), &[]);
    assert!(!complaint.contains("unknown"), "the token section names an unknown key: {complaint}");
}

#[test]
fn the_cluster_of_the_example_can_be_switched_on() {
    let text = include_str!("../examples/bridge.toml");
    let begin = text.find("# [cluster]").unwrap();
    let end = text.find("[telemetry]").unwrap();
    let section = text[begin..end].replace("\n# ", "\n");
    let (_folder, path) = file(&format!("{}{}{}", &text[..begin], &section[2..], &text[end..]));
    let complaint = faults(Some(&path), &[]);
    assert!(!complaint.contains("unknown"), "{complaint}");
    assert!(complaint.contains("cluster.database_file: is set beside database"), "{complaint}");
}

#[test]
fn the_issuer_of_the_example_can_be_switched_on() {
    let text = include_str!("../examples/bridge.toml");
    let (begin, end) = (text.find("# [auth.jwt]").unwrap(), text.find("[auth.gateway_key]").unwrap());
    let section = text[begin..end].replace("\n# ", "\n");
    let switched_on = |section: &str| file(&format!("{}{section}{}", &text[..begin], &text[end..]));
    let (_folder, path) = switched_on(&section[2..]);
    let complaint = faults(Some(&path), &[]);
    assert!(complaint.contains("auth.jwt.ca_file: cannot be used"), "the one file that it names: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    let without = section[2..].replace("\nca_file", "\n# ca_file");
    let (_folder, path) = switched_on(&without);
    let (config, _) = Config::load(Some(&path), environment(&[])).unwrap_or_else(|faults| panic!("{faults}"));
    let jwt = config.auth.jwt.unwrap();
    assert_eq!((jwt.issuer.as_str(), jwt.leeway.as_secs(), jwt.algorithms.len()), ("https://id.example", 30, 3));
    let least = "[auth.jwt]\nissuer = \"https://id.example\"\naudience = [\"concertpos-bridge\"]\njwks_url = \"https://id.example/jwks\"\n";
    let (_folder, path) = file(least);
    let (config, _) = Config::load(Some(&path), environment(&[("BRIDGE_INSTANCES__DEMO__API_KEY", "k")])).unwrap();
    assert_eq!(config.auth.jwt.unwrap(), jwt, "the example shows the defaults");
}

#[test]
fn every_fault_of_an_issuer_is_told_at_once_and_with_an_issuer_somebody_can_call() {
    const KEY: (&str, &str) = ("BRIDGE_INSTANCES__DEMO__API_KEY", "k");
    const NO_KEY: (&str, &str) = ("BRIDGE_INSTANCES__DEMO__ACCEPT_GATEWAY_KEY", "false");
    let (folder, path) = file(
        "[auth.jwt]\nissuer = \"a|b\"\naudience = []\njwks_url = \"http://id.example/jwks\"\nalgorithms = [\"HS256\"]\n\
         caller_claim = \"\"\nleeway = \"10m\"\nrefresh = \"1ms\"\nmax_in_flight = 0\nscope = \"x\"\n\
         [auth.tokens.\"a|b\"]\nsha256 = []\n",
    );
    let text = faults(Some(&path), &[KEY]);
    for part in [
        "auth.jwt.issuer: must be",
        "auth.jwt.audience: is missing",
        "auth.jwt.jwks_url: must be https",
        "auth.jwt.algorithms: names `HS256`",
        "auth.jwt.caller_claim: is empty",
        "auth.jwt.leeway: must be at most 5m",
        "auth.jwt.refresh",
        "auth.jwt.max_in_flight",
        "auth.jwt.scope",
        "has a `|` in its name",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let keys = folder.path().join("keys.json");
    let file_setting = ("BRIDGE_AUTH__JWT__JWKS_FILE", keys.to_str().unwrap());
    let whole = [
        KEY,
        NO_KEY,
        ("BRIDGE_AUTH__JWT__ISSUER", "https://id.example"),
        ("BRIDGE_AUTH__JWT__AUDIENCE", "bridge"),
        file_setting,
    ];
    assert!(faults(None, &whole).contains("auth.jwt.jwks_file: cannot be used"), "there is no such file");
    std::fs::write(&keys, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).unwrap();
    assert!(faults(None, &whole).contains("has no key for"));
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(&keys, key).unwrap();
    assert!(Config::load(None, environment(&whole)).is_ok(), "who presents a JWT can call");
    let both = [whole.as_slice(), &[("BRIDGE_AUTH__JWT__JWKS_URL", "https://id.example/jwks")]].concat();
    assert!(faults(None, &both).contains("is set beside jwks_url"));
}

#[test]
fn every_fault_of_a_cluster_is_told_at_once_and_without_the_section_there_is_none() {
    const KEY: (&str, &str) = ("BRIDGE_INSTANCES__DEMO__API_KEY", "k");
    assert!(Config::load(None, environment(&[KEY])).unwrap().0.cluster.is_none());
    let (folder, path) =
        file("[cluster]\nlisten = \"0.0.0.0:8080\"\nlease = \"1s\"\n[cluster.tls]\nkey = \"absent\"\n");
    let text = faults(Some(&path), &[KEY]);
    for part in [
        "cluster.database: is missing",
        "bridge.toml:2",
        "cluster.listen: must differ from server.listen",
        "cluster.advertise: is missing",
        "cluster.secret_file: is missing",
        "bridge.toml:3",
        "cluster.lease: must be from",
        "cluster.tls.certificate: is missing",
        "cluster.tls.ca: is missing",
        "absent cannot be read",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "too short").unwrap();
    let secret_file = ("BRIDGE_CLUSTER__SECRET_FILE", secret.to_str().unwrap());
    let database = ("BRIDGE_CLUSTER__DATABASE", "postgres://someone:hidden@localhost/bridge");
    let listen = ("BRIDGE_CLUSTER__LISTEN", "127.0.0.1:9191");
    let text = faults(None, &[KEY, secret_file, database, listen, ("BRIDGE_CLUSTER__ADVERTISE", "nowhere")]);
    assert!(text.contains("holds less than 32 characters") && text.contains("must be a host and a port"), "{text}");
    assert!(!text.contains("hidden"));

    let elsewhere = ("BRIDGE_CLUSTER__DATABASE", "postgres://someone:hidden@db.example/bridge");
    let text = faults(None, &[KEY, secret_file, elsewhere, listen]);
    assert!(text.contains("cluster.database") && text.contains("sslmode=require"), "{text}");
    assert!(!text.contains("hidden"));

    std::fs::write(&secret, "x".repeat(32)).unwrap();
    let (config, printed) = Config::load(None, environment(&[KEY, secret_file, database, listen])).unwrap();
    let cluster = config.cluster.unwrap();
    assert_eq!(cluster.replicas.advertise, "127.0.0.1:9191");
    assert_eq!(cluster.replicas.lease.as_secs(), 6);
    assert!(cluster.replicas.migrate && !cluster.replicas.name.is_empty());
    assert!(!format!("{cluster:?}{:?}", shown(&printed)).contains("hidden"));
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_an_unknown_key_names_its_nearest() {
    let (_folder, path) =
        file("[gateway]\nmin_links = 0\nmax_link = 3\nformat = \"xml\"\n[instances.exon]\nslug = \"x\"\n");
    let text = faults(Some(&path), &[("BRIDGE_SERVER__LISTEN", "nowhere")]);
    for part in [
        "bridge.toml:2",
        "gateway.min_links",
        "bridge.toml:3",
        "max_links",
        "bridge.toml:4",
        "gateway.format",
        "instances.exon",
        "api_key",
        "BRIDGE_SERVER__LISTEN",
    ] {
        assert!(text.contains(part), "{part} is missing from:\n{text}");
    }
}

#[test]
fn variables_that_are_not_ours_are_ignored_and_ours_misspelled_are_not() {
    let fine = [("BRIDGE_INSTANCES__DEMO__API_KEY", "k"), ("BRIDGE_PORT", "tcp://10.0.0.1:80")];
    assert!(Config::load(None, environment(&fine)).is_ok());
    let misspelled = [("BRIDGE_INSTANCES__DEMO__API_KEY", "k"), ("BRIDGE_GATEWAY__MIN_LINK", "3")];
    assert!(faults(None, &misspelled).contains("BRIDGE_GATEWAY__MIN_LINKS"));
}

#[test]
fn http_2_without_tls_is_refused_with_the_reason_since_it_is_gone() {
    let (_folder, path) = file("[server]\nh2c = false\n[instances.demo]\napi_key = \"k\"\n");
    let text = faults(Some(&path), &[]);
    assert!(text.contains("server.h2c") && text.contains("HTTP/1.1 only") && text.contains(":2"), "{text}");
    let (_, printed) = Config::load(None, environment(&[("BRIDGE_INSTANCES__DEMO__API_KEY", "k")])).unwrap();
    assert!(!shown(&printed).contains_key("server.h2c"));
}

#[test]
fn what_would_let_everybody_or_nobody_in_is_refused() {
    let open = [
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "k"),
        ("BRIDGE_AUTH__MODE", "none"),
        ("BRIDGE_SERVER__LISTEN", "0.0.0.0:8080"),
    ];
    assert!(faults(None, &open).contains("auth.mode"));
    let nobody = [("BRIDGE_INSTANCES__DEMO__API_KEY", "k"), ("BRIDGE_INSTANCES__DEMO__ACCEPT_GATEWAY_KEY", "false")];
    assert!(faults(None, &nobody).contains("nobody"));
}

#[test]
fn a_key_that_is_there_and_wrong_is_one_fault() {
    for wrong in ["api_key = \"\"", "api_key = 7", "api_key_file = \"/nowhere\""] {
        let (_folder, path) = file(&format!("[instances.demo]\n{wrong}\n"));
        let text = faults(Some(&path), &[]);
        assert_eq!(text.matches("instances.demo.api_key").count(), 1, "{wrong}:\n{text}");
        assert!(!text.contains("is missing"), "{wrong}:\n{text}");
    }
}

#[test]
fn no_secret_is_shown_whatever_is_printed() {
    let secret = "the-key-of-the-festival";
    let (config, printed) = Config::load(None, environment(&[("BRIDGE_INSTANCES__DEMO__API_KEY", secret)])).unwrap();
    assert!(!format!("{config:?}").contains(secret));
    assert!(!printed.to_string().contains(secret));
    assert!(printed.to_string().contains("(redacted)"));
    let (_folder, path) = file(&format!("[instances.demo]\napi_key = \"{secret}\"\napi_key_file = \"/nowhere\"\n"));
    assert!(!faults(Some(&path), &[("BRIDGE_GATEWAY__FORMAT", "x")]).contains(secret));
}

#[test]
fn two_instances_of_one_slug_are_a_fault() {
    for (one, other) in [("slug = \"Fest\"", "slug = \"Fest\""), ("slug = \"beta\"", ""), ("", "slug = \"alpha\"")] {
        let (_folder, path) =
            file(&format!("[instances.alpha]\napi_key = \"a\"\n{one}\n[instances.beta]\napi_key = \"b\"\n{other}\n"));
        let text = faults(Some(&path), &[]);
        assert!(text.contains("instances.beta.slug") && text.contains("instances.alpha already"), "{text}");
    }
    let (_folder, path) = file(
        "[instances.alpha]\napi_key = \"a\"\nslug = \"beta\"\n[instances.beta]\napi_key = \"b\"\nslug = \"alpha\"\n",
    );
    assert!(Config::load(Some(&path), environment(&[])).is_ok(), "each has its own");
}

#[test]
fn a_variable_with_single_underscores_is_ignored_with_a_hint_and_those_of_other_programs_without() {
    let kubernetes = [
        ("BRIDGE_PORT", "tcp://10.0.0.7:8080"),
        ("BRIDGE_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("BRIDGE_SERVICE_HOST", "10.0.0.7"),
        ("BRIDGE_SERVICE_PORT_HTTP", "8080"),
        ("BRIDGE_SERVER_PORT", "tcp://10.0.0.8:8080"),
        ("BRIDGE_INSTANCES_SERVICE_HOST", "10.0.0.9"),
    ];
    let meant = [
        ("BRIDGE_INSTANCES_DEMO_API_KEY", "BRIDGE_INSTANCES__DEMO__API_KEY"),
        ("BRIDGE_INSTANCES_MY_FESTIVAL_API_KEY_FILE", "BRIDGE_INSTANCES__MY_FESTIVAL__API_KEY_FILE"),
        ("BRIDGE_AUTH_TOKENS_SHOP_SHA256", "BRIDGE_AUTH__TOKENS__SHOP__SHA256"),
        ("BRIDGE_GATEWAY_MAX_LINKS", "BRIDGE_GATEWAY__MAX_LINKS"),
        ("BRIDGE_SERVER_TLS_CERTIFICATE", "BRIDGE_SERVER__TLS__CERTIFICATE"),
    ];
    let key = ("BRIDGE_INSTANCES__FESTIVAL__API_KEY", "k");
    for (ignored, spelled) in meant {
        let settings = [&kubernetes[..], &[(ignored, "hush")]].concat();
        let (_, printed) = Config::load(None, environment(&[&settings[..], &[key]].concat())).unwrap();
        let warnings: Vec<_> = printed.warnings().map(ToString::to_string).collect();
        let expected = format!(
            "environment {ignored}: is ignored, since sections are divided by two underscores: it is spelled {spelled}"
        );
        assert_eq!(warnings, std::slice::from_ref(&expected));
        // Without an instance nothing starts, and the hint is among the errors.
        let faults = faults(None, &settings);
        assert!(faults.contains(&expected) && faults.contains("names no instance"), "{faults}");
        assert!(!faults.contains("hush"), "{faults}");
    }
    let faults = faults(None, &[&kubernetes[..], &[("BRIDGE_DEMO_API_KEY", "hush")]].concat());
    assert!(faults.contains("(ignored, for want of two underscores: BRIDGE_DEMO_API_KEY)"), "{faults}");
    assert!(!faults.contains("PORT") && !faults.contains("hush"), "{faults}");
}

#[test]
fn a_variable_with_a_wrong_number_of_underscores_is_told_how_it_is_spelled() {
    for (wrong, spelled) in [
        ("BRIDGE_INSTANCES__DEMO_API_KEY", "BRIDGE_INSTANCES__DEMO__API_KEY"),
        ("BRIDGE_INSTANCES_DEMO__API_KEY", "BRIDGE_INSTANCES__DEMO__API_KEY"),
        ("BRIDGE_GATEWAY__MAX__LINKS", "BRIDGE_GATEWAY__MAX_LINKS"),
    ] {
        let faults = faults(None, &[(wrong, "5")]);
        assert!(
            faults.contains(&format!("{wrong}: ")) && faults.contains(&format!("is spelled {spelled}")),
            "{faults}"
        );
    }
}
