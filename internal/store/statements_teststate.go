package store

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

	// $3 is force: it is released whoever holds it. A lease that has ended is released too.
	sqlRelease = `
UPDATE device_test_state SET state = 'available', holder = '', reason = '', since = now(), lease_until = NULL
WHERE device_id = $1 AND state = 'in_test' AND (holder = $2 OR $3::BOOL)
RETURNING state, holder, reason, since, lease_until`

	// $5 is force: the state is set even where somebody holds the device.
	sqlSetTestState = `
INSERT INTO device_test_state (device_id, state, holder, reason, since)
VALUES ($1, $2, $3, $4, now())
ON CONFLICT (device_id) DO UPDATE SET
	state = excluded.state, holder = excluded.holder, reason = excluded.reason, since = excluded.since, lease_until = NULL
WHERE $5::BOOL OR device_test_state.state <> 'in_test' OR device_test_state.lease_until <= now()
RETURNING state, holder, reason, since, lease_until`
)
