package store

import "github.com/rollcall-platform/rollcall/internal/device"

// What a transaction of Apply runs besides when evidence is written.
const (
	sqlEvidenceSeqs = `
SELECT session_id, name, seq FROM device_attribute
WHERE session_id = ANY($1::UUID[]) AND name = ANY($2::TEXT[])`

	sqlHeldEvidence = `
SELECT session_id, attribute, kind, value FROM device_identity
WHERE session_id = ANY($1::UUID[]) AND valid_to IS NULL`

	sqlLabs = `
SELECT serial, lab FROM rae WHERE serial = ANY($1::TEXT[])`

	sqlOwners = `
SELECT o.lab, o.kind, o.value, o.device_id
FROM identity_owner o
JOIN (SELECT unnest($1::TEXT[]) AS lab, unnest($2::TEXT[]) AS kind, unnest($3::TEXT[]) AS value) c
	ON o.lab = c.lab AND o.kind = c.kind AND o.value = c.value`

	// Of what is written, by the RAEs that say so, and of what the sessions hold.
	sqlOwnersOf = `
SELECT o.lab, o.kind, o.value, o.device_id
FROM (SELECT unnest($2::TEXT[]) AS rae, unnest($3::TEXT[]) AS kind, unnest($4::TEXT[]) AS value) c
LEFT JOIN rae r ON r.serial = c.rae
JOIN identity_owner o ON o.lab = COALESCE(r.lab, '` + DefaultLab + `') AND o.kind = c.kind AND o.value = c.value
UNION
SELECT o.lab, o.kind, o.value, o.device_id
FROM device_identity i
JOIN device_session s ON s.session_id = i.session_id
JOIN rae r ON r.serial = s.rae
JOIN identity_owner o ON o.lab = r.lab AND o.kind = i.kind AND o.value = i.value
WHERE i.session_id = ANY($1::UUID[]) AND i.valid_to IS NULL`

	// The open session that each device shows, when its status was received, when
	// anything came from its RAE, and what time it is.
	sqlPresent = `
SELECT p.device_id, p.session_id, p.rae, p.connection_status = '` + device.Online + `', a.received_at, p.changed_at,
	(SELECT max(o.received_at) FROM device_session o WHERE o.rae = p.rae), now()
FROM (
	SELECT DISTINCT ON (device_id) * FROM device_session
	WHERE device_id = ANY($1::UUID[]) AND closed_seq = 0 AND as_of_seq > 0
	ORDER BY device_id, ` + presentOrder + `
) p LEFT JOIN device_attribute a ON a.session_id = p.session_id AND a.name = '` + device.AttrConnectionStatus + `'`

	sqlHeard = `
SELECT rae, max(received_at) FROM device_session WHERE rae = ANY($1::TEXT[]) AND received_at IS NOT NULL GROUP BY rae`

	sqlLockDevices = `
SELECT device_id FROM device WHERE device_id = ANY($1::UUID[]) ORDER BY device_id FOR UPDATE`

	sqlDeviceSessions = `
SELECT d.device_id, count(s.session_id)
FROM device d LEFT JOIN device_session s ON s.device_id = d.device_id
WHERE d.device_id = ANY($1::UUID[]) GROUP BY d.device_id`

	sqlOwnedEvidence = `
SELECT device_id, lab, kind, value FROM identity_owner
WHERE device_id = ANY($1::UUID[])`

	// Those that are open or kept apart, contested claims among them.
	sqlConflictPairs = `
SELECT conflict_id, session_id, device_a, device_b, decision = '` + KeptApart + `', contested AND decision = '', kind_b
FROM identity_conflict
WHERE (device_a = ANY($1::UUID[]) OR device_b = ANY($1::UUID[])) AND decision IN ('', '` + KeptApart + `')`

	sqlClaimEvidence = `
INSERT INTO identity_owner (lab, kind, value, device_id)
SELECT unnest($1::TEXT[]), unnest($2::TEXT[]), unnest($3::TEXT[]), unnest($4::UUID[])
ON CONFLICT (lab, kind, value) DO UPDATE SET device_id = identity_owner.device_id
RETURNING lab, kind, value, device_id`

	sqlReassignEvidence = `
UPDATE identity_owner SET device_id = u.device_id
FROM (SELECT unnest($1::TEXT[]) AS lab, unnest($2::TEXT[]) AS kind, unnest($3::TEXT[]) AS value, unnest($4::UUID[]) AS device_id) u
WHERE identity_owner.lab = u.lab AND identity_owner.kind = u.kind AND identity_owner.value = u.value`

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

	// What is noted takes the place of what is weaker: of a claim that was
	// withdrawn or is open, and of a conflict by weak evidence.
	sqlInsertConflicts = `
INSERT INTO identity_conflict (conflict_id, device_a, kind_a, value_a, device_b, kind_b, value_b, session_id, contested, noted_at)
SELECT unnest($1::UUID[]), unnest($2::UUID[]), unnest($3::TEXT[]), unnest($4::TEXT[]), unnest($5::UUID[]),
	unnest($6::TEXT[]), unnest($7::TEXT[]), unnest($8::UUID[]), unnest($9::BOOL[]), now()
ON CONFLICT (conflict_id) DO UPDATE SET
	device_a = excluded.device_a, kind_a = excluded.kind_a, value_a = excluded.value_a,
	device_b = excluded.device_b, kind_b = excluded.kind_b, value_b = excluded.value_b,
	session_id = excluded.session_id, contested = excluded.contested, noted_at = excluded.noted_at,
	decision = '', decided_by = '', decided_at = NULL
WHERE identity_conflict.decision = '` + Withdrawn + `'
	OR identity_conflict.decision = '' AND NOT excluded.contested
		AND (identity_conflict.contested OR identity_conflict.kind_b = ANY($10::TEXT[]))`

	sqlWithdrawClaims = `
UPDATE identity_conflict SET decision = '` + Withdrawn + `', decided_by = '` + byEvidence + `', decided_at = now()
WHERE conflict_id = ANY($1::UUID[]) AND contested AND decision = ''`

	// Sessions whose claims are contested.
	sqlClaimants = `
SELECT DISTINCT c.session_id, s.rae FROM identity_conflict c JOIN device_session s ON s.session_id = c.session_id
WHERE c.contested AND c.decision = '' AND c.session_id > $1 ORDER BY c.session_id LIMIT $2`

	// Each with the session that holds the device.
	sqlOpenClaims = `
SELECT c.conflict_id, c.session_id, (
	SELECT s.session_id FROM device_session s WHERE s.device_id = c.device_b AND s.closed_seq = 0
	ORDER BY ` + presentOrder + ` LIMIT 1)
FROM identity_conflict c WHERE c.contested AND c.decision = '' ORDER BY c.noted_at, c.conflict_id LIMIT $1`

	// Those of the sessions' devices: whose own it is, the other device, who claims.
	sqlClaimsOf = `
SELECT s.session_id, true, c.device_b, s.rae, c.kind_b, c.value_b, c.noted_at
FROM device_session s JOIN identity_conflict c ON c.device_a = s.device_id
WHERE s.session_id = ANY($1::UUID[]) AND c.contested AND c.decision = ''
UNION ALL
SELECT s.session_id, false, c.device_a, COALESCE(o.rae, ''), c.kind_b, c.value_b, c.noted_at
FROM device_session s JOIN identity_conflict c ON c.device_b = s.device_id LEFT JOIN device_session o ON o.session_id = c.session_id
WHERE s.session_id = ANY($1::UUID[]) AND c.contested AND c.decision = ''`

	// Claims of sessions, or to devices, that are gone.
	sqlWithdrawOrphans = `
UPDATE identity_conflict SET decision = '` + Withdrawn + `', decided_by = '` + byEvidence + `', decided_at = now()
WHERE contested AND decision = '' AND (
	NOT EXISTS (SELECT 1 FROM device_session s WHERE s.session_id = identity_conflict.session_id)
	OR NOT EXISTS (SELECT 1 FROM device d WHERE d.device_id = identity_conflict.device_b))`
)
