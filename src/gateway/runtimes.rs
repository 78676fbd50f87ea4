//! Where connections live: on the threads that serve callers.
//!
//! A command that has to change threads on its way to the gateway and back waits twice for another core to wake up,
//! which costs more than all that the bridge does itself. So each serving thread is a worker for connections, and whoever
//! asks on it is rather given one that lives there. A connection whose thread ends, ends with it, and is reported lost
//! like any other. Before any thread has offered itself, and where none does, connections live on the runtime of whoever
//! tends the pool.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long the first connections wait for the threads that were promised. They come within milliseconds, or not at all.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(1);

/// The threads on which connections may live. Cheap to clone; they are all the same threads.
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
    /// Held by each connection that lives here.
    connections: Arc<()>,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) runtime: Handle,
    /// The thread, where it is a single one.
    pub(super) thread: Option<ThreadId>,
    _counted: Arc<()>,
}

impl Runtimes {
    /// So many threads are going to [`register`](Self::register) themselves.
    #[must_use]
    pub fn expecting(threads: usize) -> Self {
        Self { shared: Arc::new(RuntimeTable { expected: threads, ..RuntimeTable::default() }) }
    }

    /// Makes the calling thread a worker, for as long as its runtime lasts. That must be one of a single thread.
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
        // Ends with the runtime, and tells of it.
        tokio::spawn(async move {
            pending::<()>().await;
            drop(lease);
        });
        self.shared.changed.notify_waiters();
    }

    /// Returns once every thread that was promised is there, or clearly will not come.
    pub(super) async fn registered(&self) {
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
        // Where they do not come, there is another runtime.
        let _ = timeout(REGISTRATION_TIMEOUT, all_there).await;
    }

    /// A place for one more connection: where the fewest live.
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
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's offer, taken back when its runtime ends.
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

    /// A thread that offers itself and does what it is given, until the sender is dropped.
    pub(crate) fn thread_of(runtimes: &Runtimes) -> (oneshot::Sender<()>, thread::JoinHandle<()>) {
        let (runtimes, (end, ended)) = (runtimes.clone(), oneshot::channel());
        let (offered, has_offered) = mpsc::channel();
        let running = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                runtimes.register();
                offered.send(()).unwrap();
                let _ = ended.await;
            });
        });
        has_offered.recv().unwrap();
        (end, running)
    }

    #[tokio::test]
    async fn connections_are_spread_over_the_threads_that_offer_themselves() {
        let runtimes = Runtimes::expecting(2);
        assert_eq!(runtimes.assign().thread, None, "nobody has offered anything yet");
        let threads = [thread_of(&runtimes), thread_of(&runtimes)];
        runtimes.registered().await;
        let (first, second) = (runtimes.assign(), runtimes.assign());
        assert!(first.thread.is_some() && second.thread.is_some());
        assert_ne!(first.thread, second.thread);
        drop(first);
        assert_ne!(runtimes.assign().thread, second.thread, "a place that was given up counts no more");
        for (end, running) in threads {
            drop(end);
            running.join().unwrap();
        }
        assert_eq!(runtimes.assign().thread, None, "a thread that has ended is no worker");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_never_comes_is_not_waited_for_without_end() {
        Runtimes::expecting(1).registered().await;
    }
}
