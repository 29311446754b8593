package poller_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.temporal.io/api/serviceerror"

	"github.com/rollcall-platform/rollcall/internal/device"
	"github.com/rollcall-platform/rollcall/internal/kafka"
	"github.com/rollcall-platform/rollcall/workers/poller"
)

func small(o *poller.Options) {
	o.PartitionBytes, o.TotalBytes = device.MaxSignalBytes, device.MaxSignalBytes
	o.FetchBytes = 1 << 20
	o.Window = 4
}

// A sink that stands still holds a bounded part of the backlog in memory and
// nothing of it is committed; when it moves again the fetching resumes.
func TestSlowSinkPausesAndResumes(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	h := newHistory(t, c.topic, 1500, 4)
	s.shut.Store(true)
	c.produce(t, h.records...)
	r := start(t, c, s, small)
	eventually(t, func() bool { return r.metric(t, "paused_partitions") == 2 }, "both partitions are paused")
	require.Zero(t, r.metric(t, "applied_records_total"))
	require.Equal(t, c.end(t), c.left(t), "nothing is committed")
	eventually(t, func() bool { return r.metricOrZero(t, "in_flight") == 4 && r.metric(t, "buffered_bytes") > 0 }, "the window is full")
	// Past the mark goes at most what one turn of the loop had polled.
	require.Less(t, r.metric(t, "buffered_bytes"), 4*float64(device.MaxSignalBytes))

	s.open()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	eventually(t, func() bool {
		return r.metric(t, "paused_partitions") == 0 && r.metric(t, "buffered_bytes") == 0 && r.metricOrZero(t, "lag_records") == 0
	}, "nothing is held")
	s.equal(t, h)
}

// Folding makes memory the size of the states touched, not of the backlog.
func TestBacklogFoldsIntoBoundedMemory(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 10, 800)
	s.shut.Store(true)
	c.produce(t, h.records...)
	r := start(t, c, s, func(o *poller.Options) { o.PartitionRecords = len(h.records) + 1 })
	eventually(t, func() bool { return int(r.metric(t, "records_total")) == len(h.records) }, "all is fetched")
	eventually(t, func() bool { return r.metric(t, "buffered_bytes") > 0 }, "the gauge is told")
	require.Less(t, r.metric(t, "buffered_bytes"), float64(len(h.records)*64+10*8<<10))
	s.open()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
	signals, _, _ := s.counts()
	require.LessOrEqual(t, signals, 60, "a few signals a session, whatever the number of records")
}

// A deep backlog is folded before it is applied, though the sink is ready.
func TestDeepBacklogIsReadBeforeItIsApplied(t *testing.T) {
	t.Parallel()
	const sessions, each = 20, 750
	c, s := newFake(t, 1), newTables()
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	var records []*kgo.Record
	e := device.Event{RAE: "rae-1", Type: device.Opened, Time: at}
	for e.Seq = 1; e.Seq <= each; e.Seq++ {
		for i := range sessions {
			e.Session = fmt.Sprintf("%08x-0000-4000-8000-000000000000", i)
			e.Attributes = map[string]device.Attribute{"x": {Value: fmt.Append(nil, e.Seq), Seq: e.Seq, At: at}}
			records = append(records, record(t, c.topic, e))
		}
		e.Type = device.Delta
	}
	c.produce(t, records...)
	const look = 20 * time.Millisecond // between two reads of the positions
	begun := time.Now()
	start(t, c, s, func(o *poller.Options) { o.AckMin, o.AckMax = look, look })
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	signals, _, _ := s.counts()
	oneAtATime := int(time.Since(begun) / look)
	// Beside these go those of the first turn and of the last two.
	require.LessOrEqual(t, signals, oneAtATime+3*sessions, "of %d records", len(records))
}

func TestUncommittedSpanIsBounded(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 3, 5000)
	s.shut.Store(true)
	c.produce(t, h.records...)
	r := start(t, c, s, func(o *poller.Options) { o.PartitionRecords = 100 })
	eventually(t, func() bool { return r.metric(t, "paused_partitions") == 1 }, "paused")
	require.Less(t, int(r.metric(t, "records_total")), 2100+1)
	s.open()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}

