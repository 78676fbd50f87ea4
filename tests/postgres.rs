//! What the tests' own PostgreSQL promises, so that a test on it that fails tells of the bridge.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "support/postgres.rs"]
mod postgres;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Pair, Postgres, Proxy, ROLE, Then, database_of};

/// A connection that stays, by way of psql, which says what it was told line by line.
struct Client {
    process: Child,
    said: std::sync::mpsc::Receiver<String>,
}

impl Client {
    fn new(address: SocketAddr, database: &str) -> Self {
        let place = format!("host=127.0.0.1 port={} user={ROLE} dbname={database} sslmode=disable", address.port());
        let mut process = Command::new("psql")
            .args(["--no-psqlrc", "--no-align", "--tuples-only", &place])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (lines, said) = std::sync::mpsc::channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok()));
        Self { process, said }
    }

    fn write(&mut self, text: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    fn next(&self) -> Option<String> {
        self.said.recv_timeout(Duration::from_secs(10)).ok()
    }

    fn is_told_nothing_for(&self, time: Duration) -> bool {
        self.said.recv_timeout(time).is_err()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_has_databases_of_an_ordinary_role_and_is_gone_with_its_value() {
    let server = Postgres::start();
    let (first, second) = (server.new_database(), server.new_database());
    assert_ne!(first, second);
    let roles = format!("SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = '{ROLE}'");
    assert_eq!(server.sql(database_of(&first), &roles), "f");
    assert_eq!(server.sql("postgres", "SHOW fsync"), "on");
    let address = server.address();
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_shared_server_is_one_for_the_process() {
    let (first, second) = (Postgres::shared().new_database(), Postgres::shared().new_database());
    let server = |url: &str| url.rsplit_once('/').unwrap().0.to_owned();
    assert_eq!(server(&first), server(&second));
    assert_ne!(database_of(&first), database_of(&second));
}

#[test]
fn a_paused_server_answers_nothing_and_goes_on_where_it_was() {
    let mut server = Postgres::start();
    let mut client = Client::new(server.address(), "postgres");
    client.write("SELECT 1;");
    assert_eq!(client.next().as_deref(), Some("1"));
    server.server().pause();
    client.write("SELECT 2;");
    assert!(client.is_told_nothing_for(Duration::from_millis(300)));
    server.server().resume();
    assert_eq!(client.next().as_deref(), Some("2"));
}

#[test]
fn a_commit_waits_for_the_standby_and_outlives_the_primary() {
    let mut pair = Pair::start();
    let database = database_of(&pair.new_database()).to_owned();
    pair.primary().sql(&database, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");

    pair.stop_standby();
    let mut client = Client::new(pair.primary().address(), "postgres");
    client.write("CREATE TEMPORARY TABLE own (n int); SELECT 1;");
    // A temporary table is in the catalogues, whose change is replicated.
    assert!(client.is_told_nothing_for(Duration::from_millis(300)));
    pair.start_standby();
    assert_eq!(client.next().as_deref(), Some("CREATE TABLE"));

    pair.kill_primary();
    let began = Instant::now();
    pair.promote();
    assert_eq!(pair.primary().sql(&database, "SELECT n FROM t"), "1");
    assert!(began.elapsed() < Duration::from_secs(10));
    pair.primary().sql(&database, "INSERT INTO t VALUES (2)");

    pair.rejoin();
    pair.primary().sql(&database, "INSERT INTO t VALUES (3)");
    pair.kill_primary();
    pair.promote();
    assert_eq!(pair.primary().sql(&database, "SELECT sum(n) FROM t"), "6");
}

#[test]
fn an_old_primary_can_live_on_and_acknowledge_nothing() {
    let mut pair = Pair::start();
    let database = database_of(&pair.new_database()).to_owned();
    pair.primary().sql(&database, "CREATE TABLE t (n int)");
    pair.promote();
    pair.primary().sql(&database, "INSERT INTO t VALUES (1)");
    let insert = "SET statement_timeout = '300ms'; INSERT INTO t VALUES (2)";
    let old = pair.standby().address();
    let mut client = Client::new(old, &database);
    client.write(&insert.replace("TABLE", ""));
    assert_eq!(client.next().as_deref(), Some("SET"));
    assert!(client.is_told_nothing_for(Duration::from_millis(300)), "its standby is a primary now");
}

#[test]
fn the_way_to_a_server_swallows_the_acknowledgement_of_one_transaction_and_no_other() {
    let server = Postgres::start();
    let database = database_of(&server.new_database()).to_owned();
    server.sql(&database, &format!("CREATE TABLE t (n int); GRANT ALL ON t TO {ROLE}"));
    let rows = || server.sql(&database, "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM t");
    for then in [Then::Cut, Then::Silence] {
        server.sql(&database, "DELETE FROM t");
        let proxy = Proxy::to_postgres(server.address());
        let mut client = Client::new(proxy.address(), &database);
        proxy.swallow("(2)", then);
        client.write("BEGIN; INSERT INTO t VALUES (1); COMMIT;");
        let told: Vec<_> = (0..3).filter_map(|_| client.next()).collect();
        assert_eq!(told, ["BEGIN", "INSERT 0 1", "COMMIT"]);
        client.write("BEGIN; INSERT INTO t VALUES (2); COMMIT;");
        let told: Vec<_> = (0..2).filter_map(|_| client.next()).collect();
        assert_eq!(told, ["BEGIN", "INSERT 0 1"], "inside the transaction all is answered");
        until("the transaction is committed", || rows() == "1 2");
        until("its acknowledgement is taken", || proxy.struck() == 1);
        assert!(client.is_told_nothing_for(Duration::from_millis(100)));
    }
}

#[test]
fn the_way_to_a_server_loses_the_order_to_commit() {
    let server = Postgres::start();
    let database = database_of(&server.new_database()).to_owned();
    server.sql(&database, &format!("CREATE TABLE t (n int); GRANT ALL ON t TO {ROLE}"));
    let proxy = Proxy::to_postgres(server.address());
    let mut client = Client::new(proxy.address(), &database);
    proxy.lose("(1)", Then::Cut);
    client.write("BEGIN; INSERT INTO t VALUES (1); COMMIT;");
    until("the order is taken", || proxy.struck() == 1);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL";
    until("the server has noticed", || server.sql("postgres", open) == "0");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "0");
}

#[test]
fn the_way_to_a_server_can_be_cut_and_fall_silent() {
    let server = Postgres::start();
    let proxy = Proxy::to_postgres(server.address());
    let mut client = Client::new(proxy.address(), "postgres");
    client.write("SELECT 1;");
    assert_eq!(client.next().as_deref(), Some("1"));
    proxy.silence(true);
    client.write("SELECT 2;");
    assert!(client.is_told_nothing_for(Duration::from_millis(200)));
    proxy.silence(false);
    assert_eq!(client.next().as_deref(), Some("2"));
    proxy.cut(true);
    client.write("SELECT 3;");
    assert_ne!(client.next().as_deref(), Some("3"));
    proxy.cut(false);
    let mut client = Client::new(proxy.address(), "postgres");
    client.write("SELECT 4;");
    assert_eq!(client.next().as_deref(), Some("4"));
}
