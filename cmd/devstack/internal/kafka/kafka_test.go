package kafka_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/childtest"
	"github.com/rollcall-platform/rollcall/cmd/devstack/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/porttest"
)

const (
	topic    = "rollcall.device-events"
	group    = "poller"
	patience = time.Minute // bounds failures only
)

// TestMain lets the test binary be the process that gets killed.
func TestMain(m *testing.M) {
	childtest.Main(m, func(arg string) error {
		dir, addr, _ := strings.Cut(arg, "|")
		_, err := kafka.Start(context.Background(), kafka.Options{DataDir: dir, Addr: addr})
		return err
	})
}

// startChild runs a server in a process of its own and returns what kills it.
func startChild(t *testing.T, dir, addr string) (kill func()) {
	t.Helper()
	_, kill = childtest.Start(t, dir+"|"+addr)
	return kill
}

func newClient(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// position is where an acknowledged record must be found again.
type position struct {
	partition int32
	offset    int64
}

// produce sends records to every partition until stop closes, and returns the
// values by the position that the broker acknowledged.
func produce(client *kgo.Client, name string, stop <-chan struct{}, seen func(int)) map[position]string {
	acked := make(map[position]string)
	var mu sync.Mutex
	var pending sync.WaitGroup
	for n := 0; ; n++ {
		select {
		case <-stop:
			pending.Wait()
			return acked
		default:
		}
		value := fmt.Sprintf("%s-%d", name, n)
		pending.Add(1)
		client.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: int32(n % kafka.DefaultPartitions), Value: []byte(value)}, func(r *kgo.Record, err error) {
			defer pending.Done()
			if err != nil {
				return // not acknowledged, so nothing is promised
			}
			mu.Lock()
			defer mu.Unlock()
			acked[position{r.Partition, r.Offset}] = value
			seen(len(acked))
		})
	}
}

// readAll returns every record of the topic by position.
func readAll(t *testing.T, addr string) map[position]string {
	t.Helper()
	client := newClient(t, addr, kgo.ConsumeTopics(topic))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	require.NoError(t, err)
	var want int64
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	records := make(map[position]string)
	for int64(len(records)) < want {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) { records[position{r.Partition, r.Offset}] = string(r.Value) })
	}
	return records
}

func commit(t *testing.T, addr string, offset int64) {
	t.Helper()
	var offsets kadm.Offsets
	for p := range int32(kafka.DefaultPartitions) {
		offsets.Add(kadm.Offset{Topic: topic, Partition: p, At: offset, LeaderEpoch: -1})
	}
	require.NoError(t, kadm.NewClient(newClient(t, addr)).CommitAllOffsets(t.Context(), group, offsets))
}

func requireCommitted(t *testing.T, addr string, want int64) {
	t.Helper()
	offsets, err := kadm.NewClient(newClient(t, addr)).FetchOffsets(t.Context(), group)
	require.NoError(t, err)
	require.Len(t, offsets[topic], kafka.DefaultPartitions)
	offsets.Each(func(o kadm.OffsetResponse) { require.Equal(t, want, o.At) })
}

// TestAcknowledgedSurvivesKill kills the broker three times while records are
// being produced, without a clean end in between. A producer that outlives it
// goes on.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	dir, addr := t.TempDir(), porttest.Addr(t)
	want := make(map[position]string)
	survivor := newClient(t, addr)
	for round := range 3 {
		kill := startChild(t, dir, addr)
		if round > 0 {
			requireCommitted(t, addr, int64(round-1))
			require.NoError(t, survivor.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("again")}).FirstErr())
		}
		require.NoError(t, survivor.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("survivor")}).FirstErr())
		commit(t, addr, int64(round))

		enough, stop := make(chan struct{}), make(chan struct{})
		var once sync.Once
		done := make(chan map[position]string)
		client := newClient(t, addr, kgo.MaxBufferedRecords(500))
		go func() {
			done <- produce(client, fmt.Sprint(round), stop, func(n int) {
				if n >= 5000 {
					once.Do(func() { close(enough) })
				}
			})
		}()
		select {
		case <-enough:
		case <-time.After(patience):
			require.Fail(t, "the broker does not acknowledge")
		}
		kill() // with produce requests on the wire
		close(stop)
		client.Close() // fails what is still waiting for an answer
		for at, value := range <-done {
			_, twice := want[at]
			require.False(t, twice, "offset given out twice: %v", at)
			want[at] = value
		}
	}

	startChild(t, dir, addr)
	requireCommitted(t, addr, 2)
	got := readAll(t, addr)
	for at, value := range want {
		require.Equal(t, value, got[at], "record at %v", at)
	}
	t.Logf("%d acknowledged, %d in the log", len(want), len(got))
}

