package store

// Every SQL statement of the package, but for the schema.
//
// They keep to what PostgreSQL and CockroachDB both run. Sets come in as arrays
// that unnest side by side. A statement names no key twice (both databases
// refuse that in an upsert), and its keys come sorted, so that transactions
// that write the same rows meet in the same order and one waits for the other
// instead of deadlocking.

const sqlPing = `
SELECT count(*) FROM pg_catalog.pg_tables WHERE tablename = 'quarantined_batch'`

// A transaction of Apply.

const (
	sqlBegin  = `BEGIN`
	sqlCommit = `COMMIT`

	// sessionColumns are the fields of row, in the order of row.scan.
	sessionColumns = `session_id, rae, device_id, identified, as_of_seq, snapshot_seq, snapshot_at, snapshot_hash,
	seen, missing, closed_seq, close_reason, first_observed, last_observed, received_at,
	connection_status, connection_status_seq, mac, mac_seq, hostname, hostname_seq,
	events, records, duplicates, after_close, repaired, over_limit, stale`

	// The sort is below the lock: rows are locked in its order.
	sqlLockSessions = `
SELECT ` + sessionColumns + `
FROM device_session WHERE session_id = ANY($1::UUID[]) ORDER BY session_id FOR UPDATE`

	sqlPositions = `
SELECT session_id, topic, partition, next_offset
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
	repaired = u.repaired, over_limit = u.over_limit, stale = u.stale, applied_at = now()
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
	unnest($27::INT8[]) AS stale
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

	sqlUpsertPositions = `
INSERT INTO ingest_position (session_id, topic, partition, next_offset)
SELECT unnest($1::UUID[]), unnest($2::TEXT[]), unnest($3::INT4[]), unnest($4::INT8[])
ON CONFLICT (session_id, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
WHERE ingest_position.next_offset < excluded.next_offset`

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
INSERT INTO quarantined_batch (quarantine_id, session_id, rae, topic, partition, first_offset, last_offset, cause, detail, quarantined_at)
SELECT unnest($1::UUID[]), unnest($2::UUID[]), unnest($3::TEXT[]), unnest($4::TEXT[]), unnest($5::INT4[]),
	unnest($6::INT8[]), unnest($7::INT8[]), unnest($8::TEXT[]), unnest($9::TEXT[]), unnest($10::TIMESTAMPTZ[])
ON CONFLICT (quarantine_id) DO NOTHING`
)

// What a transaction of Apply runs besides when evidence or a network.*
// attribute is written.
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

	// A merge: all that a device has goes to another; then it is deleted.
	fromMerges = `
FROM (SELECT unnest($1::UUID[]) AS from_device, unnest($2::UUID[]) AS into_device) m WHERE `

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

	// An interface is made of what is stored, in the transaction that stores
	// it: what lost against a newer seq is not in it.
	sqlUpsertInterfaces = `
INSERT INTO network_interface (session_id, mac, mac_local, ipv4, ipv6, hostname, first_seen, changed_at)
SELECT session_id,
	COALESCE(max(CASE WHEN name = 'network.mac' THEN value #>> '{}' END), ''),
	COALESCE(max(CASE WHEN name = 'network.mac_local' THEN value #>> '{}' END), '') = 'true',
	COALESCE(max(CASE WHEN name = 'network.ipv4' THEN value #>> '{}' END), ''),
	COALESCE(max(CASE WHEN name = 'network.ipv6' THEN value::TEXT END), '[]')::JSONB,
	COALESCE(max(CASE WHEN name = 'network.hostname' THEN value #>> '{}' END), ''),
	COALESCE(min(CASE WHEN name = 'network.mac' THEN observed_at END), min(observed_at)),
	max(observed_at)
FROM device_attribute
WHERE session_id = ANY($1::UUID[]) AND name = ANY($2::TEXT[])
GROUP BY session_id ORDER BY session_id
ON CONFLICT (session_id) DO UPDATE SET
	mac = excluded.mac, mac_local = excluded.mac_local, ipv4 = excluded.ipv4, ipv6 = excluded.ipv6, hostname = excluded.hostname,
	first_seen = LEAST(network_interface.first_seen, excluded.first_seen), changed_at = excluded.changed_at`
)

