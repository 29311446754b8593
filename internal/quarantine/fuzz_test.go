package quarantine

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// A row of quarantine tells what somebody signalled to a workflow. Whatever it
// says, what is read for it lies in the partition, is all of the batch, and is
// the session's own; else the batch is gone, and the next one's turn comes.
func FuzzBatch(f *testing.F) {
	const session = "7d6bd6a0-3c6e-4f4e-9f3a-0c0f3f0a9b11"
	f.Add("RAE-1", session, device.KafkaEvents, int32(2), int64(4), int64(9), int64(0), int64(10))
	f.Add("RAE-1", session, device.KafkaEvents, int32(2), int64(4), int64(9), int64(5), int64(10)) // retention took one
	f.Add("RAE-1", session, device.KafkaEvents, int32(2), int64(4), int64(9), int64(0), int64(9))  // a topic made anew
	f.Add("RAE-1", session, device.KafkaEvents, int32(7), int64(0), int64(0), int64(0), int64(1))
	f.Add("RAE-1", session, "", int32(0), int64(0), int64(0), int64(0), int64(1))
	f.Add("RAE/1", session, device.KafkaEvents, int32(2), int64(0), int64(0), int64(0), int64(1))
	f.Add("RAE-1", "device-1", device.KafkaEvents, int32(2), int64(0), int64(0), int64(0), int64(1))
	f.Add("RAE-1", session, device.KafkaEvents, int32(2), int64(0), int64(math.MaxInt64), int64(0), int64(math.MaxInt64))
	f.Add("RAE-1", session, device.KafkaEvents, int32(-1), int64(math.MinInt64), int64(-1), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, rae, session, topic string, partition int32, first, last, from, to int64) {
		q := store.QuarantinedBatch{RAE: rae, Session: session, Topic: topic, Partition: partition, First: first, Last: last}
		bounds := []replay.Span{{Partition: 1, From: 0, To: 1}, {Partition: 2, From: max(0, from), To: max(0, from, to)}}
		key, err := keyOf(q)
		if err != nil {
			require.ErrorIs(t, err, ErrGone)
			return
		}
		there, err := device.ParseTopic(key)
		require.NoError(t, err)
		require.Equal(t, device.Topic{RAE: rae, Session: session, Kind: device.KindEvents}, there)
		span, err := spanOf(q, bounds)
		if err != nil {
			require.ErrorIs(t, err, ErrGone)
			return
		}
		require.Equal(t, replay.Span{Partition: partition, From: first, To: last + 1}, span)
		require.Less(t, span.From, span.To)
		for _, b := range bounds {
			if b.Partition == partition {
				require.GreaterOrEqual(t, span.From, b.From)
				require.LessOrEqual(t, span.To, b.To)
			}
		}
	})
}
