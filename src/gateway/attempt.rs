//! One attempt to connect, and the connection that it opens, until that connection ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::context::PoolContext;
use super::dialer::Dialer;
use super::error::{DialError, Ended};
use super::events::LinkEvent;
use super::link::{self, Link};
use super::links::{Entry, Heard, LinkId};
use super::reach::ReachAttempt;
use super::runtimes::Assignment;
use super::socket::Received;
use crate::protocol::{Body, Command, Frame, GatewayError, frame};

/// One attempt to connect, and the connection that it opens. However its task ends, even by a panic or with its thread,
/// the drop reports it to the pool: a link that was never reported over would count as busy for ever.
pub(super) struct Attempt {
    pool: Arc<PoolContext>,
    shard: usize,
    stage: Stage,
    /// Taken once the attempt succeeded or failed.
    reaching: Option<ReachAttempt>,
}

enum Stage {
    Dialling,
    Serving { link: LinkId, opened: Instant },
    Over,
}

impl Attempt {
    /// An attempt that the shard counts as under way already.
    pub(super) fn begun(pool: &Arc<PoolContext>, shard: usize, reaching: ReachAttempt) -> Self {
        Self { pool: Arc::clone(pool), shard, stage: Stage::Dialling, reaching: Some(reaching) }
    }

    /// Opens one connection and serves it until it ends.
    pub(super) async fn go(mut self, name: String, assignment: Assignment) {
        let (pool, index) = (Arc::clone(&self.pool), self.shard);
        let url = pool.config.url_of(&name, &pool.slug);
        // Boxed: the future is large and ends long before the connection does.
        let opening = Box::pin(link::open(&url, &pool.dialer, &pool.config));
        let Some(dialled) = pool.closing.run_until_cancelled(opening).await else { return };
        let Some(reaching) = self.reaching.take() else { return };
        let Some(socket) = pool.dialled(index, &name, reaching, dialled) else {
            self.stage = Stage::Over;
            return pool.changed.notify_one();
        };
        let (jobs, inbox) = mpsc::channel(1);
        let (stop, opened) = (CancellationToken::new(), Instant::now());
        let heard = Heard::from(opened);
        let entry = Entry::new(index, assignment.thread, heard.clone(), jobs, stop.clone());
        let Some(link) = pool.admit(entry) else {
            self.stage = Stage::Over;
            return socket.close(link::CLOSE_TIMEOUT).await;
        };
        self.stage = Stage::Serving { link, opened };
        tracing::info!(instance = pool.instance, shard = name, link, "link open");
        if let Some(connections) = pool.metrics.connections(index) {
            connections.opened.inc();
        }
        let serving = Link::new(link, (index, name.clone()), socket, heard, Arc::clone(&pool));
        let (ended, proved) = serving.serve(inbox, stop).await;
        match &ended {
            Ended::Asked => tracing::info!(instance = pool.instance, shard = name, link, "link closed"),
            Ended::Spent => tracing::info!(instance = pool.instance, shard = name, link, "link closed after a timeout"),
            Ended::Fenced => tracing::info!(
                instance = pool.instance,
                shard = name,
                link,
                "link closed: another replica may own the instance"
            ),
            // Logged where the shard's health is recorded.
            Ended::Lost(_) | Ended::Garbled(_) | Ended::Untrusted(_) => {}
        }
        self.stage = Stage::Over;
        pool.link_ended(link, index, proved, &ended);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        match self.stage {
            Stage::Over => {}
            Stage::Dialling => {
                if let Some(shard) = self.pool.state().shards.get_mut(self.shard) {
                    shard.dialling -= 1;
                    // Counted as a failure, so that the next attempt waits: a runtime that is ending cuts off every attempt
                    // at once, and the planner would start new ones without end.
                    let now = Instant::now();
                    shard.health.dial_failed(now, now, fastrand::f64(), false);
                }
                self.pool.changed.notify_one();
            }
            Stage::Serving { link, opened } => {
                (self.pool.events.0)(&LinkEvent::Closed { link, last_heard: opened });
                self.pool.link_ended(link, self.shard, false, &Ended::Lost("its task was cut off".to_owned()));
            }
        }
    }
}

