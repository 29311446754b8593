package poller_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/rollcall-platform/rollcall/internal/kafka/kafkatest"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// create makes a topic, also one that is being deleted.
func (c *cluster) create(t testing.TB, partitions int32, topic string) {
	t.Helper()
	eventually(t, func() bool {
		r, err := c.admin.CreateTopic(t.Context(), partitions, 1, nil, topic)
		return err == nil && r.Err == nil
	}, "topic %s is made", topic)
	c.producer.PurgeTopicsFromProducing(topic)
}

func (c *cluster) delete(t testing.TB, topic string) {
	t.Helper()
	_, err := c.admin.DeleteTopic(t.Context(), topic)
	require.NoError(t, err)
}

func TestTopicsThatAreMadeAnew(t *testing.T) {
	brokers := kafkatest.Brokers(t)
	for _, tc := range []struct {
		name string
		away bool // the topic is seen to be gone between the two
	}{{"at once", false}, {"after a while", true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, s := newReal(t, 2, brokers), newTables()
			r := start(t, c, s)
			h := newHistory(t, c.topic, 10, 4)
			bad := &kgo.Record{Topic: c.topic, Key: []byte("no topic"), Value: []byte("{")}
			c.produce(t, h.records...)
			c.produce(t, bad)
			eventually(t, func() bool { return c.left(t) == 0 }, "the old topic is consumed")
			c.letters(t, 1)

			for _, topic := range []string{c.dlq, c.topic} {
				c.delete(t, topic)
			}
			if tc.away {
				eventually(t, func() bool { return r.metric(t, "topic_missing") == 2 }, "it is told")
				require.ErrorContains(t, r.Ready(), "does not exist")
				require.NoError(t, r.Alive())
			}
			c.create(t, 1, c.dlq)
			c.create(t, 3, c.topic)
			more := newHistory(t, c.topic, 10, 4)
			c.produce(t, more.records...)
			c.produce(t, &kgo.Record{Topic: c.topic, Key: bad.Key, Value: bad.Value})
			eventually(t, func() bool { return c.left(t) == 0 }, "the new topic is consumed, from its start")
			for id, m := range more.models {
				h.models[id] = m
			}
			s.equal(t, h)
			c.letters(t, 1)
			eventually(t, func() bool { return r.Ready() == nil }, "and it is ready again")
			require.EqualValues(t, 1, r.metric(t, "topic_recreations_total", "topic", c.topic))
			eventually(t, func() bool { return r.metric(t, "topic_missing") == 0 }, "nothing is missing")
		})
	}
}

func TestPartitionsAreReadSoonAfterTheyAreAdded(t *testing.T) {
	t.Parallel()
	c, s := newReal(t, 1, kafkatest.Brokers(t)), newTables()
	r := start(t, c, s)
	h := newHistory(t, c.topic, 10, 4)
	c.produce(t, h.records...)
	eventually(t, func() bool { return c.left(t) == 0 }, "the one partition")
	before := r.metric(t, "rebalances_total")
	_, err := c.admin.CreatePartitions(t.Context(), 2, c.topic)
	require.NoError(t, err)
	added := time.Now()
	manual, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	more := newHistory(t, c.topic, 10, 4)
	for _, rec := range more.records {
		rec.Partition = 2
	}
	eventually(t, func() bool {
		topics, err := c.admin.ListTopics(t.Context(), c.topic)
		return err == nil && len(topics[c.topic].Partitions) == 3
	}, "the partitions are there")
	require.NoError(t, manual.ProduceSync(t.Context(), more.records...).FirstErr())
	eventually(t, func() bool { return c.left(t) == 0 && r.metric(t, "applied_records_total") > float64(len(h.records)) }, "the new partition too")
	require.Less(t, time.Since(added), 15*time.Second+patience/4, "the second is this machine's")
	for id, m := range more.models {
		h.models[id] = m
	}
	s.equal(t, h)
	require.LessOrEqual(t, r.metric(t, "rebalances_total")-before, 2.0, "one rebalance, at which nothing is revoked")
}

func TestRetentionThatPassesTheCommittedOffsetIsTold(t *testing.T) {
	t.Parallel()
	c, s := newReal(t, 1, kafkatest.Brokers(t)), newTables()
	first := start(t, c, s)
	h := newHistory(t, c.topic, 5, 4)
	c.produce(t, h.records...)
	eventually(t, func() bool { return c.left(t) == 0 }, "some are committed")
	first.drain(t)
	committed := c.committed(t)

	lost := newHistory(t, c.topic, 5, 4)
	c.produce(t, lost.records...)
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: c.topic, Partition: 0, At: committed + int64(len(lost.records)), LeaderEpoch: -1})
	_, err := c.admin.DeleteRecords(t.Context(), offsets)
	require.NoError(t, err)
	more := newHistory(t, c.topic, 5, 4)
	c.produce(t, more.records...)

	r := start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "it goes on where the log begins")
	for id, m := range more.models {
		h.models[id] = m
	}
	s.equal(t, h)
	require.EqualValues(t, len(lost.records), r.metric(t, "offsets_lost_total"))
	require.NoError(t, r.Ready())
}

// A transaction ends with a marker, which takes an offset and is no record.
func TestMarkersOfTransactionsAreNoLag(t *testing.T) {
	t.Parallel()
	c, s := newReal(t, 1, kafkatest.Brokers(t)), newTables()
	r := start(t, c, s, func(o *poller.Options) { o.CommitInterval = 50 * time.Millisecond })
	id := uuid.NewString()
	writer, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.TransactionalID(id), kgo.DefaultProduceTopic(c.topic))
	require.NoError(t, err)
	defer writer.Close()
	h, aborted := newHistory(t, c.topic, 5, 4), newHistory(t, c.topic, 5, 4)
	for _, tx := range []struct {
		records []*kgo.Record
		commit  kgo.TransactionEndTry
	}{{h.records, kgo.TryCommit}, {aborted.records, kgo.TryAbort}} {
		require.NoError(t, writer.BeginTransaction())
		require.NoError(t, writer.ProduceSync(t.Context(), tx.records...).FirstErr())
		require.NoError(t, writer.EndTransaction(t.Context(), tx.commit))
	}
	eventually(t, func() bool { return c.left(t) == 0 }, "the markers are committed too: no tool shows lag")
	s.equal(t, h)
	eventually(t, func() bool { return r.hasSeries(t, "lag_records") && r.metric(t, "lag_records") == 0 }, "nor does the metric")
	require.NoError(t, r.Ready())
	require.EqualValues(t, len(h.records), r.metric(t, "records_total"), "a marker is no record")
	require.Zero(t, r.metric(t, "offsets_lost_total"))
	require.Zero(t, r.metricOrZero(t, "dead_letters_total"))

	t.Log("an open transaction is no lag either, and holds nothing that came before it")
	require.NoError(t, writer.BeginTransaction())
	open := newHistory(t, c.topic, 1, 2)
	require.NoError(t, writer.ProduceSync(t.Context(), open.records...).FirstErr())
	require.Never(t, func() bool { return r.metric(t, "lag_records") != 0 }, 2*time.Second, 50*time.Millisecond)
	require.NoError(t, writer.EndTransaction(context.WithoutCancel(t.Context()), kgo.TryCommit))
	eventually(t, func() bool { return c.left(t) == 0 }, "it is read when it is committed")
}
