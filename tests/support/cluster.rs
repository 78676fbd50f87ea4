//! Several replicas of the built program, each a process of its own, over one simulated gateway and one database: a primary
//! with its synchronous standby.
//!
//! Every replica has a way of its own to the database, to the other replicas and to the gateway, so that each can be cut alone.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use concertpos_simulator::{self as simulator, Simulator};
use serde_json::Value;

use super::postgres::{Pair, Proxy, database_of, url};
use super::support::{KEY, OPERATOR, sha256_hex};

/// The lease of tests: the shortest that is allowed.
pub(crate) const LEASE: Duration = Duration::from_secs(4);

/// What every duration of the cluster is given beyond what is promised of it: the machine of the tests may be busy.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

/// By when the instances of an owner that died without a word are served again: lease, margin, and two seconds.
pub(crate) const BACK: Duration = LEASE.saturating_add(Duration::from_secs(1 + 2));

/// The program that is tested: the one that was built with the tests, or `CLUSTER_PROGRAM`, such as a release build.
pub(crate) fn program() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_concertpos-bridge");
    std::env::var_os("CLUSTER_PROGRAM").map_or_else(|| PathBuf::from(built), PathBuf::from)
}

/// The program that replicas start as, before any of them is restarted: `CLUSTER_EARLIER_PROGRAM`, such as that of an earlier
/// version from which they are upgraded, or the one that is tested.
fn first_program() -> PathBuf {
    std::env::var_os("CLUSTER_EARLIER_PROGRAM").map_or_else(program, PathBuf::from)
}

/// What differs between tests.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) replicas: usize,
    pub(crate) gateway: simulator::Config,
    /// Lines of configuration, each a key with its section and a value: `("limits.capacity", "100")`.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) instances: Vec<String>,
    /// Whether replicas reach the gateway without a way that can be cut: for very many links.
    pub(crate) direct: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            replicas: 2,
            gateway: simulator::Config::default(),
            settings: Vec::new(),
            instances: vec![simulator::DEFAULT_INSTANCE.to_owned()],
            direct: false,
        }
    }
}

impl Setup {
    pub(crate) fn of(replicas: usize) -> Self {
        Self { replicas, ..Self::default() }
    }

    pub(crate) fn gateway(mut self, gateway: simulator::Config) -> Self {
        self.gateway = gateway;
        self
    }

    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// So many instances, each with a key of its own.
    pub(crate) fn instances(mut self, count: usize) -> Self {
        self.instances = (0..count).map(|number| format!("demo{number}")).collect();
        let known = self.instances.iter().map(|slug| simulator::Instance { slug: slug.clone(), api_key: key_of(slug) });
        self.gateway.instances = known.collect();
        self
    }
}

/// The key of an instance at the gateway, which callers may use too.
pub(crate) fn key_of(instance: &str) -> String {
    if instance == simulator::DEFAULT_INSTANCE { KEY.to_owned() } else { format!("key-of-{instance}") }
}

/// Replicas, gateway and database. All end with it.
pub(crate) struct Cluster {
    // The processes end before what they use.
    pub(crate) replicas: Vec<Replica>,
    pub(crate) gateway: Arc<Simulator>,
    pub(crate) pair: Pair,
    pub(crate) http: reqwest::Client,
    /// The replicas that callers send nothing to, a bit each, as a balancer that saw that they are not ready.
    out: Arc<AtomicUsize>,
    database: String,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts it and waits until every instance is served through every replica.
    pub(crate) async fn start(setup: Setup) -> Self {
        let cluster = Self::begin(setup).await;
        cluster.until_served(Duration::from_secs(40)).await;
        cluster
    }

    /// Starts it and waits for nothing.
    pub(crate) async fn begin(setup: Setup) -> Self {
        let gateway = Simulator::start(setup.gateway.clone()).await.unwrap();
        let pair = tokio::task::spawn_blocking(Pair::start).await.unwrap();
        Self::over(gateway, pair, &setup)
    }

