//! Names and prices of a sale, as cached replies had them when it was dispatched. PURE.
//!
//! For people who look at the payment later: nothing is decided by them, and the fingerprint does not cover them. They are
//! bounded, and a record whose details cannot be read is read without them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::sale::Sale;
use crate::protocol::Decimal;

/// The longest name kept, in bytes; of a longer one its beginning.
const LONGEST_NAME: usize = 96;

/// The longest spelling of a price kept.
const LONGEST_PRICE: usize = 40;

/// Of a sale of more products no details of products are kept; a person's has some ten.
pub(super) const MOST_PRODUCTS: usize = 100;

/// Why there is no sum where no price is.
const NOT_KNOWN: &str = "There was no cached reply with the products when the payment was dispatched, or an earlier \
    release dispatched it.";

/// What was known of a sale beside its ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaleDetails {
    /// The name of the point of sale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_of_sale: Option<String>,
    /// The name of the payment method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_method: Option<String>,
    /// Of the products sold, those that were known; each once, in the order of their ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<ProductDetails>,
    /// The sum of price times amount, where every product's price was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<String>,
    /// When the oldest reply that this is from was asked for, in milliseconds since the epoch.
    pub as_of_ms: i64,
    /// Whether one of them may have been out of date: the gateway may have changed what it said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
}

