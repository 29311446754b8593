package registry_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/edge/discovery"
	"github.com/rollcall-platform/rollcall/edge/registry"
	"github.com/rollcall-platform/rollcall/internal/device"
)

// What told that a device is offline is told with it, and goes when it is back.
func TestReasonOfBeingOffline(t *testing.T) {
	f := open(t, func(o *registry.Options) { o.OfflineAfter = time.Minute })
	reason := func() string { return string(f.device(tv).Attributes[device.AttrConnectionReason].Value) }
	left := func(kind string) discovery.Observation {
		return discovery.Observation{MAC: tv, Kind: kind, Presence: discovery.Left}
	}
	f.observe(seen(tv, nil))
	require.Empty(t, reason())
	f.observe(left(discovery.KindSSDP), left(discovery.KindMDNS))
	require.Equal(t, `"goodbye-ssdp"`, reason(), "the first")
	f.take()
	f.observe(left(discovery.KindDHCP))
	require.Empty(t, f.take(), "nothing new")
	f.observe(seen(tv, nil))
	require.Empty(t, reason())
	f.clock.Advance(2 * time.Minute)
	require.NoError(t, f.RunDueWork(t.Context()))
	require.Equal(t, `"silence"`, reason())
	events := f.take()
	last := events[len(events)-1]
	require.Equal(t, last.Seq, last.Attributes[device.AttrConnectionReason].Seq)
	require.Equal(t, `"offline"`, string(last.Attributes[device.AttrConnectionStatus].Value), "one event tells both")
}
