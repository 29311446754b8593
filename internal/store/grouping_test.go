package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/identity/identitytest"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// play applies the sessions in an order and groups that are drawn, and returns
// each session's device once every conflict is merged, and how many there were.
func play(t *rapid.T, s *store.Store, sessions []identitytest.Session, run string) (devices []string, conflicts int) {
	id := func(n int) string { return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, run, n)).String() }
	feeds, next := make([]*feed, len(sessions)), make([]int, len(sessions))
	for n := range feeds {
		feeds[n] = &feed{rae: "rae-1", id: id(n)}
	}
	for {
		var left []int
		for n := range sessions {
			if next[n] < len(sessions[n]) {
				left = append(left, n)
			}
		}
		if len(left) == 0 {
			break
		}
		group := rapid.SliceOfNDistinct(rapid.SampledFrom(left), 1, min(2, len(left)), rapid.ID).Draw(t, "group")
		var updates []store.Update
		for _, n := range group {
			attributes := map[string]string{}
			for name, v := range sessions[n][next[n]] {
				attributes[name] = identitytest.Value(run, name, v)
			}
			next[n]++
			e := feeds[n].delta(int64(next[n]), attributes)
			if next[n] == 1 {
				e = feeds[n].opened(attributes)
			}
			updates = append(updates, feeds[n].update(e))
		}
		require.NoError(t, s.Apply(ctx, updates))
	}
	for {
		open, err := s.Conflicts(ctx, "", false)
		require.NoError(t, err)
		open = slices.DeleteFunc(open, func(c store.Conflict) bool { return c.B.Kind == "mac" || c.B.Kind == "client" })
		if len(open) == 0 {
			break
		}
		conflicts++
		_, err = s.MergeConflict(ctx, open[0].ID, "test")
		require.NoError(t, err)
	}
	for n := range sessions {
		d, err := s.GetDevice(ctx, id(n))
		require.NoError(t, err)
		devices = append(devices, d.Device)
	}
	return devices, conflicts
}

// Whatever the order, sessions are grouped as the model says, once conflicts by
// strong evidence are decided by merging.
func TestGroupingDoesNotDependOnOrder(t *testing.T) {
	s, url := open(t)
	run, placed, conflicts := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		sessions := identitytest.Sessions(5).Draw(t, "sessions")
		want := identitytest.Groups(sessions)
		devices, n := play(t, s, sessions, fmt.Sprintf("run%d", run))
		conflicts += n
		for i := range sessions {
			for j := range i {
				if want[i] == "" || want[j] == "" {
					continue
				}
				placed++
				require.Equal(t, want[i] == want[j], devices[i] == devices[j], "sessions %d and %d", j, i)
			}
		}
	})
	require.Positive(t, placed)
	require.Positive(t, conflicts)
	// What is left is sound: no device is empty but for those that own strong
	// evidence, and a timeline is its session's device's.
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_identity i JOIN device_session s USING (session_id) WHERE i.device_id <> s.device_id`))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device d WHERE NOT EXISTS (SELECT 1 FROM device_session s WHERE s.device_id = d.device_id)
		AND NOT EXISTS (SELECT 1 FROM identity_owner o WHERE o.device_id = d.device_id)`))
	require.Zero(t, query[int](t, url, `SELECT count(*) FROM device_session s WHERE identified <> EXISTS (SELECT 1 FROM device_identity i WHERE i.session_id = s.session_id AND kind IN ('esn', 'udn', 'serial'))`))
}
