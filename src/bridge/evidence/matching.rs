//! Which of the gateway's transactions might be a payment whose outcome is not known. PURE.
//!
//! The gateway books each product of a sale as a transaction of its own, without a word about the command that made it.
//! So a transaction may be a payment if it is newer than what was there before the send and agrees with a line of the
//! sale in point of sale, payment method, product and amount. The same is true of whatever another till sold
//! meanwhile, and of other payments of this bridge, which are counted: nothing here decides anything.
//!
//! Transactions stay the text that they are. Ids and amounts are read as whole numbers in whatever spelling, prices not
//! at all.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::journal::record::Standing;
use crate::journal::{Clue, Finding, Look, Record};
use crate::wire::Body;

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

    /// Whether it could be a line of this payment's sale.
    fn is_a_line_of(&self, record: &Record) -> bool {
        let sale = &record.sale;
        sale.pos_id == self.pos_id
            && sale.payment_method.parse() == Ok(self.payment_method)
            && sale.products.contains(&(self.product_id, self.amount))
    }
}

/// A whole number as a number or as a string, digit by digit.
fn whole(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).trim();
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
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

/// What a reply of at most `limit` transactions tells about a payment. `others` are payments of the bridge, this one
/// possibly among them.
///
/// Where it is not known which transactions were there before the send, all that match are told: their own times then
/// have to say which of them can be meant.
pub(super) fn look(record: &Record, reply: &Body, limit: usize, others: &[Record]) -> Option<Look> {
    let rows = rows(reply)?;
    let (all, before) = (rows.len(), record.newest_transaction_before);
    let read: Vec<_> = rows.into_iter().filter_map(Transaction::read).collect();
    let is_new = |transaction: &&Transaction| before.is_none_or(|before| transaction.id > before);
    let reached_back = all < limit || read.iter().any(|transaction| !is_new(&transaction));
    let clues = read
        .iter()
        .filter(is_new)
        .filter(|transaction| transaction.is_a_line_of(record))
        .map(|transaction| {
            let explains = |other: &&Record| might_have_sold(other, record) && transaction.is_a_line_of(other);
            let other_payments = others.iter().filter(explains).count();
            Clue {
                transaction_id: transaction.id,
                transaction: transaction.text.clone(),
                other_payments: u32::try_from(other_payments).unwrap_or(u32::MAX),
            }
        })
        .collect();
    Some(Look { clues, complete: reached_back && read.len() == all })
}

/// Whether `other` may have been booked after `record` was sent. By the wall clock, as people read it: a step of it can
/// count one payment too many or too few, and nothing is decided by that.
fn might_have_sold(other: &Record, record: &Record) -> bool {
    let booked = match &other.standing {
        Standing::Reserved | Standing::Released(_) => false,
        Standing::Dispatching | Standing::Booked(_) | Standing::Unknown(_) => true,
        Standing::Settled(settlement) => settlement.outcome == Finding::Booked,
    };
    let since = if record.newest_transaction_before.is_some() { record.times.dispatched_ms } else { None };
    let in_time = other.times.ended_ms.is_none_or(|ended| since.is_none_or(|since| ended >= since));
    booked && in_time && other.id != record.id && other.key.instance == record.key.instance
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::rules::Event;
    use crate::journal::{Key, Outcome, RecordId, Release, Sale};

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

    fn found(record: &Record, rows: &[String]) -> Vec<i64> {
        let look = look(record, &reply(rows), 100, &[]).unwrap();
        look.clues.iter().map(|clue| clue.transaction_id).collect()
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
        let look = look(&unknown(Some(1)), &reply(&[text.to_owned()]), 100, &[]).unwrap();
        assert_eq!(look.clues[0].transaction.as_str(), text);
    }

    #[test]
    fn a_look_is_complete_if_it_reached_back_to_before_the_send_and_everything_could_be_read() {
        let complete =
            |before, rows: &[String], limit| look(&unknown(before), &reply(rows), limit, &[]).map(|look| look.complete);
        let rows = [row(12, 1, 2, 7, 2), row(11, 1, 2, 7, 2)];
        assert_eq!(complete(Some(10), &rows, 2), Some(false));
        assert_eq!(complete(Some(11), &rows, 2), Some(true));
        assert_eq!(complete(Some(10), &rows, 3), Some(true), "there are no more");
        assert_eq!(complete(None, &rows, 2), Some(false));
        assert_eq!(complete(Some(11), &[rows[0].clone(), rows[1].clone(), r#"{"ID":9}"#.into()], 9), Some(false));
        assert!(look(&unknown(None), &body(r#"{"Transactions":7}"#), 9, &[]).is_none());
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
            look(record, &reply(&[row(20, 1, 2, 7, 2)]), 100, others).unwrap().clues[0].other_payments
        };
        assert_eq!(count(&ours, &others), 2);
        assert_eq!(count(&unknown(None), &others[1..]), 3, "with nothing known before, what ended before counts too");
        let mut foreign = sold(&[(7, 2)], reply_of_sale(), 100);
        foreign.key.instance = "other".into();
        assert_eq!(count(&ours, &[foreign]), 0);
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
            let look = look(&record, &reply(&rows), 100, &[]).unwrap();
            let clues: Vec<&str> = look.clues.iter().map(|clue| clue.transaction.as_str()).collect();
            prop_assert_eq!(clues, expected);
        }

        #[test]
        fn no_reply_panics_a_look(text in "\\PC{0,80}", id in "[-0-9.e\"]{0,20}") {
            for json in [text, format!(r#"{{"Transactions":[{{"ID":{id}}}]}}"#)] {
                if let Ok(raw) = serde_json::from_str::<&RawValue>(&json) {
                    let _ = newest(&Body::from(raw));
                    let _ = look(&unknown(None), &Body::from(raw), 1, &[]);
                }
            }
        }
    }
}
