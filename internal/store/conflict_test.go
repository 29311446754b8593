package store_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/store"
)

// inConflict is a store with two devices and a session that brings evidence of
// both: it is the first's.
func inConflict(t *testing.T) (s *store.Store, url string, a, b, both *feed) {
	s, url = open(t)
	a, b, both = newFeed(1), newFeed(2), newFeed(3)
	deviceOf(t, s, a, map[string]string{"netflix.esn": `"NF-0001"`, "network.hostname": `"one"`})
	execute(t, url, `UPDATE device SET created_at = '2026-01-01'`)
	deviceOf(t, s, b, map[string]string{"device.serial": `"SN-000002"`, "network.hostname": `"two"`})
	deviceOf(t, s, both, map[string]string{"netflix.esn": `"NF-0001"`, "device.serial": `"SN-000002"`, "network.hostname": `"one"`, "network.mac": `"9c:b6:d0:00:00:03"`})
	return s, url, a, b, both
}

func TestConflictIsQueuedOnce(t *testing.T) {
	s, _, a, b, both := inConflict(t)
	require.Equal(t, deviceNow(t, s, a), deviceNow(t, s, both), "the strongest evidence decides")
	require.NotEqual(t, deviceNow(t, s, a), deviceNow(t, s, b), "nothing is merged")
	apply(t, s, both.update(both.delta(2, map[string]string{"network.mac": `"9c:b6:d0:00:00:04"`})))
	apply(t, s, both.update(both.delta(3, map[string]string{"identity.udns": `["uuid:aaaa"]`})))
	conflicts, err := s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Len(t, conflicts, 1)
	c := conflicts[0]
	require.Equal(t, store.Side{Device: deviceNow(t, s, a), Name: "one", Kind: "esn", Value: "NF-0001"}, c.A)
	require.Equal(t, store.Side{Device: deviceNow(t, s, b), Name: "two", Kind: "serial", Value: "SN-000002"}, c.B)
	require.Equal(t, both.id, c.Session)
	of, err := s.Conflicts(t.Context(), "two", false)
	require.NoError(t, err)
	require.Equal(t, conflicts, of)
}

func TestKeepApart(t *testing.T) {
	s, _, a, b, both := inConflict(t)
	open, err := s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	c, err := s.KeepApart(t.Context(), open[0].ID[:8], "jana")
	require.NoError(t, err)
	require.Equal(t, store.KeptApart, c.Decision)
	require.Equal(t, "jana", c.DecidedBy)
	require.WithinDuration(t, time.Now(), c.DecidedAt, time.Minute)

	// Neither this session nor another one brings it up again.
	apply(t, s, both.update(both.delta(2, map[string]string{"device.serial": `null`})))
	apply(t, s, both.update(both.delta(3, map[string]string{"device.serial": `"SN-000002"`})))
	deviceOf(t, s, newFeed(4), map[string]string{"netflix.esn": `"NF-0001"`, "device.serial": `"SN-000002"`})
	apply(t, s, b.update(b.delta(2, map[string]string{"netflix.esn": `"NF-0001"`})))
	require.NotEqual(t, deviceNow(t, s, a), deviceNow(t, s, b))
	open, err = s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Empty(t, open)
	all, err := s.Conflicts(t.Context(), "", true)
	require.NoError(t, err)
	require.Len(t, all, 1)

	_, err = s.KeepApart(t.Context(), c.ID, "someone")
	require.NoError(t, err, "as decided")
	_, err = s.MergeConflict(t.Context(), c.ID, "karl")
	require.NoError(t, err, "who kept apart may merge later")
	_, err = s.KeepApart(t.Context(), c.ID, "jana")
	require.ErrorIs(t, err, store.ErrDecided)
	_, err = s.MergeConflict(t.Context(), c.ID, "jana")
	require.ErrorContains(t, err, "merged by karl at ")
	for _, ref := range []string{"", "zz", "0000", "%%%", c.ID + "0"} {
		_, err = s.KeepApart(t.Context(), ref, "jana")
		require.ErrorIs(t, err, store.ErrNotFound, ref)
	}
}

