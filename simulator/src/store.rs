//! What an instance holds: its catalogue and its transactions, shared by every shard.
//!
//! Catalogues are kept as the replies they become, so that answering a read is handing out a shared value; a change
//! copies first, and a reply already on its way keeps the old prices. Transactions are bounded: the oldest of a point of
//! sale are forgotten.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sha2::{Digest, Sha512};

use super::decimal;
use super::sale::{Sale, Sold};
use super::value::Value;

/// Transactions remembered for each point of sale: about 3 MB when all are listed.
const MOST_TRANSACTIONS: usize = 10_000;

/// Somewhere to sell.
pub(super) struct PointOfSale {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) enabled: bool,
    pub(super) special: bool,
    pub(super) admin: bool,
    pub(super) password: Option<String>,
    /// The reply to `listproducts`.
    pub(super) products: Arc<Value>,
    /// The reply to `listpm`.
    pub(super) payment_methods: Arc<Value>,
    /// Oldest first.
    pub(super) transactions: Vec<Transaction>,
}

/// One product booked in one sale.
pub(super) struct Transaction {
    pub(super) id: i64,
    pub(super) payment_id: String,
    pub(super) pos_id: i64,
    pub(super) product_id: i64,
    pub(super) amount: String,
    pub(super) money: String,
    pub(super) timestamp: String,
}

impl Transaction {
    fn value(&self) -> Value {
        let number = |text: &String| Value::Number(text.clone().into());
        Value::object([
            ("ID", self.id.into()),
            ("Payment_ID", number(&self.payment_id)),
            ("PointOfSaleID", self.pos_id.into()),
            ("Product_ID", self.product_id.into()),
            ("AmountProduct", number(&self.amount)),
            ("AmountMoney", number(&self.money)),
            ("timestamp", self.timestamp.clone().into()),
            ("hash", self.hash().into()),
            ("Note", Value::Null),
        ])
    }

    /// 128 hexadecimal digits, as documented; what the gateway hashes is not known.
    fn hash(&self) -> String {
        let mut hasher = Sha512::new();
        hasher.update(format!("{} {} {} {}", self.id, self.pos_id, self.product_id, self.timestamp));
        hasher.finalize().iter().fold(String::with_capacity(128), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Everything one instance holds.
pub(super) struct Data {
    pub(super) config: Arc<Value>,
    pub(super) deposit: Arc<Value>,
    pub(super) license: Arc<Value>,
    /// The reply to `listpos`.
    pub(super) listpos: Arc<Value>,
    points: BTreeMap<i64, PointOfSale>,
    last_transaction: i64,
}

impl Data {
    pub(super) fn new(config: Value, deposit: Value, license: Value, points: Vec<PointOfSale>) -> Self {
        let flag = |truth: bool| Value::from(i64::from(truth));
        let listed = points.iter().map(|pos| {
            Value::object([
                ("ID", pos.id.into()),
                ("PointOfSale", pos.name.clone().into()),
                ("enabled", flag(pos.enabled)),
                ("special", flag(pos.special)),
                ("admin", flag(pos.admin)),
                ("password", Value::Bool(pos.password.is_some())),
            ])
        });
        let listpos = Value::object([("POS", Value::Array(listed.collect()))]).into();
        let transactions = points.iter().flat_map(|pos| &pos.transactions);
        let last_transaction = transactions.map(|transaction| transaction.id).max().unwrap_or_default();
        let points = points.into_iter().map(|pos| (pos.id, pos)).collect();
        Self {
            config: config.into(),
            deposit: deposit.into(),
            license: license.into(),
            listpos,
            points,
            last_transaction,
        }
    }

    pub(super) fn point(&self, id: i64) -> Option<&PointOfSale> {
        self.points.get(&id)
    }

    /// Books what of `sale` its point of sale has for sale, and returns it.
    pub(super) fn book(&mut self, sale: &Sale, now: Timestamp) -> Vec<Sold> {
        let Some(pos) = self.points.get_mut(&sale.pos_id) else { return Vec::new() };
        let mut booked = Vec::new();
        for sold in &sale.products {
            let Some(money) = money(&pos.products, sold) else { continue };
            self.last_transaction += 1;
            pos.transactions.push(Transaction {
                id: self.last_transaction,
                payment_id: sale.payment_method.parse::<i64>().unwrap_or_default().to_string(),
                pos_id: sale.pos_id,
                product_id: sold.id,
                amount: sold.amount.clone(),
                money: money.to_string(),
                timestamp: format!("{now:.3}"),
            });
            booked.push(sold.clone());
        }
        // Trimmed by halves, since taking single entries off the front of a list moves all others each time.
        if pos.transactions.len() > MOST_TRANSACTIONS {
            pos.transactions.drain(..MOST_TRANSACTIONS / 2);
        }
        booked
    }

    /// The transactions of a point of sale, newest first.
    pub(super) fn transactions(&self, pos_id: i64, limit: Option<usize>) -> Vec<Value> {
        let all = self.points.get(&pos_id).map(|pos| pos.transactions.as_slice()).unwrap_or_default();
        all.iter().rev().take(limit.unwrap_or(usize::MAX)).map(Transaction::value).collect()
    }

    /// The transactions of all points of sale, newest first.
    pub(super) fn all_transactions(&self) -> Vec<Value> {
        let mut all: Vec<_> = self.points.values().flat_map(|pos| &pos.transactions).collect();
        all.sort_unstable_by_key(|transaction| std::cmp::Reverse(transaction.id));
        all.into_iter().map(Transaction::value).collect()
    }

    /// Replaces fields of a product with those of the object `change`. Says what does not exist.
    pub(super) fn change_product(&mut self, pos_id: i64, product_id: i64, change: &Value) -> Result<(), String> {
        let Value::Object(fields) = change else { return Err("a change is an object of fields".to_owned()) };
        let pos = self.points.get_mut(&pos_id).ok_or_else(|| format!("no point of sale {pos_id}"))?;
        let missing = || format!("no product {product_id} at point of sale {pos_id}");
        product(&pos.products, product_id).ok_or_else(missing)?;
        let Value::Object(reply) = Arc::make_mut(&mut pos.products) else { return Err(missing()) };
        let products = reply.iter_mut().filter_map(|(_, value)| match value {
            Value::Array(products) => Some(products),
            _ => None,
        });
        let is_it = |product: &&mut Value| product.get("ID").and_then(Value::as_integer) == Some(product_id);
        let product = products.flatten().find(is_it).ok_or_else(missing)?;
        for (key, value) in fields {
            product.set(key, value.clone());
        }
        Ok(())
    }
}

fn product(reply: &Value, id: i64) -> Option<&Value> {
    let products = reply.get("Products")?.as_array()?;
    products.iter().find(|product| product.get("ID").and_then(Value::as_integer) == Some(id))
}

/// The price of a product times the amount sold; nothing where there is no such product or no such number.
fn money(products: &Value, sold: &Sold) -> Option<rust_decimal::Decimal> {
    let price = product(products, sold.id)?.get("Price")?.spelling()?;
    decimal::parse(price)?.checked_mul(decimal::parse(&sold.amount)?)
}

/// The data of every instance, in the order of the configuration.
pub(super) struct Store(Vec<Mutex<Data>>);

impl Store {
    pub(super) fn new(instances: usize, data: impl Fn() -> Data) -> Self {
        Self((0..instances).map(|_| Mutex::new(data())).collect())
    }

    /// The data of one instance, for as long as the guard is held.
    pub(super) fn lock(&self, instance: usize) -> Option<MutexGuard<'_, Data>> {
        self.0.get(instance).map(|data| data.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
