package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// An interface follows the attributes it is made of, and is as they are stored:
// what comes late changes nothing.
func TestInterfaces(t *testing.T) {
	s, url := open(t)
	f, g := newFeed(1), newFeed(2)
	esn := `"NF-0001"`
	first := f.update(f.opened(map[string]string{"network.mac": `"9c:b6:d0:00:00:01"`, "network.ipv4": `"192.168.7.2"`, "network.hostname": `"TV"`, "netflix.esn": esn}))
	apply(t, s, first)
	apply(t, s, g.update(g.opened(map[string]string{"network.mac": `"02:00:00:00:00:07"`, "network.mac_local": `true`, "network.ipv6": `["fe80::1","2001:db8::1"]`, "netflix.esn": esn})))
	apply(t, s, f.update(f.delta(2, map[string]string{"network.ipv4": `null`})))
	apply(t, s, first)
	apply(t, s, f.update(f.delta(3, map[string]string{"state.power": `"on"`})))
	d, err := s.GetDevice(t.Context(), f.id)
	require.NoError(t, err)
	require.Equal(t, []store.Interface{
		{Session: f.id, RAE: "rae-1", MAC: "9c:b6:d0:00:00:01", IPv6: []string{}, Hostname: "TV", FirstSeen: at(1), ChangedAt: at(2)},
		{Session: g.id, RAE: "rae-1", MAC: "02:00:00:00:00:07", MACLocal: true, IPv6: []string{"fe80::1", "2001:db8::1"}, FirstSeen: at(1), ChangedAt: at(1)},
	}, d.Interfaces)

	// What no edge publishes must not stop a session.
	h := newFeed(3)
	apply(t, s, h.update(h.opened(map[string]string{"network.mac": `7`, "network.ipv4": `["x"]`, "network.ipv6": `"fe80::1"`, "network.hostname": `{"a":null}`, "network.mac_local": `"true"`})))
	d, err = s.GetDevice(t.Context(), h.id)
	require.NoError(t, err)
	require.Len(t, d.Interfaces, 1)
	require.Equal(t, 3, query[int](t, url, `SELECT count(*) FROM network_interface`))
}
