//! The statements about sessions and owners. Each write counts only once it is acknowledged by primary and standby.
//!
//! A session's renewal and its end change the same row, so one of them finds what the other did. A claim names the epoch that it
//! follows: sent twice, or late, it has an effect once. It looks for `ended`, never for a missing row: a statement that
//! waited for a row sees that row as it is and all others as they were before, the new owner's session not yet among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::host::Listed;
use super::ownership::{Claim, Ending, HandOver, Offer, Preparation, Row, Timeline};
use super::state;
use crate::database::{Connection, Durability, Ended, Error, Rows, Statement, Transaction, Type};
use crate::tenure::SessionId;

/// How long an answer may take that only tells more about a failure.
const GLANCE: Duration = Duration::from_millis(300);

const REGISTER: &str = "INSERT INTO replica (id, name, address, version, format, instances) \
    VALUES ($1, $2, $3, $4, $5, $6::jsonb)";

const RENEW: &str = "UPDATE replica SET beat = beat + 1, draining = $2, reaches = $3 WHERE id = $1 AND NOT ended \
    RETURNING beat";

const LIST: &str =
    "UPDATE replica SET instances = $2::jsonb, listed = listed + 1 WHERE id = $1 AND NOT ended RETURNING beat";

const TIMELINE: &str = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, \
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint, \
    (SELECT format FROM bridge_schema), current_setting('synchronous_standby_names') <> ''";

const SESSIONS: &str = "SELECT id, name, address, version, format, listed, beat, draining, reaches FROM replica \
    WHERE NOT ended";

const LISTS: &str = "SELECT id, listed, instances::text FROM replica WHERE id = ANY($1)";

const OWNERS: &str = "SELECT instance, session, epoch, next, offered, prepared FROM instance_owner";

/// Those that changed since the oldest transaction was under way that the last reading may not have seen.
const CHANGED_OWNERS: &str =
    "SELECT instance, session, epoch, next, offered, prepared FROM instance_owner WHERE changed >= $1::text::xid8";

const END: &str = "UPDATE replica SET ended = true, ended_at = now(), instances = '[]' \
    WHERE id = $1 AND beat = $2 AND NOT ended \
    AND ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint = $3 RETURNING id";

const END_OWN: &str = "UPDATE replica SET ended = true, ended_at = now(), instances = '[]' WHERE id = $1 AND NOT ended";

/// Long after anything could refer to them.
const SWEEP: &str = "DELETE FROM replica WHERE ended AND ended_at < now() - interval '7 days' \
    AND NOT EXISTS (SELECT FROM instance_owner WHERE session = replica.id)";

const ADD: &str = "INSERT INTO instance_owner (instance) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";

/// The rows are locked in the order of their names, so that two claims never wait for each other.
const CLAIM: &str = "WITH wanted AS (SELECT * FROM unnest($2::text[], $3::bigint[]) AS wanted (instance, after)), \
    locked AS (SELECT instance_owner.instance FROM instance_owner JOIN wanted USING (instance) \
        ORDER BY instance_owner.instance FOR UPDATE OF instance_owner) \
    UPDATE instance_owner AS owner SET session = $1, epoch = owner.epoch + 1, next = NULL, offered = NULL, \
        prepared = NULL, claimed_at = now(), changed = pg_current_xact_id() \
    FROM wanted, locked \
    WHERE owner.instance = wanted.instance AND owner.instance = locked.instance AND owner.epoch = wanted.after \
        AND (owner.session IS NULL OR owner.session = $1 \
            OR EXISTS (SELECT FROM replica WHERE id = owner.session AND ended)) \
        AND EXISTS (SELECT FROM replica WHERE id = $1 AND NOT ended) \
        AND EXISTS (SELECT FROM bridge_schema WHERE format <= $4) \
        AND NOT EXISTS (SELECT FROM event_coverage WHERE instance = owner.instance AND format > $5) \
    RETURNING owner.instance, owner.epoch";

/// Before anything else of a release: whoever writes state of an instance holds its row shared, and may wait for a row of state that
/// the release has written.
const LOCK: &str = "SELECT FROM instance_owner WHERE instance = ANY ($1) ORDER BY instance FOR UPDATE";

