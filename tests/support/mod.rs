//! Drives the real bridge against the simulated gateway, each on a port of its own, in one process.
//!
//! The bridge is configured the way an operator without a file would do it, from the environment's form of the keys.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

pub(crate) mod events;
pub(crate) mod program;
pub(crate) mod replicas;
pub(crate) mod scene;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use concertpos_bridge::internals::app::App;
use concertpos_bridge::internals::config::Config;
use concertpos_bridge::internals::reload::{Difference, Reload};
use concertpos_bridge::internals::shutdown::Shutdown;
use concertpos_simulator::{self as simulator, Simulator};
use serde_json::Value;
use tokio::task::JoinHandle;

/// The key of the simulated instance; also a token that may do everything but operate.
pub(crate) const KEY: &str = "demo-key";

/// A read that is never answered from a copy.
pub(crate) const ANY: &str = "/points-of-sale/1/transactions?limit=1";

/// A token with every scope.
pub(crate) const OPERATOR: &str = "operator-of-the-tests";

/// The most that any condition is waited for. Generous: nothing waits this long unless it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who asks a bridge.
pub(crate) struct Caller {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

/// A bridge and its gateway.
pub(crate) struct World {
    pub(crate) gateway: Simulator,
    caller: Caller,
    /// Holds the journal; goes when the world does.
    data: tempfile::TempDir,
    settings: Vec<(String, String)>,
    shutdown: Shutdown,
    reloading: Reload,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Caller {
    /// Where an instance's path is.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}/v1/instances/demo{path}", self.url)
    }

    /// A request to a path under the instance, with the instance's key.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.path(path)).bearer_auth(KEY)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.request(reqwest::Method::GET, path).send().await.expect("an answer")
    }

    /// A request without a token, from the root.
    pub(crate) async fn get_open(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    /// A sale of two pieces of product 1 at point of sale 1.
    pub(crate) fn sale(&self, key: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, "/points-of-sale/1/payments")
            .header("Idempotency-Key", key)
            .json(&serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key}))
    }
}

/// Asks the bridge.
impl std::ops::Deref for World {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl World {
    /// A quiet gateway and a bridge with quick timeouts.
    pub(crate) async fn start() -> Self {
        Self::with(simulator::Config::default(), &[]).await
    }

    /// A gateway and a bridge with these settings over the quick ones.
    pub(crate) async fn with(gateway: simulator::Config, settings: &[(&str, &str)]) -> Self {
        let gateway = Simulator::start(gateway).await.expect("a simulated gateway");
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::serve(gateway, tempfile::tempdir().expect("a folder"), settings).await
    }

    /// Stops the bridge as SIGTERM would, and starts another on the same gateway with the same journal.
    pub(crate) async fn restarted(self) -> Self {
        self.restarted_after(|_| ()).await
    }

    /// The same, with the journal's file in other hands in between.
    pub(crate) async fn restarted_after(self, change: impl FnOnce(&std::path::Path)) -> Self {
        self.shutdown.request();
        self.running.await.expect("the bridge does not panic").expect("it stops in order");
        change(&self.data.path().join("journal/payments.redb"));
        Self::serve(self.gateway, self.data, self.settings).await
    }

    /// The same without waiting for links, which there may never be.
    pub(crate) async fn without_links(settings: &[(&str, &str)]) -> Self {
        let gateway = Simulator::start(simulator::Config::default()).await.expect("a simulated gateway");
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::begin(gateway, tempfile::tempdir().expect("a folder"), settings)
    }

    async fn serve(gateway: Simulator, data: tempfile::TempDir, settings: Vec<(String, String)>) -> Self {
        let world = Self::begin(gateway, data, settings);
        eventually("the bridge has its links", async || {
            world.get_open("/readyz?require=gateway").await.status() == 200
        })
        .await;
        world
    }

    fn begin(gateway: Simulator, data: tempfile::TempDir, settings: Vec<(String, String)>) -> Self {
        let config = configuration(&gateway, &data, &settings).unwrap_or_else(|faults| panic!("{faults}"));
        let shutdown = Shutdown::new();
        let app = App::build(config, shutdown.clone()).expect("a bridge");
        let (url, reloading) = (format!("http://{}", app.addr()), app.reload());
        let running = tokio::spawn(app.run());
        let caller = Caller { url, http: reqwest::Client::new() };
        Self { gateway, caller, data, settings, shutdown, reloading, running }
    }

    /// Where the journal and the copies are.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.data.path()
    }

    /// Reloads the configuration as SIGHUP would, with these settings in place of those of the start.
    pub(crate) async fn reload(&self, settings: &[(String, String)]) -> Result<Difference, String> {
        self.reloading(settings).await
    }

    /// The same, to be run beside the test.
    pub(crate) fn reloading(
        &self,
        settings: &[(String, String)],
    ) -> impl Future<Output = Result<Difference, String>> + Send + use<> {
        let config = configuration(&self.gateway, &self.data, settings);
        let reloading = self.reloading.clone();
        async move { reloading.apply(&config?).await }
    }

