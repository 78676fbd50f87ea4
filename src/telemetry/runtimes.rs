//! The runtimes of the process: one for what must finish, and one for each thread that serves callers. Their tasks are
//! counted together: a task that never ends is a leak on any of them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Runtimes(Arc<Mutex<Vec<Handle>>>);

impl Runtimes {
    /// Counts the calling thread's runtime too; once, however often it is called.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn count_mine(&self) {
        let mine = Handle::current();
        let mut known = self.0.lock();
        if !known.iter().any(|one| one.id() == mine.id()) {
            known.push(mine);
        }
    }

    /// Tasks that were spawned and have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        let known = self.0.lock();
        known.iter().map(|one| one.metrics().num_alive_tasks()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_task_counts_until_it_has_ended_and_a_runtime_only_once() {
        let runtimes = Runtimes::default();
        runtimes.count_mine();
        runtimes.clone().count_mine();
        let before = runtimes.tasks();
        let endless = tokio::spawn(pending::<()>());
        assert_eq!(runtimes.tasks(), before + 1);
        endless.abort();
        let _ = endless.await;
        assert_eq!(runtimes.tasks(), before);
    }
}
