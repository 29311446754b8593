-- +goose NO TRANSACTION
-- CockroachDB changes schemas outside of transactions. So each statement stands
-- alone, and may run again after a migration that was cut short.

-- +goose Up

-- A Reference Automation Environment, known by its serial.
CREATE TABLE IF NOT EXISTS rae (
    serial     TEXT        NOT NULL PRIMARY KEY,
    first_seen TIMESTAMPTZ NOT NULL
);

-- A device under test: what its sessions, on whatever RAE, have in common.
CREATE TABLE IF NOT EXISTS device (
    device_id  UUID        NOT NULL PRIMARY KEY,
    created_at TIMESTAMPTZ NOT NULL
);

-- Evidence of which device something is. One value of one kind belongs to one device.
CREATE TABLE IF NOT EXISTS device_identity (
    kind       TEXT        NOT NULL, -- esn, udn, serial, client, mac
    value      TEXT        NOT NULL,
    device_id  UUID        NOT NULL REFERENCES device (device_id),
    session_id UUID        NOT NULL, -- that first brought it
    attribute  TEXT        NOT NULL, -- that held it
    first_seen TIMESTAMPTZ NOT NULL,
    last_seen  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (kind, value)
);
CREATE INDEX IF NOT EXISTS device_identity_device ON device_identity (device_id);

-- One unbroken lineage of a device's record on one RAE: a row of device.State.
CREATE TABLE IF NOT EXISTS device_session (
    session_id UUID NOT NULL PRIMARY KEY,
    rae        TEXT NOT NULL REFERENCES rae (serial),
    device_id  UUID NOT NULL REFERENCES device (device_id),
    identified BOOL NOT NULL DEFAULT false, -- evidence has bound it to its device

    as_of_seq     INT8        NOT NULL DEFAULT 0, -- highest seq applied
    snapshot_seq  INT8        NOT NULL DEFAULT 0, -- of the newest snapshot applied
    snapshot_at   TIMESTAMPTZ,
    snapshot_hash TEXT        NOT NULL DEFAULT '',
    seen          JSONB       NOT NULL DEFAULT '[]', -- [[from,to],…] applied past the snapshot
    missing       JSONB       NOT NULL DEFAULT '[]', -- [[from,to],…] not applied, below as_of_seq
    closed_seq    INT8        NOT NULL DEFAULT 0,    -- 0: open
    close_reason  TEXT        NOT NULL DEFAULT '',

    first_observed TIMESTAMPTZ, -- by the edge's clock
    last_observed  TIMESTAMPTZ, -- by the edge's clock
    received_at    TIMESTAMPTZ, -- Kafka timestamp of the newest record
    applied_at     TIMESTAMPTZ NOT NULL,

    -- Copies of attributes that devices are looked up and listed by, each with
    -- the seq it is of. device_attribute has the truth.
    connection_status     TEXT NOT NULL DEFAULT '',
    connection_status_seq INT8 NOT NULL DEFAULT 0,
    mac                   TEXT NOT NULL DEFAULT '',
    mac_seq               INT8 NOT NULL DEFAULT 0,
    hostname              TEXT NOT NULL DEFAULT '', -- lower case
    hostname_seq          INT8 NOT NULL DEFAULT 0,

    events      INT8 NOT NULL DEFAULT 0,
    records     INT8 NOT NULL DEFAULT 0,
    duplicates  INT8 NOT NULL DEFAULT 0,
    after_close INT8 NOT NULL DEFAULT 0,
    repaired    INT8 NOT NULL DEFAULT 0,
    over_limit  INT8 NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS device_session_device ON device_session (device_id);
CREATE INDEX IF NOT EXISTS device_session_rae ON device_session (rae);
CREATE INDEX IF NOT EXISTS device_session_mac ON device_session (mac);
CREATE INDEX IF NOT EXISTS device_session_hostname ON device_session (hostname);

-- The tables below name a session without a foreign key: their rows are written
-- in the transaction that holds the session's row, and a check for each of them
-- would be work at the hottest place.

-- What an attribute is now. A null value is a tombstone: rows are never deleted,
-- because an older event may still come and must lose.
CREATE TABLE IF NOT EXISTS device_attribute (
    session_id  UUID        NOT NULL,
    name        TEXT        NOT NULL,
    value       JSONB,
    seq         INT8        NOT NULL, -- of the event that set it
    observed_at TIMESTAMPTZ NOT NULL,
    applied_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (session_id, name)
);

-- What an attribute was: every value that device_attribute has had.
CREATE TABLE IF NOT EXISTS attribute_change (
    session_id  UUID        NOT NULL,
    seq         INT8        NOT NULL,
    name        TEXT        NOT NULL,
    value       JSONB,
    observed_at TIMESTAMPTZ NOT NULL,
    applied_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (session_id, seq, name)
);

-- The next Kafka offset that is not yet applied to a session. It is kept with
-- the session: one row a partition would make all its sessions wait in line.
CREATE TABLE IF NOT EXISTS ingest_position (
    session_id  UUID NOT NULL,
    topic       TEXT NOT NULL,
    partition   INT4 NOT NULL,
    next_offset INT8 NOT NULL,
    PRIMARY KEY (session_id, topic, partition)
);

-- Ranges of seq that were missing. ended_by says what became of one: its
-- events came late, a snapshot covered it, or it was narrowed, and what
-- remains of it is a range of its own.
CREATE TABLE IF NOT EXISTS session_gap (
    session_id UUID        NOT NULL,
    from_seq   INT8        NOT NULL,
    to_seq     INT8        NOT NULL,
    opened_at  TIMESTAMPTZ NOT NULL,
    ended_at   TIMESTAMPTZ,
    ended_by   TEXT        NOT NULL DEFAULT '', -- events, snapshot, narrowed
    PRIMARY KEY (session_id, from_seq, to_seq)
);

-- +goose Down
DROP TABLE IF EXISTS session_gap;
DROP TABLE IF EXISTS ingest_position;
DROP TABLE IF EXISTS attribute_change;
DROP TABLE IF EXISTS device_attribute;
DROP TABLE IF EXISTS device_session;
DROP TABLE IF EXISTS device_identity;
DROP TABLE IF EXISTS device;
DROP TABLE IF EXISTS rae;
