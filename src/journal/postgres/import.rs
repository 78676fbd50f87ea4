//! Carries a closed embedded journal over into the database, in one transaction: a process that is killed on the way leaves
//! the database as it was, and the journal as one that a bridge may go on with.
//!
//! Only from just before the commit until its acknowledgement is it not known which of both has the payments. The file's name
//! says so then, no bridge serves from it, and the same import again finds out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::{task, time};
use uuid::Uuid;

use super::columns::{Columns, as_uuid};
use super::lookups::current_of;
use super::rows::Row;
use super::statements;
use crate::database::{self, Connection, Durability, Ended, Error, Rows, Statement, Transaction, Type};
use crate::journal::embedded::directory::{Carried, Directory};
use crate::journal::embedded::export::{Export, Exported, Remainder};
use crate::journal::error::OpenError;
use crate::journal::id::RecordId;
use crate::journal::record::{Record, RecordState, State};
use crate::journal::sale::Key;

/// Records in one statement, and about how many bytes of them: what is held in memory is a few times that.
const AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 1 << 20;

/// How long all of it may take: some thousand records are carried over in a second.
const LIMIT: Duration = Duration::from_hours(12);
/// How long a statement may take, of which the server knows as well.
const STATEMENT_LIMIT: Duration = Duration::from_secs(90);
/// A commit that is not acknowledged by then is not known to be done.
const COMMIT_LIMIT: Duration = Duration::from_secs(30);

/// Replicas that run write the age of their journal this often and a little more: what the database says may be as old.
const AGE_SLACK_MS: i64 = 60_000;

/// Contradictions that are told; more are only counted.
const MAX_TOLD: usize = 20;

/// Why a journal was not carried over. Nothing of it is in the database then, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("there is no payment journal in {}", path.display())]
    NoJournal { path: PathBuf },
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// Keys with a payment in the journal and another, or another outcome of it, in the database.
    #[error("the database and the journal contradict each other under {count} keys, so nothing was carried over")]
    Contradictions { count: u64, told: Vec<Contradicted> },
    #[error("nothing was carried over: another import is under way, or its commit waits for the standby")]
    Busy,
    #[error("nothing was carried over: {0}")]
    Database(#[from] Error),
    /// It is perhaps in the database.
    #[error(
        "whether it was carried over is not known, since the commit was not acknowledged: run the same command again. Until \
         then no bridge serves from {}", path.display()
    )]
    Ambiguous { path: PathBuf },
    #[error("the journal cannot be read: {0}")]
    Thread(String),
}

/// Two payments under one key, or one with two outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradicted {
    pub key: Key,
    /// The payment in the journal, and how it stands there.
    pub ours: (RecordId, RecordState),
    /// The payment in the database, and how it stands there.
    pub theirs: (RecordId, RecordState),
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The journal's file as it is named now.
    pub path: PathBuf,
    /// Records that were carried over, by state.
    pub carried: BTreeMap<RecordState, u64>,
    /// Records that were there already, as they are in the journal or later.
    pub present: u64,
    /// Records whose bytes were kept, though no key leads to them.
    pub bytes_only: u64,
    /// An earlier import had carried it over whole.
    pub was_done: bool,
}

/// Carries the embedded journal in `directory` over into a database whose schema is up to date. The journal must be closed.
pub async fn import(database: &database::Config, directory: PathBuf) -> Result<Imported, ImportError> {
    let claimed = directory.clone();
    let claimed = blocking(move || Directory::claim_carried(&claimed)).await??;
    let Some((directory, carried)) = claimed else { return Err(ImportError::NoJournal { path: directory }) };
    let export = blocking(move || Export::open(directory)).await??;
    let id = match carried {
        Carried::Not => Uuid::now_v7(),
        Carried::Whole(id) | Carried::Perhaps(id) => id,
    };
    let connection = Connection::with_limit(database.clone(), "import", LIMIT);
    let mut import = Import::begin(&connection, id, export.age_ms).await?;
    let newest = export.newest;
    let export = if import.found.was_done { export } else { import.carry_over(export).await? };
    if import.contradictions > 0 {
        let (count, told) = (import.contradictions, import.told);
        import.transaction.roll_back().await;
        return Err(ImportError::Contradictions { count, told });
    }
    import.conclude(newest).await?;
    let mut marking = export.close();
    if carried == Carried::Not {
        marking.mark(Carried::Perhaps(id))?;
    }
    let mut found = import.found;
    match time::timeout(COMMIT_LIMIT, import.transaction.commit()).await {
        Ok(Ended::Done(())) => {
            found.path = marking.mark(Carried::Whole(id))?.to_owned();
            Ok(found)
        }
        Ok(Ended::NotDone(error)) => {
            if carried == Carried::Not {
                marking.mark(Carried::Not)?;
            }
            Err(error.into())
        }
        Ok(Ended::Ambiguous) | Err(_) => Err(ImportError::Ambiguous { path: marking.path().to_owned() }),
    }
}

/// One transaction, and what it found.
struct Import<'c> {
    transaction: Transaction<'c>,
    id: Uuid,
    /// What is to be added to an age of the journal that is carried over.
    age_shift_ms: i64,
    age_ms: u64,
    found: Imported,
    contradictions: u64,
    told: Vec<Contradicted>,
}