const RELEASE: &str = "WITH given AS (SELECT * FROM unnest($2::text[], $3::bigint[], $4::uuid[]) \
        AS given (instance, epoch, next)), \
    locked AS (SELECT instance_owner.instance FROM instance_owner JOIN given USING (instance) \
        ORDER BY instance_owner.instance FOR UPDATE OF instance_owner) \
    UPDATE instance_owner AS owner SET session = NULL, next = given.next, offered = NULL, prepared = NULL, \
        changed = pg_current_xact_id() \
    FROM given, locked \
    WHERE owner.instance = given.instance AND owner.instance = locked.instance \
        AND owner.session = $1 AND owner.epoch = given.epoch";

/// Decides nothing: what is lost of it is written again, or a handover goes without.
const OFFER: &str = "WITH given AS (SELECT * FROM unnest($2::text[], $3::bigint[], $4::uuid[]) \
        AS given (instance, epoch, offered)), \
    locked AS (SELECT instance_owner.instance FROM instance_owner JOIN given USING (instance) \
        ORDER BY instance_owner.instance FOR UPDATE OF instance_owner) \
    UPDATE instance_owner AS owner SET offered = given.offered, prepared = NULL, changed = pg_current_xact_id() \
    FROM given, locked WHERE owner.instance = given.instance AND owner.instance = locked.instance \
        AND owner.session = $1 AND owner.epoch = given.epoch";

const PREPARED: &str = "WITH given AS (SELECT * FROM unnest($2::text[], $3::bigint[]) AS given (instance, epoch)), \
    locked AS (SELECT instance_owner.instance FROM instance_owner JOIN given USING (instance) \
        ORDER BY instance_owner.instance FOR UPDATE OF instance_owner) \
    UPDATE instance_owner AS owner SET prepared = $1, changed = pg_current_xact_id() \
    FROM given, locked WHERE owner.instance = given.instance AND owner.instance = locked.instance \
        AND owner.offered = $1 AND owner.epoch = given.epoch RETURNING owner.session";

/// On which sessions are told to look at once.
pub const CHANNEL: &str = "concertpos_owners";

const HINT: &str = "SELECT pg_notify($2, session::text) FROM unnest($1::uuid[]) AS session";

/// How a session introduces itself.
#[derive(Debug, Clone)]
pub struct Introduction {
    pub name: Arc<str>,
    pub address: Arc<str>,
    pub version: Arc<str>,
    pub format: i32,
}

/// A session as it was read. Its instances are read when `listed` moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub id: SessionId,
    pub introduction: (Arc<str>, Arc<str>, Arc<str>, i32),
    pub listed: i64,
    pub beat: i64,
    pub draining: bool,
    pub reaches: bool,
}

/// What was read in one snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Rows that change later have this transaction, or a later one.
    pub horizon: String,
    pub timeline: Timeline,
    pub format: i32,
    /// Whether commits wait for a standby.
    pub has_standby: bool,
    pub sessions: Vec<SessionRow>,
    pub owners: Vec<(Arc<str>, Row)>,
}

fn misread(what: &'static str) -> Error {
    Error::Misread(what.into())
}

/// A list of instances as it is kept.
fn kept(listed: &[Listed]) -> String {
    serde_json::to_string(listed).unwrap_or_else(|_| "[]".into())
}

pub async fn register(
    connection: &Connection,
    me: SessionId,
    introduction: &Introduction,
    listed: &[Listed],
) -> Ended<Vec<Rows>> {
    let Introduction { name, address, version, format } = introduction;
    let register = Statement::new(REGISTER)
        .uuid(me.as_uuid())
        .text(&**name)
        .text(&**address)
        .text(&**version)
        .bind(*format, Type::INT4)
        .text(kept(listed));
    connection.batch(Durability::On, &[Statement::new(SWEEP), register]).await
}

/// Whether the session goes on; otherwise it has ended.
pub async fn renew(connection: &Connection, me: SessionId, draining: bool, reaches: bool) -> Ended<bool> {
    let renew = Statement::new(RENEW).uuid(me.as_uuid()).bind(draining, Type::BOOL).bind(reaches, Type::BOOL);
    connection.batch(Durability::On, &[renew]).await.map(|rows| has_row(&rows))
}

/// Tells the others which instances this session can serve.
pub async fn list(connection: &Connection, me: SessionId, listed: &[Listed]) -> Ended<bool> {
    let list = Statement::new(LIST).uuid(me.as_uuid()).text(kept(listed));
    connection.batch(Durability::On, &[list]).await.map(|rows| has_row(&rows))
}

fn has_row(rows: &[Rows]) -> bool {
    rows.iter().any(|rows| !rows.is_empty())
}

