package quarantine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
	"github.com/rollcall-platform/rollcall/internal/store"
)

func TestSpanIsOfTheBatchsIncarnation(t *testing.T) {
	const old, anew = "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a01", "0b6cfa4e-6d7e-4b43-9d53-59f7f39a0a02"
	q := store.QuarantinedBatch{Topic: device.KafkaEvents, TopicID: old, Partition: 2, First: 4, Last: 5}
	_, err := spanOf(q, []replay.Span{{TopicID: anew, Partition: 2, From: 0, To: 9}})
	require.ErrorIs(t, err, ErrGone)
	require.ErrorContains(t, err, "was deleted and made again")
	require.ErrorContains(t, err, old)
	require.ErrorContains(t, err, anew)
	span, err := spanOf(q, []replay.Span{{TopicID: old, Partition: 2, From: 0, To: 9}})
	require.NoError(t, err)
	require.Equal(t, replay.Span{TopicID: old, Partition: 2, From: 4, To: 6}, span)
	q.TopicID = "" // the broker had none
	_, err = spanOf(q, []replay.Span{{TopicID: anew, Partition: 2, From: 0, To: 9}})
	require.NoError(t, err)
}
