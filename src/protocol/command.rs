//! The command table: every fact about a command that the rest of the bridge may ask for.
//!
//! A new read is a row here, the schema of its reply and the handler of its route. Its budget, cache key, freshness,
//! settings, metrics, the lookup that skips routing and the native protocol follow from the row.
//!
//! Names, reply events and costs come from the vendor's documentation and its till's source; where both are silent the
//! cost is assumed and the row says so. A command that is not in the table can be sent by name (`POST
//! /commands/{command}`). It is never sent again, like a payment, since what it does is not known.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use super::parameters::Parameters;

/// What sending a command again would do, which decides when the bridge may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Changes nothing: may be asked again on another shard.
    Read,
    /// Leaves the same state however often it is sent (`registerdevice`): may be asked again.
    Upsert,
    /// Books money: never sent again once any byte of it may have left.
    Payment,
    /// Unknown effect: as careful as a payment, without a record.
    Raw,
}

impl Kind {
    /// Whether a second sending is harmless when the outcome of the first is unknown.
    #[must_use]
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::Read | Self::Upsert)
    }
}

/// What a parameter's value is, as callers may spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A whole number from 0, or a string of its digits.
    Id,
    /// A whole number from 1, or a string of its digits.
    Count,
    /// Text that is hashed before it is kept.
    Secret,
    /// Any JSON value, passed on as it was spelled.
    Any,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name on the wire.
    pub name: &'static str,
    /// The name in a REST path or query, and in the cache.
    pub rest_name: &'static str,
    pub kind: ParameterKind,
    /// Whether the gateway refuses the command without it.
    pub required: bool,
}

/// The route that sends a command, below `/v1/instances/{instance}`.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    pub method: &'static str,
    /// Names in braces are [`Parameter::rest_name`]s.
    pub path: &'static str,
}

/// How long copies of a reply are used, unless the configuration says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a copy is fresh, unless something invalidates it.
    pub fresh: Duration,
    /// How long past that it may still be served, labelled stale.
    pub stale: Duration,
}

/// What ends the freshness of copies before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidatedBy {
    /// Nothing: they only age.
    Nothing,
    /// The broadcast `updatepos`, and any time in which it may have been missed.
    Updatepos,
    /// A payment at their point of sale.
    Payment,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name on the wire.
    pub name: &'static str,
    /// The `operationId` of its route, and so its method in generated clients: the same words, told apart by capitals.
    pub operation: &'static str,
    /// The event that answers it. Not always the command's name: `payitems` is answered by `payitem`.
    pub reply_event: &'static str,
    /// Points of the gateway's budget of 100 within 30 seconds.
    pub cost: u32,
    /// What repeating it would do. It also decides which scope a caller needs.
    pub kind: Kind,
    /// Every parameter that the gateway knows but the `api_key`. Copies of a reply are told apart by all of them.
    pub parameters: &'static [Parameter],
    pub route: Route,
    /// None where replies are never kept.
    pub retention: Option<Retention>,
    pub invalidated_by: InvalidatedBy,
}

/// Points assumed for a command whose cost is not documented.
pub const ASSUMED_COST: u32 = 10;

const DAY: Duration = Duration::from_hours(24);

/// Of what changes only with `updatepos`. The five minutes bound what a missed broadcast costs.
const CATALOGUE: Option<Retention> = Some(Retention { fresh: Duration::from_mins(5), stale: DAY });

/// The point of sale.
pub const POSID: Parameter = Parameter { name: "POSID", rest_name: "pos_id", kind: ParameterKind::Id, required: true };
const POS_PASSWORD: Parameter =
    Parameter { name: "posPassword", rest_name: "pos_password", kind: ParameterKind::Secret, required: false };
const LIMIT: Parameter = Parameter { name: "Limit", rest_name: "limit", kind: ParameterKind::Count, required: false };

const fn any(name: &'static str, rest_name: &'static str, required: bool) -> Parameter {
    Parameter { name, rest_name, kind: ParameterKind::Any, required }
}

/// A read without parameters, whose replies are not kept.
const fn read(name: &'static str, operation: &'static str, cost: u32, path: &'static str) -> Spec {
    Spec {
        name,
        operation,
        reply_event: name,
        cost,
        kind: Kind::Read,
        parameters: &[],
        route: Route { method: "GET", path },
        retention: None,
        invalidated_by: InvalidatedBy::Nothing,
    }
}

/// A read of what `updatepos` tells a change of.
const fn catalogue(name: &'static str, operation: &'static str, cost: u32, path: &'static str) -> Spec {
    Spec { retention: CATALOGUE, invalidated_by: InvalidatedBy::Updatepos, ..read(name, operation, cost, path) }
}