    /// Waits until so many links have been open for at least a second.
    pub(crate) async fn until_links_are_old(&self, count: usize) {
        eventually("the links are old", async || {
            let status = self.http.get(format!("{}/v1/bridge", self.url)).bearer_auth(OPERATOR).send().await;
            let status: Value = status.expect("an answer").json().await.expect("JSON");
            let shards = status["instances"][0]["shards"].as_array().cloned().unwrap_or_default();
            let links = shards.iter().flat_map(|shard| shard["links"].as_array().cloned().unwrap_or_default());
            links.filter(|link| link["open_seconds"].as_u64() >= Some(1)).count() >= count
        })
        .await;
    }

    /// Asks the bridge to stop, as SIGTERM would.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.request();
    }

    /// Waits for the bridge's end; its gateway stays.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        (&mut self.running).await.expect("the bridge does not panic")
    }

    /// Stops the bridge as SIGTERM would and waits for its end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.request();
        let ended = self.running.await.expect("the bridge does not panic");
        self.gateway.stop().await;
        ended
    }
}

/// The quick configuration with these settings over it.
pub(crate) fn configuration(
    gateway: &Simulator,
    data: &tempfile::TempDir,
    settings: &[(String, String)],
) -> Result<Config, String> {
    let environment = environment(gateway, data, settings).into_iter();
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    Config::load(None, environment).map(|(config, _)| config).map_err(|faults| faults.to_string())
}

/// The variables of the quick configuration with these settings over it.
fn environment(
    gateway: &Simulator,
    data: &tempfile::TempDir,
    settings: &[(String, String)],
) -> BTreeMap<String, String> {
    let journal = data.path().join("journal").display().to_string();
    let store = data.path().join("cache").display().to_string();
    let quick = [
        ("BRIDGE_PAYMENTS__JOURNAL", journal),
        ("BRIDGE_CACHE__STORE", store),
        ("BRIDGE_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("BRIDGE_SERVER__SHUTDOWN_GRACE", "11s".to_owned()),
        ("BRIDGE_GATEWAY__URL", gateway.url()),
        ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY.to_owned()),
        ("BRIDGE_AUTH__GATEWAY_KEY__MAX_IN_FLIGHT", "1000000".to_owned()),
        ("BRIDGE_AUTH__GATEWAY_KEY__PER_SECOND", "1000000".to_owned()),
        // Tests of the budget set it; the others are not about it.
        ("BRIDGE_LIMITS__CAPACITY", "1000000".to_owned()),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__SHA256", sha256_hex(OPERATOR)),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__INSTANCES", "demo".to_owned()),
        ("BRIDGE_AUTH__TOKENS__OPERATOR__SCOPES", "read,pay,devices,events,raw,operate".to_owned()),
    ];
    let quick = quick.into_iter().map(|(name, value)| (name.to_owned(), value));
    quick.chain(settings.iter().cloned()).collect()
}

/// A problem's parts that tests look at.
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
}

/// Reads a problem document and checks what holds for each of them.
pub(crate) async fn problem(response: reqwest::Response) -> Problem {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await.expect("a body");
    assert_eq!(headers["content-type"], "application/problem+json", "{text}");
    let body: Value = serde_json::from_str(&text).expect("a problem is JSON");
    assert_eq!(body["status"], status, "{text}");
    assert_eq!(body["request_id"], headers["x-request-id"].to_str().expect("an id"), "{text}");
    let told = headers["proxy-status"].to_str().expect("text");
    assert!(told.starts_with("concertpos-bridge; "), "{told}");
    assert_eq!(told.contains("; error="), body["gateway"].is_null(), "{told}: {text}");
    let header = headers.get("retry-after").map(|value| value.to_str().expect("text").parse().expect("seconds"));
    assert_eq!(body["retry_after"].as_u64(), header, "{text}");
    Problem { status, code: body["code"].as_str().expect("a code").to_owned(), retry_after: header, body }
}

/// Waits for a condition; fails when it does not come.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never came: {what}");
}

/// The settings of a further token, named like its secret.
pub(crate) fn token(name: &str, scopes: &str) -> Vec<(String, String)> {
    let key = |part: &str| format!("BRIDGE_AUTH__TOKENS__{}__{part}", name.to_uppercase());
    vec![(key("SHA256"), sha256_hex(name)), (key("INSTANCES"), "demo".to_owned()), (key("SCOPES"), scopes.to_owned())]
}

/// Runs futures side by side and gathers what they return.
pub(crate) async fn together<T: Send + 'static>(
    futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.expect("no panic"));
    }
    results
}

pub(crate) fn sha256_hex(text: &str) -> String {
    use data_encoding::HEXLOWER;
    use sha2::{Digest, Sha256};
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}
