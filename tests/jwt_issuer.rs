//! JWTs of a real issuer: oidc-provider, run by Node, which signs by RSA, P-256 and Ed25519 and rotates its keys.
//!
//! Node and the package are needed: without them these tests fail and say what is missing. The package is installed by npm from
//! `tests/oidc` where it is not there yet.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use concertpos_simulator::Config;
use serde_json::Value;
use support::{ANY, World, problem};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// As `tests/oidc/provider.mjs` has them.
const AUDIENCE: &str = "urn:concertpos-bridge";
const SECRET: &str = "the-secret-of-the-tests";

struct Issuer {
    url: String,
    http: reqwest::Client,
    /// Ends with its standard input.
    _node: Child,
}

/// The folder with the installed package. Tests may run in processes of their own, hence the lock on a file.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc-npm.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("node_modules/oidc-provider/package.json").exists() {
        let install = std::process::Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .expect("npm is needed to run an issuer: install Node");
        let words = String::from_utf8_lossy(&install.stderr);
        assert!(install.status.success(), "`npm ci` in tests/oidc could not install oidc-provider: {words}");
    }
    folder
}

impl Issuer {
    async fn start() -> Self {
        let mut node = Command::new("node")
            .arg("provider.mjs")
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Node is needed to run an issuer");
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let url = tokio::time::timeout(Duration::from_mins(1), lines.next_line()).await;
        let url = url.expect("the issuer starts").unwrap().expect("the issuer prints its address");
        Self { url, http: reqwest::Client::new(), _node: node }
    }

    async fn token(&self, algorithm: &str, scope: &str) -> String {
        let body = format!("grant_type=client_credentials&scope={scope}&resource={AUDIENCE}");
        let request =
            self.http.post(format!("{}/token", self.url)).basic_auth(format!("shop-{algorithm}"), Some(SECRET));
        let answer =
            request.header("Content-Type", "application/x-www-form-urlencoded").body(body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }
}

async fn read(world: &World, token: &str) -> reqwest::Response {
    world.http.get(world.path(ANY)).bearer_auth(token).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_real_issuer_are_accepted_by_each_algorithm_before_and_after_a_rotation() {
    let issuer = Issuer::start().await;
    let settings = [
        ("BRIDGE_AUTH__JWT__ISSUER", issuer.url.as_str()),
        ("BRIDGE_AUTH__JWT__AUDIENCE", AUDIENCE),
        ("BRIDGE_AUTH__JWT__JWKS_URL", &format!("{}/jwks", issuer.url)),
        ("BRIDGE_AUTH__JWT__REFRESH_FLOOR", "1s"),
    ];
    let world = World::with(Config::default(), &settings).await;
    let mut old = Vec::new();
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let token = issuer.token(algorithm, "read%20pay").await;
        assert_eq!(read(&world, &token).await.status(), 200, "{algorithm}");
        let sale = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}]});
        let sale = world.http.post(world.path("/points-of-sale/1/payments")).bearer_auth(&token).json(&sale);
        assert_eq!(sale.header("Idempotency-Key", "one").send().await.unwrap().status(), 201, "{algorithm}");
        let reader = issuer.token(algorithm, "read").await;
        let lacking = problem(world.http.get(world.path("/events")).bearer_auth(&reader).send().await.unwrap()).await;
        assert_eq!((lacking.status, lacking.code.as_str()), (403, "forbidden"));
        old.push(token);
    }
    issuer.http.post(format!("{}/rotate", issuer.url)).send().await.unwrap();
    // The floor between two fetches has to pass.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        assert_eq!(read(&world, &issuer.token(algorithm, "read").await).await.status(), 200, "{algorithm}, rotated");
    }
    for token in old {
        let refused = problem(world.http.get(world.path(ANY)).bearer_auth(&token).send().await.unwrap()).await;
        assert_eq!((refused.status, refused.code.as_str()), (401, "unauthenticated"), "by a key that is gone");
    }
}
