-- +goose NO TRANSACTION
-- +goose Up

-- Which device a piece of evidence leads to. The key is what keeps two
-- transactions from making two devices of one ESN.
CREATE TABLE IF NOT EXISTS identity_owner (
    kind      TEXT NOT NULL, -- esn, udn, serial, client, mac
    value     TEXT NOT NULL,
    device_id UUID NOT NULL REFERENCES device (device_id),
    PRIMARY KEY (kind, value)
);
CREATE INDEX IF NOT EXISTS identity_owner_device ON identity_owner (device_id);
INSERT INTO identity_owner (kind, value, device_id)
SELECT kind, value, device_id FROM device_identity
ON CONFLICT (kind, value) DO NOTHING;

-- device_identity becomes the timeline: which attribute of which session held
-- which identity, from when to when. It had one row for a value, of the session
-- that brought it first: that is where the timeline begins. The first column
-- added is one that is dropped below; it is there for a step that is run again.
ALTER TABLE device_identity ADD COLUMN IF NOT EXISTS first_seen TIMESTAMPTZ;
ALTER TABLE device_identity ADD COLUMN IF NOT EXISTS from_seq INT8 NOT NULL DEFAULT 0; -- of the event that set it
ALTER TABLE device_identity ADD COLUMN IF NOT EXISTS to_seq INT8;                      -- of the event that ended it
ALTER TABLE device_identity ADD COLUMN IF NOT EXISTS valid_from TIMESTAMPTZ NOT NULL DEFAULT now();
ALTER TABLE device_identity ADD COLUMN IF NOT EXISTS valid_to TIMESTAMPTZ; -- null: the session has it
UPDATE device_identity SET valid_from = first_seen WHERE first_seen IS NOT NULL;
ALTER TABLE device_identity DROP CONSTRAINT IF EXISTS device_identity_pkey,
    ADD CONSTRAINT device_identity_pkey PRIMARY KEY (session_id, attribute, kind, value, from_seq);
ALTER TABLE device_identity DROP COLUMN IF EXISTS first_seen;
ALTER TABLE device_identity DROP COLUMN IF EXISTS last_seen;

-- identified now says that the session has brought strong evidence. What was
-- bound by any is taken for such where its device has some: it does not move.
UPDATE device_session SET identified = false
WHERE identified AND NOT EXISTS (
    SELECT 1 FROM identity_owner o
    WHERE o.device_id = device_session.device_id AND o.kind IN ('esn', 'udn', 'serial'));

-- Two devices that one session's evidence points to, and what a person decided.
CREATE TABLE IF NOT EXISTS identity_conflict (
    conflict_id UUID        NOT NULL PRIMARY KEY, -- of the devices' pair
    device_a    UUID        NOT NULL,             -- that the session belongs to
    kind_a      TEXT        NOT NULL DEFAULT '',  -- the session's strongest evidence of it
    value_a     TEXT        NOT NULL DEFAULT '',
    device_b    UUID        NOT NULL,
    kind_b      TEXT        NOT NULL,
    value_b     TEXT        NOT NULL,
    session_id  UUID        NOT NULL,
    noted_at    TIMESTAMPTZ NOT NULL,
    decision    TEXT        NOT NULL DEFAULT '', -- '': open; merged, kept-apart
    decided_by  TEXT        NOT NULL DEFAULT '',
    decided_at  TIMESTAMPTZ
);
CREATE INDEX IF NOT EXISTS identity_conflict_a ON identity_conflict (device_a);
CREATE INDEX IF NOT EXISTS identity_conflict_b ON identity_conflict (device_b);

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
ALTER TABLE network_interface SET (fillfactor = 60);

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

-- +goose Down
DROP TABLE IF EXISTS device_test_state;
DROP TABLE IF EXISTS network_interface;
DROP TABLE IF EXISTS identity_conflict;
DROP TABLE IF EXISTS device_identity;
CREATE TABLE IF NOT EXISTS device_identity (
    kind       TEXT        NOT NULL,
    value      TEXT        NOT NULL,
    device_id  UUID        NOT NULL REFERENCES device (device_id),
    session_id UUID        NOT NULL,
    attribute  TEXT        NOT NULL,
    first_seen TIMESTAMPTZ NOT NULL,
    last_seen  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (kind, value)
);
CREATE INDEX IF NOT EXISTS device_identity_device ON device_identity (device_id);
INSERT INTO device_identity (kind, value, device_id, session_id, attribute, first_seen, last_seen)
SELECT kind, value, device_id, device_id, '', now(), now() FROM identity_owner
ON CONFLICT (kind, value) DO NOTHING;
DROP TABLE IF EXISTS identity_owner;
