//! The SQL of the journal.
//!
//! What is written is given as arrays, a row each, so that one statement writes a whole batch and tells by the ids that it
//! returns which rows it wrote: a condition that does not hold costs its own row only.

/// What `rows::Row` is read from.
macro_rules! columns {
    () => {
        "p.id, p.instance, p.caller, p.key, p.pos_id, p.created_ms, p.state, p.written, p.frees_key, \
         p.taken_over_age_ms, p.fingerprint, p.record"
    };
}

/// The parameters of every statement that writes records, in the order of `columns::Columns`.
macro_rules! given {
    () => {
        "given AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], \
         $6::bigint[], $7::smallint[], $8::boolean[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], \
         $13::bigint[], $14::uuid[], $15::bigint[], $16::bytea[], $17::text[]) AS u(id, instance, caller, key, revision, \
         written, state, frees_key, pos_id, created_ms, sent_until_ms, ended_age_ms, taken_over_age_ms, session, epoch, \
         fingerprint, record))"
    };
}

/// The instances among them that are still owned under the given session and epoch; held so until the commit. A takeover
/// that came before is waited for and seen.
macro_rules! owned {
    () => {
        "owned AS MATERIALIZED (SELECT o.instance, o.session, o.epoch FROM instance_owner o \
         JOIN (SELECT DISTINCT instance, session, epoch FROM given) g \
         ON o.instance = g.instance AND o.session = g.session AND o.epoch = g.epoch ORDER BY o.instance FOR SHARE OF o)"
    };
}

macro_rules! insert {
    () => {
        "INSERT INTO payment (id, instance, caller, key, revision, state, frees_key, pos_id, created_ms, sent_until_ms, \
         ended_age_ms, taken_over_age_ms, session, epoch, fingerprint, record) \
         SELECT u.id, u.instance, u.caller, u.key, u.revision, u.state, u.frees_key, u.pos_id, u.created_ms, \
         u.sent_until_ms, u.ended_age_ms, u.taken_over_age_ms, u.session, u.epoch, u.fingerprint, u.record FROM given u"
    };
}

macro_rules! changed {
    ($given:literal, $old:literal) => {
        concat!(
            "revision = ",
            $given,
            ".revision, written = ",
            $old,
            ".written + 1, state = ",
            $given,
            ".state, frees_key = ",
            $given,
            ".frees_key, sent_until_ms = ",
            $given,
            ".sent_until_ms, ended_age_ms = ",
            $given,
            ".ended_age_ms, taken_over_age_ms = coalesce(",
            $given,
            ".taken_over_age_ms, ",
            $old,
            ".taken_over_age_ms), fingerprint = ",
            $given,
            ".fingerprint, record = ",
            $given,
            ".record"
        )
    };
}

/// Records payments as on their way: only under the owner's token, no key that is taken, and only where all is there that this
/// process had acknowledged.
pub(crate) const DISPATCH: &str = concat!(
    "WITH ",
    given!(),
    ", ",
    owned!(),
    " ",
    insert!(),
    " JOIN owned o ON o.instance = u.instance AND o.session = u.session AND o.epoch = u.epoch \
     WHERE EXISTS (SELECT FROM database_witness w WHERE w.id = $18 AND w.acknowledged >= $19) \
     AND EXISTS (SELECT FROM database_mark m WHERE m.restored IS NULL) ORDER BY u.id \
     ON CONFLICT DO NOTHING RETURNING id"
);

/// Records what was heard, whoever owns the instance by now, where the record is as it was when that was decided.
pub(crate) const HEARD: &str = concat!(
    "WITH ",
    given!(),
    " UPDATE payment p SET ",
    changed!("u", "p"),
    " FROM given u WHERE p.id = u.id AND p.written = u.written RETURNING p.id"
);

/// The same for what begins something: only under the owner's token.
pub(crate) const SETTLE: &str = concat!(
    "WITH ",
    given!(),
    ", ",
    owned!(),
    " UPDATE payment p SET ",
    changed!("u", "p"),
    " FROM given u JOIN owned o ON o.instance = u.instance AND o.session = u.session AND o.epoch = u.epoch \
     WHERE p.id = u.id AND p.written = u.written RETURNING p.id"
);

/// Records payments that never left as released, whether or not the commit that recorded them as on their way is through,
/// under way or lost: an insert waits for one that is under way, an update would not find it.
pub(crate) const RELEASE: &str = concat!(
    "WITH ",
    given!(),
    " ",
    insert!(),
    " ORDER BY u.id ON CONFLICT (id) DO UPDATE SET ",
    changed!("excluded", "payment"),
    " WHERE payment.state IN (1, 3) RETURNING id"
);

/// Writes records as they are: what is acknowledged was on record.
pub(crate) const CONFIRM: &str = "UPDATE payment p SET written = p.written \
    FROM unnest($1::uuid[], $2::bigint[]) AS u(id, written) WHERE p.id = u.id AND p.written = u.written RETURNING p.id";

/// Keeps the bytes of records that could not be read, before others take their places.
pub(crate) const KEEP_BYTES: &str =
    "INSERT INTO payment_replaced (id, state, record) SELECT id, state, record FROM payment WHERE id = ANY($1::uuid[])";

pub(crate) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM payment p WHERE p.id = ANY($1::uuid[])");