/// Everything, or what changed since the horizon of an earlier snapshot.
pub async fn read(connection: &Connection, since: Option<&str>) -> Result<Snapshot, Error> {
    let owners = match since {
        Some(horizon) => Statement::new(CHANGED_OWNERS).text(horizon),
        None => Statement::new(OWNERS),
    };
    let read = connection.read(&[Statement::new(TIMELINE), Statement::new(SESSIONS), owners]).await?;
    let [of_database, sessions, owners] = read.as_slice() else { return Err(misread("a snapshot in parts")) };
    let first = of_database.first().ok_or_else(|| misread("no timeline"))?;
    let timeline: i64 = first.try_get(1)?;
    Ok(Snapshot {
        horizon: first.try_get(0)?,
        timeline: Timeline::try_from(timeline).map_err(|_| misread("a timeline out of range"))?,
        format: first.try_get::<_, Option<i32>>(2)?.ok_or_else(|| misread("no schema"))?,
        has_standby: first.try_get(3)?,
        sessions: sessions.iter().map(session_row).collect::<Result<_, _>>()?,
        owners: owners.iter().map(owner_row).collect::<Result<_, _>>()?,
    })
}

fn text(row: &crate::database::Row, at: usize) -> Result<Arc<str>, Error> {
    Ok(row.try_get::<_, String>(at)?.into())
}

fn session_row(row: &crate::database::Row) -> Result<SessionRow, Error> {
    Ok(SessionRow {
        id: SessionId::from(row.try_get::<_, Uuid>(0)?),
        introduction: (text(row, 1)?, text(row, 2)?, text(row, 3)?, row.try_get(4)?),
        listed: row.try_get(5)?,
        beat: row.try_get(6)?,
        draining: row.try_get(7)?,
        reaches: row.try_get(8)?,
    })
}

fn owner_row(row: &crate::database::Row) -> Result<(Arc<str>, Row), Error> {
    let session = |at| -> Result<_, Error> { Ok(row.try_get::<_, Option<Uuid>>(at)?.map(SessionId::from)) };
    let (next, offered, prepared) = (session(3)?, session(4)?, session(5)?);
    Ok((text(row, 0)?, Row { session: session(1)?, epoch: row.try_get(2)?, next, offered, prepared }))
}

/// Whether the database answers a plain read: where it does, and acknowledges nothing, its standby is away.
pub async fn answers(connection: &Connection) -> bool {
    let read = [Statement::new("SELECT 1")];
    matches!(timeout(GLANCE, connection.read(&read)).await, Ok(Ok(_)))
}

/// What these sessions list, with the count that moves when it changes.
pub async fn lists(connection: &Connection, of: Vec<Uuid>) -> Result<BTreeMap<SessionId, (i64, Arc<[Listed]>)>, Error> {
    let rows = connection.read(&[Statement::new(LISTS).bind(of, Type::UUID_ARRAY)]).await?;
    let list = |row: &crate::database::Row| {
        let session = SessionId::from(row.try_get::<_, Uuid>(0)?);
        let listed = serde_json::from_str::<Vec<Listed>>(&row.try_get::<_, String>(2)?);
        // One session's list must not keep all others from going on.
        let listed = listed.inspect_err(|fault| {
            tracing::error!(%session, %fault, "what a replica lists cannot be read: it is taken for one that lists nothing");
        });
        Ok((session, (row.try_get(1)?, listed.unwrap_or_default().into())))
    };
    rows.iter().flatten().map(list).collect()
}

/// Which of these sessions ended by it.
pub async fn end(connection: &Connection, endings: &[Ending]) -> Ended<Vec<SessionId>> {
    let statements: Vec<_> = endings
        .iter()
        .map(|ending| {
            let end = Statement::new(END).uuid(ending.session.as_uuid()).bigint(ending.beat);
            end.bigint(ending.timeline.into())
        })
        .collect();
    let ended = connection.batch(Durability::On, &statements).await;
    ended.map(|rows| {
        rows.iter().flatten().filter_map(|row| Some(SessionId::from(row.try_get::<_, Uuid>(0).ok()?))).collect()
    })
}

pub async fn end_own(connection: &Connection, me: SessionId) -> Ended<Vec<Rows>> {
    connection.batch(Durability::On, &[Statement::new(END_OWN).uuid(me.as_uuid())]).await
}

/// The claims that took effect, with their epochs. The claims are in the order of their instances.
pub async fn claim(
    connection: &Connection,
    (me, format): (SessionId, i32),
    claims: &[Claim],
) -> Ended<Vec<(Arc<str>, i64)>> {
    let mut transaction = match connection.begin(Durability::On).await {
        Ok(transaction) => transaction,
        Err(error) => return Ended::NotDone(error),
    };
    match claim_within(&mut transaction, (me, format), claims).await {
        Ok(claimed) => transaction.commit().await.map(|()| claimed),
        // Dropped before its commit, nothing of it was done.
        Err(error) => Ended::NotDone(error),
    }
}

