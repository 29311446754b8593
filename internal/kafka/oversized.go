package kafka

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// locateTimeout bounds asking where partitions begin, at a rebalance.
	locateTimeout = 5 * time.Second
	// PassTimeout is a bound for what Oversized.Pass may take after one poll,
	// for all partitions: the group waits for whoever polls.
	PassTimeout = 10 * time.Second
)

// Oversized has the consumer of a group go on behind a producer's batch that
// would grow past a bound when it is decompressed, or that does not decompress
// at all.
//
// kgo.MaxDecompressBatchBytes alone would not do. A client with it stops the
// partition and tells so once, and that once is lost when the fetch that it is
// in is thrown away before it is polled: at a pause, a rebalance, a leader that
// moves, an offset that is set for another partition. The partition would then
// stand still for ever. With Opt instead, each fetch of the batch fails anew,
// and Pass asks where the batch ends.
//
// Not safe for concurrent use: an Oversized is for the one loop that polls.
type Oversized struct {
	most         int
	access       []kgo.Opt
	decompressor kgo.Decompressor
	searches     map[place]search
}

type place struct {
	topic     string
	partition int32
}

// search is the search of a partition, from a client's position on, for the batch
// with a given sum. One that was cut short goes on where it stopped.
type search struct {
	sum  sum
	at   kgo.EpochOffset
	from int64
}

// sum tells batches apart by the bytes of their records, as they are in Kafka. Two
// equal batches are told apart by the client's position. In a topic that was cut
// or made again the client keeps its old position until it has read a record:
// there the second of two equal batches may be taken for the first.
type sum [sha256.Size]byte

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
	return &Oversized{most: most, access: access, decompressor: d, searches: map[place]search{}}, nil
}

// Opt makes a client that consumes fail at such batches.
func (o *Oversized) Opt() kgo.Opt { return kgo.WithDecompressor(again{o.decompressor}) }

// again is a decompressor that makes the client fetch again what it cannot
// decompress.
type again struct{ kgo.Decompressor }

func (a again) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	out, err := a.Decompressor.Decompress(src, codec)
	if err != nil {
		return nil, &refused{sum: sha256.Sum256(src), cause: err}
	}
	return out, nil
}

// refused is the error of a fetch. That the cause is kgo.ErrMaxDecompress is
// hidden from the client: with that it would stop.
type refused struct {
	sum   sum
	cause error
}

func (e *refused) Error() string {
	return fmt.Sprintf("a record batch does not decompress: %v", e.cause)
}

// Pass has cl go on behind the batch, if err, of a fetch of the partition, tells
// of one. The record that it returns stands for the batch, to be dead-lettered
// with ReasonDecompress and why: it has the batch's last offset and no value,
// which stays where it is, in Kafka. It returns nil for any other err, and an
// error where it failed: the next fetch tells of the batch again.
//
// Call it from the loop that polls, before a rebalance is allowed, and with the
// same PassTimeout for all errors of a poll. It throws away what the client has
// buffered: let that come again before the next poll.
func (o *Oversized) Pass(ctx context.Context, cl *kgo.Client, topic string, partition int32, err error) (r *kgo.Record, why string, _ error) {
	if _, ok := errors.AsType[*refused](err); !ok {
		return nil, "", nil
	}
	at, ok := cl.UncommittedOffsets()[topic][partition]
	if !ok {
		at, ok = cl.CommittedOffsets()[topic][partition]
	}
	if !ok {
		at.Offset = -1 // see Locate
	}
	return o.PassFrom(ctx, cl, at, topic, partition, err)
}

