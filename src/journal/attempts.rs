//! What an event changes in the payments under one key. PURE: records are read through [`Records`], and what is to be
//! written comes back as [`Changes`], so that every store decides alike.
//!
//! Most events concern one record and are decided by `state_machine`. A late reply concerns all attempts under its key: it
//! takes back a refusal as long as the key was not used again; otherwise both attempts note a contradiction, and if the
//! later one then proves not to be booked, the earlier one takes the key.
//!
//! A store whose records are elsewhere gives what it has loaded, lets [`Records`] fail with what is missing, loads that and
//! decides anew. It writes all changes in one transaction, or none.

use super::error::JournalError;
use super::id::RecordId;
use super::listing::Unreadable;
use super::news::{News, Subject};
use super::record::{Contradiction, Discrepancy, Outcome, Record, RecordState};
use super::sale::Key;
use super::state_machine::{Effect, Event, Rejection};

/// Attempts under one key that are looked through for the one that another follows; beyond it a listing by key is short.
const MAX_ATTEMPTS: usize = 64;

/// A record as a store has it.
#[derive(Debug)]
pub(super) enum Stored {
    Absent,
    Readable(Box<Record>),
    /// It is there, or a key or an index names it, and it cannot be read.
    Unreadable(RecordId),
}

/// What a decision reads.
pub(super) trait Records {
    /// Why something could not be read. It ends the decision.
    type Error;

    /// The record of this id.
    fn get(&self, id: RecordId) -> Result<Stored, Self::Error>;

    /// The latest attempt under a key. Unreadable where the key is known and its record is not.
    fn current(&self, key: &Key) -> Result<Stored, Self::Error>;

    /// What a record that cannot be read is taken for when its payment is decided, and where it is listed: one of unknown
    /// outcome, at the revision that [`Unreadable`] is settled by.
    fn recovered(&self, id: RecordId) -> Result<Option<(RecordState, Record)>, Self::Error>;
}

/// The two clocks at a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Milliseconds since the epoch, for people to read.
    pub(super) wall_ms: i64,
    /// The journal's age, by which records expire.
    pub(super) age_ms: u64,
}

/// A record to be written.
#[derive(Debug)]
pub(super) struct Change {
    /// Where it is listed now; none for one that is new.
    pub(super) before: Option<RecordState>,
    pub(super) record: Record,
    /// It takes the place of one that cannot be read, whose bytes are to be kept.
    pub(super) replaces_unreadable: bool,
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Each record once.
    pub(super) records: Vec<Change>,
    /// The record among them that is the latest attempt under its key from now on.
    pub(super) current: Option<RecordId>,
    /// What is told once all of it is durable.
    pub(super) news: Vec<News>,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) error: JournalError,
    /// A record that was found to be unreadable, to be listed as such.
    pub(super) unreadable: Option<RecordId>,
}

impl From<JournalError> for Refused {
    fn from(error: JournalError) -> Self {
        Self { error, unreadable: None }
    }
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        JournalError::from(rejection).into()
    }
}

impl Refused {
    fn unreadable(id: RecordId) -> Self {
        Self { error: JournalError::Damaged, unreadable: Some(id) }
    }
}

/// What an event does, once its changes are written.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) effect: Effect,
    pub(super) record: Record,
    pub(super) changes: Changes,
}

/// Decides whether a payment may leave: no attempt under its key may hold the key.
pub(super) fn dispatch<R: Records>(
    records: &R,
    reserved: &Record,
    now: Now,
) -> Result<Result<Changes, Refused>, R::Error> {
    let mut record = reserved.clone();
    match records.current(&record.key)? {
        Stored::Absent => {}
        // The reservation looked already. That no key is dispatched twice is worth a second look.
        Stored::Readable(current) if !current.frees_its_key() => {
            return Ok(Err(JournalError::KeyTaken(current.state()).into()));
        }
        Stored::Readable(current) => record.previous = Some(current.id),
        Stored::Unreadable(id) => return Ok(Err(Refused::unreadable(id))),
    }
    if let Err(rejection) = record.apply(&Event::Dispatch, now.wall_ms) {
        return Ok(Err(rejection.into()));
    }
    let current = Some(record.id);
    let records = vec![Change { before: None, record, replaces_unreadable: false }];
    Ok(Ok(Changes { records, current, news: Vec::new() }))
}

