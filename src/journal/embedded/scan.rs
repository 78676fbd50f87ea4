//! How listings are found without walking the journal.
//!
//! A listing goes by the indexes and is bounded in every way: in records, in bytes, in the entries it looks at, in time, and
//! in how many run at once. It ends when its caller has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redb::AccessGuard;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::encoding;
use super::error::StoreError;
use super::index::entry_at;
use super::tables::{MISSING, Snapshot};
use crate::journal::error::JournalError;
use crate::journal::id::RecordId;
use crate::journal::listing::{Filter, Listed, Page, Unreadable};
use crate::journal::record::RecordState;
use crate::journal::sale::Key;

/// Index entries that one page looks at: a few milliseconds' worth.
const MAX_EXAMINED: usize = 32_768;
/// Bytes of records in one page, as stored; the record that exceeds it is the page's last.
const MAX_BYTES: usize = 4 << 20;
/// A page ends after this long, however slow the disk.
const MAX_TIME: Duration = Duration::from_secs(1);
/// Callers that have used one idempotency key, in a listing by that key.
const MAX_CALLERS: usize = 1000;
/// What is shown of the stored bytes of a record that cannot be read.
const MAX_SHOWN: usize = 16 << 10;
/// Listings that run at once; each keeps a core busy.
const AT_ONCE: usize = 4;
/// Listings that run or wait; further ones are refused.
const ADMITTED: usize = 64;
/// How long one waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Whether the caller of a listing still waits, and how long the listing may go on.
#[derive(Debug)]
pub(crate) struct Scan {
    abandoned: Arc<AtomicBool>,
    ends: Instant,
}

/// Held by the one who waits for a listing. Dropped, it ends the listing.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Scan {
    pub(crate) fn begin() -> (Self, Waiting) {
        let abandoned = Arc::new(AtomicBool::new(false));
        let waiting = Waiting(Arc::clone(&abandoned));
        (Self { abandoned, ends: Instant::now() + MAX_TIME }, waiting)
    }

    fn go_on(&self) -> Result<(), StoreError> {
        if self.abandoned.load(Ordering::Relaxed) { Err(StoreError::Abandoned) } else { Ok(()) }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }
}

/// How many listings run and wait.
#[derive(Debug)]
pub(crate) struct Scans {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Default for Scans {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(AT_ONCE)), admitted: Arc::new(Semaphore::new(ADMITTED)) }
    }
}

impl Scans {
    /// Waits for a place, which is free again when what this returns is dropped.
    pub(crate) async fn enter(&self) -> Result<[OwnedSemaphorePermit; 2], JournalError> {
        let overloaded = JournalError::Overloaded;
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| overloaded)?;
        let running = time::timeout(LONGEST_WAIT, Arc::clone(&self.running).acquire_owned()).await;
        let running = running.map_err(|_| overloaded)?.map_err(|_| overloaded)?;
        Ok([admitted, running])
    }

    #[cfg(test)]
    pub(crate) fn are_idle(&self) -> bool {
        self.admitted.available_permits() == ADMITTED
    }
}

fn admits(filter: &Filter, row: &Row) -> bool {
    filter.state.is_none_or(|state| state == row.state)
        && filter.pos_id.is_none_or(|pos_id| pos_id == row.pos_id)
        && filter.from_ms.is_none_or(|from_ms| from_ms <= row.created_ms)
        && filter.to_ms.is_none_or(|to_ms| row.created_ms < to_ms)
}

/// An index entry, with its record where that was read already.
struct Row {
    id: u128,
    state: RecordState,
    pos_id: i64,
    created_ms: i64,
    found: Option<Listed>,
}

type Rows<'s> = Box<dyn Iterator<Item = Result<Row, StoreError>> + 's>;

