package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// deviceOf applies a session's first attributes and returns its device.
func deviceOf(t *testing.T, s *store.Store, f *feed, attributes map[string]string) string {
	t.Helper()
	apply(t, s, f.update(f.opened(attributes)))
	return deviceNow(t, s, f)
}

func deviceNow(t *testing.T, s *store.Store, f *feed) string {
	t.Helper()
	d, err := s.GetDevice(t.Context(), f.id)
	require.NoError(t, err)
	return d.Device
}

func TestSessionsOfOneIdentityAreOneDevice(t *testing.T) {
	for name, shared := range map[string]map[string]string{
		"esn":       {"netflix.esn": `"NFCDCH-02-ABC"`},
		"udn":       {"identity.udns": `["uuid:2FAC1234-31F8-11B4-A222-08002B34C003","uuid:other-one"]`},
		"serial":    {"device.serial": `"X00400ABCDEF"`},
		"roku":      {"roku.serial": `"X00400ABCDEF"`},
		"client":    {"dhcp.client_id": `"ff:b5:5e:67:ff:00:02:00:00:ab:11"`},
		"mac":       {"network.mac": `"9c:b6:d0:12:34:56"`},
		"client/ma": {"dhcp.client_id": `"01:9c:b6:d0:12:34:56"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := open(t)
			first := deviceOf(t, s, newFeed(1), shared)
			require.Equal(t, first, deviceOf(t, s, newFeed(2), shared))
			require.NotEqual(t, first, deviceOf(t, s, newFeed(3), nil))
			require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM device`))
		})
	}
}

func TestNoEvidence(t *testing.T) {
	s, url := open(t)
	for n, attributes := range []map[string]string{
		{"network.mac": `"00:00:00:00:00:00"`},
		{"network.mac": `"02:42:ac:11:00:02"`}, // locally administered
		{"network.mac": `"ff:ff:ff:ff:ff:ff"`},
		{"network.mac": `"what"`, "dhcp.client_id": `"01:02:42:ac:11:00:02"`},
		{"device.serial": `"1000001"`, "roku.serial": `"00000100001"`},
		{"device.serial": `"0000000000"`, "roku.serial": `"none"`},
		{"device.serial": `"1"`, "identity.udns": `[]`, "netflix.esn": `7`},
		{"identity.udns": `["uuid:00000000-0000-0000-0000-000000000000"]`},
	} {
		deviceOf(t, s, newFeed(n), attributes)
	}
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_identity`)+query[int](t, url, `SELECT count(*) FROM identity_owner`))
	require.Equal(t, 8, query[int](t, url, `SELECT count(DISTINCT device_id) FROM device_session`))
}

func owner(t *testing.T, url, value string) string {
	t.Helper()
	return query[string](t, url, `SELECT device_id::TEXT FROM identity_owner WHERE value = $1`, value)
}

// Strong evidence decides. Weak evidence merges no two known devices: it is a
// conflict, unless both are known by strong evidence; then it leads to the last that
// brought it.
func TestStrongEvidenceDecides(t *testing.T) {
	s, url := open(t)
	one := deviceOf(t, s, newFeed(1), map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:01"`})
	weak := newFeed(2)
	seen := deviceOf(t, s, weak, map[string]string{"network.mac": `"9c:b6:d0:00:00:02"`})
	require.NotEqual(t, one, seen)
	// The ESN moves to a network adapter that was seen alone before.
	require.Equal(t, one, deviceOf(t, s, newFeed(3), map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:02"`}))
	require.Equal(t, seen, deviceNow(t, s, weak))
	open, err := s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Len(t, open, 1)
	require.Equal(t, store.Side{Device: seen, Kind: "mac", Value: "9c:b6:d0:00:00:02"}, open[0].B)
	_, err = s.MergeConflict(t.Context(), open[0].ID, "jana")
	require.NoError(t, err)

	// The adapter moves to another device.
	one = deviceNow(t, s, weak)
	two := deviceOf(t, s, newFeed(4), map[string]string{"netflix.esn": `"NF-0002"`, "network.mac": `"9c:b6:d0:00:00:02"`})
	require.NotEqual(t, one, two)
	require.Equal(t, two, owner(t, url, "9c:b6:d0:00:00:02"))
	require.Equal(t, two, deviceOf(t, s, newFeed(5), map[string]string{"network.mac": `"9c:b6:d0:00:00:02"`}))
	require.Equal(t, one, deviceNow(t, s, weak), "who was placed stays")
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM identity_conflict WHERE decision = ''`))
}

// A MAC and a client identifier that names another MAC merge nothing, whoever says
// so, though nothing strong is known of either device.
func TestWeakEvidenceMergesNothing(t *testing.T) {
	const a, b, clientB = `"9c:b6:d0:00:00:0a"`, `"9c:b6:d0:00:00:0b"`, `"01:9c:b6:d0:00:00:0b"`
	for name, third := range map[string]bool{"of a third session": true, "of its own session": false} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			first, second := newFeed(1), newFeed(2)
			one, two := deviceOf(t, s, first, map[string]string{"network.mac": a}), deviceOf(t, s, second, map[string]string{"network.mac": b})
			says := map[string]string{"network.mac": a, "dhcp.client_id": clientB}
			if third {
				deviceOf(t, s, newFeed(3), says)
			} else {
				apply(t, s, first.update(first.delta(2, says)))
			}
			require.Equal(t, one, deviceNow(t, s, first))
			require.Equal(t, two, deviceNow(t, s, second))
			conflicts, err := s.Conflicts(t.Context(), "", false)
			require.NoError(t, err)
			require.Len(t, conflicts, 1)
			require.ElementsMatch(t, []string{one, two}, []string{conflicts[0].A.Device, conflicts[0].B.Device})
		})
	}
}

// A session has a device from its first event on. Strong evidence moves it to
// the device that is known by that, however late it comes, and the device row
// that it leaves empty goes.
func TestProvisionalSessionJoins(t *testing.T) {
	s, url := open(t)
	known := deviceOf(t, s, newFeed(1), map[string]string{"device.serial": `"SN-000001"`})
	f := newFeed(2)
	provisional := deviceOf(t, s, f, map[string]string{"network.mac": `"02:00:00:00:00:07"`})
	require.NotEqual(t, known, provisional)
	apply(t, s, f.update(f.delta(2, map[string]string{"network.mac": `"9c:b6:d0:00:00:07"`})))
	require.Equal(t, provisional, deviceNow(t, s, f), "a MAC that changes keeps the device")
	apply(t, s, f.update(f.delta(3, map[string]string{"netflix.esn": `"NF-0007"`})))
	require.Equal(t, provisional, deviceNow(t, s, f), "new evidence is the device's")
	apply(t, s, f.update(f.delta(4, map[string]string{"device.serial": `"SN-000001"`})))
	require.Equal(t, known, deviceNow(t, s, f), "nobody else vouched for the device")
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM device`))
	require.Equal(t, known, owner(t, url, "NF-0007"))
	require.Equal(t, known, owner(t, url, "9c:b6:d0:00:00:07"))
	require.Equal(t, 4, query[int](t, url, `SELECT count(*) FROM device_identity WHERE device_id = $1`, known))
}

