//! What can happen to a payment, and in which order. PURE: events and times come in as arguments, and every state has
//! an answer to every event.
//!
//! `Reserved → Dispatching → Booked | Released | Unknown → Settled`, and from `Unknown` also to `Booked` or `Released`
//! when a late reply tells. Three rules: the gateway books twice what is sent twice, so a state that might have been
//! booked never frees its key by itself; a reply is the truth whenever it comes, so it resolves what is unknown, and takes
//! back a refusal as long as the key was not used again; and a person's decision stands, so what contradicts it is recorded
//! beside it and changes nothing.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::kept::{excess, kept};
use super::record::{
    Contradiction, Discrepancy, Finding, Lookup, Outcome, Record, Release, Search, Settlement, Standing, State, Verdict,
};
use crate::protocol::Body;

/// Late frames that contradict one record and are kept; further ones are reported and not kept.
const MAX_CONTRADICTIONS: usize = 16;

/// Transactions kept for one record: far more than can match one sale in the few minutes in which it is looked for.
const MAX_CANDIDATES: usize = 256;

/// The longest transaction that is kept, some twenty times what the gateway sends. A longer one cannot be shown, so the
/// lookup is not complete.
const MAX_CANDIDATE_BYTES: usize = 16 << 10;

/// What can happen to a payment.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is about to be sent.
    Dispatch,
    /// The gateway, or its silence, told what became of it.
    Outcome(Outcome),
    /// The gateway told what became of it after its caller was answered.
    Late {
        outcome: Outcome,
        /// Whether the key was used again since, by a payment that did not free it.
        key_used_again: bool,
    },
    /// Something was said of another payment under the same key that does not agree with this one.
    Contradicted(Contradiction),
    /// Its connection was given up: no late reply will be heard.
    NotHeardAnyMore,
    /// A start finds the record: its reply is no longer listened for.
    Restart,
    /// A person decides, having seen the given revision.
    Settle { revision: u64, verdict: Verdict },
    /// The gateway's transactions were searched for an unknown outcome.
    Evidence(Lookup),
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Changed,
    /// Something was noted that no decision rests on: the revision is as it was.
    Noted,
    /// The event told nothing new.
    Unchanged,
    /// The event contradicts a decided outcome: noted in the record, nothing else changed. An operator must be told.
    Contradicted,
}

/// Why an event does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Only an unknown outcome can be settled.
    #[error("only an unknown outcome can be settled; this payment is {0}")]
    NotUnknown(State),
    /// The record changed since the person saw it.
    #[error("the record has changed since; its revision is now {0}")]
    Stale(u64),
    /// Its owner of before may still hear what became of it.
    #[error(
        "another replica took this payment over, and the one before may still hear that it was booked; in {seconds} s it \
         may be settled as not booked"
    )]
    TooEarly { seconds: u64 },
    /// The event cannot happen in this state: a fault of the bridge.
    #[error("this cannot happen to a payment that is {0}")]
    Impossible(State),
}

impl Outcome {
    /// A gateway's word frees a key only where it is known to mean no, whatever the caller made of it.
    fn proven(&self) -> Self {
        match self {
            Self::Released(Release::Refused(error)) if !error.refuses_payment() => Self::Unknown(Some(error.clone())),
            outcome => outcome.clone(),
        }
    }
}

impl Record {
    /// Applies `event` at `now_ms`. A rejected event leaves the record as it is.
    pub fn apply(&mut self, event: &Event, now_ms: i64) -> Result<Effect, Rejection> {
        match event {
            Event::Dispatch => self.dispatch(now_ms),
            Event::Outcome(outcome) => {
                let effect = self.conclude(&kept(outcome.proven()), now_ms)?;
                Ok(self.note_excess(effect, outcome))
            }
            Event::Late { outcome, key_used_again } => {
                let effect = self.late(&kept(outcome.proven()), *key_used_again, now_ms)?;
                Ok(self.note_excess(effect, outcome))
            }
            Event::Contradicted(contradiction) => Ok(self.note(contradiction.clone())),
            Event::NotHeardAnyMore => Ok(self.not_heard_any_more(now_ms)),
            Event::Restart => self.restart(now_ms),
            Event::Settle { revision, verdict } => self.settle(*revision, verdict, now_ms),
            Event::Evidence(look) => match self.state() {
                State::Reserved | State::Dispatching => Err(Rejection::Impossible(self.state())),
                State::Unknown => Ok(self.attach(look, now_ms)),
                // It is decided: what was found meanwhile no longer matters.
                State::Booked | State::Released | State::Settled => Ok(Effect::Unchanged),
            },
        }
    }

