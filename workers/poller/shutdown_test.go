package poller_test

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// sums checks that each fetched record is accounted for once.
func sums(t *testing.T, r poller.DrainReport) {
	t.Helper()
	left := int64(0)
	for _, l := range r.Left {
		left += int64(l.Records)
	}
	require.Equal(t, r.Fetched, r.Applied+r.DeadLettered+r.Duplicates+r.HandedOver+left, "%+v", r)
}

func TestDrainEndsWithACompleteReport(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	s.delay.Store(int64(5 * time.Millisecond))
	h := newHistory(t, c.topic, 30, 10)
	c.produce(t, append(h.records, &kgo.Record{Topic: c.topic, Value: []byte("poison")})...)
	r := start(t, c, s)
	_, ok := r.DrainReport()
	require.False(t, ok, "not before the drain")
	eventually(t, func() bool { return int(r.metric(t, "records_total")) == len(h.records)+1 }, "all is fetched")
	r.Drain()
	r.Drain()
	r.drain(t)
	report, ok := r.DrainReport()
	require.True(t, ok)
	sums(t, report)
	require.True(t, report.Complete)
	require.Empty(t, report.Left)
	require.EqualValues(t, len(h.records)+1, report.Fetched)
	require.EqualValues(t, 1, report.DeadLettered)
	require.Zero(t, c.left(t))
	require.EqualValues(t, 1, r.metric(t, "drains_total", "outcome", "complete"))
	s.equal(t, h)
}

func TestDrainThatItsDeadlineEndsSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	s.shut.Store(true)
	h := newHistory(t, c.topic, 10, 5)
	c.produce(t, h.records...)
	r := start(t, c, s, func(o *poller.Options) { o.DrainTimeout = 50 * time.Millisecond })
	eventually(t, func() bool { return int(r.metric(t, "records_total")) == len(h.records) }, "all is fetched")
	r.drain(t)
	report, _ := r.DrainReport()
	sums(t, report)
	require.False(t, report.Complete)
	require.Equal(t, []poller.Left{{Partition: 0, From: 0, To: int64(len(h.records)) - 1, Records: len(h.records)}}, report.Left)
	require.GreaterOrEqual(t, report.TookSeconds, 0.05)
	require.EqualValues(t, len(h.records), r.metric(t, "drain_left_records"))
	require.Equal(t, c.end(t), c.left(t), "nothing of it is committed")

	s.open()
	start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "the next owner does it")
	s.equal(t, h)
}

// A client that fails for good makes way for a new one, and nothing is lost.
func TestConsumerStartsAgainAfterAFatalError(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	h := newHistory(t, c.topic, 20, 8)
	half := len(h.records) / 2
	c.produce(t, h.records[:half]...)
	r := start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "the first half")
	fault := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup}, Err: kerr.GroupAuthorizationFailed, Count: -1})
	eventually(t, func() bool { return r.metric(t, "restarts_total") >= 1 }, "it starts again")
	require.Error(t, r.Ready())
	require.NoError(t, r.Alive(), "a restart of the process would mend nothing")
	c.produce(t, h.records[half:]...)
	fault.Remove()
	eventually(t, func() bool { return c.left(t) == 0 && r.Ready() == nil }, "the second half")
	s.equal(t, h)
	r.drain(t)
	report, _ := r.DrainReport()
	sums(t, report)
	require.True(t, report.Complete)
}

func TestConsumerProtocol(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 4), newTables()
	h := newHistory(t, c.topic, 40, 8)
	next := func(o *poller.Options) { o.GroupProtocol = poller.ConsumerProtocol }
	third := len(h.records) / 3
	c.produce(t, h.records[:third]...)
	first := start(t, c, s, next)
	eventually(t, func() bool { return c.left(t) == 0 }, "the first works")
	second := start(t, c, s, next)
	eventually(t, func() bool { return second.Ready() == nil && second.hasSeries(t, "lag_records") }, "the second has partitions")
	c.produce(t, h.records[third:2*third]...)
	eventually(t, func() bool { return second.metric(t, "records_total") > 0 && c.left(t) == 0 }, "the second works")
	first.drain(t)
	c.produce(t, h.records[2*third:]...)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}

