//! The built program as a process of its own, on a simulated gateway in the test's process.

use std::process::{Child, Command, Stdio};

use super::KEY;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_concertpos-bridge");

/// A bridge in a process of its own. It is killed when this is dropped.
pub(crate) struct Program(Child);

impl Program {
    /// Starts one on `listen`, an address with a port of the caller's choice.
    pub(crate) fn start(listen: &str, gateway: &str, journal: &str) -> Self {
        Self::start_with(listen, gateway, journal, &[])
    }

    /// The same with more settings.
    pub(crate) fn start_with(listen: &str, gateway: &str, journal: &str, more: &[(&str, &str)]) -> Self {
        Self::run(Command::new(PROGRAM).arg("serve").envs(more.iter().copied()), listen, gateway, journal)
    }

    /// The same with a configuration file, whose settings come after those here.
    pub(crate) fn start_configured(file: &std::path::Path, listen: &str, gateway: &str, journal: &str) -> Self {
        Self::run(Command::new(PROGRAM).args(["serve", "--config"]).arg(file), listen, gateway, journal)
    }

    /// The same, but no file of it can grow beyond `kib`, as on a full disk.
    pub(crate) fn start_on_full_disk(kib: u64, listen: &str, gateway: &str, journal: &str) -> Self {
        // The signal that comes with the limit is ignored, so that the write fails as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec {PROGRAM} serve");
        Self::run(Command::new("bash").args(["-c", &script]), listen, gateway, journal)
    }

    fn run(command: &mut Command, listen: &str, gateway: &str, journal: &str) -> Self {
        let environment = [
            ("BRIDGE_SERVER__LISTEN", listen),
            ("BRIDGE_GATEWAY__URL", gateway),
            ("BRIDGE_PAYMENTS__JOURNAL", journal),
            ("BRIDGE_CACHE__STORE", ""),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY),
            ("BRIDGE_LIMITS__CAPACITY", "1000000"),
            ("BRIDGE_TELEMETRY__LOG", "error"),
        ];
        Self(command.envs(environment).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// One that runs.
    pub(super) fn of(child: Child) -> Self {
        Self(child)
    }

    /// Has it reread its configuration file.
    pub(crate) fn hang_up(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it with SIGKILL, wherever it is.
    pub(crate) fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops it where it is with SIGSTOP, or lets it go on with SIGCONT.
    pub(crate) fn pause(&self, paused: bool) {
        let signal = if paused { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that nobody listens on.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