// TestHalfAnEntryLosesNoLaterCommit: a kill in the middle of a write leaves half
// an entry at the end of the offset log; commits made after it must be read back
// after the next kill.
func TestHalfAnEntryLosesNoLaterCommit(t *testing.T) {
	dir, addr := t.TempDir(), porttest.Addr(t)
	kill := startChild(t, dir, addr)
	commit(t, addr, 1)
	kill()

	log, err := os.OpenFile(filepath.Join(dir, "groups.log"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err, "kfake keeps its offsets elsewhere: look at recoverLogs again")
	_, err = log.Write([]byte{200, 0, 0, 0, 1, 2, 3})
	require.NoError(t, err)
	require.NoError(t, log.Close())

	kill = startChild(t, dir, addr)
	requireCommitted(t, addr, 1)
	commit(t, addr, 2)
	kill()

	startChild(t, dir, addr)
	requireCommitted(t, addr, 2)
}

// TestMembersOfTheLastRunHoldNoPartitions: the consumers of a stack that was
// closed around them are gone with it.
func TestMembersOfTheLastRunHoldNoPartitions(t *testing.T) {
	o := kafka.Options{DataDir: t.TempDir(), Addr: porttest.Addr(t)}
	broker := start(t, o)
	first := newClient(t, broker.Addr(), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	consume := func(c *kgo.Client) {
		require.NoError(t, newClient(t, broker.Addr()).ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr())
		// Less than the session timeout of a member that is gone.
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for records := 0; records == 0; {
			fetches := c.PollFetches(ctx)
			require.NoError(t, fetches.Err())
			records = fetches.NumRecords()
		}
	}
	consume(first)
	closeBroker(t, broker)
	go first.Close() // too late to leave the group

	broker = start(t, o)
	defer closeBroker(t, broker)
	consume(newClient(t, broker.Addr(), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit()))
}

func start(t *testing.T, o kafka.Options) *kafka.Broker {
	t.Helper()
	began := time.Now()
	broker, err := kafka.Start(t.Context(), o)
	require.NoError(t, err)
	t.Logf("start %s", time.Since(began))
	return broker
}

func closeBroker(t *testing.T, b *kafka.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, b.Close(ctx))
}

func TestTopicsOfThePlatform(t *testing.T) {
	dir := t.TempDir()
	// What a first start leaves that was killed between its first two files.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "meta.json"), []byte(`{"version":1,"cluster_id":"rollcall-devstack"}`), 0o600))
	o := kafka.Options{DataDir: dir, Addr: "127.0.0.1:0", SyncWrites: true}
	for range 2 {
		broker := start(t, o)
		details, err := kadm.NewClient(newClient(t, broker.Addr())).ListTopics(t.Context())
		require.NoError(t, err)
		partitions := make(map[string]int)
		for name, topic := range details {
			partitions[name] = len(topic.Partitions)
		}
		require.Equal(t, map[string]int{
			"rollcall.device-events": 8, "rollcall.device-events.dlq": 1,
			"rollcall.device-commands": 8, "rollcall.device-replies": 8,
		}, partitions)
		closeBroker(t, broker)
		o.Topics = []kafka.Topic{{Name: "rollcall.device-events", Partitions: 3}} // exists: left as it is
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, test := range map[string]struct {
		options kafka.Options
		want    string
	}{
		"no data directory": {kafka.Options{Addr: "127.0.0.1:0"}, "DataDir is empty"},
		"no address":        {kafka.Options{DataDir: t.TempDir()}, "Options.Addr"},
		"not loopback":      {kafka.Options{DataDir: t.TempDir(), Addr: "0.0.0.0:9092"}, "127.0.0.1 only"},
		"port":              {kafka.Options{DataDir: t.TempDir(), Addr: "127.0.0.1:kafka"}, "between 0 and 65535"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kafka.Start(t.Context(), test.options)
			require.ErrorContains(t, err, test.want)
		})
	}
}