// PassFrom is Pass for a client that is in no group. At is what it reads next of
// the partition.
func (o *Oversized) PassFrom(ctx context.Context, cl *kgo.Client, at kgo.EpochOffset, topic string, partition int32, err error) (r *kgo.Record, why string, _ error) {
	stopped, ok := errors.AsType[*refused](err)
	if !ok {
		return nil, "", nil
	}
	if at.Offset < 0 {
		return nil, "", fmt.Errorf("%w; the client knows no position to pass it from until the next rebalance", stopped)
	}
	here := place{topic, partition}
	s, ok := o.searches[here]
	if !ok || s.sum != stopped.sum || s.at != at {
		s = search{stopped.sum, at, at.Offset}
	}
	e, reached, err := o.find(ctx, here, s)
	if err != nil {
		o.searches[here] = search{s.sum, at, reached}
		return nil, "", fmt.Errorf("%w; looking for its end at offset %d: %w", stopped, reached, err)
	}
	delete(o.searches, here)

	set := func(o kgo.EpochOffset) map[string]map[int32]kgo.EpochOffset {
		return map[string]map[int32]kgo.EpochOffset{topic: {partition: o}}
	}
	marked, ok := cl.MarkedOffsets()[topic][partition]
	// The client takes what is set for committed. Without an epoch, any offset
	// that is marked later is newer than that; so are marks of before.
	next := kgo.EpochOffset{Epoch: -1, Offset: e.NextOffset}
	if at == next { // where it says it is already, it would not go
		next.Epoch = e.Epoch
	}
	cl.SetOffsets(set(next))
	if ok {
		cl.MarkCommitOffsets(set(marked))
	}
	r = &kgo.Record{Topic: topic, Partition: partition, Offset: e.NextOffset - 1, LeaderEpoch: e.Epoch, Timestamp: time.Now()}
	return r, fmt.Sprintf("offsets %d to %d: not decompressed, to %d bytes at most: %v", e.Offset, e.NextOffset-1, o.most, stopped.cause), nil
}

// find reads a partition up to the batch. Where it fails it returns the offset at
// which the next search goes on.
func (o *Oversized) find(ctx context.Context, p place, s search) (e *kgo.ErrDecompressTooLarge, reached int64, _ error) {
	ctx, cancel := context.WithTimeout(ctx, PassTimeout)
	defer cancel()
	last := &stopping{Decompressor: o.decompressor}
	cl, err := kgo.NewClient(slices.Concat(o.access, []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{p.topic: {p.partition: kgo.NewOffset().At(s.from)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.WithDecompressor(last), kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(4 << 20), kgo.FetchMaxPartitionBytes(1 << 20), kgo.MaxConcurrentFetches(1), kgo.FetchMaxWait(500 * time.Millisecond),
	})...)
	if err != nil {
		return nil, s.from, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, p.topic) // fails, too, where another partition does
	end, ok := ends.Lookup(p.topic, p.partition)
	if !ok || end.Err != nil {
		return nil, s.from, Explain(cmp.Or(end.Err, err, error(kerr.UnknownTopicOrPartition)))
	}
	for reached = s.from; ; {
		if reached >= end.Offset { // the client has gone back, as where a topic was cut, or the batch is no more
			return nil, 0, errors.New("it is not behind the position")
		}
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, reached, errors.Join(Explain(fetches.Err()), ctx.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) { reached = r.Offset + 1 })
		if e, ok := errors.AsType[*kgo.ErrDecompressTooLarge](fetches.Err()); ok {
			if last.sum == s.sum {
				return e, 0, nil
			}
			reached = e.NextOffset
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.partition: {Epoch: -1, Offset: reached}}})
		} else if err := fetches.Err(); err != nil {
			return nil, reached, Explain(err)
		}
	}
}

// stopping is a decompressor that stops its client at what it cannot decompress,
// and keeps that batch's sum. Requires: the client reads one partition. It then
// decompresses nothing more once it stops, so its error and the sum are of the
// same batch.
type stopping struct {
	kgo.Decompressor
	sum sum
}

func (s *stopping) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	out, err := s.Decompressor.Decompress(src, codec)
	if err != nil {
		s.sum = sha256.Sum256(src)
		return nil, kgo.ErrMaxDecompress
	}
	return out, nil
}

// Locate gives each partition without a committed offset, and each whose committed
// offset retention has passed, the offset at which the partition begins. It returns
// how many offsets were lost so, by topic and partition. Call it in
// kgo.AdjustFetchOffsetsFn. Pass needs it where the batch to pass is a partition's
// very first: the client has no position there.
func Locate(ctx context.Context, cl *kgo.Client, log *slog.Logger, offsets map[string]map[int32]kgo.Offset) (lost map[string]map[int32]int64) {
	lost = map[string]map[int32]int64{}
	for topic, partitions := range offsets {
		lost[topic] = map[int32]int64{}
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
		for n, committed := range partitions {
			start, ok := starts.Lookup(topic, n)
			if !ok || start.Err != nil || committed.EpochOffset().Offset >= start.Offset {
				continue
			}
			if at := committed.EpochOffset().Offset; at >= 0 {
				lost[topic][n] = start.Offset - at
			}
			partitions[n] = kgo.NewOffset().At(start.Offset)
		}
	}
	return lost
}