// Load. The three reads must see one moment.
const (
	sqlBeginRead = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`

	sqlSession = `
SELECT ` + sessionColumns + ` FROM device_session WHERE session_id = $1`

	sqlAttributes = `
SELECT name, value, seq, observed_at FROM device_attribute WHERE session_id = $1 ORDER BY name`

	// Of each session the newest first. Of two one is the older, for whichever
	// is asked.
	sqlRivals = `
SELECT n.session_id, o.session_id, (o.received_at, o.first_observed, o.session_id) < (n.received_at, n.first_observed, n.session_id)
FROM device_session n JOIN device_session o ON o.mac = n.mac AND o.rae = n.rae
WHERE n.session_id = ANY($1::UUID[]) AND n.mac <> '' AND n.mac <> '00:00:00:00:00:00' AND n.closed_seq = 0
	AND o.session_id <> n.session_id AND o.closed_seq = 0
	AND o.received_at IS NOT NULL AND o.first_observed IS NOT NULL AND n.received_at IS NOT NULL AND n.first_observed IS NOT NULL
ORDER BY n.session_id, o.received_at DESC, o.first_observed DESC, o.session_id DESC LIMIT $2`

	sqlKnown = `
SELECT session_id, snapshot_seq, seen, closed_seq FROM device_session WHERE session_id = ANY($1::UUID[])`
)

// Queries for people.

const (
	// summaryColumns are the fields of Summary, in the order of its scan.
	summaryColumns = `s.device_id, s.session_id, s.rae, s.connection_status, s.mac, s.as_of_seq, s.snapshot_seq,
	s.missing, s.closed_seq, s.close_reason, s.first_observed, s.last_observed, s.received_at, s.applied_at`

	// The current session of a device is its open one, or the one seen last.
	// Its session id breaks ties.
	currentOrder = `(closed_seq > 0), last_observed DESC NULLS LAST, session_id`

	// Devices in the order of their identifiers, from after $1. The text of a
	// value is what people type: a string without its quotes.
	sqlListDevices = `
SELECT ` + summaryColumns + `
FROM (
	SELECT DISTINCT ON (device_id) *
	FROM device_session
	WHERE device_id > $1
	ORDER BY device_id, ` + currentOrder + `
) s
WHERE ($2::TEXT = '' OR s.rae = $2)
	AND ($3::TEXT = '' OR ($3 = 'closed' AND s.closed_seq > 0) OR ($3 = s.connection_status AND s.closed_seq = 0))
	AND ($4::TEXT = '' OR EXISTS (
		SELECT 1 FROM device_attribute a
		WHERE a.session_id = s.session_id AND a.name = ANY($5::TEXT[]) AND strpos(lower(a.value #>> '{}'), lower($4)) > 0))
	AND NOT EXISTS (
		SELECT 1 FROM (SELECT unnest($6::TEXT[]) AS name, unnest($7::TEXT[]) AS value, unnest($8::TEXT[]) AS member) f
		WHERE NOT EXISTS (
			SELECT 1 FROM device_attribute a
			WHERE a.session_id = s.session_id AND a.name = f.name
				AND (a.value #>> '{}' = f.value OR a.value @> f.member::JSONB)))
	AND (NOT $10::BOOL OR (s.connection_status = 'online' AND s.closed_seq = 0 AND NOT EXISTS (
		SELECT 1 FROM device_test_state t
		WHERE t.device_id = s.device_id AND t.state <> 'available' AND (t.state <> 'in_test' OR t.lease_until > now()))))
ORDER BY s.device_id
LIMIT $9`

	sqlAttributesOf = `
SELECT session_id, name, value, seq, observed_at FROM device_attribute
WHERE session_id = ANY($1::UUID[]) AND ($2::TEXT[] IS NULL OR name = ANY($2)) AND value IS NOT NULL
ORDER BY session_id, name`

	sqlSessionsOf = `
SELECT ` + summaryColumns + `
FROM device_session s WHERE s.device_id = $1 ORDER BY ` + currentOrder + ` LIMIT $2`

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
FROM device_session s WHERE s.session_id = ANY($1::UUID[]) ORDER BY s.device_id, ` + currentOrder + ``

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
SELECT session_id, device_id FROM device_session WHERE session_id = $1
UNION
SELECT session_id, device_id FROM device_session WHERE device_id = $1
LIMIT $2`
	sqlRefMAC = `
SELECT session_id, device_id FROM device_session WHERE mac = $1 LIMIT $2`

	// Devices by a host name, $1 in lower case, or by another of their names, $3
	// as it was typed. Other names have no index: people wait for it, nothing
	// else does.
	sqlRefName = `
SELECT DISTINCT ON (m.device_id) m.session_id, m.device_id FROM (
	SELECT session_id, device_id FROM device_session WHERE hostname = $1
	UNION ALL
	SELECT s.session_id, s.device_id
	FROM device_attribute a JOIN device_session s ON s.session_id = a.session_id
	WHERE a.name = ANY($4::TEXT[]) AND lower(btrim(a.value #>> '{}')) = lower($3)
) m ORDER BY m.device_id LIMIT $2`

	// One that is begun. It reads every session's row, as sqlRefName does.
	sqlRefPrefix = `
SELECT s.session_id, s.device_id FROM device_session s
WHERE left(s.device_id::TEXT, length($1::TEXT)) = $1 OR left(s.session_id::TEXT, length($1)) = $1
	OR left(s.mac, length($1)) = $1 OR left(s.hostname, length($1)) = $1
	OR EXISTS (
		SELECT 1 FROM device_attribute a
		WHERE a.session_id = s.session_id AND a.name = ANY($4::TEXT[]) AND strpos(lower(btrim(a.value #>> '{}')), lower($3)) = 1)
ORDER BY s.device_id, s.session_id LIMIT $2`

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
	sqlUntold = `
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

// Quarantined batches.
const (
	batchColumns = `quarantine_id, session_id, rae, topic, partition, first_offset, last_offset, cause, detail, quarantined_at,
	settled_at, settled_by, outcome`

	// The oldest first, from after ($5, $6).
	sqlListQuarantine = `
SELECT ` + batchColumns + ` FROM quarantined_batch
WHERE ($1::TEXT = '' OR rae = $1) AND ($2::UUID IS NULL OR session_id = $2) AND (cardinality($3::TEXT[]) = 0 OR cause = ANY($3))
	AND ($4::BOOL OR settled_at IS NULL)
	AND (quarantined_at > $5 OR (quarantined_at = $5 AND quarantine_id > $6::UUID))
ORDER BY quarantined_at, quarantine_id LIMIT $7`

	sqlGetQuarantine = `
SELECT ` + batchColumns + ` FROM quarantined_batch WHERE quarantine_id = ANY($1::UUID[]) ORDER BY quarantined_at, quarantine_id`

	sqlSettleQuarantine = `
UPDATE quarantined_batch SET settled_at = now(), settled_by = $2, outcome = $3 WHERE quarantine_id = ANY($1::UUID[])`
)

// Retention. Each statement deletes a bounded number of rows that it finds by
// key, and may run beside Apply.
const (
	sqlRaiseHorizon = `
INSERT INTO retention_horizon (what, horizon) VALUES ('history', $1)
ON CONFLICT (what) DO UPDATE SET horizon = excluded.horizon WHERE retention_horizon.horizon < excluded.horizon`

	sqlSessionsAfter = `
SELECT session_id FROM device_session WHERE session_id > $1 ORDER BY session_id LIMIT $2`

	// A change leaves when the one that replaced it is older than the horizon:
	// then nobody can ask for a time when it was the value. So the newest change
	// of each attribute stays, and the answer for any time from the horizon on
	// is whole.
	sqlExpireHistory = `
DELETE FROM attribute_change WHERE (session_id, seq, name) IN (
	SELECT session_id, seq, name FROM (
		SELECT session_id, seq, name, lead(applied_at) OVER (PARTITION BY session_id, name ORDER BY seq) AS replaced_at
		FROM attribute_change WHERE session_id = ANY($1::UUID[]) AND applied_at < $2
	) c WHERE replaced_at < $2 LIMIT $3)`

	// A tombstone holds against older events. From a snapshot at or past its seq
	// on, the snapshot does, and the tombstone may leave.
	sqlExpireTombstones = `
DELETE FROM device_attribute WHERE session_id = ANY($1::UUID[]) AND value IS NULL AND applied_at < $2
	AND seq <= (SELECT s.snapshot_seq FROM device_session s WHERE s.session_id = device_attribute.session_id)`

	sqlExpireGaps = `
DELETE FROM session_gap WHERE session_id = ANY($1::UUID[]) AND ended_at < $2`

	sqlExpireQuarantine = `
DELETE FROM quarantined_batch WHERE session_id = ANY($1::UUID[]) AND settled_at < $2`

	// Closed sessions that may leave, locked. What nobody has dealt with stays,
	// and its session with it.
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

// Identity, for people.
const (
	conflictColumns = `conflict_id, device_a, kind_a, value_a, device_b, kind_b, value_b, session_id, noted_at, decision, decided_by, decided_at`

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
	ORDER BY device_id, ` + currentOrder + `
) s`

	// A decision is about a pair of devices, and settles whatever is open of it.
	sqlDecide = `
UPDATE identity_conflict SET decision = $3, decided_by = $4, decided_at = now()
WHERE ((device_a = $1 AND device_b = $2) OR (device_a = $2 AND device_b = $1)) AND decision <> 'merged'`

	// Two devices that were not in conflict are merged all the same.
	sqlRecordMerge = `
INSERT INTO identity_conflict (conflict_id, device_a, device_b, kind_b, value_b, session_id, noted_at, decision, decided_by, decided_at)
VALUES ($1, $2, $3, '', '', $4, now(), 'merged', $5, now())
ON CONFLICT (conflict_id) DO NOTHING`

	// What was in conflict with a device that is merged is so with the one it is merged into.
	sqlRepointConflicts = `
UPDATE identity_conflict SET
	device_a = CASE WHEN device_a = $1 THEN $2 ELSE device_a END,
	device_b = CASE WHEN device_b = $1 THEN $2 ELSE device_b END
WHERE (device_a = $1 OR device_b = $1) AND decision <> 'merged'`
)

// Test state. A lease that has ended is no state: the device is available.
const (
	sqlTestStates = `
SELECT device_id, state, holder, reason, since, lease_until FROM device_test_state
WHERE device_id = ANY($1::UUID[]) AND (state <> 'in_test' OR lease_until > now())`

	// The same, by session.
	sqlTestStatesOf = `
SELECT s.session_id, t.state, t.holder, t.reason, t.since, t.lease_until
FROM device_session s JOIN device_test_state t ON t.device_id = s.device_id
WHERE s.session_id = ANY($1::UUID[]) AND (t.state <> 'in_test' OR t.lease_until > now())`

	// It writes no row where another state holds.
	sqlReserve = `
INSERT INTO device_test_state (device_id, state, holder, reason, since, lease_until)
VALUES ($1, 'in_test', $2, $3, now(), now() + $4::FLOAT8 * INTERVAL '1 second')
ON CONFLICT (device_id) DO UPDATE SET
	state = excluded.state, holder = excluded.holder, reason = excluded.reason, since = excluded.since, lease_until = excluded.lease_until
WHERE device_test_state.state = 'available'
	OR (device_test_state.state = 'in_test' AND device_test_state.lease_until <= now())
RETURNING state, holder, reason, since, lease_until`

	sqlRenew = `
UPDATE device_test_state SET lease_until = now() + $3::FLOAT8 * INTERVAL '1 second'
WHERE device_id = $1 AND state = 'in_test' AND holder = $2 AND lease_until > now()
RETURNING state, holder, reason, since, lease_until`

	// $3: whoever holds it.
	sqlRelease = `
UPDATE device_test_state SET state = 'available', holder = '', reason = '', since = now(), lease_until = NULL
WHERE device_id = $1 AND state = 'in_test' AND (holder = $2 OR $3::BOOL)
RETURNING state, holder, reason, since, lease_until`

	// $5: though somebody holds it.
	sqlSetTestState = `
INSERT INTO device_test_state (device_id, state, holder, reason, since)
VALUES ($1, $2, $3, $4, now())
ON CONFLICT (device_id) DO UPDATE SET
	state = excluded.state, holder = excluded.holder, reason = excluded.reason, since = excluded.since, lease_until = NULL
WHERE $5::BOOL OR device_test_state.state <> 'in_test' OR device_test_state.lease_until <= now()
RETURNING state, holder, reason, since, lease_until`
)
