//! The embedded store: reads look at the last commit, on threads that may block; everything else is handed to the writer.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio::{task, time};

use super::directory::Directory;
use super::error::{StoreError, misread};
use super::medium::Medium;
use super::opening::{self, COMPACTED_BYTES};
use super::scan::{Scan, Scans};
use super::tables::Snapshot;
use super::verification::{Background, Stop};
use super::view::View;
use super::write_queue::{Job, WriteQueue};
use super::writer::Writer;
use crate::journal::apply::{Applied, Apply};
use crate::journal::clock::Clock;
use crate::journal::condition::Condition;
use crate::journal::config::Config;
use crate::journal::error::{JournalError, OpenError};
use crate::journal::id::RecordId;
use crate::journal::in_flight::HeldKey;
use crate::journal::listing::{Filter, Listed, Page};
use crate::journal::payment::{Dispatched, Reservation};
use crate::journal::record::{Record, RecordState};
use crate::journal::sale::Key;
use crate::journal::state_machine::Event;
use crate::journal::store::{CountsByInstance, Current, Reading, Store};

/// Records that a start looks at for what was sent lately: more than any gateway takes in ten minutes.
const MAX_EXAMINED: u32 = 100_000;

/// Keys that are looked up at once. More than that wait: a disk that hangs must not take every thread that may block.
const MAX_LOOKUPS: usize = 64;

/// The longest from reserving a key to the end of the exchange, in milliseconds: 10 minutes, with much to spare.
const LONGEST_PAYMENT_MS: i64 = 600_000;

/// How long a close waits for the writer. A disk that hangs must not hold up the end of the process.
const LONGEST_CLOSE: Duration = Duration::from_secs(5);

/// An open file and its writer. Dropping it closes both.
#[derive(Debug)]
pub(crate) struct EmbeddedStore {
    reader: Reader,
    pub(crate) scans: Scans,
    writer: Mutex<Option<JoinHandle<()>>>,
    lookups: Arc<Semaphore>,
    stop: Arc<Stop>,
}

/// What a thread that reads needs.
#[derive(Debug, Clone)]
struct Reader {
    view: Arc<View>,
    queue: Arc<WriteQueue>,
}

impl EmbeddedStore {
    /// Opens the journal in its directory, or makes it, and begins to verify it in the background. Also the greatest id that
    /// was ever given out there. Reads and writes the disk: not for an async thread.
    pub(crate) fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<(Self, Option<RecordId>), OpenError> {
        let directory = Directory::claim(config.directory(), config.create())?;
        let path = directory.path().to_owned();
        let (store, newest) = Self::open_on(directory, config.keep(), clock)?;
        store.verify_in_background(path.clone()).map_err(|source| OpenError::Io { path, source })?;
        Ok((store, newest))
    }

    pub(crate) fn open_on(
        medium: impl Medium,
        keep: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Option<RecordId>), OpenError> {
        let path = medium.path().to_owned();
        let database = opening::open_compact(&medium, COMPACTED_BYTES)?;
        let (view, queue): (Arc<View>, Arc<WriteQueue>) = Default::default();
        let shared = (Arc::clone(&view), Arc::clone(&queue));
        let writer =
            Writer::start(database, shared, clock, keep, Box::new(medium)).map_err(|error| misread(error, &path))?;
        let newest = view.look(Snapshot::newest).map_err(|error| misread(error, &path))?;
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path, source })?;
        let (scans, stop) = Default::default();
        let (writer, lookups) = (Mutex::new(Some(thread)), Arc::new(Semaphore::new(MAX_LOOKUPS)));
        Ok((Self { reader: Reader { view, queue }, scans, writer, lookups, stop }, newest))
    }

    /// Compares all of the file with its checksums from now on, a little at a time. Damage ends new payments.
    pub(crate) fn verify_in_background(&self, path: PathBuf) -> io::Result<()> {
        let Reader { view, queue } = self.reader.clone();
        Background { path, view, queue, stop: Arc::clone(&self.stop) }.start().map(drop)
    }

    #[cfg(test)]
    pub(crate) fn queue(&self) -> Arc<WriteQueue> {
        Arc::clone(&self.reader.queue)
    }

    /// Looks at the last commit on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let reader = self.reader.clone();
        task::spawn_blocking(move || reader.read(look)).await.unwrap_or(Err(JournalError::Unavailable))
    }
}

