//! A transaction, sent at once or statement by statement.

use std::task::Poll;

use futures_util::future::{self, BoxFuture};
use tokio::sync::MutexGuard;
use tokio::time::{self, Instant};
use tokio_postgres::{Client, Row};

use super::ended::{Durability, Ended};
use super::error::{Error, is_refusal};
use super::place::{Live, Place};
use super::statement::{Rows, Statement};

pub(super) const BEGIN_READING: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '2s'";
pub(super) const COMMIT: &str = "COMMIT";

/// A transaction under way. Dropped before its commit, nothing of it was done.
#[derive(Debug)]
pub struct Transaction<'c> {
    place: MutexGuard<'c, Place>,
    /// None once it was lost, or while a statement is under way.
    live: Option<Live>,
    /// Sent with the first statement.
    begin: Option<&'static str>,
    deadline: Instant,
    /// A statement was refused: it can only be rolled back, whatever is made of the refusal.
    failed: bool,
}

impl<'c> Transaction<'c> {
    pub(super) fn new(place: MutexGuard<'c, Place>, live: Live, durability: Durability, deadline: Instant) -> Self {
        Self { place, live: Some(live), begin: Some(durability.begin()), deadline, failed: false }
    }

    /// Runs a statement. One that is dropped before it ended ends the transaction.
    pub async fn run(&mut self, statement: &Statement) -> Result<Rows, Error> {
        let live = self.live.take().ok_or(Error::Late)?;
        let opening = self.begin.take();
        let began = async {
            match opening {
                Some(opening) => live.client.batch_execute(opening).await,
                None => Ok(()),
            }
        };
        let both = future::join(began, statement.run(&live.client));
        let Ok((began, ran)) = time::timeout_at(self.deadline, both).await else {
            self.place.give_up(live);
            return Err(Error::Late);
        };
        let ran = began.and(ran);
        if ran.as_ref().is_err_and(|error| !is_refusal(error)) {
            self.place.give_up(live);
        } else {
            self.live = Some(live);
        }
        self.failed |= ran.is_err();
        Ok(ran?)
    }

    /// Runs a statement that gives one row at most.
    pub async fn row(&mut self, statement: &Statement) -> Result<Option<Row>, Error> {
        Ok(self.run(statement).await?.into_iter().next())
    }

    /// Runs a text of several statements without parameters, in a transaction that has begun.
    pub(super) async fn run_all(&mut self, text: &str) -> Result<(), Error> {
        let live = self.live.as_ref().ok_or(Error::Late)?;
        let ran = time::timeout_at(self.deadline, live.client.batch_execute(text)).await;
        self.failed |= !matches!(ran, Ok(Ok(())));
        Ok(ran.map_err(|_| Error::Late)??)
    }

    /// Commits it, if no statement failed.
    pub async fn commit(mut self) -> Ended<()> {
        let Some(live) = self.live.take() else { return Ended::NotDone(Error::Late) };
        if self.begin.is_some() {
            return self.place.leave(live, Ended::Done(()));
        }
        if self.failed {
            return self.undo(live, Error::Misread("a statement of the transaction was refused".into())).await;
        }
        let committed = time::timeout_at(self.deadline, live.client.batch_execute(COMMIT)).await;
        let ended = match committed {
            Ok(Ok(())) => Ended::Done(()),
            Ok(Err(error)) if is_refusal(&error) => Ended::NotDone(error.into()),
            Ok(Err(_)) | Err(_) => Ended::Ambiguous,
        };
        self.place.leave(live, ended)
    }

    /// Undoes it and keeps the connection, which a mere drop does not.
    pub async fn roll_back(mut self) {
        if let Some(live) = self.live.take() {
            let _: Ended<()> = self.undo(live, Error::Late).await;
        }
    }

    async fn undo(&mut self, live: Live, why: Error) -> Ended<()> {
        let is_undone = match self.begin {
            Some(_) => true,
            None => matches!(time::timeout_at(self.deadline, live.client.batch_execute("ROLLBACK")).await, Ok(Ok(()))),
        };
        if is_undone {
            return self.place.leave(live, Ended::NotDone(why));
        }
        self.place.give_up(live);
        Ended::NotDone(why)
    }
}

/// What became of what was sent in one go.
pub(super) struct Sent {
    pub(super) begun: Result<(), tokio_postgres::Error>,
    pub(super) rows: Result<Vec<Rows>, tokio_postgres::Error>,
    pub(super) committed: Result<(), tokio_postgres::Error>,
}

/// Sends a whole transaction at once, so that it takes one round trip.
pub(super) async fn send(client: &Client, opening: &str, statements: &[Statement]) -> Sent {
    let mut parts: Vec<BoxFuture<'_, Result<Rows, tokio_postgres::Error>>> = Vec::with_capacity(statements.len() + 2);
    parts.push(Box::pin(async { client.batch_execute(opening).await.map(|()| Rows::new()) }));
    parts.extend(statements.iter().map(|statement| Box::pin(statement.run(client)) as BoxFuture<'_, _>));
    parts.push(Box::pin(async { client.batch_execute(COMMIT).await.map(|()| Rows::new()) }));
    let mut results = in_order(parts).await;
    let committed = results.pop().map_or(Ok(()), |last| last.map(drop));
    let mut results = results.into_iter();
    let begun = results.next().map_or(Ok(()), |first| first.map(drop));
    Sent { begun, rows: results.collect(), committed }
}

/// Awaits all of them, having polled each for the first time after the one before it: a statement is sent at its first poll.
async fn in_order<T>(parts: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut parts: Vec<(BoxFuture<'_, T>, Option<T>)> = parts.into_iter().map(|part| (part, None)).collect();
    future::poll_fn(|context| {
        let mut is_pending = false;
        for (part, result) in &mut parts {
            if result.is_none() {
                match part.as_mut().poll(context) {
                    Poll::Ready(done) => *result = Some(done),
                    Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    parts.into_iter().filter_map(|(_, result)| result).collect()
}

/// What the parts say of the whole.
pub(super) fn judge(sent: Sent) -> Ended<Vec<Rows>> {
    let Sent { begun, rows, committed } = sent;
    match (begun, rows, committed) {
        (Ok(()), Ok(rows), Ok(())) => Ended::Done(rows),
        // Refused inside the transaction, whose commit then rolls it back; or the commit itself was.
        (Ok(()), Err(error), Ok(())) | (Ok(()), Ok(_), Err(error)) if is_refusal(&error) => {
            Ended::NotDone(error.into())
        }
        _ => Ended::Ambiguous,
    }
}