/// Decides what an event does to the record of this id, or to what can be made of one that cannot be read.
pub(super) fn apply<R: Records>(
    records: &R,
    id: RecordId,
    event: &Event,
    now: Now,
) -> Result<Result<Decided, Refused>, R::Error> {
    let (before, mut record) = match records.get(id)? {
        Stored::Readable(record) => (record.state().into(), *record),
        Stored::Absent | Stored::Unreadable(_) if decides_the_unreadable(event) => match records.recovered(id)? {
            Some(recovered) => recovered,
            None => return Ok(Err(JournalError::NoSuchRecord.into())),
        },
        Stored::Absent => return Ok(Err(JournalError::NoSuchRecord.into())),
        Stored::Unreadable(id) => return Ok(Err(Refused::unreadable(id))),
    };
    let mut draft = Draft { records, now, changes: Changes::default() };
    let effect = draft.apply(&mut record, before, event)?;
    let changes = draft.changes;
    Ok(effect.map(|effect| Decided { effect, record, changes }))
}

/// Whether an event tells what became of a payment whatever its record may have said. A refusal does not: it may have
/// come after the reply that the record held, and would free a key that was booked.
fn decides_the_unreadable(event: &Event) -> bool {
    matches!(
        event,
        Event::Settle { .. } | Event::Outcome(Outcome::Booked(_)) | Event::Late { outcome: Outcome::Booked(_), .. }
    )
}

/// The records as they will be.
struct Draft<'r, R> {
    records: &'r R,
    now: Now,
    changes: Changes,
}

