-- Names are compared byte by byte: an index must not depend on the collation of a library that is upgraded beneath it.
-- JSON is kept as text, since bodies of the gateway are answered as they came.

CREATE TABLE bridge_schema (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format integer NOT NULL,
    migrated_at timestamptz NOT NULL DEFAULT now()
);

-- Which database this is, as it was when it was last confirmed.
CREATE TABLE database_mark (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- The cluster of databases, and the database in it.
    system text NOT NULL,
    timeline bigint NOT NULL,
    -- The transaction that wrote this row. A dump that is restored writes it anew, and does not change this.
    written_by bigint NOT NULL,
    -- How it showed that it was restored, until an operator confirms.
    restored text,
    confirmed_at timestamptz NOT NULL DEFAULT now()
);

-- What each process had acknowledged last, counted. One that was killed leaves its row behind.
CREATE TABLE database_witness (
    id uuid PRIMARY KEY,
    acknowledged bigint NOT NULL
);

CREATE TABLE replica (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    address text NOT NULL,
    version text NOT NULL,
    format integer NOT NULL,
    instances jsonb NOT NULL DEFAULT '[]',
    -- Moves when the instances change: they are read only then.
    listed bigint NOT NULL DEFAULT 0,
    beat bigint NOT NULL DEFAULT 0,
    draining boolean NOT NULL DEFAULT false,
    -- The gateway, as far as the session knows.
    reaches boolean NOT NULL DEFAULT true,
    ended boolean NOT NULL DEFAULT false,
    ended_at timestamptz,
    began_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX replica_live ON replica (id) WHERE NOT ended;

CREATE TABLE instance_owner (
    instance text COLLATE "C" PRIMARY KEY,
    session uuid,
    epoch bigint NOT NULL DEFAULT 0,
    next uuid,
    offered uuid,
    prepared uuid,
    claimed_at timestamptz,
    -- The transaction that wrote the row last. Read from the oldest that was still under way at the last look.
    changed xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX instance_owner_changed ON instance_owner (changed);
CREATE INDEX instance_owner_session ON instance_owner (session);

CREATE TABLE payment (
    id uuid PRIMARY KEY,
    instance text COLLATE "C" NOT NULL,
    caller text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- What a person decides by; `written` counts every write of the row.
    revision bigint NOT NULL,
    written bigint NOT NULL DEFAULT 1,
    state smallint NOT NULL,
    frees_key boolean NOT NULL,
    pos_id bigint NOT NULL,
    created_ms bigint NOT NULL,
    -- When the gateway had counted it at the latest, where it may have.
    sent_until_ms bigint,
    -- By the age of the journal: when it ended, and since when no owner of before can tell of it.
    ended_age_ms bigint,
    taken_over_age_ms bigint,
    -- Who dispatched it.
    session uuid,
    epoch bigint NOT NULL DEFAULT 0,
    fingerprint bytea NOT NULL,
    record text NOT NULL
);
-- Whatever else fails, no key is dispatched twice.
CREATE UNIQUE INDEX payment_key_taken ON payment (instance, caller, key) WHERE NOT frees_key;
CREATE INDEX payment_key ON payment (instance, key, caller, id);
CREATE INDEX payment_state ON payment (instance, state, id);
CREATE INDEX payment_caller ON payment (instance, caller, id);
CREATE INDEX payment_created ON payment (instance, created_ms);
CREATE INDEX payment_instance ON payment (instance, id);
CREATE INDEX payment_ended ON payment (ended_age_ms) WHERE ended_age_ms IS NOT NULL;
CREATE INDEX payment_sent ON payment (sent_until_ms) WHERE sent_until_ms IS NOT NULL;

-- What could not be read of records that a readable one took the place of.
CREATE TABLE payment_replaced (
    id uuid NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT now(),
    state smallint NOT NULL,
    record text NOT NULL
);

-- Milliseconds that the journal was in use: by this records expire, whatever becomes of the wall clock.
CREATE TABLE journal_age (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    age_ms bigint NOT NULL DEFAULT 0,
    -- The greatest id that has expired.
    newest uuid
);
INSERT INTO journal_age DEFAULT VALUES;

-- Embedded journals that were carried over whole.
CREATE TABLE journal_import (
    -- The id in the name of its file.
    journal uuid PRIMARY KEY,
    records bigint NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE spending (
    instance text COLLATE "C" PRIMARY KEY,
    session uuid NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL,
    written_ms bigint NOT NULL
);

CREATE TABLE event_log (
    instance text COLLATE "C" NOT NULL,
    log_epoch text NOT NULL,
    position bigint NOT NULL,
    entry text NOT NULL,
    logged_ms bigint NOT NULL,
    PRIMARY KEY (instance, log_epoch, position)
);

CREATE TABLE event_coverage (
    instance text COLLATE "C" PRIMARY KEY,
    session uuid NOT NULL,
    epoch bigint NOT NULL,
    log_epoch text NOT NULL,
    -- On which the log was written whole.
    timeline text NOT NULL,
    -- Where it is not that of the session.
    covered_until_ms bigint,
    format integer NOT NULL
);
CREATE INDEX event_coverage_session ON event_coverage (session);

-- Until when the instances of a session had received everything that was broadcast, but for those that say otherwise.
CREATE TABLE session_coverage (
    session uuid PRIMARY KEY,
    covered_until_ms bigint NOT NULL
);

-- What the owner of this epoch told as its last, when it gave the instance up.
CREATE TABLE handed_over (
    instance text COLLATE "C" PRIMARY KEY,
    session uuid NOT NULL,
    epoch bigint NOT NULL,
    format integer NOT NULL,
    state text NOT NULL
);

CREATE TABLE copy (
    instance text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    written_ms bigint NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (instance, key)
);