impl Snapshot {
    /// Newest first, from the indexes.
    pub(crate) fn list(&self, filter: &Filter, scan: &Scan) -> Result<Page, StoreError> {
        let mut page = Page::default();
        if filter.limit == 0 {
            return Ok(page);
        }
        let mut rows = match &filter.idempotency_key {
            Some(key) => self.attempts(filter, key)?,
            None => self.entries(filter)?,
        }
        .peekable();
        let (mut examined, mut bytes) = (0, 0);
        while let Some(row) = rows.next().transpose()? {
            scan.go_on()?;
            let id = row.id;
            if admits(filter, &row) {
                bytes += self.take(&filter.instance, row, &mut page)?;
            }
            examined += 1;
            let is_full = page.records.len() >= filter.limit || bytes >= MAX_BYTES || examined >= MAX_EXAMINED;
            if (is_full || scan.is_over()) && rows.peek().is_some() {
                page.next = Some(id.into());
                break;
            }
        }
        Ok(page)
    }

    /// Adds the row's record to the page; returns how many bytes it takes.
    fn take(&self, instance: &str, row: Row, page: &mut Page) -> Result<usize, StoreError> {
        let id = RecordId::from(row.id);
        let stored = self.records.get(row.id)?;
        let len = stored.as_ref().map_or(0, |stored| stored.value().len());
        let listed = match (row.found, stored) {
            (Some(found), _) => Some(found),
            (None, Some(stored)) => match encoding::decode(id, stored.value()) {
                Ok(record) => Some(Listed::Record(Box::new(record))),
                Err(reason) => self.unreadable_at(row.state, instance, id, &reason)?,
            },
            (None, None) => self.unreadable_at(row.state, instance, id, MISSING)?,
        };
        page.records.extend(listed);
        Ok(len)
    }

    fn unreadable_at(
        &self,
        state: RecordState,
        instance: &str,
        id: RecordId,
        reason: &str,
    ) -> Result<Option<Listed>, StoreError> {
        let Some(entry) = entry_at(&self.by_state, state, instance, id)? else { return Ok(None) };
        let was = match state {
            RecordState::Payment(state) => Some(state),
            RecordState::Unreadable => self.last_state(id)?,
        };
        Ok(Some(Listed::Unreadable(Box::new(Unreadable {
            id,
            key: entry.key,
            pos_id: entry.pos_id,
            created_ms: entry.created_ms,
            was,
            reason: reason.to_owned(),
            stored: None,
            previous: None,
            is_marked: state == RecordState::Unreadable,
        }))))
    }

    /// The record of this id, or what is known of it where it cannot be read and belongs to `instance`.
    pub(crate) fn find(&self, instance: &str, id: RecordId) -> Result<Option<Listed>, StoreError> {
        let stored = self.records.get(id.as_u128())?;
        let stored = stored.as_ref().map(AccessGuard::value);
        let reason = match stored.map(|stored| encoding::decode(id, stored)) {
            Some(Ok(record)) => return Ok(Some(Listed::Record(Box::new(record)))),
            Some(Err(reason)) => reason,
            None => MISSING.to_owned(),
        };
        for state in RecordState::ALL {
            if let Some(Listed::Unreadable(mut unreadable)) = self.unreadable_at(state, instance, id, &reason)? {
                let stored = stored.unwrap_or_default();
                let shown = stored.get(..stored.len().min(MAX_SHOWN)).unwrap_or_default();
                unreadable.stored = Some(String::from_utf8_lossy(shown).into_owned());
                unreadable.previous = encoding::remains(stored).and_then(|remains| remains.previous);
                return Ok(Some(Listed::Unreadable(unreadable)));
            }
        }
        Ok(None)
    }

