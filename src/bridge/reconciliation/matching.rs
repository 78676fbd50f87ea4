//! Which of the gateway's transactions might be a payment whose outcome is not known. PURE.
//!
//! The gateway books each product of a sale as a transaction of its own, without a word about the command that made it.
//! So a transaction may be a payment if it is newer than what was there before the send and agrees with a line of the
//! sale in point of sale, payment method, product and amount. The same is true of whatever another till sold
//! meanwhile, and of other payments of this bridge, which are counted: nothing here decides anything.
//!
//! Transactions stay the text that they are. Ids and amounts are read as whole numbers in whatever spelling, prices not
//! at all.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::journal::record::Standing;
use crate::journal::{Candidate, Finding, Lookup, Record, RecordId, Release, Sale};
use crate::protocol::{Body, whole};

/// How long before a payment another one may have been begun and still be booked after it. Far more than waiting for
/// points, a link and a reply take together; what is open for longer is listed by its state.
const LONGEST_UNDER_WAY_MS: i64 = 10 * 60 * 1000;

/// A transaction of a reply to `listtransactions`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Transaction {
    id: i64,
    pos_id: i64,
    payment_method: i64,
    product_id: i64,
    amount: u64,
    text: Body,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(rename = "Transactions", borrow)]
    transactions: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(rename = "ID", borrow)]
    id: &'a RawValue,
    #[serde(rename = "PointOfSaleID", borrow)]
    pos_id: &'a RawValue,
    #[serde(rename = "Payment_ID", borrow)]
    payment_method: &'a RawValue,
    #[serde(rename = "Product_ID", borrow)]
    product_id: &'a RawValue,
    #[serde(rename = "AmountProduct", borrow)]
    amount: &'a RawValue,
}

impl Transaction {
    /// None where it is not as documented: what cannot be read matches nothing.
    fn read(text: &RawValue) -> Option<Self> {
        let row: Row<'_> = serde_json::from_str(text.get()).ok()?;
        Some(Self {
            id: whole(row.id)?,
            pos_id: whole(row.pos_id)?,
            payment_method: whole(row.payment_method)?,
            product_id: whole(row.product_id)?,
            // A negative amount is something taken back.
            amount: whole(row.amount)?.try_into().ok()?,
            text: Body::from(text),
        })
    }

    /// Whether it could be a line of this sale.
    fn is_a_line_of(&self, sale: &Sale) -> bool {
        sale.pos_id == self.pos_id
            && sale.payment_method.parse() == Ok(self.payment_method)
            && sale.products.contains(&(self.product_id, self.amount))
    }
}

/// A payment that may have been booked, as far as it matters here.
#[derive(Debug, Clone)]
struct Other {
    id: RecordId,
    sale: Sale,
    ended_ms: Option<i64>,
    newest_transaction_before: Option<i64>,
}

impl Other {
    fn of(record: Record) -> Option<Self> {
        let booked = match &record.standing {
            Standing::Reserved | Standing::Released(Release::NeverWritten) => false,
            // The gateway may have booked what it refused.
            Standing::Released(Release::Refused(_))
            | Standing::Dispatching
            | Standing::Booked(_)
            | Standing::Unknown(_) => true,
            Standing::Settled(settlement) => settlement.outcome == Finding::Booked,
        };
        let Record { id, sale, times, newest_transaction_before, .. } = record;
        booked.then_some(Self { id, sale, ended_ms: times.ended_ms, newest_transaction_before })
    }

    /// Whether it may have made `transaction`, where that was made after `record` was sent. Its end is compared by the
    /// wall clock, as people read it: a step of it can count one payment too many or too few, and nothing is decided by
    /// that.
    fn explains(&self, transaction: &Transaction, record: &Record) -> bool {
        let since = if record.newest_transaction_before.is_some() { record.times.dispatched_ms } else { None };
        let in_time = self.ended_ms.is_none_or(|ended| since.is_none_or(|since| ended >= since));
        // What was there before it was sent is not its work.
        let is_later = self.newest_transaction_before.is_none_or(|before| transaction.id > before);
        self.id != record.id && in_time && is_later && transaction.is_a_line_of(&self.sale)
    }
}

/// The payments of the bridge that may explain what a look finds, gathered newest first, page by page.
#[derive(Debug, Default)]
pub(super) struct Others {
    payments: Vec<Other>,
    /// The oldest payment up to which all are known; none where nothing was searched.
    back_to: Option<(RecordId, i64)>,
    /// There are no older ones.
    are_all: bool,
    /// One may explain what is found, and its record cannot be read.
    has_unread: bool,
}

