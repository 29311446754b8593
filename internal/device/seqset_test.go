package device_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/rollcall-platform/rollcall/internal/device"
)

func TestSeqSetAgainstAMapOfSeqs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s device.SeqSet
		model := map[int64]bool{}
		for _, seq := range rapid.SliceOf(rapid.Int64Range(1, 40)).Draw(t, "seqs") {
			s = s.Union(device.SeqSet{{seq, seq}})
			model[seq] = true
		}
		require.EqualValues(t, len(model), s.Len())
		from := rapid.Int64Range(1, 45).Draw(t, "from")
		other := device.SeqSet{}
		for _, seq := range rapid.SliceOf(rapid.Int64Range(1, 40)).Draw(t, "others") {
			other = other.Union(device.SeqSet{{seq, seq}})
		}
		minus := s.Minus(other)
		require.Equal(t, s.Union(other), minus.Union(other))
		after, holes := s.After(from), s.Holes(1)
		for seq := int64(1); seq <= 45; seq++ {
			require.Equal(t, model[seq], s.Has(seq))
			require.Equal(t, model[seq] && seq > from, after.Has(seq))
			require.Equal(t, model[seq] && !other.Has(seq), minus.Has(seq))
			require.Equal(t, !model[seq] && seq < s.Last(), holes.Has(seq))
			require.Equal(t, model[seq], s.Covers(device.SeqSet{{seq, seq}}))
		}
	})
}

func TestSeqSetIsBounded(t *testing.T) {
	var s device.SeqSet
	for seq := int64(1); seq < 1000; seq += 2 {
		s = s.Union(device.SeqSet{{seq, seq}})
	}
	require.Len(t, s, 64)
	require.EqualValues(t, 999, s.Last(), "the newest are kept")
}