/// Connects to one shard once and says how long that took, the first ping answered included.
pub async fn dial_once(config: &Config, dialer: &Dialer, shard: &str, slug: &str) -> Result<Duration, DialError> {
    let begun = Instant::now();
    let (socket, _) = link::open(&config.url_of(shard, slug), dialer, config).await?;
    let took = begun.elapsed();
    socket.close(config.connect_timeout).await;
    Ok(took)
}

/// Connects to one shard once and asks one command with this key. The inner error is the gateway's refusal; the outer one says
/// why there is no answer. For commands that change nothing: it may have been executed without one.
pub async fn ask_once(
    config: &Config,
    dialer: &Dialer,
    (shard, slug): (&str, &str),
    (command, api_key): (&Command, &str),
) -> Result<Result<Body, GatewayError>, DialError> {
    let (mut socket, _) = link::open(&config.url_of(shard, slug), dialer, config).await?;
    let asking = async {
        socket.send(frame::encode(command, api_key)).await.map_err(DialError::Closed)?;
        loop {
            match socket.receive().await {
                Received::Text(text) => match frame::decode(&text, config.format) {
                    Ok(Frame::Event { event, parameters }) if event == command.reply_event => {
                        return Ok(Ok(parameters));
                    }
                    Ok(Frame::Error(error)) => return Ok(Err(error)),
                    _ => {}
                },
                Received::Closed(why) | Received::Garbled(why) => return Err(DialError::Closed(why)),
                Received::Binary(_) | Received::Pong(_) | Received::Ignored => {}
            }
        }
    };
    let silent = || DialError::Closed("no reply within the request timeout".to_owned());
    let answer = timeout(config.request_timeout, asking).await.unwrap_or_else(|_| Err(silent()));
    socket.close(config.connect_timeout).await;
    answer
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::super::runtimes::tests::thread_of;
    use super::super::{EventSink, LinkState, Pool, Runtimes};
    use super::*;
    use crate::gateway;
    use concertpos_simulator::{self as simulator, Simulator};

    /// The generations of the links in service.
    async fn links(pool: &Pool, count: usize) -> Vec<LinkId> {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", pool.status());
            let status = pool.status();
            let links =
                status.shards.iter().flat_map(|shard| &shard.links).filter(|link| link.state == LinkState::Free);
            let links: Vec<_> = links.map(|link| link.link).collect();
            if links.len() == count {
                return links;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_thread_that_ends_takes_its_links_along_and_others_are_opened_elsewhere() {
        let gateway = Simulator::start(simulator::Config::default()).await.unwrap();
        let runtimes = Runtimes::expecting(1);
        let (end, home) = thread_of(&runtimes);
        let config = Config { url: gateway.url(), ..Config::default() };
        let dialer = Dialer::tcp(gateway::client_config(None).unwrap());
        let closed = Arc::new(std::sync::Mutex::new(Vec::new()));
        let events = EventSink(Arc::new({
            let closed = Arc::clone(&closed);
            move |upward| {
                if let LinkEvent::Closed { link, .. } = upward {
                    closed.lock().unwrap().push(*link);
                }
            }
        }));
        let pool = Pool::new(config, "demo", "demo", dialer, events);
        let stop = CancellationToken::new();
        tokio::spawn(pool.clone().tend(runtimes, stop.clone(), Duration::ZERO));
        let first = links(&pool, 2).await;

        drop(end);
        tokio::task::spawn_blocking(|| home.join()).await.unwrap().unwrap();
        let mut told = closed.lock().unwrap().clone();
        told.sort_unstable();
        assert_eq!(told, first, "whoever listens to a link hears that it is over");
        let second = links(&pool, 2).await;
        assert!(second.iter().all(|link| !first.contains(link)), "{first:?} {second:?}");
        stop.cancel();
    }
}
