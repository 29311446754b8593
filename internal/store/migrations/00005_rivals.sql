-- +goose NO TRANSACTION
-- +goose Up

-- For the other sessions of a MAC on an RAE, whichever of the two has more rows:
-- a young database has no statistics that say it.
CREATE INDEX IF NOT EXISTS device_session_rae_mac ON device_session (rae, mac);
DROP INDEX IF EXISTS device_session_rae;

-- +goose Down
CREATE INDEX IF NOT EXISTS device_session_rae ON device_session (rae);
DROP INDEX IF EXISTS device_session_rae_mac;