    /// The same over a pair that runs, in a database of its own.
    pub(crate) fn over(gateway: Simulator, mut pair: Pair, setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "the secret of the replicas of a test, long enough").unwrap();
        let database = database_of(&pair.new_database()).to_owned();
        let servers = [pair.primary().address(), pair.standby().address()];
        let replicas = (0..setup.replicas)
            .map(|number| Replica::start(number, folder.path(), servers, &database, &gateway, setup))
            .collect();
        let http = client();
        Self { replicas, gateway: Arc::new(gateway), pair, http, out: Arc::default(), database, _folder: folder }
    }

    /// Asks the database, past the replicas.
    pub(crate) fn sql(&mut self, text: &str) -> String {
        let database = self.database.clone();
        self.pair.primary().sql(&database, text)
    }

    /// The same where a refusal is an answer.
    pub(crate) fn try_sql(&mut self, text: &str) -> Result<String, String> {
        let database = self.database.clone();
        self.pair.primary().try_sql(&database, text)
    }

    /// Where PostgreSQL's programs, the primary and the replicas' database are.
    pub(crate) fn bench(&mut self) -> (PathBuf, SocketAddr, String) {
        (super::postgres::programs(), self.pair.primary().address(), self.database.clone())
    }

    /// The number of the replica whose session owns an instance; none where there is none, or it has ended.
    pub(crate) fn owner_of(&mut self, instance: &str) -> Option<usize> {
        let found = self.try_sql(&format!(
            "SELECT replica.name FROM instance_owner JOIN replica ON replica.id = instance_owner.session
             WHERE instance_owner.instance = '{instance}' AND NOT replica.ended"
        ));
        // There is no schema before the first replica has made it.
        let name = found.unwrap_or_default();
        self.replicas.iter().position(|replica| replica.name == name)
    }

    /// Waits until some replica owns an instance.
    pub(crate) async fn owner(&mut self, instance: &str) -> usize {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(owner) = self.owner_of(instance) {
                return owner;
            }
            assert!(Instant::now() < deadline, "nobody owns {instance}:\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A replica that does not own the instance.
    pub(crate) async fn other(&mut self, instance: &str) -> usize {
        let owner = self.owner(instance).await;
        (0..self.replicas.len()).find(|number| *number != owner && self.replicas[*number].runs()).unwrap()
    }

    /// Waits until each running replica answers a read of each instance.
    pub(crate) async fn until_served(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for replica in self.replicas.iter().filter(|replica| replica.runs()) {
            for instance in &replica.instances {
                while !replica.serves(&self.http, instance).await {
                    assert!(Instant::now() < deadline, "{} does not serve {instance}:\n{}", replica.name, self.logs());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// A caller that a test sends around.
    pub(crate) fn caller(&self) -> Caller {
        let urls = self.replicas.iter().map(|replica| replica.url.clone()).collect();
        Caller { urls, http: self.http.clone(), out: Arc::clone(&self.out), next: Arc::default() }
    }

    /// Callers send nothing more to a replica, or do again.
    pub(crate) fn leave_out(&self, number: usize, out: bool) {
        if out {
            self.out.fetch_or(1 << number, Ordering::SeqCst);
        } else {
            self.out.fetch_and(!(1 << number), Ordering::SeqCst);
        }
    }

    /// The last lines of all logs.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for replica in &self.replicas {
            let log = replica.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            let _ = writeln!(logs, "== {}\n{last}", replica.name);
        }
        logs
    }
}

/// A client that waits long enough for every answer of the bridge, and keeps no connection to a replica that is gone.
fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).pool_max_idle_per_host(8).build().unwrap()
}

/// Asks the replicas in turn. Cheap to clone; all clones take turns together.
#[derive(Clone)]
pub(crate) struct Caller {
    urls: Vec<String>,
    pub(crate) http: reqwest::Client,
    out: Arc<AtomicUsize>,
    next: Arc<AtomicUsize>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Status, code of the problem if it is one, and body.
    Whole(u16, Option<String>, String),
    /// No replica took the connection.
    NotConnected,
    /// The connection ended before the answer was whole.
    CutOff,
}

impl Answer {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Whole(status, ..) => Some(*status),
            Self::NotConnected | Self::CutOff => None,
        }
    }

    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Whole(_, code, _) => code.as_deref(),
            Self::NotConnected | Self::CutOff => None,
        }
    }
}