    fn note_excess(&mut self, effect: Effect, outcome: &Outcome) -> Effect {
        if effect == Effect::Changed {
            self.reply_bytes = excess(outcome);
        }
        effect
    }

    fn dispatch(&mut self, now_ms: i64) -> Result<Effect, Rejection> {
        if self.state() != State::Reserved {
            return Err(Rejection::Impossible(self.state()));
        }
        self.times.dispatched_ms = Some(now_ms);
        Ok(self.stand(Standing::Dispatching))
    }

    fn restart(&mut self, now_ms: i64) -> Result<Effect, Rejection> {
        match self.standing {
            Standing::Reserved => Err(Rejection::Impossible(State::Reserved)),
            Standing::Dispatching => {
                let effect = self.conclude(&Outcome::Unknown(None), now_ms);
                self.not_heard_any_more(now_ms);
                effect
            }
            _ => Ok(self.not_heard_any_more(now_ms)),
        }
    }

    /// Of what is decided for good nothing more is awaited.
    fn not_heard_any_more(&mut self, now_ms: i64) -> Effect {
        let may_change = matches!(self.state(), State::Unknown | State::Released);
        if !may_change || self.times.listened_until_ms.is_some() {
            return Effect::Unchanged;
        }
        self.times.listened_until_ms = Some(now_ms);
        Effect::Noted
    }

    fn late(&mut self, outcome: &Outcome, key_used_again: bool, now_ms: i64) -> Result<Effect, Rejection> {
        match (&self.standing, outcome) {
            (Standing::Released(Release::Refused(_)), Outcome::Booked(reply)) if !key_used_again => {
                if self.key.is_of_till() {
                    let why = Discrepancy::TillWasRefused;
                    self.contradictions.push(Contradiction { at_ms: now_ms, says: outcome.clone(), why });
                }
                Ok(self.book(reply, now_ms))
            }
            (Standing::Released(_), Outcome::Booked(_)) => {
                let why =
                    if key_used_again { Discrepancy::KeyUsedAgain { of: None } } else { Discrepancy::DecidedOtherwise };
                Ok(self.note(Contradiction { at_ms: now_ms, says: outcome.clone(), why }))
            }
            _ => self.conclude(outcome, now_ms),
        }
    }

    /// The gateway's reply is the outcome, even where it says that fewer products were booked than were sold.
    fn book(&mut self, reply: &Body, now_ms: i64) -> Effect {
        let sold = self.sale.products_sold();
        if let Some(booked) = items(reply).filter(|booked| *booked < sold) {
            let why = Discrepancy::FewerItems { booked, sold };
            self.contradictions.push(Contradiction { at_ms: now_ms, says: Outcome::Booked(reply.clone()), why });
        }
        self.end(Standing::Booked(reply.clone()), now_ms)
    }

    fn conclude(&mut self, outcome: &Outcome, now_ms: i64) -> Result<Effect, Rejection> {
        use State::{Booked, Dispatching, Released, Reserved, Settled, Unknown};
        match (self.state(), outcome) {
            (Reserved, _) => Err(Rejection::Impossible(Reserved)),
            (Dispatching | Unknown, Outcome::Booked(reply)) => Ok(self.book(reply, now_ms)),
            (Dispatching | Unknown, Outcome::Released(why)) => Ok(self.end(Standing::Released(why.clone()), now_ms)),
            (Dispatching, Outcome::Unknown(said)) => {
                self.times.unknown_ms = Some(now_ms);
                Ok(self.stand(Standing::Unknown(said.clone())))
            }
            (Unknown, Outcome::Unknown(Some(said))) if self.gateway_error().is_none() => {
                Ok(self.stand(Standing::Unknown(Some(said.clone()))))
            }
            (Booked | Released | Settled, says) if self.is_contradicted_by(says) => {
                let why = Discrepancy::DecidedOtherwise;
                Ok(self.note(Contradiction { at_ms: now_ms, says: says.clone(), why }))
            }
            (Unknown | Booked | Released | Settled, _) => Ok(Effect::Unchanged),
        }
    }