func TestTemporalOutageNeverDeadLetters(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 2), newTables()
	h := newHistory(t, c.topic, 600, 4)
	answers := []error{errUnavailable, serviceerror.NewResourceExhausted(0, "BUSY_WORKFLOW"), serviceerror.NewDeadlineExceeded("slow"), errors.New("strange")}
	n := 0
	s.setRefuse(func(device.Batch) error { s.mu.Lock(); defer s.mu.Unlock(); n++; return answers[n%len(answers)] })
	c.produce(t, h.records...)
	r := start(t, c, s, small)
	eventually(t, func() bool {
		return r.metricOrZero(t, "signals_total", "outcome", "outage") > 8 && r.metricOrZero(t, "signals_total", "outcome", "busy") > 8 && r.metric(t, "paused_partitions") > 0
	}, "the window closes and the partitions pause")
	require.Equal(t, c.end(t), c.left(t), "nothing is committed")
	s.setRefuse(nil)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
	require.Zero(t, r.metricOrZero(t, "dead_letters_total"))
}

func TestDatabaseOutageHoldsTheCommit(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 20, 4)
	down := errors.New("connection refused")
	s.readErr.Store(&down)
	c.produce(t, h.records...)
	r := start(t, c, s, func(o *poller.Options) { o.AckTimeout = time.Millisecond })
	eventually(t, func() bool { return r.metricOrZero(t, "ack_reads_total", "outcome", "error") > 5 }, "reads fail")
	require.Equal(t, c.end(t), c.left(t))
	require.Zero(t, r.metric(t, "resignals_total"), "what cannot be read is not known to be un-applied")
	up := error(nil)
	s.readErr.Store(&up)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
}

func TestBatchThatIsNotAppliedIsSignalledAgain(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 10, 5)
	lose := func(n int) bool { return n%2 == 1 }
	s.lose.Store(&lose)
	r := start(t, c, s, func(o *poller.Options) { o.AckTimeout = 50 * time.Millisecond })
	c.produce(t, h.records...)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	require.Positive(t, r.metric(t, "resignals_total"))
	s.equal(t, h)
}

// An execution that has had all the signals it may have stops its lane, and no
// other; when somebody has mended it the lane goes on by itself.
func TestSignalLimitStopsOneLane(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 10, 5)
	topic, err := device.ParseTopic(string(h.records[0].Key))
	require.NoError(t, err)
	s.setRefuse(func(b device.Batch) error {
		if b.Fold.Session == topic.Session {
			return serviceerror.NewInvalidArgument("exceeded workflow execution limit for signal events")
		}
		return nil
	})
	c.produce(t, h.records...)
	r := start(t, c, s, func(o *poller.Options) { o.StopRetry = 100 * time.Millisecond })
	eventually(t, func() bool { _, _, n := s.counts(); return n == 9 && r.metric(t, "stopped_lanes") == 1 }, "the others go on")
	require.Equal(t, c.end(t), c.left(t), "the first record is of the stopped lane")
	require.Zero(t, r.metricOrZero(t, "dead_letters_total"))
	s.setRefuse(nil)
	eventually(t, func() bool { return c.left(t) == 0 && r.metric(t, "stopped_lanes") == 0 }, "the lane goes on")
	s.equal(t, h)
}

func TestDeadLetterThatIsNotTakenHoldsTheCommit(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 3, 4)
	fault := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: c.dlq, Err: kerr.TopicAuthorizationFailed, Count: -1})
	bad := &kgo.Record{Topic: c.topic, Key: h.records[0].Key, Value: []byte("poison")}
	c.produce(t, append([]*kgo.Record{bad}, h.records...)...)
	r := start(t, c, s)
	eventually(t, func() bool {
		return r.metric(t, "dead_letter_failures_total") >= 2 && r.metric(t, "applied_records_total") > 0
	}, "others go on")
	require.Equal(t, c.end(t), c.left(t), "nothing past the poison is committed")
	require.Zero(t, r.metricOrZero(t, "dead_letters_total"))
	fault.Remove()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
	require.Equal(t, "poison", string(c.letters(t, 1)[0].Value))
}

func TestPoisonStormIsBoundedAndPasses(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	fault := c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: c.dlq, Err: kerr.TopicAuthorizationFailed, Count: -1})
	const storm = 6000
	rs := make([]*kgo.Record, storm)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: c.topic, Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 500)}
	}
	c.produce(t, rs...)
	r := start(t, c, s, small)
	eventually(t, func() bool { return r.metric(t, "paused_partitions") == 1 }, "the partition waits")
	require.Less(t, int(r.metric(t, "records_total")), storm)
	fault.Remove()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is dead-lettered")
	require.EqualValues(t, storm, r.metricOrZero(t, "dead_letters_total", "reason", string(device.TopicMismatch)))
}

