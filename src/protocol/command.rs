//! The command table: every fact about a command that the rest of the bridge may ask for.
//!
//! Names, reply events and costs are the vendor's documentation and its till's source; where both are silent the cost
//! is assumed and says so. A command that is not in the table can still be sent (the raw door); it is then treated
//! with the care of a payment, because nobody knows what repeating it would do.

use std::borrow::Cow;

use super::Parameters;

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

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name on the wire; also the `operationId` of its route.
    pub name: &'static str,
    /// The event that answers it. Not always the command's name: `payitems` is answered by `payitem`.
    pub reply_event: &'static str,
    /// Points of the gateway's budget of 100 within 30 seconds.
    pub cost: u32,
    /// What repeating it would do.
    pub kind: Kind,
    /// Whether the broadcast `updatepos` puts copies of its reply out of date.
    pub ended_by_updatepos: bool,
}

/// Points assumed for a command whose cost is not documented.
pub const ASSUMED_COST: u32 = 10;

const fn read(name: &'static str, cost: u32, ended_by_updatepos: bool) -> Spec {
    Spec { name, reply_event: name, cost, kind: Kind::Read, ended_by_updatepos }
}

/// Key and value configuration of the instance.
pub static GETCONFIG: Spec = read("getconfig", 25, true);
/// The price of a deposit.
pub static GETDEPOSIT: Spec = read("getdeposit", 10, true);
/// The licence; documented as heavily limited, to be asked once at start.
pub static GETLICENSE: Spec = read("getlicense", 4, false);
/// Points of sale. Its cost is not documented.
pub static LISTPOS: Spec = read("listpos", ASSUMED_COST, true);
/// Payment methods of one point of sale.
pub static LISTPM: Spec = read("listpm", 20, true);
/// Products of one point of sale.
pub static LISTPRODUCTS: Spec = read("listproducts", 25, true);
/// A sale.
pub static PAYITEMS: Spec =
    Spec { name: "payitems", reply_event: "payitem", cost: 1, kind: Kind::Payment, ended_by_updatepos: false };
/// Registers a device or notes that it lives.
pub static REGISTERDEVICE: Spec = Spec {
    name: "registerdevice",
    reply_event: "registerdevice",
    cost: 10,
    kind: Kind::Upsert,
    ended_by_updatepos: false,
};
/// Checks the password of a point of sale. Its cost is not documented.
pub static VERIFYAUTH: Spec = read("verifyauth", ASSUMED_COST, false);
/// The gateway's version.
pub static VERSION: Spec = read("version", 50, false);
/// The vendor's status page in one sentence.
pub static GETSTATUS: Spec = read("getstatus", 15, false);
/// Transactions of one point of sale, newest first.
pub static LISTTRANSACTIONS: Spec = read("listtransactions", 2, false);

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
    fn names_are_unique_and_only_one_reply_differs() {
        let differing: Vec<_> = TABLE.iter().filter(|spec| spec.name != spec.reply_event).collect();
        assert_eq!(differing.len(), 1);
        for spec in TABLE {
            assert_eq!(find(spec.name), Some(spec));
        }
    }
}
