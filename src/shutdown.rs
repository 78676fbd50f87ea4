//! Stopping in order: the first request begins it, the second cuts it short.
//!
//! Nothing here ends the process. [`Shutdown`] is passed down; the rooms look at it, finish what they have begun, and return.

use tokio_util::sync::CancellationToken;

/// How far stopping has come. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    refusing: CancellationToken,
    forced: CancellationToken,
}

impl Shutdown {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A part that can be stopped by itself, and is stopped with the whole.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            requested: self.requested.child_token(),
            refusing: self.refusing.child_token(),
            forced: self.forced.child_token(),
        }
    }

    /// Asks to stop; the second time, without waiting for what is under way.
    pub fn request(&self) {
        if self.requested.is_cancelled() {
            self.forced.cancel();
        }
        self.requested.cancel();
    }

    /// Resolves once stopping was asked for.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// From now on nothing new is taken. Said once the bridge has served on for as long as load balancers need to notice.
    pub fn refuse_new(&self) {
        self.refusing.cancel();
    }

    /// Resolves when nothing new is taken any more: connections without an end of their own are closed then.
    pub async fn refusing(&self) {
        self.refusing.cancelled().await;
    }

    #[must_use]
    pub fn refuses_new(&self) -> bool {
        self.refusing.is_cancelled()
    }

    /// Resolves when what is under way is no longer waited for.
    pub async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// Requests at each SIGINT or SIGTERM, for as long as the future is polled.
    pub async fn on_signals(self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            self.request();
        }
    }
}
