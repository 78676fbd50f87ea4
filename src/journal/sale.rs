//! What is sold, and how two requests are known to ask for the same sale. PURE.
//!
//! A caller repeats a payment with the same key and, often, another spelling: products in another order, an id as a
//! string, a till that lists every product with amount 0. The fingerprint covers what is sold and nothing else, so
//! that such a repeat is a repeat, and a different sale under a used key is told apart for certain. It never covers
//! the password of a point of sale or a caller's token: neither belongs in a journal, not even hashed.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Names the encoding under the hash, so that a later encoding can never be mistaken for this one.
const ENCODING: &[u8] = b"concertpos-bridge/sale/1";

/// Under what a payment is kept: the caller's own key, within the instance and the caller's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub instance: String,
    /// The name of the token that asks; a name outlives its tokens.
    pub caller: String,
    /// What the caller sent as `Idempotency-Key`, without quotes.
    pub idempotency_key: String,
}

/// Begins the keys that the bridge makes up for sales over the gateway's own protocol, which has none.
const OF_TILL: &str = "native-";

impl Key {
    /// A key for a sale over the gateway's own protocol, used once.
    #[must_use]
    pub fn of_till(instance: &str, caller: &str) -> Self {
        let idempotency_key = format!("{OF_TILL}{}", uuid::Uuid::now_v7());
        Self { instance: instance.to_owned(), caller: caller.to_owned(), idempotency_key }
    }

    /// Whether the key was made up by the bridge, so that no caller can repeat the sale under it.
    #[must_use]
    pub fn is_of_till(&self) -> bool {
        self.idempotency_key.starts_with(OF_TILL)
    }
}

/// A sale as the gateway would book it. Kept in the record as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    pub pos_id: i64,
    /// The payment method: its id in canonical decimal, or the gateway's text.
    pub payment_method: String,
    /// Product id and amount. Amounts of one product are the caller's to sum; an amount of 0 sells nothing.
    pub products: Vec<(i64, u64)>,
}

impl Sale {
    /// How many different products are sold.
    #[must_use]
    pub fn products_sold(&self) -> u64 {
        let sold = self.products.iter().filter(|(_, amount)| *amount > 0).map(|(id, _)| id);
        sold.collect::<std::collections::BTreeSet<_>>().len() as u64
    }

    /// The same for two sales exactly if they sell the same: order and products without an amount do not matter.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut products: Vec<_> = self.products.iter().filter(|(_, amount)| *amount > 0).collect();
        products.sort_unstable();
        // Every part has a fixed length or is preceded by it, so no two sales share an encoding.
        let mut hash = Sha256::new();
        hash.update(ENCODING);
        hash.update(self.pos_id.to_be_bytes());
        hash.update((self.payment_method.len() as u64).to_be_bytes());
        hash.update(self.payment_method.as_bytes());
        for (id, amount) in products {
            hash.update(id.to_be_bytes());
            hash.update(amount.to_be_bytes());
        }
        Fingerprint(hash.finalize().into())
    }
}

/// SHA-256 over a sale's canonical encoding; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Stands for the fingerprint of a sale that can no longer be read. No sale has it.
    pub(super) const UNKNOWN: Self = Self([0; 32]);

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// None for [`UNKNOWN`](Self::UNKNOWN).
    pub(super) fn of_bytes(bytes: [u8; 32]) -> Option<Self> {
        Some(Self(bytes)).filter(|fingerprint| *fingerprint != Self::UNKNOWN)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({self})")
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| NotAFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| NotAFingerprint)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = NotAFingerprint;

    fn try_from(text: String) -> Result<Self, NotAFingerprint> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sales() -> impl Strategy<Value = Sale> {
        // Few values, so that equal and nearly equal sales are common.
        (0..3i64, "[12]{0,2}", prop::collection::vec((-1..3i64, 0..3u64), 0..4)).prop_map(
            |(pos_id, payment_method, products)| {
                let summed: BTreeMap<_, _> = products.into_iter().collect();
                Sale { pos_id, payment_method, products: summed.into_iter().collect() }
            },
        )
    }

    fn sold(sale: &Sale) -> Vec<(i64, u64)> {
        let mut sold: Vec<_> = sale.products.iter().copied().filter(|(_, amount)| *amount > 0).collect();
        sold.sort_unstable();
        sold
    }

    proptest! {
        #[test]
        fn two_sales_share_a_fingerprint_exactly_if_they_sell_the_same(one in sales(), other in sales()) {
            let same = one.pos_id == other.pos_id
                && one.payment_method == other.payment_method
                && sold(&one) == sold(&other);
            prop_assert_eq!(one.fingerprint() == other.fingerprint(), same);
        }

        #[test]
        fn order_and_products_without_an_amount_do_not_matter(sale in sales(), extra in 10..20i64) {
            let mut respelled = sale.clone();
            respelled.products.push((extra, 0));
            respelled.products.reverse();
            prop_assert_eq!(respelled.fingerprint(), sale.fingerprint());
        }

        #[test]
        fn a_fingerprint_survives_its_text(sale in sales()) {
            let fingerprint = sale.fingerprint();
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }

    #[test]
    fn the_encoding_is_pinned_because_records_outlive_releases() {
        let sale = Sale { pos_id: 1, payment_method: "2".into(), products: vec![(7, 1), (3, 2), (9, 0)] };
        assert_eq!(sale.fingerprint().to_string(), "02574436f624e484aab4a1fc5cd93e10f1e3d682c5358bc8fbbdf58e40fc2f8e");
    }

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(NotAFingerprint), "{text}");
        }
    }
}
