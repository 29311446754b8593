-- +goose NO TRANSACTION
-- CockroachDB changes schemas outside of transactions. So each statement stands
-- alone, and may run again after a migration that was cut short.

-- +goose Up

-- A Reference Automation Environment, known by its serial.
CREATE TABLE IF NOT EXISTS rae (
    serial     TEXT        NOT NULL PRIMARY KEY,
    first_seen TIMESTAMPTZ NOT NULL,
    lab        TEXT        NOT NULL DEFAULT 'default' -- the scope in which evidence identifies
);

-- A device under test: what its sessions, on whatever RAE, have in common.
CREATE TABLE IF NOT EXISTS device (
    device_id  UUID        NOT NULL PRIMARY KEY,
    created_at TIMESTAMPTZ NOT NULL
);

-- One unbroken lineage of a device's record on one RAE: a row of device.State.
CREATE TABLE IF NOT EXISTS device_session (
    session_id UUID NOT NULL PRIMARY KEY,
    rae        TEXT NOT NULL REFERENCES rae (serial),
    device_id  UUID NOT NULL REFERENCES device (device_id),
    identified BOOL NOT NULL DEFAULT false, -- the session has brought strong evidence

    -- Which apply the row is of: how many there were, and the ID of the last.
    revision INT8 NOT NULL DEFAULT 0,
    apply_id TEXT NOT NULL DEFAULT '', -- '': of one that named none

    as_of_seq     INT8        NOT NULL DEFAULT 0, -- highest seq applied
    snapshot_seq  INT8        NOT NULL DEFAULT 0, -- of the newest snapshot applied
    snapshot_at   TIMESTAMPTZ,
    snapshot_hash TEXT        NOT NULL DEFAULT '',
    seen          JSONB       NOT NULL DEFAULT '[]', -- [[from,to],…] applied past the snapshot
    missing       JSONB       NOT NULL DEFAULT '[]', -- [[from,to],…] not applied, below as_of_seq
    closed_seq    INT8        NOT NULL DEFAULT 0,    -- 0: open
    close_reason  TEXT        NOT NULL DEFAULT '',
    close_kind    TEXT        NOT NULL DEFAULT '', -- edge: final; cloud: an event past it reopens; '': open

    first_observed TIMESTAMPTZ, -- when the edge first observed the device, by its clock
    last_observed  TIMESTAMPTZ, -- and last: a snapshot is no observation
    received_at    TIMESTAMPTZ, -- Kafka timestamp of the newest record
    changed_at     TIMESTAMPTZ, -- Kafka timestamp of the newest record that changed something
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
    over_limit  INT8 NOT NULL DEFAULT 0,
    stale       INT8 NOT NULL DEFAULT 0, -- attribute writes that lost against a newer seq
    reopened    INT8 NOT NULL DEFAULT 0  -- times that an event past a provisional close came
);
CREATE INDEX IF NOT EXISTS device_session_device ON device_session (device_id);
CREATE INDEX IF NOT EXISTS device_session_mac ON device_session (mac);
CREATE INDEX IF NOT EXISTS device_session_hostname ON device_session (hostname);
-- For the other sessions of a MAC on an RAE, whichever of the two has more rows:
-- a young database has no statistics that say it.
CREATE INDEX IF NOT EXISTS device_session_rae_mac ON device_session (rae, mac);

-- Most tables below name a session without a foreign key: their rows are written
-- in the transaction that holds the session's row, and a check for each of them
-- would be work at the hottest place.

-- What an attribute is now. A null value is a tombstone: an older event may still
-- come and must lose against it, until a snapshot holds in its place.
CREATE TABLE IF NOT EXISTS device_attribute (
    session_id  UUID        NOT NULL,
    name        TEXT        NOT NULL,
    value       JSONB,
    seq         INT8        NOT NULL, -- of the event that set it
    observed_at TIMESTAMPTZ NOT NULL,
    received_at TIMESTAMPTZ, -- at the latest: Kafka timestamp of the batch's newest record; null: unknown
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
    received_at TIMESTAMPTZ, -- as in device_attribute
    applied_at  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (session_id, seq, name)
);

