//! Whether payments may be begun on this database: not where it was restored from a backup, since keys used after that are new
//! there, until an operator confirms. Pure, but for the statements that it gives.

use uuid::Uuid;

use crate::database::{Error, HAS_LOST, IS_ANOTHER, Mark, Rows, Statement};

/// What this process knows of its database.
#[derive(Debug)]
pub(crate) struct Witness {
    id: Uuid,
    /// The greatest count that was sent.
    sent: i64,
    /// The greatest that was acknowledged; none before it is registered.
    acknowledged: Option<i64>,
    /// When an operator had confirmed the database, as it was last trusted.
    trusted_us: Option<i64>,
    /// Why nothing may be begun now.
    doubt: Option<String>,
}

/// What is to be done after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: payments may be begun.
    Trust,
    /// Begin to count, and look again.
    Register,
    /// Note the timeline of a failover that lost nothing, and look again.
    Vouch,
    /// Begin nothing, and note that it was restored.
    Flag(&'static str),
    /// Begin nothing.
    Wait,
}

impl Witness {
    pub(crate) fn new(id: Uuid) -> Self {
        Self { id, sent: 0, acknowledged: None, trusted_us: None, doubt: None }
    }

    /// Why nothing may be begun now.
    pub(crate) fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// The condition under which a payment is recorded: this count is there.
    pub(crate) fn condition(&self) -> (Uuid, i64) {
        (self.id, self.acknowledged.unwrap_or(i64::MAX))
    }

    /// Counts one more transaction, in itself; none before it is registered.
    pub(crate) fn bear(&mut self) -> Option<(Statement, i64)> {
        let acknowledged = self.acknowledged?;
        self.sent += 1;
        Some((Mark::bear(self.id, acknowledged, self.sent), self.sent))
    }

    /// That count is acknowledged.
    pub(crate) fn acknowledged(&mut self, count: i64) {
        self.acknowledged = self.acknowledged.map(|before| before.max(count));
    }

    /// Looks at the mark and at itself.
    pub(crate) fn look(&mut self) -> (Vec<Statement>, Option<i64>) {
        let (bearing, count) = self.bear().unzip();
        ([Mark::look()].into_iter().chain(bearing).collect(), count)
    }

    /// Judges what a look found that was acknowledged.
    pub(crate) fn judge(&mut self, rows: &[Rows], count: Option<i64>) -> Result<Step, Error> {
        let mark = rows.first().and_then(|rows| rows.first()).map(Mark::read).transpose()?;
        let is_there = rows.get(1).is_some_and(|rows| !rows.is_empty());
        if let Some(count) = count.filter(|_| is_there) {
            self.acknowledged(count);
        }
        Ok(self.decide(mark.as_ref(), is_there))
    }

    fn decide(&mut self, mark: Option<&Mark>, is_there: bool) -> Step {
        let (step, doubt) = self.decided(mark, is_there);
        self.doubt = doubt;
        if let Some(mark) = mark.filter(|_| step == Step::Trust) {
            self.trusted_us = Some(mark.confirmed_us);
        }
        step
    }

    fn decided(&self, mark: Option<&Mark>, is_there: bool) -> (Step, Option<String>) {
        let doubt = Mark::doubt(mark);
        let Some(mark) = mark else { return (Step::Wait, doubt) };
        if mark.restored.is_some() {
            return (Step::Wait, doubt);
        }
        if !mark.is_genuine {
            return (Step::Flag(IS_ANOTHER), doubt);
        }
        // Later than what was trusted, and not before it, as in a backup. It may not have been looked at in between.
        let is_confirmed = self.trusted_us.is_some_and(|trusted_us| mark.confirmed_us > trusted_us);
        match self.acknowledged {
            None if mark.is_on_its_timeline => (Step::Register, None),
            None => (Step::Wait, doubt),
            Some(_) if is_there && mark.is_on_its_timeline => (Step::Trust, None),
            Some(_) if is_there => (Step::Vouch, None),
            Some(_) if is_confirmed && mark.is_on_its_timeline => (Step::Register, None),
            Some(_) => (Step::Flag(HAS_LOST), Some(HAS_LOST.to_owned())),
        }
    }

    /// Begins to count with what was sent.
    pub(crate) fn register(&self) -> Statement {
        Mark::register(self.id, self.sent)
    }

    /// It counts from now on.
    pub(crate) fn registered(&mut self) {
        self.acknowledged = Some(self.sent);
    }

    pub(crate) fn vouch(&self) -> Statement {
        Mark::vouch(self.id, self.acknowledged.unwrap_or(i64::MAX))
    }

    pub(crate) fn forget(&self) -> Statement {
        Mark::forget(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { is_genuine: true, is_on_its_timeline: true, restored: None, confirmed_us: 1 }
    }

    fn registered() -> Witness {
        let mut witness = Witness::new(Uuid::nil());
        assert_eq!(witness.decide(Some(&mark()), false), Step::Register);
        witness.registered();
        assert_eq!((witness.decide(Some(&mark()), true), witness.doubt()), (Step::Trust, None));
        witness
    }

    #[test]
    fn who_begins_trusts_only_a_mark_that_is_as_it_was_written() {
        let another = Mark { is_genuine: false, ..mark() };
        let later = Mark { is_on_its_timeline: false, ..mark() };
        let known = Mark { restored: Some("so".into()), ..mark() };
        for (found, step) in [
            (None, Step::Wait),
            (Some(another), Step::Flag(IS_ANOTHER)),
            (Some(later), Step::Wait),
            (Some(known), Step::Wait),
        ] {
            let mut witness = Witness::new(Uuid::nil());
            assert_eq!(witness.decide(found.as_ref(), false), step, "{found:?}");
            assert!(witness.doubt().is_some(), "{found:?}");
            assert!(witness.bear().is_none(), "nothing is recorded on it");
        }
    }

    #[test]
    fn a_failover_is_noted_by_whoever_finds_all_that_it_had_acknowledged() {
        let (mut witness, later) = (registered(), Mark { is_on_its_timeline: false, ..mark() });
        assert_eq!((witness.decide(Some(&later), true), witness.doubt()), (Step::Vouch, None));
        assert_eq!(witness.decide(Some(&later), false), Step::Flag(HAS_LOST));
    }

    #[test]
    fn what_was_lost_is_trusted_again_only_after_a_confirmation() {
        let mut witness = registered();
        for _ in 0..2 {
            // The flag may not have been written.
            assert_eq!(witness.decide(Some(&mark()), false), Step::Flag(HAS_LOST));
        }
        let flagged = Mark { restored: Some(HAS_LOST.into()), ..mark() };
        assert_eq!((witness.decide(Some(&flagged), false), witness.doubt()), (Step::Wait, Some(HAS_LOST)));
        let confirmed = Mark { confirmed_us: 2, ..mark() };
        assert_eq!((witness.decide(Some(&confirmed), false), witness.doubt()), (Step::Register, None));
        witness.registered();
        assert_eq!(witness.decide(Some(&confirmed), true), Step::Trust);
        // And a second restore, to before the first confirmation, is another one.
        assert_eq!(witness.decide(Some(&mark()), false), Step::Flag(HAS_LOST));
    }
}