impl<'c> Import<'c> {
    async fn begin(connection: &'c Connection, id: Uuid, age_ms: u64) -> Result<Self, ImportError> {
        let transaction = connection.begin(Durability::On).await?;
        let (path, carried) = (PathBuf::new(), BTreeMap::new());
        let found = Imported { path, carried, present: 0, bytes_only: 0, was_done: false };
        let (contradictions, told) = (0, Vec::new());
        let mut import = Self { transaction, id, age_shift_ms: 0, age_ms, found, contradictions, told };
        for setting in statements::IMPORT_SETTINGS {
            import.run(Statement::new(setting)).await?;
        }
        import.run(Statement::new(statements::IMPORT_LOCK)).await.map_err(|error| match error {
            Error::Locked => ImportError::Busy,
            error => error.into(),
        })?;
        let rows = import.run(Statement::new(statements::IMPORT_BEGUN).uuid(id)).await?;
        let row = rows.first().ok_or_else(|| Error::Misread("its schema is not complete".into()))?;
        let theirs: i64 = row.try_get(0).map_err(Error::from)?;
        import.found.was_done = row.try_get(1).map_err(Error::from)?;
        let ours = i64::try_from(age_ms).unwrap_or(i64::MAX);
        import.age_shift_ms = theirs.saturating_sub(ours).saturating_add(AGE_SLACK_MS);
        Ok(import)
    }

    async fn run(&mut self, statement: Statement) -> Result<Rows, Error> {
        time::timeout(STATEMENT_LIMIT, self.transaction.run(&statement)).await.unwrap_or(Err(Error::Late))
    }

    /// Reads the journal on a thread of its own, no further ahead than a batch, and writes what comes.
    async fn carry_over(&mut self, export: Export) -> Result<Export, ImportError> {
        let (sender, mut batches) = mpsc::channel(1);
        let reading = task::spawn_blocking(move || {
            let shown = in_batches(&export, &sender);
            (export, shown)
        });
        let mut written = Ok(());
        while let Some(batch) = batches.recv().await {
            written = self.write(batch).await;
            if written.is_err() {
                break;
            }
        }
        drop(batches);
        let (export, shown) = reading.await.map_err(|panicked| ImportError::Thread(panicked.to_string()))?;
        written?;
        shown?;
        Ok(export)
    }

    async fn write(&mut self, batch: Vec<Exported>) -> Result<(), Error> {
        let (mut columns, mut bytes) = (Columns::default(), Bytes::default());
        let mut ours = HashMap::new();
        for one in batch {
            match one {
                Exported::Bytes { id, state, stored } => bytes.push(id, state, stored),
                Exported::Record(record) => {
                    let (record, ended_age_ms) = self.aged(*record);
                    let pushed = columns.push_carried(&record, ended_age_ms);
                    pushed.map_err(|_| Error::Misread("a record cannot be spelled".into()))?;
                    ours.insert(record.id, Ours::Record(Box::new(record)));
                }
                Exported::Unreadable(remainder) => {
                    columns.push_unreadable(&remainder);
                    ours.insert(remainder.id, Ours::Unreadable(remainder));
                }
            }
        }
        if !bytes.ids.is_empty() {
            self.found.bytes_only += bytes.ids.len() as u64;
            self.run(bytes.into_statement()).await?;
        }
        if columns.is_empty() {
            return Ok(());
        }
        for row in self.run(columns.into_statement(statements::IMPORT)).await? {
            let id = RecordId::from(row.try_get::<_, Uuid>(0)?.as_u128());
            if let Some(one) = ours.remove(&id) {
                *self.found.carried.entry(one.state()).or_default() += 1;
            }
        }
        if ours.is_empty() { Ok(()) } else { self.compare(ours).await }
    }

    /// A record with the age at its end as the database counts; a record of an older release ended now.
    fn aged(&self, mut record: Record) -> (Record, Option<i64>) {
        if !record.state().has_ended() {
            return (record, None);
        }
        let ended = i64::try_from(record.ended_age_ms.unwrap_or(self.age_ms)).unwrap_or(i64::MAX);
        let ended = ended.saturating_add(self.age_shift_ms);
        record.ended_age_ms = Some(u64::try_from(ended).unwrap_or_default());
        (record, Some(ended))
    }

