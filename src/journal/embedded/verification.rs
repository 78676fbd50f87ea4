//! Verifying the journal: in the background after a start, which itself cannot read a large file whole, and on request.
//!
//! In the background a few megabytes are compared at a time, each time on the pages of the last commit, which redb does not
//! write to meanwhile; between them it rests at least as long as it read, so that payments find the disk free. Damage that is found ends new payments: a key that cannot be found would sell again. What is known of
//! earlier ones is still answered, and outcomes are still recorded.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::oneshot;

use super::directory::Directory;
use super::encoding;
use super::error::StoreError;
use super::index::{BY_STATE, CURRENT, CurrentEntry, CurrentKey, StateEntry, StateKey, current_id, entry_at};
use super::medium::Medium;
use super::opening;
use super::pages::{Header, Progress, Unusable, Verifier};
use super::tables;
use super::view::View;
use super::write_queue::{Job, Pin, WriteQueue};
use crate::journal::config::Create;
use crate::journal::error::OpenError;
use crate::journal::id::RecordId;
use crate::journal::record::{Record, RecordState};

/// Compared at a time.
const SLICE_BYTES: u64 = 8 << 20;
/// How long a slice takes at least, with its rest: 32 MiB a second.
const SLICE_TIME: Duration = Duration::from_millis(250);
/// The wait after a time in which the journal was out of order or the disk refused.
const RETRY: Duration = Duration::from_secs(10);
/// A journal that runs for long is verified this often: disks lose bits unnoticed.
const AGAIN: Duration = Duration::from_hours(24);
/// Faults of records told of one journal; more tell nothing new.
const MAX_FAULTS: usize = 100;

#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    /// Waits; whether it was stopped.
    fn within(&self, patience: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        self.changed.wait_while_for(&mut stopped, |stopped| !*stopped, patience);
        *stopped
    }
}

pub(crate) struct Background {
    pub(crate) path: PathBuf,
    pub(crate) view: Arc<View>,
    pub(crate) queue: Arc<WriteQueue>,
    pub(crate) stop: Arc<Stop>,
}

impl Background {
    pub(crate) fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("journal-verify".into()).spawn(move || self.run())
    }

    /// Runs until it is stopped.
    fn run(self) {
        while let Some(wait) = self.verify() {
            if self.stop.within(wait) {
                return;
            }
        }
    }

    /// Verifies all of it once. How long to wait before the next time; none where it was stopped.
    fn verify(&self) -> Option<Duration> {
        let (begun, mut verifier, mut told) = (Instant::now(), Verifier::default(), 0);
        loop {
            let slice = Instant::now();
            // Keys first: one that is not found sells again.
            let go_on = |pin: Pin| verifier.verify_data(&*pin.backend, &pin.header, tables::keys(), SLICE_BYTES);
            let progress = self.pin().and_then(go_on);
            for damage in verifier.damages.iter().skip(told) {
                self.view.condemn();
                tracing::error!(
                    path = %self.path.display(), %damage,
                    "the payment journal is damaged: no new payment is sent; restore it from a copy",
                );
            }
            told = verifier.damages.len();
            let wait = match progress {
                Ok(Progress::More) => slice.elapsed().max(SLICE_TIME.saturating_sub(slice.elapsed())),
                Ok(Progress::Done) => {
                    let Verifier { pages, bytes, damages, .. } = &verifier;
                    let (seconds, damaged) = (begun.elapsed().as_secs_f32(), damages.len());
                    tracing::info!(pages, bytes, seconds, damaged, "the payment journal was verified");
                    return Some(AGAIN);
                }
                Err(fault) => {
                    tracing::debug!(%fault, "the payment journal cannot be verified now");
                    RETRY
                }
            };
            if self.stop.within(wait) {
                return None;
            }
        }
    }

    fn pin(&self) -> io::Result<Pin> {
        let (reply, pin) = oneshot::channel();
        self.queue.hand_in(Job::Pin(reply)).map_err(io::Error::other)?;
        pin.blocking_recv().map_err(io::Error::other)
    }
}

/// What a whole reading of a journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub path: PathBuf,
    /// Its records, as far as they were counted.
    pub records: u64,
    /// Bytes that were compared with their checksums.
    pub bytes: u64,
    /// What is wrong with it; nothing if it is sound.
    pub faults: Vec<String>,
}

/// Reads the journal in `directory` whole. It must be closed; nothing is written to it.
pub fn verify(directory: &Path) -> Result<Verification, OpenError> {
    verify_on(&Directory::claim(directory, Create::Never)?)
}

