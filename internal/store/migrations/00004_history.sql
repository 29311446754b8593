-- +goose NO TRANSACTION
-- +goose Up

-- When the cloud had received a value, at the latest: the Kafka timestamp of the
-- newest record of the batch that brought it. Null: written before this column.
ALTER TABLE device_attribute ADD COLUMN IF NOT EXISTS received_at TIMESTAMPTZ;
ALTER TABLE attribute_change ADD COLUMN IF NOT EXISTS received_at TIMESTAMPTZ;

-- Attribute writes that lost against a newer seq.
ALTER TABLE device_session ADD COLUMN IF NOT EXISTS stale INT8 NOT NULL DEFAULT 0;

-- Batches that could not be applied and were stepped over, with the Kafka
-- coordinates to replay them.
CREATE TABLE IF NOT EXISTS quarantined_batch (
    quarantine_id  UUID        NOT NULL PRIMARY KEY, -- of the coordinates: a replay is the same row
    session_id     UUID        NOT NULL,
    rae            TEXT        NOT NULL,
    topic          TEXT        NOT NULL, -- '': the payload had no coordinates that could be read
    partition      INT4        NOT NULL,
    first_offset   INT8        NOT NULL,
    last_offset    INT8        NOT NULL, -- offsets between may be of other sessions
    cause          TEXT        NOT NULL,
    detail         TEXT        NOT NULL,
    quarantined_at TIMESTAMPTZ NOT NULL, -- by the worker's clock
    settled_at     TIMESTAMPTZ,          -- null: nobody has dealt with it
    settled_by     TEXT        NOT NULL DEFAULT '',
    outcome        TEXT        NOT NULL DEFAULT '' -- replayed, dropped
);
CREATE INDEX IF NOT EXISTS quarantined_batch_session ON quarantined_batch (session_id);

-- Since when history is whole: what retention has taken, by the database's clock.
CREATE TABLE IF NOT EXISTS retention_horizon (
    what    TEXT        NOT NULL PRIMARY KEY, -- history
    horizon TIMESTAMPTZ NOT NULL
);

-- +goose Down
DROP TABLE IF EXISTS retention_horizon;
DROP TABLE IF EXISTS quarantined_batch;
ALTER TABLE device_session DROP COLUMN IF EXISTS stale;
ALTER TABLE attribute_change DROP COLUMN IF EXISTS received_at;
ALTER TABLE device_attribute DROP COLUMN IF EXISTS received_at;
