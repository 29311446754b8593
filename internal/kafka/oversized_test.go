package kafka_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/kafka"
)

// fetched counts the fetches that were answered.
type fetched struct{ atomic.Int64 }

func (f *fetched) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if kmsg.Key(key) == kmsg.Fetch && err == nil {
		f.Add(1)
	}
}

var _ kgo.HookBrokerRead = (*fetched)(nil)

// What the client buffers and throws away must not take the batch's error with
// it: at a pause, and when an offset is set for another partition.
func TestOversizedBatchIsToldUntilItIsPassed(t *testing.T) {
	const most, bomb, beside = 1 << 20, 0, 1
	for name, discard := range map[string]func(*testing.T, *kgo.Client, int){
		"paused": func(_ *testing.T, cl *kgo.Client, _ int) {
			partition := map[string][]int32{"t": {bomb}}
			cl.PauseFetchPartitions(partition)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			cl.PollFetches(ctx)
			cl.ResumeFetchPartitions(partition)
		},
		"another partition's offset is set": func(_ *testing.T, cl *kgo.Client, n int) {
			cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{"t": {beside: {Epoch: -1, Offset: int64((n + 1) % 2)}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "t"))
			require.NoError(t, err)
			t.Cleanup(fake.Close)
			access := kgo.SeedBrokers(fake.ListenAddrs()...)
			produce := func(partition int32, value []byte) {
				cl, err := kgo.NewClient(access, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
					kgo.ProducerBatchMaxBytes(8<<20), kgo.BrokerMaxWriteBytes(16<<20))
				require.NoError(t, err)
				defer cl.Close()
				require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Partition: partition, Value: value}).FirstErr())
			}
			produce(beside, []byte("beside"))
			produce(bomb, make([]byte, 4*most))
			produce(bomb, []byte("behind"))

			oversized, err := kafka.NewOversized(most, access)
			require.NoError(t, err)
			var cl *kgo.Client
			built, fetches := make(chan struct{}), &fetched{}
			cl, err = kgo.NewClient(access, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(), kgo.WithHooks(fetches),
				kgo.FetchMaxWait(50*time.Millisecond), oversized.Opt(),
				kgo.AdjustFetchOffsetsFn(func(ctx context.Context, o map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
					<-built
					kafka.Locate(ctx, cl, slog.New(slog.DiscardHandler), o)
					return o, nil
				}))
			require.NoError(t, err)
			close(built)
			t.Cleanup(cl.CloseAllowingRebalance)

			// What has failed is buffered, and nothing is fetched until that is gone.
			for n, before := 0, int64(0); n < 10; n++ {
				require.Eventually(t, func() bool { return fetches.Load() > before }, time.Minute, time.Millisecond, "thrown away %d times", n)
				before = fetches.Load()
				discard(t, cl, n)
			}
			var passed *kgo.Record
			for behind := false; !behind; {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				polled := cl.PollFetches(ctx)
				require.NoError(t, ctx.Err())
				cancel()
				polled.EachError(func(topic string, partition int32, err error) {
					require.Nil(t, passed, "once")
					r, why, failed := oversized.Pass(t.Context(), cl, topic, partition, err)
					require.NoError(t, failed)
					require.True(t, strings.HasPrefix(why, "offsets 0 to 0: "), why)
					passed = r
				})
				for _, r := range polled.Records() {
					behind = behind || r.Partition == bomb && r.Offset == 1
				}
			}
			require.EqualValues(t, bomb, passed.Partition)
			require.Zero(t, passed.Offset)
		})
	}
}

func TestOversizedPassesNothingElse(t *testing.T) {
	oversized, err := kafka.NewOversized(1<<20, kgo.SeedBrokers("127.0.0.1:1"))
	require.NoError(t, err)
	r, _, err := oversized.Pass(t.Context(), nil, "t", 0, net.ErrClosed)
	require.NoError(t, err)
	require.Nil(t, r)
}
