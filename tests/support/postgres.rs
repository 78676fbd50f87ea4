//! Real PostgreSQL servers for tests: one alone, or a primary with a synchronous standby, and a way to them that can be cut.
//!
//! Needs nothing but the standard library and PostgreSQL's own programs, so that unit tests include it by its path. The
//! servers run on free ports of loopback in a temporary folder, as a user that is not root, and write through to the disk.
//! They end, and their folder goes, when their value is dropped; and should the test's process be killed or a shared server
//! live to its end, a watcher does both.

#![allow(dead_code, reason = "each test uses its own part of this")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The role that bridges use: it owns its databases and is nothing more.
pub(crate) const ROLE: &str = "bridge";

/// How the primary knows its standby.
const STANDBY: &str = "standby1";

/// The most that a server may take to start, follow or stop. Nothing waits this long unless it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// Ports can be taken between the look for a free one and the server's start.
const TRIES: u32 = 5;

/// What every server here is configured with beside its port.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 300
shared_buffers = 32MB
wal_keep_size = 512MB
max_wal_size = 512MB
log_min_messages = warning
log_line_prefix = '%m [%p] %a '
";

/// A running PostgreSQL of its own.
pub(crate) struct Postgres(Server);

impl Postgres {
    /// Starts one, which takes a second or two.
    pub(crate) fn start() -> Self {
        let folder = Arc::new(Folder::new());
        let mut server = Server::new("alone", &folder);
        server.initialise("");
        server.start();
        server.prepare();
        Self(server)
    }

    /// The one that tests of a process share, each with databases of its own: `CONCERTPOS_TEST_POSTGRES`, the URL of a
    /// superuser, where it is set.
    pub(crate) fn shared() -> &'static Shared {
        static SHARED: OnceLock<Shared> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("CONCERTPOS_TEST_POSTGRES") {
            Ok(url) => Shared::elsewhere(url),
            Err(_) => Shared::Own(Self::start()),
        })
    }

    /// A new database without a schema: its URL.
    pub(crate) fn new_database(&self) -> String {
        url(&[self.address()], &self.0.new_database())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// The server, to be stopped, paused or asked.
    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.0
    }

    /// Runs SQL as superuser; see [`Server::sql`].
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        self.0.sql(database, text)
    }
}

/// A server that many tests use.
pub(crate) enum Shared {
    /// Started for them.
    Own(Postgres),
    /// One that runs anyway, by the URL of a superuser.
    Elsewhere(String),
}

impl Shared {
    fn elsewhere(url: String) -> Self {
        let role = format!("CREATE ROLE {ROLE} LOGIN");
        // Another process may have made it, now or earlier.
        let _ = psql(&[&url], &role);
        Self::Elsewhere(url)
    }

    /// A new database without a schema: its URL.
    pub(crate) fn new_database(&self) -> String {
        match self {
            Self::Own(server) => server.new_database(),
            Self::Elsewhere(superuser) => {
                let name = database_name();
                psql(&[superuser], &format!("CREATE DATABASE {name} OWNER {ROLE}")).unwrap();
                let (_, host) = superuser.split_once('@').expect("the URL names a user");
                let (host, _) = host.split_once('/').unwrap_or((host, ""));
                format!("postgres://{ROLE}@{host}/{name}?sslmode=disable")
            }
        }
    }
}

/// A primary and its synchronous standby: a commit is acknowledged once both have it on disk.
pub(crate) struct Pair {
    primary: Server,
    standby: Server,
}

impl Pair {
    /// Starts both, which takes a few seconds.
    pub(crate) fn start() -> Self {
        let folder = Arc::new(Folder::new());
        let mut primary = Server::new("first", &folder);
        primary.initialise("");
        primary.start();
        primary.prepare();
        let mut pair = Self { primary, standby: Server::new("second", &folder) };
        pair.follow();
        pair
    }

    /// The one that takes writes; after [`Self::promote`] the former standby.
    pub(crate) fn primary(&mut self) -> &mut Server {
        &mut self.primary
    }

    /// The one that follows; after [`Self::promote`] the former primary, whatever became of it.
    pub(crate) fn standby(&mut self) -> &mut Server {
        &mut self.standby
    }

    /// A new database without a schema: its URL, with both servers in it.
    pub(crate) fn new_database(&self) -> String {
        self.url(&self.primary.new_database())
    }