-- The next Kafka offset that is not yet applied to a session. It is kept with
-- the session: one row a partition would make all its sessions wait in line.
-- topic_id says of which log: a topic that was deleted and made again is another.
CREATE TABLE IF NOT EXISTS ingest_position (
    session_id  UUID NOT NULL,
    topic       TEXT NOT NULL,
    topic_id    TEXT NOT NULL DEFAULT '', -- UUID; '': the broker has none
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

-- A session's network interface, as its network.* attributes tell of it. The
-- edge keeps a session for a MAC, so that a session has one.
CREATE TABLE IF NOT EXISTS network_interface (
    session_id UUID        NOT NULL PRIMARY KEY,
    mac        TEXT        NOT NULL DEFAULT '',
    mac_local  BOOL        NOT NULL DEFAULT false, -- locally administered
    ipv4       TEXT        NOT NULL DEFAULT '',    -- '': it has none now
    ipv6       JSONB       NOT NULL DEFAULT '[]',
    hostname   TEXT        NOT NULL DEFAULT '',
    first_seen TIMESTAMPTZ NOT NULL, -- when its MAC was told first
    changed_at TIMESTAMPTZ NOT NULL  -- observed time of the newest change
);

-- Which device a piece of evidence leads to, in a lab. The key is what keeps two
-- transactions from making two devices of one ESN.
CREATE TABLE IF NOT EXISTS identity_owner (
    lab       TEXT NOT NULL,
    kind      TEXT NOT NULL, -- esn, udn, serial, client, mac
    value     TEXT NOT NULL,
    device_id UUID NOT NULL REFERENCES device (device_id),
    PRIMARY KEY (lab, kind, value)
);
CREATE INDEX IF NOT EXISTS identity_owner_device ON identity_owner (device_id);

-- The timeline: which attribute of which session held which evidence, from when
-- to when.
CREATE TABLE IF NOT EXISTS device_identity (
    kind       TEXT        NOT NULL,
    value      TEXT        NOT NULL,
    device_id  UUID        NOT NULL REFERENCES device (device_id),
    session_id UUID        NOT NULL,
    attribute  TEXT        NOT NULL,
    from_seq   INT8        NOT NULL, -- of the event that set it
    to_seq     INT8,                 -- of the event that ended it
    valid_from TIMESTAMPTZ NOT NULL, -- observed
    valid_to   TIMESTAMPTZ,          -- observed; null: the session has it
    PRIMARY KEY (session_id, attribute, kind, value, from_seq)
);
CREATE INDEX IF NOT EXISTS device_identity_device ON device_identity (device_id);

-- Two devices that one session's evidence leads to, and what became of it. Where
-- it is contested, device_b is held by a session of another RAE: the claim is
-- honoured when that lets go, unless a person has decided before.
CREATE TABLE IF NOT EXISTS identity_conflict (
    conflict_id UUID        NOT NULL PRIMARY KEY, -- of the devices' pair
    device_a    UUID        NOT NULL,             -- that the session belongs to
    kind_a      TEXT        NOT NULL DEFAULT '',  -- the session's strongest evidence of it
    value_a     TEXT        NOT NULL DEFAULT '',
    device_b    UUID        NOT NULL,
    kind_b      TEXT        NOT NULL,
    value_b     TEXT        NOT NULL,
    session_id  UUID        NOT NULL,
    contested   BOOL        NOT NULL DEFAULT false,
    noted_at    TIMESTAMPTZ NOT NULL,
    decision    TEXT        NOT NULL DEFAULT '', -- '': open; merged, kept-apart, withdrawn
    decided_by  TEXT        NOT NULL DEFAULT '',
    decided_at  TIMESTAMPTZ
);
CREATE INDEX IF NOT EXISTS identity_conflict_a ON identity_conflict (device_a);
CREATE INDEX IF NOT EXISTS identity_conflict_b ON identity_conflict (device_b);

-- Who uses a device, and whether it may be used. It has nothing to do with
-- whether the device is online. No row: available.
CREATE TABLE IF NOT EXISTS device_test_state (
    device_id   UUID        NOT NULL PRIMARY KEY REFERENCES device (device_id),
    state       TEXT        NOT NULL, -- available, in_test, quarantined, maintenance
    holder      TEXT        NOT NULL DEFAULT '',
    reason      TEXT        NOT NULL DEFAULT '',
    since       TIMESTAMPTZ NOT NULL,
    lease_until TIMESTAMPTZ -- of in_test: past it the device is available
);

-- Batches that could not be applied and were stepped over, with the Kafka
-- coordinates to replay them.
CREATE TABLE IF NOT EXISTS quarantined_batch (
    quarantine_id  UUID        NOT NULL PRIMARY KEY, -- of the coordinates: a replay is the same row
    session_id     UUID        NOT NULL,
    rae            TEXT        NOT NULL,
    topic          TEXT        NOT NULL, -- '': the payload had no coordinates that could be read
    topic_id       TEXT        NOT NULL DEFAULT '', -- as in ingest_position
    partition      INT4        NOT NULL,
    first_offset   INT8        NOT NULL,
    last_offset    INT8        NOT NULL, -- offsets between may be of other sessions
    cause          TEXT        NOT NULL,
    detail         TEXT        NOT NULL,
    quarantined_at TIMESTAMPTZ NOT NULL, -- by the worker's clock
    settled_at     TIMESTAMPTZ,          -- null: nobody has decided
    settled_by     TEXT        NOT NULL DEFAULT '',
    outcome        TEXT        NOT NULL DEFAULT '' -- replayed, dropped
);
CREATE INDEX IF NOT EXISTS quarantined_batch_session ON quarantined_batch (session_id);

-- Since when history is whole: what retention has deleted, by the database's clock.
CREATE TABLE IF NOT EXISTS retention_horizon (
    what    TEXT        NOT NULL PRIMARY KEY, -- history
    horizon TIMESTAMPTZ NOT NULL
);

-- Rows that are rewritten for as long as their session lives. With room in the
-- page for the next version of a row, PostgreSQL leaves the indexes alone (a
-- heap-only tuple update) and cleans up in passing. CockroachDB takes the
-- parameter and does nothing with it.
ALTER TABLE device_session SET (fillfactor = 60);
ALTER TABLE device_attribute SET (fillfactor = 60);
ALTER TABLE ingest_position SET (fillfactor = 60);
ALTER TABLE network_interface SET (fillfactor = 60);

-- +goose Down
DROP TABLE IF EXISTS retention_horizon;
DROP TABLE IF EXISTS quarantined_batch;
DROP TABLE IF EXISTS device_test_state;
DROP TABLE IF EXISTS identity_conflict;
DROP TABLE IF EXISTS device_identity;
DROP TABLE IF EXISTS identity_owner;
DROP TABLE IF EXISTS network_interface;
DROP TABLE IF EXISTS session_gap;
DROP TABLE IF EXISTS ingest_position;
DROP TABLE IF EXISTS attribute_change;
DROP TABLE IF EXISTS device_attribute;
DROP TABLE IF EXISTS device_session;
DROP TABLE IF EXISTS device;
DROP TABLE IF EXISTS rae;
