package poller

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// A clock that is ahead is not believed: a record's timestamp is at most a minute past
// the poller's clock, an event's own times at most ten past that timestamp.
func TestTimesAheadAreClamped(t *testing.T) {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		record, event   time.Time
		received, shown time.Time
		clamped         string
	}{
		"right":                               {now, now, now, now, ""},
		"a little ahead":                      {now.Add(30 * time.Second), now.Add(9 * time.Minute), now.Add(30 * time.Second), now.Add(9 * time.Minute), ""},
		"behind":                              {now.Add(-time.Hour), now.Add(-2 * time.Hour), now.Add(-time.Hour), now.Add(-2 * time.Hour), ""},
		"a bridge half an hour ahead":         {now.Add(30 * time.Minute), now, now, now, clockKafka},
		"microseconds taken for milliseconds": {time.UnixMilli(now.UnixMicro()), now, now, now, clockKafka},
		"an edge in the year 9999":            {now, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), now, now, clockEdge},
		"an edge ahead of an old record":      {now.Add(-time.Hour), now, now.Add(-time.Hour), now.Add(-time.Hour), clockEdge},
		"both":                                {now.Add(time.Hour), now.Add(time.Hour), now, now, clockKafka},
	} {
		for _, kind := range []device.Type{device.Delta, device.Snapshot} {
			t.Run(name+", "+string(kind), func(t *testing.T) {
				e := device.Event{RAE: "RAE-1", Session: someSession, Type: kind, Seq: 2, Time: c.event, Seen: c.event, Attributes: map[string]device.Attribute{
					"a": {Value: json.RawMessage("1"), Seq: 2, At: c.event},
				}}
				if kind == device.Snapshot {
					e.Hash = device.Hash(e.Attributes)
				}
				value, err := e.Encode()
				require.NoError(t, err)
				key, err := device.SessionTopic(e.RAE, e.Session, device.KindEvents)
				require.NoError(t, err)
				in := decode(&kgo.Record{Key: []byte(key), Value: value, Timestamp: c.record}, "", now)
				require.Nil(t, in.bad)
				require.Equal(t, c.clamped, in.clamped)
				require.True(t, c.received.Equal(in.record.Timestamp), in.record.Timestamp)
				require.True(t, c.shown.Equal(in.fold.Last), in.fold.Last)
				require.True(t, c.shown.Equal(in.fold.Attributes["a"].At), in.fold.Attributes["a"].At)
			})
		}
	}
}