impl Caller {
    /// Sends a request to the next replica in turn that takes connections, once.
    pub(crate) async fn send(&self, request: impl Fn(&str) -> reqwest::RequestBuilder) -> Answer {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.urls.len() {
            let turn = (first + step) % self.urls.len();
            if self.out.load(Ordering::SeqCst) & (1 << turn) != 0 {
                continue;
            }
            match answer(request(&self.urls[turn])).await {
                Answer::NotConnected => {}
                whole => return whole,
            }
        }
        Answer::NotConnected
    }

    /// Sells two pieces of product 1 at point of sale 1.
    pub(crate) async fn pay(&self, instance: &str, key: &str) -> Answer {
        self.send(|url| sale(&self.http, url, instance, key)).await
    }
}

/// A sale of two pieces of product 1 at point of sale 1.
pub(crate) fn sale(http: &reqwest::Client, url: &str, instance: &str, key: &str) -> reqwest::RequestBuilder {
    http.post(format!("{url}/v1/instances/{instance}/points-of-sale/1/payments"))
        .bearer_auth(key_of(instance))
        .header("Idempotency-Key", key)
        .json(&serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key}))
}

/// Sends a request and reads its answer.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Answer::NotConnected,
        Err(_) => return Answer::CutOff,
    };
    let status = response.status().as_u16();
    let Ok(body) = response.text().await else { return Answer::CutOff };
    let problem: Option<Value> = serde_json::from_str(&body).ok();
    let code = problem.filter(|_| status >= 400).and_then(|problem| problem["code"].as_str().map(str::to_owned));
    Answer::Whole(status, code, body)
}

/// One replica: its process while it runs, and its ways to everything else.
pub(crate) struct Replica {
    pub(crate) name: String,
    /// Where callers reach it.
    pub(crate) url: String,
    /// Its ways to the two servers of the database.
    pub(crate) database: [Proxy; 2],
    /// How other replicas reach it.
    pub(crate) peers: Proxy,
    /// Its way to the gateway.
    pub(crate) gateway: Proxy,
    instances: Vec<String>,
    folder: PathBuf,
    process: Option<Child>,
}

impl Replica {
    fn start(
        number: usize,
        folder: &Path,
        servers: [SocketAddr; 2],
        database: &str,
        gateway: &Simulator,
        setup: &Setup,
    ) -> Self {
        let name = format!("bridge-{number}");
        let folder = folder.join(&name);
        fs::create_dir(&folder).unwrap();
        let [listen, peer] = [free_address(), free_address()];
        let database_ways = servers.map(Proxy::to_postgres);
        let place = url(&[database_ways[0].address(), database_ways[1].address()], database);
        let peers = Proxy::to(peer);
        let direct = gateway.addr();
        let gateway = Proxy::to_websocket(direct);
        let reached = if setup.direct { direct } else { gateway.address() };
        let settings = settings(&name, &place, listen, peer, peers.address(), reached, setup);
        fs::write(folder.join("bridge.toml"), settings).unwrap();
        let mut replica = Self {
            name,
            url: format!("http://{listen}"),
            database: database_ways,
            peers,
            gateway,
            instances: setup.instances.clone(),
            folder,
            process: None,
        };
        replica.run_program(&first_program());
        replica
    }

    /// Starts its process, with the configuration that it had.
    pub(crate) fn run(&mut self) {
        self.run_program(&program());
    }

    /// The same with another version of the program.
    pub(crate) fn run_program(&mut self, program: &Path) {
        assert!(self.process.is_none(), "it runs");
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(["serve", "--config", "bridge.toml"]).current_dir(&self.folder).stdin(Stdio::null());
        self.process = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Changes its configuration file; in force at its next start.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let file = self.configuration();
        fs::write(&file, change(fs::read_to_string(&file).unwrap())).unwrap();
    }

    /// Its configuration file.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.join("bridge.toml")
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Ends it with SIGKILL, wherever it is.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        assert!(process.try_wait().unwrap().is_none(), "it ended by itself:\n{}", self.log());
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Stops it where it is with SIGSTOP.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Has it read its configuration again.
    pub(crate) fn reload(&self) {
        self.signal("HUP");
    }

