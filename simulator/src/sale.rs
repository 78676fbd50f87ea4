//! What a `payitems` asks for, read out of its parameters.
//!
//! Only products with an amount above nothing are sold; the till sends all others along. Numbers may be strings. The
//! same sale in another spelling has the same fingerprint, which is how a test finds out that one was sent twice.

use super::decimal;
use super::value::Value;

/// One product sold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Sold {
    /// The product's id.
    pub id: i64,
    /// How many, as it was spelled.
    pub amount: String,
}

/// A sale as asked for, whether or not it is then booked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sale {
    pub(super) pos_id: i64,
    pub(super) payment_method: String,
    pub(super) products: Vec<Sold>,
    /// The field `ref` beside the documented ones: a test's own name for the sale.
    pub(super) reference: Option<String>,
}

impl Sale {
    /// Reads whatever is readable; what is missing stays empty, since even a malformed sale is counted as received.
    pub(super) fn of(parameters: &Value) -> Self {
        let text = |key| parameters.get(key).and_then(Value::spelling).map(str::to_owned);
        let products = parameters.get("Products").and_then(Value::as_array).unwrap_or_default();
        Self {
            pos_id: parameters.get("POSID").and_then(Value::as_integer).unwrap_or_default(),
            payment_method: text("PaymentMethod").unwrap_or_default(),
            products: products.iter().filter_map(sold).collect(),
            reference: text("ref"),
        }
    }

    /// Point of sale, payment method and what was sold: `1/2/3x1,4x2`. Neither order nor repetition of keys matters.
    pub(super) fn fingerprint(&self) -> String {
        let mut lines: Vec<_> = self.products.iter().map(|sold| format!("{}x{}", sold.id, sold.amount)).collect();
        lines.sort_unstable();
        format!("{}/{}/{}", self.pos_id, self.payment_method, lines.join(","))
    }

    /// What sales are counted by: the test's own name, or else the fingerprint.
    pub(super) fn key(&self) -> String {
        self.reference.clone().unwrap_or_else(|| self.fingerprint())
    }
}

fn sold(product: &Value) -> Option<Sold> {
    let id = product.get("ID")?.as_integer()?;
    let amount = product.get("Amount")?.spelling()?;
    decimal::parse(amount).filter(|amount| amount.is_sign_positive() && !amount.is_zero())?;
    Some(Sold { id, amount: amount.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::printer::Format;
    use super::super::reader::read;
    use super::*;

    fn sale(text: &str) -> Sale {
        Sale::of(&read(text, Format::Json5).unwrap())
    }

    #[test]
    fn the_same_sale_in_another_spelling_has_the_same_fingerprint() {
        let plain = sale("{POSID:1,PaymentMethod:2,Products:[{ID:3,Amount:1},{ID:4,Amount:2}]}");
        let till = sale(
            "{Products:[{ID:'4',Amount:'2',Price:1.5},{ID:5,Amount:0},{ID:6,Amount:-1},{Amount:1,ID:3}],PaymentMethod:'2',POSID:'1'}",
        );
        assert_eq!(plain.fingerprint(), "1/2/3x1,4x2");
        assert_eq!(till.fingerprint(), plain.fingerprint());
        assert_eq!(till.products.len(), 2);
    }

    #[test]
    fn a_test_s_own_name_for_a_sale_goes_before_its_fingerprint() {
        assert_eq!(sale("{POSID:1,ref:'a'}").key(), "a");
        assert_eq!(sale("{POSID:1}").key(), "1//");
    }
}
