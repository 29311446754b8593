package dlq

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/resolve"
)

// What was marked is what the marks say, the newest last, and nothing beside
// the offsets that were asked for.
func TestMarksSayWhatWasDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const end = 3 * blockBits
		from := rapid.Int64Range(0, 100).Draw(t, "from")
		to := rapid.Int64Range(from, end).Draw(t, "to")
		want := map[int64]resolve.Resolution{}
		s := newResolutions()
		for i := range rapid.IntRange(0, 10).Draw(t, "marks") {
			resolution := rapid.SampledFrom([]resolve.Resolution{resolve.Replayed, resolve.Dropped}).Draw(t, "resolution")
			near := rapid.OneOf(rapid.Int64Range(0, 120), rapid.Int64Range(blockBits-3, blockBits+3), rapid.Int64Range(0, end-1))
			offsets := rapid.SliceOfNDistinct(near, 1, 20, rapid.ID).Draw(t, "offsets")
			slices.Sort(offsets)
			r, err := Mark{Resolution: resolution, At: time.Unix(int64(i), 0), Offsets: ranges(offsets)}.record("t", 3)
			require.NoError(t, err)
			require.True(t, isMark(r))
			r.Offset = end + int64(i)
			m, err := ParseMark(r)
			require.NoError(t, err)
			require.Equal(t, int64(i), m.At.Unix())
			s.add(m, from, to)
			for _, o := range offsets {
				if from <= o && o < to {
					want[o] = resolution
				}
			}
		}
		for o := range int64(200) {
			require.Equal(t, want[o], s.of(o))
		}
		for o, resolution := range want {
			require.Equal(t, resolution, s.of(o))
		}
	})
}

func FuzzParseMark(f *testing.F) {
	f.Add([]byte(`{"at":"2026-11-21T09:00:00Z","offsets":[[0,3],[5,5]]}`), "replayed", int64(9))
	f.Add([]byte(`{"offsets":[[0,9223372036854775807]]}`), "dropped", int64(1))
	f.Add([]byte(`{"offsets":[[3,3],[3,3]]}`), "dropped", int64(7))
	f.Fuzz(func(t *testing.T, value []byte, verb string, offset int64) {
		m, err := ParseMark(&kgo.Record{Offset: offset, Value: value, Headers: []kgo.RecordHeader{{Key: HeaderMark, Value: []byte(verb)}}})
		if err != nil {
			return
		}
		last := int64(-1)
		for _, o := range m.Offsets {
			require.Greater(t, o[0], last)
			require.GreaterOrEqual(t, o[1], o[0])
			require.Less(t, o[1], offset)
			last = o[1]
		}
		s := newResolutions()
		s.add(m, 0, min(offset, 1<<16))
	})
}

func TestCoordinate(t *testing.T) {
	var c Coordinate
	require.NoError(t, c.UnmarshalText([]byte("3/9223372036854775807")))
	require.Equal(t, "3/9223372036854775807", c.String())
	for _, bad := range []string{"", "3", "3/", "/3", "-1/0", "0/-1", "2147483648/0", "0/9223372036854775808", "0/1/2", " 0/1"} {
		require.Error(t, c.UnmarshalText([]byte(bad)), bad)
	}
}
