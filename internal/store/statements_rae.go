package store

// What people ask and decide about RAEs.
const (
	sqlLabelledRAEs = `
SELECT r.serial, r.lab, r.first_seen, max(s.received_at), count(s.session_id) FILTER (WHERE s.closed_seq = 0)
FROM rae r LEFT JOIN device_session s ON s.rae = r.serial
GROUP BY r.serial, r.lab, r.first_seen ORDER BY r.serial`

	sqlLockRAE = `
SELECT serial FROM rae WHERE serial = $1 FOR UPDATE`

	// Evidence that only this RAE has brought to its lab, before it leaves for $2.
	sqlForgetOwners = `
DELETE FROM identity_owner
WHERE lab = (SELECT r.lab FROM rae r WHERE r.serial = $1 AND r.lab <> $2)
	AND EXISTS (
		SELECT 1 FROM device_identity i JOIN device_session s ON s.session_id = i.session_id
		WHERE i.kind = identity_owner.kind AND i.value = identity_owner.value AND i.device_id = identity_owner.device_id AND s.rae = $1)
	AND NOT EXISTS (
		SELECT 1 FROM device_identity i JOIN device_session s ON s.session_id = i.session_id JOIN rae r ON r.serial = s.rae
		WHERE i.kind = identity_owner.kind AND i.value = identity_owner.value AND r.lab = identity_owner.lab AND s.rae <> $1)`

	sqlLabelRAE = `
UPDATE rae SET lab = $2 WHERE serial = $1`

	// Of several sessions of the RAE that hold a piece, an open one decides.
	sqlAdoptOwners = `
INSERT INTO identity_owner (lab, kind, value, device_id)
SELECT DISTINCT ON (i.kind, i.value) $2::TEXT, i.kind, i.value, i.device_id
FROM device_identity i JOIN device_session s ON s.session_id = i.session_id
WHERE s.rae = $1 AND i.valid_to IS NULL
ORDER BY i.kind, i.value, (s.closed_seq > 0), i.device_id
ON CONFLICT (lab, kind, value) DO NOTHING`
)