impl<R: Records> Draft<'_, R> {
    fn changed(&self, id: RecordId) -> Option<Stored> {
        let change = self.changes.records.iter().find(|change| change.record.id == id)?;
        Some(Stored::Readable(Box::new(change.record.clone())))
    }

    fn get(&self, id: RecordId) -> Result<Stored, R::Error> {
        self.changed(id).map_or_else(|| self.records.get(id), Ok)
    }

    fn current(&self, key: &Key) -> Result<Stored, R::Error> {
        if let Some(id) = self.changes.current {
            return self.get(id);
        }
        match self.records.current(key)? {
            Stored::Readable(record) => Ok(self.changed(record.id).unwrap_or(Stored::Readable(record))),
            // This draft may have put a readable record in its place.
            Stored::Unreadable(id) => Ok(self.changed(id).unwrap_or(Stored::Unreadable(id))),
            Stored::Absent => Ok(Stored::Absent),
        }
    }

    fn put(&mut self, before: RecordState, record: &Record, replaces_unreadable: bool) {
        let known = self.changes.records.iter_mut().find(|change| change.record.id == record.id);
        match known {
            Some(change) => change.record = record.clone(),
            None => {
                self.changes.records.push(Change { before: Some(before), record: record.clone(), replaces_unreadable });
            }
        }
    }

    /// Applies an event to a record that is listed under `before`.
    fn apply(
        &mut self,
        record: &mut Record,
        before: RecordState,
        event: &Event,
    ) -> Result<Result<Effect, Refused>, R::Error> {
        if let Event::Late { outcome, .. } = event {
            return self.late(record, before, outcome);
        }
        let was_free = record.frees_its_key();
        let effect = self.step(record, before, event);
        if !was_free && record.frees_its_key() {
            self.give_key_back(record)?;
        }
        Ok(effect)
    }

    /// While this payment held the key, an earlier one under it turned out to be booked: now that this one was not, the
    /// earlier one takes the key, or the next repeat would book once more.
    fn give_key_back(&mut self, record: &Record) -> Result<(), R::Error> {
        let booked = record.contradictions.iter().find_map(|contradiction| match contradiction.why {
            Discrepancy::KeyUsedAgain { of } if matches!(contradiction.says, Outcome::Booked(_)) => {
                Some((of?, contradiction.says.clone()))
            }
            _ => None,
        });
        let Some((id, says)) = booked else { return Ok(()) };
        if let Stored::Readable(mut earlier) = self.get(id)? {
            let before = earlier.state().into();
            let _ = self.late(&mut earlier, before, &says)?;
        }
        Ok(())
    }

    /// What came after the caller was answered concerns all payments under the key.
    fn late(
        &mut self,
        record: &mut Record,
        before: RecordState,
        outcome: &Outcome,
    ) -> Result<Result<Effect, Refused>, R::Error> {
        let (later, is_later_unreadable) = match self.current(&record.key)? {
            Stored::Readable(current) => (Some(current).filter(|current| current.id != record.id), false),
            Stored::Unreadable(id) => (None, id != record.id),
            Stored::Absent => (None, false),
        };
        let key_used_again = is_later_unreadable || later.as_ref().is_some_and(|later| !later.frees_its_key());
        let effect = self.step(record, before, &Event::Late { outcome: outcome.clone(), key_used_again });
        let Some(mut later) = later else { return Ok(effect) };
        match effect {
            Ok(Effect::Contradicted) if key_used_again => {
                let why = Discrepancy::KeyUsedAgain { of: Some(record.id) };
                let contradiction = Contradiction { at_ms: self.now.wall_ms, says: outcome.clone(), why };
                let before = later.state().into();
                let _ = self.step(&mut later, before, &Event::Contradicted(contradiction));
            }
            // The key is taken by what was booked, not by a later attempt that was refused.
            Ok(Effect::Changed) if !record.frees_its_key() => self.take_key(record, &later)?,
            _ => {}
        }
        Ok(effect)
    }

    /// Makes an earlier record the current one of its key, and the first of its attempts that is listed.
    fn take_key(&mut self, record: &mut Record, current: &Record) -> Result<(), R::Error> {
        let mut attempt = current.clone();
        for _ in 0..MAX_ATTEMPTS {
            let Some(previous) = attempt.previous else { break };
            if previous == record.id {
                attempt.previous = record.previous.replace(current.id);
                self.put(attempt.state().into(), &attempt, false);
                self.put(record.state().into(), record, false);
                break;
            }
            let Stored::Readable(earlier) = self.get(previous)? else { break };
            attempt = *earlier;
        }
        self.changes.current = Some(record.id);
        Ok(())
    }

    /// Applies an event to one record, which is listed under `before`.
    fn step(&mut self, record: &mut Record, before: RecordState, event: &Event) -> Result<Effect, Refused> {
        let replaces_unreadable = record.recovered.is_some() && record.revision == Unreadable::REVISION;
        let contradictions = record.contradictions.len();
        let effect = record.apply(event, self.now.wall_ms)?;
        let after: RecordState = record.state().into();
        // Of two records that note the same word, the one that it is about tells of it.
        let is_told = !matches!(event, Event::Contradicted(_));
        if is_told && (effect == Effect::Contradicted || record.contradictions.len() > contradictions) {
            self.changes.news.push(News::Contradicted { subject: Subject::of(record), state: after });
        }
        if after != before {
            self.changes.news.push(News::Moved { subject: Subject::of(record), from: before, to: after });
            record.ended_age_ms = record.state().has_ended().then_some(self.now.age_ms);
        }
        if effect == Effect::Changed
            && let Some(bytes) = record.reply_bytes
        {
            self.changes.news.push(News::Shortened { subject: Subject::of(record), bytes });
        }
        if effect != Effect::Unchanged {
            self.put(before, record, replaces_unreadable);
        }
        Ok(effect)
    }
}