impl Others {
    /// Adds a page of payments, newest first, each older than those before; of them, those at `pos_id` matter.
    pub(super) fn page(&mut self, page: Vec<Record>, pos_id: i64) {
        if let Some(oldest) = page.last() {
            self.back_to = Some((oldest.id, oldest.times.created_ms));
        }
        self.payments.extend(page.into_iter().filter(|record| record.sale.pos_id == pos_id).filter_map(Other::of));
    }

    /// There was no other page.
    pub(super) fn ended(&mut self) {
        self.are_all = true;
    }

    /// Adds payments that are open for however long, once each.
    pub(super) fn open(&mut self, open: Vec<Record>, pos_id: i64) {
        let known: HashSet<RecordId> = self.payments.iter().map(|other| other.id).collect();
        let new = open.into_iter().filter(|record| record.sale.pos_id == pos_id && !known.contains(&record.id));
        self.payments.extend(new.filter_map(Other::of));
    }

    /// The record of one of them cannot be read.
    pub(super) fn not_all_read(&mut self) {
        self.has_unread = true;
    }

    /// Whether every payment is known that may have been under way when `record` was sent or later.
    pub(super) fn reach_back_to(&self, record: &Record) -> bool {
        let begun_ms = record.times.created_ms.saturating_sub(LONGEST_UNDER_WAY_MS);
        self.are_all || self.back_to.is_some_and(|(id, created_ms)| id < record.id && created_ms < begun_ms)
    }

    fn that_explain(&self, transaction: &Transaction, record: &Record) -> u32 {
        let count = self.payments.iter().filter(|other| other.explains(transaction, record)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

fn rows(reply: &Body) -> Option<Vec<&RawValue>> {
    serde_json::from_str::<Reply<'_>>(reply.as_str()).ok().map(|reply| reply.transactions)
}

/// The largest id in a reply to `listtransactions`: whatever is booked later has a larger one.
pub(super) fn newest(reply: &Body) -> Option<i64> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(rename = "ID", borrow)]
        id: &'a RawValue,
    }
    let id = |row: &RawValue| serde_json::from_str::<Named<'_>>(row.get()).ok().and_then(|named| whole(named.id));
    rows(reply)?.into_iter().filter_map(id).max()
}

