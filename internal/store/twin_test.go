package store_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// A device that is gone does not make the name of one that is there ambiguous.
func TestOpenSessionsAreFoundBeforeClosedOnes(t *testing.T) {
	s, _ := open(t)
	twin := map[string]string{"network.hostname": `"tv"`, "dial.friendly_name": `"Kitchen"`, "network.mac": `"02:00:00:00:00:09"`}
	gone, here := newFeed(1), newFeed(2)
	was, is := deviceOf(t, s, gone, twin), deviceOf(t, s, here, twin)
	require.NotEqual(t, was, is)
	refs := []string{"tv", "TV", "kitchen", "kitc", "02:00:00:00:00:09", "02:00:00"}
	for _, ref := range refs {
		_, err := s.GetDevice(t.Context(), ref)
		ambiguous := (*store.AmbiguousError)(nil)
		require.True(t, errors.As(err, &ambiguous), "%s: both are open: %v", ref, err)
	}
	apply(t, s, gone.update(gone.event(device.Closed, 2, nil)))
	for _, ref := range refs {
		d, err := s.GetDevice(t.Context(), ref)
		require.NoError(t, err, ref)
		require.Equal(t, is, d.Device, ref)
	}
	for _, ref := range []string{gone.id, gone.id[:8], was, was[:8]} {
		d, err := s.GetDevice(t.Context(), ref)
		require.NoError(t, err, ref)
		require.Equal(t, was, d.Device, "its identifier still names it")
	}
	apply(t, s, here.update(here.event(device.Closed, 2, nil)))
	_, err := s.GetDevice(t.Context(), "tv")
	require.ErrorContains(t, err, "names several devices", "neither is there")
}

// Explain and GetDevice say the same of a session, whatever its history.
func TestExplainAndGetAreOfOneRecord(t *testing.T) {
	s, _ := open(t)
	values := map[string][]string{
		"network.hostname": {`"tv"`, `"tv2"`, `null`}, "device.model": {`"m"`, `null`}, "network.ipv4": {`"10.0.0.1"`, `null`},
		"connection.status": {`"online"`, `"offline"`}, "network.mac": {`"02:00:00:00:00:01"`}, "lab.shelf": {`7`, `null`},
	}
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := newFeed(int(seed) + 1)
		apply(t, s, f.update(f.opened(map[string]string{"network.mac": `"02:00:00:00:00:01"`})))
		seq := int64(1)
		for range rng.IntN(12) {
			seq += 1 + int64(rng.IntN(5)/4) // now and then one is missing
			changed := map[string]string{}
			for name, all := range values {
				if rng.IntN(3) == 0 {
					changed[name] = all[rng.IntN(len(all))]
				}
			}
			e := f.delta(seq, changed)
			if rng.IntN(5) == 0 {
				e = f.snapshot(seq, f.state.Live())
			}
			apply(t, s, f.update(e))
		}
		if rng.IntN(2) == 0 {
			_, _, err := s.Reserve(t.Context(), f.id, "jana", "x", time.Hour)
			require.NoError(t, err)
		}
		if rng.IntN(4) == 0 {
			apply(t, s, f.update(f.event(device.Closed, seq+1, nil)))
		}
		for _, attribute := range []string{"", "network.mac"} {
			get, err := s.GetDevice(t.Context(), f.id)
			require.NoError(t, err)
			explained, err := s.Explain(t.Context(), f.id, attribute)
			require.NoError(t, err)
			require.Equal(t, get.Summary, explained.Summary, "seed %d", seed)
			require.Equal(t, get.Counters, explained.Counters)
			live := map[string]device.Attribute{}
			for _, a := range explained.Attributes {
				if !a.Attribute.Removed() {
					live[a.Name] = a.Attribute
				}
			}
			if attribute == "" {
				require.Equal(t, get.Attributes, live, "seed %d", seed)
			} else {
				require.Equal(t, get.Attributes[attribute], live[attribute])
			}
		}
	}
}
