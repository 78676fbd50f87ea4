//! The statements, and how what they hold is spelled.
//!
//! Rows of several instances are given as arrays. `OWNED` keeps of them those that this session owns in the epoch given, and
//! locks their rows until the transaction ends, in order of their names as whoever claims does.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::broadcasts::{self, Event};
use crate::budget;
use crate::cache::{Ended, Key};
use crate::database::{self, Statement, Type};
use crate::tenure::SessionId;

/// The format in which this release writes state, and the newest that it reads: that of the schema, by which sessions know which
/// of the others read what they hand over. One that older releases cannot read comes with a step of the schema.
pub const FORMAT: i32 = database::FORMAT;

const NOW_MS: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

macro_rules! owned {
    () => {
        " JOIN instance_owner AS owner ON owner.instance = given.instance AND owner.session = $1 \
          AND owner.epoch = given.epoch ORDER BY given.instance FOR SHARE OF owner"
    };
}

/// A condition on `given`: it is owned, as an earlier statement of the transaction has found and locked.
macro_rules! is_owned {
    () => {
        "EXISTS (SELECT 1 FROM instance_owner AS owner WHERE owner.instance = given.instance \
         AND owner.session = $1 AND owner.epoch = given.epoch)"
    };
}

/// What is written of one instance.
#[derive(Debug, Clone)]
pub(super) struct Row<T> {
    pub(super) instance: String,
    pub(super) epoch: i64,
    pub(super) value: T,
}

/// Arrays of a statement, one value a row.
struct Columns(Statement);

impl Columns {
    fn new<T>(text: impl Into<String>, session: SessionId, rows: &[Row<T>]) -> Self {
        let statement = Statement::new(text.into()).uuid(session.as_uuid());
        let instances: Vec<String> = rows.iter().map(|row| row.instance.clone()).collect();
        let epochs: Vec<i64> = rows.iter().map(|row| row.epoch).collect();
        Self(statement.bind(instances, Type::TEXT_ARRAY).bind(epochs, Type::INT8_ARRAY))
    }

    fn text(self, values: impl Iterator<Item = Option<String>>) -> Self {
        Self(self.0.bind(values.collect::<Vec<_>>(), Type::TEXT_ARRAY))
    }

    fn bigint(self, values: impl Iterator<Item = Option<i64>>) -> Self {
        Self(self.0.bind(values.collect::<Vec<_>>(), Type::INT8_ARRAY))
    }

    fn bytes(self, values: impl Iterator<Item = Vec<u8>>) -> Self {
        Self(self.0.bind(values.collect::<Vec<_>>(), Type::BYTEA_ARRAY))
    }
}

/// What an owner writes each second where it changed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Running {
    pub(super) spending: Option<budget::Carried>,
    /// The shards that are taken out by hand.
    #[serde(default)]
    pub(super) cordoned: BTreeSet<String>,
}

pub(super) fn spending(session: SessionId, rows: &[Row<String>]) -> Statement {
    let text = format!(
        "INSERT INTO spending (instance, session, epoch, state, written_ms) \
         SELECT given.instance, $1, given.epoch, given.state, {NOW_MS} \
         FROM unnest($2::text[], $3::bigint[], $4::text[]) AS given (instance, epoch, state){} \
         ON CONFLICT (instance) DO UPDATE SET session = excluded.session, epoch = excluded.epoch, \
         state = excluded.state, written_ms = excluded.written_ms",
        owned!()
    );
    Columns::new(text, session, rows).text(rows.iter().map(|row| Some(row.value.clone()))).0
}

/// Where an instance's log stands.
#[derive(Debug, Clone)]
pub(super) struct Coverage {
    pub(super) log_epoch: String,
    /// The timeline on which the log is written whole.
    pub(super) timeline: String,
    /// How long ago it was complete; none where that of the replica holds. Kept as an instant of the database's clock, so that
    /// the clocks of two replicas are never compared.
    pub(super) covered_ago_ms: Option<i64>,
}

/// Gives the instances that are owned.
pub(super) fn coverage(session: SessionId, rows: &[Row<Coverage>]) -> Statement {
    let text = format!(
        "INSERT INTO event_coverage (instance, session, epoch, log_epoch, timeline, covered_until_ms, format) \
         SELECT given.instance, $1, given.epoch, given.log_epoch, given.timeline, {NOW_MS} - given.covered_ago_ms, {FORMAT} \
         FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[]) \
         AS given (instance, epoch, log_epoch, timeline, covered_ago_ms){} \
         ON CONFLICT (instance) DO UPDATE SET session = excluded.session, epoch = excluded.epoch, \
         log_epoch = excluded.log_epoch, timeline = excluded.timeline, covered_until_ms = excluded.covered_until_ms, \
         format = excluded.format RETURNING instance",
        owned!()
    );
    Columns::new(text, session, rows)
        .text(rows.iter().map(|row| Some(row.value.log_epoch.clone())))
        .text(rows.iter().map(|row| Some(row.value.timeline.clone())))
        .bigint(rows.iter().map(|row| row.value.covered_ago_ms))
        .0
}