    /// The URL of a database, with both servers in it.
    pub(crate) fn url(&self, database: &str) -> String {
        url(&[self.primary.address(), self.standby.address()], database)
    }

    /// Ends the primary with all its processes, as the loss of its machine would.
    pub(crate) fn kill_primary(&mut self) {
        self.primary.kill();
    }

    /// Makes the standby a primary that waits for nobody. The old primary is left as it is: it may be dead, or live on.
    pub(crate) fn promote(&mut self) {
        self.standby.pg_ctl(&["promote", "--wait"]);
        std::mem::swap(&mut self.primary, &mut self.standby);
    }

    /// The standby goes away: no synchronous commit is acknowledged until it is back.
    pub(crate) fn stop_standby(&mut self) {
        self.standby.stop();
    }

    /// The standby comes back and catches up.
    pub(crate) fn start_standby(&mut self) {
        self.standby.start();
        self.until_synchronous();
    }

    /// Makes what was the primary before a promotion the standby of the new one, from a new copy.
    pub(crate) fn rejoin(&mut self) {
        self.standby.kill();
        fs::remove_dir_all(&self.standby.data).unwrap();
        self.follow();
    }

    /// Sets the standby up from a copy of the primary, and has the primary wait for it.
    fn follow(&mut self) {
        let source = format!("host=127.0.0.1 port={} user=postgres application_name={STANDBY}", self.primary.port);
        let standby = &mut self.standby;
        let mut copy = standby.folder.command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync"]);
        run(copy.arg("--dbname").arg(source).arg("--pgdata").arg(&standby.data));
        // Once promoted it has no standby of its own, and would wait for ever.
        standby.configure("synchronous_standby_names = ''");
        standby.start();
        let names = format!("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 ({STANDBY})'");
        self.primary.sql("postgres", &names);
        self.primary.sql("postgres", "SELECT pg_reload_conf()");
        self.until_synchronous();
    }

    fn until_synchronous(&self) {
        let state = format!("SELECT sync_state FROM pg_stat_replication WHERE application_name = '{STANDBY}'");
        until("the standby follows synchronously", || self.primary.sql("postgres", &state) == "sync");
    }
}

/// One server: where its files are, and its process while it runs.
pub(crate) struct Server {
    folder: Arc<Folder>,
    data: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Server {
    fn new(name: &str, folder: &Arc<Folder>) -> Self {
        Self { data: folder.path.join(name), folder: Arc::clone(folder), port: free_port(), process: None }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Runs SQL as superuser and returns what it answers, unaligned, without headings.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The same where a refusal is an answer.
    pub(crate) fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        let place = format!("host=127.0.0.1 port={} user=postgres dbname={database} connect_timeout=5", self.port);
        psql(&[&place], text)
    }

    /// Starts it and waits until it answers. Its port changes if somebody else has taken it, except when it ran before.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let ran_before = self.data.join("ran").exists();
        for _ in 0..TRIES {
            if self.try_start() {
                fs::write(self.data.join("ran"), "").unwrap();
                return;
            }
            if !ran_before {
                self.port = free_port();
            }
        }
        panic!("PostgreSQL does not start:\n{}", self.log());
    }