async fn claim_within(
    transaction: &mut Transaction<'_>,
    (me, format): (SessionId, i32),
    claims: &[Claim],
) -> Result<Vec<(Arc<str>, i64)>, Error> {
    let name = |claim: &Claim| claim.instance.to_string();
    let new: Vec<_> = claims.iter().filter(|claim| claim.after == 0).map(name).collect();
    if !new.is_empty() {
        transaction.run(&Statement::new(ADD).bind(new, Type::TEXT_ARRAY)).await?;
    }
    let claim = Statement::new(CLAIM)
        .uuid(me.as_uuid())
        .bind(claims.iter().map(name).collect::<Vec<_>>(), Type::TEXT_ARRAY)
        .bind(claims.iter().map(|claim| claim.after).collect::<Vec<_>>(), Type::INT8_ARRAY)
        .bind(format, Type::INT4)
        .bind(state::FORMAT, Type::INT4);
    let rows = transaction.run(&claim).await?;
    rows.iter().map(|row| Ok((text(row, 0)?, row.try_get(1)?))).collect()
}

/// Gives these instances up, together with what the next owners begin with. Those that the session did not own in that epoch
/// stay as they are.
pub async fn release(
    connection: &Connection,
    me: SessionId,
    given: &[HandOver],
    state: Vec<Statement>,
) -> Ended<Vec<Rows>> {
    let instances: Vec<_> = given.iter().map(|one| one.instance.to_string()).collect();
    let mut statements = vec![Statement::new(LOCK).bind(instances.clone(), Type::TEXT_ARRAY)];
    statements.extend(state);
    let release = Statement::new(RELEASE)
        .uuid(me.as_uuid())
        .bind(instances, Type::TEXT_ARRAY)
        .bind(given.iter().map(|one| one.epoch).collect::<Vec<_>>(), Type::INT8_ARRAY)
        .bind(given.iter().map(|one| one.next.map(SessionId::as_uuid)).collect::<Vec<_>>(), Type::UUID_ARRAY);
    statements.push(release);
    connection.batch(Durability::On, &statements).await
}

/// Offers these instances, or no longer. Whoever is offered one is told to look.
pub async fn offer(connection: &Connection, me: SessionId, offers: &[Offer]) {
    let offer = Statement::new(OFFER)
        .uuid(me.as_uuid())
        .bind(offers.iter().map(|one| one.instance.to_string()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
        .bind(offers.iter().map(|one| one.epoch).collect::<Vec<_>>(), Type::INT8_ARRAY)
        .bind(offers.iter().map(|one| one.to.map(SessionId::as_uuid)).collect::<Vec<_>>(), Type::UUID_ARRAY);
    if connection.batch(Durability::Local, &[offer]).await.done().is_some() {
        hint(connection, offers.iter().filter_map(|one| one.to)).await;
    }
}

/// The connections of these instances have been open for long enough. Their owners are told to look.
pub async fn prepared(connection: &Connection, me: SessionId, prepared: &[Preparation]) {
    let statement = Statement::new(PREPARED)
        .uuid(me.as_uuid())
        .bind(prepared.iter().map(|(instance, _)| instance.to_string()).collect::<Vec<_>>(), Type::TEXT_ARRAY)
        .bind(prepared.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>(), Type::INT8_ARRAY);
    if let Some(rows) = connection.batch(Durability::Local, &[statement]).await.done() {
        let owners = rows.iter().flatten().filter_map(|row| row.try_get::<_, Option<Uuid>>(0).ok()?);
        hint(connection, owners.map(SessionId::from)).await;
    }
}

/// Tells sessions to look at once. In a transaction of its own that waits for no standby: one that did would hold up every other
/// notification of the server while the standby is away.
pub async fn hint(connection: &Connection, sessions: impl Iterator<Item = SessionId>) {
    let sessions: BTreeSet<Uuid> = sessions.map(SessionId::as_uuid).collect();
    if sessions.is_empty() {
        return;
    }
    let sessions: Vec<_> = sessions.into_iter().collect();
    // Without it they look a second later.
    let _ = connection
        .batch(Durability::Local, &[Statement::new(HINT).bind(sessions, Type::UUID_ARRAY).text(CHANNEL)])
        .await;
}
