package poller_test

import (
	"bytes"
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.temporal.io/api/serviceerror"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// suite is what holds on every Kafka.
var suite = map[string]func(t *testing.T, make func(partitions int32) *cluster){
	"applies everything, in order":                appliesInOrder,
	"poison is dead-lettered":                     poison,
	"killed: all that was not applied comes back": killed,
	"rebalance in mid-flight":                     rebalance,
	"offset gaps":                                 offsetGaps,
	"kcat writes events and reads dead letters":   kcat,
	"topic made again":                            madeAgain,
	"drain":                                       drains,
}

func TestOnFake(t *testing.T) {
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, func(partitions int32) *cluster { return newFake(t, partitions) })
		})
	}
}

func TestOnApacheKafka(t *testing.T) {
	brokers := kafkatest.Brokers(t)
	for name, test := range suite {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, func(partitions int32) *cluster { return newReal(t, partitions, brokers) })
		})
	}
}

func appliesInOrder(t *testing.T, make func(int32) *cluster) {
	c, s := make(3), newTables()
	s.delay.Store(int64(2 * time.Millisecond))
	h := newHistory(t, c.topic, 40, 12)
	r := start(t, c, s)
	c.produce(t, h.records...)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
	require.NoError(t, r.Ready())
	signals, overlaps, _ := s.counts()
	require.Zero(t, overlaps, "one un-applied batch a session")
	require.LessOrEqual(t, signals, len(h.records))
	require.EqualValues(t, len(h.records), r.metric(t, "records_total"))
	eventually(t, func() bool {
		return len(h.records) == int(r.metric(t, "applied_records_total")+r.metric(t, "duplicate_records_total"))
	}, "each record is counted once")
	require.EqualValues(t, signals, r.metricOrZero(t, "signals_total", "outcome", "accepted"))
}

func poison(t *testing.T, make func(int32) *cluster) {
	c, s := make(1), newTables()
	h := newHistory(t, c.topic, 3, 4)
	good := h.records[0]
	with := func(from, to string) []byte {
		require.Contains(t, string(good.Value), from)
		return bytes.Replace(good.Value, []byte(from), []byte(to), 1)
	}
	other, err := device.SessionTopic("other", uuid.NewString(), device.KindEvents)
	require.NoError(t, err)
	stamp := time.UnixMilli(1_700_000_000_123)
	var bad []*kgo.Record
	add := func(key, value []byte, want device.Cause) {
		bad = append(bad, &kgo.Record{Topic: c.topic, Key: key, Value: value, Timestamp: stamp,
			Headers: []kgo.RecordHeader{{Key: "want", Value: []byte(want)}}})
	}
	add(good.Key, []byte("{"), device.NotJSON)
	add(good.Key, nil, device.NotJSON)
	add(good.Key, []byte(`{"hello":1}`), device.NotCloudEvent)
	add(good.Key, []byte(`[]`), device.NotCloudEvent)
	add(good.Key, with("opened.v1", "renamed.v1"), device.UnknownType)
	add([]byte(other), good.Value, device.TopicMismatch)
	add(nil, good.Value, device.TopicMismatch)
	add(good.Key, bytes.Repeat([]byte(" "), device.MaxEventBytes+1), device.TooLarge)
	add(good.Key, with(`"seq":1`, `"seq":0`), device.BadSeq)
	add(good.Key, with(`"seq":1`, `"seq":-1`), device.BadSeq)
	add(good.Key, append(bytes.Clone(good.Value), 0xff), device.NotUTF8)
	add(good.Key, with(`"seq":1`, `"seq":1,"attributes":{"nul":"\u0000"}`), device.HasNUL)

	c.produce(t, bad...)
	c.produce(t, h.records...)
	r := start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "consumption goes on")
	s.equal(t, h)
	for i, l := range c.letters(t, len(bad)) {
		want := bad[i]
		require.Equal(t, want.Key, l.Key)
		require.Equal(t, want.Value, l.Value)
		require.True(t, want.Timestamp.Equal(l.Timestamp))
		require.Equal(t, c.topic, kafka.Header(l, kafka.HeaderTopic))
		require.Equal(t, "0", kafka.Header(l, kafka.HeaderPartition))
		require.Equal(t, strconv.Itoa(i), kafka.Header(l, kafka.HeaderOffset), "they were the first records")
		require.NotEmpty(t, kafka.Header(l, kafka.HeaderDetail))
		require.Equal(t, kafka.Header(want, "want"), kafka.Header(l, kafka.HeaderReason))
		require.Equal(t, kafka.Header(want, "want"), kafka.Header(l, "want"), "its own headers are kept")
	}
	require.EqualValues(t, len(bad), r.metricOrZero(t, "dead_letters_total"))
	require.EqualValues(t, 2, r.metricOrZero(t, "dead_letters_total", "reason", string(device.BadSeq)))
}