func TestDeadLetterTooLargeForItsTopicIsTruncated(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	limit := "200000"
	_, err := c.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, c.dlq)
	require.NoError(t, err)
	value := []byte(strings.Repeat("z", 400_000))
	c.produce(t, &kgo.Record{Topic: c.topic, Key: []byte("k"), Value: value})
	start(t, c, s, func(o *poller.Options) {
		o.KafkaOpts = append(o.KafkaOpts, kgo.ProducerBatchCompression(kgo.NoCompression()))
	})
	eventually(t, func() bool { return c.left(t) == 0 }, "it is dead-lettered")
	l := c.letters(t, 1)[0]
	require.Equal(t, "400000", kafka.Header(l, kafka.HeaderSize))
	require.NotEmpty(t, kafka.Header(l, kafka.HeaderSHA256))
	require.True(t, bytes.HasPrefix(value, l.Value))
}

func TestBatchThatWouldNotFitMemoryIsDeadLettered(t *testing.T) {
	t.Parallel()
	for at, name := range []string{"the first of all", "in between"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := newFake(t, 1), newTables()
			h := newHistory(t, c.topic, 3, 4)
			bomb, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
				kgo.ProducerBatchMaxBytes(16<<20), kgo.BrokerMaxWriteBytes(32<<20))
			require.NoError(t, err)
			defer bomb.Close()
			c.produce(t, h.records[:at]...)
			require.NoError(t, bomb.ProduceSync(t.Context(), &kgo.Record{Topic: c.topic, Key: []byte("k"), Value: make([]byte, 8<<20)}).FirstErr())
			c.produce(t, h.records[at:]...)
			start(t, c, s, func(o *poller.Options) { o.FetchBytes = 1 << 20 })
			eventually(t, func() bool { return c.left(t) == 0 }, "consumption goes on")
			s.equal(t, h)
			l := c.letters(t, 1)[0]
			require.Equal(t, kafka.ReasonDecompress, kafka.Header(l, kafka.HeaderReason))
			require.Equal(t, strconv.Itoa(at), kafka.Header(l, kafka.HeaderOffset))
		})
	}
}

func TestFailedCommitsAreMadeAgain(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 5, 5)
	c.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: c.topic, Err: kerr.UnknownServerError, Count: 3})
	c.produce(t, h.records...)
	r := start(t, c, s)
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	require.Positive(t, r.metricOrZero(t, "commits_total", "outcome", "error"))
}

// The acks come while nobody listens: whoever lost the partition must not
// commit it, whoever has it now must apply all of it.
func TestRevokeDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 4), newTables()
	h := newHistory(t, c.topic, 40, 6)
	s.shut.Store(true)
	c.produce(t, h.records...)
	revokes := func(o *poller.Options) { o.RevokeTimeout, o.Window = 50*time.Millisecond, 48 }
	first := start(t, c, s, revokes)
	eventually(t, func() bool { n, _, _ := s.counts(); return n == 40 }, "all is in flight")
	second := start(t, c, s, revokes)
	eventually(t, func() bool { return second.metric(t, "records_total") > 0 }, "the second has its share")
	require.Equal(t, c.end(t), c.left(t), "nothing was applied, nothing is committed")
	s.open()
	eventually(t, func() bool { return c.left(t) == 0 }, "all is committed")
	s.equal(t, h)
	require.Positive(t, first.metricOrZero(t, "rebalances_total", "kind", "revoked"))
}

func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := func(ports ...int) *kfake.Cluster {
		opts := []kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(dir), kfake.SeedTopics(2, device.KafkaEvents), kfake.SeedTopics(1, device.KafkaDeadLetters)}
		if len(ports) > 0 {
			opts = append(opts, kfake.Ports(ports...))
		}
		var fake *kfake.Cluster
		eventually(t, func() (ok bool) { // somebody's connection may come from the port for a moment
			var err error
			fake, err = kfake.NewCluster(opts...)
			return err == nil
		}, "the broker starts")
		return fake
	}
	fake := begin()
	c, s := &cluster{topic: device.KafkaEvents, dlq: device.KafkaDeadLetters, group: "g", brokers: fake.ListenAddrs(), fake: fake}, newTables()
	c.connect(t)
	h := newHistory(t, c.topic, 20, 6)
	half := len(h.records) / 2
	start(t, c, s)
	c.produce(t, h.records[:half]...)
	eventually(t, func() bool { return c.left(t) == 0 }, "the first half")
	fake.Close()
	fake = begin(portOf(t, c.brokers[0]))
	t.Cleanup(fake.Close)
	c.produce(t, h.records[half:]...)
	eventually(t, func() bool { return c.left(t) == 0 }, "the second half")
	s.equal(t, h)
}

