//! Reads what earlier owners left of instances that were just claimed.
//!
//! In one snapshot after the claim was acknowledged: from then on no earlier owner writes anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::carried::{Carried, Former, HandedOver};
use super::rows::{FORMAT, Handover, Running};
use crate::broadcasts::{CarriedLog, Epoch, Event, Left};
use crate::cache::{CarriedCopy, Ended, Key};
use crate::cluster::config::MARGIN;
use crate::database::{Connection, Error, Row, Rows, Statement, Type};
use crate::protocol::Body;

/// How many copies of an instance are read, the newest first.
const MOST_COPIES: i64 = 2000;

/// The most that the bodies of an instance's copies may take that are read, in bytes.
const MOST_COPY_BYTES: i64 = 64 << 20;

/// For how long at least a session could not act any more that others ended: it gave up a margin before its lease was over, and they
/// waited a margin longer.
const ENDED_FOR: Duration = MARGIN.saturating_mul(2);

/// How many instances are read at once.
const AT_ONCE: usize = 64;

const COVERAGE: &str = "SELECT state.instance, state.log_epoch, state.timeline, \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint - coalesce(state.covered_until_ms, session.covered_until_ms), \
    coalesce((SELECT max(position) FROM event_log WHERE event_log.instance = state.instance \
        AND event_log.log_epoch = state.log_epoch), 0), \
    state.epoch, EXISTS (SELECT FROM replica WHERE id = state.session AND ended AND NOT draining) \
    FROM event_coverage AS state LEFT JOIN session_coverage AS session ON session.session = state.session \
    WHERE state.instance = ANY ($1) AND state.format <= $2";

const ENTRIES: &str = "SELECT state.instance, log.position, log.entry, \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint - log.logged_ms FROM event_coverage AS state, \
    LATERAL (SELECT position, entry, logged_ms FROM event_log WHERE event_log.instance = state.instance \
        AND event_log.log_epoch = state.log_epoch ORDER BY position DESC LIMIT $2) AS log \
    WHERE state.instance = ANY ($1) ORDER BY state.instance, log.position";

const SPENDING: &str = "SELECT instance, epoch, state FROM spending WHERE instance = ANY ($1)";

const HANDED_OVER: &str = "SELECT instance, epoch, state FROM handed_over WHERE instance = ANY ($1) AND format <= $2";

const COPIES: &str = "SELECT instance, key, body, \
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint - written_ms FROM ( \
        SELECT *, row_number() OVER newest AS number, sum(octet_length(body)) OVER newest AS bytes FROM copy \
        WHERE instance = ANY ($1) WINDOW newest AS (PARTITION BY instance ORDER BY written_ms DESC, key) \
    ) AS copy WHERE number <= $2 AND bytes <= $3";

/// What is read of an instance, before it is known whether it was handed over.
#[derive(Debug, Default)]
struct Found {
    log: Option<CarriedLog>,
    timeline: Option<String>,
    /// The owner of this epoch left without a word: others ended its session.
    was_ended: Option<i64>,
    covered_ago: Option<Duration>,
    logged_ago: HashMap<u64, Duration>,
    spending: Option<(i64, String)>,
    handed_over: Option<(i64, String)>,
    copies: Vec<(Key, Body, Duration)>,
}

/// What is found of each of these instances, which are claimed in these epochs, on a database of this timeline.
pub(super) async fn load(
    connection: &Connection,
    claims: &[(Arc<str>, i64)],
    timeline: &str,
    history: usize,
) -> Result<HashMap<Arc<str>, Carried>, Error> {
    let mut carried = HashMap::with_capacity(claims.len());
    for claims in claims.chunks(AT_ONCE) {
        let asked = Instant::now();
        let mut found = read(connection, claims, history).await?;
        for (instance, epoch) in claims {
            let found = found.remove(&**instance).unwrap_or_default();
            carried.insert(Arc::clone(instance), judge((instance, *epoch), found, timeline, asked));
        }
    }
    Ok(carried)
}

async fn read(
    connection: &Connection,
    claims: &[(Arc<str>, i64)],
    history: usize,
) -> Result<BTreeMap<String, Found>, Error> {
    let names: Vec<String> = claims.iter().map(|(instance, _)| instance.to_string()).collect();
    let of_these = |text: &'static str| Statement::new(text).bind(names.clone(), Type::TEXT_ARRAY);
    let history = i64::try_from(history).unwrap_or(i64::MAX);
    let rows = connection
        .read(&[
            of_these(COVERAGE).bind(FORMAT, Type::INT4),
            of_these(ENTRIES).bigint(history),
            of_these(SPENDING),
            of_these(HANDED_OVER).bind(FORMAT, Type::INT4),
            of_these(COPIES).bigint(MOST_COPIES).bigint(MOST_COPY_BYTES),
        ])
        .await?;
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let [coverage, entries, spending, handed_over, copies] =
        <[Rows; 5]>::try_from(rows).map_err(|_| Error::Misread("it answered another number of statements".into()))?;
    for row in &coverage {
        let of = found.entry(row.try_get(0)?).or_default();
        let (log_epoch, newest): (String, i64) = (row.try_get(1)?, row.try_get(4)?);
        let newest = u64::try_from(newest).unwrap_or_default();
        of.log = Epoch::parse(&log_epoch).map(|epoch| CarriedLog { epoch, newest, entries: Vec::new() });
        of.timeline = row.try_get(2)?;
        of.was_ended = Some(row.try_get(5)?).filter(|_| row.try_get(6).unwrap_or_default());
        of.covered_ago = row.try_get::<_, Option<i64>>(3)?.map(millis);
    }
    for row in &entries {
        note_entry(&mut found, row)?;
    }
    for row in &spending {
        found.entry(row.try_get(0)?).or_default().spending = Some((row.try_get(1)?, row.try_get(2)?));
    }
    for row in &handed_over {
        found.entry(row.try_get(0)?).or_default().handed_over = Some((row.try_get(1)?, row.try_get(2)?));
    }
    for row in &copies {
        note_copy(&mut found, row)?;
    }
    Ok(found)
}

