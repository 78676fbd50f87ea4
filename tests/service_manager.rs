//! The built program under a service manager that speaks `sd_notify`, as systemd does: this test plays the manager's side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod running;

use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use running::{Running, free_address, text, wait_until};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("the program tells nothing");
        text(&buffer[..length])
    }

    /// The next message that is more than a sign of progress, without such a sign.
    fn next_state(&self) -> String {
        loop {
            let message = self.next().replace("WATCHDOG=1\n", "");
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

fn settings(folder: &Path, listen: &str) -> String {
    let gateway = "url = \"ws://127.0.0.1:9/{shard}/?instance={instance}\"";
    format!(
        "[server]\nlisten = \"{listen}\"\n[gateway]\n{gateway}\n[instances.demo]\napi_key = \"k\"\n[cache]\nstore = \
         \"\"\n[payments]\njournal = \"{}\"\n",
        folder.join("journal").display()
    )
}

#[test]
fn it_tells_when_it_is_ready_reloads_makes_progress_and_stops() {
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let (socket, file) = (folder.path().join("notify"), folder.path().join("bridge.toml"));
    let manager = Manager::at(&socket);
    let started_with = settings(folder.path(), &listen);
    std::fs::write(&file, &started_with).unwrap();
    let environment = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let bridge = Running::start(&["serve", "--config", file.to_str().unwrap()], &environment);

    assert_eq!(manager.next(), "READY=1\nSTATUS=Serving 1 instance; no link to the gateway: demo");
    TcpStream::connect(&listen).expect("it listens by then");
    for _ in 0..3 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }

    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let before = monotonic_usec();
        bridge.signal("-HUP");
        let told = manager.next_state();
        let usec: i64 = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&told).parse().unwrap();
        assert!((before..=monotonic_usec()).contains(&usec), "{told}");
        assert_eq!(manager.next_state(), "READY=1");
    };
    reload(&format!("{started_with}[instances.other]\napi_key = \"l\"\n"));
    assert_eq!(manager.next_state(), "STATUS=Serving 2 instances; no link to the gateway: demo, other");
    reload("nonsense");
    let refused =
        "STATUS=Serving 2 instances; no link to the gateway: demo, other; the last reload was refused, see the log";
    assert_eq!(manager.next_state(), refused);
    reload(&started_with);
    assert_eq!(manager.next_state(), "STATUS=Serving 1 instance; no link to the gateway: demo");

    bridge.signal("-TERM");
    assert_eq!(manager.next_state(), "STOPPING=1\nSTATUS=Draining");
    let (status, log) = bridge.end(PATIENCE);
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("cannot be told"), "{log}");
}

#[test]
fn a_bridge_that_is_halted_gives_no_sign_of_progress_until_it_goes_on() {
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let file = folder.path().join("bridge.toml");
    std::fs::write(&file, settings(folder.path(), &listen)).unwrap();
    // In the abstract namespace, as containers have it.
    let name = format!("concertpos-bridge-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap());
    let environment = [("NOTIFY_SOCKET", format!("@{name}")), ("WATCHDOG_USEC", "200000".to_owned())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let bridge = Running::start(&["serve", "--config", file.to_str().unwrap()], &environment);
    assert!(manager.next().starts_with("READY=1\n"));
    assert_eq!(manager.next(), "WATCHDOG=1");
    bridge.signal("-STOP");
    let is_halted = || std::fs::read_to_string(format!("/proc/{}/stat", bridge.0.id())).unwrap().contains(") T ");
    wait_until("it is halted", is_halted);
    manager.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    while manager.0.recv(&mut buffer).is_ok() {}
    manager.0.set_nonblocking(false).unwrap();
    manager.0.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!(manager.0.recv(&mut buffer).is_err(), "a halted process tells nothing");
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    bridge.signal("-CONT");
    assert_eq!(manager.next(), "WATCHDOG=1");
}

#[test]
fn a_start_that_fails_is_never_ready_and_the_unit_does_not_repeat_one_with_a_bad_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = Manager::at(&socket);
    let environment = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("BRIDGE_GATEWAY__FORMAT", "xml")];
    let (status, log) = Running::start(&["serve"], &environment).end(PATIENCE);
    assert_eq!(status, Some(2), "{log}");
    manager.0.set_nonblocking(true).unwrap();
    assert!(manager.0.recv(&mut [0; 64]).is_err(), "it told something");
    let unit = include_str!("../deploy/systemd/concertpos-bridge.service");
    let lines: Vec<_> = unit.lines().collect();
    for line in ["Type=notify", "RestartPreventExitStatus=2", "ExecReload=/bin/kill -HUP $MAINPID", "WatchdogSec=30s"] {
        assert!(lines.contains(&line), "{line}");
    }
}

#[test]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = include_str!("../deploy/systemd/concertpos-bridge.service");
    // The program must be where the unit says.
    let here = unit.replace("/usr/local/bin/concertpos-bridge", running::PROGRAM);
    let path = folder.path().join("concertpos-bridge.service");
    std::fs::write(&path, here).unwrap();
    let verified =
        Command::new("systemd-analyze").arg("verify").arg(&path).output().expect("systemd-analyze is needed");
    let said = text(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}
