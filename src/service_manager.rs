//! What systemd, or another service manager that speaks `sd_notify`, is told: that the bridge is ready, reloads, stops, makes
//! progress, and in one line how it is.
//!
//! Where no service manager has named a socket, nothing is told and nothing runs. A message waits for a service manager that
//! is busy, but not for long: it then costs a line of the log. Entry points: [`ServiceManager::from_environment`], [`tend`].

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::shutdown::Shutdown;

/// How long a message waits for the service manager to take earlier ones.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the status line is looked at.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The service manager that started this process, if there is one that wants to be told. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    address: SocketAddr,
    /// The longest time between two signs of progress.
    watchdog: Option<Duration>,
    reload_was_refused: AtomicBool,
}

impl ServiceManager {
    /// By the variables `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self::default() };
        let address = match address(&name) {
            Ok(address) => address,
            Err(fault) => {
                tracing::warn!(%fault, "NOTIFY_SOCKET cannot be used: the service manager is told nothing");
                return Self::default();
            }
        };
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_mine = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_mine && *usec > 0).map(Duration::from_micros);
        Self(Some(Arc::new(Told { address, watchdog, reload_was_refused: AtomicBool::new(false) })))
    }

    /// A reload begins.
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")).await;
    }

    /// A reload has ended; where it was refused, the status line says so until one is not.
    pub async fn reloaded(&self, refused: bool) {
        let Some(told) = &self.0 else { return };
        told.reload_was_refused.store(refused, Ordering::Relaxed);
        self.tell("READY=1").await;
    }

    async fn tell(&self, message: &str) {
        let Some(told) = &self.0 else { return };
        let sent = timeout(PATIENCE, send(&told.address, message)).await;
        if let Err(fault) = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            tracing::warn!(%fault, message, "the service manager cannot be told");
        }
    }
}

/// A path, or with `@` in front a name in the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        Some((b'/', _)) => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "is neither a path nor an abstract name")),
    }
}

/// Connects anew for each message: the service manager may have made its socket anew.
async fn send(address: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = StdDatagram::unbound()?;
    socket.connect_addr(address)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)?.send(message.as_bytes()).await.map(drop)
}

/// Tells the service manager that the bridge is ready, then that it makes progress and in which state it is, for as long as it
/// is polled. `progress` resolves once every part that serves has taken a turn: while it does not, nothing is told, so that
/// the service manager restarts a bridge that hangs. `status` is one line.
pub async fn tend<P: Future<Output = ()>>(
    manager: ServiceManager,
    progress: impl Fn() -> P,
    status: impl Fn() -> String,
    shutdown: Shutdown,
) {
    let Some(told) = &manager.0 else { return };
    progress().await;
    let mut last = line(told, &status);
    manager.tell(&format!("READY=1\nSTATUS={last}")).await;
    // Half of it, so that one late turn is not the end.
    let period = told.watchdog.map_or(STATUS_EVERY, |longest| STATUS_EVERY.min(longest / 2));
    let mut turns = interval(period.max(Duration::from_millis(1)));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = shutdown.requested(), if !is_stopping => {
                is_stopping = true;
                manager.tell("STOPPING=1\nSTATUS=Draining").await;
            }
        }
        if timeout(period, progress()).await.is_err() {
            tracing::error!(waited = ?period, "a thread that serves callers makes no progress");
            progress().await;
        }
        let new = line(told, &status);
        let is_news = !is_stopping && new != last;
        let mut message = Vec::new();
        message.extend(told.watchdog.map(|_| "WATCHDOG=1".to_owned()));
        message.extend(is_news.then(|| format!("STATUS={new}")));
        last = new;
        if !message.is_empty() {
            manager.tell(&message.join("\n")).await;
        }
    }
}

fn line(told: &Told, status: &impl Fn() -> String) -> String {
    let refused = told.reload_was_refused.load(Ordering::Relaxed);
    let suffix = if refused { "; the last reload was refused, see the log" } else { "" };
    format!("{}{suffix}", status())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::gateway::Runtimes;

    #[test]
    fn sockets_are_named_by_path_or_in_the_abstract_namespace() {
        let of = |name: &str| address(OsStr::new(name));
        assert_eq!(of("/run/systemd/notify").unwrap().as_pathname(), Some("/run/systemd/notify".as_ref()));
        assert_eq!(of("@told").unwrap().as_abstract_name(), Some(&b"told"[..]));
        assert!(of("vsock:2:1234").is_err());
    }

    /// A serving thread that does nothing but what is sent to it, and ends with the sender.
    fn thread_of(runtimes: &Runtimes) -> oneshot::Sender<mpsc::Receiver<()>> {
        let (runtimes, (hang, asked)) = (runtimes.clone(), oneshot::channel::<mpsc::Receiver<()>>());
        let (registered, has_registered) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                runtimes.register();
                registered.send(()).unwrap();
                if let Ok(until) = asked.await {
                    let _ = until.recv();
                }
                std::future::pending::<()>().await;
            });
        });
        has_registered.recv().unwrap();
        hang
    }

    #[tokio::test]
    async fn while_a_serving_thread_hangs_the_watchdog_hears_nothing_and_afterwards_it_does() {
        let runtimes = Runtimes::expecting(2);
        let (hang, _other) = (thread_of(&runtimes), thread_of(&runtimes));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let told = Told {
            address: address(path.as_os_str()).unwrap(),
            watchdog: Some(Duration::from_millis(40)),
            reload_was_refused: AtomicBool::new(false),
        };
        let manager = ServiceManager(Some(Arc::new(told)));
        let next = async || {
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).await.unwrap();
            std::str::from_utf8(&buffer[..length]).unwrap().to_owned()
        };
        let progress = || runtimes.all_respond();
        let tending = tend(manager, progress, || "well".to_owned(), Shutdown::new());
        let watching = async {
            assert_eq!(next().await, "READY=1\nSTATUS=well");
            assert_eq!(next().await, "WATCHDOG=1");
            let (end, until) = mpsc::channel();
            hang.send(until).unwrap();
            // What was under way when it began to hang may still be told.
            let mut heard = 0;
            while timeout(Duration::from_millis(400), next()).await.is_ok() {
                heard += 1;
                assert!(heard < 50, "it goes on though a thread hangs");
            }
            drop(end);
            assert_eq!(next().await, "WATCHDOG=1");
        };
        tokio::select! {
            () = tending => panic!("it ended by itself"),
            () = watching => {}
        }
    }
}