/// Of each key the attempt that decides: the one that holds it, else the latest.
pub(crate) const CURRENT_OF_MANY: &str = concat!(
    "SELECT DISTINCT ON (p.instance, p.caller, p.key) ",
    columns!(),
    " FROM payment p \
     JOIN unnest($1::text[], $2::text[], $3::text[]) AS u(instance, caller, key) \
     ON p.instance = u.instance AND p.caller = u.caller AND p.key = u.key \
     ORDER BY p.instance, p.caller, p.key, p.frees_key, p.id DESC"
);

/// A page, which ends with the record that exceeds so many bytes; and how many there were before that.
pub(crate) const LIST: &str = concat!(
    "WITH p AS MATERIALIZED (SELECT p.*, sum(octet_length(p.record)) OVER (ORDER BY p.id DESC) - octet_length(p.record) \
     AS bytes_before FROM payment p WHERE p.instance = $1 AND ($2::text IS NULL OR p.caller = $2) \
     AND ($3::text IS NULL OR p.key = $3) AND ($4::smallint IS NULL OR p.state = $4) \
     AND ($5::bigint IS NULL OR p.pos_id = $5) AND ($6::bigint IS NULL OR p.created_ms >= $6) \
     AND ($7::bigint IS NULL OR p.created_ms < $7) AND ($8::uuid IS NULL OR p.id < $8) \
     ORDER BY p.id DESC LIMIT $9) SELECT ",
    columns!(),
    ", (SELECT count(*) FROM p) AS found \
     FROM p WHERE p.bytes_before < $10 ORDER BY p.id DESC"
);

pub(crate) const COUNTS: &str = "SELECT instance, state, count(*) FROM payment GROUP BY instance, state";

pub(crate) const SENT_SINCE: &str =
    "SELECT instance, sent_until_ms FROM payment WHERE sent_until_ms >= $1 ORDER BY sent_until_ms DESC LIMIT 100000";

/// Those that an owner of before left on their way.
pub(crate) const LEFT_ON_THEIR_WAY: &str =
    "SELECT id FROM payment WHERE instance = $1 AND state = 1 AND epoch < $2 ORDER BY id";

/// The journal's age, and the greatest id that was ever given out.
pub(crate) const AGE: &str = "SELECT age_ms, (SELECT greatest(j.newest, \
    (SELECT id FROM payment ORDER BY id DESC LIMIT 1))) FROM journal_age j";

/// Lets the journal age and forgets what has expired: of the instances of this session, and of those that nobody owns.
pub(crate) const EXPIRE: &str = "WITH due AS (SELECT p.id FROM payment p \
    LEFT JOIN instance_owner o ON o.instance = p.instance LEFT JOIN replica r ON r.id = o.session AND NOT r.ended \
    WHERE p.ended_age_ms <= $1 AND (r.id IS NULL OR o.session = $2) ORDER BY p.ended_age_ms LIMIT 256 \
    FOR UPDATE OF p SKIP LOCKED), \
    gone AS (DELETE FROM payment WHERE id IN (SELECT id FROM due) RETURNING id) \
    UPDATE journal_age SET age_ms = greatest(age_ms, $3), \
    newest = greatest(newest, (SELECT id FROM gone ORDER BY id DESC LIMIT 1)) \
    RETURNING age_ms, (SELECT count(*) FROM gone)";

/// Proves that the database takes writes.
pub(crate) const PROVE: &str = "UPDATE journal_age SET age_ms = greatest(age_ms, $1)";

/// How the transaction of an import differs from that of a payment.
pub(crate) const IMPORT_SETTINGS: [&str; 3] = [
    "SET LOCAL statement_timeout = '60s'",
    "SET LOCAL lock_timeout = '10s'",
    "SET LOCAL idle_in_transaction_session_timeout = '10min'",
];

/// One import at a time. Free once the commit of the one before is acknowledged, or given up.
pub(crate) const IMPORT_LOCK: &str = "SELECT pg_advisory_xact_lock(7238905102)";

/// The journal's age, and whether an import is done.
pub(crate) const IMPORT_BEGUN: &str =
    "SELECT j.age_ms, EXISTS (SELECT FROM journal_import i WHERE i.journal = $1) FROM journal_age j";

/// Records of an embedded journal, but for those that are there and those whose keys are taken.
pub(crate) const IMPORT: &str =
    concat!("WITH ", given!(), " ", insert!(), " ORDER BY u.id ON CONFLICT DO NOTHING RETURNING id");

/// Bytes that no key leads to, each once.
pub(crate) const IMPORT_BYTES: &str = "INSERT INTO payment_replaced (id, state, record) SELECT u.id, u.state, u.record \
    FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS u(id, state, record) \
    WHERE NOT EXISTS (SELECT FROM payment_replaced r WHERE r.id = u.id AND r.record = u.record)";

/// No id is given out again.
pub(crate) const IMPORT_NEWEST: &str = "UPDATE journal_age SET newest = greatest(newest, $1)";

pub(crate) const IMPORT_DONE: &str = "INSERT INTO journal_import AS i (journal, records) VALUES ($1, $2) \
    ON CONFLICT (journal) DO UPDATE SET records = i.records";

/// Those of these imports that this database knows nothing of.
pub(crate) const NOT_IMPORTED: &str = "SELECT u.id FROM unnest($1::uuid[]) AS u(id) \
    WHERE NOT EXISTS (SELECT FROM journal_import i WHERE i.journal = u.id)";