/// Key and value configuration of the instance.
pub static GETCONFIG: Spec = catalogue("getconfig", "getConfig", 25, "/config");
/// The price of a deposit.
pub static GETDEPOSIT: Spec = catalogue("getdeposit", "getDeposit", 10, "/deposit");
/// The licence; changes in months, and is documented as heavily limited, to be asked once at start.
pub static GETLICENSE: Spec = Spec {
    retention: Some(Retention { fresh: Duration::from_hours(1), stale: Duration::from_hours(24 * 7) }),
    ..read("getlicense", "getLicense", 4, "/license")
};
/// Points of sale. Its cost is not documented.
pub static LISTPOS: Spec = catalogue("listpos", "listPos", ASSUMED_COST, "/points-of-sale");
/// Payment methods of one point of sale.
pub static LISTPM: Spec = Spec {
    parameters: &[POSID, POS_PASSWORD],
    ..catalogue("listpm", "listPm", 20, "/points-of-sale/{pos_id}/payment-methods")
};
/// Products of one point of sale.
pub static LISTPRODUCTS: Spec = Spec {
    parameters: &[POSID, POS_PASSWORD],
    ..catalogue("listproducts", "listProducts", 25, "/points-of-sale/{pos_id}/products")
};
/// A sale.
pub static PAYITEMS: Spec = Spec {
    reply_event: "payitem",
    kind: Kind::Payment,
    parameters: &[POSID, POS_PASSWORD, any("PaymentMethod", "PaymentMethod", true), any("Products", "Products", true)],
    route: Route { method: "POST", path: "/points-of-sale/{pos_id}/payments" },
    ..read("payitems", "payItems", 1, "")
};
/// Registers a device or notes that it lives.
pub static REGISTERDEVICE: Spec = Spec {
    kind: Kind::Upsert,
    parameters: &[any("UUID", "uuid", true), any("workplace", "workplace", false)],
    route: Route { method: "PUT", path: "/devices/{uuid}" },
    ..read("registerdevice", "registerDevice", 10, "")
};
/// Checks the password of a point of sale. Its cost is not documented. The reply holds the password, so it is not kept.
pub static VERIFYAUTH: Spec = Spec {
    parameters: &[any("password", "password", true), any("workplace", "pos_id", true)],
    route: Route { method: "POST", path: "/points-of-sale/{pos_id}/password-check" },
    ..read("verifyauth", "verifyAuth", ASSUMED_COST, "")
};
/// The gateway's version; changes when the gateway restarts, and costs half of the budget.
pub static VERSION: Spec = Spec {
    retention: Some(Retention { fresh: Duration::from_hours(1), stale: DAY }),
    ..read("version", "getVersion", 50, "/version")
};
/// The vendor's status page in one sentence; changes in seconds, and is worth nothing when old.
pub static GETSTATUS: Spec = Spec {
    retention: Some(Retention { fresh: Duration::from_secs(30), stale: Duration::from_mins(5) }),
    ..read("getstatus", "getStatus", 15, "/status")
};
/// Transactions of one point of sale, newest first. They are about money, so by default they are always asked for.
pub static LISTTRANSACTIONS: Spec = Spec {
    parameters: &[POSID, POS_PASSWORD, LIMIT],
    retention: Some(Retention { fresh: Duration::ZERO, stale: Duration::ZERO }),
    invalidated_by: InvalidatedBy::Payment,
    ..read("listtransactions", "listTransactions", 2, "/points-of-sale/{pos_id}/transactions")
};

/// Every command known to the vendor's documentation or its till.
pub static TABLE: [&Spec; 12] = [
    &GETCONFIG,
    &GETDEPOSIT,
    &GETLICENSE,
    &LISTPOS,
    &LISTPM,
    &LISTPRODUCTS,
    &PAYITEMS,
    &REGISTERDEVICE,
    &VERIFYAUTH,
    &VERSION,
    &GETSTATUS,
    &LISTTRANSACTIONS,
];

/// The row of `name`, if it is a known command.
#[must_use]
pub fn find(name: &str) -> Option<&'static Spec> {
    TABLE.iter().copied().find(|spec| spec.name == name)
}

/// The row whose route is the operation of this `operationId`, if it is a known command's.
#[must_use]
pub fn of_operation(id: &str) -> Option<&'static Spec> {
    TABLE.iter().copied().find(|spec| spec.operation == id)
}