impl Reader {
    fn read<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, StoreError>) -> Result<T, JournalError> {
        self.view.look(look).map_err(|error| match error {
            StoreError::Closed | StoreError::Moved(_) | StoreError::Abandoned => JournalError::Unavailable,
            StoreError::Damaged { id, .. } => {
                self.report_unreadable(id);
                JournalError::Damaged
            }
            StoreError::Storage(error) => {
                tracing::error!(%error, "the payment journal cannot be read");
                // A failed read fails all that follow until the file is opened anew, and only the writer does that.
                let _ = self.queue.hand_in(Job::Probe);
                JournalError::Unavailable
            }
        })
    }

    /// Has those that were found unreadable listed as such from now on.
    fn report<'l>(&self, found: impl IntoIterator<Item = &'l Listed>) {
        for listed in found {
            match listed {
                Listed::Unreadable(unreadable) if !unreadable.is_marked => self.report_unreadable(unreadable.id),
                Listed::Unreadable(_) | Listed::Record(_) => {}
            }
        }
    }

    fn report_unreadable(&self, id: RecordId) {
        // Where the queue is full it is found again.
        let _ = self.queue.hand_in(Job::Unreadable { id });
    }
}

impl Apply for EmbeddedStore {
    fn apply(
        &self,
        id: RecordId,
        event: Event,
        held: Option<HeldKey>,
    ) -> BoxFuture<'static, Result<Applied, JournalError>> {
        self.reader.queue.apply(id, event, held)
    }
}

impl Store for EmbeddedStore {
    fn current(&self, key: Key) -> Reading<'_, Option<Current>> {
        Box::pin(async move {
            let lookup = Arc::clone(&self.lookups).acquire_owned().await;
            let lookup = lookup.map_err(|_| JournalError::Unavailable)?;
            let current = self.read(move |snapshot| {
                let current = snapshot.current(&key);
                drop(lookup);
                current
            });
            let current = current.await?;
            if let Some(Current::Unreadable(id, _)) = &current {
                self.reader.report_unreadable(*id);
            }
            Ok(current)
        })
    }

    fn dispatch(&self, reservation: Reservation) -> BoxFuture<'static, Result<Dispatched, JournalError>> {
        let (record, held) = reservation.into_parts();
        let (reply, heard) = oneshot::channel();
        let handed_in = self.reader.queue.hand_in(Job::Dispatch { record, held, reply });
        Box::pin(async move {
            handed_in?;
            heard.await.unwrap_or(Err(JournalError::Unavailable))
        })
    }

    fn get(&self, id: RecordId) -> Reading<'_, Option<Record>> {
        Box::pin(self.read(move |snapshot| snapshot.get(id)))
    }

    fn find(&self, instance: &str, id: RecordId) -> Reading<'_, Option<Listed>> {
        let instance = instance.to_owned();
        Box::pin(async move {
            let found = self.read(move |snapshot| snapshot.find(&instance, id)).await?;
            self.reader.report(&found);
            Ok(found)
        })
    }

    fn list(&self, filter: Filter) -> Reading<'_, Page> {
        Box::pin(async move {
            let place = self.scans.enter().await?;
            let (scan, _waiting) = Scan::begin();
            let listing = self.read(move |snapshot| {
                let page = snapshot.list(&filter, &scan);
                drop(place);
                page
            });
            let page = listing.await?;
            self.reader.report(&page.records);
            Ok(page)
        })
    }

    fn counts(&self) -> Reading<'_, BTreeMap<RecordState, u64>> {
        Box::pin(
            self.read(|snapshot| {
                RecordState::ALL.into_iter().map(|state| Ok((state, snapshot.count(state)?))).collect()
            }),
        )
    }

    fn counts_by_instance(&self) -> Reading<'_, CountsByInstance> {
        Box::pin(self.read(Snapshot::counts_by_instance))
    }

    fn sent_since(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError> {
        let (mut sent, mut left) = (Vec::new(), MAX_EXAMINED);
        let begun_by = since_ms.saturating_sub(LONGEST_PAYMENT_MS);
        self.reader.read(|snapshot| {
            snapshot.newest_while(|record| {
                if let Some(ended_ms) = record.sent_until_ms().filter(|ended_ms| *ended_ms >= since_ms) {
                    sent.push((record.key.instance.clone(), ended_ms));
                }
                left -= 1;
                left > 0 && record.times.created_ms >= begun_by
            })
        })?;
        Ok(sent)
    }

    fn contradictions(&self, instance: &str) -> u64 {
        self.reader.view.contradictions.of(instance)
    }

    fn commits(&self) -> u64 {
        self.reader.view.commits()
    }

    fn is_available(&self) -> bool {
        self.reader.view.is_shown() && !self.reader.view.is_condemned()
    }

    fn condition(&self) -> Condition {
        let view = &self.reader.view;
        Condition { is_damaged: view.is_condemned(), ..view.watched.at(Instant::now()) }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.stop.stop();
            self.reader.queue.close();
            let thread = self.writer.lock().take();
            if let Some(thread) = thread {
                let ended = task::spawn_blocking(move || thread.join());
                let _ = time::timeout(LONGEST_CLOSE, ended).await;
            }
        })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.stop.stop();
        self.reader.queue.close();
    }
}
