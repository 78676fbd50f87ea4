//! Several bridges in one process that know each other from the start, without a database: what is passed on between them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use concertpos_bridge::internals::app::{Among, App};
use concertpos_bridge::internals::cluster::config::Tls;
use concertpos_bridge::internals::cluster::{Config, Directory, Forwarding, Listed, Member, Owner, SessionId};
use concertpos_bridge::internals::shutdown::Shutdown;
use concertpos_simulator::{self as simulator, Simulator};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{KEY, OPERATOR, configuration, eventually};

/// How one replica is to be.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Whether it serves the instance.
    pub(crate) serves: bool,
    pub(crate) secret: &'static str,
    pub(crate) tls: Option<Tls>,
    /// Where the others are to find it, if not where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) settings: Vec<(String, String)>,
}

impl Plan {
    pub(crate) fn owner() -> Self {
        Self { serves: true, ..Self::other() }
    }

    pub(crate) fn other() -> Self {
        let deadline = ("BRIDGE_SERVER__DEADLINE".to_owned(), "4s".to_owned());
        Self { serves: false, secret: "one for all", tls: None, advertise: None, settings: vec![deadline] }
    }

    pub(crate) fn with(mut self, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.settings.extend(settings);
        self
    }
}

/// One bridge.
pub(crate) struct Replica {
    pub(crate) url: String,
    pub(crate) session: SessionId,
    pub(crate) cluster: SocketAddr,
    pub(crate) directory: Directory,
    http: reqwest::Client,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
    data: TempDir,
}

/// All of them, and their gateway.
pub(crate) struct Replicas {
    pub(crate) gateway: Simulator,
    pub(crate) all: Vec<Replica>,
}

impl Replicas {
    /// An owner, and one that passes on to it.
    pub(crate) async fn pair() -> Self {
        Self::begin(simulator::Config::default(), vec![Plan::owner(), Plan::other()]).await
    }

    /// Those that know the first one that serves as the owner, in epoch 1.
    pub(crate) async fn begin(gateway: simulator::Config, plans: Vec<Plan>) -> Self {
        let gateway = Simulator::start(gateway).await.expect("a simulated gateway");
        let bound = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let listeners: Vec<_> = plans.iter().map(|_| bound()).collect();
        let members = plans.iter().zip(&listeners).enumerate().map(|(number, (plan, listener))| {
            let address = plan.advertise.unwrap_or_else(|| listener.local_addr().expect("an address"));
            member(number, address)
        });
        let members: Vec<Member> = members.collect();
        let owner = plans.iter().position(|plan| plan.serves).map(|at| members[at].session);
        let mut all = Vec::new();
        for ((plan, listener), me) in plans.into_iter().zip(listeners).zip(&members) {
            let owners = vec![("demo".into(), Owner { session: owner, epoch: 1 })];
            let directory = Directory::fixed(me.session, members.clone(), owners);
            all.push(Replica::begin(&gateway, plan, listener, me, directory));
        }
        let replicas = Self { gateway, all };
        for replica in &replicas.all {
            eventually("it is ready", async || replica.open("/readyz").await.is_some_and(|status| status == 200)).await;
        }
        replicas
    }

    pub(crate) fn owner(&self) -> &Replica {
        &self.all[0]
    }

    pub(crate) fn other(&self) -> &Replica {
        &self.all[1]
    }

    /// Tells all that the replica of this number, or nobody, owns the instance in this epoch.
    pub(crate) fn show_owner(&self, number: Option<usize>, epoch: i64) {
        for replica in &self.all {
            replica.directory.show_owners(vec![self.owned(number, epoch)]);
        }
    }

    /// That, for one of them to be told.
    pub(crate) fn owned(&self, number: Option<usize>, epoch: i64) -> (Arc<str>, Owner) {
        ("demo".into(), Owner { session: number.map(|number| self.all[number].session), epoch })
    }
}

fn member(number: usize, address: SocketAddr) -> Member {
    Member {
        session: SessionId::random().expect("random bytes"),
        name: format!("bridge {number}").into(),
        address: address.to_string().into(),
        version: "0".into(),
        format: 1,
        draining: false,
        silent: Duration::ZERO,
        instances: Arc::new([Listed { name: "demo".into(), slug: "demo".into(), digest: "0".into() }]),
    }
}

impl Replica {
    fn begin(gateway: &Simulator, plan: Plan, listener: TcpListener, me: &Member, directory: Directory) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let config = configuration(gateway, &data, &plan.settings).unwrap_or_else(|faults| panic!("{faults}"));
        let cluster = listener.local_addr().expect("an address");
        let settings = Config {
            listen: cluster,
            advertise: me.address.to_string(),
            secret: plan.secret.into(),
            tls: plan.tls,
            name: me.name.to_string(),
            lease: Duration::from_secs(6),
            migrate: false,
        };
        let forwarding = Forwarding::new(&settings, directory.clone()).expect("settings");
        let owned = if plan.serves { vec!["demo".to_owned()] } else { Vec::new() };
        let shutdown = Shutdown::new();
        let among = Some(Among { cluster: listener, forwarding, owned });
        let app = App::build_among(config, shutdown.clone(), among).expect("a bridge");
        let url = format!("http://{}", app.addr());
        let running = tokio::spawn(app.run());
        let http = reqwest::Client::new();
        Self { url, session: me.session, cluster, directory, http, shutdown, running, data }
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/v1/instances/demo{path}", self.url)).bearer_auth(KEY)
    }

    /// A request to any path, with the instance's key.
    pub(crate) fn request_to(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(KEY)
    }

    /// The same by the operator.
    pub(crate) fn operate(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(OPERATOR)
    }

    /// Asks it to stop, as SIGTERM would.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.request();
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.request(reqwest::Method::GET, path).send().await.expect("an answer")
    }

    /// The status of a page that is open to all.
    async fn open(&self, path: &str) -> Option<u16> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    /// A sale of two pieces of product 1 at point of sale 1.
    pub(crate) fn sale(&self, key: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, "/points-of-sale/1/payments")
            .header("Idempotency-Key", key)
            .json(&serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key}))
    }

    /// The status of this replica.
    pub(crate) async fn status(&self) -> Value {
        let status = self.http.get(format!("{}/v1/bridge", self.url)).bearer_auth(OPERATOR).send().await;
        status.expect("an answer").json().await.expect("JSON")
    }

    /// One line of its metrics, without the prefix.
    pub(crate) async fn metric(&self, line: &str) -> u64 {
        let page = self.http.get(format!("{}/metrics", self.url)).bearer_auth(OPERATOR).send().await;
        let page = page.expect("an answer").text().await.expect("text");
        let start = format!("concertpos_bridge_{line} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        value.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// Stops it as SIGTERM would, and waits for its end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.request();
        let ended = self.running.await.expect("it does not panic");
        drop(self.data);
        ended
    }
}