/// The reads that are asked for by `GET`, each with its path, split at the path parameter where it has one.
static READS: LazyLock<Vec<(&Spec, &str, Option<&str>)>> = LazyLock::new(|| {
    let reads = TABLE.iter().copied().filter(|spec| spec.kind == Kind::Read && spec.route.method == "GET");
    let split = |spec: &'static Spec| match spec.route.path.split_once("{pos_id}") {
        Some((before, after)) => (spec, before, Some(after)),
        None => (spec, spec.route.path, None),
    };
    reads.map(split).collect()
});

/// The read that `GET` of this path below `/v1/instances/{instance}` asks for, and the value of its one path parameter.
#[must_use]
pub fn find_read(path: &str) -> Option<(&'static Spec, Option<&str>)> {
    READS.iter().find_map(|(spec, before, after)| {
        let Some(after) = after else { return (*before == path).then_some((*spec, None)) };
        let value = path.strip_prefix(before)?.strip_suffix(after)?;
        (!value.contains('/')).then_some((*spec, Some(value)))
    })
}

/// One command, ready to be written on any link.
#[derive(Debug, Clone)]
pub struct Command {
    /// The name on the wire.
    pub name: Cow<'static, str>,
    /// The event that ends its exchange.
    pub reply_event: Cow<'static, str>,
    /// What repeating it would do.
    pub kind: Kind,
    /// Its parameters, without the `api_key`, which is added when it is encoded.
    pub parameters: Parameters,
}

impl Command {
    /// A known command with its parameters.
    #[must_use]
    pub fn known(spec: &'static Spec, parameters: Parameters) -> Self {
        Self {
            name: Cow::Borrowed(spec.name),
            reply_event: Cow::Borrowed(spec.reply_event),
            kind: spec.kind,
            parameters,
        }
    }

    /// Any command by name, known or not, sent with a payment's care. `reply_event` is needed only where the gateway
    /// answers with an event of another name.
    #[must_use]
    pub fn raw(name: String, reply_event: Option<String>, parameters: Parameters) -> Self {
        let reply_event = match (reply_event, find(&name)) {
            (Some(event), _) => Cow::Owned(event),
            (None, Some(spec)) => Cow::Borrowed(spec.reply_event),
            (None, None) => Cow::Owned(name.clone()),
        };
        Self { name: Cow::Owned(name), reply_event, kind: Kind::Raw, parameters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_of_payitems_is_the_singular_payitem() {
        let command = Command::known(&PAYITEMS, Parameters::default());
        assert_eq!(command.reply_event, "payitem");
        assert!(!command.kind.may_repeat());
    }

    #[test]
    fn a_raw_command_knows_the_reply_event_of_the_table_and_is_never_repeated() {
        let command = Command::raw("payitems".into(), None, Parameters::default());
        assert_eq!(command.reply_event, "payitem");
        assert_eq!(command.kind, Kind::Raw);
        let other = Command::raw("newthing".into(), Some("thing".into()), Parameters::default());
        assert_eq!(other.reply_event, "thing");
        assert!(!other.kind.may_repeat());
    }

    #[test]
    fn a_path_as_it_is_documented_finds_its_read() {
        let found = |path| find_read(path).map(|(spec, pos_id)| (spec.name, pos_id));
        assert_eq!(found("/license"), Some(("getlicense", None)));
        assert_eq!(found("/points-of-sale"), Some(("listpos", None)));
        assert_eq!(found("/points-of-sale/7/products"), Some(("listproducts", Some("7"))));
        assert_eq!(found("/points-of-sale/7/transactions"), Some(("listtransactions", Some("7"))));
        for path in ["", "/", "/config/", "/points-of-sale/7/8/products", "/devices/x", "/points-of-sale/7/payments"] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(found("/points-of-sale//products"), Some(("listproducts", Some(""))), "the caller judges the value");
    }

    #[test]
    fn what_is_kept_is_a_read_by_get_whose_required_parameters_are_in_its_path() {
        for spec in TABLE {
            let is_read = spec.kind == Kind::Read && spec.route.method == "GET";
            assert_eq!(spec.retention.is_some(), is_read, "{}", spec.name);
            assert!(spec.retention.is_some() || spec.invalidated_by == InvalidatedBy::Nothing, "{}", spec.name);
            for parameter in spec.parameters.iter().filter(|parameter| spec.retention.is_some() && parameter.required) {
                assert!(spec.route.path.contains(&format!("{{{}}}", parameter.rest_name)), "{}", spec.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_only_one_reply_differs() {
        let differing: Vec<_> = TABLE.iter().filter(|spec| spec.name != spec.reply_event).collect();
        assert_eq!(differing.len(), 1);
        for spec in TABLE {
            assert_eq!(find(spec.name), Some(spec));
        }
    }
}
