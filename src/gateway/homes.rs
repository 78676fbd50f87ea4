//! Where connections live: on the threads that serve callers.
//!
//! A command that has to change threads on its way to the gateway and back waits twice for another core to wake up,
//! which costs more than all that the bridge does itself. So each serving thread is a home for connections, and whoever
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
const PATIENCE: Duration = Duration::from_secs(1);

/// The threads on which connections may live. Cheap to clone; they are all the same threads.
#[derive(Debug, Clone, Default)]
pub struct Homes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    expected: usize,
    homes: Mutex<Vec<Home>>,
    changed: Notify,
}

#[derive(Debug)]
struct Home {
    thread: ThreadId,
    runtime: Handle,
    /// Held by each connection that lives here.
    lodgers: Arc<()>,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) runtime: Handle,
    /// The thread, where it is a single one.
    pub(super) thread: Option<ThreadId>,
    _lodger: Arc<()>,
}

impl Homes {
    /// So many threads are going to [`offer`](Self::offer) themselves.
    #[must_use]
    pub fn expecting(threads: usize) -> Self {
        Self { shared: Arc::new(Shared { expected: threads, ..Shared::default() }) }
    }

    /// Makes the calling thread a home, for as long as its runtime lasts. That must be one of a single thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn offer(&self) {
        let thread = thread::current().id();
        let mut homes = self.shared.homes();
        if homes.iter().any(|home| home.thread == thread) {
            return;
        }
        homes.push(Home { thread, runtime: Handle::current(), lodgers: Arc::default() });
        drop(homes);
        let lease = Lease { shared: Arc::clone(&self.shared), thread };
        // Ends with the runtime, and tells of it.
        tokio::spawn(async move {
            pending::<()>().await;
            drop(lease);
        });
        self.shared.changed.notify_waiters();
    }

    /// Returns once every thread that was promised is there, or clearly will not come.
    pub(super) async fn settled(&self) {
        let all_there = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if self.shared.homes().len() >= self.shared.expected {
                    return;
                }
                changed.await;
            }
        };
        // Where they do not come, there is another runtime.
        let _ = timeout(PATIENCE, all_there).await;
    }

    /// A place for one more connection: where the fewest live.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn place(&self) -> Place {
        let homes = self.shared.homes();
        homes.iter().min_by_key(|home| Arc::strong_count(&home.lodgers)).map_or_else(
            || Place { runtime: Handle::current(), thread: None, _lodger: Arc::default() },
            |home| Place {
                runtime: home.runtime.clone(),
                thread: Some(home.thread),
                _lodger: Arc::clone(&home.lodgers),
            },
        )
    }
}

impl Shared {
    fn homes(&self) -> MutexGuard<'_, Vec<Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's offer, taken back when its runtime ends.
#[derive(Debug)]
struct Lease {
    shared: Arc<Shared>,
    thread: ThreadId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.homes().retain(|home| home.thread != self.thread);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    /// A thread that offers itself and does what it is given, until the sender is dropped.
    pub(crate) fn thread_of(homes: &Homes) -> (oneshot::Sender<()>, thread::JoinHandle<()>) {
        let (homes, (end, ended)) = (homes.clone(), oneshot::channel());
        let (offered, has_offered) = mpsc::channel();
        let running = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                homes.offer();
                offered.send(()).unwrap();
                let _ = ended.await;
            });
        });
        has_offered.recv().unwrap();
        (end, running)
    }

    #[tokio::test]
    async fn connections_are_spread_over_the_threads_that_offer_themselves() {
        let homes = Homes::expecting(2);
        assert_eq!(homes.place().thread, None, "nobody has offered anything yet");
        let threads = [thread_of(&homes), thread_of(&homes)];
        homes.settled().await;
        let (first, second) = (homes.place(), homes.place());
        assert!(first.thread.is_some() && second.thread.is_some());
        assert_ne!(first.thread, second.thread);
        drop(first);
        assert_ne!(homes.place().thread, second.thread, "a place that was given up counts no more");
        for (end, running) in threads {
            drop(end);
            running.join().unwrap();
        }
        assert_eq!(homes.place().thread, None, "a thread that has ended is no home");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_never_comes_is_not_waited_for_without_end() {
        Homes::expecting(1).settled().await;
    }
}
