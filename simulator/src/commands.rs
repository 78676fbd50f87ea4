//! What each command does to an instance's data: pure, without sockets, clocks or faults.
//!
//! The behaviour is that of `protocol.md`: what is missing is said in the order of the documentation, numbers are taken
//! as strings too, and a point of sale nobody knows is an empty one, as a query without rows would be.

use std::sync::Arc;

use jiff::Timestamp;

use super::sale::{Sale, Sold};
use super::store::Data;
use super::value::{Text, Value};

/// A command that the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    GetConfig,
    GetDeposit,
    GetLicense,
    ListPos,
    ListPm,
    ListProducts,
    PayItems,
    RegisterDevice,
    VerifyAuth,
    Version,
    GetStatus,
    ListTransactions,
}

impl Verb {
    /// Name and points of each. Where nothing is documented (`listpos`, `verifyauth`) ten points are assumed.
    const TABLE: [(Self, &'static str, u32); 12] = [
        (Self::PayItems, "payitems", 1),
        (Self::ListProducts, "listproducts", 25),
        (Self::ListPm, "listpm", 20),
        (Self::GetConfig, "getconfig", 25),
        (Self::GetDeposit, "getdeposit", 10),
        (Self::GetLicense, "getlicense", 4),
        (Self::ListPos, "listpos", 10),
        (Self::RegisterDevice, "registerdevice", 10),
        (Self::VerifyAuth, "verifyauth", 10),
        (Self::Version, "version", 50),
        (Self::GetStatus, "getstatus", 15),
        (Self::ListTransactions, "listtransactions", 2),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|(_, named, _)| *named == name).map(|(verb, ..)| *verb)
    }

    pub(super) fn name(self) -> &'static str {
        Self::TABLE.iter().find(|(verb, ..)| *verb == self).map_or("", |(_, name, _)| name)
    }

    /// The event that answers it: the command's own name, but for sales.
    pub(super) fn reply_event(self) -> &'static str {
        if self == Self::PayItems { "payitem" } else { self.name() }
    }

    pub(super) fn documented_cost(self) -> u32 {
        Self::TABLE.iter().find(|(verb, ..)| *verb == self).map_or(0, |(.., cost)| *cost)
    }
}

/// An error of the gateway: a word, and a code that is usually a number.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) word: Text,
    pub(super) code: Value,
}

impl Refusal {
    pub(super) fn new(word: impl Into<Text>, code: i64) -> Self {
        Self { word: word.into(), code: code.into() }
    }

    /// `missing_parameter_…` carries the code 3 (as in the sister server).
    fn missing(parameter: &str) -> Self {
        Self::new(format!("missing_parameter_{parameter}"), 3)
    }
}

/// A command carried out.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) event: &'static str,
    pub(super) parameters: Arc<Value>,
    /// What a sale booked.
    pub(super) booked: Option<(Sale, Vec<Sold>)>,
}

/// Carries out one command.
pub(super) fn execute(verb: Verb, parameters: &Value, data: &mut Data, now: Timestamp) -> Result<Reply, Refusal> {
    let parameters = match verb {
        Verb::GetConfig => data.config.clone(),
        Verb::GetDeposit => data.deposit.clone(),
        Verb::GetLicense => data.license.clone(),
        Verb::ListPos => data.listpos.clone(),
        Verb::ListPm => match data.point(unlocked_pos(parameters, data)?) {
            Some(pos) => pos.payment_methods.clone(),
            None => Value::object([("PaymentMethods", Value::Array(Vec::new()))]).into(),
        },
        Verb::ListProducts => match data.point(unlocked_pos(parameters, data)?) {
            Some(pos) => pos.products.clone(),
            None => Value::object([("Products", Value::Array(Vec::new()))]).into(),
        },
        Verb::PayItems => return pay(parameters, data, now),
        Verb::RegisterDevice => register(parameters, now)?.into(),
        Verb::VerifyAuth => verify(parameters, data)?.into(),
        Verb::Version => Value::object([("Version", Value::string("1.0.1"))]).into(),
        Verb::GetStatus => Value::object([
            ("status", Value::string("success")),
            ("message", Value::string("All systems are operational")),
        ])
        .into(),
        Verb::ListTransactions => transactions(parameters, data)?.into(),
    };
    Ok(Reply { event: verb.name(), parameters, booked: None })
}

