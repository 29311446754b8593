package kafka_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

func TestOffsetsCommittedBeforeATopicWasMadeAnewAreForgottenOnce(t *testing.T) {
	var a kafka.Anew
	place := func(n int32) int64 {
		offsets := map[int32]kgo.Offset{n: kgo.NewOffset().At(7)}
		a.Place(offsets)
		return offsets[n].EpochOffset().Offset
	}
	start := kgo.NewOffset().AtStart().EpochOffset().Offset
	require.EqualValues(t, 7, place(0))
	a.Recreated()
	require.Equal(t, start, place(0))
	require.EqualValues(t, 7, place(0), "now it is the new topic's")
	require.Equal(t, start, place(1))
	a.Recreated()
	require.Equal(t, start, place(0))
}
