package store

// What people ask and decide about identity.
const (
	conflictColumns = `conflict_id, device_a, kind_a, value_a, device_b, kind_b, value_b, session_id, contested, noted_at, decision, decided_by, decided_at`

	// Open ones first, newest first; of one device, or of all.
	sqlConflicts = `
SELECT ` + conflictColumns + ` FROM identity_conflict
WHERE ($1::BOOL OR decision = '') AND ($2::UUID IS NULL OR device_a = $2 OR device_b = $2)
ORDER BY (decision <> ''), noted_at DESC, conflict_id LIMIT $3`

	sqlConflictsLike = `
SELECT ` + conflictColumns + ` FROM identity_conflict
WHERE left(conflict_id::TEXT, length($1::TEXT)) = $1 ORDER BY conflict_id LIMIT 2`

	sqlDevicesByAge = `
SELECT device_id FROM device WHERE device_id = ANY($1::UUID[]) ORDER BY created_at, device_id`

	sqlCurrentSessions = `
SELECT ` + summaryColumns + `
FROM (
	SELECT DISTINCT ON (device_id) *
	FROM device_session
	WHERE device_id = ANY($1::UUID[])
	ORDER BY device_id, ` + presentOrder + `
) s`

	// A decision is about a pair of devices, and decides every conflict of it.
	sqlDecide = `
UPDATE identity_conflict SET decision = $3, decided_by = $4, decided_at = now()
WHERE ((device_a = $1 AND device_b = $2) OR (device_a = $2 AND device_b = $1)) AND decision <> 'merged'`

	// Two devices that were not in conflict are merged all the same.
	sqlRecordMerge = `
INSERT INTO identity_conflict (conflict_id, device_a, device_b, kind_b, value_b, session_id, noted_at, decision, decided_by, decided_at)
VALUES ($1, $2, $3, '', '', $4, now(), 'merged', $5, now())
ON CONFLICT (conflict_id) DO NOTHING`

	// A merge by evidence decides what the two had between them: a claim that is
	// honoured, a conflict by weak evidence.
	sqlDecideMerged = `
UPDATE identity_conflict SET decision = '` + Merged + `', decided_by = '` + byEvidence + `', decided_at = now()` + fromMerges + `
	((device_a = m.from_device AND device_b = m.into_device) OR (device_a = m.into_device AND device_b = m.from_device)) AND decision <> '` + Merged + `'`

	// What was in conflict with a device that is merged is so with the one it is merged into.
	sqlRepointConflicts = `
UPDATE identity_conflict SET
	device_a = COALESCE((SELECT m.into_device ` + mergePairs + ` WHERE m.from_device = device_a), device_a),
	device_b = COALESCE((SELECT m.into_device ` + mergePairs + ` WHERE m.from_device = device_b), device_b)
WHERE (device_a = ANY($1::UUID[]) OR device_b = ANY($1::UUID[])) AND decision <> '` + Merged + `'`
)
