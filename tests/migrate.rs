//! `migrate`: the program as an operator runs it when a bridge moves from its embedded journal to a database.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "support/postgres.rs"]
mod postgres;
mod running;
mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use concertpos_simulator::{Action, Config, Fault, Simulator};
use postgres::{Postgres, Proxy, Then, database_of, url as url_of};
use running::{PROGRAM, Running, text, wait_until};
use serde_json::json;
use support::program::{Program, free_address};
use support::{KEY, eventually};
use tempfile::TempDir;

/// A bridge's folder, its gateway, and a database without a schema.
struct Place {
    gateway: Simulator,
    folder: TempDir,
    database: String,
    http: reqwest::Client,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "the secret of the replicas of a test, long enough").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let database = tokio::task::spawn_blocking(|| Postgres::shared().new_database()).await.unwrap();
        let gateway = Simulator::start(Config::default()).await.unwrap();
        Self { gateway, folder, database, http: reqwest::Client::new() }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// What a bridge needs that is one of several.
    fn cluster(&self) -> Vec<(&'static str, String)> {
        vec![
            ("BRIDGE_CLUSTER__DATABASE", self.database.clone()),
            ("BRIDGE_CLUSTER__LISTEN", free_address()),
            ("BRIDGE_CLUSTER__SECRET_FILE", self.folder.path().join("secret").display().to_string()),
            ("BRIDGE_CLUSTER__LEASE", "4s".to_owned()),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY.to_owned()),
            ("BRIDGE_PAYMENTS__JOURNAL", self.journal().display().to_string()),
        ]
    }

    fn migrating(&self, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("migrate").args(more).envs(self.cluster());
        command
    }

    async fn migrate(&self, more: &[&str]) -> Said {
        let mut command = self.migrating(more);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Said { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    async fn import(&self) -> Said {
        self.migrate(&["--import", self.journal().to_str().unwrap()]).await
    }

    fn sql(&self, statement: &str) -> String {
        sql(&self.database, statement)
    }

    /// The bridge without a database.
    async fn alone(&self) -> (Program, String) {
        let listen = free_address();
        let settings = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "500ms"), ("BRIDGE_SERVER__SHUTDOWN_GRACE", "5s")];
        let journal = self.journal().display().to_string();
        let program = Program::start_with(&listen, &self.gateway.url(), &journal, &settings);
        let url = format!("http://{listen}");
        self.until_ready(&url).await;
        (program, url)
    }

    /// One of several, which is the only one.
    async fn replica(&self) -> (Program, String) {
        let (listen, journal) = (free_address(), self.journal().display().to_string());
        let cluster = self.cluster();
        let mut settings: Vec<_> = cluster.iter().map(|(name, value)| (*name, value.as_str())).collect();
        settings.extend([("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "500ms"), ("BRIDGE_SERVER__SHUTDOWN_GRACE", "5s")]);
        let program = Program::start_with(&listen, &self.gateway.url(), &journal, &settings);
        let url = format!("http://{listen}");
        self.until_ready(&url).await;
        eventually("it owns the instance", async || {
            let read = format!("{url}/v1/instances/demo/payments");
            self.http.get(read).bearer_auth(KEY).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        (program, url)
    }

    async fn until_ready(&self, url: &str) {
        eventually("it is ready", async || {
            let answer = self.http.get(format!("{url}/readyz?require=gateway")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Sells under a key: status and body of the answer.
    async fn pay(&self, url: &str, key: &str) -> (u16, String) {
        let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key});
        let url = format!("{url}/v1/instances/demo/points-of-sale/1/payments");
        let answer = self.http.post(url).bearer_auth(KEY).header("Idempotency-Key", key).json(&sale).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The files of the journal.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.journal()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("payments.redb")).collect()
    }

    /// What `serve` says that does not begin to serve.
    async fn refusal(&self, cluster: bool) -> String {
        let journal = self.journal().display().to_string();
        let mut environment = vec![
            ("BRIDGE_SERVER__LISTEN", free_address()),
            ("BRIDGE_GATEWAY__URL", self.gateway.url()),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY.to_owned()),
            ("BRIDGE_PAYMENTS__JOURNAL", journal),
            ("BRIDGE_CACHE__STORE", String::new()),
        ];
        if cluster {
            environment.extend(self.cluster());
        }
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let program = Running::start(&["serve"], &environment);
        let (status, said) = tokio::task::spawn_blocking(|| program.end(Duration::from_secs(30))).await.unwrap();
        assert!(status.is_some_and(|status| status > 0), "{status:?}: {said}");
        said
    }
}

/// Asks a database, as the bridge's role.
fn sql(database: &str, statement: &str) -> String {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", database, "-c"]);
    let output = psql.arg(statement).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

/// Holds a lock in a database until it is released.
struct Locked(std::process::Child);

impl Locked {
    fn new(database: &str, table: &str) -> Self {
        let statement = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT pg_sleep(120)");
        let mut psql = Command::new("psql");
        let held = Self(
            psql.args(["--no-psqlrc", "--quiet", database, "-c", &statement]).stderr(Stdio::null()).spawn().unwrap(),
        );
        wait_until("the table is locked", || {
            let locks = format!(
                "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND mode = 'ExclusiveLock' AND granted"
            );
            sql(database, &locks) == "1"
        });
        held
    }
}

impl Locked {
    /// Ends it, the server's part of it too.
    fn release(mut self, database: &str) {
        sql(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
             AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
        );
        let _ = self.0.wait();
    }
}

/// How many imports wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
    AND application_name = 'concertpos-bridge import' AND wait_event_type = 'Lock'";

/// Where the server of a database is.
fn server_of(database: &str) -> SocketAddr {
    let (_, host) = database.split_once('@').unwrap();
    host.split_once('/').unwrap().0.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schema_is_made_once_and_a_newer_one_is_left_alone() {
    let place = Place::new().await;
    let made = place.migrate(&[]).await;
    assert_eq!((made.status, made.err.as_str()), (Some(0), ""), "{made:?}");
    assert!(made.out.contains("was made, with format 1"), "{made:?}");
    let again = place.migrate(&[]).await;
    assert!(again.status == Some(0) && again.out.contains("is up to date"), "{again:?}");
    place.sql("UPDATE bridge_schema SET format = 99");
    let newer = place.migrate(&[]).await;
    assert_eq!((newer.status, newer.out.as_str()), (Some(1), ""), "{newer:?}");
    assert!(newer.err.contains("format 99") && newer.err.contains("newer"), "{newer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_said_with_the_status_of_the_other_commands() {
    let place = Place::new().await;
    let nowhere = place.import().await;
    assert_eq!(nowhere.status, Some(2), "{nowhere:?}");
    assert!(nowhere.err.contains("no payment journal"), "{nowhere:?}");
    let mut command = Command::new(PROGRAM);
    let alone = command.arg("migrate").env("BRIDGE_INSTANCES__DEMO__API_KEY", KEY).output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    assert!(text(&alone.stderr).contains("[cluster] is missing"), "{}", text(&alone.stderr));
    let mut away = place.migrating(&[]);
    away.env("BRIDGE_CLUSTER__DATABASE", format!("postgres://bridge@{}/bridge", free_address()));
    let away = tokio::task::spawn_blocking(move || away.output().unwrap()).await.unwrap();
    assert_eq!(away.status.code(), Some(1));
    assert!(text(&away.stderr).contains("cannot be reached"), "{}", text(&away.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_is_carried_over_once_and_no_bridge_serves_from_it_any_more() {
    let place = Place::new().await;
    let (bridge, url) = place.alone().await;
    assert_eq!(place.pay(&url, "booked").await.0, 201);
    place.gateway.add_fault(Fault::new(Action::HangAfterApply).on("payitems").times(1));
    assert_eq!(place.pay(&url, "unknown").await.0, 504);
    let busy = place.import().await;
    assert_eq!(busy.status, Some(1), "{busy:?}");
    assert!(busy.err.contains("in use by another process"), "{busy:?}");
    assert_eq!(place.pay(&url, "later").await.0, 201);
    bridge.stop();
    let done = place.import().await;
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
    assert!(done.out.contains("3 records carried over: 2 booked, 1 unknown"), "{done:?}");
    let files = place.files();
    assert!(files.len() == 1 && files[0].starts_with("payments.redb.imported-"), "{files:?}");
    let again = place.import().await;
    assert_eq!((again.status, again.err.as_str()), (Some(0), ""), "{again:?}");
    assert!(again.out.contains("had been carried over before"), "{again:?}");
    assert_eq!(place.sql("SELECT count(*), count(DISTINCT key) FROM payment"), "3|3");
    let refused = place.refusal(false).await;
    assert!(refused.contains("was carried over into the database"), "{refused}");
    assert_eq!(place.files(), files, "nothing was made in its place");
}

/// Whatever the bridge said of a key, the replicas say again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_carried_over_is_answered_by_a_replica_as_by_the_bridge_before() {
    let place = Place::new().await;
    let (bridge, url) = place.alone().await;
    let booked = place.pay(&url, "booked").await;
    place.gateway.add_fault(Fault::new(Action::HangAfterApply).on("payitems").times(1));
    assert_eq!((booked.0, place.pay(&url, "unknown").await.0), (201, 504));
    let refusal = Action::Error { word: "invalid_password".into(), code: None, and_reply: false };
    place.gateway.add_fault(Fault::new(refusal).on("payitems").times(1));
    assert_eq!(place.pay(&url, "refused").await.0, 403);
    bridge.kill();
    let refused = place.refusal(true).await;
    assert!(refused.contains("migrate --import"), "{refused}");
    assert_eq!(place.import().await.status, Some(0));
    let sold = |place: &Place| place.gateway.counts().command("payitems").received;
    let before = sold(&place);
    let (replica, url) = place.replica().await;
    assert_eq!(place.pay(&url, "booked").await, booked);
    assert_eq!(place.pay(&url, "unknown").await.0, 504);
    assert_eq!(sold(&place), before, "nothing was sent again");
    assert_eq!(place.pay(&url, "refused").await.0, 201);
    assert_eq!(place.pay(&url, "new").await.0, 201);
    replica.stop();
    // Another database knows nothing of those keys.
    let elsewhere = tokio::task::spawn_blocking(|| Postgres::shared().new_database()).await.unwrap();
    let place = Place { database: elsewhere, ..place };
    let refused = place.refusal(true).await;
    assert!(refused.contains("another database"), "{refused}");
    let done = place.import().await;
    assert!(done.out.contains("3 records carried over"), "{done:?}");
}

/// On a database that was restored nothing is sold until the operator says so; all else goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_nothing_is_sold_until_the_operator_confirms() {
    let place = Place::new().await;
    assert_eq!(place.migrate(&[]).await.status, Some(0));
    let nothing = place.migrate(&["--confirm-restore"]).await;
    assert!(nothing.status == Some(0) && nothing.out.contains("nothing to confirm"), "{nothing:?}");
    // As an operator does who restored files that tell nobody of it.
    place.sql("DELETE FROM database_mark");
    let (replica, url) = place.replica().await;
    let refused = place.pay(&url, "a").await;
    assert!(refused.0 == 503 && refused.1.contains("journal-unavailable"), "{refused:?}");
    let ready = place.http.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200, "reads and replays go on");
    let confirmed = place.migrate(&["--confirm-restore"]).await;
    assert!(confirmed.status == Some(0) && confirmed.out.contains("send payments again"), "{confirmed:?}");
    eventually("it sells", async || place.pay(&url, "a").await.0 == 201).await;
    replica.stop();
}

/// Killed while it writes records, it leaves both as they were: the bridge goes on without a database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_killed_before_its_commit_leaves_journal_and_database_as_they_were() {
    let place = Place::new().await;
    let (bridge, url) = place.alone().await;
    for number in 0..20 {
        assert_eq!(place.pay(&url, &number.to_string()).await.0, 201);
    }
    bridge.stop();
    assert_eq!(place.migrate(&[]).await.status, Some(0));
    let locked = Locked::new(&place.database, "payment");
    let mut import = place.migrating(&["--import", place.journal().to_str().unwrap()]).spawn().unwrap();
    wait_until("it waits for the lock", || place.sql(WAITING) == "1");
    import.kill().unwrap();
    import.wait().unwrap();
    locked.release(&place.database);
    assert_eq!(place.files(), ["payments.redb"]);
    let (bridge, url) = place.alone().await;
    assert_eq!(place.pay(&url, "7").await.0, 201);
    assert_eq!(place.pay(&url, "since").await.0, 201);
    bridge.stop();
    assert_eq!(place.sql("SELECT count(*) FROM payment"), "0");
    let done = place.import().await;
    assert!(done.out.contains("21 records carried over: 21 booked"), "{done:?}");
}

/// Killed while its commit is under way, nobody knows which of both has the payments, and so nobody serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_killed_in_its_commit_is_done_again_before_anybody_serves() {
    for is_done in [true, false] {
        let place = Place::new().await;
        let (bridge, url) = place.alone().await;
        assert_eq!(place.pay(&url, "a").await.0, 201);
        bridge.stop();
        let way = Proxy::to_postgres(server_of(&place.database));
        let (through, needle) = (url_of(&[way.address()], database_of(&place.database)), "INSERT INTO journal_import");
        if is_done {
            way.swallow(needle, Then::Silence);
        } else {
            way.lose(needle, Then::Silence);
        }
        let mut import = place.migrating(&["--import", place.journal().to_str().unwrap()]);
        let mut import = import.env("BRIDGE_CLUSTER__DATABASE", through).spawn().unwrap();
        wait_until("it waits for its commit", || way.struck() == 1);
        import.kill().unwrap();
        import.wait().unwrap();
        way.cut(true);
        assert!(place.files()[0].starts_with("payments.redb.importing-"), "{:?}", place.files());
        for cluster in [false, true] {
            let refused = place.refusal(cluster).await;
            assert!(refused.contains("migrate --import") || refused.contains("[cluster]"), "{refused}");
        }
        let done = place.import().await;
        assert_eq!((done.status, done.out.contains("had been carried over before")), (Some(0), is_done), "{done:?}");
        assert_eq!(place.sql("SELECT count(*) FROM payment"), "1");
    }
}
