package store

import "github.com/rollcall-platform/rollcall/internal/device"

// The statements of a transaction of Apply.
const (
	// sessionColumns are the fields of row, in the order of row.scan.
	sessionColumns = `session_id, rae, device_id, identified, as_of_seq, snapshot_seq, snapshot_at, snapshot_hash,
	seen, missing, closed_seq, close_reason, close_kind, first_observed, last_observed, received_at, changed_at,
	connection_status, connection_status_seq, mac, mac_seq, hostname, hostname_seq,
	events, records, duplicates, after_close, repaired, over_limit, stale, revision, apply_id, reopened`

	// The sort is below the lock: rows are locked in its order.
	sqlLockSessions = `
SELECT ` + sessionColumns + `
FROM device_session WHERE session_id = ANY($1::UUID[]) ORDER BY session_id FOR UPDATE`

	sqlPositions = `
SELECT session_id, topic, topic_id, partition, next_offset
FROM ingest_position WHERE session_id = ANY($1::UUID[]) ORDER BY session_id, topic, partition`

	sqlInsertRAEs = `
INSERT INTO rae (serial, first_seen)
SELECT unnest($1::TEXT[]), now()
ON CONFLICT (serial) DO NOTHING`

	sqlInsertDevices = `
INSERT INTO device (device_id, created_at)
SELECT unnest($1::UUID[]), now()
ON CONFLICT (device_id) DO NOTHING`

	sqlInsertSessions = `
INSERT INTO device_session (session_id, rae, device_id, applied_at)
SELECT unnest($1::UUID[]), unnest($2::TEXT[]), unnest($3::UUID[]), now()
ON CONFLICT (session_id) DO NOTHING`

	sqlUpdateSessions = `
UPDATE device_session SET
	device_id = u.device_id, identified = u.identified, as_of_seq = u.as_of_seq,
	snapshot_seq = u.snapshot_seq, snapshot_at = u.snapshot_at, snapshot_hash = u.snapshot_hash,
	seen = u.seen::JSONB, missing = u.missing::JSONB, closed_seq = u.closed_seq, close_reason = u.close_reason,
	first_observed = u.first_observed, last_observed = u.last_observed, received_at = u.received_at,
	connection_status = u.connection_status, connection_status_seq = u.connection_status_seq,
	mac = u.mac, mac_seq = u.mac_seq, hostname = u.hostname, hostname_seq = u.hostname_seq,
	events = u.events, records = u.records, duplicates = u.duplicates, after_close = u.after_close,
	repaired = u.repaired, over_limit = u.over_limit, stale = u.stale,
	revision = u.revision, apply_id = u.apply_id,
	close_kind = u.close_kind, changed_at = u.changed_at, reopened = u.reopened, applied_at = now()
FROM (SELECT
	unnest($1::UUID[]) AS session_id, unnest($2::UUID[]) AS device_id, unnest($3::BOOL[]) AS identified,
	unnest($4::INT8[]) AS as_of_seq, unnest($5::INT8[]) AS snapshot_seq, unnest($6::TIMESTAMPTZ[]) AS snapshot_at,
	unnest($7::TEXT[]) AS snapshot_hash, unnest($8::TEXT[]) AS seen, unnest($9::TEXT[]) AS missing,
	unnest($10::INT8[]) AS closed_seq, unnest($11::TEXT[]) AS close_reason,
	unnest($12::TIMESTAMPTZ[]) AS first_observed, unnest($13::TIMESTAMPTZ[]) AS last_observed, unnest($14::TIMESTAMPTZ[]) AS received_at,
	unnest($15::TEXT[]) AS connection_status, unnest($16::INT8[]) AS connection_status_seq,
	unnest($17::TEXT[]) AS mac, unnest($18::INT8[]) AS mac_seq, unnest($19::TEXT[]) AS hostname, unnest($20::INT8[]) AS hostname_seq,
	unnest($21::INT8[]) AS events, unnest($22::INT8[]) AS records, unnest($23::INT8[]) AS duplicates,
	unnest($24::INT8[]) AS after_close, unnest($25::INT8[]) AS repaired, unnest($26::INT8[]) AS over_limit,
	unnest($27::INT8[]) AS stale, unnest($28::INT8[]) AS revision, unnest($29::TEXT[]) AS apply_id,
	unnest($30::TEXT[]) AS close_kind, unnest($31::TIMESTAMPTZ[]) AS changed_at, unnest($32::INT8[]) AS reopened
) u
WHERE device_session.session_id = u.session_id`

	sqlUpsertAttributes = `
INSERT INTO device_attribute (session_id, name, value, seq, observed_at, received_at, applied_at)
SELECT u.session_id, u.name, u.value::JSONB, u.seq, u.observed_at, u.received_at, now()
FROM (SELECT unnest($1::UUID[]) AS session_id, unnest($2::TEXT[]) AS name, unnest($3::TEXT[]) AS value,
	unnest($4::INT8[]) AS seq, unnest($5::TIMESTAMPTZ[]) AS observed_at, unnest($6::TIMESTAMPTZ[]) AS received_at) u
ON CONFLICT (session_id, name) DO UPDATE SET
	value = excluded.value, seq = excluded.seq, observed_at = excluded.observed_at,
	received_at = excluded.received_at, applied_at = excluded.applied_at
WHERE device_attribute.seq < excluded.seq`

	// What a snapshot corrects though the stored seq is not older, unless a
	// newer event has changed it since.
	sqlCorrectAttributes = `
UPDATE device_attribute SET
	value = u.value::JSONB, seq = u.seq, observed_at = u.observed_at, received_at = u.received_at, applied_at = now()
FROM (SELECT unnest($1::UUID[]) AS session_id, unnest($2::TEXT[]) AS name, unnest($3::TEXT[]) AS value,
	unnest($4::INT8[]) AS seq, unnest($5::TIMESTAMPTZ[]) AS observed_at, unnest($6::TIMESTAMPTZ[]) AS received_at,
	unnest($7::INT8[]) AS snapshot) u
WHERE device_attribute.session_id = u.session_id AND device_attribute.name = u.name
	AND device_attribute.seq >= u.seq AND device_attribute.seq <= u.snapshot
	AND (device_attribute.seq <> u.seq OR device_attribute.value IS NULL OR device_attribute.value <> u.value::JSONB)`

	// What was shown until then stays history, so a correction is a change at
	// the snapshot's seq.
	sqlRecordCorrections = `
INSERT INTO attribute_change (session_id, seq, name, value, observed_at, received_at, applied_at)
SELECT u.session_id, u.seq, u.name, u.value::JSONB, u.observed_at, u.received_at, now()
FROM (SELECT unnest($1::UUID[]) AS session_id, unnest($2::TEXT[]) AS name, unnest($3::TEXT[]) AS value,
	unnest($4::INT8[]) AS seq, unnest($5::TIMESTAMPTZ[]) AS observed_at, unnest($6::TIMESTAMPTZ[]) AS received_at) u
ON CONFLICT (session_id, seq, name) DO NOTHING`

	// What loses against the stored seq is not written, and what is not
	// written is not history.
	sqlUpsertWithHistory = `
WITH written AS (` + sqlUpsertAttributes + `
	RETURNING session_id, name, value, seq, observed_at, received_at, applied_at
)
INSERT INTO attribute_change (session_id, seq, name, value, observed_at, received_at, applied_at)
SELECT session_id, seq, name, value, observed_at, received_at, applied_at FROM written
ON CONFLICT (session_id, seq, name) DO NOTHING`

	// device.Advance's rule: a position of another incarnation takes the place.
	sqlUpsertPositions = `
INSERT INTO ingest_position (session_id, topic, topic_id, partition, next_offset)
SELECT unnest($1::UUID[]), unnest($2::TEXT[]), unnest($3::TEXT[]), unnest($4::INT4[]), unnest($5::INT8[])
ON CONFLICT (session_id, topic, partition) DO UPDATE SET topic_id = excluded.topic_id, next_offset = excluded.next_offset
WHERE ingest_position.topic_id <> excluded.topic_id OR ingest_position.next_offset < excluded.next_offset`

	sqlOpenGaps = `
INSERT INTO session_gap (session_id, from_seq, to_seq, opened_at)
SELECT unnest($1::UUID[]), unnest($2::INT8[]), unnest($3::INT8[]), now()
ON CONFLICT (session_id, from_seq, to_seq) DO NOTHING`

	sqlEndGaps = `
UPDATE session_gap SET ended_at = now(), ended_by = u.ended_by
FROM (SELECT unnest($1::UUID[]) AS session_id, unnest($2::INT8[]) AS from_seq, unnest($3::INT8[]) AS to_seq,
	unnest($4::TEXT[]) AS ended_by) u
WHERE session_gap.session_id = u.session_id AND session_gap.from_seq = u.from_seq AND session_gap.to_seq = u.to_seq
	AND session_gap.ended_at IS NULL`

	sqlQuarantine = `
INSERT INTO quarantined_batch (quarantine_id, session_id, rae, topic, topic_id, partition, first_offset, last_offset, cause, detail, quarantined_at)
SELECT unnest($1::UUID[]), unnest($2::UUID[]), unnest($3::TEXT[]), unnest($4::TEXT[]), unnest($5::TEXT[]), unnest($6::INT4[]),
	unnest($7::INT8[]), unnest($8::INT8[]), unnest($9::TEXT[]), unnest($10::TEXT[]), unnest($11::TIMESTAMPTZ[])
ON CONFLICT (quarantine_id) DO NOTHING`

	// An interface is made of what is stored, in the transaction that stores
	// it: what lost against a newer seq is not in it.
	sqlUpsertInterfaces = `
INSERT INTO network_interface (session_id, mac, mac_local, ipv4, ipv6, hostname, first_seen, changed_at)
SELECT session_id,
	COALESCE(max(CASE WHEN name = '` + device.AttrMAC + `' THEN value #>> '{}' END), ''),
	COALESCE(max(CASE WHEN name = '` + device.AttrMACLocal + `' THEN value #>> '{}' END), '') = 'true',
	COALESCE(max(CASE WHEN name = '` + device.AttrIPv4 + `' THEN value #>> '{}' END), ''),
	COALESCE(max(CASE WHEN name = '` + device.AttrIPv6 + `' THEN value::TEXT END), '[]')::JSONB,
	COALESCE(max(CASE WHEN name = '` + device.AttrHostname + `' THEN value #>> '{}' END), ''),
	COALESCE(min(CASE WHEN name = '` + device.AttrMAC + `' THEN observed_at END), min(observed_at)),
	max(observed_at)
FROM device_attribute
WHERE session_id = ANY($1::UUID[]) AND name = ANY($2::TEXT[])
GROUP BY session_id ORDER BY session_id
ON CONFLICT (session_id) DO UPDATE SET
	mac = excluded.mac, mac_local = excluded.mac_local, ipv4 = excluded.ipv4, ipv6 = excluded.ipv6, hostname = excluded.hostname,
	first_seen = LEAST(network_interface.first_seen, excluded.first_seen), changed_at = excluded.changed_at`
)

// What workflows and the poller read.
const (
	sqlSession = `
SELECT ` + sessionColumns + ` FROM device_session WHERE session_id = $1`

	sqlAttributes = `
SELECT name, value, seq, observed_at FROM device_attribute WHERE session_id = $1 ORDER BY name`

	// Of each session the newest first. Of two one is the older, for whichever
	// is asked.
	sqlRivals = `
SELECT n.session_id, o.session_id, (o.changed_at, o.session_id) < (n.changed_at, n.session_id)
FROM device_session n JOIN device_session o ON o.mac = n.mac AND o.rae = n.rae
WHERE n.session_id = ANY($1::UUID[]) AND n.mac <> '' AND n.mac <> '00:00:00:00:00:00' AND n.closed_seq = 0
	AND o.session_id <> n.session_id AND o.closed_seq = 0
	AND o.changed_at IS NOT NULL AND n.changed_at IS NOT NULL
ORDER BY n.session_id, o.changed_at DESC, o.session_id DESC LIMIT $2`

	sqlKnown = `
SELECT session_id, snapshot_seq, seen, CASE WHEN close_kind = '` + closedByEdge + `' THEN closed_seq ELSE 0 END FROM device_session WHERE session_id = ANY($1::UUID[])`
)
