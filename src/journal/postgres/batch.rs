//! What each job of a batch writes, by the pure rules, given what was loaded. Pure.

use std::time::Duration;

use crate::clock::whole_ms;
use crate::journal::apply::Applied;
use crate::journal::attempts::{self, Changes, Decided, Now};
use crate::journal::error::JournalError;
use crate::journal::id::RecordId;
use crate::journal::in_flight::HeldKey;
use crate::journal::news::News;
use crate::journal::record::{Finding, Outcome, Record, Release, Verdict};
use crate::journal::sale::Key;
use crate::journal::state_machine::{Effect, Event, Rejection};
use crate::tenure::{SessionId, Tenure, Tenures};

use super::columns::Write;
use super::loaded::{Loaded, Missing};
use super::queue::Job;

/// What is to be done: what somebody asks for, or what is owed.
#[derive(Debug)]
pub(crate) enum Task {
    Asked(Job),
    Owed(Owed),
}

impl Task {
    /// The payment that it is about.
    pub(crate) fn id(&self) -> RecordId {
        match self {
            Self::Asked(Job::Dispatch { record, .. }) => record.id,
            Self::Asked(Job::Apply { id, .. } | Job::TakeOver { id, .. } | Job::Confirm { id, .. }) => *id,
            Self::Owed(owed) => owed.id,
        }
    }

    /// What was found before it came here holds no more.
    pub(crate) fn look_again(&mut self) {
        if let Self::Asked(Job::Dispatch { is_first, .. }) = self {
            *is_first = false;
        }
    }
}

/// An outcome that no acknowledged commit holds.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) id: RecordId,
    /// An outcome, told at once or late.
    pub(crate) event: Event,
    /// Held so that the key is not given out before the outcome is on record.
    pub(crate) held: Option<HeldKey>,
    /// The payment as it is to be recorded where it is not known whether it was ever recorded: released, for it never left.
    pub(crate) unsent: Option<Box<Record>>,
}

impl Owed {
    /// What is owed for a payment that may be recorded as on its way and never left.
    pub(crate) fn unsent(reserved: Box<Record>, held: HeldKey, now: Now) -> Self {
        let event = Event::Outcome(Outcome::Released(Release::NeverWritten));
        let id = reserved.id;
        let mut record = reserved;
        // Neither can be refused to a payment that is reserved.
        let _ = record.apply(&Event::Dispatch, now.wall_ms);
        let _ = record.apply(&event, now.wall_ms);
        record.ended_age_ms = Some(now.age_ms);
        Self { id, event, held: Some(held), unsent: Some(record) }
    }

    pub(crate) fn was_never_sent(&self) -> bool {
        matches!(self.event, Event::Outcome(Outcome::Released(Release::NeverWritten)))
    }
}

/// What a task writes.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Nothing: its answer is known.
    Nothing,
    Dispatch(Write),
    Heard(Write),
    Settle(Write),
    Release(Write),
    /// A record as it is.
    Confirm {
        id: RecordId,
        written: i64,
    },
    /// Records that change together or not at all, under one token where there is one.
    Several(Vec<Write>),
}

impl Plan {
    /// Whether it changes this payment.
    fn changes(&self, id: RecordId) -> bool {
        match self {
            Self::Nothing | Self::Confirm { .. } => false,
            Self::Dispatch(write) | Self::Heard(write) | Self::Settle(write) | Self::Release(write) => {
                write.record.id == id
            }
            Self::Several(writes) => writes.iter().any(|write| write.record.id == id),
        }
    }

    /// The keys that it changes.
    pub(crate) fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Nothing | Self::Confirm { .. } => Vec::new(),
            Self::Dispatch(write) | Self::Heard(write) | Self::Settle(write) | Self::Release(write) => {
                vec![&write.record.key]
            }
            Self::Several(writes) => writes.iter().map(|write| &write.record.key).collect(),
        }
    }
}

/// A task with what it writes and what is answered once that is acknowledged.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) task: Task,
    pub(crate) plan: Plan,
    pub(crate) answer: Result<Option<Applied>, JournalError>,
    pub(crate) news: Vec<News>,
}

impl Planned {
    /// Whether one of these before it changes what it was decided on.
    pub(crate) fn is_overtaken_by(&self, before: &[&Plan]) -> bool {
        before.iter().any(|plan| plan.changes(self.task.id()))
    }
}

type Decision = (Plan, Result<Option<Applied>, JournalError>, Vec<News>);

/// By what is decided beside the records.
#[derive(Debug)]
pub(crate) struct Rules<'w> {
    pub(crate) tenures: &'w Tenures,
    /// How long after a takeover nobody settles as not booked.
    pub(crate) unsettled: Duration,
    /// The database was restored, and nobody has confirmed that.
    pub(crate) is_restored: bool,
    pub(crate) now: Now,
}