/// What a reply of at most `limit` transactions tells about a payment. `others` are payments of its instance, this one
/// possibly among them.
///
/// Where it is not known which transactions were there before the send, all that match are told: their own times then
/// have to say which of them can be meant.
pub(super) fn look(record: &Record, reply: &Body, limit: usize, others: &Others) -> Option<Lookup> {
    let rows = rows(reply)?;
    let (all, before) = (rows.len(), record.newest_transaction_before);
    let read: Vec<_> = rows.into_iter().filter_map(Transaction::read).collect();
    let is_new = |transaction: &&Transaction| before.is_none_or(|before| transaction.id > before);
    let reached_back = all < limit || read.iter().any(|transaction| !is_new(&transaction));
    let candidates = read
        .iter()
        .filter(is_new)
        .filter(|transaction| transaction.is_a_line_of(&record.sale))
        .map(|transaction| Candidate {
            transaction_id: transaction.id,
            transaction: transaction.text.clone(),
            other_payments: others.that_explain(transaction, record),
        })
        .collect();
    let complete = reached_back && read.len() == all && others.reach_back_to(record) && !others.has_unread;
    Some(Lookup { candidates, complete })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::state_machine::Event;
    use crate::journal::{Key, Outcome, Release, Verdict};

    fn body(json: &str) -> Body {
        Body::from(serde_json::from_str::<&RawValue>(json).unwrap())
    }

    fn reply(rows: &[String]) -> Body {
        body(&format!(r#"{{"Count":{},"Transactions":[{}]}}"#, rows.len(), rows.join(",")))
    }

    /// As the gateway spells it.
    fn row(id: i64, pos: i64, method: i64, product: i64, amount: i64) -> String {
        format!(
            r#"{{"ID":{id},"Payment_ID":{method},"PointOfSaleID":{pos},"Product_ID":{product},"AmountProduct":{amount},"AmountMoney":9.10,"Note":null}}"#
        )
    }

    fn record(products: &[(i64, u64)], before: Option<i64>, outcome: Outcome, at_ms: i64) -> Record {
        let key = Key { instance: "demo".into(), caller: "shop".into(), idempotency_key: "k".into() };
        let sale = Sale { pos_id: 1, payment_method: "2".into(), products: products.to_vec() };
        let mut record = Record::reserved(RecordId::fresh(), key, sale, at_ms);
        record.newest_transaction_before = before;
        record.apply(&Event::Dispatch, at_ms).unwrap();
        record.apply(&Event::Outcome(outcome), at_ms + 1).unwrap();
        record
    }

    fn unknown(before: Option<i64>) -> Record {
        record(&[(7, 2), (8, 1)], before, Outcome::Unknown(None), 100)
    }

    /// The whole of a journal.
    fn all(payments: &[Record]) -> Others {
        let mut others = Others::default();
        others.page(payments.to_vec(), 1);
        others.ended();
        others
    }

    fn found(record: &Record, rows: &[String]) -> Vec<i64> {
        let look = look(record, &reply(rows), 100, &all(&[])).unwrap();
        look.candidates.iter().map(|candidate| candidate.transaction_id).collect()
    }

    #[test]
    fn only_new_transactions_that_agree_in_everything_are_clues() {
        let rows = [
            row(20, 1, 2, 7, 2),
            row(19, 1, 2, 8, 1),
            row(18, 1, 2, 7, 1),
            row(17, 1, 2, 9, 2),
            row(16, 1, 3, 7, 2),
            row(15, 4, 2, 7, 2),
            row(14, 1, 2, 7, -2),
            row(10, 1, 2, 7, 2),
        ];
        assert_eq!(found(&unknown(Some(10)), &rows), [20, 19]);
        assert_eq!(found(&unknown(None), &rows), [20, 19, 10], "with nothing known before, time has to tell");
    }

    #[test]
    fn a_clue_is_the_text_that_came() {
        let text = r#"{ "ID":"20","Payment_ID":"2","PointOfSaleID":1.0,"Product_ID":7,"AmountProduct":"2","AmountMoney":0.10000000000000000001,"new":[1e400] }"#;
        let look = look(&unknown(Some(1)), &reply(&[text.to_owned()]), 100, &all(&[])).unwrap();
        assert_eq!(look.candidates[0].transaction.as_str(), text);
    }

    #[test]
    fn a_look_is_complete_if_it_reached_back_to_before_the_send_and_everything_could_be_read() {
        let complete = |before, rows: &[String], limit| {
            look(&unknown(before), &reply(rows), limit, &all(&[])).map(|look| look.complete)
        };
        let rows = [row(12, 1, 2, 7, 2), row(11, 1, 2, 7, 2)];
        assert_eq!(complete(Some(10), &rows, 2), Some(false));
        assert_eq!(complete(Some(11), &rows, 2), Some(true));
        assert_eq!(complete(Some(10), &rows, 3), Some(true), "there are no more");
        assert_eq!(complete(None, &rows, 2), Some(false));
        assert_eq!(complete(Some(11), &[rows[0].clone(), rows[1].clone(), r#"{"ID":9}"#.into()], 9), Some(false));
        assert!(look(&unknown(None), &body(r#"{"Transactions":7}"#), 9, &all(&[])).is_none());
    }

    #[test]
    fn other_payments_count_that_may_have_sold_the_same_since() {
        let sold = |products: &[(i64, u64)], outcome, at_ms| record(products, None, outcome, at_ms);
        let reply_of_sale = || Outcome::Booked(body("{}"));
        let ours = unknown(Some(10));
        let others = [
            ours.clone(),
            sold(&[(7, 2)], reply_of_sale(), 100),
            sold(&[(7, 2)], Outcome::Unknown(None), 5),
            sold(&[(7, 2)], reply_of_sale(), 5),
            sold(&[(7, 2)], Outcome::Released(Release::NeverWritten), 100),
            sold(&[(8, 1)], reply_of_sale(), 100),
        ];
        let count = |record: &Record, others: &[Record]| {
            look(record, &reply(&[row(20, 1, 2, 7, 2)]), 100, &all(others)).unwrap().candidates[0].other_payments
        };
        assert_eq!(count(&ours, &others), 2);
        assert_eq!(count(&unknown(None), &others[1..]), 3, "with nothing known before, what ended before counts too");
        let mut later = sold(&[(7, 2)], reply_of_sale(), 100);
        for (newest, may_have) in [(19, 1), (20, 0)] {
            later.newest_transaction_before = Some(newest);
            assert_eq!(count(&ours, &[later.clone()]), may_have, "sent when {newest} was there");
        }
    }

    #[test]
    fn of_payments_that_a_person_settled_those_explain_that_were_booked() {
        for (outcome, explain) in [(Finding::Booked, 1), (Finding::NotBooked, 0)] {
            let mut settled = record(&[(7, 2)], None, Outcome::Unknown(None), 100);
            let verdict = Verdict { outcome, reason: "counted the till".into(), by: "ops".into() };
            settled.apply(&Event::Settle { revision: settled.revision, verdict }, 101).unwrap();
            let look = look(&unknown(Some(10)), &reply(&[row(20, 1, 2, 7, 2)]), 100, &all(&[settled])).unwrap();
            assert_eq!(look.candidates[0].other_payments, explain, "{outcome:?}");
        }
    }

    #[test]
    fn a_look_is_complete_only_if_every_payment_was_compared_that_may_have_been_under_way() {
        let ours = record(&[(7, 2)], Some(10), Outcome::Unknown(None), LONGEST_UNDER_WAY_MS + 100);
        let look = |others: &Others| look(&ours, &reply(&[row(20, 1, 2, 7, 2)]), 100, others).unwrap();
        let payment = |at_ms, id| Record { id, ..record(&[(7, 2)], None, Outcome::Unknown(None), at_ms) };
        let earlier = |at_ms| payment(at_ms, RecordId::from(ours.id.as_u128() - 1));
        let later = |at_ms| payment(at_ms, RecordId::fresh());
        let mut others = Others::default();
        assert!(!look(&others).complete);
        for (page, complete) in [(later(99), false), (ours.clone(), false), (earlier(100), false), (earlier(99), true)]
        {
            others.page(vec![page], 1);
            assert_eq!(look(&others).complete, complete);
        }
        assert_eq!(look(&others).candidates[0].other_payments, 3);
        others.open(vec![earlier(99), later(5), later(6)], 1);
        assert_eq!(look(&others).candidates[0].other_payments, 5, "each once");
        others.not_all_read();
        assert!(!look(&others).complete, "one may explain what is found");
        let (mut none, mut elsewhere) = (Others::default(), Others::default());
        none.ended();
        assert!(look(&none).complete);
        elsewhere.page(vec![later(200)], 2);
        assert_eq!(look(&elsewhere).candidates[0].other_payments, 0);
    }

    #[test]
    fn the_newest_is_the_largest_id_wherever_it_stands() {
        assert_eq!(newest(&reply(&[row(5, 1, 1, 1, 1), r#"{"ID":"9"}"#.into(), row(7, 1, 1, 1, 1)])), Some(9));
        for none in [r#"{"Transactions":[]}"#, "{}", "[]", r#"{"Transactions":[{"ID":1.5},7,null]}"#] {
            assert_eq!(newest(&body(none)), None, "{none}");
        }
    }

    fn rows_strategy() -> impl Strategy<Value = Vec<String>> {
        // Few values, so that matches are common.
        let one = (0..40i64, 1..3i64, 1..4i64, 6..10i64, -1..4i64);
        prop::collection::vec(
            one.prop_map(|(id, pos, method, product, amount)| row(id, pos, method, product, amount)),
            0..30,
        )
    }

    proptest! {
        #[test]
        fn every_clue_is_a_new_row_that_agrees_and_no_such_row_is_missed(
            rows in rows_strategy(),
            before in prop::option::of(0..40i64),
        ) {
            let record = unknown(before);
            let agrees = |text: &String| {
                let row: serde_json::Value = serde_json::from_str(text).unwrap();
                let number = |name: &str| row[name].as_i64().unwrap();
                before.is_none_or(|before| number("ID") > before)
                    && number("PointOfSaleID") == 1
                    && number("Payment_ID") == 2
                    && [(7, 2), (8, 1)].contains(&(number("Product_ID"), number("AmountProduct")))
            };
            let expected: Vec<&String> = rows.iter().filter(|row| agrees(row)).collect();
            let look = look(&record, &reply(&rows), 100, &all(&[])).unwrap();
            let candidates: Vec<&str> = look.candidates.iter().map(|candidate| candidate.transaction.as_str()).collect();
            prop_assert_eq!(candidates, expected);
        }

        #[test]
        fn no_reply_panics_a_look(text in "\\PC{0,80}", id in "[-0-9.e\"]{0,20}") {
            for json in [text, format!(r#"{{"Transactions":[{{"ID":{id}}}]}}"#)] {
                if let Ok(raw) = serde_json::from_str::<&RawValue>(&json) {
                    let _ = newest(&Body::from(raw));
                    let _ = look(&unknown(None), &Body::from(raw), 1, &all(&[]));
                }
            }
        }
    }
}
