//! The store in PostgreSQL: reads go over a connection of their own; everything else is handed to the writer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};
use uuid::Uuid;

use super::columns::as_uuid;
use super::config::PostgresConfig;
use super::lookups::Lookups;
use super::queue::Job;
use super::rows::Row;
use super::statements;
use super::writer::{Shared, Writer};
use crate::database::{Connection, Error, Rows, Statement, Type, check_schema};
use crate::journal::apply::{Applied, Apply};
use crate::journal::clock::Clock;
use crate::journal::condition::Condition;
use crate::journal::embedded::directory;
use crate::journal::embedded::scan::Scans;
use crate::journal::error::{JournalError, OpenError};
use crate::journal::id::RecordId;
use crate::journal::in_flight::HeldKey;
use crate::journal::listing::{Filter, Listed, Page};
use crate::journal::payment::{Dispatched, Reservation};
use crate::journal::record::{Record, RecordState};
use crate::journal::sale::Key;
use crate::journal::state_machine::Event;
use crate::journal::store::{CountsByInstance, Current, Reading, Store};
use crate::tenure::SessionId;

/// Bytes of records in one page; the record that exceeds it is the page's last.
const MAX_BYTES: i64 = 4 << 20;
/// How often a key is looked up anew whose record changes under the look.
const TRIES: usize = 3;
/// How long a caller waits: a commit with a standby takes some milliseconds, and what takes longer is not known to be done.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is not done by then keeps the journal from being taken for available: sooner than a caller gives up, so that who is
/// refused finds it out of order, however long the job waited for its transaction.
const SLOW: Duration = Duration::from_millis(1500);
/// A commit that is not acknowledged by then is not known to be done.
const COMMIT_LIMIT: Duration = Duration::from_millis(1900);
/// How long a close waits for the writer.
const LONGEST_CLOSE: Duration = Duration::from_secs(5);

/// A journal in a database, and its writer.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    reader: Connection,
    shared: Arc<Shared>,
    lookups: Lookups,
    scans: Scans,
    writer: Mutex<Option<JoinHandle<()>>>,
    runtime: Handle,
}

impl PostgresStore {
    /// Opens the journal of a database whose schema is there. Also the greatest id that was ever given out there.
    pub(crate) async fn open(
        config: PostgresConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Option<RecordId>), OpenError> {
        let reader = Connection::new(config.database.clone(), "journal reader");
        check_schema(&reader).await.map_err(|error| OpenError::Database { reason: error.to_string() })?;
        let failed = |error: Error| OpenError::Database { reason: error.to_string() };
        if let Some(directory) = &config.embedded {
            refuse_what_is_elsewhere(&reader, directory).await?;
        }
        let rows = reader.read(&[Statement::new(statements::AGE)]).await.map_err(failed)?;
        let row = rows.into_iter().flatten().next();
        let missing = || OpenError::Database { reason: "its schema is not complete".into() };
        let row = row.ok_or_else(missing)?;
        let age_ms: i64 = row.try_get(0).map_err(|error| failed(error.into()))?;
        let newest: Option<Uuid> = row.try_get(1).map_err(|error| failed(error.into()))?;
        let shared = Arc::new(Shared::default());
        let connection = Connection::with_limit(config.database.clone(), "journal writer", COMMIT_LIMIT);
        let age_ms = u64::try_from(age_ms).unwrap_or_default();
        let mut writer = Writer::new(connection, config.clone(), Arc::clone(&shared), clock, age_ms);
        writer.watch().await;
        let runtime = Handle::current();
        let writer = Mutex::new(Some(runtime.spawn(writer.run())));
        let store = Self { reader, shared, lookups: Lookups::default(), scans: Scans::default(), writer, runtime };
        Ok((store, newest.map(|id| RecordId::from(id.as_u128()))))
    }

    async fn read(&self, statement: Statement) -> Result<Rows, JournalError> {
        if self.shared.has_ended.load(Ordering::Acquire) {
            return Err(JournalError::Unavailable);
        }
        let rows = self.reader.read(&[statement]).await;
        rows.map(|rows| rows.into_iter().flatten().collect()).map_err(unread)
    }