func killed(t *testing.T, make func(int32) *cluster) {
	c, s := make(2), newTables()
	const sessions = 30
	h := newHistory(t, c.topic, sessions, 10)
	opened := h.records[:sessions] // and then the second of those that have one
	second := sessions
	for seen := map[string]bool{}; !seen[string(h.records[second].Key)]; second++ {
		seen[string(h.records[second].Key)] = true
	}
	c.produce(t, opened...)
	// The real broker allows no session timeout below 6 s.
	timeout := 6 * time.Second
	if c.fake != nil {
		timeout = 500 * time.Millisecond
	}
	wide := func(o *poller.Options) { o.Window = sessions }
	r := start(t, c, s, short(timeout), wide)
	eventually(t, func() bool { return c.left(t) == 0 }, "some is committed")
	s.shut.Store(true)
	c.produce(t, h.records[sessions:second]...)
	inFlight := second - sessions
	eventually(t, func() bool { return s.inFlight() == inFlight }, "the rest is in flight")
	r.kill()
	require.EqualValues(t, inFlight, c.left(t), "what is not applied is not committed")
	s.open() // Temporal has what it accepted, whoever is dead

	r = start(t, c, s, short(timeout), wide)
	eventually(t, func() bool {
		return c.left(t) == 0 && int(r.metric(t, "duplicate_records_total")) >= inFlight
	}, "what was applied already needs no signal")
	c.produce(t, h.records[second:]...)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}

// end is how many records the topic has.
func (c *cluster) end(t testing.TB) int64 {
	ends, err := c.admin.ListEndOffsets(context.WithoutCancel(t.Context()), c.topic)
	require.NoError(t, err)
	var n int64
	for _, p := range ends[c.topic] {
		n += p.Offset
	}
	return n
}

func rebalance(t *testing.T, make func(int32) *cluster) {
	c, s := make(6), newTables()
	s.delay.Store(int64(5 * time.Millisecond))
	h := newHistory(t, c.topic, 60, 12)
	first := start(t, c, s)
	third := len(h.records) / 3
	c.produce(t, h.records[:third]...)
	eventually(t, func() bool { n, _, _ := s.counts(); return n > 0 }, "the first works")
	second := start(t, c, s)
	c.produce(t, h.records[third:2*third]...)
	eventually(t, func() bool {
		return first.metricOrZero(t, "rebalances_total", "kind", "revoked") > 0 && second.Ready() == nil
	}, "the second has joined")
	c.produce(t, h.records[2*third:]...)
	eventually(t, func() bool { return second.metric(t, "records_total") > 0 }, "the second works")
	first.drain(t)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}

// A transaction leaves a marker in the log, an aborted one a hole.
func offsetGaps(t *testing.T, make func(int32) *cluster) {
	c, s := make(1), newTables()
	h := newHistory(t, c.topic, 5, 8)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.TransactionalID("tx-"+c.group))
	require.NoError(t, err)
	defer cl.Close()
	for i, r := range h.records {
		require.NoError(t, cl.BeginTransaction())
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
		require.NoError(t, cl.EndTransaction(t.Context(), kgo.TryCommit))
		if i%3 == 0 {
			require.NoError(t, cl.BeginTransaction())
			require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: c.topic, Value: []byte("aborted")}).FirstErr())
			require.NoError(t, cl.EndTransaction(t.Context(), kgo.TryAbort))
		}
	}
	start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "all records are committed, and the markers behind the last")
	s.equal(t, h)
}

func drains(t *testing.T, make func(int32) *cluster) {
	c, s := make(2), newTables()
	s.shut.Store(true)
	h := newHistory(t, c.topic, 30, 10)
	c.produce(t, h.records...)
	r := start(t, c, s, func(o *poller.Options) { o.Window = 4 })
	eventually(t, func() bool { return int(r.metric(t, "records_total")) == len(h.records) }, "all is fetched")
	require.Equal(t, c.end(t), c.left(t), "and nothing is applied")
	r.stop()
	s.delay.Store(int64(2 * time.Millisecond))
	s.open()
	r.drain(t)
	require.Zero(t, c.left(t))
	s.equal(t, h)
}

var errUnavailable = serviceerror.NewUnavailable("down")

// A topic that is deleted and made again is another log: its offsets say nothing of
// what was applied of the old one. A session goes on in it with other seqs.
func madeAgain(t *testing.T, make func(int32) *cluster) {
	c, s := make(1), newTables()
	h := newHistory(t, c.topic, 4, 8)
	whole := h.models
	old, rest := h.records[:len(h.records)/2], h.records[len(h.records)/2:]
	c.produce(t, old...)
	r := start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "the old log is applied")
	_, before := s.logs()

	_, err := c.admin.DeleteTopic(t.Context(), c.topic)
	require.NoError(t, err)
	eventually(t, func() bool {
		_, err := c.admin.CreateTopic(t.Context(), 1, 1, nil, c.topic)
		return err == nil
	}, "the topic is made again")
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...)) // a producer keeps to the old one too
	require.NoError(t, err)
	defer cl.Close()
	eventually(t, func() bool { return cl.ProduceSync(t.Context(), rest[0]).FirstErr() == nil }, "the new topic takes a record")
	require.NoError(t, cl.ProduceSync(t.Context(), rest[1:]...).FirstErr())

	eventually(t, func() bool { return c.committed(t) == int64(len(rest)) && r.Ready() == nil }, "the new log is applied")
	s.equal(t, history{models: whole})
	ids, after := s.logs()
	require.Equal(t, 2, ids)
	require.Greater(t, after, before, "what is new was signalled, and not taken for applied")
}