/// An entry that cannot be read ends the log before it: listeners are told of what is missing.
fn note_entry(found: &mut BTreeMap<String, Found>, row: &Row) -> Result<(), Error> {
    let (instance, position, entry): (String, i64, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let Some(found) = found.get_mut(&instance) else { return Ok(()) };
    let Some(log) = &mut found.log else { return Ok(()) };
    let offset = u64::try_from(position).unwrap_or_default();
    found.logged_ago.insert(offset, millis(row.try_get(3)?));
    match serde_json::from_str::<Event>(entry) {
        Ok(event) => {
            let follows = log.entries.last().is_none_or(|(last, _)| last + 1 == offset);
            if !follows {
                log.entries.clear();
            }
            log.entries.push((offset, event));
        }
        Err(fault) => {
            tracing::error!(instance, position, %fault, "an entry of the event log cannot be read");
            log.entries.clear();
        }
    }
    Ok(())
}

/// A copy that cannot be read is left out.
fn note_copy(found: &mut BTreeMap<String, Found>, row: &Row) -> Result<(), Error> {
    let (key, body, age_ms): (&[u8], &str, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let body = serde_json::from_str::<&RawValue>(body).map(Body::from);
    if let (Ok(key), Ok(body)) = (serde_json::from_slice::<Key>(key), body)
        && body.is_object()
    {
        found.entry(row.try_get(0)?).or_default().copies.push((key, body, millis(age_ms)));
    }
    Ok(())
}

/// What lies ahead by the database's clock was set back, or failed over: it counts as now.
fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

fn judge((instance, epoch): (&str, i64), found: Found, timeline: &str, asked: Instant) -> Carried {
    let Found { log, timeline: written_on, was_ended, covered_ago, logged_ago, spending, handed_over, copies } = found;
    // Of an earlier claim, it is not the last that was: somebody acted since.
    let handed_over = handed_over.filter(|(of, _)| of + 1 == epoch).and_then(|(_, state)| {
        let read = serde_json::from_str::<Handover>(&state);
        read.inspect_err(|fault| tracing::error!(instance, %fault, "what was handed over cannot be read")).ok()
    });
    // What was handed over was acknowledged by the standby, and with it everything before.
    let is_whole = handed_over.is_some() || written_on.is_some_and(|on| on == timeline);
    let log = log.filter(|_| is_whole);
    let running = spending.and_then(|(of, state)| {
        let read = serde_json::from_str::<Running>(&state).ok().filter(|_| !state.is_empty());
        read.map(|running| (of, running))
    });
    let (of, Running { spending, cordoned }) = running.unwrap_or_default();
    let is_first = epoch == 1;
    let left = Left { covered_ago, logged_ago };
    let gone_for = if was_ended.is_some_and(|of| of + 1 == epoch) { ENDED_FOR } else { Duration::ZERO };
    let whole = Carried { is_first, log, left, gone_for, asked: Some(asked), cordoned, ..Carried::default() };
    if let Some(handed_over) = handed_over {
        let cordoned = handed_over.cordoned.clone();
        return Carried { cordoned, handed_over: Some(Box::new(with_bodies(handed_over, copies))), ..whole };
    }
    let spending = spending.filter(|_| of + 1 == epoch);
    Carried { former: Former { spending, copies }, ..whole }
}

/// A copy of which no freshness was told came later, or was too many: it is of no known freshness.
fn with_bodies(handed_over: Handover, copies: Vec<(Key, Body, Duration)>) -> HandedOver {
    let Handover { spending, broadcasts, copies: freshness, .. } = handed_over;
    let mut freshness: HashMap<Key, (u64, Ended)> =
        freshness.into_iter().map(|copy| (copy.key, (copy.age_ms, copy.ended))).collect();
    let copies = copies.into_iter().map(|(key, body, age)| {
        let unknown = || (u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Ended::Unknown);
        let (age_ms, ended) = freshness.remove(&key).unwrap_or_else(unknown);
        CarriedCopy { key, body, age_ms, ended }
    });
    HandedOver { spending, broadcasts, copies: copies.collect() }
}