fn required<'a>(parameters: &'a Value, name: &str) -> Result<&'a Value, Refusal> {
    parameters.given(name).ok_or_else(|| Refusal::missing(name))
}

/// The point of sale asked for. What is no number finds nothing, like an id that does not exist.
fn pos_id(parameters: &Value, name: &str) -> Result<i64, Refusal> {
    Ok(required(parameters, name)?.as_integer().unwrap_or(-1))
}

/// The point of sale asked for, once its password has been shown.
fn unlocked_pos(parameters: &Value, data: &Data) -> Result<i64, Refusal> {
    let id = pos_id(parameters, "POSID")?;
    match data.point(id).and_then(|pos| pos.password.as_deref()) {
        Some(password) if parameters.get("posPassword").and_then(Value::spelling) != Some(password) => {
            Err(Refusal::new("invalid_password", 0))
        }
        _ => Ok(id),
    }
}

fn pay(parameters: &Value, data: &mut Data, now: Timestamp) -> Result<Reply, Refusal> {
    pos_id(parameters, "POSID")?;
    required(parameters, "PaymentMethod")?;
    parameters.get("Products").and_then(Value::as_array).ok_or_else(|| Refusal::missing("Products"))?;
    unlocked_pos(parameters, data)?;
    let sale = Sale::of(parameters);
    let booked = data.book(&sale, now);
    let items = i64::try_from(booked.len()).unwrap_or(i64::MAX);
    // The reply's event is in the singular: the vendor's till waits for it.
    Ok(Reply {
        event: "payitem",
        parameters: Value::object([("Items", items.into())]).into(),
        booked: Some((sale, booked)),
    })
}

fn register(parameters: &Value, now: Timestamp) -> Result<Value, Refusal> {
    let uuid = required(parameters, "UUID")?.clone();
    let workplace = parameters.get("workplace").cloned().unwrap_or(Value::Null);
    let device = Value::object([("UUID", uuid), ("workplace", workplace), ("lastping", format!("{now:.3}").into())]);
    Ok(Value::object([("Device", device)]))
}

fn verify(parameters: &Value, data: &Data) -> Result<Value, Refusal> {
    let given = required(parameters, "password")?;
    let workplace = pos_id(parameters, "workplace")?;
    let password = data.point(workplace).and_then(|pos| pos.password.as_deref());
    let success = password.is_some() && given.spelling() == password;
    let shown = if success { given.clone() } else { Value::Null };
    Ok(Value::object([("success", Value::Bool(success)), ("password", shown)]))
}

fn transactions(parameters: &Value, data: &Data) -> Result<Value, Refusal> {
    let limit = parameters.given("Limit").and_then(Value::as_integer);
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or_default());
    let listed = data.transactions(pos_id(parameters, "POSID")?, limit);
    let count = i64::try_from(listed.len()).unwrap_or(i64::MAX);
    Ok(Value::object([("Count", count.into()), ("Transactions", Value::Array(listed))]))
}

#[cfg(test)]
mod tests {
    use super::super::printer::{Format, print};
    use super::super::reader::read;
    use super::super::sample;
    use super::*;

    fn ask(data: &mut Data, verb: &str, parameters: &str) -> Result<String, String> {
        let parameters = read(parameters, Format::Json5).unwrap();
        let verb = Verb::parse(verb).unwrap();
        execute(verb, &parameters, data, Timestamp::UNIX_EPOCH)
            .map(|reply| format!("{} {}", reply.event, print(&reply.parameters, Format::Json)))
            .map_err(|refusal| format!("{} {}", refusal.word, print(&refusal.code, Format::Json)))
    }

    #[test]
    fn every_command_is_found_by_its_name() {
        for (verb, name, cost) in Verb::TABLE {
            assert_eq!((Verb::parse(name), verb.name(), verb.documented_cost()), (Some(verb), name, cost));
        }
        assert_eq!(Verb::parse("payitem"), None);
    }

