//! How a record is spelled on disk: the one place that knows its bytes.
//!
//! JSON, so that a field a later release adds can be left out by an earlier record, and so that a person can read what
//! a program no longer can.
//!
//! What a later release may do to a record without another [`FORMAT`](super::tables::FORMAT): add a field that may be absent,
//! and that nothing is decided by. An earlier release reads the record without it, and writes it back without it. Any other
//! change makes the record unreadable there, which keeps its key taken.

use serde::Deserialize;

use super::error::StoreError;
use crate::journal::id::RecordId;
use crate::journal::record::{Record, Times};
use crate::journal::sale::{Key, Sale};

/// The bytes to store under the record's id.
pub(crate) fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Damaged { id: record.id, reason: error.to_string() })
}

/// The record that was stored under `id`, or why it cannot be read.
pub(crate) fn decode(id: RecordId, stored: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(stored).map_err(|error| error.to_string())?;
    if record.id == id { Ok(record) } else { Err("the record of another payment is in its place".into()) }
}

/// What can be read of a record that cannot be read whole.
#[derive(Debug, Deserialize)]
pub(crate) struct Remains {
    pub(crate) sale: Sale,
    pub(crate) previous: Option<RecordId>,
    pub(crate) times: Times,
    pub(crate) key: Key,
}

/// Parts that every release spells alike, of a record that a later one wrote.
pub(crate) fn remains(stored: &[u8]) -> Option<Remains> {
    serde_json::from_slice(stored).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::SaleDetails;
    use crate::journal::sale_details::ProductDetails;

    /// As release 0.1 wrote it: nothing may change how it is read.
    const OF_FIRST_RELEASE: &str = r#"{"id":"01a22637-a386-7f9d-b817-f4d892fc5fca","key":{"instance":"demo","caller":"shop",
        "idempotency_key":"k1"},"sale":{"pos_id":1,"payment_method":"1","products":[[1,2]]},
        "fingerprint":"FINGERPRINT","standing":{"booked":{"Items":1.0}},
        "times":{"created_ms":1,"dispatched_ms":2,"unknown_ms":null,"ended_ms":3},"revision":1,"previous":null,
        "newest_transaction_before":null,"evidence":[],"contradictions":[]}"#;

    fn of_first_release() -> (RecordId, String) {
        let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 2)] };
        let id = "01a22637-a386-7f9d-b817-f4d892fc5fca".parse().unwrap();
        (id, OF_FIRST_RELEASE.replace("FINGERPRINT", &sale.fingerprint().to_string()))
    }

    /// The record with `members` more, before its other ones.
    fn with(members: &str) -> (RecordId, String) {
        let (id, text) = of_first_release();
        (id, text.replacen('{', &format!("{{{members},"), 1))
    }

    fn details() -> impl Strategy<Value = SaleDetails> {
        let text = || prop::option::of(any::<String>());
        let product = (any::<i64>(), text(), text()).prop_map(|(id, name, price)| ProductDetails { id, name, price });
        let products = prop::collection::vec(product, 0..4);
        (text(), text(), products, text(), any::<i64>(), any::<bool>()).prop_map(
            |(point_of_sale, payment_method, products, sum, as_of_ms, outdated)| SaleDetails {
                point_of_sale,
                payment_method,
                products,
                sum,
                as_of_ms,
                outdated,
            },
        )
    }

    #[test]
    fn a_record_of_the_first_release_is_read_and_written_as_it_was() {
        let (id, text) = of_first_release();
        let record = decode(id, text.as_bytes()).unwrap();
        assert_eq!((record.fingerprint, record.details.clone()), (record.sale.fingerprint(), None));
        let written = String::from_utf8(encode(&record).unwrap()).unwrap();
        assert_eq!(written, text.replace("\n        ", ""));
    }

    #[test]
    fn what_a_later_release_adds_is_left_out_and_details_that_it_spells_otherwise_too() {
        let (id, text) = of_first_release();
        let plain = decode(id, text.as_bytes()).unwrap();
        for members in [
            r#""later":{"x":[1.50]}"#,
            r#""details":7"#,
            r#""details":null"#,
            r#""details":{"products":[{"id":"seven"}]}"#,
            r#""details":{"sum":9.00}"#,
        ] {
            let (id, text) = with(members);
            assert_eq!(decode(id, text.as_bytes()).as_ref(), Ok(&plain), "{members}");
        }
        let (id, text) = with(r#""details":{"sum":"9.00","later":1}"#);
        let record = decode(id, text.as_bytes()).unwrap();
        assert_eq!(record.details.unwrap().sum.as_deref(), Some("9.00"));
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(details in prop::option::of(details())) {
            let (id, text) = of_first_release();
            let mut record = decode(id, text.as_bytes()).unwrap();
            record.details = details.map(Box::new);
            prop_assert_eq!(decode(id, &encode(&record).unwrap()), Ok(record));
        }
    }
}
