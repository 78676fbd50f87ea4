//! A configuration that `serve` refuses is refused by `validate` too, with the same words and status 2.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod running;

use std::path::Path;

use running::{free_address, run, text};

/// A good configuration; each case adds to it, or says something else in its place.
const GOOD: &str = "[instances.demo]\napi_key = \"k\"\n";

/// What a case adds to the file, what it sets in the environment, and the setting that its fault names.
struct Case {
    file: &'static str,
    environment: &'static [(&'static str, &'static str)],
    blamed: &'static str,
}

const fn file(file: &'static str, blamed: &'static str) -> Case {
    Case { file, environment: &[], blamed }
}

const fn variable(environment: &'static [(&'static str, &'static str)], blamed: &'static str) -> Case {
    Case { file: "", environment, blamed }
}

const DIGESTS: &str = "[auth.tokens.a]\nsha256 = [\"0000000000000000000000000000000000000000000000000000000000000001\"]\n\
    instances = [\"demo\"]\nscopes = [\"read\"]\n\
    [auth.tokens.b]\nsha256 = [\"0000000000000000000000000000000000000000000000000000000000000001\"]\n\
    instances = [\"demo\"]\nscopes = [\"read\"]\n";

const RESERVED: &str = "[auth.tokens.gateway-key]\n\
    sha256 = [\"0000000000000000000000000000000000000000000000000000000000000001\"]\n\
    instances = [\"demo\"]\nscopes = [\"read\"]\n";

const EVERY_AND_ONE: &str = "[auth.tokens.a]\n\
    sha256 = [\"0000000000000000000000000000000000000000000000000000000000000001\"]\n\
    instances = [\"*\", \"demo\"]\nscopes = [\"read\"]\n";

const CASES: &[Case] = &[
    file(DIGESTS, "auth.tokens.b.sha256"),
    file(RESERVED, "auth.tokens.gateway-key"),
    file(EVERY_AND_ONE, "auth.tokens.a.instances"),
    variable(&[("BRIDGE_CACHE__STORE", "data/../journal"), ("BRIDGE_PAYMENTS__JOURNAL", "./journal/")], "cache.store"),
    variable(&[("BRIDGE_PAYMENTS__JOURNAL", "file")], "payments.journal"),
    variable(&[("BRIDGE_PAYMENTS__JOURNAL", "file/below")], "payments.journal"),
    variable(&[("BRIDGE_CACHE__STORE", "file")], "cache.store"),
    variable(&[("BRIDGE_TELEMETRY__OTLP_ENDPOINT", "http://")], "telemetry.otlp_endpoint"),
    variable(&[("BRIDGE_TELEMETRY__OTLP_ENDPOINT", "http://collector:99999")], "telemetry.otlp_endpoint"),
    variable(&[("BRIDGE_TELEMETRY__OTLP_ENDPOINT", "http://a b")], "telemetry.otlp_endpoint"),
    variable(&[("BRIDGE_TELEMETRY__OTLP_ENDPOINT", "collector:4318")], "telemetry.otlp_endpoint"),
    variable(
        &[("BRIDGE_GATEWAY__URL", "wss://{shard}.example/?instance={instance}&Content-Type={fmt}")],
        "gateway.url",
    ),
    variable(&[("BRIDGE_GATEWAY__URL", "wss://{shard}.example:99999/?instance={instance}")], "gateway.url"),
    variable(&[("BRIDGE_GATEWAY__URL", "wss:///{shard}?instance={instance}")], "gateway.url"),
    variable(&[("BRIDGE_GATEWAY__URL", "https://{shard}.example/?instance={instance}")], "gateway.url"),
    variable(&[("BRIDGE_GATEWAY__MAX_LINKS", "100000")], "gateway.max_links"),
    variable(&[("BRIDGE_GATEWAY__MIN_LINKS", "100000"), ("BRIDGE_GATEWAY__MAX_LINKS", "100000")], "gateway.max_links"),
    variable(&[("BRIDGE_TELEMETRY__LOG", "inof")], "telemetry.log"),
    variable(&[("BRIDGE_TELEMETRY__LOG", "concertpos_bridge=debgu")], "telemetry.log"),
    variable(&[("BRIDGE_TELEMETRY__LOG", "concertpos_brigde=debug")], "telemetry.log"),
    variable(&[("BRIDGE_TELEMETRY__LOG", "warn,concertpos_bridge")], "telemetry.log"),
    variable(&[("BRIDGE_SERVER__LISTEN", "127.0.0.1:99999")], "server.listen"),
    variable(
        &[("BRIDGE_SERVER__LISTEN", "0.0.0.0:8080"), ("BRIDGE_SERVER__ADMIN_LISTEN", "127.0.0.1:8080")],
        "server.admin_listen",
    ),
    variable(&[("BRIDGE_SERVER__PUBLIC_URL", "https://pos.example:99999")], "server.public_url"),
    variable(&[("BRIDGE_SERVER__PUBLIC_URL", "https://pos.example/?a=b")], "server.public_url"),
    variable(&[("BRIDGE_SERVER__PUBLIC_URL", "pos.example")], "server.public_url"),
    variable(&[("BRIDGE_SERVER__CORS_ORIGINS", "https://shop.example/path")], "server.cors_origins"),
    variable(&[("BRIDGE_SERVER__CORS_ORIGINS", "https://Shop.example")], "server.cors_origins"),
    variable(&[("BRIDGE_SERVER__CORS_ORIGINS", "*")], "server.cors_origins"),
    variable(&[("BRIDGE_SERVER__CORS_ORIGINS", "https://shop.example:99999")], "server.cors_origins"),
    variable(&[("BRIDGE_SERVER__TRUSTED_PROXIES", "10.0.0.0/33")], "server.trusted_proxies"),
    variable(&[("BRIDGE_AUTH__MODE", "none"), ("BRIDGE_SERVER__LISTEN", "0.0.0.0:8080")], "auth.mode"),
    file("[instances.zeus]\napi_key = \"k\"\n", "instances.zeus"),
    file("[instances.livez]\napi_key = \"k\"\n", "instances.livez"),
    file("[instances.docs]\napi_key = \"k\"\n", "instances.docs"),
    file("[instances.gateway]\napi_key = \"k\"\n", "instances.gateway"),
    file("[server.tls]\ncertificate = \"file\"\nkey = \"file\"\n", "server.tls.certificate"),
];