/// How long ago everything was received at all instances of this replica that do not say otherwise.
pub(super) fn session_coverage(session: SessionId, covered_ago_ms: i64) -> Statement {
    let text = format!(
        "INSERT INTO session_coverage (session, covered_until_ms) VALUES ($1, {NOW_MS} - $2::bigint) \
         ON CONFLICT (session) DO UPDATE SET covered_until_ms = excluded.covered_until_ms"
    );
    Statement::new(text).uuid(session.as_uuid()).bigint(covered_ago_ms)
}

/// Removes what sessions of the past said that no instance refers to any more.
pub(super) fn forget_sessions(session: SessionId) -> Statement {
    let text = "DELETE FROM session_coverage AS past USING replica WHERE past.session <> $1 \
                AND replica.id = past.session AND replica.ended \
                AND NOT EXISTS (SELECT 1 FROM event_coverage WHERE event_coverage.session = past.session)";
    Statement::new(text).uuid(session.as_uuid())
}

/// An entry of a log in its place.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) log_epoch: String,
    pub(super) position: i64,
    pub(super) text: String,
}

/// Gives the instances that are owned, once an entry.
pub(super) fn entries(session: SessionId, rows: &[Row<Entry>]) -> Statement {
    let text = format!(
        "INSERT INTO event_log (instance, log_epoch, position, entry, logged_ms) \
         SELECT given.instance, given.log_epoch, given.position, given.entry, {NOW_MS} \
         FROM unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[]) \
         AS given (instance, epoch, log_epoch, position, entry){} \
         ON CONFLICT (instance, log_epoch, position) DO UPDATE SET entry = excluded.entry RETURNING instance",
        owned!()
    );
    Columns::new(text, session, rows)
        .text(rows.iter().map(|row| Some(row.value.log_epoch.clone())))
        .bigint(rows.iter().map(|row| Some(row.value.position)))
        .text(rows.iter().map(|row| Some(row.value.text.clone())))
        .0
}

/// Removes the entries of other logs, and of this one up to a position.
pub(super) fn forget_entries(session: SessionId, rows: &[Row<(String, i64)>]) -> Statement {
    let text = concat!(
        "DELETE FROM event_log AS old USING unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[]) \
         AS given (instance, epoch, log_epoch, position) WHERE old.instance = given.instance \
         AND (old.log_epoch <> given.log_epoch OR old.position <= given.position) AND ",
        is_owned!()
    );
    Columns::new(text, session, rows)
        .text(rows.iter().map(|row| Some(row.value.0.clone())))
        .bigint(rows.iter().map(|row| Some(row.value.1)))
        .0
}

/// What was handed over has been received.
pub(super) fn forget_handed_over<T>(session: SessionId, rows: &[Row<T>]) -> Statement {
    let text = concat!(
        "DELETE FROM handed_over AS old USING unnest($2::text[], $3::bigint[]) AS given (instance, epoch) \
         WHERE old.instance = given.instance AND ",
        is_owned!()
    );
    Columns::new(text, session, rows).0
}

/// A copy as it is written.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) key: Vec<u8>,
    pub(super) age_ms: i64,
    pub(super) body: String,
}

pub(super) fn copies(session: SessionId, rows: &[Row<Copy>]) -> Statement {
    let text = format!(
        "INSERT INTO copy (instance, key, written_ms, body) \
         SELECT given.instance, given.key, {NOW_MS} - given.age_ms, given.body \
         FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[]) \
         AS given (instance, epoch, age_ms, body, key){} \
         ON CONFLICT (instance, key) DO UPDATE SET written_ms = excluded.written_ms, body = excluded.body",
        owned!()
    );
    Columns::new(text, session, rows)
        .bigint(rows.iter().map(|row| Some(row.value.age_ms)))
        .text(rows.iter().map(|row| Some(row.value.body.clone())))
        .bytes(rows.iter().map(|row| row.value.key.clone()))
        .0
}

/// Locks the rows of instances that are owned, for statements that only look whether they are.
pub(super) fn lock<T>(session: SessionId, rows: &[Row<T>]) -> Statement {
    let text =
        concat!("SELECT given.instance FROM unnest($2::text[], $3::bigint[]) AS given (instance, epoch)", owned!());
    Columns::new(text, session, rows).0
}

pub(super) fn forget_copies(session: SessionId, rows: &[Row<Vec<u8>>]) -> Statement {
    let text = concat!(
        "DELETE FROM copy AS old USING unnest($2::text[], $3::bigint[], $4::bytea[]) AS given (instance, epoch, key) \
         WHERE old.instance = given.instance AND old.key = given.key AND ",
        is_owned!()
    );
    Columns::new(text, session, rows).bytes(rows.iter().map(|row| row.value.clone())).0
}

