// Package quarantine reads the records of quarantined batches from Kafka, and
// produces them again.
//
// A batch is the records of one session between two offsets of a partition; the
// records of other sessions between them are not its own. It is replayed whole or
// not at all: where Kafka's retention has taken part of it, a replay would only
// seem to bring back what is missing.
package quarantine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka/replay"
	"github.com/rollcall-platform/rollcall/internal/store"
)

// ErrGone is wrapped where Kafka no longer has the records, or never had them.
var ErrGone = errors.New("its records are not in Kafka")

// Each calls f for each record of the batch, in order. A batch that Kafka does
// not have as a whole is ErrGone, before f is called, unless it has no record
// at all between offsets that exist: that is ErrGone in the end.
func Each(ctx context.Context, log *replay.Log, q store.QuarantinedBatch, f func(*kgo.Record) error) error {
	key, err := keyOf(q)
	if err != nil {
		return err
	}
	bounds, err := log.Bounds(ctx, q.Topic)
	if err != nil {
		return fmt.Errorf("offsets of topic %s: %w", q.Topic, err)
	}
	span, err := spanOf(q, bounds)
	if err != nil {
		return err
	}
	found := false
	err = log.Read(ctx, q.Topic, span, func(r *kgo.Record) error {
		if string(r.Key) != key {
			return nil
		}
		found = true
		return f(r)
	})
	if errors.Is(err, replay.ErrReplaced) { // after the bounds were read
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err == nil && !found {
		err = fmt.Errorf("%w: %s has none with the key %s", ErrGone, where(q), key)
	}
	return err
}

// keyOf is the key of the batch's records. A row tells what somebody signalled:
// one that no record can belong to is ErrGone, and no reason to stop at it.
func keyOf(q store.QuarantinedBatch) (string, error) {
	if q.Topic == "" || q.Partition < 0 || q.First < 0 || q.Last < q.First {
		return "", fmt.Errorf("%w: the payload had no coordinates that could be read; the session's next snapshot heals what is missing", ErrGone)
	}
	key, err := device.SessionTopic(q.RAE, q.Session, device.KindEvents)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrGone, err)
	}
	return key, nil
}

// spanOf is what to read for the batch of the partitions' bounds. All of it is
// there, or it is ErrGone.
func spanOf(q store.QuarantinedBatch, bounds []replay.Span) (replay.Span, error) {
	i := slices.IndexFunc(bounds, func(s replay.Span) bool { return s.Partition == q.Partition })
	switch {
	case i < 0:
		return replay.Span{}, fmt.Errorf("%w: topic %s has no partition %d", ErrGone, q.Topic, q.Partition)
	case q.TopicID != "" && q.TopicID != bounds[i].TopicID:
		return replay.Span{}, fmt.Errorf("%w: topic %s was deleted and made again: %s is of the topic with ID %s, and the one there is now has %s",
			ErrGone, q.Topic, where(q), q.TopicID, cmp.Or(bounds[i].TopicID, "none"))
	case q.First < bounds[i].From:
		return replay.Span{}, fmt.Errorf("%w: Kafka's retention has deleted offsets %d to %d of %s", ErrGone, q.First, min(q.Last, bounds[i].From-1), where(q))
	case q.Last >= bounds[i].To:
		return replay.Span{}, fmt.Errorf("%w: the partition ends at offset %d, before the end of %s: was the topic made anew?", ErrGone, bounds[i].To-1, where(q))
	}
	return replay.Span{TopicID: q.TopicID, Partition: q.Partition, From: q.First, To: q.Last + 1}, nil
}

func where(q store.QuarantinedBatch) string {
	return fmt.Sprintf("%s/%d/%d-%d", q.Topic, q.Partition, q.First, q.Last)
}

// Records are produced so many, or of so many bytes, at a time.
const (
	chunkRecords = 500
	chunkBytes   = 8 << 20
)

// Replay produces the batch's records once more, with their key, value, headers
// and timestamp, to the topic they are in, to the partition of their key. It
// returns how many, when all of them are acknowledged; after an error some may
// be there, and doing it again changes nothing in the tables.
func Replay(ctx context.Context, log *replay.Log, q store.QuarantinedBatch) (records int, err error) {
	var chunk []*kgo.Record
	size := 0
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		err := log.Produce(ctx, chunk...).FirstErr()
		if err == nil {
			records += len(chunk)
		}
		chunk, size = nil, 0
		return err
	}
	err = Each(ctx, log, q, func(r *kgo.Record) error {
		chunk = append(chunk, &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
		if size += len(r.Value); len(chunk) >= chunkRecords || size >= chunkBytes {
			return flush()
		}
		return nil
	})
	if err != nil {
		return records, err
	}
	return records, flush()
}
