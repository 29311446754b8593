package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// Seen, changed and confirmed are three times.
func TestASnapshotConfirmsAndIsNoSight(t *testing.T) {
	s, _ := open(t)
	f := newFeed(1)
	apply(t, s, f.update(f.opened(map[string]string{"network.mac": `"02:00:00:00:00:01"`, "connection.status": `"online"`})))
	get := func() store.Summary {
		t.Helper()
		d, err := s.GetDevice(t.Context(), f.id)
		require.NoError(t, err)
		page, err := s.ListDevices(t.Context(), store.Filter{})
		require.NoError(t, err)
		require.Equal(t, []store.Summary{d.Summary}, page.Devices)
		return d.Summary
	}
	require.Equal(t, at(1), get().LastObserved)
	require.True(t, get().ConfirmedAt.IsZero())

	apply(t, s, f.update(f.snapshot(9, f.state.Live()))) // verify has one made of each session
	d := get()
	require.Equal(t, at(1), d.LastObserved, "it has not been seen again")
	require.Equal(t, at(1), d.ChangedAt)
	require.Equal(t, at(9), d.ConfirmedAt)

	e := f.snapshot(20, f.state.Live())
	e.Seen = at(19)
	apply(t, s, f.update(e))
	apply(t, s, f.update(e)) // again
	d = get()
	require.Equal(t, at(19), d.LastObserved, "quiet, and there")
	require.Equal(t, at(1), d.ChangedAt)
	require.Equal(t, at(20), d.ConfirmedAt)

	apply(t, s, f.update(f.delta(21, map[string]string{"network.ipv4": `"10.0.0.1"`})))
	require.Equal(t, at(21), get().ChangedAt)
	require.Equal(t, at(21), get().LastObserved)
	state, _ := load(t, s, f.id)
	require.Equal(t, f.state.Last, state.Last)
}
