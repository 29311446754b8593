package dlq

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// Whatever lies in the dead-letter topic is read, and is shown as replayable
// only when a replay has the whole record: dead-lettered once more, it gives the
// same again.
func FuzzLetter(f *testing.F) {
	key := []byte("rollcall/v1/RAE-1/sessions/7d6bd6a0-3c6e-4f4e-9f3a-0c0f3f0a9b11/events")
	f.Add(key, []byte(`{"specversion":"1.0"}`), device.KafkaEvents, "2", "17", "bad-seq", "own", []byte("h"))
	f.Add(key, []byte(`{"specversion":"1.0"}`), device.KafkaEvents, "2", "17", "bad-seq", kafka.HeaderTopic, []byte("of a letter before"))
	f.Add(key[:20], []byte(`{"spec`), device.KafkaEvents, "2", "17", kafka.ReasonKafkaLimit, kafka.HeaderSHA256, []byte("00"))
	f.Add(key, []byte(nil), device.KafkaEvents, "2", "17", kafka.ReasonDecompress, "", []byte(nil))
	f.Add([]byte("rollcall//////"), []byte("v"), "", "-1", "-1", "bad-topic", kafka.HeaderSize, []byte("-9"))
	f.Add([]byte{0xff}, []byte{0}, "../\x00", "2147483648", "9223372036854775808", "", HeaderMark, []byte("replayed"))
	f.Add([]byte("replayed/0"), []byte(`{"offsets":[[0,16]]}`), device.KafkaEvents, "", "", "", HeaderMark, []byte("burnt"))
	f.Fuzz(func(t *testing.T, key, value []byte, topic, partition, offset, reason, own string, ownValue []byte) {
		h := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
		r := &kgo.Record{
			Topic: device.KafkaDeadLetters, Partition: 3, Offset: 17, Key: key, Value: value, Timestamp: time.Unix(1, 0),
			Headers: []kgo.RecordHeader{{Key: own, Value: ownValue}, h(kafka.HeaderTopic, topic), h(kafka.HeaderPartition, partition), h(kafka.HeaderOffset, offset), h(kafka.HeaderReason, reason)},
		}
		if isMark(r) {
			_, _ = ParseMark(r)
			return
		}
		l := newLetter(r)
		require.Equal(t, Coordinate{3, 17}, l.At)
		original, err := kafka.Original(r)
		if err != nil {
			require.ErrorIs(t, err, kafka.ErrIncomplete)
			require.Equal(t, err.Error(), l.Incomplete)
			return
		}
		require.Empty(t, l.Incomplete)
		require.Equal(t, l.Topic, original.Topic)
		again, err := kafka.Original(kafka.DeadLetter(device.KafkaDeadLetters, original, l.Reason, l.Detail))
		require.NoError(t, err)
		require.Equal(t, original, again)
	})
}