    /// Looks at what is there in the place of those that were not written.
    async fn compare(&mut self, ours: HashMap<RecordId, Ours>) -> Result<(), Error> {
        let ids: Vec<_> = ours.keys().copied().map(as_uuid).collect();
        let found = self.run(Statement::new(statements::BY_ID).bind(ids, Type::UUID_ARRAY)).await?;
        let found: Vec<Row> = found.iter().map(Row::of).collect::<Result<_, _>>()?;
        let there: HashSet<_> = found.iter().map(|row| row.id).collect();
        for row in &found {
            match ours.get(&row.id) {
                Some(one) if one.is_covered_by(row) => self.found.present += 1,
                Some(one) => self.contradicted(one, row),
                None => {}
            }
        }
        let left: Vec<_> = ours.iter().filter(|(id, _)| !there.contains(id)).map(|(_, one)| one).collect();
        let part = |part: fn(&Key) -> &String| left.iter().map(|one| part(one.key()).clone()).collect::<Vec<_>>();
        let holders = current_of(part(|key| &key.instance), part(|key| &key.caller), part(|key| &key.idempotency_key));
        let holders: Vec<Row> = self.run(holders).await?.iter().map(Row::of).collect::<Result<_, _>>()?;
        for one in left {
            match holders.iter().find(|row| row.key == *one.key()) {
                Some(row) => self.contradicted(one, row),
                None => return Err(Error::Misread("a record was neither written nor found".into())),
            }
        }
        Ok(())
    }

    fn contradicted(&mut self, ours: &Ours, theirs: &Row) {
        self.contradictions += 1;
        if self.told.len() < MAX_TOLD {
            let (key, ours) = (ours.key().clone(), (ours.id(), ours.state()));
            let theirs = (theirs.id, theirs.payment_state().map_or(RecordState::Unreadable, RecordState::from));
            self.told.push(Contradicted { key, ours, theirs });
        }
    }

    /// Notes that all of it is there. Written also where an earlier import noted it: what can be read is not acknowledged.
    async fn conclude(&mut self, newest: Option<RecordId>) -> Result<(), Error> {
        self.run(Statement::new(statements::IMPORT_NEWEST).bind(newest.map(as_uuid), Type::UUID)).await?;
        let records = self.found.carried.values().sum::<u64>() + self.found.present;
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.run(Statement::new(statements::IMPORT_DONE).uuid(self.id).bigint(records)).await?;
        Ok(())
    }
}

/// Bytes that no key leads to.
#[derive(Default)]
struct Bytes {
    ids: Vec<Uuid>,
    states: Vec<i16>,
    stored: Vec<String>,
}

impl Bytes {
    fn push(&mut self, id: RecordId, state: RecordState, stored: String) {
        self.ids.push(as_uuid(id));
        self.states.push(i16::from(state.code()));
        self.stored.push(stored);
    }

    fn into_statement(self) -> Statement {
        Statement::new(statements::IMPORT_BYTES)
            .bind(self.ids, Type::UUID_ARRAY)
            .bind(self.states, Type::INT2_ARRAY)
            .bind(self.stored, Type::TEXT_ARRAY)
    }
}

/// What the journal has.
enum Ours {
    Record(Box<Record>),
    Unreadable(Box<Remainder>),
}

impl Ours {
    fn id(&self) -> RecordId {
        match self {
            Self::Record(record) => record.id,
            Self::Unreadable(remainder) => remainder.id,
        }
    }

    fn key(&self) -> &Key {
        match self {
            Self::Record(record) => &record.key,
            Self::Unreadable(remainder) => &remainder.key,
        }
    }

    fn state(&self) -> RecordState {
        match self {
            Self::Record(record) => record.state().into(),
            Self::Unreadable(_) => RecordState::Unreadable,
        }
    }

    /// Whether the database says the same of this payment, or what came later.
    fn is_covered_by(&self, theirs: &Row) -> bool {
        if *self.key() != theirs.key {
            return false;
        }
        match (self, &theirs.record) {
            (Self::Unreadable(_), Err(_)) => true,
            (Self::Unreadable(_), Ok(theirs)) => theirs.state().has_ended(),
            (Self::Record(_), Err(_)) => false,
            (Self::Record(ours), Ok(theirs)) => {
                let is_later = ours.state() == State::Unknown && theirs.state().has_ended();
                let is_same = ours.state() == theirs.state()
                    && ours.revision <= theirs.revision
                    && ours.contradictions.len() <= theirs.contradictions.len();
                ours.fingerprint == theirs.fingerprint && (is_same || is_later)
            }
        }
    }
}

/// Sends everything of a journal in batches, until nobody takes them any more.
fn in_batches(export: &Export, sender: &mpsc::Sender<Vec<Exported>>) -> Result<(), OpenError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    export.show(|one| {
        bytes += size_of_exported(&one);
        batch.push(one);
        if batch.len() < AT_ONCE && bytes < BYTES_AT_ONCE {
            return true;
        }
        bytes = 0;
        sender.blocking_send(std::mem::take(&mut batch)).is_ok()
    })?;
    if !batch.is_empty() {
        // Nobody takes it where the database failed, which is told there.
        let _ = sender.blocking_send(batch);
    }
    Ok(())
}

/// About how large it is: what may be large of it.
fn size_of_exported(one: &Exported) -> usize {
    match one {
        Exported::Record(record) => {
            let evidence = record.evidence.iter().map(|candidate| candidate.transaction.as_str().len()).sum::<usize>();
            record.reply().map_or(0, |reply| reply.as_str().len()) + evidence
        }
        Exported::Unreadable(remainder) => remainder.stored.len(),
        Exported::Bytes { stored, .. } => stored.len(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ImportError> {
    task::spawn_blocking(work).await.map_err(|panicked| ImportError::Thread(panicked.to_string()))
}