    async fn one(&self, statement: Statement) -> Result<Option<Row>, JournalError> {
        self.read(statement).await?.first().map(Row::of).transpose().map_err(unread)
    }

    /// The record that decides what a request with its key gets. One that callers are told for good is acknowledged first:
    /// what can be read may not be on the standby yet.
    async fn look_up(&self, key: Key) -> Result<Option<Current>, JournalError> {
        if self.shared.has_ended.load(Ordering::Acquire) {
            return Err(JournalError::Unavailable);
        }
        for _ in 0..TRIES {
            let found = self.lookups.find(&self.reader, key.clone()).await;
            let Some(row) = found.map_err(unread)? else { return Ok(None) };
            if !row.is_final() || self.shared.is_acknowledged(row.id) {
                return Ok(Some(row.current()));
            }
            let (id, written) = (row.id, row.written);
            if self.shared.queue.ask(|reply| Job::Confirm { id, written, reply }).await? {
                return Ok(Some(row.current()));
            }
        }
        Err(JournalError::Unavailable)
    }

    async fn page(&self, filter: Filter) -> Result<Page, JournalError> {
        let _place = self.scans.enter().await?;
        if filter.limit == 0 {
            return Ok(Page::default());
        }
        let Filter { instance, caller, idempotency_key, state, pos_id, from_ms, to_ms, before, limit } = filter;
        let list = Statement::new(statements::LIST)
            .text(instance)
            .bind(caller, Type::TEXT)
            .bind(idempotency_key, Type::TEXT)
            .bind(state.map(|state| i16::from(state.code())), Type::INT2)
            .bind(pos_id, Type::INT8)
            .bind(from_ms, Type::INT8)
            .bind(to_ms, Type::INT8)
            .bind(before.map(as_uuid), Type::UUID)
            .bigint(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
            .bigint(MAX_BYTES);
        let rows = self.read(list).await?;
        let found = rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>("found"));
        let found = found.map_err(|error| unread(error.into()))?;
        let shown = rows.iter().take(limit).map(|row| Row::of(row).map(|row| row.listed(false)));
        let records: Vec<Listed> = shown.collect::<Result<_, _>>().map_err(unread)?;
        let is_more = usize::try_from(found).unwrap_or(usize::MAX) > records.len();
        let next = records.last().filter(|_| is_more).map(Listed::id);
        Ok(Page { records, next })
    }

    async fn counted(&self) -> Result<CountsByInstance, JournalError> {
        let mut counts = CountsByInstance::new();
        for row in self.read(Statement::new(statements::COUNTS)).await? {
            let code = row.try_get::<_, i16>(1).ok().and_then(|code| u8::try_from(code).ok());
            let (Ok(instance), Ok(count)) = (row.try_get::<_, String>(0), row.try_get::<_, i64>(2)) else { continue };
            if let Some(state) = code.and_then(RecordState::of_code) {
                counts.insert((instance, state), u64::try_from(count).unwrap_or_default());
            }
        }
        Ok(counts)
    }