func TestMetricNamesAreFrozen(t *testing.T) {
	t.Parallel()
	c, s := newFake(t, 1), newTables()
	h := newHistory(t, c.topic, 2, 2)
	c.produce(t, append(h.records, &kgo.Record{Topic: c.topic, Value: []byte("{}")})...)
	r := start(t, c, s, func(o *poller.Options) { o.Budgets.DeadLetterBytes = 1 })
	eventually(t, func() bool {
		told := r.hasSeries(t, "over_budget_rae_records") && r.hasSeries(t, "lag_records") && r.hasSeries(t, "ready_lanes") && r.hasSeries(t, "in_flight")
		return told && c.left(t) == 0 && r.hasSeries(t, "commits_total") && r.hasSeries(t, "ack_reads_total")
	}, "it has worked, and told")
	families, err := r.metrics.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "rollcall_poller_kafka_") {
			names = append(names, strings.TrimPrefix(f.GetName(), "rollcall_poller_"))
		}
	}
	require.Less(t, len(names), len(families), "the Kafka client's own are there")
	require.Equal(t, []string{
		"ack_reads_total", "ack_seconds", "applied_records_total", "buffered_bytes", "clamped_records_total", "commit_bytes_total", "commit_seconds",
		"commits_total", "dead_letter_failures_total", "dead_letters_total", "drain_left_records", "drain_seconds", "drains_total",
		"duplicate_records_total", "fetches_total", "fold_records", "in_flight", "lag_records", "lag_seconds", "offsets_lost_total",
		"oldest_unacked_seconds", "over_budget_rae_records", "over_budget_records_total", "paused_partitions", "poll_records", "ready_lanes", "rebalances_total", "records_total",
		"resignals_total", "restarts_total", "rewinds_total", "signal_seconds", "signals_total", "stopped_lanes",
		"topic_missing", "topic_recreations_total", "waiting_lanes", "window", "window_cuts_total",
	}, names)
	// The page that dashboards and alerts are made from names the same.
	page, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(page), "## Poller\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var told []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		told = append(told, m[1])
	}
	require.ElementsMatch(t, names, told)
}

func TestOptionsAreRefusedBeforeAnythingStarts(t *testing.T) {
	for want, change := range map[string]func(*poller.Options){
		"no Temporal":     func(o *poller.Options) { o.Temporal = nil },
		"no source":       func(o *poller.Options) { o.Acks = nil },
		"no brokers":      func(o *poller.Options) { o.Kafka = kafka.Options{} },
		"window":          func(o *poller.Options) { o.Window = -1 },
		"are both":        func(o *poller.Options) { o.DeadLetterTopic = o.Topic },
		"one signal":      func(o *poller.Options) { o.PartitionBytes = 1 },
		"less than part":  func(o *poller.Options) { o.TotalBytes = 1 },
		"drain timeout":   func(o *poller.Options) { o.DrainTimeout = -1 },
		"not between 1 M": func(o *poller.Options) { o.FetchBytes = 1 },
	} {
		t.Run(want, func(t *testing.T) {
			l := &line{tables: newTables()}
			o := poller.Options{Kafka: kafka.Options{Brokers: []string{"127.0.0.1:1"}}, Topic: "t", Temporal: l, Acks: l, Registerer: prometheus.NewRegistry()}
			change(&o)
			_, err := poller.New(o)
			require.ErrorContains(t, err, want)
		})
	}
}

// Without a Kafka the poller waits, and stops when it is told to.
func TestWaitsForKafka(t *testing.T) {
	c := &cluster{brokers: []string{"127.0.0.1:1"}, topic: "t", dlq: "d", group: "g"}
	r := start(t, c, newTables())
	require.Error(t, r.Ready())
	runtime.Gosched()
	r.drain(t)
}
