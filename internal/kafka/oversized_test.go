package kafka_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// What is refused in these tests: a batch above most bytes.
const most = 1 << 20

// bombs is a topic t, of two partitions, with a consumer group g.
type bombs struct {
	t         *testing.T
	access    kgo.Opt
	oversized *kafka.Oversized
	fetches   atomic.Int64 // that were answered
}

func newBombs(t *testing.T) *bombs {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "t"))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	b := &bombs{t: t, access: kgo.SeedBrokers(fake.ListenAddrs()...)}
	b.oversized, err = kafka.NewOversized(most, b.access)
	require.NoError(t, err)
	return b
}

// produce writes each value in a batch of its own.
func (b *bombs) produce(partition int32, values ...[]byte) {
	b.produceWith(kgo.ProducerBatchCompression(kgo.ZstdCompression()), partition, values...)
}

func (b *bombs) produceWith(o kgo.Opt, partition int32, values ...[]byte) {
	b.t.Helper()
	cl, err := kgo.NewClient(b.access, kgo.RecordPartitioner(kgo.ManualPartitioner()), o, kgo.ProducerBatchMaxBytes(8<<20), kgo.BrokerMaxWriteBytes(16<<20))
	require.NoError(b.t, err)
	defer cl.Close()
	for _, v := range values {
		require.NoError(b.t, cl.ProduceSync(b.t.Context(), &kgo.Record{Topic: "t", Partition: partition, Value: v}).FirstErr())
	}
}

// bomb is a value that decompresses to too much; no two of different n are the same.
func bomb(n byte) []byte { return append(make([]byte, 4*most), n) }

// OnBrokerRead counts fetches.
func (b *bombs) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if kmsg.Key(key) == kmsg.Fetch && err == nil {
		b.fetches.Add(1)
	}
}

var _ kgo.HookBrokerRead = (*bombs)(nil)

func (b *bombs) consumer() *kgo.Client {
	b.t.Helper()
	var cl *kgo.Client
	built := make(chan struct{})
	cl, err := kgo.NewClient(
		b.access, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.WithHooks(b), b.oversized.Opt(), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.MetadataMinAge(250*time.Millisecond),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Hour), kgo.BlockRebalanceOnPoll(),
		kgo.AdjustFetchOffsetsFn(func(ctx context.Context, o map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			<-built
			kafka.Locate(ctx, cl, slog.New(slog.DiscardHandler), o)
			return o, nil
		}),
	)
	require.NoError(b.t, err)
	close(built)
	b.t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

// read polls up to an offset of partition 0, and returns what it got of that and
// what it passed, by last offset. With mayFail, a batch need not be passed at the
// first try.
func (b *bombs) read(cl *kgo.Client, until int64, mayFail bool) (got []int64, passed map[int64]string) {
	b.t.Helper()
	passed = map[int64]string{}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	for last := int64(-1); last < until; cl.AllowRebalance() {
		fetches := cl.PollFetches(ctx)
		require.NoError(b.t, ctx.Err(), "got %v, passed %v", got, passed)
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Partition == 0 {
				got, last = append(got, r.Offset), r.Offset
			}
		})
		fetches.EachError(func(topic string, partition int32, err error) {
			r, why, err := b.oversized.Pass(ctx, cl, topic, partition, err)
			if r != nil {
				require.NotContains(b.t, passed, r.Offset, "once")
				passed[r.Offset], last = why, r.Offset
			} else if !mayFail {
				require.NoError(b.t, err)
			}
		})
	}
	return got, passed
}