pub(crate) fn verify_on(medium: &impl Medium) -> Result<Verification, OpenError> {
    let path = medium.path();
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let backend = medium.backend()?;
    let mut verifier = Verifier::default();
    match Header::read(&backend).map_err(failed)? {
        Ok(header) => {
            verifier.verify_beside_data(&backend, &header, |_| false).map_err(failed)?;
            verifier.verify_data(&backend, &header, tables::keys(), u64::MAX).map_err(failed)?;
        }
        Err(Unusable::Unknown) => return Err(OpenError::Foreign { path: path.to_owned() }),
        // redb has to repair it, and says by itself what it cannot.
        Err(Unusable::Unsettled | Unusable::Damaged) => {}
    }
    let mut faults: Vec<_> = verifier.damages.iter().map(ToString::to_string).collect();
    let mut records = 0;
    if faults.is_empty() {
        // The same pages once more, by redb's own judgement, and then what is in them.
        let judged = opening::rehearse(medium, true, |database| cross_check(database, &mut faults));
        records = match judged {
            Ok(records) => records,
            Err(OpenError::Damaged { reason, .. }) => {
                faults.push(reason);
                0
            }
            Err(error) => return Err(error),
        };
    }
    Ok(Verification { path: path.to_owned(), records, bytes: verifier.bytes, faults })
}

/// Reads every record, and compares the indexes with them; how many records there are. A journal of an earlier format
/// has its indexes made when it is opened.
fn cross_check(database: &Database, faults: &mut Vec<String>) -> Result<u64, StoreError> {
    let mut note = |fault: String| {
        if faults.len() < MAX_FAULTS {
            faults.push(fault);
        }
    };
    let transaction = database.begin_read()?;
    let records = transaction.open_table(tables::RECORDS)?;
    let is_indexed = tables::format(database)? == Some(tables::FORMAT);
    let indexes = is_indexed.then(|| Indexes::open(&transaction)).transpose()?;
    for entry in records.iter()? {
        let (id, stored) = entry?;
        let id = RecordId::from(id.value());
        match (encoding::decode(id, stored.value()), &indexes) {
            (Err(reason), _) => note(format!("record {id} cannot be read: {reason}")),
            (Ok(record), Some(indexes)) => indexes.compare(&record)?.into_iter().for_each(&mut note),
            (Ok(_), None) => {}
        }
    }
    if let Some(indexes) = &indexes {
        indexes.compare_all(&records, note)?;
    }
    Ok(records.len()?)
}

struct Indexes {
    by_state: ReadOnlyTable<StateKey, StateEntry>,
    current: ReadOnlyTable<CurrentKey, CurrentEntry>,
    counts: ReadOnlyTable<&'static str, u64>,
}

impl Indexes {
    fn open(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            by_state: transaction.open_table(BY_STATE)?,
            current: transaction.open_table(CURRENT)?,
            counts: transaction.open_table(tables::COUNTS)?,
        })
    }

    /// What the indexes do not say of a record, and should.
    fn compare(&self, record: &Record) -> Result<Vec<String>, StoreError> {
        let (id, state, mut faults) = (record.id, record.state(), Vec::new());
        if entry_at(&self.by_state, state.into(), &record.key.instance, id)?.is_none() {
            faults.push(format!("record {id} is {state}, and is not listed so"));
        }
        if !record.frees_its_key() && current_id(&self.current, &record.key)?.is_none() {
            faults.push(format!("record {id} is not found by its key, which would sell again"));
        }
        Ok(faults)
    }

    /// What the indexes say that no record bears out.
    fn compare_all(
        &self,
        records: &ReadOnlyTable<u128, &'static [u8]>,
        mut note: impl FnMut(String),
    ) -> Result<(), StoreError> {
        for entry in self.current.iter()? {
            let id = RecordId::from(entry?.1.value().0);
            if records.get(id.as_u128())?.is_none() {
                note(format!("a key belongs to record {id}, which is missing"));
            }
        }
        let mut counted: BTreeMap<u8, u64> = BTreeMap::new();
        for entry in self.by_state.iter()? {
            *counted.entry(entry?.0.value().0).or_default() += 1;
        }
        for state in RecordState::ALL {
            let listed = counted.get(&state.code()).copied().unwrap_or(0);
            let told = self.counts.get(state.name())?.map_or(0, |count| count.value());
            if told != listed {
                note(format!("{listed} payments are listed as {state}, and the journal counts {told}"));
            }
        }
        Ok(())
    }
}