    fn is_contradicted_by(&self, says: &Outcome) -> bool {
        let booked = match &self.standing {
            Standing::Booked(_) => true,
            Standing::Settled(settlement) => settlement.outcome == Finding::Booked,
            _ => false,
        };
        match says {
            Outcome::Booked(_) => !booked,
            Outcome::Released(_) => booked,
            Outcome::Unknown(_) => false,
        }
    }

    /// Whether a person who saw the record at `revision` may settle it.
    pub fn may_be_settled(&self, revision: u64) -> Result<(), Rejection> {
        if self.state() != State::Unknown {
            return Err(Rejection::NotUnknown(self.state()));
        }
        if self.revision != revision {
            return Err(Rejection::Stale(self.revision));
        }
        Ok(())
    }

    fn settle(&mut self, revision: u64, verdict: &Verdict, now_ms: i64) -> Result<Effect, Rejection> {
        self.may_be_settled(revision)?;
        let Verdict { outcome, reason, by } = verdict.clone();
        Ok(self.end(Standing::Settled(Settlement { outcome, reason, by, at_ms: now_ms }), now_ms))
    }

    /// Adds the transactions of a lookup, each once.
    ///
    /// The revision moves with what a person decides by: a transaction that is new to the record, one more payment that
    /// could explain it, and whether the lookup was complete. So no person settles a payment without having seen what was
    /// found. A lookup without news leaves the revision, so that it does not void a decision. The number of payments that
    /// could explain a transaction never falls: a later lookup may have missed some, and none of them becomes impossible.
    fn attach(&mut self, lookup: &Lookup, now_ms: i64) -> Effect {
        let mut news = false;
        let mut complete = lookup.complete;
        for candidate in &lookup.candidates {
            if let Some(kept) = self.evidence.iter_mut().find(|kept| kept.transaction_id == candidate.transaction_id) {
                news |= candidate.other_payments > kept.other_payments;
                kept.other_payments = kept.other_payments.max(candidate.other_payments);
            } else if self.evidence.len() < MAX_CANDIDATES
                && candidate.transaction.as_str().len() <= MAX_CANDIDATE_BYTES
            {
                news = true;
                self.evidence.push(candidate.clone());
            } else {
                complete = false;
            }
        }
        let before = self.search;
        news |= before.is_some_and(|before| before.complete != complete);
        let looks = before.map_or(0, |search| search.looks).saturating_add(1);
        self.search = Some(Search { looks, last_ms: now_ms, complete });
        if !news {
            return Effect::Noted;
        }
        self.revision += 1;
        Effect::Changed
    }

    fn note(&mut self, contradiction: Contradiction) -> Effect {
        if self.contradictions.len() < MAX_CONTRADICTIONS {
            self.contradictions.push(contradiction);
            self.revision += 1;
        }
        Effect::Contradicted
    }

    fn end(&mut self, standing: Standing, now_ms: i64) -> Effect {
        self.times.ended_ms = Some(now_ms);
        self.stand(standing)
    }

    fn stand(&mut self, standing: Standing) -> Effect {
        self.standing = standing;
        self.revision += 1;
        Effect::Changed
    }
}

