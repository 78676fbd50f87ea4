//! Which threads connections run on: the server's worker threads.
//!
//! A command that changes threads on its way to the gateway and back waits twice for another core to wake up, which costs
//! more than all the bridge's own work. So each worker thread registers its runtime here, connections are spread over the
//! registered runtimes, and the pool prefers a link on the thread that asks. A connection ends with its thread and is reported
//! lost. Until a thread has registered, connections run on the runtime that tends the pool.

use std::future::pending;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long the first connections wait for the expected threads, which register within milliseconds or not at all. Where they
/// do not, each read changes threads.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The registered threads. Cheap to clone; all clones share one table.
#[derive(Debug, Clone, Default)]
pub struct Runtimes {
    shared: Arc<RuntimeTable>,
}

#[derive(Debug, Default)]
struct RuntimeTable {
    expected: usize,
    runtimes: Mutex<Vec<Worker>>,
    changed: Notify,
}

#[derive(Debug)]
struct Worker {
    thread: ThreadId,
    runtime: Handle,
    /// Held by each connection that runs here, so that its reference count says how many there are.
    connections: Arc<()>,
}

/// The runtime that a new connection is to run on.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) runtime: Handle,
    /// The thread, where it is a single one.
    pub(super) thread: Option<ThreadId>,
    _counted: Arc<()>,
}

impl Runtimes {
    /// `threads` threads are expected to [`register`](Self::register).
    #[must_use]
    pub fn expecting(threads: usize) -> Self {
        Self { shared: Arc::new(RuntimeTable { expected: threads, ..RuntimeTable::default() }) }
    }

    /// Registers the calling thread for as long as its runtime lasts, which must be a single-threaded one.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn register(&self) {
        let thread = thread::current().id();
        let mut runtimes = self.shared.runtimes();
        if runtimes.iter().any(|worker| worker.thread == thread) {
            return;
        }
        runtimes.push(Worker { thread, runtime: Handle::current(), connections: Arc::default() });
        drop(runtimes);
        let lease = Registration { shared: Arc::clone(&self.shared), thread };
        // Dropped when the runtime ends, which removes the registration.
        tokio::spawn(async move {
            pending::<()>().await;
            drop(lease);
        });
        self.shared.changed.notify_waiters();
    }

    /// Returns once every expected thread has registered, or the wait for them has timed out.
    pub async fn registered(&self) {
        let all_there = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if self.shared.runtimes().len() >= self.shared.expected {
                    return;
                }
                changed.await;
            }
        };
        // Without them, connections run on the runtime that tends the pool.
        let _ = timeout(REGISTRATION_TIMEOUT, all_there).await;
    }

    /// Resolves once each registered thread has taken a turn; a thread that ends meanwhile is not waited for.
    pub async fn all_respond(&self) {
        let handles: Vec<_> = self.shared.runtimes().iter().map(|worker| worker.runtime.clone()).collect();
        // An error is a runtime that has ended.
        let turns: Vec<_> = handles.iter().map(|runtime| runtime.spawn(async {})).collect();
        for turn in turns {
            let _ = turn.await;
        }
    }

    /// The runtime with the fewest connections.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn assign(&self) -> Assignment {
        let runtimes = self.shared.runtimes();
        runtimes.iter().min_by_key(|worker| Arc::strong_count(&worker.connections)).map_or_else(
            || Assignment { runtime: Handle::current(), thread: None, _counted: Arc::default() },
            |worker| Assignment {
                runtime: worker.runtime.clone(),
                thread: Some(worker.thread),
                _counted: Arc::clone(&worker.connections),
            },
        )
    }
}

impl RuntimeTable {
    fn runtimes(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.runtimes.lock()
    }
}

/// Removes the thread from the table when its runtime ends.
#[derive(Debug)]
struct Registration {
    shared: Arc<RuntimeTable>,
    thread: ThreadId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.runtimes().retain(|worker| worker.thread != self.thread);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    /// A thread that registers and runs what is spawned on it, until the sender is dropped.
    pub(crate) fn thread_of(runtimes: &Runtimes) -> (oneshot::Sender<()>, thread::JoinHandle<()>) {
        let (runtimes, (end, ended)) = (runtimes.clone(), oneshot::channel());
        let (registered, has_registered) = mpsc::channel();
        let running = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                runtimes.register();
                registered.send(()).unwrap();
                let _ = ended.await;
            });
        });
        has_registered.recv().unwrap();
        (end, running)
    }

    #[tokio::test]
    async fn connections_are_spread_over_the_registered_threads() {
        let runtimes = Runtimes::expecting(2);
        assert_eq!(runtimes.assign().thread, None, "no thread has registered yet");
        let threads = [thread_of(&runtimes), thread_of(&runtimes)];
        runtimes.registered().await;
        let (first, second) = (runtimes.assign(), runtimes.assign());
        assert!(first.thread.is_some() && second.thread.is_some());
        assert_ne!(first.thread, second.thread);
        drop(first);
        assert_ne!(runtimes.assign().thread, second.thread, "a connection that ended is not counted");
        for (end, running) in threads {
            drop(end);
            running.join().unwrap();
        }
        assert_eq!(runtimes.assign().thread, None, "a thread that has ended is not used");
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_a_thread_that_never_registers_times_out() {
        Runtimes::expecting(1).registered().await;
    }
}