    /// The index entries that may be wanted, over all states in question.
    fn entries<'s>(&'s self, filter: &Filter) -> Result<Rows<'s>, StoreError> {
        let instance = filter.instance.as_str();
        let (lower, upper) = self.bounds(filter);
        let mut sources = Vec::new();
        for state in RecordState::ALL {
            if lower >= upper || filter.state.is_some_and(|wanted| wanted != state) {
                continue;
            }
            let code = state.code();
            let rows: Rows<'s> = match &filter.caller {
                None => {
                    let range =
                        self.by_state.range::<(u8, &str, u128)>((code, instance, lower)..(code, instance, upper))?;
                    Box::new(range.rev().map(move |entry| {
                        let (key, value) = entry?;
                        let ((.., id), (.., pos_id, created_ms)) = (key.value(), value.value());
                        Ok(Row { id, state, pos_id, created_ms, found: None })
                    }))
                }
                Some(caller) => {
                    let bounds = (instance, caller.as_str(), code, lower)..(instance, caller.as_str(), code, upper);
                    Box::new(self.by_caller.range::<(&str, &str, u8, u128)>(bounds)?.rev().map(move |entry| {
                        let (key, value) = entry?;
                        let ((.., id), (pos_id, created_ms)) = (key.value(), value.value());
                        Ok(Row { id, state, pos_id, created_ms, found: None })
                    }))
                }
            };
            sources.push(rows);
        }
        Ok(merged(sources))
    }

    /// The ids between which all that is wanted lies, the upper excluded. What a clock that stepped has put between the
    /// time of a record and the time in its id is allowed for.
    fn bounds(&self, filter: &Filter) -> (u128, u128) {
        let lower = filter.from_ms.map_or(0, |from_ms| {
            RecordId::last_before(from_ms.saturating_sub(self.id_lag_ms)).as_u128().saturating_add(1)
        });
        let created = filter.to_ms.map_or(u128::MAX, |to_ms| {
            RecordId::last_before(to_ms.saturating_add(self.id_lead_ms)).as_u128().saturating_add(1)
        });
        (lower, filter.before.map_or(u128::MAX, RecordId::as_u128).min(created))
    }

    /// The attempts under an idempotency key, of one caller or of all.
    fn attempts<'s>(&'s self, filter: &Filter, idempotency_key: &str) -> Result<Rows<'s>, StoreError> {
        let instance = filter.instance.as_str();
        let start = (instance, idempotency_key, filter.caller.as_deref().unwrap_or_default());
        let mut sources: Vec<Rows<'s>> = Vec::new();
        for entry in self.current.range::<(&str, &str, &str)>(start..)?.take(MAX_CALLERS) {
            let (key, value) = entry?;
            let (of, under, caller) = key.value();
            if (of, under) != (instance, idempotency_key) || filter.caller.as_deref().is_some_and(|one| one != caller) {
                break;
            }
            let key = Key { instance: of.into(), caller: caller.into(), idempotency_key: under.into() };
            sources.push(Box::new(self.attempts_of(key, value.value().0.into(), filter.before)?));
        }
        Ok(merged(sources))
    }

    /// From attempt to attempt, beginning with the newest before the given id.
    fn attempts_of(
        &self,
        key: Key,
        newest: RecordId,
        before: Option<RecordId>,
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        let mut next = Some(newest);
        if let Some(before) = before
            && let Some(found) = self.find(&key.instance, before)?.filter(|found| *found.key() == key)
        {
            next = found.previous();
        }
        let instance = key.instance;
        let rows = std::iter::from_fn(move || {
            let id = next.take()?;
            match self.find(&instance, id) {
                Ok(found) => {
                    let found = found?;
                    next = found.previous();
                    Some(Ok(Row::of(found)))
                }
                Err(fault) => Some(Err(fault)),
            }
        });
        let is_wanted = move |row: &Result<Row, StoreError>| {
            row.as_ref().map_or(true, |row| before.is_none_or(|before| row.id < before.as_u128()))
        };
        Ok(rows.filter(is_wanted))
    }
}

impl Row {
    fn of(found: Listed) -> Self {
        let (state, pos_id, created_ms) = match &found {
            Listed::Record(record) => (record.state().into(), record.sale.pos_id, record.times.created_ms),
            Listed::Unreadable(unreadable) => (RecordState::Unreadable, unreadable.pos_id, unreadable.created_ms),
        };
        Self { id: found.id().as_u128(), state, pos_id, created_ms, found: Some(found) }
    }
}

/// One row after another, the greatest id first, from sources that are each in that order. A failure comes at once.
fn merged(sources: Vec<Rows<'_>>) -> Rows<'_> {
    let mut sources: Vec<_> = sources.into_iter().map(Iterator::peekable).collect();
    Box::new(std::iter::from_fn(move || {
        let heads = sources.iter_mut().enumerate().filter_map(|(at, source)| {
            let head = source.peek()?;
            Some((head.as_ref().map_or(u128::MAX, |row| row.id), at))
        });
        let (_, at) = heads.max()?;
        sources.get_mut(at)?.next()
    }))
}