/// How many products a reply says were booked; none where it says nothing that can be read. The gateway spells numbers
/// as texts at times.
fn items(reply: &Body) -> Option<u64> {
    #[derive(Deserialize)]
    struct Reply<'a> {
        #[serde(rename = "Items", borrow)]
        items: &'a RawValue,
    }
    let Reply { items } = serde_json::from_str(reply.as_str()).ok()?;
    let digits = items.get().trim_matches('"').trim();
    let whole = digits
        .split_once('.')
        .map_or(digits, |(whole, rest)| if rest.trim_matches('0').is_empty() { whole } else { digits });
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::id::RecordId;
    use crate::journal::record::{Answer, Candidate};
    use crate::journal::sale::{Key, Sale};
    use crate::protocol::GatewayError;

    fn body(json: &str) -> Body {
        Body::from(serde_json::from_str::<&RawValue>(json).unwrap())
    }

    fn record() -> Record {
        let key = Key { instance: "demo".into(), caller: "shop".into(), idempotency_key: "k".into() };
        let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 2)] };
        Record::reserved(RecordId::fresh(), key, sale, 0)
    }

    fn after(events: &[Event]) -> Record {
        let mut record = record();
        for event in events {
            record.apply(event, 1).unwrap();
        }
        record
    }

    fn booked() -> Event {
        Event::Outcome(Outcome::Booked(body(r#"{"Items": 1.0}"#)))
    }

    fn refused(word: &str) -> Event {
        Event::Outcome(Outcome::Released(Release::Refused(GatewayError::word(word))))
    }

    fn lost() -> Event {
        Event::Outcome(Outcome::Unknown(None))
    }

    fn found(ids: std::ops::Range<i64>, other_payments: u32) -> Event {
        let candidate =
            |id| Candidate { transaction_id: id, transaction: body(&format!("{{\"ID\":{id}}}")), other_payments };
        Event::Evidence(Lookup { candidates: ids.map(candidate).collect(), complete: true })
    }

    fn settle(revision: u64, outcome: Finding) -> Event {
        Event::Settle { revision, verdict: Verdict { outcome, reason: "counted the till".into(), by: "ops".into() } }
    }

    #[test]
    fn a_restart_makes_what_was_on_its_way_unknown() {
        let record = after(&[Event::Dispatch, Event::Restart]);
        assert_eq!((record.state(), record.times.unknown_ms), (State::Unknown, Some(1)));
        assert_eq!(record.answer(&record.fingerprint), Answer::Unknown);
    }

    #[test]
    fn a_late_reply_resolves_the_unknown_by_itself() {
        assert_eq!(after(&[Event::Dispatch, lost(), booked()]).state(), State::Booked);
        assert_eq!(after(&[Event::Dispatch, lost(), refused("invalid_password")]).state(), State::Released);
    }

    fn late(outcome: Outcome, key_used_again: bool) -> Event {
        Event::Late { outcome, key_used_again }
    }

    fn reply() -> Outcome {
        Outcome::Booked(body(r#"{"Items": 1.0}"#))
    }

    #[test]
    fn a_reply_after_a_refusal_books_as_long_as_the_key_was_not_used_again() {
        let mut record = after(&[Event::Dispatch, refused("invalid_password")]);
        assert_eq!(record.apply(&late(reply(), false), 2), Ok(Effect::Changed));
        assert_eq!((record.state(), record.answer(&record.fingerprint)), (State::Booked, Answer::Replay));
        let mut record = after(&[Event::Dispatch, refused("invalid_password")]);
        assert_eq!(record.apply(&late(reply(), true), 2), Ok(Effect::Contradicted));
        assert_eq!(record.state(), State::Released);
        assert_eq!(record.contradictions[0].why, Discrepancy::KeyUsedAgain { of: None });
        assert_eq!(record.apply(&late(Outcome::Unknown(None), false), 3), Ok(Effect::Unchanged));
    }

    #[test]
    fn a_till_that_was_refused_cannot_ask_again_so_that_a_person_must() {
        let mut record = after(&[Event::Dispatch, refused("invalid_password")]);
        record.key = Key::of_till("demo", "gateway-key");
        assert_eq!(record.apply(&late(reply(), false), 2), Ok(Effect::Changed));
        assert_eq!(record.contradictions[0].why, Discrepancy::TillWasRefused);
    }

    #[test]
    fn what_was_never_written_cannot_have_been_booked() {
        let never = Event::Outcome(Outcome::Released(Release::NeverWritten));
        let mut record = after(&[Event::Dispatch, never]);
        assert_eq!(record.apply(&late(reply(), false), 2), Ok(Effect::Contradicted));
    }

    #[test]
    fn a_reply_with_fewer_items_than_sold_is_booked_and_noted() {
        let outcome = |items: &str| Event::Outcome(Outcome::Booked(body(&format!("{{\"Items\":{items}}}"))));
        let fewer = |items| after(&[Event::Dispatch, outcome(items)]);
        for items in ["0", "\"0\"", "0.0"] {
            let record = fewer(items);
            assert_eq!(record.state(), State::Booked);
            assert_eq!(record.contradictions[0].why, Discrepancy::FewerItems { booked: 0, sold: 1 }, "{items}");
        }
        for items in ["1", "\"1\"", "1.0", "2", "null", "1e0", "\"many\""] {
            assert!(fewer(items).contradictions.is_empty(), "{items}");
        }
        assert!(after(&[Event::Dispatch, Event::Outcome(Outcome::Booked(body("{}")))]).contradictions.is_empty());
    }

    #[test]
    fn a_record_says_until_when_its_late_reply_was_listened_for() {
        let mut record = after(&[Event::Dispatch, lost()]);
        let revision = record.revision;
        assert_eq!(record.apply(&Event::NotHeardAnyMore, 7), Ok(Effect::Noted));
        assert_eq!(record.apply(&Event::NotHeardAnyMore, 8), Ok(Effect::Unchanged));
        assert_eq!((record.times.listened_until_ms, record.revision), (Some(7), revision));
        assert_eq!(after(&[Event::Dispatch, Event::Restart]).times.listened_until_ms, Some(1));
        assert_eq!(after(&[Event::Dispatch, booked(), Event::NotHeardAnyMore]).times.listened_until_ms, None);
    }

    #[test]
    fn of_what_was_never_sent_a_restart_finds_no_record() {
        assert_eq!(record().apply(&Event::Restart, 1), Err(Rejection::Impossible(State::Reserved)));
    }

    #[test]
    fn an_unknown_payment_keeps_the_first_word_that_the_gateway_said_of_it() {
        let unclear = |word: &str| Event::Outcome(Outcome::Unknown(Some(GatewayError::word(word))));
        let mut record = after(&[Event::Dispatch, lost()]);
        assert_eq!(record.apply(&unclear("server_error"), 2), Ok(Effect::Changed));
        assert_eq!(record.apply(&unclear("error_exec"), 3), Ok(Effect::Unchanged));
        assert_eq!(record.gateway_error(), Some(&GatewayError::word("server_error")));
    }

    #[test]
    fn how_long_a_shortened_reply_was_is_told_with_that_reply_and_with_no_other() {
        let reply = format!(r#"{{"Items":1,"text":"{}"}}"#, "x".repeat(crate::journal::kept::MAX_REPLY));
        let long = Event::Outcome(Outcome::Booked(body(&reply)));
        let mut record = after(&[Event::Dispatch, long.clone()]);
        assert_eq!(record.reply_bytes, Some(reply.len() as u64));
        assert_eq!(record.apply(&booked(), 2), Ok(Effect::Unchanged));
        assert_eq!(record.reply_bytes, Some(reply.len() as u64));
        assert_eq!(after(&[Event::Dispatch, booked(), long]).reply_bytes, None);
    }

    #[test]
    fn a_word_that_proves_nothing_frees_no_key() {
        let record = after(&[Event::Dispatch, refused("server_error")]);
        assert_eq!(record.state(), State::Unknown);
        assert_eq!(record.gateway_error(), Some(&GatewayError::word("server_error")));
    }

    #[test]
    fn settling_applies_to_the_unknown_at_the_revision_seen_and_to_nothing_else() {
        let mut record = after(&[Event::Dispatch, lost()]);
        let seen = record.revision;
        assert_eq!(record.apply(&found(1..2, 0), 1), Ok(Effect::Changed));
        assert_eq!(record.apply(&settle(seen, Finding::Booked), 2), Err(Rejection::Stale(record.revision)));
        assert_eq!(record.apply(&settle(record.revision, Finding::Booked), 2), Ok(Effect::Changed));
        assert_eq!(
            record.apply(&settle(record.revision, Finding::Booked), 3),
            Err(Rejection::NotUnknown(State::Settled))
        );
    }

    #[test]
    fn settled_as_not_booked_frees_the_key_and_as_booked_does_not() {
        for (finding, answer) in [(Finding::NotBooked, Answer::Free), (Finding::Booked, Answer::Replay)] {
            let mut record = after(&[Event::Dispatch, lost()]);
            record.apply(&settle(record.revision, finding), 2).unwrap();
            assert_eq!(record.answer(&record.fingerprint), answer);
        }
    }

    #[test]
    fn a_frame_that_contradicts_a_settlement_is_noted_and_changes_nothing() {
        let mut record = after(&[Event::Dispatch, lost()]);
        record.apply(&settle(record.revision, Finding::NotBooked), 2).unwrap();
        let before = record.clone();
        assert_eq!(record.apply(&booked(), 3), Ok(Effect::Contradicted));
        assert_eq!(record.standing, before.standing);
        assert_eq!(record.contradictions.len(), 1);
        assert!(record.revision > before.revision);
        assert_eq!(record.apply(&refused("getlicense"), 4), Ok(Effect::Unchanged), "it agrees");
    }

    #[test]
    fn a_frame_that_agrees_with_a_settlement_is_no_contradiction() {
        let mut record = after(&[Event::Dispatch, lost()]);
        record.apply(&settle(record.revision, Finding::Booked), 2).unwrap();
        assert_eq!(record.apply(&booked(), 3), Ok(Effect::Unchanged));
        assert_eq!(record.apply(&refused("getlicense"), 4), Ok(Effect::Contradicted));
    }

    #[test]
    fn a_flood_of_contradictions_is_reported_and_bounded() {
        let mut record = after(&[Event::Dispatch, booked()]);
        for _ in 0..100 {
            assert_eq!(record.apply(&refused("getlicense"), 3), Ok(Effect::Contradicted));
        }
        assert_eq!(record.contradictions.len(), MAX_CONTRADICTIONS);
    }

    #[test]
    fn evidence_is_kept_once_and_bounded() {
        let mut record = after(&[Event::Dispatch, lost()]);
        let many = i64::try_from(MAX_CANDIDATES).unwrap() + 9;
        assert_eq!(record.apply(&found(0..many, 0), 2), Ok(Effect::Changed));
        assert_eq!(record.apply(&found(0..many, 0), 2), Ok(Effect::Noted));
        assert_eq!((record.evidence.len(), record.search.unwrap().complete), (MAX_CANDIDATES, false));
    }

    #[test]
    fn looking_again_voids_no_decision_unless_something_new_is_found() {
        let mut record = after(&[Event::Dispatch, lost()]);
        let seen = record.revision;
        assert_eq!(record.apply(&found(0..0, 0), 7), Ok(Effect::Noted));
        assert_eq!((record.revision, record.search.map(|search| (search.looks, search.last_ms))), (seen, Some((1, 7))));
        record.apply(&found(1..2, 0), 8).unwrap();
        let seen = record.revision;
        assert_eq!(record.apply(&found(1..2, 0), 9), Ok(Effect::Noted));
        assert_eq!(record.search.unwrap().looks, 3);
        assert_eq!(record.apply(&settle(seen, Finding::NotBooked), 10), Ok(Effect::Changed));
    }

    #[test]
    fn what_could_explain_a_transaction_never_becomes_less_and_more_of_it_is_news() {
        let mut record = after(&[Event::Dispatch, lost(), found(1..2, 1)]);
        let seen = record.revision;
        assert_eq!(record.apply(&found(1..2, 0), 9), Ok(Effect::Noted));
        assert_eq!((record.evidence[0].other_payments, record.revision), (1, seen));
        assert_eq!(record.apply(&found(1..2, 2), 9), Ok(Effect::Changed));
        assert_eq!(record.evidence[0].other_payments, 2);
        assert_eq!(record.apply(&settle(seen, Finding::Booked), 10), Err(Rejection::Stale(record.revision)));
    }

    #[test]
    fn whether_a_search_was_complete_is_news_where_an_earlier_one_said_otherwise() {
        let look = |complete| Event::Evidence(Lookup { candidates: vec![], complete });
        let mut record = after(&[Event::Dispatch, lost()]);
        for (complete, effect) in
            [(true, Effect::Noted), (true, Effect::Noted), (false, Effect::Changed), (true, Effect::Changed)]
        {
            assert_eq!(record.apply(&look(complete), 9), Ok(effect), "{complete}");
            assert_eq!(record.search.unwrap().complete, complete);
        }
    }

    #[test]
    fn evidence_is_only_for_what_is_unknown() {
        let mut record = after(&[Event::Dispatch]);
        assert_eq!(record.apply(&found(1..2, 0), 2), Err(Rejection::Impossible(State::Dispatching)));
        record.apply(&booked(), 2).unwrap();
        let before = record.clone();
        assert_eq!(record.apply(&found(1..2, 0), 3), Ok(Effect::Unchanged));
        assert_eq!(record, before);
    }

    #[test]
    fn another_sale_under_a_used_key_is_told_apart_and_under_a_free_key_is_not() {
        let other = Sale { pos_id: 9, payment_method: "1".into(), products: vec![] }.fingerprint();
        for events in [vec![], vec![Event::Dispatch], vec![Event::Dispatch, booked()], vec![Event::Dispatch, lost()]] {
            assert_eq!(after(&events).answer(&other), Answer::Reused, "{events:?}");
        }
        assert_eq!(after(&[Event::Dispatch, refused("getlicense")]).answer(&other), Answer::Free);
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Dispatch),
            Just(Event::Restart),
            Just(booked()),
            Just(lost()),
            prop_oneof!["invalid_password", "server_error", "whatever"].prop_map(|word| refused(&word)),
            Just(Event::Outcome(Outcome::Released(Release::NeverWritten))),
            (0..6u64, any::<bool>()).prop_map(|(revision, booked)| settle(
                revision,
                if booked { Finding::Booked } else { Finding::NotBooked }
            )),
            (0..3i64, 0..3u32).prop_map(|(id, others)| found(id..id + 1, others)),
            any::<bool>().prop_map(|key_used_again| late(reply(), key_used_again)),
            any::<bool>().prop_map(|key_used_again| late(Outcome::Unknown(None), key_used_again)),
            Just(Event::NotHeardAnyMore),
        ]
    }

    /// The transitions at the top of this file, and no others.
    fn is_an_arrow(from: State, to: State) -> bool {
        use State::{Booked, Dispatching, Released, Reserved, Settled, Unknown};
        from == to
            || matches!(
                (from, to),
                (Reserved, Dispatching)
                    | (Dispatching, Booked | Released | Unknown)
                    | (Unknown, Booked | Released | Settled)
                    | (Released, Booked)
            )
    }

    proptest! {
        #[test]
        fn whatever_happens_only_lawful_steps_are_taken(events in prop::collection::vec(events(), 0..12)) {
            let mut record = record();
            for event in events {
                let before = record.clone();
                let effect = record.apply(&event, 5);
                prop_assert!(is_an_arrow(before.state(), record.state()), "{event:?} on {before:?}");
                let takes_back = matches!(event, Event::Late { key_used_again: false, .. });
                prop_assert!(!before.frees_its_key() || record.frees_its_key() || takes_back, "freed, then taken back");
                match effect {
                    Ok(Effect::Changed) => prop_assert_eq!(record.revision, before.revision + 1),
                    Ok(Effect::Contradicted) => prop_assert_eq!(&record.standing, &before.standing),
                    Ok(Effect::Noted) => {
                        prop_assert_eq!((&record.standing, record.revision), (&before.standing, before.revision));
                    }
                    Ok(Effect::Unchanged) | Err(_) => prop_assert_eq!(&record, &before),
                }
                prop_assert_eq!(record.times.ended_ms.is_some(), record.state().has_ended());
            }
        }

        #[test]
        fn a_record_survives_its_json_byte_for_byte(events in prop::collection::vec(events(), 0..12)) {
            let mut record = record();
            for event in events {
                let _ = record.apply(&event, 5);
            }
            let json = serde_json::to_string(&record).unwrap();
            let read: Record = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read, &record);
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
    }
}