    /// Asks it to end in order.
    pub(crate) fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Asks it to end in order, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.ask_to_stop();
        self.ended().await;
    }

    /// Waits until it has ended in order.
    pub(crate) async fn ended(&mut self) {
        let mut process = self.process.take().expect("it runs");
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                assert!(status.success(), "{}: {status}\n{}", self.name, self.log());
                return;
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                panic!("{} does not end:\n{}", self.name, self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{} is gone:\n{}", self.name, self.log());
    }

    /// Whether a read of an instance through this replica is answered by who owns it, be it that its window is full.
    pub(crate) async fn serves(&self, http: &reqwest::Client, instance: &str) -> bool {
        let url = format!("{}/v1/instances/{instance}/points-of-sale/1/transactions?limit=1", self.url);
        matches!(answer(http.get(url).bearer_auth(key_of(instance))).await.status(), Some(200 | 429))
    }

    /// What it says at a path, as its operator sees it; null where it says nothing.
    pub(crate) async fn status(&self, http: &reqwest::Client, path: &str) -> Value {
        match answer(http.get(format!("{}{path}", self.url)).bearer_auth(OPERATOR)).await {
            Answer::Whole(_, _, body) => serde_json::from_str(&body).unwrap_or(Value::Null),
            Answer::NotConnected | Answer::CutOff => Value::Null,
        }
    }

    /// Cuts it off from the database, or lets it reach it again.
    pub(crate) fn cut_database(&self, cut: bool) {
        self.database.iter().for_each(|way| way.cut(cut));
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Memory that it has in use, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        // Kept where it helps to find out why a test failed.
        if let (true, Some(folder)) = (std::thread::panicking(), std::env::var_os("CLUSTER_LOGS")) {
            let copy = Path::new(&folder).join(format!("{}.log", self.name));
            let _ = File::create(copy).and_then(|mut file| std::io::Write::write_all(&mut file, self.log().as_bytes()));
        }
    }
}

fn settings(
    name: &str,
    database: &str,
    listen: SocketAddr,
    peer: SocketAddr,
    advertise: SocketAddr,
    gateway: SocketAddr,
    setup: &Setup,
) -> String {
    let lease = format!("{}s", LEASE.as_secs());
    let quoted = |value: &str| format!("\"{value}\"");
    let mut lines: Vec<(String, String)> = [
        ("server.listen", quoted(&listen.to_string())),
        ("server.shutdown_grace", quoted("11s")),
        ("gateway.url", quoted(&format!("ws://{gateway}/{{shard}}/?instance={{instance}}&Content-Type={{format}}"))),
        ("limits.capacity", "1000000".to_owned()),
        // A new owner counts every window but the payments' as full, for a window and the time of an exchange.
        ("limits.window", quoted("1s")),
        ("limits.guard", quoted("100ms")),
        ("gateway.request_timeout", quoted("3s")),
        ("auth.gateway_key.max_in_flight", "1000000".to_owned()),
        ("auth.gateway_key.per_second", "1000000".to_owned()),
        ("auth.tokens.operator.sha256", format!("[\"{}\"]", sha256_hex(OPERATOR))),
        ("auth.tokens.operator.instances", "[\"*\"]".to_owned()),
        (
            "auth.tokens.operator.scopes",
            "[\"read\", \"pay\", \"devices\", \"events\", \"raw\", \"operate\"]".to_owned(),
        ),
        ("cluster.database", quoted(database)),
        ("cluster.listen", quoted(&peer.to_string())),
        ("cluster.advertise", quoted(&advertise.to_string())),
        ("cluster.secret_file", quoted("../secret")),
        ("cluster.name", quoted(name)),
        ("cluster.lease", quoted(&lease)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    lines.extend(
        setup.instances.iter().map(|instance| (format!("instances.{instance}.api_key"), quoted(&key_of(instance)))),
    );
    for (key, value) in &setup.settings {
        lines.retain(|(known, _)| known != key);
        lines.push((key.clone(), value.clone()));
    }
    lines.iter().fold(String::new(), |file, (key, value)| file + key + " = " + value + "\n")
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