func TestMergeConflict(t *testing.T) {
	s, url, a, b, _ := inConflict(t)
	older := deviceNow(t, s, a)
	// Another conflict of the one that goes is one of the one that stays.
	third := deviceOf(t, s, newFeed(5), map[string]string{"identity.udns": `["uuid:third"]`})
	deviceOf(t, s, newFeed(6), map[string]string{"identity.udns": `["uuid:third"]`})
	apply(t, s, b.update(b.delta(2, map[string]string{"netflix.esn": `"NF-0002"`})))
	deviceOf(t, s, newFeed(7), map[string]string{"netflix.esn": `"NF-0002"`, "identity.udns": `["uuid:third"]`})
	open, err := s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Len(t, open, 2)
	for _, c := range open {
		if c.B.Device != third {
			m, err := s.MergeConflict(t.Context(), c.ID, "jana")
			require.NoError(t, err)
			require.Equal(t, store.Merge{Device: older, Gone: c.B.Device, By: "jana"}, m)
		}
	}
	require.Equal(t, older, deviceNow(t, s, b))
	open, err = s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Len(t, open, 1)
	require.Equal(t, []string{older, third}, []string{open[0].A.Device, open[0].B.Device})
	require.Equal(t, older, owner(t, url, "SN-000002"))
	summary, timeline, err := s.Timeline(t.Context(), b.id)
	require.NoError(t, err)
	require.Equal(t, older, summary.Device)
	require.Len(t, timeline, 8)
	require.Equal(t, 2, query[int](t, url, `SELECT count(*) FROM device`))

	// Two that were never in conflict: it is remembered who did it.
	_, err = s.MergeDevices(t.Context(), third, "one", "karl")
	require.NoError(t, err)
	_, err = s.MergeDevices(t.Context(), b.id, "one", "karl")
	require.ErrorContains(t, err, "one device already")
	require.Equal(t, "karl", query[string](t, url, `SELECT decided_by FROM identity_conflict WHERE $1::UUID IN (device_a, device_b)`, third))
	open, err = s.Conflicts(t.Context(), "", false)
	require.NoError(t, err)
	require.Empty(t, open)
}

// Many transactions bring the same ESN at once: one device.
func TestOneESNAtOnceIsOneDevice(t *testing.T) {
	for _, isolation := range []string{"read%20committed", "serializable"} {
		t.Run(isolation, func(t *testing.T) {
			_, url := open(t)
			s := reopen(t, url+"&default_transaction_isolation="+isolation)
			const sessions = 12
			var wg sync.WaitGroup
			for n := range sessions {
				wg.Go(func() {
					f := newFeed(n)
					mac := fmt.Sprintf(`"9c:b6:d0:00:00:%02x"`, n%3)
					for _, u := range []store.Update{
						f.update(f.opened(map[string]string{"network.mac": mac})),
						f.update(f.delta(2, map[string]string{"netflix.esn": `"NF-0001"`})),
					} {
						err := s.Apply(ctx, []store.Update{u})
						for store.Retryable(err) { // as whoever applies does
							err = s.Apply(ctx, []store.Update{u})
						}
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			require.Equal(t, 1, query[int](t, url, `SELECT count(DISTINCT device_id) FROM device_session`))
			require.Equal(t, 1, query[int](t, url, `SELECT count(*) FROM device`))
			require.Equal(t, sessions, query[int](t, url, `SELECT count(*) FROM device_identity WHERE kind = 'esn'`))
			require.Zero(t, query[int](t, url, `SELECT count(*) FROM identity_conflict WHERE decision = ''`), "what shared MACs put in conflict, the ESN has decided")
			require.Zero(t, deadlocks(t, url, s))
		})
	}
}