// Weak evidence had placed a session at a device; strong evidence that nobody
// has says that it is another. It takes the weak evidence with it.
func TestStrongEvidenceLeavesThePlaceOfWeak(t *testing.T) {
	s, url := open(t)
	mac := map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`}
	first := deviceOf(t, s, newFeed(1), map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:01"`})
	f := newFeed(2)
	require.Equal(t, first, deviceOf(t, s, f, mac))
	apply(t, s, f.update(f.delta(2, map[string]string{"netflix.esn": `"NF-0002"`})))
	second := deviceNow(t, s, f)
	require.NotEqual(t, first, second)
	require.Equal(t, second, deviceOf(t, s, newFeed(3), mac))
	require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM device_identity WHERE device_id = $1 AND session_id = $2`, second, f.id))
}

// An ESN that changes keeps the device, unless it is known to be another's:
// that is for a person to decide.
func TestChangeOfStrongEvidence(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	first := deviceOf(t, s, f, map[string]string{"netflix.esn": `"NF-0001"`})
	apply(t, s, f.update(f.delta(2, map[string]string{"netflix.esn": `"NF-0002"`})))
	require.Equal(t, first, deviceNow(t, s, f))
	require.Equal(t, first, deviceOf(t, s, newFeed(2), map[string]string{"netflix.esn": `"NF-0001"`}), "what it had leads there still")
	require.Equal(t, first, deviceOf(t, s, newFeed(3), map[string]string{"netflix.esn": `"NF-0002"`}))

	other := deviceOf(t, s, newFeed(4), map[string]string{"netflix.esn": `"NF-0003"`})
	g := newFeed(5)
	moved := deviceOf(t, s, g, map[string]string{"netflix.esn": `"NF-0004"`})
	apply(t, s, g.update(g.delta(2, map[string]string{"netflix.esn": `"NF-0003"`})))
	require.Equal(t, moved, deviceNow(t, s, g))
	require.Equal(t, other, owner(t, url, "NF-0003"))
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM identity_conflict WHERE device_a = $1 AND device_b = $2`, moved, other))
	d, err := s.GetDevice(t.Context(), g.id)
	require.NoError(t, err)
	require.Len(t, d.Identities, 2)
	require.Equal(t, store.Identity{Kind: "esn", Value: "NF-0003", Session: g.id, Attribute: "netflix.esn", ValidFrom: at(2)}, d.Identities[0])
	require.Equal(t, store.Identity{Kind: "esn", Value: "NF-0004", Session: g.id, Attribute: "netflix.esn", ValidFrom: at(1), ValidTo: at(2)}, d.Identities[1])
}

