package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// locateTimeout bounds asking where partitions begin, at a rebalance, and where
// an oversized batch ends.
const locateTimeout = 5 * time.Second

// errOversized is what a fetch fails with at each try, until Pass.
var errOversized = errors.New("a record batch is too large to decompress")

// Oversized has the consumer of a group go on behind a producer's batch that
// would grow past a bound when it is decompressed.
//
// kgo.MaxDecompressBatchBytes alone would not do. A client with it stops the
// partition and tells so once, and that once is lost when the fetch that it is
// in is thrown away before it is polled: at a pause, a rebalance, a leader that
// moves, an offset that is set for another partition. The partition would then
// stand still for ever. With Opt instead, each fetch of the batch fails anew.
type Oversized struct {
	most         int
	access       []kgo.Opt
	decompressor kgo.Decompressor
}

// NewOversized bounds what a batch may grow to, in bytes. Access says how the
// cluster is reached.
func NewOversized(most int, access ...kgo.Opt) (*Oversized, error) {
	// Only a client makes a decompressor with a bound. This one never connects.
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(most))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	d, ok := cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("franz-go tells its decompressor no more")
	}
	return &Oversized{most: most, access: access, decompressor: d}, nil
}

// Opt makes a client that consumes fail at such batches.
func (o *Oversized) Opt() kgo.Opt { return kgo.WithDecompressor(again{o.decompressor}) }

// again hides from the client that it cannot go on: it tries again.
type again struct{ kgo.Decompressor }

func (a again) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	out, err := a.Decompressor.Decompress(src, codec)
	if errors.Is(err, kgo.ErrMaxDecompress) {
		return nil, errOversized
	}
	return out, err
}

// Pass has cl go on behind the batch, if err, of a fetch of the partition, tells
// of one. The record that it returns stands for the batch, to be dead-lettered
// with ReasonDecompress and why: it has the batch's last offset and no value,
// which stays where it is, in Kafka. It returns nil for any other err, and an
// error where it failed: the next fetch tells of the batch again.
//
// Call it from the loop that polls, before a rebalance is allowed.
func (o *Oversized) Pass(ctx context.Context, cl *kgo.Client, topic string, partition int32, err error) (r *kgo.Record, why string, _ error) {
	if !errors.Is(err, errOversized) {
		return nil, "", nil
	}
	at, ok := cl.UncommittedOffsets()[topic][partition]
	if !ok {
		at, ok = cl.CommittedOffsets()[topic][partition]
	}
	if !ok || at.Offset < 0 { // see Locate
		return nil, "", fmt.Errorf("%w; the client knows no position to pass it from until the next rebalance", errOversized)
	}
	e, err := o.find(ctx, topic, partition, at.Offset)
	if err != nil {
		return nil, "", fmt.Errorf("%w; cannot find its end: %w", errOversized, err)
	}
	// The client takes what is set for committed. Without an epoch, any offset
	// that is marked later is newer than that.
	cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {partition: {Epoch: -1, Offset: e.NextOffset}}})
	r = &kgo.Record{Topic: topic, Partition: partition, Offset: e.NextOffset - 1, LeaderEpoch: e.Epoch, Timestamp: time.Now()}
	return r, fmt.Sprintf("offsets %d to %d: the batch decompresses to more than %d bytes", e.Offset, e.NextOffset-1, o.most), nil
}

// find reads a partition, from an offset on and a batch at a time, up to the
// first batch that is too large.
func (o *Oversized) find(ctx context.Context, topic string, partition int32, from int64) (*kgo.ErrDecompressTooLarge, error) {
	ctx, cancel := context.WithTimeout(ctx, locateTimeout)
	defer cancel()
	cl, err := kgo.NewClient(slices.Concat(o.access, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // retention may have come by
		kgo.MaxDecompressBatchBytes(o.most),
		kgo.FetchMaxBytes(1), kgo.FetchMaxPartitionBytes(1), // a batch is returned whole
	})...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for {
		err := cl.PollFetches(ctx).Err()
		if e, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, errors.Join(Explain(err), ctx.Err())
		}
	}
}

// Locate gives partitions of which a group has committed nothing the offset that
// they begin at. Call it in kgo.AdjustFetchOffsetsFn. Without a position, a batch
// that Pass should pass, and that is a partition's very first, stops it.
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
