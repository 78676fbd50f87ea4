//! Stopping in order: one signal to begin, one to stop waiting.
//!
//! Nobody here exits the process. Whoever runs the program passes a [`Drain`] down; the rooms look at it, finish what
//! they have begun, and return.

use tokio_util::sync::CancellationToken;

/// The program's wish to stop. Cheap to clone; all clones are one wish.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    begun: CancellationToken,
    refusing: CancellationToken,
    impatient: CancellationToken,
}

impl Drain {
    /// A wish that nobody has uttered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Utters the wish; the second time, impatiently.
    pub fn ask(&self) {
        if self.begun.is_cancelled() {
            self.impatient.cancel();
        }
        self.begun.cancel();
    }

    /// Resolves when draining begins.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether draining has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// From now on nothing new is taken. Whoever runs the program says so once it has served on for as long as balancers
    /// need to notice.
    pub fn refuse_new(&self) {
        self.refusing.cancel();
    }

    /// Resolves when nothing new is taken any more: connections that would stay open for ever end.
    pub async fn refusing(&self) {
        self.refusing.cancelled().await;
    }

    /// Whether nothing new is taken any more.
    #[must_use]
    pub fn refuses_new(&self) -> bool {
        self.refusing.is_cancelled()
    }

    /// Resolves when waiting any longer is no longer wanted.
    pub async fn impatient(&self) {
        self.impatient.cancelled().await;
    }

    /// Asks at each SIGINT or SIGTERM, for as long as the future is polled.
    pub async fn on_signals(self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            self.ask();
        }
    }
}
