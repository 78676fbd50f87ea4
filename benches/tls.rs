//! What TLS costs a cached read, beside the same read in plain HTTP/1.1 in the same run.
//!
//! Two bridges over one simulated gateway, one with a certificate, each with its copy, are loaded in turn by the same
//! `h2load` with one thread and 64 connections; a round's ratios are taken within the round, and the median round is told.
//! Handshakes are over before the measuring begins, since callers keep their connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

mod support;

use std::process::Command;

use support::{KEY, Report, Row, Scene, free_address, median, serve, until_ready};

const PATH: &str = "/v1/instances/demo/points-of-sale/1/products";
const ROUNDS: usize = 3;
const FRESH: (&str, &str) = ("BRIDGE_CACHE__LISTPRODUCTS__FRESH", "1h");

/// Requests a second, each answered with 200.
fn load(url: &str) -> f64 {
    let output = Command::new("h2load")
        .args(["--h1", "-t1", "-c64", "--warm-up-time=1", "-D3", "-H", &format!("authorization: Bearer {KEY}")])
        .arg(format!("{url}{PATH}"))
        .output()
        .expect("h2load, from Debian's package nghttp2-client");
    let text = String::from_utf8(output.stdout).unwrap();
    let codes = text.lines().find(|line| line.starts_with("status codes:")).expect(&text);
    assert!(codes.contains(" 0 3xx, 0 4xx, 0 5xx") && !codes.contains(": 0 2xx"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("finished in ")).expect(&text);
    line.split(", ").find_map(|part| part.strip_suffix(" req/s")).expect(&text).parse().unwrap()
}

#[tokio::main]
async fn main() {
    let scene = Scene::set(&[], &[FRESH]).await;
    let (secure, admin, data) = (free_address(), free_address(), tempfile::tempdir().unwrap());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let [certificate, key] = ["tls.pem", "tls.key"].map(|name| data.path().join(name).display().to_string());
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = [
        FRESH,
        ("BRIDGE_SERVER__TLS__CERTIFICATE", certificate.as_str()),
        ("BRIDGE_SERVER__TLS__KEY", &key),
        ("BRIDGE_SERVER__ADMIN_LISTEN", &admin),
    ];
    let _secure = serve(&secure, &scene.gateway, data.path(), &settings);
    until_ready(&admin).await;

    let (plain, secure) = (format!("http://{}", scene.bridge.address), format!("https://{secure}"));
    let rounds: Vec<_> = (0..ROUNDS).map(|_| [&plain, &secure].map(|url| load(url))).collect();
    let over = |of: fn(&[f64; 2]) -> f64| median(rounds.iter().map(of).collect());
    let row = Row::new("tls", "cached read over TLS, HTTP/1.1", over(|[_, tls]| *tls), "/s");
    let row = row.beside("in plain HTTP/1.1", over(|[plain, _]| *plain)).ratio(over(|[plain, tls]| tls / plain));
    let mut report = Report::new();
    report.add(row);
    report.tell();
}