    async fn sent(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError> {
        let rows = self.read(Statement::new(statements::SENT_SINCE).bigint(since_ms)).await?;
        let sent = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        sent.collect::<Result<_, Error>>().map_err(unread)
    }

    /// Two statements, so that the second sees what the first, or the claim before it, waited for.
    async fn take_over_now(&self, instance: String, epoch: i64) -> Result<u64, JournalError> {
        let left = Statement::new(statements::LEFT_ON_THEIR_WAY).text(instance).bigint(epoch);
        let mut taken = 0;
        for row in self.read(left).await? {
            let id: Uuid = row.try_get(0).map_err(|error| unread(error.into()))?;
            let id = RecordId::from(id.as_u128());
            match self.shared.queue.ask(|reply| Job::TakeOver { id, reply }).await {
                Ok(_) => taken += 1,
                // Its owner of before has just told what became of it.
                Err(JournalError::NoSuchRecord | JournalError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }
}

/// Refuses where a journal that was carried over out of this directory is not in this database.
async fn refuse_what_is_elsewhere(reader: &Connection, directory: &Path) -> Result<(), OpenError> {
    let imports = directory::imports(directory)?;
    if imports.is_empty() {
        return Ok(());
    }
    let missing = Statement::new(statements::NOT_IMPORTED).bind(imports, Type::UUID_ARRAY);
    match reader.read(&[missing]).await {
        Ok(rows) if rows.iter().flatten().next().is_none() => Ok(()),
        Ok(_) => Err(OpenError::ImportedElsewhere { path: directory.to_owned() }),
        Err(error) => Err(OpenError::Database { reason: error.to_string() }),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unread(error: Error) -> JournalError {
    tracing::warn!(%error, "the payment journal cannot be read");
    JournalError::Unavailable
}

impl Apply for PostgresStore {
    fn apply(
        &self,
        id: RecordId,
        event: Event,
        held: Option<HeldKey>,
    ) -> BoxFuture<'static, Result<Applied, JournalError>> {
        self.shared.queue.apply(id, event, held)
    }
}

impl Store for PostgresStore {
    fn current(&self, key: Key) -> Reading<'_, Option<Current>> {
        Box::pin(self.look_up(key))
    }

    fn dispatch(&self, reservation: Reservation) -> BoxFuture<'static, Result<Dispatched, JournalError>> {
        let is_first = reservation.is_first();
        let (record, held) = reservation.into_parts();
        self.shared.queue.ask(|reply| Job::Dispatch { record, held, is_first, reply })
    }

    fn get(&self, id: RecordId) -> Reading<'_, Option<Record>> {
        Box::pin(async move {
            let by_id = Statement::new(statements::BY_ID).bind(vec![as_uuid(id)], Type::UUID_ARRAY);
            let Some(row) = self.one(by_id).await? else { return Ok(None) };
            row.record.map(Some).map_err(|_| JournalError::Damaged)
        })
    }

    fn find(&self, instance: &str, id: RecordId) -> Reading<'_, Option<Listed>> {
        let instance = instance.to_owned();
        Box::pin(async move {
            let by_id = Statement::new(statements::BY_ID).bind(vec![as_uuid(id)], Type::UUID_ARRAY);
            let row = self.one(by_id).await?.filter(|row| row.key.instance == instance);
            Ok(row.map(|row| row.listed(true)))
        })
    }

    fn list(&self, filter: Filter) -> Reading<'_, Page> {
        Box::pin(self.page(filter))
    }

    fn counts(&self) -> Reading<'_, BTreeMap<RecordState, u64>> {
        Box::pin(async {
            let mut counts: BTreeMap<_, _> = RecordState::ALL.into_iter().map(|state| (state, 0)).collect();
            for ((_, state), count) in self.counted().await? {
                *counts.entry(state).or_default() += count;
            }
            Ok(counts)
        })
    }

    fn counts_by_instance(&self) -> Reading<'_, CountsByInstance> {
        Box::pin(self.counted())
    }

    fn sent_since(&self, since_ms: i64) -> Result<Vec<(String, i64)>, JournalError> {
        // On a thread of its own: this one may be of the runtime, which must not be waited for on it.
        thread::scope(|scope| {
            let asked =
                scope.spawn(|| self.runtime.block_on(async { time::timeout(PATIENCE, self.sent(since_ms)).await }));
            asked.join().unwrap_or(Ok(Err(JournalError::Unavailable))).unwrap_or(Err(JournalError::Unavailable))
        })
    }

    fn contradictions(&self, instance: &str) -> u64 {
        self.shared.contradictions.of(instance)
    }

    fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    fn is_available(&self) -> bool {
        let Shared { is_down, is_restored, has_ended, .. } = &*self.shared;
        let is_out_of_order = [is_down, is_restored, has_ended].into_iter().any(|flag| flag.load(Ordering::Acquire));
        !is_out_of_order && !self.shared.queue.is_behind(SLOW)
    }

    fn condition(&self) -> Condition {
        self.shared.watched.at(Instant::now())
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn take_over(&self, instance: &str, session: SessionId, epoch: i64) -> Reading<'_, u64> {
        *self.shared.session.lock() = Some(session.as_uuid());
        Box::pin(self.take_over_now(instance.to_owned(), epoch))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.shared.queue.close();
            let writer = self.writer.lock().take();
            if let Some(writer) = writer {
                let _ = time::timeout(LONGEST_CLOSE, writer).await;
            }
        })
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}