func TestPartitionAdded(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 10, 4)
	r := start(t, c, s, func(o *poller.Options) {
		o.KafkaOpts = append(o.KafkaOpts, kgo.MetadataMinAge(200*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	})
	c.produce(t, h.records...)
	eventually(t, func() bool { return c.left(t) == 0 }, "the one partition")
	_, err := c.admin.CreatePartitions(t.Context(), 2, c.topic)
	require.NoError(t, err)
	more := newHistory(t, c.topic, 40, 4)
	for _, rec := range more.records {
		rec.Partition = 1
	}
	manual, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer manual.Close()
	eventually(t, func() bool {
		topics, err := c.admin.ListTopics(t.Context(), c.topic)
		return err == nil && len(topics[c.topic].Partitions) == 3
	}, "the partitions are there")
	require.NoError(t, manual.ProduceSync(t.Context(), more.records...).FirstErr())
	eventually(t, func() bool { return c.left(t) == 0 && r.metric(t, "applied_records_total") > float64(len(h.records)) }, "the new partition too")
	for id, m := range more.models {
		h.models[id] = m
	}
	s.equal(t, h)
}

// A pause survives a rebalance in the client: who gets the partition back must
// resume it.
func TestPauseAcrossARebalance(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	h := newHistory(t, c.topic, 1500, 4)
	s.shut.Store(true)
	c.produce(t, h.records...)
	quick := func(o *poller.Options) {
		small(o)
		o.RevokeTimeout, o.DrainTimeout = 50*time.Millisecond, 50*time.Millisecond
	}
	first := start(t, c, s, quick)
	eventually(t, func() bool { return first.metric(t, "paused_partitions") == 2 }, "both are paused")
	second := start(t, c, s, quick)
	eventually(t, func() bool {
		return second.metric(t, "paused_partitions") == 1 && first.metric(t, "paused_partitions") == 1
	}, "each has one, paused")
	second.drain(t)
	eventually(t, func() bool { return first.metric(t, "paused_partitions") == 2 }, "the first has both, fetched again and paused again")
	s.open()
	eventually(t, func() bool { return c.left(t) == 0 && first.metric(t, "paused_partitions") == 0 }, "and resumed")
	s.equal(t, h)
}

// A flood of one class leaves the others their share of the window.
func TestBurstOfOneClassLeavesOthersTheirShare(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	h := newHistory(t, c.topic, 1000, 30) // RAEs rae-0 to rae-4
	var calm, flood []*kgo.Record
	for _, rec := range h.records {
		topic, err := device.ParseTopic(string(rec.Key))
		require.NoError(t, err)
		if topic.RAE == "rae-0" {
			calm = append(calm, rec)
		} else {
			flood = append(flood, rec)
		}
	}
	s.shut.Store(true)
	r := start(t, c, s, func(o *poller.Options) {
		o.Window = 10
		o.Classes = []poller.Class{{Pattern: "rae-[1-9]", Weight: 1}}
	})
	c.produce(t, flood...)
	eventually(t, func() bool { return r.metricOrZero(t, "ready_lanes", "class", "rae-[1-9]") > 700 }, "the flood waits")
	c.produce(t, calm...)
	eventually(t, func() bool { return r.metricOrZero(t, "ready_lanes", "class", "default") == 200 }, "the others wait, behind it")
	var mu sync.Mutex
	signals, served := 0, map[string]int{} // calm sessions, by how many signals were before
	s.setRefuse(func(b device.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := served[b.Fold.Session]; !ok && b.Fold.RAE == "rae-0" {
			served[b.Fold.Session] = signals
		}
		signals++
		return nil
	})
	waits := func() bool { mu.Lock(); defer mu.Unlock(); return len(served) < 200 }
	for waits() { // a window at a time: who is quicker than another does not count
		eventually(t, func() bool { return s.held() == 10 }, "the window is full")
		s.step()
	}
	// 8 of 10 places are theirs: 200 of them are served with 50 of the flood.
	require.Less(t, slices.Max(slices.Collect(maps.Values(served))), 270)
	s.open()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}