/// What was known of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductDetails {
    pub id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its price as JSON, as the gateway spelled it: `4.50` or `"4.50"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
}

impl ProductDetails {
    /// From name and price as JSON; what is neither is left out.
    #[must_use]
    pub fn new(id: i64, name: Option<&RawValue>, price: Option<&RawValue>) -> Self {
        let price = price.map(RawValue::get).filter(|price| is_price(price)).map(str::to_owned);
        Self { id, name: name.and_then(kept_name), price }
    }
}

impl SaleDetails {
    /// Adds those products of `sale` that `find` knows, and their sum.
    pub fn add_products(&mut self, sale: &Sale, find: impl FnMut(i64) -> Option<ProductDetails>) {
        let Some(amounts) = amounts(sale) else { return };
        self.products = amounts.keys().copied().filter_map(find).collect();
        self.sum = self.sum_of(&amounts).map(|sum| sum.to_string());
    }

    fn sum_of(&self, amounts: &BTreeMap<i64, u64>) -> Option<Decimal> {
        amounts.iter().try_fold(Decimal::ZERO, |sum, (id, amount)| {
            let price = Decimal::of_json(self.product(*id)?.price.as_deref()?)?;
            sum.plus(price.times(*amount)?)
        })
    }

    /// What was known of a product.
    #[must_use]
    pub fn product(&self, id: i64) -> Option<&ProductDetails> {
        self.products.iter().find(|product| product.id == id)
    }
}

/// What is kept of a name given as JSON.
#[must_use]
pub fn kept_name(json: &RawValue) -> Option<String> {
    let mut name: String = serde_json::from_str(json.get()).ok()?;
    if name.len() > LONGEST_NAME {
        let fits = |end: &usize| name.is_char_boundary(*end);
        name.truncate((0..=LONGEST_NAME).rev().find(fits).unwrap_or_default());
        name.push('…');
    }
    Some(name).filter(|name| !name.is_empty())
}

/// Why the record of `sale` has no sum, in words; none where it has one.
#[must_use]
pub fn why_no_sum(sale: &Sale, details: Option<&SaleDetails>) -> Option<String> {
    let details = match details {
        Some(details) if details.sum.is_some() => return None,
        Some(details) if !details.products.is_empty() => details,
        _ if amounts(sale).is_none() => {
            return Some(format!("Prices are kept of a sale of at most {MOST_PRODUCTS} products."));
        }
        _ => return Some(NOT_KNOWN.to_owned()),
    };
    let priced = |id: &i64| details.product(*id).is_some_and(|product| product.price.is_some());
    let unpriced: Vec<_> = amounts(sale)?.into_keys().filter(|id| !priced(id)).map(|id| id.to_string()).collect();
    Some(match unpriced.as_slice() {
        [] => "It is too large.".to_owned(),
        [one] => format!("The cached reply had no price of product {one}."),
        several => format!("The cached reply had no price of products {}.", several.join(", ")),
    })
}

/// How many of each product are sold; none where there are too many products.
fn amounts(sale: &Sale) -> Option<BTreeMap<i64, u64>> {
    let mut amounts = BTreeMap::new();
    for (id, amount) in sale.products.iter().filter(|(_, amount)| *amount > 0) {
        let known: &mut u64 = amounts.entry(*id).or_default();
        *known = known.saturating_add(*amount);
    }
    Some(amounts).filter(|amounts| amounts.len() <= MOST_PRODUCTS)
}

fn is_price(json: &str) -> bool {
    json.len() <= LONGEST_PRICE && Decimal::of_json(json).is_some()
}

/// Reads the details in a record, where they are as this release knows them.
pub(super) fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<SaleDetails>>, D::Error> {
    let stored = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(stored.get()).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn sale(products: &[(i64, u64)]) -> Sale {
        Sale { pos_id: 1, payment_method: "1".into(), products: products.to_vec() }
    }

    fn details(sale: &Sale, prices: &[(i64, &str)]) -> SaleDetails {
        let mut details = SaleDetails::default();
        details.add_products(sale, |id| {
            let (_, price) = prices.iter().find(|(known, _)| *known == id)?;
            Some(ProductDetails::new(id, Some(&raw(&format!("\"product {id}\""))), Some(&raw(price))))
        });
        details
    }

    #[test]
    fn a_sum_is_of_what_has_an_amount_and_prices_stay_as_they_are_spelled() {
        let sale = sale(&[(1, 2), (3, 0), (8, 1)]);
        let details = details(&sale, &[(1, "4.50"), (8, "\"-2.0\""), (3, "7")]);
        assert_eq!(details.sum.as_deref(), Some("7.00"));
        assert_eq!(details.product(8).unwrap().price.as_deref(), Some("\"-2.0\""));
        assert_eq!(details.product(3), None, "it is not sold");
        assert_eq!(why_no_sum(&sale, Some(&details)), None);
    }

    #[test]
    fn without_every_price_there_is_no_sum_and_it_is_said_why() {
        let sold = sale(&[(1, 2), (2, 1), (3, 1)]);
        let why = |prices: &[(i64, &str)]| {
            let details = details(&sold, prices);
            assert_eq!(details.sum, None);
            why_no_sum(&sold, Some(&details)).unwrap()
        };
        assert_eq!(why(&[(1, "4.50"), (2, "null"), (3, "1")]), "The cached reply had no price of product 2.");
        assert_eq!(why(&[(1, "4.50"), (2, "\"free\"")]), "The cached reply had no price of products 2, 3.");
        assert_eq!(why(&[]), NOT_KNOWN);
        assert_eq!(why_no_sum(&sold, None).as_deref(), Some(NOT_KNOWN));
        let huge = "9".repeat(38);
        assert_eq!(why(&[(1, &huge), (2, "1"), (3, "1")]), "It is too large.");
        let many: Vec<_> = (0..=100).map(|id| (id, 1)).collect();
        let many = sale(&many);
        let of_many = why_no_sum(&many, Some(&details(&many, &[(1, "1")]))).unwrap();
        assert_eq!(of_many, "Prices are kept of a sale of at most 100 products.");
    }

    #[test]
    fn a_name_is_a_text_and_a_long_one_is_cut_between_characters() {
        assert_eq!(kept_name(&raw("\"Bier 0,5 l\"")).as_deref(), Some("Bier 0,5 l"));
        for other in ["\"\"", "7", "null", "{}"] {
            assert_eq!(kept_name(&raw(other)), None, "{other}");
        }
        let long = kept_name(&raw(&format!("\"x{}\"", "ü".repeat(500)))).unwrap();
        assert_eq!(long, format!("x{}…", "ü".repeat(47)));
    }

    proptest! {
        #[test]
        fn whatever_the_replies_say_details_are_bounded(
            products in prop::collection::vec((0..300i64, 0..3u64), 0..200), name in ".{0,200}", price in "[0-9]{1,60}",
        ) {
            let mut details = SaleDetails::default();
            let json = |text: &str| raw(&serde_json::to_string(text).unwrap());
            let (name, price) = (json(&name), json(&price));
            details.add_products(&sale(&products), |id| Some(ProductDetails::new(id, Some(&name), Some(&price))));
            prop_assert!(details.products.len() <= MOST_PRODUCTS);
            for product in &details.products {
                prop_assert!(product.name.as_ref().is_none_or(|name| name.len() <= LONGEST_NAME + '…'.len_utf8()));
                prop_assert!(product.price.as_ref().is_none_or(|price| price.len() <= LONGEST_PRICE));
            }
        }
    }
}
