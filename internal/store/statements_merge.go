package store

// A merge of devices: all that one has goes to another, and it is deleted.
const (
	mergePairs = `FROM (SELECT unnest($1::UUID[]) AS from_device, unnest($2::UUID[]) AS into_device) m`
	fromMerges = `
` + mergePairs + ` WHERE `

	// Who waits for a session here may hold what that session's transaction
	// waits for: it must not wait.
	sqlLockMergedSessions = `
SELECT session_id FROM device_session WHERE device_id = ANY($1::UUID[]) ORDER BY session_id FOR UPDATE NOWAIT`

	sqlMergeSessions  = `UPDATE device_session SET device_id = m.into_device` + fromMerges + `device_session.device_id = m.from_device`
	sqlMergeOwners    = `UPDATE identity_owner SET device_id = m.into_device` + fromMerges + `identity_owner.device_id = m.from_device`
	sqlMergeTimelines = `UPDATE device_identity SET device_id = m.into_device` + fromMerges + `device_identity.device_id = m.from_device`

	// The stricter state wins; of two leases the one that ends later.
	sqlMergeTestStates = `
INSERT INTO device_test_state (device_id, state, holder, reason, since, lease_until)
SELECT DISTINCT ON (m.into_device) m.into_device, t.state, t.holder, t.reason, t.since, t.lease_until
FROM (SELECT unnest($1::UUID[]) AS from_device, unnest($2::UUID[]) AS into_device) m
JOIN device_test_state t ON t.device_id = m.from_device
ORDER BY m.into_device, CASE t.state WHEN 'quarantined' THEN 3 WHEN 'maintenance' THEN 2 WHEN 'in_test' THEN 1 ELSE 0 END DESC,
	t.lease_until DESC NULLS LAST, t.device_id
ON CONFLICT (device_id) DO UPDATE SET
	state = excluded.state, holder = excluded.holder, reason = excluded.reason, since = excluded.since, lease_until = excluded.lease_until
WHERE CASE excluded.state WHEN 'quarantined' THEN 3 WHEN 'maintenance' THEN 2 WHEN 'in_test' THEN 1 ELSE 0 END
	> CASE device_test_state.state WHEN 'quarantined' THEN 3 WHEN 'maintenance' THEN 2 WHEN 'in_test' THEN 1 ELSE 0 END
	OR excluded.state = 'in_test' AND device_test_state.state = 'in_test' AND excluded.lease_until > device_test_state.lease_until`

	sqlDeleteTestStates = `DELETE FROM device_test_state WHERE device_id = ANY($1::UUID[])`

	sqlDeleteDevices = `
DELETE FROM device WHERE device_id = ANY($1::UUID[])
	AND NOT EXISTS (SELECT 1 FROM device_session s WHERE s.device_id = device.device_id)
	AND NOT EXISTS (SELECT 1 FROM identity_owner o WHERE o.device_id = device.device_id)
	AND NOT EXISTS (SELECT 1 FROM device_identity i WHERE i.device_id = device.device_id)`
)