/// What a command says of a configuration.
fn told(command: &str, folder: &Path, case: &Case) -> (Option<i32>, String) {
    let (config, listen) = (folder.join("bridge.toml"), free_address());
    std::fs::write(&config, format!("{GOOD}{}", case.file)).unwrap();
    let mut environment = vec![("BRIDGE_SERVER__LISTEN", listen.as_str())];
    environment.extend(case.environment);
    // Of a variable that is set twice the last counts.
    let script = format!("cd {} && exec {} {command} --config bridge.toml", folder.display(), running::PROGRAM);
    let output =
        std::process::Command::new("timeout").args(["20", "bash", "-c", &script]).envs(environment).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn what_serve_refuses_validate_refuses_in_the_same_words() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let serve = told("serve", folder.path(), case);
        assert_eq!(serve.0, Some(2), "{}: {}", case.blamed, serve.1);
        assert!(serve.1.contains(&format!("{}: ", case.blamed)), "{}: {}", case.blamed, serve.1);
        assert_eq!(serve.1.lines().count(), 1, "one fault: {}", serve.1);
        assert_eq!(told("validate", folder.path(), case), serve, "{}", case.blamed);
        assert!(!folder.path().join("data").exists(), "nothing was made for {}", case.blamed);
    }
}

#[test]
fn what_is_like_those_and_right_is_accepted() {
    let right: &[&[(&str, &str)]] = &[
        &[("BRIDGE_GATEWAY__URL", "wss://{shard}.example:9443/x?instance={instance}&Content-Type={format}")],
        &[("BRIDGE_TELEMETRY__LOG", "warn,concertpos_bridge=debug,hyper=off")],
        &[("BRIDGE_TELEMETRY__LOG", "concertpos_bridge=debug")],
        &[("BRIDGE_TELEMETRY__LOG", "off")],
        &[("BRIDGE_TELEMETRY__LOG", "INFO")],
        &[("BRIDGE_SERVER__PUBLIC_URL", "https://pos.example:8443/bridge/")],
        &[("BRIDGE_SERVER__CORS_ORIGINS", "https://shop.example,http://localhost:3000,http://[::1]:3000")],
        &[("BRIDGE_SERVER__LISTEN", "127.0.0.1:8080"), ("BRIDGE_SERVER__ADMIN_LISTEN", "127.0.0.2:8080")],
        &[("BRIDGE_GATEWAY__MAX_LINKS", "256")],
    ];
    for settings in right {
        let environment: Vec<_> = settings.iter().copied().chain([("BRIDGE_INSTANCES__DEMO__API_KEY", "k")]).collect();
        let output = run(&["validate"], &environment);
        assert_eq!(output.status.code(), Some(0), "{settings:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{settings:?}");
    }
}
