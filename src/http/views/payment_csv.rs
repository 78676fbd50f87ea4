//! Records of payments as a table, one line each, for reconciling.

use super::payment::{PaymentRecord, SoldLine};
use crate::http::response::csv::{self, Cell};

/// A column's name and what a record has in it.
type Column = (&'static str, fn(&PaymentRecord) -> Cell);

const COLUMNS: [Column; 22] = [
    ("id", |record| Cell::own(Some(&record.id))),
    ("state", |record| Cell::own(Some(record.state))),
    ("created_at", |record| Cell::own(Some(&record.created_at))),
    ("dispatched_at", |record| Cell::own(record.dispatched_at.as_ref())),
    ("ended_at", |record| Cell::own(record.ended_at.as_ref())),
    ("caller", |record| Cell::text(Some(&record.caller))),
    ("idempotency_key", |record| Cell::text(Some(&record.idempotency_key))),
    ("pos_id", |record| Cell::own(Some(record.pos_id))),
    ("pos_name", |record| Cell::text(record.point_of_sale.as_deref())),
    ("payment_method", |record| Cell::text(record.payment_method.as_deref())),
    ("payment_method_name", |record| Cell::text(record.payment.as_deref())),
    ("products", |record| Cell::own(record.products.as_deref().map(sold))),
    ("product_names", |record| Cell::text(record.products.as_deref().and_then(named).as_deref())),
    ("sum", |record| Cell::own(record.sum.as_ref())),
    ("gateway_error", |record| Cell::text(record.gateway.as_ref().map(|gateway| gateway.error.as_str()))),
    ("settled_as", |record| Cell::own(record.settlement.as_ref().map(|settlement| settlement.outcome.name()))),
    ("settled_at", |record| Cell::own(record.settlement.as_ref().map(|settlement| &settlement.at))),
    ("settled_by", |record| Cell::text(record.settlement.as_ref().map(|settlement| settlement.by.as_str()))),
    ("settled_because", |record| Cell::text(record.settlement.as_ref().map(|settlement| settlement.reason.as_str()))),
    ("matching_transactions", |record| Cell::own(record.evidence.as_ref().map(|found| found.transactions.len()))),
    ("contradictions", |record| Cell::own(Some(record.contradictions.len()))),
    ("unreadable", |record| Cell::text(record.unreadable.as_ref().map(|unreadable| unreadable.reason.as_str()))),
];

/// The records under the names of the columns.
#[must_use]
pub fn table<'r>(records: impl IntoIterator<Item = &'r PaymentRecord>) -> String {
    let mut table = String::new();
    csv::line(&mut table, COLUMNS.map(|(name, _)| Cell::Own(name.to_owned())));
    for record in records {
        csv::line(&mut table, COLUMNS.map(|(_, cell)| cell(record)));
    }
    table
}

/// Amount and product id of each line of the sale.
fn sold(lines: &[SoldLine]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| format!("{} x {}", line.amount, line.id)).collect();
    lines.join("; ")
}

/// The same with names and prices, as far as they are known; none where none is.
fn named(lines: &[SoldLine]) -> Option<String> {
    let named = |line: &SoldLine| {
        let name = line.name.clone().unwrap_or_else(|| format!("product {}", line.id));
        let price = line.price.as_ref().map(|price| format!(" at {}", price.get().trim_matches('"')));
        format!("{} x {name}{}", line.amount, price.unwrap_or_default())
    };
    let is_known = lines.iter().any(|line| line.name.is_some() || line.price.is_some());
    is_known.then(|| lines.iter().map(named).collect::<Vec<_>>().join("; "))
}
