//! Where each row of a list is in a reply, by its `ID`. PURE.
//!
//! A list is a reply's member whose value is an array of objects, such as `Products`. The index holds places in the text and
//! no text of its own, so it takes a small part of what the reply takes.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::number;
use super::parameters::Parameters;

/// The longest reply that is indexed: a few milliseconds' work, for ten thousand products.
const LONGEST: usize = 1 << 20;

/// The places of the rows of one reply, in the order of their ids.
#[derive(Debug, Default)]
pub struct Rows(Box<[(i64, Range<u32>)]>);

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(rename = "ID", borrow)]
    id: &'a RawValue,
}

impl Rows {
    /// Indexes `list` of a reply. Rows without an id are left out, and all of a reply that is not as documented, or too long.
    #[must_use]
    pub fn of(reply: &str, list: &str) -> Self {
        Self::read(reply, list).unwrap_or_default()
    }

    fn read(reply: &str, list: &str) -> Option<Self> {
        if reply.len() > LONGEST {
            return None;
        }
        let mut rows = Vec::new();
        let members: HashMap<String, &RawValue> = serde_json::from_str(reply).ok()?;
        for row in serde_json::from_str::<Vec<&RawValue>>(members.get(list)?.get()).ok()? {
            let Some(id) = serde_json::from_str::<Named<'_>>(row.get()).ok().and_then(|named| number::whole(named.id))
            else {
                continue;
            };
            let start = u32::try_from(row.get().as_ptr().addr().checked_sub(reply.as_ptr().addr())?).ok()?;
            rows.push((id, start..start.checked_add(u32::try_from(row.get().len()).ok()?)?));
        }
        rows.sort_unstable_by_key(|(id, _)| *id);
        Some(Self(rows.into()))
    }

    /// The row of this id in the reply that was indexed; none where several have it, for which is meant is not known.
    #[must_use]
    pub fn find(&self, reply: &str, id: i64) -> Option<Parameters> {
        let first = self.0.partition_point(|(known, _)| *known < id);
        let mut found = self.0.get(first..)?.iter().take_while(|(known, _)| *known == id);
        let (Some((_, place)), None) = (found.next(), found.next()) else { return None };
        let place = usize::try_from(place.start).ok()?..usize::try_from(place.end).ok()?;
        Parameters::parse(reply.get(place)?.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_is_found_by_its_id_as_it_is_spelled() {
        let reply = r#" {"Count":2, "Products" : [ {"ID":"7","Price":2.50} ,{"Price":1e400, "ID":3.0}, {"ID":9}, {"ID":9}, 5, {}]}"#;
        let rows = Rows::of(reply, "Products");
        let price = |id| rows.find(reply, id).and_then(|row| row.get("Price").map(|price| price.get().to_owned()));
        assert_eq!((price(7).as_deref(), price(3).as_deref()), (Some("2.50"), Some("1e400")));
        assert!(rows.find(reply, 9).is_none(), "two rows have it");
        assert!(rows.find(reply, 1).is_none());
    }

    #[test]
    fn of_a_reply_that_is_not_as_documented_nothing_is_found() {
        for reply in ["", "[]", "{}", r#"{"Products":7}"#, r#"{"Products":{"ID":7}}"#, r#"{"products":[{"ID":7}]}"#] {
            assert!(Rows::of(reply, "Products").find(reply, 7).is_none(), "{reply}");
        }
        let long = format!(r#"{{"Products":[{{"ID":7}}],"x":"{}"}}"#, "x".repeat(LONGEST));
        assert!(Rows::of(&long, "Products").find(&long, 7).is_none());
        assert!(Rows::of(&long, "Products").find("{}", 7).is_none());
    }

    proptest! {
        #[test]
        fn every_row_with_an_id_of_its_own_is_found(ids in prop::collection::btree_set(any::<i64>(), 0..30)) {
            let rows: Vec<_> = ids.iter().rev().map(|id| format!(r#"{{"n":"é","ID":{id}}}"#)).collect();
            let reply = format!(r#"{{"POS":[{}]}}"#, rows.join(", "));
            let index = Rows::of(&reply, "POS");
            for id in ids {
                let row = index.find(&reply, id).expect("it is there");
                prop_assert_eq!(row.get("ID").unwrap().get(), id.to_string());
            }
        }
    }
}
