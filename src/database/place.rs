//! The one place of a connection: it is taken out for a transaction, and put back if that ended orderly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client};

use super::ended::Ended;
use super::error::{Error, explained};

/// What the next transaction finds.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) live: Option<Live>,
    /// Which server is tried first.
    pub(super) server: usize,
    /// No attempt before then, and why.
    pub(super) pause: Option<(Instant, Error)>,
    pub(super) pause_length: Duration,
}

/// An open connection. Dropping it closes it at once, whatever is under way.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: Client,
    /// A commit was acknowledged although its standby was not waited for.
    pub(super) warned: Arc<AtomicBool>,
    pub(super) task: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        // Otherwise it would live until the server has answered everything, which a commit without its standby never is.
        self.task.abort();
    }
}

impl Place {
    /// Puts the connection back, unless what happened leaves it in doubt.
    pub(super) fn leave<T>(&mut self, live: Live, ended: Ended<T>) -> Ended<T> {
        if live.warned.load(Ordering::Relaxed) {
            self.give_up(live);
            return if matches!(ended, Ended::NotDone(_)) { ended } else { Ended::Ambiguous };
        }
        if matches!(ended, Ended::Ambiguous) || live.client.is_closed() {
            self.give_up(live);
        } else {
            self.live = Some(live);
        }
        ended
    }

    /// Closes it, and tries another server first: this one may be a primary of before.
    pub(super) fn give_up(&mut self, live: Live) {
        drop(live);
        self.server = self.server.wrapping_add(1);
    }
}

/// Carries messages until the connection ends. A notice comes before the answer that it belongs to.
pub(super) async fn serve<S, T>(mut connection: tokio_postgres::Connection<S, T>, warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notice(notice))) if is_of_commit(&notice) => {
                warned.store(true, Ordering::Relaxed);
                tracing::warn!(
                    code = notice.code().code(),
                    "the database did not wait for its standby: {}",
                    notice.message()
                );
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(error = explained(&error), "a connection to the database was lost");
                return;
            }
            None => return,
        }
    }
}

/// Whether the server says that it stopped waiting for its standby. Its words depend on its language, its code does not.
fn is_of_commit(notice: &DbError) -> bool {
    notice.parsed_severity() == Some(Severity::Warning)
        && [SqlState::WARNING, SqlState::ADMIN_SHUTDOWN].contains(notice.code())
}
