package store

// A split of a device: sessions leave it for a new one.
const (
	sqlEverHeld = `
SELECT DISTINCT session_id, kind, value FROM device_identity WHERE device_id = $1`

	sqlSplitSessions = `
UPDATE device_session SET device_id = $2 WHERE session_id = ANY($1::UUID[])`

	sqlSplitTimeline = `
UPDATE device_identity SET device_id = $2 WHERE session_id = ANY($1::UUID[])`

	sqlSplitOwners = `
UPDATE identity_owner SET device_id = $2
WHERE device_id = $1 AND EXISTS (
	SELECT 1 FROM (SELECT unnest($3::TEXT[]) AS kind, unnest($4::TEXT[]) AS value) c
	WHERE c.kind = identity_owner.kind AND c.value = identity_owner.value)`

	sqlCopyTestState = `
INSERT INTO device_test_state (device_id, state, holder, reason, since, lease_until)
SELECT $2::UUID, state, holder, reason, since, lease_until FROM device_test_state WHERE device_id = $1
ON CONFLICT (device_id) DO NOTHING`

	// The two are kept apart, by the same row as a conflict that was decided so.
	sqlRecordSplit = `
INSERT INTO identity_conflict (conflict_id, device_a, device_b, kind_b, value_b, session_id, noted_at, decision, decided_by, decided_at)
VALUES ($1, $2, $3, '', '', $4, now(), '` + KeptApart + `', $5, now())
ON CONFLICT (conflict_id) DO NOTHING`
)
