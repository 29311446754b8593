package poller_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

// The client commits nothing by itself: that a record was polled says nothing.
func TestWhatIsPolledIsNotCommitted(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	var commits atomic.Int64
	c.fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		commits.Add(1)
		return nil, nil, false
	})
	h := newHistory(t, c.topic, 5, 4)
	s.shut.Store(true)
	c.produce(t, h.records...)
	const look = 20 * time.Millisecond
	r := start(t, c, s, func(o *poller.Options) {
		o.AckMin, o.AckMax, o.DrainTimeout = look, look, time.Millisecond
		o.KafkaOpts = append(o.KafkaOpts, kgo.AutoCommitInterval(100*time.Millisecond))
	})
	// What the client would commit are the records of the poll before.
	eventually(t, func() bool { return int(r.metric(t, "records_total")) == len(h.records) }, "all is fetched")
	c.produce(t, h.records[len(h.records)-1])
	eventually(t, func() bool { return int(r.metric(t, "records_total")) == len(h.records)+1 }, "one more poll")
	begun := s.reads.Load()
	eventually(t, func() bool { return s.reads.Load() > begun+50 }, "a second goes by")
	r.drain(t)
	require.Zero(t, commits.Load())
	require.Equal(t, c.end(t), c.left(t))
}

// What retention has deleted beyond the committed offset is lost; what the topic
// still has is not: the poller begins at the oldest record that is there.
func TestAfterRetentionTheOldestRecordIsNext(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	event := func(session int) *kgo.Record {
		at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
		return record(t, c.topic, device.Event{RAE: "rae-1", Session: fmt.Sprintf("%08x-0000-4000-8000-000000000000", session), Type: device.Opened, Seq: 1, Time: at})
	}
	c.produce(t, event(1))
	r := start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "the first is committed")
	r.drain(t)
	c.produce(t, event(2), event(3), event(4))
	var kept kadm.Offsets
	kept.AddOffset(c.topic, 0, 2, -1)
	deleted, err := c.admin.DeleteRecords(t.Context(), kept)
	require.NoError(t, err)
	require.NoError(t, deleted.Error())

	start(t, c, s)
	next := 5
	eventually(t, func() bool { // the newest of all shows that the poller has found its place
		c.produce(t, event(next))
		next++
		_, _, sessions := s.counts()
		return sessions > 3 || c.left(t) == 0
	}, "the poller goes on")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, session := range []int{3, 4} {
		require.Contains(t, s.states, fmt.Sprintf("%08x-0000-4000-8000-000000000000", session))
	}
}

// holdPoll blocks the poll that returns a record, from when it is armed until it is
// released.
type holdPoll struct {
	armed   atomic.Bool
	holding atomic.Bool
	release chan struct{}
}

func (h *holdPoll) OnFetchRecordUnbuffered(*kgo.Record, bool) {
	if h.armed.Load() {
		h.holding.Store(true)
		<-h.release
	}
}

// No partition goes while the poll loop holds records of it: these would be taken
// for records of the next assignment.
func TestNoPartitionGoesWhileItsRecordsAreHeld(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	h := newHistory(t, c.topic, 20, 6)
	half := len(h.records) / 2
	hold := &holdPoll{release: make(chan struct{})}
	c.produce(t, h.records[:half]...)
	first := start(t, c, s, func(o *poller.Options) { o.KafkaOpts = append(o.KafkaOpts, kgo.WithHooks(hold)) })
	eventually(t, func() bool { return c.left(t) == 0 }, "the first half")
	var joins atomic.Int64
	c.fake.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.fake.KeepControl()
		joins.Add(1)
		return nil, nil, false
	})
	hold.armed.Store(true)
	c.produce(t, h.records[half:]...)
	eventually(t, hold.holding.Load, "the poll is held")
	start(t, c, s)
	eventually(t, func() bool { return joins.Load() > 0 }, "the second asks for its share")
	revoked := func() bool { return first.metricOrZero(t, "rebalances_total", "kind", "revoked") > 0 }
	held := func() bool {
		for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
			if revoked() {
				return false
			}
		}
		return true
	}()
	hold.armed.Store(false)
	close(hold.release)
	require.True(t, held, "partitions went while their records were held")
	eventually(t, revoked, "and go when they are not")
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
	require.Zero(t, first.metric(t, "rewinds_total"))
}

// A dead letter is produced with the acknowledgement of all in-sync replicas.
func TestDeadLettersAreAskedForAllAcks(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	acks := make(chan int16, 100)
	c.produce(t, &kgo.Record{Topic: c.topic, Key: []byte("k"), Value: []byte("poison")})
	c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: c.dlq, Err: kerr.NotEnoughReplicas, Count: 1, When: func(r kmsg.Request) bool {
		acks <- r.(*kmsg.ProduceRequest).Acks
		return true
	}})
	start(t, c, s)
	require.EqualValues(t, -1, <-acks)
	eventually(t, func() bool { return c.left(t) == 0 }, "it is dead-lettered")
}
