package store

// Retention. Each statement deletes a bounded number of rows that it finds by
// key, and may run beside Apply.
const (
	sqlRaiseHorizon = `
INSERT INTO retention_horizon (what, horizon) VALUES ('history', $1)
ON CONFLICT (what) DO UPDATE SET horizon = excluded.horizon WHERE retention_horizon.horizon < excluded.horizon`

	sqlSessionsAfter = `
SELECT session_id FROM device_session WHERE session_id > $1 ORDER BY session_id LIMIT $2`

	// A change is deleted when the one that replaced it is older than the horizon:
	// then it was the value at no time from the horizon on. So the newest change of
	// each attribute stays, and the answer for any such time is whole.
	sqlExpireHistory = `
DELETE FROM attribute_change WHERE (session_id, seq, name) IN (
	SELECT session_id, seq, name FROM (
		SELECT session_id, seq, name, lead(applied_at) OVER (PARTITION BY session_id, name ORDER BY seq) AS replaced_at
		FROM attribute_change WHERE session_id = ANY($1::UUID[]) AND applied_at < $2
	) c WHERE replaced_at < $2 LIMIT $3)`

	// A tombstone holds against older events. From a snapshot at or past its seq
	// on, the snapshot does, and the tombstone may go.
	sqlExpireTombstones = `
DELETE FROM device_attribute WHERE session_id = ANY($1::UUID[]) AND value IS NULL AND applied_at < $2
	AND seq <= (SELECT s.snapshot_seq FROM device_session s WHERE s.session_id = device_attribute.session_id)`

	sqlExpireGaps = `
DELETE FROM session_gap WHERE session_id = ANY($1::UUID[]) AND ended_at < $2`

	sqlExpireQuarantine = `
DELETE FROM quarantined_batch WHERE session_id = ANY($1::UUID[]) AND settled_at < $2`

	// Closed sessions that may be deleted, locked. A quarantined batch that is
	// open stays, and its session with it.
	sqlLockExpired = `
SELECT session_id FROM device_session s
WHERE session_id = ANY($1::UUID[]) AND closed_seq > 0 AND applied_at < $2 AND (received_at IS NULL OR received_at < $2)
	AND NOT EXISTS (SELECT 1 FROM quarantined_batch q WHERE q.session_id = s.session_id AND q.settled_at IS NULL)
ORDER BY session_id LIMIT $3 FOR UPDATE`
	// The timeline stays, and ends where the session did.
	sqlEndTimelineOf = `
UPDATE device_identity SET valid_to = COALESCE(s.last_observed, now())
FROM device_session s
WHERE s.session_id = ANY($1::UUID[]) AND device_identity.session_id = s.session_id AND device_identity.valid_to IS NULL`
	sqlDeleteChanges = `
DELETE FROM attribute_change WHERE session_id = ANY($1::UUID[])`
	sqlDeleteAttributes = `
DELETE FROM device_attribute WHERE session_id = ANY($1::UUID[])`
	sqlDeleteInterfaces = `
DELETE FROM network_interface WHERE session_id = ANY($1::UUID[])`
	sqlDeletePositions = `
DELETE FROM ingest_position WHERE session_id = ANY($1::UUID[])`
	sqlDeleteGaps = `
DELETE FROM session_gap WHERE session_id = ANY($1::UUID[])`
	sqlDeleteQuarantine = `
DELETE FROM quarantined_batch WHERE session_id = ANY($1::UUID[])`
	sqlDeleteSessions = `
DELETE FROM device_session WHERE session_id = ANY($1::UUID[])`
)
