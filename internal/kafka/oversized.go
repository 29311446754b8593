package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// locateTimeout bounds asking where partitions begin, at a rebalance.
const locateTimeout = 5 * time.Second

// PassOversized has the client go on behind a producer's batch that would grow
// past kgo.MaxDecompressBatchBytes, if err, of a fetch, tells of one: the client
// stops its partition there. The record that it returns stands for the batch, to
// be dead-lettered with ReasonDecompress and why: it has the batch's last offset
// and no value, which stays where it is, in Kafka.
//
// The client passes only what is in a partition of which it knows a position:
// see Locate.
func PassOversized(cl *kgo.Client, err error) (r *kgo.Record, why string, ok bool) {
	var e *kgo.ErrDecompressTooLarge
	if !errors.As(err, &e) {
		return nil, "", false
	}
	// The client takes what is set for committed. Without an epoch, any offset
	// that is marked later is newer than that.
	cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{e.Topic: {e.Partition: {Epoch: -1, Offset: e.NextOffset}}})
	r = &kgo.Record{Topic: e.Topic, Partition: e.Partition, Offset: e.NextOffset - 1, LeaderEpoch: e.Epoch, Timestamp: time.Now()}
	return r, fmt.Sprintf("offsets %d to %d: %v", e.Offset, e.NextOffset-1, e), true
}

// Locate gives partitions of which a group has committed nothing the offset that
// they begin at. Call it in kgo.AdjustFetchOffsetsFn. Without a position, a batch
// that PassOversized should pass, and that is a partition's very first, stops it.
func Locate(ctx context.Context, cl *kgo.Client, log *slog.Logger, offsets map[string]map[int32]kgo.Offset) {
	for topic, partitions := range offsets {
		unplaced := maps.Clone(partitions)
		maps.DeleteFunc(unplaced, func(_ int32, o kgo.Offset) bool { return o.EpochOffset().Offset >= 0 })
		if len(unplaced) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, locateTimeout)
		starts, err := kadm.NewClient(cl).ListStartOffsets(ctx, topic)
		cancel()
		if err == nil {
			err = starts.Error()
		}
		if err != nil {
			log.Warn("cannot ask where partitions begin: a first batch too large to decompress would stop its partition until the next rebalance",
				"topic", topic, "err", Explain(err))
		}
		for n := range unplaced {
			if start, ok := starts.Lookup(topic, n); ok && start.Err == nil {
				partitions[n] = kgo.NewOffset().At(start.Offset)
			}
		}
	}
}
