package device_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
)

// BenchmarkDecodeRecord is what each Kafka record costs before it is folded: a
// delta of six attributes in some 900 bytes, and the snapshot of all twenty.
func BenchmarkDecodeRecord(b *testing.B) {
	all, some := map[string]device.Attribute{}, map[string]device.Attribute{}
	for i := range 20 {
		name := fmt.Sprintf("playback.counter_%d", i)
		all[name] = attr(7, fmt.Sprintf(`"counter %08d of %06d, as the device itself tells it now"`, i, i))
		if i < 6 {
			some[name] = all[name]
		}
	}
	for _, e := range []device.Event{event(device.Delta, 7, some), event(device.Snapshot, 8, all)} {
		b.Run(string(e.Type), func(b *testing.B) {
			value, err := e.Encode()
			require.NoError(b, err)
			topic, err := device.SessionTopic(e.RAE, e.Session, device.KindEvents)
			require.NoError(b, err)
			b.SetBytes(int64(len(value)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := device.DecodeRecord(topic, value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