pub(super) fn handed_over(session: SessionId, rows: &[Row<String>]) -> Statement {
    let text = format!(
        "INSERT INTO handed_over (instance, session, epoch, format, state) \
         SELECT given.instance, $1, given.epoch, {FORMAT}, given.state \
         FROM unnest($2::text[], $3::bigint[], $4::text[]) AS given (instance, epoch, state){} \
         ON CONFLICT (instance) DO UPDATE SET session = excluded.session, epoch = excluded.epoch, \
         format = excluded.format, state = excluded.state",
        owned!()
    );
    Columns::new(text, session, rows).text(rows.iter().map(|row| Some(row.value.clone()))).0
}

/// What an owner hands over, as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Handover {
    pub(super) spending: budget::Carried,
    pub(super) cordoned: BTreeSet<String>,
    pub(super) broadcasts: Option<broadcasts::Carried>,
    /// The freshness of copies; their bodies are written as always. Another release may keep copies of more commands.
    #[serde(deserialize_with = "those_that_are_known")]
    pub(super) copies: Vec<CopyFreshness>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyFreshness {
    pub(super) key: Key,
    pub(super) age_ms: u64,
    pub(super) ended: Ended,
}

fn those_that_are_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CopyFreshness>, D::Error> {
    let copies = Vec::<Box<RawValue>>::deserialize(deserializer)?;
    Ok(copies.iter().filter_map(|copy| serde_json::from_str(copy.get()).ok()).collect())
}

/// An entry as it is written.
pub(super) fn spell(event: &Event) -> serde_json::Result<String> {
    serde_json::to_string(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Body;

    /// Written by the first release, but for the last copy, which is of a command that it does not know.
    const HANDED_OVER: &str = r#"{
        "spending": {"scope": "command", "windows": {
            "listproducts": {"in_flight": 1, "held": [[2, 1500]], "closed_for_ms": 40, "probe": true}
        }},
        "cordoned": ["exon"],
        "broadcasts": {
            "covered_us": 1000,
            "payloads": [
                {"payload": {"read": {"message": "news", "parameters": {"number": 1}}}, "forgiven": 0,
                 "occurrences": [{"at_us": 5, "earliest_us": 6, "by_newcomer": false}],
                 "links": [{"link": 1, "since_us": 9, "frames": 2, "least_missed": 0, "most_missed": 1}]},
                {"payload": {"unreadable": 7}, "forgiven": 1, "occurrences": [], "links": []}
            ],
            "held": [{"payload": 0, "link": 1, "at_us": 1, "earliest_us": 2, "frames": 1,
                      "received_at": "2026-11-29T17:00:00.5Z"}],
            "forgotten_us": null
        },
        "copies": [
            {"key": {"instance": "demo", "command": "listproducts", "pos_id": 1, "password": null},
             "age_ms": 10, "ended": {"ago": 3}},
            {"key": {"instance": "demo", "command": "listdreams", "pos_id": 1, "password": null},
             "age_ms": 10, "ended": "no"}
        ]
    }"#;

    #[test]
    fn what_earlier_releases_handed_over_is_read_and_copies_of_unknown_commands_are_left_out() {
        let read: Handover = serde_json::from_str(HANDED_OVER).unwrap();
        assert!(read.cordoned.contains("exon") && read.spending.windows["listproducts"].probe);
        assert!(read.broadcasts.is_some());
        assert_eq!(read.copies.iter().map(|copy| (copy.age_ms, copy.ended)).collect::<Vec<_>>(), [(10, Ended::Ago(3))]);
    }

    #[test]
    fn what_earlier_releases_wrote_while_they_ran_is_read() {
        for cordons in ["", r#", "cordoned": ["exon"]"#] {
            let text = format!(r#"{{"spending": {{"scope": "instance", "windows": {{}}}}{cordons}}}"#);
            let read: Running = serde_json::from_str(&text).unwrap();
            assert_eq!((read.spending.is_some(), read.cordoned.is_empty()), (true, cordons.is_empty()));
        }
        let key = r#"{"instance": "demo", "command": "listproducts", "pos_id": 1, "password": null}"#;
        assert!(serde_json::from_str::<Key>(key).is_ok());
    }

    #[test]
    fn entries_of_earlier_releases_are_read_and_what_newer_ones_add_is_passed_over() {
        for added in ["", r#", "added": {"later": [1]}"#] {
            let broadcast = format!(
                r#"{{"broadcast": {{"message": "news", "parameters": {{"number": 1}},
                 "received_at": "2026-11-29T17:00:00Z", "maybe_duplicate": true{added}}}}}"#
            );
            let Event::Broadcast(read) = serde_json::from_str(&broadcast).unwrap() else { panic!("no broadcast") };
            assert!(read.maybe_duplicate && read.parameters == Body::from(raw(r#"{"number": 1}"#)));
            let gap = format!(
                r#"{{"gap": {{"from": "2026-11-29T17:00:00Z", "to": "2026-11-29T17:00:01Z", "reason": "not_stored"{added}}}}}"#
            );
            assert!(matches!(serde_json::from_str(&gap).unwrap(), Event::Gap(_)));
        }
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }
}
