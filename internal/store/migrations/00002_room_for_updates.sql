-- +goose NO TRANSACTION
-- +goose Up

-- Rows that are rewritten for as long as their session lives. With room in the
-- page for the next version of a row, PostgreSQL leaves the indexes alone
-- (a heap-only tuple update) and cleans up in passing. CockroachDB takes the
-- parameter and does nothing with it. It holds for pages filled from now on.
ALTER TABLE device_attribute SET (fillfactor = 60);
ALTER TABLE device_session SET (fillfactor = 60);
ALTER TABLE ingest_position SET (fillfactor = 60);

-- +goose Down
ALTER TABLE device_attribute RESET (fillfactor);
ALTER TABLE device_session RESET (fillfactor);
ALTER TABLE ingest_position RESET (fillfactor);