    fn try_start(&mut self) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(self.data.with_extension("log")).unwrap();
        let mut command = self.folder.command("postgres");
        command.arg("-D").arg(&self.data).args(["-p", &self.port.to_string()]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.folder.path.display()));
        let mut process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            // Its lock file says when it takes connections, and that it is this one rather than somebody on its port.
            let lock = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
            let line = |number| lock.lines().nth(number).unwrap_or_default().trim();
            if line(0) == process.id().to_string() && ["ready", "standby"].contains(&line(7)) {
                self.process = Some(process);
                return true;
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not get ready:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops it in order: connections are ended, all is written.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal("INT", &[process.id()]);
            end(&mut process);
        }
    }

    /// Ends all its processes at once, wherever they are.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // First the parent, so that it starts no more of them.
            signal("STOP", &[process.id()]);
            let children = children_of(process.id());
            signal("KILL", &[process.id()]);
            signal("KILL", &children);
            end(&mut process);
            until("its processes are gone", || children.iter().all(|child| !is_alive(*child)));
        }
    }

    /// Keeps a copy of its files, while it does not run.
    pub(crate) fn save_files(&self) {
        assert!(self.process.is_none(), "it runs");
        run(Command::new("cp").arg("--archive").arg(&self.data).arg(self.data.with_extension("saved")));
    }

    /// Puts that copy in the place of its files, while it does not run.
    pub(crate) fn put_files_back(&self) {
        assert!(self.process.is_none(), "it runs");
        fs::remove_dir_all(&self.data).unwrap();
        fs::rename(self.data.with_extension("saved"), &self.data).unwrap();
    }

    /// Halts all its processes: connections stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        let process = self.process.as_ref().expect("it runs").id();
        signal("STOP", &[process]);
        signal("STOP", &children_of(process));
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        let process = self.process.as_ref().expect("it runs").id();
        signal("CONT", &children_of(process));
        signal("CONT", &[process]);
    }

    /// What it wrote to its log, for failures.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    fn new_database(&self) -> String {
        let name = database_name();
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {ROLE}"));
        name
    }

    fn initialise(&self, more: &str) {
        let mut command = self.folder.command("initdb");
        command.args(["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync"]);
        run(command.arg("--pgdata").arg(&self.data));
        self.configure(&format!("{SETTINGS}{more}"));
    }

    fn configure(&self, settings: &str) {
        // The last file read, and the last line in it, holds.
        let mut file = OpenOptions::new().append(true).open(self.data.join("postgresql.auto.conf")).unwrap();
        writeln!(file, "{settings}").unwrap();
    }

    fn prepare(&self) {
        self.sql("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        run(self.folder.command("pg_ctl").args(arguments).arg("--pgdata").arg(&self.data));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.resume();
            self.stop();
        }
    }
}

/// The folder of one or two servers. Goes with the last of them.
struct Folder {
    path: PathBuf,
    /// Who the servers run as where this is root, whom PostgreSQL refuses.
    user: Option<(u32, u32)>,
    programs: PathBuf,
    watcher: Mutex<Option<Child>>,
}

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short, since the name of a socket may have 107 bytes.
        let path = std::env::temp_dir().join(format!("bridge-pg-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let user = (id(&["-u"]) == 0).then(|| (id(&["-u", "nobody"]), id(&["-g", "nobody"])));
        if let Some((user, group)) = user {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        let watcher = Mutex::new(Some(watch(&path)));
        Self { path, user, programs: programs(), watcher }
    }

    /// One of PostgreSQL's programs, to run as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.user {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={user}"), &format!("--regid={group}")]);
                command.args(["--clear-groups", "--"]).arg(program);
                command
            }
        };
        command.current_dir(&self.path).env("LC_ALL", "C").env("TZ", "UTC");
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(mut watcher) = self.watcher.lock().unwrap().take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }
}

/// Starts what ends the servers of a folder once this process is gone, however it went: its standard input ends then.
fn watch(folder: &Path) -> Child {
    let script = r#"
        trap '' INT TERM HUP
        read -r _
        cd "$1" 2>/dev/null || exit 0
        for lock in */postmaster.pid; do
            [ -e "$lock" ] && kill -CONT "$(head -n 1 "$lock")" && kill -INT "$(head -n 1 "$lock")"
        done 2>/dev/null
        for _ in $(seq 100); do
            ls */postmaster.pid >/dev/null 2>&1 || break
            sleep 0.1
        done
        cd /
        rm -rf "$1""#;
    let mut watcher = Command::new("sh");
    watcher.args(["-c", script, "watcher"]).arg(folder);
    watcher.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Where PostgreSQL's programs are: those of version 15, else of the newest that is there.
pub(crate) fn programs() -> PathBuf {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_by_key(|version| (*version != 15, std::cmp::Reverse(*version)));
    let newest = versions.first().expect("PostgreSQL is not installed: ./scripts/tools");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// The URL of a database on these servers.
pub(crate) fn url(servers: &[SocketAddr], database: &str) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let servers = servers.join(",");
    format!("postgres://{ROLE}@{servers}/{database}?target_session_attrs=read-write&sslmode=disable")
}

/// The database that a URL names.
pub(crate) fn database_of(url: &str) -> &str {
    let (_, path) = url.rsplit_once('/').expect("the URL has a path");
    path.split_once('?').map_or(path, |(name, _)| name)
}

/// Unlike that of any other process, for servers that several share.
fn database_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("bridge_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn psql(place: &[&str], text: &str) -> Result<String, String> {
    let mut command = Command::new(programs().join("psql"));
    command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1", "--command", text]);
    let output = command.arg("--dbname").args(place).stdin(Stdio::null()).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
        panic!("{command:?}: {said}");
    }
}

fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn signal(name: &str, processes: &[u32]) {
    if !processes.is_empty() {
        let numbers = processes.iter().map(ToString::to_string);
        // One that has ended meanwhile is no fault.
        let _ = Command::new("kill").arg(format!("-{name}")).args(numbers).stderr(Stdio::null()).status();
    }
}

/// Waits for a process that was told to end, and ends it the hard way if it does not.
fn end(process: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while process.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = process.kill();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that were started by this one and run.
fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|process| stat(*process).is_some_and(|(_, started_by)| started_by == parent)).collect()
}

fn is_alive(process: u32) -> bool {
    stat(process).is_some_and(|(state, _)| state != 'Z')
}

/// The state of a process and who started it.
fn stat(process: u32) -> Option<(char, u32)> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything.
    let mut fields = line.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A way to a server that can be cut, fall silent, or lose the one message that matters.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<ProxyState>,
}

/// What becomes of a connection whose message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It ends.
    Cut,
    /// It stays open, and nothing passes any more.
    Silence,
}

/// Which message of a transaction is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The order to commit, so that the server never hears of it.
    Order,
    /// The acknowledgement, so that all is done and nobody is told.
    Acknowledgement,
}

#[derive(Debug, Clone)]
struct Fault {
    loss: Loss,
    needle: String,
    then: Then,
}

/// What is understood of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Postgres,
    WebSocket,
    Anything,
}

#[derive(Default)]
struct ProxyState {
    fault: Mutex<Option<Fault>>,
    struck: AtomicU32,
    messages: AtomicU32,
    is_cut: AtomicBool,
    is_silent: AtomicBool,
    stopped: AtomicBool,
    open: Mutex<Vec<[TcpStream; 2]>>,
}

impl Proxy {
    /// A way to a PostgreSQL server, on a port of its own.
    pub(crate) fn to_postgres(server: SocketAddr) -> Self {
        Self::start(server, Speech::Postgres)
    }

    /// A way to anything else: it can be cut and fall silent.
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self::start(server, Speech::Anything)
    }

    /// A way to a server that speaks WebSocket, on which the messages of clients are counted.
    pub(crate) fn to_websocket(server: SocketAddr) -> Self {
        Self::start(server, Speech::WebSocket)
    }

    fn start(server: SocketAddr, speech: Speech) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(ProxyState::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                if shared.is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let _ = shared.serve(client, server, speech);
                });
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the acknowledgement of the next transaction that executes a statement with `needle` in its text.
    pub(crate) fn swallow(&self, needle: &str, then: Then) {
        self.arm(Loss::Acknowledgement, needle, then);
    }

    /// Takes the next order to commit a transaction, or to execute a statement of its own, with `needle` in its text.
    pub(crate) fn lose(&self, needle: &str, then: Then) {
        self.arm(Loss::Order, needle, then);
    }

    fn arm(&self, loss: Loss, needle: &str, then: Then) {
        *self.state.fault.lock().unwrap() = Some(Fault { loss, needle: needle.to_owned(), then });
    }

    /// How often something was taken.
    pub(crate) fn struck(&self) -> u32 {
        self.state.struck.load(Ordering::SeqCst)
    }

    /// How many messages clients have sent to a server that speaks WebSocket, pings and closings not counted.
    pub(crate) fn messages(&self) -> u32 {
        self.state.messages.load(Ordering::SeqCst)
    }

    /// Ends all connections and accepts no more, or accepts them again.
    pub(crate) fn cut(&self, cut: bool) {
        self.state.is_cut.store(cut, Ordering::SeqCst);
        if cut {
            self.state.end_connections();
        }
    }

    /// Passes nothing on while connections stay open, or goes on with what was held back.
    pub(crate) fn silence(&self, silent: bool) {
        self.state.is_silent.store(silent, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.state.is_silent.store(false, Ordering::SeqCst);
        self.state.end_connections();
        let _ = TcpStream::connect(self.address);
    }
}

