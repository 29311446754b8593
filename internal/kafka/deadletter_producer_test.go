package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// scriptedProducer answers each record by its key, and like the client it writes
// to what it produces and answers in an order of its own.
type scriptedProducer struct {
	answer   func(r *kgo.Record) error
	produced []*kgo.Record
}

func (p *scriptedProducer) ProduceSync(_ context.Context, records ...*kgo.Record) (out kgo.ProduceResults) {
	for _, r := range slices.Backward(records) {
		out = append(out, kgo.ProduceResult{Record: r, Err: p.answer(r)})
		p.produced = append(p.produced, r)
		r.Partition, r.Offset = 9, 99
	}
	return out
}

func TestDeadLetterCountsOnlyWhenItIsAcknowledged(t *testing.T) {
	outage := errors.New("not now")
	client := &scriptedProducer{answer: func(r *kgo.Record) error {
		switch {
		case string(r.Key) == "refused":
			return outage
		case len(r.Value) > 100<<10, string(r.Key) == "too large as it is":
			return kerr.MessageTooLarge
		}
		return nil
	}}
	p := kafka.NewDeadLetterProducer("dlq", client, slog.New(slog.DiscardHandler))
	letter := func(key string, size int) *kafka.Letter {
		return p.Letter(&kgo.Record{Topic: "events", Partition: 3, Offset: 42, Key: []byte(key), Value: bytes.Repeat([]byte("v"), size)}, "not-json", "why")
	}
	letters := []*kafka.Letter{letter("taken", 10), letter("refused", 10), letter("large", 1<<20), letter("too large as it is", 10)}
	require.Greater(t, letters[2].Bytes(), 1<<20)
	require.Equal(t, []error{nil, outage, nil, kerr.MessageTooLarge}, p.Produce(t.Context(), letters...))
	require.Less(t, letters[2].Bytes(), 64<<10)

	byKey := map[string][]*kgo.Record{}
	for _, r := range client.produced {
		require.Equal(t, "dlq", r.Topic)
		require.Equal(t, "42", kafka.Header(r, kafka.HeaderOffset))
		byKey[string(r.Key)] = append(byKey[string(r.Key)], r)
	}
	require.Len(t, byKey["taken"], 1)
	require.Len(t, byKey["refused"], 1)
	require.Len(t, byKey["large"], 2)
	require.Empty(t, kafka.Header(byKey["large"][0], kafka.HeaderSHA256))
	require.Equal(t, "1048576", kafka.Header(byKey["large"][1], kafka.HeaderSize))

	// Again: each time a record of its own, and truncated no second time.
	before := len(client.produced)
	require.Equal(t, []error{outage, kerr.MessageTooLarge}, p.Produce(t.Context(), letters[1], letters[3]))
	require.Len(t, client.produced, before+2)
	for i, r := range client.produced {
		require.False(t, slices.Contains(client.produced[:i], r))
	}
}

func TestDeadLetterIsDeliveredOrTheContextEnds(t *testing.T) {
	tries := 0
	ctx, cancel := context.WithCancel(t.Context())
	client := &scriptedProducer{answer: func(*kgo.Record) error {
		if tries++; tries == 2 {
			return nil
		}
		return errors.New("not now")
	}}
	p := kafka.NewDeadLetterProducer("dlq", client, slog.New(slog.DiscardHandler))
	l := p.Letter(&kgo.Record{Topic: "events"}, "not-json", "why")
	require.NoError(t, p.Deliver(ctx, l))
	require.Equal(t, 2, tries)

	client.answer = func(*kgo.Record) error { cancel(); return ctx.Err() }
	require.ErrorIs(t, p.Deliver(ctx, l), context.Canceled)
}
