package device_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/device/devicetest"
)

// Seen is what the edge observed of the device: neither a snapshot nor a close nor
// the end of its patience is that.
func TestWhatCountsAsSeen(t *testing.T) {
	at, before := devicetest.Epoch.Add(time.Hour), devicetest.Epoch
	for _, c := range []struct {
		typ        device.Type
		says, want time.Time
	}{
		{device.Delta, time.Time{}, at}, {device.Delta, before, before},
		{device.Snapshot, time.Time{}, time.Time{}}, {device.Snapshot, before, before},
		{device.Closed, time.Time{}, time.Time{}}, {device.Closed, before, before},
	} {
		e := device.Event{RAE: rae, Session: session, Type: c.typ, Seq: 2, Time: at, Seen: c.says, Attributes: map[string]device.Attribute{}}
		b, err := e.Encode()
		require.NoError(t, err)
		require.Equal(t, !c.says.IsZero(), strings.Contains(string(b), `"seen"`))
		decoded, err := device.Decode(b)
		require.NoError(t, err)
		require.Equal(t, c.says, decoded.Seen)
		require.Equal(t, c.want, device.FoldOf(decoded).Last)

		var s device.State
		opened := device.Event{RAE: rae, Session: session, Type: device.Opened, Seq: 1, Time: before.Add(-time.Hour)}
		s.Apply(foldOf(opened))
		s.Apply(foldOf(decoded))
		want := c.want
		if want.IsZero() {
			want = opened.Time
		}
		require.Equal(t, want, s.Last)
	}
	_, err := device.Event{RAE: rae, Session: session, Type: device.Delta, Seq: 2, Time: at, Seen: time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC)}.Encode()
	require.ErrorContains(t, err, string(device.BadTime))
}
