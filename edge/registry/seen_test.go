package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// Events say when the device was last observed: a snapshot of a quiet device that
// is there tells of its newest frame, and one of a device that left does not move
// that time on.
func TestEventsSayWhenTheDeviceWasSeen(t *testing.T) {
	f := open(t, func(o *registry.Options) {
		o.OfflineAfter, o.SnapshotInterval, o.ForgetAfter = 2*time.Minute, 10*time.Minute, time.Hour
	})
	f.observe(seen(tv, map[string]any{device.AttrHostname: "tv"}))
	events := f.take()
	require.Equal(t, f.clock.now.UTC().Truncate(time.Millisecond), events[0].Observed())

	var last time.Time
	snapshots := func() (of []device.Event) {
		for _, e := range f.take() {
			if e.Type == device.Snapshot {
				of = append(of, e)
			}
		}
		return of
	}
	for range 12 { // it only answers ARP: nothing changes
		f.clock.Advance(time.Minute)
		f.observe(seen(tv, nil))
		last = f.clock.now.UTC().Truncate(time.Millisecond)
		require.NoError(t, f.RunDueWork(t.Context()))
	}
	taken := snapshots()
	require.NotEmpty(t, taken)
	newest := taken[len(taken)-1]
	require.WithinDuration(t, newest.Time, newest.Observed(), time.Minute, "a quiet device does not stand still")

	f.clock.Advance(3 * time.Minute) // it leaves
	require.NoError(t, f.RunDueWork(t.Context()))
	events = f.take()
	require.NotEmpty(t, events)
	require.JSONEq(t, `"silence"`, string(events[0].Attributes[device.AttrConnectionReason].Value))
	require.True(t, events[0].Time.After(last))
	for range 4 {
		for _, e := range events {
			require.Equal(t, last, e.Observed(), "%s at seq %d: nobody has seen it since", e.Type, e.Seq)
		}
		f.clock.Advance(20 * time.Minute)
		require.NoError(t, f.RunDueWork(t.Context()))
		events = f.take()
	}
	require.Empty(t, f.Devices(), "forgotten, and the closed event was looked at")
}
