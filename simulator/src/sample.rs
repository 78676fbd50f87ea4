//! The festival that every instance starts with: 32 points of sale, eight products each, and a few past transactions.
//!
//! The shapes are those of the vendor's documentation and till (`protocol.md`); the goods are made up. Prices are spelled
//! with two places, which JavaScript would drop, so that a client re-printing them is found out.

use super::store::{Data, PointOfSale, Transaction};
use super::value::Value;

/// The point of sale that asks for a password.
pub const LOCKED_POS: i64 = 7;

/// The password of [`LOCKED_POS`].
pub const LOCKED_POS_PASSWORD: &str = "backstage";

const STANDS: [&str; 8] = ["Bar", "Grill", "Cocktails", "Coffee", "Merchandise", "Tickets", "Backstage", "Ice cream"];
const AREAS: [&str; 4] = ["North", "South", "Main stage", "Camping"];

const METHODS: [(&str, &str); 4] =
    [("Cash", "#2ecc71"), ("Card", "#3498db"), ("Wristband", "#9b59b6"), ("Crew", "#e67e22")];

/// Name, price, whether a deposit comes with it, whether crew cannot have it.
const GOODS: [(&str, &str, i64, i64); 8] = [
    ("Beer 0.5 l", "4.50", 1, 0),
    ("Lemonade 0.3 l", "3.00", 1, 0),
    ("Water 0.5 l", "2.20", 1, 0),
    ("Fries \"large\"", "4.80", 0, 0),
    ("Veggie burger", "9.50", 0, 0),
    ("Festival shirt", "25.00", 0, 1),
    ("Day ticket", "79.90", 0, 1),
    ("Deposit returned", "-2.00", 0, 0),
];

/// Everything a new instance holds.
pub(super) fn data() -> Data {
    let mut points = Vec::new();
    let mut id = 0;
    for area in AREAS {
        for stand in STANDS {
            id += 1;
            points.push(PointOfSale {
                id,
                name: format!("{stand} {area}"),
                enabled: id != 31,
                special: stand == "Tickets",
                admin: id == 32,
                password: (id == LOCKED_POS).then(|| LOCKED_POS_PASSWORD.to_owned()),
                products: products().into(),
                payment_methods: payment_methods().into(),
                transactions: past(id),
            });
        }
    }
    Data::new(
        config(),
        Value::object([("Deposit", Value::object([("Price", Value::number("2.00"))]))]),
        license(),
        points,
    )
}

fn products() -> Value {
    let products = (1..).zip(GOODS).map(|(id, (name, price, deposit, crew_blocked))| {
        Value::object([
            ("ID", Value::from(id)),
            ("ProductName", Value::string(name)),
            ("Price", Value::number(price)),
            ("Amount", 0.into()),
            ("Deposit", deposit.into()),
            ("CrewBlocked", crew_blocked.into()),
        ])
    });
    Value::object([("Products", Value::Array(products.collect()))])
}

fn payment_methods() -> Value {
    let methods = (1..).zip(METHODS).map(|(id, (name, color))| {
        Value::object([("ID", Value::from(id)), ("Payment", Value::string(name)), ("color", Value::string(color))])
    });
    Value::object([("PaymentMethods", Value::Array(methods.collect()))])
}

fn config() -> Value {
    let config = Value::object([
        ("name", Value::string("Pixel Open Air")),
        ("currency", Value::string("€")),
        ("ticket_limit", Value::string("5000")),
        ("deposit_enabled", Value::string("1")),
        ("crew_discount", Value::number("0.50")),
        ("license_key", Value::string("SIMULATED-0000-0000-0000")),
    ]);
    Value::object([("Config", config)])
}

fn license() -> Value {
    let license = Value::object([
        ("Name", Value::string("Pixel Open Air")),
        ("LicenseKey", Value::string("SIMULATED-0000-0000-0000")),
        ("Active", Value::string("1")),
        ("Type", Value::string("festival")),
        ("DeviceLimit", Value::string("0")),
        ("TicketLimit", Value::string("5000")),
        ("ProductLimit", Value::string("0")),
        ("PaymentLimit", Value::string("0")),
        ("POSLimit", Value::string("0")),
        ("Created", Value::string("2020-01-01T00:00:00.000Z")),
        ("Expires", Value::Null),
    ]);
    Value::object([("License", license)])
}

/// The past of one point of sale, oldest first: two drinks, then one deposit returned.
fn past(pos_id: i64) -> Vec<Transaction> {
    let transaction = |place: i64, product_id, amount: &str, money: &str, timestamp: &str| Transaction {
        id: pos_id * 2 - 1 + place,
        payment_id: "1".to_owned(),
        pos_id,
        product_id,
        amount: amount.to_owned(),
        money: money.to_owned(),
        timestamp: timestamp.to_owned(),
    };
    vec![
        transaction(0, 1, "2", "9.00", "2020-05-08T23:17:07.000Z"),
        transaction(1, 8, "1", "-2.00", "2020-05-09T15:46:47.000Z"),
    ]
}