impl ProxyState {
    fn end_connections(&self) {
        for [client, server] in self.open.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    fn serve(self: &Arc<Self>, mut client: TcpStream, server: SocketAddr, speech: Speech) -> io::Result<()> {
        let mut server = TcpStream::connect(server)?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
        }
        self.open.lock().unwrap().push([client.try_clone()?, server.try_clone()?]);
        if speech == Speech::Postgres {
            negotiate(&mut client, &mut server)?;
        }
        let watched = (speech == Speech::Postgres).then(|| Arc::new(Mutex::new(Watched::default())));
        let (state, other) = (Arc::clone(self), watched.clone());
        let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
        let back = thread::spawn(move || {
            let _ = match other {
                Some(watched) => state.pass_answers(&mut from_server, &mut to_client, &watched),
                None => state.pass_bytes(&mut from_server, &mut to_client, |_| {}),
            };
            let _ = to_client.shutdown(Shutdown::Both);
            let _ = from_server.shutdown(Shutdown::Both);
        });
        let _ = match watched {
            Some(watched) => self.pass_orders(&mut client, &mut server, &watched),
            None if speech == Speech::WebSocket => {
                let mut frames = Frames::default();
                self.pass_bytes(&mut client, &mut server, |bytes| {
                    self.messages.fetch_add(frames.messages_begun(bytes), Ordering::SeqCst);
                })
            }
            None => self.pass_bytes(&mut client, &mut server, |_| {}),
        };
        let _ = server.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Both);
        let _ = back.join();
        Ok(())
    }

    fn wait_out_silence(&self) {
        while self.is_silent.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn pass_bytes(&self, from: &mut TcpStream, to: &mut TcpStream, mut look: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.wait_out_silence();
            look(&buffer[..read]);
            to.write_all(&buffer[..read])?;
        }
    }

    /// From the client: what it executes is noted, group by group, since each group is answered with one "ready".
    fn pass_orders(&self, from: &mut TcpStream, to: &mut TcpStream, watched: &Mutex<Watched>) -> io::Result<()> {
        let (mut waiting, mut group, mut transaction) = (Vec::new(), String::new(), String::new());
        loop {
            let message = read_message(from)?;
            note(&message, &mut group, &mut watched.lock().unwrap().statements);
            let ends_group = matches!(message[0], b'S' | b'Q');
            waiting.extend(message);
            if !ends_group {
                continue;
            }
            transaction.push_str(&group);
            if let Some(then) = self.strikes(Loss::Order, &transaction, ends_transaction(&transaction)) {
                return settle(then, from);
            }
            if ends_transaction(&transaction) {
                transaction.clear();
            }
            watched.lock().unwrap().groups.push_back(std::mem::take(&mut group));
            self.wait_out_silence();
            to.write_all(&std::mem::take(&mut waiting))?;
        }
    }

    /// From the server: an answer is passed on once it is whole, unless it acknowledges what is to be swallowed.
    fn pass_answers(&self, from: &mut TcpStream, to: &mut TcpStream, watched: &Mutex<Watched>) -> io::Result<()> {
        let (mut waiting, mut transaction, mut authenticated) = (Vec::new(), String::new(), false);
        loop {
            let message = read_message(from)?;
            let ready = (message[0] == b'Z').then(|| message[5]);
            waiting.extend(message);
            if let Some(status) = ready {
                if authenticated {
                    transaction.push_str(&watched.lock().unwrap().groups.pop_front().unwrap_or_default());
                }
                authenticated = true;
                let is_over = status == b'I';
                if let Some(then) = self.strikes(Loss::Acknowledgement, &transaction, is_over) {
                    return settle(then, from);
                }
                if is_over {
                    transaction.clear();
                }
            }
            // What comes outside a group, as a notification or a notice, waits for nothing.
            if ready.is_some() || !authenticated || watched.lock().unwrap().groups.is_empty() {
                self.wait_out_silence();
                to.write_all(&std::mem::take(&mut waiting))?;
            }
        }
    }

    fn strikes(&self, loss: Loss, transaction: &str, is_over: bool) -> Option<Then> {
        let mut fault = self.fault.lock().unwrap();
        let meant =
            fault.as_ref().filter(|fault| fault.loss == loss && is_over && transaction.contains(&fault.needle))?;
        let then = meant.then;
        *fault = None;
        self.struck.fetch_add(1, Ordering::SeqCst);
        Some(then)
    }
}

