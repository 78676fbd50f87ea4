//! One connection, opened when it is needed and again after a fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{self, Instant};

use super::config::Config;
use super::ended::{Durability, Ended};
use super::error::{Error, explained};
use super::place::{Live, Place, serve};
use super::statement::{Rows, Statement};
use super::transaction::{BEGIN_READING, Sent, Transaction, judge, send};

/// How long anything may take here, from the wait for the connection to the acknowledgement.
const LIMIT: Duration = Duration::from_secs(2);

/// How long one server may take to be connected to, so that the next one is tried in time.
const CONNECT_LIMIT: Duration = Duration::from_millis(900);

/// Between attempts while no server can be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection to whichever server takes writes. One transaction at a time; others wait, no longer than the limit.
///
/// A future of it may be dropped at any await: a transaction that was under way then ends with its connection, and may have
/// been committed.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    purpose: &'static str,
    limit: Duration,
    place: Mutex<Place>,
}

impl Connection {
    /// A connection that is named for its purpose in the server's list of sessions. Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config, purpose: &'static str) -> Self {
        Self::with_limit(config, purpose, LIMIT)
    }

    /// The same with another limit than 2 s.
    #[must_use]
    pub fn with_limit(config: Config, purpose: &'static str, limit: Duration) -> Self {
        Self { config, purpose, limit, place: Mutex::default() }
    }

    /// Runs statements in one transaction and one round trip. Each sees what those before it did.
    pub async fn batch(&self, durability: Durability, statements: &[Statement]) -> Ended<Vec<Rows>> {
        let deadline = Instant::now() + self.limit;
        let (mut place, live) = match self.enter(deadline).await {
            Ok(entered) => entered,
            Err(error) => return Ended::NotDone(error),
        };
        let sent = time::timeout_at(deadline, send(&live.client, durability.begin(), statements)).await;
        let ended = sent.map_or(Ended::Ambiguous, judge);
        place.leave(live, ended)
    }

    /// Begins a transaction whose statements depend on each other. It has as long as [`batch`](Self::batch) has.
    pub async fn begin(&self, durability: Durability) -> Result<Transaction<'_>, Error> {
        let deadline = Instant::now() + self.limit;
        let (place, live) = self.enter(deadline).await?;
        Ok(Transaction::new(place, live, durability, deadline))
    }

    /// Reads in one snapshot and one round trip. Once more on a new connection, where that of before was lost.
    pub async fn read(&self, statements: &[Statement]) -> Result<Vec<Rows>, Error> {
        let deadline = Instant::now() + self.limit;
        match self.read_once(statements, deadline).await {
            Err(Error::Unreachable(_)) => self.read_once(statements, deadline).await,
            ended => ended,
        }
    }

    async fn read_once(&self, statements: &[Statement], deadline: Instant) -> Result<Vec<Rows>, Error> {
        let (mut place, live) = self.enter(deadline).await?;
        let Ok(sent) = time::timeout_at(deadline, send(&live.client, BEGIN_READING, statements)).await else {
            place.give_up(live);
            return Err(Error::Late);
        };
        let Sent { begun, rows, committed } = sent;
        let is_lost = live.client.is_closed();
        if is_lost {
            place.give_up(live);
        } else {
            place.live = Some(live);
        }
        begun?;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    /// Waits for its turn and takes the connection out, opening it where there is none. Dropped before it is put back, it is
    /// closed.
    async fn enter(&self, deadline: Instant) -> Result<(MutexGuard<'_, Place>, Live), Error> {
        let mut place = time::timeout_at(deadline, self.place.lock()).await.map_err(|_| Error::Late)?;
        if let Some(live) = place.live.take().filter(|live| !live.client.is_closed()) {
            live.warned.store(false, Ordering::Relaxed);
            return Ok((place, live));
        }
        if let Some((_, error)) = place.pause.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return Err(error.clone());
        }
        let opened = time::timeout_at(deadline, self.open(&mut place.server)).await.unwrap_or(Err(Error::Late));
        match opened {
            Ok(live) => {
                (place.pause, place.pause_length) = (None, Duration::ZERO);
                Ok((place, live))
            }
            Err(error) => {
                place.pause_length = (place.pause_length * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                place.pause = Some((Instant::now() + place.pause_length, error.clone()));
                Err(error)
            }
        }
    }

    /// Tries each server once, beginning with the `first`, which is the one that was reached in the end.
    async fn open(&self, first: &mut usize) -> Result<Live, Error> {
        let mut last = Error::Late;
        for _ in 0..self.config.servers() {
            match time::timeout(CONNECT_LIMIT, self.connect(*first)).await {
                Ok(Ok(live)) => return Ok(live),
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::Late,
            }
            *first = first.wrapping_add(1);
        }
        Err(last)
    }

    async fn connect(&self, server: usize) -> Result<Live, Error> {
        let none = || Error::Unreachable("no server is known".into());
        let (config, tls) = self.config.server(server, self.purpose).ok_or_else(none)?;
        let connected = config.connect(tls).await;
        let (client, connection) = connected.map_err(|error| Error::Unreachable(explained(&error)))?;
        let warned = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(connection, Arc::clone(&warned)));
        Ok(Live { client, warned, task })
    }
}
