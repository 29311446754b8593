package store

// What a transaction of Apply runs besides when evidence is written.
const (
	sqlEvidenceSeqs = `
SELECT session_id, name, seq FROM device_attribute
WHERE session_id = ANY($1::UUID[]) AND name = ANY($2::TEXT[])`

	sqlHeldEvidence = `
SELECT session_id, attribute, kind, value FROM device_identity
WHERE session_id = ANY($1::UUID[]) AND valid_to IS NULL`

	sqlOwners = `
SELECT o.kind, o.value, o.device_id
FROM identity_owner o
JOIN (SELECT unnest($1::TEXT[]) AS kind, unnest($2::TEXT[]) AS value) c ON o.kind = c.kind AND o.value = c.value`

	// Of what is written, and of what the sessions hold.
	sqlOwnersOf = `
SELECT o.kind, o.value, o.device_id
FROM identity_owner o
JOIN (SELECT unnest($2::TEXT[]) AS kind, unnest($3::TEXT[]) AS value) c ON o.kind = c.kind AND o.value = c.value
UNION
SELECT o.kind, o.value, o.device_id
FROM device_identity i
JOIN identity_owner o ON o.kind = i.kind AND o.value = i.value
WHERE i.session_id = ANY($1::UUID[]) AND i.valid_to IS NULL`

	sqlLockDevices = `
SELECT device_id FROM device WHERE device_id = ANY($1::UUID[]) ORDER BY device_id FOR UPDATE`

	sqlDeviceSessions = `
SELECT d.device_id, count(s.session_id)
FROM device d LEFT JOIN device_session s ON s.device_id = d.device_id
WHERE d.device_id = ANY($1::UUID[]) GROUP BY d.device_id`

	sqlStrongEvidence = `
SELECT device_id, kind, value FROM identity_owner
WHERE device_id = ANY($1::UUID[]) AND kind = ANY($2::TEXT[])`

	sqlConflictPairs = `
SELECT device_a, device_b FROM identity_conflict
WHERE (device_a = ANY($1::UUID[]) OR device_b = ANY($1::UUID[])) AND decision <> 'merged'`

	sqlClaimEvidence = `
INSERT INTO identity_owner (kind, value, device_id)
SELECT unnest($1::TEXT[]), unnest($2::TEXT[]), unnest($3::UUID[])
ON CONFLICT (kind, value) DO UPDATE SET device_id = identity_owner.device_id
RETURNING kind, value, device_id`

	sqlReassignEvidence = `
UPDATE identity_owner SET device_id = u.device_id
FROM (SELECT unnest($1::TEXT[]) AS kind, unnest($2::TEXT[]) AS value, unnest($3::UUID[]) AS device_id) u
WHERE identity_owner.kind = u.kind AND identity_owner.value = u.value`

	sqlBeginTimeline = `
INSERT INTO device_identity (session_id, attribute, kind, value, from_seq, valid_from, device_id)
SELECT unnest($1::UUID[]), unnest($2::TEXT[]), unnest($3::TEXT[]), unnest($4::TEXT[]), unnest($5::INT8[]),
	unnest($6::TIMESTAMPTZ[]), unnest($7::UUID[])
ON CONFLICT (session_id, attribute, kind, value, from_seq) DO NOTHING`

	sqlEndTimeline = `
UPDATE device_identity SET to_seq = u.to_seq, valid_to = u.valid_to
FROM (SELECT unnest($1::UUID[]) AS session_id, unnest($2::TEXT[]) AS attribute, unnest($3::TEXT[]) AS kind,
	unnest($4::TEXT[]) AS value, unnest($5::INT8[]) AS to_seq, unnest($6::TIMESTAMPTZ[]) AS valid_to) u
WHERE device_identity.session_id = u.session_id AND device_identity.attribute = u.attribute
	AND device_identity.kind = u.kind AND device_identity.value = u.value AND device_identity.valid_to IS NULL`

	sqlMoveTimeline = `
UPDATE device_identity SET device_id = u.device_id
FROM (SELECT unnest($1::UUID[]) AS session_id, unnest($2::UUID[]) AS device_id) u
WHERE device_identity.session_id = u.session_id`

	sqlInsertConflicts = `
INSERT INTO identity_conflict (conflict_id, device_a, kind_a, value_a, device_b, kind_b, value_b, session_id, noted_at)
SELECT unnest($1::UUID[]), unnest($2::UUID[]), unnest($3::TEXT[]), unnest($4::TEXT[]), unnest($5::UUID[]),
	unnest($6::TEXT[]), unnest($7::TEXT[]), unnest($8::UUID[]), now()
ON CONFLICT (conflict_id) DO NOTHING`
)