// The timeline is of what was written, once: replays and what comes too late
// change nothing.
func TestTimeline(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	timeline := func() string {
		return query[string](t, url, `SELECT string_agg(value || ' ' || from_seq || '-' || coalesce(to_seq::TEXT, ''), ', ' ORDER BY from_seq, value) FROM device_identity`)
	}
	first := f.update(f.opened(map[string]string{"identity.udns": `["uuid:aaaa-1","uuid:aaaa-2"]`}))
	apply(t, s, first)
	second := f.update(f.delta(2, map[string]string{"identity.udns": `["uuid:aaaa-2","uuid:aaaa-3"]`, "device.serial": `"SN-000001"`}))
	apply(t, s, second)
	want := "aaaa-1 1-2, aaaa-2 1-, SN-000001 2-, aaaa-3 2-"
	require.Equal(t, want, timeline())
	apply(t, s, first)
	apply(t, s, second)
	require.Equal(t, want, timeline())
	apply(t, s, f.update(f.delta(3, map[string]string{"device.serial": `null`})))
	late := second
	late.Write = map[string]device.Attribute{"device.serial": value(2, `"SN-000001"`)}
	apply(t, s, late)
	require.Equal(t, "aaaa-1 1-2, aaaa-2 1-, SN-000001 2-3, aaaa-3 2-", timeline())
	apply(t, s, f.update(f.snapshot(9, map[string]device.Attribute{"identity.udns": value(7, `["uuid:aaaa-3"]`)})))
	require.Equal(t, "aaaa-1 1-2, aaaa-2 1-7, SN-000001 2-3, aaaa-3 2-", timeline())
}

// The same updates on an empty database give the same devices, also in one group.
func TestReplayGivesTheSameDevices(t *testing.T) {
	updates := func() []store.Update {
		a, b := newFeed(1), newFeed(2)
		mac := map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`}
		return []store.Update{b.update(b.opened(mac)), a.update(a.opened(mac))}
	}
	var devices []string
	for range 2 {
		s, url := open(t)
		apply(t, s, updates()...)
		apply(t, s, updates()[1])
		require.Equal(t, 1, query[int](t, url, `SELECT count(DISTINCT device_id) FROM device_session`))
		devices = append(devices, query[string](t, url, `SELECT device_id::TEXT FROM device`))
	}
	require.Equal(t, devices[0], devices[1])
}

// An update without evidence, which is nearly every one, does not look at
// identities or devices: it is applied while both tables are locked.
func TestHotPathLeavesIdentitiesAlone(t *testing.T) {
	s, url := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`})))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `LOCK TABLE device_identity, identity_owner, identity_conflict, device_test_state, network_interface, device, rae IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	brief, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, s.Apply(brief, []store.Update{f.update(f.delta(2, map[string]string{"state.power": `"on"`}))}))
	require.NoError(t, tx.Rollback(t.Context()))
}

// Which device a session is of is decided by facts that stand still: the devices
// that its evidence leads to are locked before they are read.
func TestDevicesThatAreJudgedAreLocked(t *testing.T) {
	s, url := open(t)
	evidence := map[string]string{device.AttrESN: `"ESN-1"`}
	apply(t, s, newFeed(1).update(newFeed(1).opened(evidence)))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(ctx) }()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT device_id FROM device FOR NO KEY UPDATE`) // somebody who judges it, too
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Apply(ctx, []store.Update{newFeed(2).update(newFeed(2).opened(evidence))}) }()
	pid := int32(conn.PgConn().PID())
	require.Eventually(t, func() bool {
		return len(done) > 0 || query[int](t, url, `SELECT count(*) FROM pg_locks WHERE NOT granted AND $1 = ANY (pg_blocking_pids(pid))`, pid) > 0
	}, time.Minute, 5*time.Millisecond)
	require.Empty(t, done, "it did not wait for the other one's decision")
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM device`))
}
