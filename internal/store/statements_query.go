package store

import "github.com/rollcall-platform/rollcall/internal/device"

// What people ask.
const (
	// summaryColumns are the fields of Summary, in the order of its scan.
	summaryColumns = `s.device_id, s.session_id, s.rae, s.connection_status, s.mac, s.as_of_seq, s.snapshot_seq,
	s.missing, s.closed_seq, s.close_reason, s.first_observed, s.last_observed, s.received_at, s.applied_at, s.snapshot_at,
	(SELECT max(c.observed_at) FROM device_attribute c WHERE c.session_id = s.session_id)`

	// The session that a device shows, its present one: an open one, one that is
	// online, the one that changed last by the cloud's time. A snapshot that only
	// confirms is no change, and no edge's clock counts. The session's identifier
	// breaks ties.
	presentOrder = `(closed_seq > 0), (connection_status <> '` + device.Online + `'), changed_at DESC NULLS LAST, session_id`

	// Devices in the order of their identifiers, from after $1. The text of a
	// value is what people type: a string without its quotes.
	sqlListDevices = `
SELECT ` + summaryColumns + `
FROM (
	SELECT DISTINCT ON (device_id) *
	FROM device_session
	WHERE device_id > $1
	ORDER BY device_id, ` + presentOrder + `
) s
WHERE ($2::TEXT = '' OR s.rae = $2)
	AND ($3::TEXT = '' OR ($3 = '` + StatusClosed + `' AND s.closed_seq > 0) OR ($3 = s.connection_status AND s.closed_seq = 0))
	AND ($4::TEXT = '' OR EXISTS (
		SELECT 1 FROM device_attribute a
		WHERE a.session_id = s.session_id AND a.name = ANY($5::TEXT[]) AND strpos(lower(a.value #>> '{}'), lower($4)) > 0))
	AND NOT EXISTS (
		SELECT 1 FROM (SELECT unnest($6::TEXT[]) AS name, unnest($7::TEXT[]) AS value, unnest($8::TEXT[]) AS member) f
		WHERE NOT EXISTS (
			SELECT 1 FROM device_attribute a
			WHERE a.session_id = s.session_id AND a.name = f.name
				AND (a.value #>> '{}' = f.value OR a.value @> f.member::JSONB)))
	AND (NOT $10::BOOL OR (s.connection_status = '` + device.Online + `' AND s.closed_seq = 0 AND NOT EXISTS (
		SELECT 1 FROM device_test_state t
		WHERE t.device_id = s.device_id AND t.state <> 'available' AND (t.state <> 'in_test' OR t.lease_until > now()))))
ORDER BY s.device_id
LIMIT $9`

	sqlAttributesOf = `
SELECT session_id, name, value, seq, observed_at FROM device_attribute
WHERE session_id = ANY($1::UUID[]) AND ($2::TEXT[] IS NULL OR name = ANY($2)) AND value IS NOT NULL
ORDER BY session_id, name`

	sqlAttributeNames = `
SELECT DISTINCT name FROM device_attribute ORDER BY name`

	sqlRAEs = `
SELECT serial FROM rae ORDER BY serial`

	sqlSessionsOf = `
SELECT ` + summaryColumns + `
FROM device_session s WHERE s.device_id = $1 ORDER BY ` + presentOrder + ` LIMIT $2`

	// Open sessions in the order of their identifiers, from after $1.
	sqlOpenSessions = `
SELECT session_id, rae FROM device_session
WHERE session_id > $1 AND closed_seq = 0 AND ($2::TEXT[] IS NULL OR rae = ANY($2))
ORDER BY session_id LIMIT $3`

	// When anything came from the RAE of a session.
	sqlRAEHeard = `
SELECT max(o.received_at) FROM device_session s JOIN device_session o ON o.rae = s.rae WHERE s.session_id = $1`

	sqlSummaries = `
SELECT ` + summaryColumns + `
FROM device_session s WHERE s.session_id = ANY($1::UUID[]) ORDER BY s.device_id, ` + presentOrder + ``

	// A session that is closed has ended what it held.
	sqlIdentitiesOf = `
SELECT i.kind, i.value, i.session_id, i.attribute, i.valid_from,
	COALESCE(i.valid_to, CASE WHEN s.closed_seq > 0 THEN s.last_observed END) AS until
FROM device_identity i LEFT JOIN device_session s ON s.session_id = i.session_id
WHERE i.device_id = $1
ORDER BY i.valid_from DESC, i.kind, i.value, i.attribute, i.session_id LIMIT $2`

	sqlInterfacesOf = `
SELECT n.session_id, s.rae, n.mac, n.mac_local, n.ipv4, n.ipv6, n.hostname, n.first_seen, n.changed_at, s.closed_seq > 0
FROM network_interface n JOIN device_session s ON s.session_id = n.session_id
WHERE s.device_id = $1 ORDER BY (s.closed_seq > 0), n.changed_at DESC, n.session_id LIMIT $2`

	sqlGapsOf = `
SELECT from_seq, to_seq, opened_at, ended_at, ended_by FROM session_gap
WHERE session_id = $1 ORDER BY from_seq DESC, to_seq DESC LIMIT $2`

	// A reference that is written out, by what it may be.
	sqlRefUUID = `
SELECT session_id, device_id, false FROM device_session WHERE session_id = $1
UNION
SELECT session_id, device_id, false FROM device_session WHERE device_id = $1
LIMIT $2`
	sqlRefMAC = `
SELECT session_id, device_id, closed_seq > 0 AS closed FROM device_session WHERE mac = $1 ORDER BY closed, device_id LIMIT $2`

	// Devices by a host name, $1 in lower case, or by another of their names, $3
	// as it was typed. Other names have no index: people wait for it, nothing
	// else does.
	sqlRefName = `
SELECT session_id, device_id, closed FROM (SELECT DISTINCT ON (m.device_id) m.session_id, m.device_id, m.closed FROM (
	SELECT session_id, device_id, closed_seq > 0 AS closed FROM device_session WHERE hostname = $1
	UNION ALL
	SELECT s.session_id, s.device_id, s.closed_seq > 0
	FROM device_attribute a JOIN device_session s ON s.session_id = a.session_id
	WHERE a.name = ANY($4::TEXT[]) AND lower(btrim(a.value #>> '{}')) = lower($3)
) m ORDER BY m.device_id, m.closed) n ORDER BY closed, device_id LIMIT $2`

	// One that is begun. It reads every session's row, as sqlRefName does.
	sqlRefPrefix = `
SELECT s.session_id, s.device_id, s.closed_seq > 0 AS closed FROM device_session s
WHERE left(s.device_id::TEXT, length($1::TEXT)) = $1 OR left(s.session_id::TEXT, length($1)) = $1
	OR left(s.mac, length($1)) = $1 OR left(s.hostname, length($1)) = $1
	OR EXISTS (
		SELECT 1 FROM device_attribute a
		WHERE a.session_id = s.session_id AND a.name = ANY($4::TEXT[]) AND strpos(lower(btrim(a.value #>> '{}')), lower($3)) = 1)
ORDER BY closed, s.device_id, s.session_id LIMIT $2`

	// Changes of one session, newest first, from before (seq, name).
	sqlHistory = `
SELECT ` + changeColumns + ` FROM attribute_change
WHERE session_id = $1 AND (seq < $2 OR (seq = $2 AND name < $3)) AND ($4::TEXT = '' OR name = $4)
ORDER BY seq DESC, name DESC LIMIT $5`

	// changeColumns are the fields of Change, in the order of its scan.
	changeColumns = `session_id, seq, name, value, observed_at, received_at, applied_at`

	// What each attribute of a session was at $2: order is seq, also where
	// clocks disagree.
	sqlObservedBy = `
SELECT DISTINCT ON (name) ` + changeColumns + ` FROM attribute_change
WHERE session_id = $1 AND observed_at <= $2
ORDER BY name, seq DESC`
	sqlAppliedBy = `
SELECT DISTINCT ON (name) ` + changeColumns + ` FROM attribute_change
WHERE session_id = $1 AND applied_at <= $2
ORDER BY name, seq DESC`

	sqlHorizon = `
SELECT horizon FROM retention_horizon WHERE what = 'history'`

	// Attributes whose value is not in the history: it was not kept then. A
	// correction is there with the seq of its snapshot.
	sqlUnrecorded = `
SELECT a.name FROM device_attribute a
WHERE a.session_id = $1 AND NOT EXISTS (
	SELECT 1 FROM attribute_change c WHERE c.session_id = a.session_id AND c.seq >= a.seq AND c.name = a.name)
ORDER BY a.name`

	// Explain.
	sqlExplained = `
SELECT ` + changeColumns + ` FROM device_attribute
WHERE session_id = $1 AND ($2::TEXT = '' OR name = $2) ORDER BY name`
	sqlGapsEnded = `
SELECT ended_by, count(*) FROM session_gap WHERE session_id = $1 GROUP BY ended_by`
	sqlGapsBySnapshot = `
SELECT from_seq, to_seq FROM session_gap WHERE session_id = $1 AND ended_by = 'snapshot' ORDER BY from_seq`
	sqlQuarantineCount = `
SELECT count(*), count(*) FILTER (WHERE settled_at IS NULL) FROM quarantined_batch WHERE session_id = $1`
)
