package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

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
		{"device.serial": `"0000000000"`, "roku.serial": `"none"`},
		{"device.serial": `"1"`, "identity.udns": `[]`, "netflix.esn": `7`},
		{"identity.udns": `["uuid:00000000-0000-0000-0000-000000000000"]`},
	} {
		deviceOf(t, s, newFeed(n), attributes)
	}
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_identity`))
	require.Equal(t, 7, query[int](t, url, `SELECT count(DISTINCT device_id) FROM device_session`))
}

func TestStrongestIdentityWins(t *testing.T) {
	s, url := open(t)
	byESN := deviceOf(t, s, newFeed(1), map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:01"`})
	byMAC := deviceOf(t, s, newFeed(2), map[string]string{"network.mac": `"9c:b6:d0:00:00:02"`})
	require.NotEqual(t, byESN, byMAC)
	// The ESN moved to a box with the other's network adapter.
	require.Equal(t, byESN, deviceOf(t, s, newFeed(3), map[string]string{"netflix.esn": `"NF-0001"`, "network.mac": `"9c:b6:d0:00:00:02"`}))
	require.Equal(t, byMAC, query[string](t, url, `SELECT device_id::TEXT FROM device_identity WHERE value = '9c:b6:d0:00:00:02'`), "its owner keeps it")
}

// A session has a device from its first event on; the first evidence moves it
// to the one that is known, and what comes later moves nothing.
func TestFirstEvidenceBinds(t *testing.T) {
	s, url := open(t)
	known := deviceOf(t, s, newFeed(1), map[string]string{"device.serial": `"SN-0001"`})
	f := newFeed(2)
	provisional := deviceOf(t, s, f, map[string]string{"network.mac": `"02:00:00:00:00:07"`})
	require.NotEqual(t, known, provisional)
	apply(t, s, f.update(f.delta(2, map[string]string{"device.serial": `"SN-0001"`})))
	require.Equal(t, known, deviceNow(t, s, f))
	require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM device`), "the provisional one is gone")

	other := deviceOf(t, s, newFeed(3), map[string]string{"netflix.esn": `"NF-0009"`})
	apply(t, s, f.update(f.delta(3, map[string]string{"netflix.esn": `"NF-0009"`})))
	require.Equal(t, known, deviceNow(t, s, f))
	require.Equal(t, other, query[string](t, url, `SELECT device_id::TEXT FROM device_identity WHERE kind = 'esn'`))
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
	_, err = tx.Exec(t.Context(), `LOCK TABLE device_identity, device, rae IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	brief, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Apply(brief, []store.Update{f.update(f.delta(2, map[string]string{"network.ipv4": `"192.168.7.2"`}))}))
	require.NoError(t, tx.Rollback(t.Context()))
}