impl Rules<'_> {
    /// The right to begin something for an instance, if this process has it.
    fn token(&self, instance: &str) -> Option<(SessionId, i64)> {
        self.tenures.of(instance).filter(Tenure::may_act)?.token()
    }

    pub(crate) fn decide(&self, task: &Task, loaded: &Loaded) -> Result<Decision, Missing> {
        match task {
            Task::Asked(Job::Dispatch { record, .. }) => self.dispatch(record, loaded),
            Task::Asked(Job::Apply { id, event, .. }) => self.apply(*id, event, loaded),
            Task::Asked(Job::TakeOver { id, .. }) => self.take_over(*id, loaded),
            Task::Asked(Job::Confirm { id, written, .. }) => {
                Ok((Plan::Confirm { id: *id, written: *written }, Ok(None), Vec::new()))
            }
            Task::Owed(owed) => self.owed(owed, loaded),
        }
    }

    fn dispatch(&self, reserved: &Record, loaded: &Loaded) -> Result<Decision, Missing> {
        let token = self.token(&reserved.key.instance).filter(|_| !self.is_restored);
        let Some(token) = token else { return Ok(refused(JournalError::Unavailable)) };
        let changes = match attempts::dispatch(loaded, reserved, self.now)? {
            Ok(changes) => changes,
            Err(why) => return Ok(refused(why.error)),
        };
        let Changes { records, news, .. } = changes;
        let Some(change) = records.into_iter().next() else { return Ok(refused(JournalError::Unavailable)) };
        let write = Write {
            record: change.record,
            written: 0,
            token: Some(token),
            taken_over_age_ms: None,
            replaces_unreadable: false,
        };
        Ok((Plan::Dispatch(write), Ok(None), news))
    }

    fn apply(&self, id: RecordId, event: &Event, loaded: &Loaded) -> Result<Decision, Missing> {
        let Decided { effect, record, changes } = match attempts::apply(loaded, id, event, self.now)? {
            Ok(decided) => decided,
            Err(why) => return Ok(refused(why.error)),
        };
        let mut token = None;
        if let Event::Settle { verdict, .. } = event {
            if let Some(error) = self.too_early(id, verdict, loaded) {
                return Ok(refused(error));
            }
            token = self.token(&record.key.instance);
            if token.is_none() {
                return Ok(refused(JournalError::Unavailable));
            }
        }
        let Changes { records, news, .. } = changes;
        let applied = Ok(Some(Applied { effect, record }));
        let mut writes: Vec<_> = records
            .into_iter()
            .map(|change| Write {
                written: loaded.row(change.record.id).map_or(0, |row| row.written),
                record: change.record,
                token,
                taken_over_age_ms: None,
                replaces_unreadable: change.replaces_unreadable,
            })
            .collect();
        // The index of keys that are taken is checked record by record: one is freed before another takes it.
        writes.sort_by_key(|write| !write.record.frees_its_key());
        let is_alone = writes.len() < 2 && !writes.iter().any(|write| write.replaces_unreadable);
        let plan = match (is_alone, token) {
            (false, _) => Plan::Several(writes),
            (true, Some(_)) => writes.pop().map_or(Plan::Nothing, Plan::Settle),
            (true, None) => writes.pop().map_or(Plan::Nothing, Plan::Heard),
        };
        Ok((plan, applied, news))
    }

    /// Until then the owner of before may hear that it was booked.
    fn too_early(&self, id: RecordId, verdict: &Verdict, loaded: &Loaded) -> Option<JournalError> {
        let taken_over = loaded.row(id).and_then(|row| row.taken_over_age_ms)?;
        let until_ms = u64::try_from(taken_over).unwrap_or_default().saturating_add(whole_ms(self.unsettled));
        let wait_ms = until_ms.checked_sub(self.now.age_ms).filter(|wait_ms| *wait_ms > 0)?;
        let seconds = wait_ms.div_ceil(1000);
        (verdict.outcome == Finding::NotBooked).then_some(Rejection::TooEarly { seconds }.into())
    }

    fn take_over(&self, id: RecordId, loaded: &Loaded) -> Result<Decision, Missing> {
        let is_on_its_way =
            loaded.row(id).is_some_and(|row| row.payment_state() == Some(super::super::State::Dispatching));
        if loaded.has(id) && !is_on_its_way {
            return Ok((Plan::Nothing, Ok(None), Vec::new()));
        }
        let (mut plan, answer, news) = self.apply(id, &Event::Restart, loaded)?;
        if let Plan::Heard(write) = &mut plan {
            write.taken_over_age_ms = Some(i64::try_from(self.now.age_ms).unwrap_or(i64::MAX));
        }
        Ok((plan, answer, news))
    }

    /// What is owed is written in any case, so that it is acknowledged: what can be read may be lost again.
    fn owed(&self, owed: &Owed, loaded: &Loaded) -> Result<Decision, Missing> {
        if let Some(record) = &owed.unsent {
            let record = (**record).clone();
            let write = Write { record, written: 0, token: None, taken_over_age_ms: None, replaces_unreadable: false };
            return Ok((Plan::Release(write), Ok(None), Vec::new()));
        }
        let (plan, answer, news) = self.apply(owed.id, &owed.event, loaded)?;
        let is_unchanged = matches!(&answer, Ok(Some(applied)) if applied.effect == Effect::Unchanged);
        match (plan, loaded.row(owed.id)) {
            (Plan::Nothing, Some(row)) if is_unchanged => {
                Ok((Plan::Confirm { id: row.id, written: row.written }, answer, news))
            }
            (plan, _) => Ok((plan, answer, news)),
        }
    }
}

fn refused(error: JournalError) -> Decision {
    (Plan::Nothing, Err(error), Vec::new())
}