/// Where the frames begin in what a client sends after its request for an upgrade.
#[derive(Default)]
struct Frames {
    upgraded: bool,
    /// What was not understood yet: a part of a request, or of the head of a frame.
    head: Vec<u8>,
    /// What is left of the frame that has begun.
    left: u64,
}

impl Frames {
    /// How many messages begin in the next bytes.
    fn messages_begun(&mut self, bytes: &[u8]) -> u32 {
        let mut begun = 0;
        for byte in bytes {
            if self.left > 0 {
                self.left -= 1;
                continue;
            }
            self.head.push(*byte);
            if !self.upgraded {
                self.upgraded = self.head.ends_with(b"\r\n\r\n");
                if self.upgraded {
                    self.head.clear();
                }
            } else if let Some(length) = frame_length(&self.head) {
                // Texts and binaries; what goes on with one, and what is about the connection, is no message.
                begun += u32::from(matches!(self.head[0] & 0x0f, 1 | 2));
                self.head.clear();
                self.left = length;
            }
        }
        begun
    }
}

/// How much follows this head of a frame, its mask included; nothing while the head is not whole.
fn frame_length(head: &[u8]) -> Option<u64> {
    let short = head.get(1)?;
    let mask = if short & 0x80 == 0 { 0 } else { 4 };
    let length = match short & 0x7f {
        126 => u64::from(u16::from_be_bytes(head.get(2..4)?.try_into().ok()?)),
        127 => u64::from_be_bytes(head.get(2..10)?.try_into().ok()?),
        short => u64::from(short),
    };
    Some(length + mask)
}

/// What a connection has sent and not yet had answered.
#[derive(Default)]
struct Watched {
    statements: HashMap<String, String>,
    groups: VecDeque<String>,
}

/// A connection whose message was taken: it ends, or is held until the other side ends it.
fn settle(then: Then, socket: &mut TcpStream) -> io::Result<()> {
    if then == Then::Silence {
        let mut unheard = [0; 4096];
        while socket.read(&mut unheard)? > 0 {}
    }
    Ok(())
}

/// Whether these statements leave no transaction open: it was committed, or there was none.
fn ends_transaction(text: &str) -> bool {
    let mut open = false;
    for statement in text.split(';').map(|statement| statement.trim().to_ascii_uppercase()) {
        if statement.starts_with("BEGIN") || statement.starts_with("START TRANSACTION") {
            open = true;
        } else if statement.starts_with("COMMIT") || statement.starts_with("ROLLBACK") || statement.starts_with("END") {
            open = false;
        }
    }
    !open
}

/// Notes what a message of a client executes: statements are prepared under a name and executed by it.
fn note(message: &[u8], group: &mut String, statements: &mut HashMap<String, String>) {
    let mut texts = message[5..].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let mut text = || texts.next().unwrap_or_default();
    let executed = match message[0] {
        b'Q' => text(),
        b'P' => {
            let (name, sql) = (text(), text());
            statements.insert(name, sql);
            return;
        }
        b'B' => {
            let (_portal, name) = (text(), text());
            statements.get(&name).cloned().unwrap_or_default()
        }
        _ => return,
    };
    group.push_str(&executed);
    group.push(';');
}

/// A whole message with its type and its length.
fn read_message(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    from.read_exact(&mut message)?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize;
    message.resize(length + 1, 0);
    from.read_exact(&mut message[5..])?;
    Ok(message)
}

/// Passes on what comes before messages have types: wishes for encryption, answered with one byte, and the first message.
fn negotiate(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    const WISHES: [u32; 2] = [80_877_103, 80_877_104];
    loop {
        let mut message = vec![0; 8];
        client.read_exact(&mut message)?;
        let number = |at: usize| u32::from_be_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
        let (length, code) = (number(0) as usize, number(4));
        message.resize(length, 0);
        client.read_exact(&mut message[8..])?;
        server.write_all(&message)?;
        if !WISHES.contains(&code) {
            return Ok(());
        }
        let mut answer = [0];
        server.read_exact(&mut answer)?;
        client.write_all(&answer)?;
        assert_eq!(answer, *b"N", "the servers of tests do not encrypt");
    }
}