// What the client buffers and throws away must not take the batch's error with
// it: at a pause, and when an offset is set for another partition.
func TestOversizedBatchIsToldUntilItIsPassed(t *testing.T) {
	for name, discard := range map[string]func(t *testing.T, cl *kgo.Client, call int){
		"paused": func(t *testing.T, cl *kgo.Client, _ int) {
			partition := map[string][]int32{"t": {0}}
			cl.PauseFetchPartitions(partition)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			cl.PollFetches(ctx)
			cl.AllowRebalance()
			cl.ResumeFetchPartitions(partition)
		},
		"another partition's offset is set": func(_ *testing.T, cl *kgo.Client, call int) {
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{"t": {1: {Epoch: -1, Offset: int64(call % 2)}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBombs(t)
			b.produce(1, []byte("beside"))
			b.produce(0, bomb(0), []byte("behind"))
			cl := b.consumer()
			call := 0
			for n := range 10 {
				before := b.fetches.Load()
				require.Eventually(t, func() bool {
					if b.fetches.Load() > before {
						return true
					}
					call++ // the same offset again would be none
					discard(t, cl, call)
					return false
				}, time.Minute, 50*time.Millisecond, "thrown away %d times", n)
			}
			got, passed := b.read(cl, 1, false)
			require.Equal(t, []int64{1}, got)
			require.Len(t, passed, 1)
			require.Contains(t, passed[0], "offsets 0 to 0: ")
		})
	}
}

// nonsense claims to be compressed.
type nonsense struct{}

func (nonsense) Compress(*bytes.Buffer, []byte, ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	return []byte("this is not gzip"), kgo.CodecGzip
}

func TestBatchThatDoesNotDecompressIsPassed(t *testing.T) {
	b := newBombs(t)
	b.produce(0, []byte("before"))
	b.produceWith(kgo.WithCompressor(nonsense{}), 0, []byte("never seen"))
	b.produce(0, bomb(0), bomb(0), []byte("behind"))
	got, passed := b.read(b.consumer(), 4, false)
	require.Equal(t, []int64{0, 4}, got)
	require.Len(t, passed, 3)
	require.Contains(t, passed[1], "gzip")
}

// A topic that was made again, or cut: the client begins at its start, and what
// it tells of as its position is of before.
func TestOversizedBatchBeforeTheKnownPosition(t *testing.T) {
	for name, values := range map[string][][]byte{
		"the log is longer":               {bomb(0), {1}, {2}, {3}, bomb(1), {5}},
		"and has no batch behind it":      {bomb(0), {1}, {2}, {3}, {4}, {5}},
		"the log has not come so far yet": {bomb(0), {1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBombs(t)
			cl := b.consumerAt3()
			b.produce(0, values...)

			last := len(values) - 1
			got, passed := b.read(cl, int64(last), true)
			var good []int64
			for n, v := range values {
				if len(v) == 1 {
					good = append(good, int64(n))
				} else {
					require.Contains(t, passed, int64(n))
				}
			}
			require.Equal(t, good, got)
		})
	}
}

// consumerAt3 is at the start of the empty partition 0, and takes 3, which the
// group has committed, for its position.
func (b *bombs) consumerAt3() *kgo.Client {
	b.t.Helper()
	adm, err := kgo.NewClient(b.access)
	require.NoError(b.t, err)
	b.t.Cleanup(adm.Close)
	at := kadm.Offsets{}
	at.AddOffset("t", 0, 3, -1)
	require.NoError(b.t, kadm.NewClient(adm).CommitAllOffsets(b.t.Context(), "g", at))
	b.produce(1, []byte("beside"))
	cl := b.consumer()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	require.Equal(b.t, 1, cl.PollFetches(ctx).NumRecords(), "it consumes")
	cl.AllowRebalance()
	require.EqualValues(b.t, 3, cl.CommittedOffsets()["t"][0].Offset)
	return cl
}

// The same, and the batch ends there.
func TestOversizedBatchUpToTheKnownPosition(t *testing.T) {
	b := newBombs(t)
	cl := b.consumerAt3()
	p, err := kgo.NewClient(b.access, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
		kgo.ProducerBatchMaxBytes(8<<20), kgo.BrokerMaxWriteBytes(16<<20), kgo.ManualFlushing())
	require.NoError(t, err)
	defer p.Close()
	for range 3 {
		p.Produce(t.Context(), &kgo.Record{Value: make([]byte, most)}, nil)
	}
	require.NoError(t, p.Flush(t.Context()))
	b.produce(0, []byte("behind"))
	got, passed := b.read(cl, 3, true)
	require.Equal(t, []int64{3}, got)
	require.Len(t, passed, 1)
	require.Contains(t, passed[2], "offsets 0 to 2: ")
}

// A search that failed belongs to a position: not to the same batch elsewhere,
// where a consumer begins anew.
func TestFailedSearchIsOfOnePosition(t *testing.T) {
	b := newBombs(t)
	b.produce(0, []byte("0"), bomb(0), []byte("2"), []byte("3"), bomb(0), []byte("5"))
	cl := b.consumer()
	_, passed := b.read(cl, 3, false)
	require.Len(t, passed, 1)
	late, cancel := context.WithCancel(t.Context())
	cancel()
	bound, enough := context.WithTimeout(t.Context(), time.Minute)
	defer enough()
	for failed := false; !failed; cl.AllowRebalance() {
		fetches := cl.PollFetches(bound)
		require.NoError(t, bound.Err())
		fetches.EachError(func(topic string, partition int32, err error) {
			_, _, err = b.oversized.Pass(late, cl, topic, partition, err)
			failed = failed || err != nil
		})
	}
	cl.CloseAllowingRebalance()

	got, passed := b.read(b.consumer(), 5, false) // nothing was committed
	require.Equal(t, []int64{0, 2, 3, 5}, got)
	require.Len(t, passed, 2)
}

func TestMarksOfBeforeAreCommittedBehindAnOversizedBatch(t *testing.T) {
	b := newBombs(t)
	b.produce(0, []byte("done"), []byte("open"), bomb(0), []byte("behind"))
	cl := b.consumer()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fetches := cl.PollRecords(ctx, 1)
	require.Len(t, fetches.Records(), 1)
	cl.MarkCommitRecords(fetches.Records()...)
	cl.AllowRebalance()
	_, passed := b.read(cl, 3, false)
	require.Contains(t, passed, int64(2))
	require.NoError(t, cl.CommitMarkedOffsets(ctx))
	require.EqualValues(t, 1, cl.CommittedOffsets()["t"][0].Offset)
}

func TestOversizedPassesNothingElse(t *testing.T) {
	oversized, err := kafka.NewOversized(most, kgo.SeedBrokers("127.0.0.1:1"))
	require.NoError(t, err)
	r, _, err := oversized.Pass(t.Context(), nil, "t", 0, net.ErrClosed)
	require.NoError(t, err)
	require.Nil(t, r)
}
