//! The built program on a simulated gateway in the test's process, with its log.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};

use concertpos_simulator::{self as simulator, Simulator};

use super::program::{PROGRAM, Program, free_address};
use super::{Caller, environment, eventually};

/// A bridge in a process of its own, and its gateway.
pub(crate) struct Scene {
    pub(crate) gateway: Simulator,
    pub(crate) program: Program,
    caller: Caller,
    log: Arc<Mutex<Vec<String>>>,
    /// Holds the journal; goes when the scene does.
    data: tempfile::TempDir,
}

/// Asks the bridge.
impl std::ops::Deref for Scene {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Scene {
    /// A quiet gateway and a bridge with these settings over the quick ones, once it has its links.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let scene = Self::without_links(settings).await;
        eventually("the bridge has its links", async || {
            scene.get_open("/readyz?require=gateway").await.status() == 200
        })
        .await;
        scene
    }

    /// The same without waiting for links, which there may never be.
    pub(crate) async fn without_links(settings: &[(&str, &str)]) -> Self {
        Self::run_by(&[PROGRAM], settings).await
    }

    /// The same, where the program is run by a command to which `serve` is appended; `{data}` in it is the folder of what the
    /// bridge keeps.
    pub(crate) async fn run_by(command: &[&str], settings: &[(&str, &str)]) -> Self {
        let gateway = Simulator::start(simulator::Config::default()).await.expect("a simulated gateway");
        let (data, listen) = (tempfile::tempdir().expect("a folder"), free_address());
        let mut settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.push(("BRIDGE_SERVER__LISTEN".to_owned(), listen.clone()));
        let folder = data.path().display().to_string();
        let words: Vec<_> = command.iter().map(|word| word.replace("{data}", &folder)).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve").envs(environment(&gateway, &data, &settings));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program");
        let log = Arc::default();
        keep(child.stderr.take().expect("a pipe"), Arc::clone(&log));
        let program = Program::of(child);
        let caller = Caller { url: format!("http://{listen}"), http: reqwest::Client::new() };
        let scene = Self { gateway, program, caller, log, data };
        eventually("it listens", async || scene.http.get(format!("{}/livez", scene.url)).send().await.is_ok()).await;
        scene
    }

    /// What the bridge keeps.
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    /// The lines of the log that hold all of these.
    pub(crate) fn lines(&self, parts: &[&str]) -> Vec<String> {
        let log = self.log.lock().expect("no panic");
        log.iter().filter(|line| parts.iter().all(|part| line.contains(part))).cloned().collect()
    }
}

fn keep(log: ChildStderr, kept: Arc<Mutex<Vec<String>>>) {
    // Ends with the program.
    std::thread::spawn(move || {
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        lines.for_each(|line| kept.lock().expect("no panic").push(line));
    });
}