    #[test]
    fn a_sale_books_only_products_with_an_amount_and_takes_strings() {
        let data = &mut sample::data();
        let sale = "{POSID:'1',PaymentMethod:'2',Products:[{ID:'1',Amount:'2'},{ID:2,Amount:0},{ID:8,Amount:3},{ID:99,Amount:1}]}";
        assert_eq!(ask(data, "payitems", sale).unwrap(), r#"payitem {"Items":2}"#);
        let listed = data.transactions(1, Some(2));
        let money: Vec<_> =
            listed.iter().map(|listed| listed.get("AmountMoney").unwrap().spelling().unwrap()).collect();
        assert_eq!(money, ["-6.00", "9.00"]);
        assert_eq!(listed[1].get("AmountProduct"), Some(&Value::Number("2".into())));
        assert_eq!(listed[0].get("hash").unwrap().as_str().unwrap().len(), 128);
        assert_eq!(listed[0].get("timestamp").unwrap().as_str(), Some("1970-01-01T00:00:00.000Z"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let data = &mut sample::data();
        assert_eq!(ask(data, "listproducts", "{}").unwrap_err(), "missing_parameter_POSID 3");
        assert_eq!(ask(data, "listpm", "{POSID:null}").unwrap_err(), "missing_parameter_POSID 3");
        assert_eq!(ask(data, "payitems", "{POSID:1}").unwrap_err(), "missing_parameter_PaymentMethod 3");
        assert_eq!(ask(data, "payitems", "{POSID:1,PaymentMethod:1}").unwrap_err(), "missing_parameter_Products 3");
        assert_eq!(ask(data, "registerdevice", "{}").unwrap_err(), "missing_parameter_UUID 3");
        assert_eq!(ask(data, "verifyauth", "{password:'x'}").unwrap_err(), "missing_parameter_workplace 3");
    }

    #[test]
    fn a_locked_point_of_sale_opens_to_its_password_alone() {
        let data = &mut sample::data();
        let with =
            |password: &str| format!("{{POSID:7,PaymentMethod:1,Products:[{{ID:1,Amount:1}}],posPassword:{password}}}");
        for verb in ["listproducts", "listpm", "payitems"] {
            assert_eq!(ask(data, verb, &with("null")).unwrap_err(), "invalid_password 0", "{verb}");
            assert_eq!(ask(data, verb, &with("'wrong'")).unwrap_err(), "invalid_password 0", "{verb}");
            assert!(ask(data, verb, &with("'backstage'")).is_ok(), "{verb}");
        }
        let check = |data: &mut Data, password: &str| {
            ask(data, "verifyauth", &format!("{{workplace:'7',password:'{password}'}}")).unwrap()
        };
        assert_eq!(check(data, "backstage"), r#"verifyauth {"success":true,"password":"backstage"}"#);
        assert_eq!(check(data, "wrong"), r#"verifyauth {"success":false,"password":null}"#);
    }

    #[test]
    fn transactions_come_newest_first_and_as_many_as_asked_for() {
        let data = &mut sample::data();
        ask(data, "payitems", "{POSID:3,PaymentMethod:1,Products:[{ID:5,Amount:1}]}").unwrap();
        let all = ask(data, "listtransactions", "{POSID:3}").unwrap();
        assert!(all.starts_with(r#"listtransactions {"Count":3,"Transactions":[{"ID":65,"#), "{all}");
        let two = ask(data, "listtransactions", "{POSID:3,Limit:'2'}").unwrap();
        assert!(two.starts_with(r#"listtransactions {"Count":2,"Transactions":[{"ID":65,"#), "{two}");
        let none = ask(data, "listtransactions", "{POSID:'nowhere'}").unwrap();
        assert_eq!(none, r#"listtransactions {"Count":0,"Transactions":[]}"#);
    }

    #[test]
    fn a_changed_price_shows_in_the_next_reply_and_not_in_one_on_its_way() {
        let data = &mut sample::data();
        let before =
            execute(Verb::ListProducts, &read("{POSID:1}", Format::Json5).unwrap(), data, Timestamp::UNIX_EPOCH);
        data.change_product(1, 2, &read("{Price:3.10}", Format::Json5).unwrap()).unwrap();
        assert!(!print(&before.unwrap().parameters, Format::Json).contains("3.10"));
        assert!(
            ask(data, "listproducts", "{POSID:1}").unwrap().contains(r#""ProductName":"Lemonade 0.3 l","Price":3.10,"#)
        );
        assert!(!ask(data, "listproducts", "{POSID:2}").unwrap().contains("3.10"));
        assert!(data.change_product(1, 99, &Value::object([])).is_err());
        assert!(data.change_product(99, 1, &Value::object([])).is_err());
        assert!(data.change_product(1, 1, &Value::Null).is_err());
    }
}
